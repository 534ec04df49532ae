"""A bar where a terminal looks on, nothing elsewhere; the items are the same."""

import io
import sys

import pytest

from eval.instruments.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "shown"), [(Terminal(), False, True), (Terminal(), True, False), (io.StringIO(), False, False)]
)
def test_a_bar_on_a_terminal_alone(
    stream: io.StringIO, quiet: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress(iter("abc"), "Letters", 5, 2, quiet)) == ["a", "b", "c"]
    text = stream.getvalue()
    assert ("Letters" in text and "2/5" in text) == shown
    assert bool(text) == shown
