"""The columns of the benchmarks' own tables, described once."""

from collections.abc import Mapping
from typing import Any

from eval.instruments.sheets import TableColumn, factor, tenths


def _seconds(row: Mapping[str, Any]) -> dict[str, float]:
    return {"median": row["median"], "min": min(row["seconds"]), "max": max(row["seconds"])}


# rows of reuse_rows
REUSE = (
    TableColumn("way"),
    TableColumn("seconds, median (range)", _seconds, tenths),
    TableColumn("passes of the tower", "tower_passes", short="passes"),
    TableColumn("faster", "times_faster", factor),
)


def reuse_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of :data:`REUSE` of a result of ``eval.benchmarks.reuse``."""
    return [{"way": way, **found} for way, found in result["ways"].items()]
