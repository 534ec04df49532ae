"""The paper's printed numbers beside ours, one finding each, with the verdict that ``claims.json`` gives it.

Nothing is judged here. A verdict is taken over only where the claim was judged on the very number that is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.claims.flops_claims import flops_identity
from eval.claims.judging import CONTRADICTED, PARTLY, REPRODUCED, UNDECIDED
from eval.claims.score_claims import scores_identity
from eval.claims.speed_claims import figure_identity
from eval.paper.config_names import config_stem
from eval.paper.grids import Grid
from eval.paper.rows import as_record, main_rows, other_backbone_rows
from eval.paper.scores import EFFICIENCY, is_timed_geometry
from eval.report.page.blocks import NOT_JUDGED, NOT_MEASURED
from eval.report.page.claims import MAKE, judged_claim
from eval.report.page.sources import ResultFile, Sources
from eval.report.tables.scores import ScoreRow, ScoreSection, compared, score_columns, title_of

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
TALLIED = (REPRODUCED, PARTLY, UNDECIDED, CONTRADICTED, NOT_JUDGED, NOT_MEASURED)
_SAME = 1e-3  # between a number of claims.json and the one it was rounded from
_QUANTITIES = {
    "time_to_first_token": "time to first token, times faster",
    "tokens_per_second": "decoding, times faster",
}


@dataclass(frozen=True)
class Finding:
    """One printed number: ``ours`` is None where nothing comparable was measured, and ``why`` says the reason."""

    source: str
    row: str
    quantity: str
    paper: float | None
    ours: float | None
    verdict: str
    why: str = ""
    error: float | None = None
    evidence: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.paper is None or self.ours is None else self.ours - self.paper


def tally(findings: Iterable[Finding]) -> dict[str, int]:
    """How many printed numbers have which verdict; numbers the paper does not print (or not here) do not count."""
    counts = Counter(finding.verdict for finding in findings if finding.paper is not None)
    return {verdict: counts[verdict] for verdict in TALLIED}


def command_of(point: str, grids: Sequence[Grid]) -> str:
    """The command that measures a point of the paper's tables."""
    for grid in grids:
        if any(known.name == point for known in grid.points) and (SCRIPTS / f"{grid.name}.sh").is_file():
            return f"bash scripts/{grid.name}.sh"
    return f"python -m eval.benchmarks.run configs/{point}.yaml"


def score_findings(sources: Sources, section: ScoreSection, row: ScoreRow, grids: Sequence[Grid]) -> list[Finding]:
    """Our scores of one line of a table beside the paper's, for each of its benchmarks."""
    found = []
    command = command_of(row.point, grids) if row.run is None else ""
    for task in score_columns(section.runs):
        score = compared(section, row, task)
        common = (section.title, row.full_label, title_of(task), score.paper)
        if row.run is None or score.ours is None:
            found.append(Finding(*common, None, NOT_MEASURED, _missing(row, task, command)))
            continue
        verdict, why = NOT_MEASURED, "the paper's number is not known here"
        if row.paper is not None and score.paper is not None:
            verdict, why = taken_over(sources, scores_identity(*row.paper.key), score.ours, task)
        found.append(Finding(*common, score.ours, verdict, why, score.error, sources.named(row.run.folder)))
    return found


def taken_over(sources: Sources, identity: str, ours: float, name: str) -> tuple[str, str]:
    """Verdict of ``claims.json`` on a number, and the reason; ``not judged`` where it has none on this very number.

    Args:
        sources: with the claims.
        identity: of the claim.
        ours: the number that the page shows.
        name: of the number: a task with a verdict of its own, or one of the claim's numbers.
    """
    claim = judged_claim(sources, identity)
    if claim is None:
        return NOT_JUDGED, f"no verdict in claims.json: {MAKE}"
    cell = (claim.get("cells") or {}).get(name)
    numbers = claim["ours"] or {}
    value = cell["ours"] if cell else numbers.get(name)
    if value is None or abs(value - ours) > _SAME:
        return NOT_JUDGED, f"claims.json judged another measurement ({value}): {MAKE}"
    if cell is None:
        return str(claim["verdict"]), str(claim["why"])
    reason = f", {cell['why']}" if cell["why"] else ""
    return str(cell["verdict"]), f"u {cell['u']:.2f}{reason}"


def _missing(row: ScoreRow, task: str, command: str) -> str:
    if row.run is None:
        return f"not run: {command}"
    return f"withheld: {row.withheld[task]}" if task in row.withheld else f"{title_of(task)} was not run whole"


def flops_findings(sources: Sources) -> list[Finding]:
    """The FLOPs of every row of the paper's two efficiency columns, from the recorded ones if there are any.

    They are arithmetic and no measurement, so they are worked out here when no record holds them.
    """
    recorded, known = sources.of("flops"), (*main_rows(), *other_backbone_rows())
    rows = [as_record(row) for row in known]
    evidence = "worked out while this page was made, as by python -m eval.efficiency.flops"
    if recorded:
        rows, evidence = recorded[0].result["rows"], recorded[0].path
    names = {(row.model.name, row.method, row.retained): flops_identity(row) for row in known}
    found = []
    for row in rows:
        identity = names[row["model"], row["method"], row["retained_percent"]]
        verdict, why = taken_over(sources, identity, row["tflops"], "TFLOPs")
        found.append(
            Finding(
                f"FLOPs, {row['model']}",
                f"{row['method']}, {row['retained_percent']} %",
                "TFLOPs",
                row["paper_tflops"],
                row["tflops"],
                verdict,
                "" if verdict == REPRODUCED else why,
                None,
                evidence,
            )
        )
    return found


def speed_findings(sources: Sources) -> list[Finding]:
    """Speed-ups of the efficiency figure beside those of a GPU at the paper's geometry."""
    full = EFFICIENCY["Vanilla", 100]
    records = [record for record in sources.of("latency") if at_paper_geometry(record)]
    return [
        _speed(sources, records, row, key, paper)
        for row, times in EFFICIENCY.items()
        if times is not full
        for key, paper in times.against(full).items()
    ]


def at_paper_geometry(record: ResultFile) -> bool:
    """Whether latencies were taken on a GPU with the sizes of LLaVA-OneVision-7B."""
    return record.data.get("cuda") is not None and is_timed_geometry(record.result.get("geometry"))


def _speed(sources: Sources, records: Sequence[ResultFile], row: tuple[str, int], key: str, paper: float) -> Finding:
    common = ("Efficiency figure", f"{row[0]}, {row[1]} %", _QUANTITIES[key], paper)
    config = config_stem(*row)
    for record in records:
        files = [(Path(str(line.get("file") or line["config"])).stem, line) for line in record.result["rows"]]
        ratios = [float(line["against_vanilla"][key]) for stem, line in files if stem == config]
        if ratios:
            ours = min(ratios)  # one line for each clip
            verdict, why = taken_over(sources, figure_identity(key, config), ours, "ratio")
            return Finding(*common, ours, verdict, why, None, record.path)
    others = [str(record.data["device"]) for record in sources.of("latency")]
    seen = f"; latencies at hand are of other devices or sizes ({', '.join(dict.fromkeys(others))})" if others else ""
    why = f"needs LLaVA-OneVision-7B's sizes on a GPU: python -m eval.efficiency.latency{seen}"
    return Finding(*common, None, NOT_MEASURED, why)
