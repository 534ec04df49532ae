"""FlashVID inside the LLM: counts, the newline that always stays, positions, and the recordings of the release."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from holitom.methods.flashvid import FlashVidConfig
from holitom.methods.flashvid.inner import kept_with_newline, late_pruning, pruned_length
from holitom.ops.pruning import keep_best
from llava.errors import InputError
from tests.tiny_models import greedily, prompt, video

GOLDENS = sorted((Path(__file__).parents[3] / "goldens_newer").glob("flashvid_llm_prune_*.safetensors"))
SETTINGS = {"retain_ratio": 0.1, "min_segments": 2, "prune_layer": 4}


def test_counts() -> None:
    assert [pruned_length(tokens, 0.3) for tokens in (1984, 1568, 1184, 800, 81)] == [596, 471, 356, 240, 25]
    assert late_pruning(4, 0.3).stages[0].kept(82) == 25, "without a record no newline is known"
    assert kept_with_newline(82, 0.3, exempt=False) == 25


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_recorded_run(path: Path) -> None:
    facts, data = json.loads(path.with_suffix(".json").read_text()), load_file(path)
    start, length = facts["start"], facts["visual_length"]
    count = pruned_length(length, facts["settings"]["llm_retention_ratio"])
    assert count == facts["kept_visual"]
    found = keep_best(data["hidden"][0], data["attention_last_row"].mean(0), ((start, start + length),), (count,))
    assert torch.equal(found.kept.int(), data["keep"].int().flatten())
    assert torch.equal(data["position_ids"].flatten().int(), data["keep"].flatten().int()), "positions are kept"


def test_the_newline_stays_though_it_ranks_last() -> None:
    """Ten tokens of which the last is the newline: three of nine and the newline; without one three of ten."""
    hidden = torch.arange(15.0).view(1, 15, 1)
    scores = -torch.arange(15.0).view(1, 15)
    inner, spans = late_pruning(4, 0.3), (((2, 12),),)
    for mode, kept in (("one_token", [2, 3, 4, 11]), ("no_token", [2, 3, 4])):
        inner.start_prompt(SimpleNamespace(newline_mode=mode))
        (counts,), notes = inner.rules.plan(inner.stages, spans, inner.outer)
        assert counts == ((len(kept),),)
        call = SimpleNamespace(spans=spans, first=(0,), notes=notes)
        reduced = inner.rules.reduce(call, counts, hidden, scores)
        assert reduced.kept[0].tolist() == [0, 1, *kept, 12, 13, 14]
    assert scores[0, 11] == -11, "the scores of the record are untouched"


@pytest.mark.parametrize("newline", ["one_token", "grid", "no_token"])
def test_the_newline_behind_a_video_is_kept_and_not_counted(model, newline: str) -> None:
    """The best tokens by the last prompt token's attention in the layer before; newlines inside a video count."""
    model.config.mm_newline_position = newline
    with FlashVidConfig(**SETTINGS).build().applied(model) as compressor:
        greedily(model, prompt(5, "video", 7), 2, images=[video(6, cuts=(3,))], modalities=["video"])
        record, inner = compressor.record, compressor.record.inner
    ((start, stop),) = inner.spans[0]
    kept, exempt = inner.kept[0].tolist(), int(newline == "one_token")
    inside = [place for place in kept if start <= place < stop]
    visual = stop - start - exempt
    assert len(inside) == pruned_length(visual, 0.3) + exempt
    scores = inner.stages[0].scores[0]
    ranked = sorted(range(start, start + visual), key=lambda place: (-float(scores[place]), place))
    want = sorted(ranked[: pruned_length(visual, 0.3)]) + [stop - 1] * exempt
    assert inside == want
    if exempt:
        assert float(scores[stop - 1]) != torch.inf, "the record holds the attention itself"
        assert record.tokens_per_layer(6) == [visual] * 4 + [pruned_length(visual, 0.3)] * 2
    assert set(range(start)) <= set(kept), "all text stays"


def test_the_average_of_the_layers_is_the_ratio() -> None:
    for ratio, total in ((0.25, 62), (0.2, 49), (0.15, 37), (0.1, 25)):
        visual = 32 * total
        average = (20 * visual + 8 * pruned_length(visual, 0.3)) / 28 / (32 * 196)
        assert average == pytest.approx(ratio, rel=0.025), "counts are rounded up"


def test_a_budget_of_whole_frames_keeps_everything(model) -> None:
    with FlashVidConfig(retain_ratio=0.85, llm_keep_ratio=1.0, prune_layer=4).build().applied(model) as compressor:
        greedily(model, prompt(5, "video", 7), 1, images=[video(3)], modalities=["video"])
        assert compressor.record.tokens_after_outer == [3 * 196]


@pytest.mark.parametrize(
    "changes",
    [
        {"retain_ratio": 0.0},
        {"expansion": 0},
        {"picked_share": 1.1},
        {"link_threshold": 2},
        {"min_segments": 0},
        {"tree_mean": 1},
        {"llm_keep_ratio": 0},
        {"prune_layer": True},
    ],
)
def test_settings_out_of_range(changes: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(changes))} = .* is out of range"):
        FlashVidConfig(**changes)
