"""Which configuration reproduces which row of the paper: methods say the name of their row there."""

from __future__ import annotations

from eval.paper.rows import PaperRow, main_rows
from holitom.methods import paper_rows


def config_stem(method: str, retained: int) -> str:
    """Stem of the file in ``configs/<model>/`` that reproduces a method's row."""
    stem = paper_rows().get(method, method.lower())
    return stem if retained == 100 else f"{stem}_r{retained}"


def config_name(row: PaperRow) -> str:
    """:func:`config_stem` of a row."""
    return config_stem(row.method, row.retained)


def paper_methods() -> list[str]:
    """Stems of the main table's methods in its order, without the share."""
    return list(dict.fromkeys(config_stem(row.method, 100) for row in main_rows()))


def slug(row: PaperRow) -> str:
    """A row's configuration as identities of claims have it."""
    return config_name(row).replace("_", "-")
