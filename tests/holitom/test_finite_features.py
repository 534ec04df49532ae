"""One check of the features for every method: what is not finite reaches no LLM, what is finite is not called NaN."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from holitom import available_methods
from holitom.compressor import Compressor
from holitom.ops.selection import check_finite, sound_frames
from holitom.settings import from_mapping
from llava.errors import InputError
from tests.tiny_models import hook_count, prompt, video

SMALL: dict[str, dict[str, Any]] = {
    "earlytom": {"tower_layers": [0], "similarity_threshold": 1.0, "inner": {"merge_layer": 4}},
    "fastvid": {"min_segments": 3},
    "flashvid": {"prune_layer": 4},
    "holitom": {"inner": {"merge_layer": 4}},
    "pdrop": {"drop_layers": [1, 3, 4]},
}
METHODS = sorted(available_methods())


def compressor_of(name: str) -> Compressor:
    return from_mapping(available_methods()[name], SMALL.get(name, {})).build()


def compress(model, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """A video through the method with changed features."""
    with compressor_of(name).applied(model), torch.no_grad():
        hook = model.model.mm_projector.register_forward_hook(lambda module, args, output: change(output))
        with hook:
            model.splice_visuals(prompt(3, "v", 2), None, None, [video(6)], None, ["video"])


def spoiled(value: float) -> Callable[[Tensor], Tensor]:
    def change(output: Tensor) -> Tensor:
        output = output.clone()
        output[4, :, 7] = value
        return output

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", METHODS)
def test_features_that_are_not_finite(model, name: str, value: float) -> None:
    with pytest.raises(InputError, match=r"features has NaN or infinite values in 1 of 6 frames \(frame 4\)"):
        compress(model, name, spoiled(value))
    assert hook_count(model) == 0


@pytest.mark.parametrize("name", METHODS)
def test_large_features_are_not_called_nan(model, name: str) -> None:
    """1e30 is finite, and its square is not: no cosine can be made of it."""
    with pytest.raises(InputError, match=r"features has values too large to compare in 1 of 6 frames .*reach 1e\+30"):
        compress(model, name, spoiled(1e30))
    compress(model, name, lambda output: output * 1e8)  # large, and every length is finite


@pytest.mark.parametrize("name", METHODS)
def test_features_in_double_precision(model, name: str) -> None:
    compress(model, name, lambda output: output.double())
    with pytest.raises(InputError, match=r"features has values too large to compare in 1 of 6 frames"):
        compress(model, name, lambda output: spoiled(1e200)(output.double()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_frames_against_a_count(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 5, 33, generator=generator).to(dtype)
    for frame, value in enumerate([float("nan"), float("inf"), -float("inf"), torch.finfo(dtype).max, 0.0] * 8):
        place = torch.randint(5 * 33, (1,), generator=generator)
        values[frame].view(-1)[place] = value
    lengths = values.double().square().sum(-1).sqrt()
    wanted = (lengths.isfinite() & (lengths <= torch.finfo(torch.float32).max)).all(1)
    if dtype != torch.float16:  # the largest bfloat16 and float32 squared are beyond float32
        wanted &= values.abs().double().amax((1, 2)) < 1e19
    assert sound_frames(values).tolist() == wanted.tolist()


def test_sums_that_overflow_are_no_matter() -> None:
    """Two values that cancel and two whose sum is beyond float32 count by themselves."""
    check_finite(features=torch.full((2, 3, 4), 1e18), attention=torch.full((2, 3), 3e38))
    with pytest.raises(InputError, match="attention has NaN"):
        check_finite(features=torch.zeros(2, 3, 4), attention=torch.full((2, 3), torch.inf))
