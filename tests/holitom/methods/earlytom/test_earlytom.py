"""EarlyTom's settings, the published ones, and the cost of the tower that merging leaves."""

import pytest

from holitom.encoded_video import FrameMerges
from holitom.methods.earlytom import PUBLISHED, EarlyTomConfig
from llava.errors import InputError


def test_published_settings() -> None:
    assert EarlyTomConfig(0.25, benchmark="mvbench").published() == (0.8, (6, 14, 20))
    assert EarlyTomConfig(0.1, benchmark="mvbench").published() == (0.65, (8, 14, 20))
    assert EarlyTomConfig(0.25, benchmark="longvideobench").published() == (0.8, (4, 14, 24))
    assert EarlyTomConfig(0.15, benchmark="videomme").published() == (0.4, (8, 21, 23))
    assert EarlyTomConfig(0.1, benchmark="egoschema").published() == (0.3, (10, 21, 23))
    assert EarlyTomConfig(0.3).published() == (0.5, (8, 21, 23))
    assert all(set(ratios) == {0.25, 0.2, 0.15, 0.1} for ratios in PUBLISHED.values())
    assert EarlyTomConfig(0.1, benchmark="mvbench").build().tower.layers == (8, 14, 20)


@pytest.mark.parametrize(
    "changes",
    [
        {"retain_ratio": 0},
        {"similarity_threshold": 1.5},
        {"tower_layers": []},
        {"tower_layers": [3, 3]},
        {"tower_layers": [5, 2]},
        {"max_frames": 1},
        {"smoothing": 0.0},
        {"keep_last_middle": "yes"},
        {"benchmark": "mlvu"},
    ],
)
def test_settings_out_of_range(changes: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(changes))} = .* is out of range"):
        EarlyTomConfig(**changes)
    with pytest.raises(InputError, match="where a benchmark is named"):
        EarlyTomConfig(0.3, benchmark="mvbench")


@pytest.mark.parametrize(
    ("layers", "strongest", "still"),
    [
        ((6, 14, 20), 0.596, 0.773),
        ((8, 14, 20), 0.625, 0.787),
        ((8, 21, 23), 0.707, 0.844),
        ((10, 21, 23), 0.736, 0.858),
        ((4, 14, 24), 0.587, 0.778),
    ],
)
def test_share_of_the_tower(layers: tuple[int, ...], strongest: float, still: float) -> None:
    """Layers up to the one behind which frames merge see all of them: off by one would show in every entry."""
    for counts, share in (((20, 12, 8), strongest), ((26, 21, 17), still)):
        targets = tuple(tuple(min(frame, count - 1) for frame in range(32)) for count in counts)
        merges = FrameMerges(32, layers, targets, [(0, 0)], received_attention=None)
        assert sum(merges.frames_per_layer(26)) / (26 * 32) == pytest.approx(share, abs=5e-4)
