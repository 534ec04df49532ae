"""Which configuration reproduces which row of the paper: methods say the name of their row there."""

from __future__ import annotations

from eval.paper.scores import MAIN_SCORES
from holitom.methods import paper_rows


def config_stem(method: str, retained: int) -> str:
    """Stem of the file in ``configs/<model>/`` that reproduces a method's row."""
    stem = paper_rows().get(method, method.lower())
    return stem if retained == 100 else f"{stem}_r{retained}"


def paper_methods() -> list[str]:
    """Stems of the main table's methods in its order, without the share."""
    return list(dict.fromkeys(config_stem(method, 100) for method, _ in MAIN_SCORES))


def slug(method: str, retained: int) -> str:
    """:func:`config_stem` as identities of claims have it."""
    return config_stem(method, retained).replace("_", "-")
