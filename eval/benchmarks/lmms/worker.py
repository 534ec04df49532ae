"""One process of a benchmark run; ``eval.benchmarks.run`` starts it in the environment that the harness needs.

python -m eval.benchmarks.lmms.worker JOB.json            answers all questions and writes the result
python -m eval.benchmarks.lmms.worker JOB.json --share    answers the share of this process (RANK of WORLD_SIZE)
python -m eval.benchmarks.lmms.worker JOB.json --score    writes the result from the shares
"""

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.benchmarks.lmms import models
from eval.benchmarks.lmms.answer_log import Entry, Served, entry_of
from eval.benchmarks.lmms.answering import ShareAnswered
from eval.benchmarks.lmms.claims import WorkClaim
from eval.benchmarks.lmms.harness import evaluate, replay, task_manager
from eval.benchmarks.lmms.records import RECORDS, with_records
from eval.benchmarks.lmms.results import write_results
from eval.benchmarks.lmms.summary import RunRequest, make_result, make_samples
from eval.benchmarks.plugin import CLASSES
from eval.instruments.cli import Parser, provenance, user_errors
from eval.instruments.record import write_whole
from eval.paper.benchmarks import HARNESS
from eval.synthetic.world.dataset import VARIABLE
from llava.errors import InputError

ANSWERS, LOGS, CACHE = "answers", "logs", "cache"


@dataclass(frozen=True)
class Job:
    """What ``eval.benchmarks.run`` asks of its processes; paths are absolute.

    Attributes:
        model: id of the stock model.
        arguments: of our model, ``pretrained`` and ``config`` among them.
        tasks: names, as given.
        limit: questions per task, or None.
        include_path: folder with more task definitions, or None.
        output: folder of the result.
        config_file: the configuration as it was named.
        overrides: settings that replace the file's, as given.
        checkpoint: likewise.
        fixture: whether the data are those of :mod:`eval.benchmarks.data.fixtures`.
        on_bad_video: "stop" or "count".
        processes: how many answer.
        started: seconds since the epoch.
        harness: version of lmms-eval whose definitions ask, read and score.
        definitions: folder of that version, None for the installed one.
        save_records: keep every question's record, see :mod:`eval.benchmarks.lmms.records`.
        reuse: encode a video once for all its questions.
        prefetch: videos read while the model answers; neither changes an answer.
        array: folder of the shares below ``answers`` where they are started apart (``--share``).
    """

    model: str
    arguments: dict[str, Any]
    tasks: list[str]
    limit: int | None
    include_path: str | None
    output: str
    config_file: str
    overrides: list[str]
    checkpoint: str
    fixture: bool
    on_bad_video: str
    processes: int
    started: float
    save_records: bool = False
    harness: str = HARNESS
    definitions: str | None = None
    reuse: bool = True
    prefetch: int = 1
    array: str | None = None

    @property
    def folder(self) -> Path:
        """Of the result."""
        return Path(self.output)

    @property
    def shares(self) -> Path:
        """Folder of what the processes leave to each other."""
        return self.folder / ANSWERS / (self.array or "")

    def share(self, rank: int) -> Path:
        """Where a process leaves what it answered."""
        return self.shares / f"share-{rank}.json"

    def error(self, rank: int) -> Path:
        """Where a process says why it stopped."""
        return self.folder / LOGS / f"rank-{rank}.error"


def answer(job: Job, share: int | None = None, claim: WorkClaim | None = None) -> tuple[Any, Any]:
    """Load the model and answer; returns it with the harness' outcome, None for a share.

    Args:
        job: what is asked.
        share: number of the process, if it answers the questions about its videos alone.
        claim: on this share, if it was started apart.
    """
    task_manager(job.model, tuple(job.tasks), job.include_path, job.definitions)  # a wrong name waits for no model
    built = getattr(models, CLASSES[job.model])
    records = str(job.folder / RECORDS) if job.save_records else None
    ways: dict[str, Any] = {"on_bad_video": job.on_bad_video, "reuse": job.reuse, "prefetch": job.prefetch}
    if claim is not None:
        ways["log"] = f"rank-{job.array}-{share}.{claim.turn}"
    model = built(answers=str(job.folder / ANSWERS), records=records, **ways, **job.arguments)
    if claim is not None:
        model.log.guard = claim.check
    if share is not None:
        model.share = (share, job.processes)
        os.environ.update(RANK="0", WORLD_SIZE="1")  # the harness would share out questions, and each video with them
    try:
        return model, evaluate(model, job.model, job.tasks, job.limit, job.include_path, job.definitions)
    except ShareAnswered:
        return model, None
    finally:
        model.close()


def answer_share(job: Job, rank: int, claim: WorkClaim | None = None) -> None:
    """Answer this process' share and leave it for :func:`score`."""
    model, _ = answer(job, rank, claim)
    served: Served = model.served
    entries = [asdict(entry) for entry in served.entries.values()]
    facts = {entry.name: getattr(served, entry.name) for entry in fields(served)}
    if claim is not None:
        claim.check()
    write_whole(job.share(rank), json.dumps({**facts, "entries": entries}))


def collect(job: Job) -> Served:
    """The shares of all processes as one.

    Raises:
        InputError: if a share is missing, two answered one question, or they ran different things.
    """
    shares = [_read_share(job.share(rank), rank) for rank in range(job.processes)]
    if len({share["setup_key"] for share in shares}) != 1:
        raise InputError("the processes ran on different hardware or code: start them on equal machines")
    entries: dict[tuple[str, int], Entry] = {}
    for share in shares:
        for raw in share["entries"]:
            entry = entry_of(raw)
            if entry is None:
                raise InputError(f"{job.share(0).parent} holds a damaged share: run the same command again")
            if (entry.task, entry.doc_id) in entries:
                raise InputError(f"task {entry.task}, question {entry.doc_id} was answered by two processes")
            entries[entry.task, entry.doc_id] = entry
    counts = {name: sum(share[name] for share in shares) for name in ("computed", "resumed", "encoded")}
    return replace(Served(**{**shares[0], "entries": {}}), entries=entries, **counts)


def _read_share(path: Path, rank: int) -> dict[str, Any]:
    try:
        share = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InputError(f"process {rank} left no answers: run the same command again") from None
    names = {entry.name for entry in fields(Served)}
    if not isinstance(share, dict) or set(share) != names or not isinstance(share["entries"], list):
        raise InputError(f"{path} is no share of answers: run the same command again")
    return share


def finish(job: Job, served: Served, outcome: Any) -> dict[str, Any]:
    """Write the result; returns it."""
    now = time.time()
    times = {
        "started": datetime.fromtimestamp(job.started, UTC).isoformat(timespec="seconds"),
        "finished": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "wall_seconds": now - job.started,
        "processes": job.processes,
    }
    names = (entry.name for entry in fields(RunRequest) if entry.name != "times")
    asked = RunRequest(**{name: getattr(job, name) for name in names}, times=times)
    named = (os.environ.get("HF_HOME"), os.environ.get(VARIABLE), job.include_path)
    roots = [root for root in named if root is not None]
    samples = make_samples(outcome, served, roots)
    if job.save_records:
        samples = with_records(samples)
    result = make_result(asked, served, outcome, samples)
    write_results(job.folder, result, samples)
    shutil.rmtree(job.folder / ANSWERS / CACHE, ignore_errors=True)
    return result


def run(job: Job) -> dict[str, Any]:
    """Answer and score in this process."""
    model, outcome = answer(job)
    return finish(job, model.served, outcome)


def score(job: Job) -> dict[str, Any]:
    """Score what several processes answered."""
    served = collect(job)
    outcome = evaluate(replay(served), job.model, job.tasks, job.limit, job.include_path, job.definitions)
    return finish(job, served, outcome)


@contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Ctrl-C while a ``with`` block answers: one line that says what is kept, and exit status 130."""
    try:
        yield
    except KeyboardInterrupt:
        kept = sum(path.read_bytes().count(b"\n") for path in (folder / ANSWERS).glob("rank-*.jsonl"))
        sys.stderr.write(f"stopped: {kept} answers are kept in {folder / ANSWERS}; the same command continues\n")
        sys.exit(130)


def read_job(path: Path) -> Job:
    """The job that a file holds."""
    return Job(**json.loads(path.read_text(encoding="utf-8")))


def _share_with_log(job: Job) -> None:
    """A share with its output in a file of its own, and its error where the starting process finds it."""
    rank = int(os.environ["RANK"])
    os.environ.pop("ACCELERATE_USE_CPU", None)  # else the stock models would look for one GPU per process
    log = os.open(job.folder / LOGS / f"rank-{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        answer_share(job, rank)
    except BaseException as error:
        user = isinstance(error, InputError)
        text = str(error) if user else f"{type(error).__name__}: {error}"
        write_whole(job.error(rank), json.dumps({"user": user, "text": text}))
        if not user:
            traceback.print_exc()
        raise


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--share", action="store_true", help="answer the share of this process")
    parser.add_argument("--score", action="store_true", help="write the result from the shares")
    options = parser.parse_args(arguments)
    job = read_job(options.job)
    if options.share:
        _share_with_log(job)
        return
    with interruptible(job.folder):
        result = score(job) if options.score else run(job)
    scores = {name: facts["score"] for name, facts in {**result["tasks"], **result["groups"]}.items()}
    bad = len(result["bad_videos"])
    sys.stdout.flush()
    print(json.dumps({"output": job.output, "scores": scores, "bad_videos": bad, **provenance()}))


if __name__ == "__main__":
    main()
