"""Reads a folder of results: recorded JSON, benchmark runs, claims, answers and pictures; says what cannot be read.

Nothing here ends the program for one bad file: it is left out and named with the reason, and the page says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from eval.benchmarks.lmms.results import RESULT, SAMPLES
from eval.benchmarks.loading import load_run
from eval.benchmarks.runs import Run, average
from eval.instruments.kinds import kind_of, read_json
from eval.paper.grids import Grid
from eval.report.page.blocks import slugged
from eval.report.tables.scores import ScoreSection
from eval.report.tables.sections import sections
from llava.errors import InputError

CLAIMS = "claims.json"
# what a damaged file makes fail when it is read as what it claims to be
DAMAGE = (
    InputError,
    OSError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    ArithmeticError,
    StopIteration,
)
_PROVENANCE = ("command", "commit", "device", "result")
_OTHERS = {"point.json", "job.json", "submission.json", "fixture.json", "manifest.json"}
_PICTURES = ("token_maps", "maps")  # folders whose pictures are token maps
Made = TypeVar("Made")


@dataclass(frozen=True)
class ResultFile:
    """A file that ``python -m eval.instruments.record`` wrote.

    Attributes:
        path: below the folder of results.
        data: command, date, commit, device and versions.
        result: what the command found.
        sha256: of the file.
        kind: what it is, as it states itself.
    """

    path: str
    data: dict[str, Any]
    result: dict[str, Any]
    sha256: str
    kind: str = "other"

    @property
    def slug(self) -> str:
        """The path as an id on the page."""
        return slugged(self.path.removesuffix(".json"))


@dataclass(frozen=True)
class Problem:
    """A file that is not shown, and why."""

    path: str
    reason: str


@dataclass
class Sources:
    """Everything the page is made from; ``folder`` is the folder of results as it was named, ``whole_claims`` the
    claims that were looked at (:func:`eval.report.page.claims.claims_of`).
    """

    folder: Path
    records: list[ResultFile] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    claims: ResultFile | None = None
    problems: list[Problem] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    saved: list[Path] = field(default_factory=list)
    whole_claims: list[Mapping[str, Any]] | None = field(default=None, repr=False)
    _sections: dict[bool, list[tuple[str, ScoreSection]]] = field(default_factory=dict, repr=False)

    def sections(self, grids: Sequence[Grid], rehearsals: bool = False) -> list[tuple[str, ScoreSection]]:
        """Kind and section of every table of the paper, of the real runs or of the rehearsals; made once."""
        if rehearsals not in self._sections:
            runs = [run for run in self.runs if (run.rehearsal is not None) == rehearsals]
            self._sections[rehearsals] = list(sections(runs, grids))
        return self._sections[rehearsals]

    def named(self, path: Path) -> str:
        """A path as the page names it: below the folder of results where it lies there."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else path.as_posix()

    def spoiled(self, path: str, error: BaseException | str) -> None:
        """Note a file that cannot be shown; the same complaint only once."""
        reason = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        problem = Problem(path, reason or type(error).__name__)
        if problem not in self.problems:
            self.problems.append(problem)

    def tried(self, path: str, make: Callable[..., Made], *arguments: Any) -> list[Made]:
        """What ``make`` returns, or nothing and a note when the file is not what it claims to be."""
        try:
            return [make(*arguments)]
        except DAMAGE as error:
            self.spoiled(path, error)
            return []

    def of(self, kind: str) -> list[ResultFile]:
        """The records of one kind, see :data:`eval.instruments.kinds.KINDS`."""
        return [record for record in self.records if record.kind == kind]


def read_sources(folder: Path, claims: Path | None = None) -> Sources:
    """Read everything below a folder.

    Args:
        folder: of the results.
        claims: the file of ``eval.claims``; default ``claims.json`` in the folder.

    Raises:
        InputError: the folder or the claims that were named do not exist.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name the one that holds the results, for instance results")
    if claims is not None and not claims.is_file():
        raise InputError(f"--claims {claims} is no file: name the claims.json of python -m eval.claims")
    sources = Sources(folder)
    wanted = folder / CLAIMS if claims is None else claims
    if wanted.is_file():
        sources.claims = next(iter(sources.tried(sources.named(wanted), read_claims, sources, wanted)), None)
    run_folders = {path.parent for name in (RESULT, SAMPLES) for path in folder.rglob(name)}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".npz":
            sources.saved.append(path)
        elif path.suffix == ".png" and path.parent.name in _PICTURES:
            sources.pictures.append(path)
        elif path.suffix == ".json" and path != wanted and path.name not in _OTHERS and path.parent not in run_folders:
            sources.tried(sources.named(path), _record, sources, path)
    _runs(sources, sorted(run_folders))
    return sources


def _record(sources: Sources, path: Path) -> None:
    data, sha256 = read_json(path)
    if "result" not in data:
        sources.others.append(sources.named(path))
        return
    lacking = [key for key in _PROVENANCE if not isinstance(data.get(key), dict if key == "result" else str)]
    if lacking:
        raise InputError(
            f"is no result of python -m eval.instruments.record: it lacks {', '.join(lacking)}; measure it again"
        )
    facts = {key: value for key, value in data.items() if key != "result"}
    sources.records.append(ResultFile(sources.named(path), facts, data["result"], sha256, kind_of(data)))


def read_claims(sources: Sources, path: Path) -> ResultFile:
    """The claims and their verdicts, as ``eval.claims`` wrote them."""
    data, sha256 = read_json(path)
    if data.get("schema") != 1 or not isinstance(data.get("claims"), list):
        raise InputError("is no claims.json of schema 1: run scripts/verify_claims.sh again")
    facts = {key: value for key, value in data.items() if key != "claims"}
    return ResultFile(sources.named(path), facts, {"claims": data["claims"]}, sha256)


def _runs(sources: Sources, folders: Iterable[Path]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for folder in folders:
        for run in sources.tried(sources.named(folder), _run, folder):
            key = (run.campaign, run.name)
            if key in seen:
                sources.spoiled(sources.named(folder), f"the same point as {sources.named(seen[key])}: keep one")
                continue
            seen[key] = folder
            sources.runs.append(run)


def _run(folder: Path) -> Run:
    """A run after everything that the page uses of it was looked at once."""
    run = load_run(folder)
    average(run)
    for stage in ("before_llm", "inside_llm", "layer_mean"):
        float(run.result["retention"][stage]["mean"])
    for key in ("commit", "setup_hash", "fixture"):
        _ = run.result[key]
    for sample in run.samples:
        tokens = sample["tokens"]
        for key in ("before", "before_llm", "inside_llm") if tokens is not None else ():
            float(tokens[key])
        _ = sample["video"], sample["doc_id"], sample["prompt"], sample["video_sha256"], sample["frames_sha256"]
    return run
