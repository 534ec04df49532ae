"""docs/scaling.md holds what its command prints."""

from eval.efficiency.scaling import lines
from eval.paper.scores import CONFIGS


def test_the_page_holds_the_table() -> None:
    assert "\n".join(lines()) in (CONFIGS.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
