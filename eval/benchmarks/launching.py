"""The processes of a benchmark run: their environment, the folder they write to, torchrun where there are several."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from eval import HOME, PACKAGE
from eval.benchmarks.lmms.records import RECORDS
from eval.benchmarks.lmms.results import RESULT, SAMPLES, SUBMISSION
from eval.benchmarks.lmms.worker import ANSWERS, CACHE, LOGS, Job
from eval.benchmarks.shares import forget_scored
from eval.instruments.record import check_target, write_whole
from eval.synthetic.world.dataset import VARIABLE, data_folder
from llava.errors import InputError

JOB = "job.json"


def environment(job: Job, data: Path | None) -> dict[str, str]:
    """The environment in which the harness finds the data and asks no server.

    Raises:
        InputError: if the folder of the data is not one.
    """
    found = {**os.environ, "HF_DATASETS_CACHE": str(job.folder / ANSWERS / CACHE), "TOKENIZERS_PARALLELISM": "false"}
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        found[name] = "1"
    if data is not None:
        for folder in (data / "hf", data / "data"):
            if not folder.is_dir():
                raise InputError(f"{folder} is no folder: --data names the folder that holds hf/ and data/")
        found["HF_HOME"] = str((data / "hf").resolve())
    found[VARIABLE] = str(data_folder().absolute())  # relative to the caller's folder, which the processes leave
    found["PYTHONPATH"] = os.pathsep.join([HOME, *filter(None, [os.environ.get("PYTHONPATH")])])
    return found


def prepare(job: Job, resume: bool) -> Path:
    """Make the folder of the result, without an old result in it; returns the file of the job."""
    check_target(job.folder / RESULT)
    for name in (RESULT, SAMPLES, SUBMISSION):  # an old result beside a failed run would pass for its result
        (job.folder / name).unlink(missing_ok=True)
    if not resume:
        shutil.rmtree(job.folder / ANSWERS, ignore_errors=True)
        shutil.rmtree(job.folder / RECORDS, ignore_errors=True)
    shutil.rmtree(job.folder / ANSWERS / CACHE, ignore_errors=True)
    shutil.rmtree(job.folder / LOGS, ignore_errors=True)
    (job.folder / LOGS).mkdir()
    for old in (job.folder / ANSWERS).glob("share-*.json"):
        old.unlink()
    forget_scored(job)  # this run replaces their result
    path = job.folder / ANSWERS / JOB
    write_whole(path, json.dumps(asdict(job)))
    return path


def answer_in_processes(job: Job, path: Path, env: dict[str, str], folder: Path) -> None:
    """Let several processes answer a share each.

    Raises:
        InputError: if one of them fails or is killed; finished answers stay in the log.
    """
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(job.processes)]
    print(f"{job.processes} processes answer; see {job.folder / LOGS}", file=sys.stderr, flush=True)
    log = job.folder / LOGS / "launcher.log"
    with log.open("w") as out:
        ended = subprocess.run(
            [*launch, "-m", f"{PACKAGE}.benchmarks.lmms.worker", str(path), "--share"],
            env=env,
            cwd=folder,
            stdout=out,
            stderr=out,
        )
    if ended.returncode == 0:
        return
    errors = [json.loads(file.read_text()) for file in sorted((job.folder / LOGS).glob("rank-*.error"))]
    for error in sorted(errors, key=lambda error: not error["user"]):
        raise InputError(
            error["text"] if error["user"] else f"a process failed ({error['text']}): see {job.folder / LOGS}"
        )
    raise InputError(
        f"a process was killed (status {ended.returncode}): see {job.folder / LOGS}; finished answers are kept, the "
        "same command continues"
    )
