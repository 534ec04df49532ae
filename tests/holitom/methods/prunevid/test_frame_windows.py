"""Windows of frames from cluster labels: the worked example and the frame-by-frame loops."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.methods.prunevid.frame_windows import clean_labels, windows_of
from tests.references import prunevid as reference

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=14)


def test_clean_up_of_the_worked_example() -> None:
    cleaned = clean_labels([0, 0, 1, 0, 0, 0, 2, 2, 1, 1])
    assert windows_of(cleaned) == [(0, 5), (6, 7), (8, 9)]
    assert cleaned == [0] * 6 + [2, 2, 1, 1]


@pytest.mark.parametrize(
    ("labels", "cleaned"),
    [
        ([0], [0]),
        ([4, 5, 6], [0, 0, 0]),  # no run stays
        ([3, 3, 1, 2, 2], [3, 3, 3, 2, 2]),  # equal neighbours: the left one
        ([3, 3, 1, 2, 2, 2], [3, 3, 2, 2, 2, 2]),  # the longer one on the right
        ([1, 2, 2], [2, 2, 2]),  # only a right one
        ([0, 0, 1, 2, 2, 1, 3, 3, 3, 3], [0, 0, 0, 2, 2, 3, 3, 3, 3, 3]),
        ([0, 0, 1, 0, 0, 1, 2, 2, 2, 2], [0, 0, 0, 0, 0, 0, 2, 2, 2, 2]),  # filled frames count on the left
    ],
)
def test_clean_up(labels, cleaned) -> None:
    assert clean_labels(labels) == cleaned


@settings(max_examples=300, deadline=None, derandomize=True)
@given(labels=LABELS)
def test_clean_up_equals_the_loops(labels) -> None:
    cleaned = clean_labels(labels)
    assert windows_of(cleaned) == reference.windows(reference.clean(labels))
    assert len(labels) == 1 or all(last > first for first, last in windows_of(cleaned))
