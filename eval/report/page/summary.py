"""The head of the page: verdicts counted, for the claims and for the printed numbers of each table and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.report.page.blocks import (
    NOT_MEASURED,
    Block,
    Cell,
    Column,
    Notice,
    Section,
    Sheet,
    Tally,
)
from eval.report.page.claims import MAKE, claims_tally
from eval.report.page.findings import TALLIED, Finding, tally
from eval.report.page.sources import Sources


def summary_section(sources: Sources, findings: Mapping[tuple[str, str], Sequence[Finding]]) -> Section:
    """Counts, and one line for each table and figure of the paper."""
    blocks: list[Block] = []
    if sources.claims is None:
        blocks.append(
            Notice(f"The paper's claims were not checked one by one: no claims.json. {MAKE} makes it.", "absent")
        )
    else:
        blocks.append(Tally("Claims of the paper", claims_tally(sources), "Checked one by one, see below."))
    everything = [finding for found in findings.values() for finding in found]
    note = "Scores, FLOPs and speed-ups of its tables and figures. Nothing of a tiny model or a rehearsal counts here."
    blocks.append(Tally("Numbers printed in the paper", tally(everything), note))
    columns = [Column("table or figure"), *(Column(name) for name in TALLIED), Column("why not measured", wide=True)]
    rows = []
    for (title, slug), found in findings.items():
        counts = tally(found)
        reasons = list(dict.fromkeys(one.why for one in found if one.verdict == NOT_MEASURED and one.why))
        why = "; ".join(reasons)
        if not sum(counts.values()):
            why = f"its printed scores are not known here; {why}" if why else "its printed scores are not known here"
        rows.append(
            [Cell(title, target=slug), *(Cell(str(count), float(count)) for count in counts.values()), Cell(why)]
        )
    notes = ("The paper's ablations: their numbers are known here only where they are rows of the main table as well.",)
    blocks.append(Sheet("summary-table", "Printed numbers by table and figure", columns, rows, notes))
    if sources.problems:
        blocks.append(Notice("Some results are damaged or partial; they are named in the last section.", "damaged"))
    return Section("summary", "Summary", blocks)
