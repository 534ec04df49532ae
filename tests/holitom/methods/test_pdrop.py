"""PyramidDrop: worked example, counts, settings, and the whole model; the decoder itself is in hooks/test_staged.py."""

from functools import partial

import pytest
import torch

from holitom.methods.pdrop import PdropConfig
from holitom.ops.pruning import truncated_length
from llava.errors import InputError
from tests.references import flash_stub
from tests.references.inner_checks import DIM, LAYERS, tiny_model
from tests.tiny_models import greedily, prompt, video

SMALL = PdropConfig([1, 3, 4])


@pytest.mark.parametrize(
    ("span", "kept"),
    [(8, (4, 2, 1)), (7, (3, 1, 1)), (6272, (3136, 1568, 784)), (6273, (3136, 1568, 784)), (1, (1, 1, 1))],
)
def test_counts(span, kept):
    """The specification's example, its edge case with the floor of one token, and 32 frames of 196 tokens."""
    inner, model = SMALL.build().inner, tiny_model()
    embeds = torch.randn(1, span + 20, DIM, generator=torch.Generator().manual_seed(0))
    with inner.applied(model.model):
        hidden = model.model(inputs_embeds=embeds, video_spans=torch.tensor([[[14, span + 14]]])).last_hidden_state
    assert hidden.shape[1] == kept[-1] + 20
    assert inner.last.tokens_per_layer(LAYERS) == [[span, kept[0], kept[0], kept[1], kept[2], kept[2]]]


def test_truncated_length():
    assert [truncated_length(6273, ratio) for ratio in (0.5, 0.25, 0.125)] == [3136, 1568, 784]
    assert truncated_length(0, 0.5) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"drop_layers": []},
        {"drop_layers": 2},
        {"drop_layers": [2, 7]},
        {"drop_layers": [2, 7, 7]},
        {"drop_layers": [7, 2, 14]},
        {"drop_layers": [0, 2, 3]},
        {"drop_layers": [2, 3.5, 4]},
        {"drop_layers": [True, 3, 4]},
        {"keep_ratios": [0.25, 0.5, 0.125]},
        {"keep_ratios": [0.5, 0.25, 0]},
        {"keep_ratios": [1.5, 0.25, 0.1]},
        {"keep_ratios": [0.5, 0.25, float("nan")]},
        {"keep_ratios": "half"},
    ],
)
def test_wrong_settings(settings):
    with pytest.raises(InputError, match=r"drop_layers|keep_ratios"):
        PdropConfig(**settings)


def test_a_stage_beyond_the_last_layer(model):
    with pytest.raises(InputError, match=r"drop_layers = 7 is out of range.*\[1, 5\]"):
        PdropConfig().build().apply(model)
    assert model.visual_compressor is None


greedy = partial(greedily, steps=4)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash stub"])
def test_whole_model_with_two_videos_and_a_ragged_batch(model, attention):
    rows = [prompt(5, "video", 9, "video", 2, seed=1), prompt(3, "video", 4, seed=3)]
    clips = [video(3, seed=1), video(2, seed=4), video(4, seed=9)]
    ids = torch.full((2, rows[0].shape[1]), 256)
    ids[0], ids[1, -rows[1].shape[1] :] = rows[0][0], rows[1][0]
    model.set_attn_implementation(flash_stub.register() if attention == "flash stub" else attention)
    before = greedy(model, ids, attention_mask=ids.ne(256), images=clips, modalities="video")
    with SMALL.build().applied(model) as compressor:
        together = greedy(model, ids, attention_mask=ids.ne(256), images=clips, modalities="video")
        record = compressor.record
        assert record.inner.tokens_per_layer(6)[0] == [589, 294, 294, 147, 73, 73]
        assert record.inner.tokens_after == ((73, 49), (98,))
        for number, (row, part) in enumerate(zip(rows, (clips[:2], clips[2:]), strict=True)):
            alone = greedy(model, row, images=part, modalities="video")
            for got, want in zip(together.logits, alone.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=1e-4, rtol=0)
    after = greedy(model, ids, attention_mask=ids.ne(256), images=clips, modalities="video")
    assert torch.equal(torch.stack(after.logits), torch.stack(before.logits))
