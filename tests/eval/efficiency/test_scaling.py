"""docs/scaling.md holds what its command prints."""

from collections.abc import Callable

import pytest

from eval.efficiency.scaling import million, reuse, table
from holitom.shipped import CONFIGS


@pytest.mark.parametrize("part", [table, reuse, million])
def test_the_page_holds_what_the_command_prints(part: Callable[[], list[str]]) -> None:
    assert "\n".join(part()) in (CONFIGS.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
