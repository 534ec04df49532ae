"""The first section of the tables: which method beats HoliTom at its own share on the learned tiny model."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eval.efficiency.tradeoff import method_of
from eval.instruments.sheets import TableColumn
from eval.report.readme.measured import from_files, section, source
from eval.report.tables.layout import Interval
from holitom.methods import title_of

SHARE = 10  # percent of the visual tokens, the share of the abstract
KEY = "against_holitom"


def _right(frames: str, row: Mapping[str, Any]) -> float:
    """Right answers in percent."""
    return 100 * float(row[frames]["score"])


def _mean(numbers: Sequence[str], row: Mapping[str, Any]) -> float:
    """Right answers over all numbers of frames."""
    return sum(_right(frames, row) for frames in numbers) / len(numbers)


def _against(frames: str, row: Mapping[str, Any]) -> str | None:
    """Points against HoliTom with their interval, in percent."""
    found = row[frames].get(KEY)
    if found is None:
        return None
    return f"{Interval.of_shares(found).range()} {found['verdict']}"


def field_section(record: dict[str, Any]) -> list[str]:
    """Every method at the share, those with most right answers first."""
    by_frames: dict[str, dict[str, Any]] = record["result"]["by_frames"]
    names = [name for name in next(iter(by_frames.values())) if method_of(name)[1] == SHARE]
    rows: list[dict[str, Any]] = [
        {"title": title_of(method_of(name)[0]), **{at: found[name] for at, found in by_frames.items()}}
        for name in names
    ]
    rows.sort(key=partial(_mean, list(by_frames)), reverse=True)
    columns = [TableColumn("method", "title")]
    for frames in by_frames:
        columns.append(TableColumn(f"right at {frames} frames, %", partial(_right, frames), ".1f"))
        columns.append(TableColumn("points against HoliTom [95 %]", partial(_against, frames)))
    better = [row for row in rows if all((row[at].get(KEY) or {}).get("verdict") == "better" for at in by_frames)]
    titles = ", ".join(row["title"] for row in better) or "none"
    text = (
        f"**Better than HoliTom at {SHARE} % of the tokens at every number of frames: {titles}.** Learned tiny model "
        f"on rendered clips, {record['result']['questions']} questions, differences paired by question, intervals over "
        "clips: an instrument, not evidence about the 7B model."
    )
    return section(text, columns, rows, f"From {source(record)}.")


def field(results: Path) -> str:
    """The section; called not measured where nothing was.

    Raises:
        InputError: if the result file cannot be read.
    """
    lines = from_files(results, "tradeoff.json", "tradeoff", field_section)
    return "\n".join(lines).rstrip() or "`tradeoff.json`: not measured."
