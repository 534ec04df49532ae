"""What ``exact_kept`` says before there is a video is what the prompt then holds."""

from pathlib import Path
from typing import Any

import pytest

from holitom import load_config
from holitom.serving import PromptMaker, VideoRequest, exact_kept
from llava.errors import InputError
from tests.holitom.serving.serving_cases import METHODS, frames

FILLED = [{**method, "fill_budget": True} for method in METHODS.values() if method is not None]
PER_FRAME = 196


@pytest.mark.parametrize("method", FILLED, ids=lambda method: method["method"])
def test_prompts_hold_the_count_that_was_said(served_checkpoint: Path, method: dict[str, Any]) -> None:
    maker = PromptMaker(served_checkpoint, dtype="float32")
    requests = [VideoRequest(frames(count, seed), "Why?", method) for seed, count in ((1, 3), (2, 4))]
    counts = {number: prompt.visual_tokens for number, prompt in maker.prompts(requests)}
    for number, count in enumerate((3, 4)):
        assert counts[number] == (count * PER_FRAME, exact_kept(method, count, PER_FRAME))


def test_a_filled_method_is_cached_apart(served_checkpoint: Path) -> None:
    """The kept tokens of the method as it is are others."""
    maker, clip = PromptMaker(served_checkpoint, dtype="float32"), frames(4, 3)
    methods = [METHODS["holitom"], {**(METHODS["holitom"] or {}), "fill_budget": True}]
    found = dict(maker.prompts([VideoRequest(clip, "Why?", method) for method in methods]))
    assert found[0].visual_tokens[1] < found[1].visual_tokens[1]
    assert maker.counts.compressions == 2


def test_rows_and_refusals() -> None:
    row = "llava_onevision_7b/holitom_without_inner_r10"
    assert exact_kept(load_config(row, ["fill_budget=true"]), 32, PER_FRAME) == 667
    assert exact_kept(None, 32, PER_FRAME) == 32 * PER_FRAME
    for method, frames_given, message in (
        (row, 32, "set fill_budget = true"),
        ({"method": "earlytom", "inner": None, "fill_budget": True}, 32, "merge inside the vision tower"),
        ({"method": "fastv", "fill_budget": True}, 32, "needs a stage before the LLM"),
        (None, 0, "frames = 0 is out of range"),
        (None, True, "frames = True is out of range"),
    ):
        with pytest.raises(InputError, match=message):
            exact_kept(method, frames_given, PER_FRAME)
