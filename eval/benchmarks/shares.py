"""One share of a benchmark run, started by any scheduler: an array job, pods, or several shells on one folder.

``eval.benchmarks.run ... --share I/N``, I from 0 to N - 1, answers the questions about some of the videos: each video
belongs to one share, and all shares have about as many questions. The last share to finish scores; ``--merge N`` scores
as well, for a file system that shows new files late. Shares need a common folder and nothing else. Each writes a log of
its own, a share that died is taken over by whoever starts it again, and one that lives refuses a second process
(:mod:`eval.benchmarks.lmms.claims`). No file lock is used.
"""

import json
import os
import re
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from eval import PACKAGE
from eval.benchmarks.lmms import worker
from eval.benchmarks.lmms.claims import WorkClaim, WorkTaken
from eval.benchmarks.lmms.results import RESULT
from eval.benchmarks.lmms.worker import ANSWERS, Job, read_job, score
from eval.instruments.cli import Parser, user_errors
from eval.instruments.fingerprints import digest
from eval.instruments.record import check_target, write_whole
from llava.errors import InputError, shown

SCORED = "scored"
# what may differ between the shares of one run: times, and ways that change no answer
_FREE = ("started", "output", "include_path", "definitions", "reuse", "prefetch", "array", "config_file")


def share_of(text: str) -> tuple[int, int]:
    """``I/N`` as two numbers.

    Raises:
        InputError: unless 0 <= I < N.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not int(found[1]) < int(found[2]):
        raise InputError(f"--share {shown(text)} is no share: it must be I/N with I from 0 to N - 1, as 0/3")
    return int(found[1]), int(found[2])


def share_words(options: Namespace) -> list[str]:
    """``--share I/N`` or ``--merge N`` as it was given; no word without either.

    Raises:
        InputError: for both, or one that is out of range.
    """
    if options.share is not None and options.merge is not None:
        raise InputError("--share scores when all are answered, --merge scores alone: give one of them")
    if options.share is not None:
        share_of(options.share)
        return ["--share", options.share]
    return [] if options.merge is None else ["--merge", str(options.merge)]


def shared_job(job: Job, processes: int) -> Job:
    """The job as all its shares have it: one folder for shares of the same questions in the same number."""
    job = replace(job, processes=processes)
    asked = {name: value for name, value in asdict(job).items() if name not in _FREE}
    places = ("config", "pretrained")  # machines may mount the folders elsewhere; the weights are compared by hash
    asked["arguments"] = {name: value for name, value in job.arguments.items() if name not in places}
    asked["config"] = Path(job.arguments["config"]).read_text(encoding="utf-8")
    return replace(job, array=f"of{processes}-{digest(asked)[:12]}")


def hand_over(job: Job) -> tuple[Path, str]:
    """The job as a file for its processes, and an empty folder of this machine for the library of the questions.

    Raises:
        InputError: if the result could not be written.
    """
    check_target(job.folder / RESULT)
    path = job.shares / f"job-{uuid4().hex}.json"  # process numbers repeat on other machines, folders are elsewhere
    write_whole(path, json.dumps(asdict(job)))
    return path, tempfile.mkdtemp(prefix="questions-")  # the library locks its cache


def unanswered(job: Job) -> list[int]:
    """Numbers of the shares that are not done."""
    return [rank for rank in range(job.processes) if not job.share(rank).exists()]


def is_scored(job: Job) -> bool:
    """Whether the result in the folder is that of these shares."""
    return (job.shares / SCORED).exists() and (job.folder / RESULT).exists()


def forget_scored(job: Job) -> None:
    """Before another run's result: no shares in the folder have scored."""
    for old in (job.folder / ANSWERS).glob(f"*/{SCORED}"):
        old.unlink(missing_ok=True)


def enter_share(job: Job, options: Namespace, env: Mapping[str, str]) -> NoReturn:
    """Become the process of a share (``--share``) or the one that scores (``--merge``).

    Raises:
        InputError: for options that do not fit together.
    """
    share_words(options)
    if options.num_processes != 1 or not options.resume:
        raise InputError("--share and --merge go without --num-processes and --no-resume: delete the folder instead")
    number, processes = share_of(options.share) if options.share is not None else (None, options.merge)
    path, cache = hand_over(shared_job(job, processes))
    if options.data is not None:
        os.chdir(options.data / "data")
    step = [] if number is None else ["--share", str(number)]
    command = [sys.executable, "-m", f"{PACKAGE}.benchmarks.shares", str(path), cache, *step]
    sys.stdout.flush()
    os.execve(sys.executable, command, {**env, "HF_DATASETS_CACHE": cache})


def run_share(job: Job, number: int) -> None:
    """Answer a share unless all is scored; score if it was the last.

    Raises:
        InputError: if another process answers this share.
    """
    with WorkClaim(job.shares, f"share-{number}") as claim:
        if is_scored(job):
            print(json.dumps({"output": job.output, "share": number, "scored": True}))
            return
        job.share(number).unlink(missing_ok=True)
        (job.folder / RESULT).unlink(missing_ok=True)  # of another run: no share of this one has scored
        forget_scored(job)
        worker.answer_share(job, number, claim)
    if left := unanswered(job):
        print(json.dumps({"output": job.output, "share": number, "left": left}))
    else:
        score_once(job)


def score_once(job: Job) -> None:
    """Score unless another process does or did.

    Raises:
        InputError: if a share is missing, or the folder cannot be written.
    """
    try:
        claim = WorkClaim(job.shares, "score")
    except WorkTaken as error:  # of two that finish together one scores
        print(json.dumps({"output": job.output, "scored_by_another": str(error)}))
        return
    with claim:
        if not is_scored(job):
            score(job)
            (job.shares / SCORED).touch()
    print(json.dumps({"output": job.output, "scored": True}))


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("job", type=Path, help="written by eval.benchmarks.run --share or --merge; removed at the end")
    parser.add_argument("cache", type=Path, help="folder for the library of the questions; removed at the end")
    parser.add_argument("--share", type=int, metavar="I", help="answer this share; without it, score")
    parser.add_argument("--keep", action="store_true", help="remove nothing: other processes use the same")
    options = parser.parse_args(arguments)
    job = read_job(options.job)
    try:
        if options.share is None:
            score_once(job)
        else:
            run_share(job, options.share)
    finally:
        if not options.keep:
            options.job.unlink(missing_ok=True)
            shutil.rmtree(options.cache, ignore_errors=True)


if __name__ == "__main__":
    main()
