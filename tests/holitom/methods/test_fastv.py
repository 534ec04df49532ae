"""FastV: worked example, counts, settings, and the whole model; the decoder itself is in hooks/test_staged.py."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.methods.fastv import FastvConfig
from holitom.ops.pruning import keep_best, prune_batch
from holitom.ops.short_sequences import kept_length
from llava.errors import InputError
from tests.references import flash_stub
from tests.references.inner_checks import DIM, LAYERS, tiny_model
from tests.tiny_models import greedily, prompt, video

STEPS = 4


def test_example_of_the_specification():
    """Span of 5 tokens, 40 % kept: tokens 1 and 4, in this order."""
    hidden, scores = torch.arange(7.0)[:, None], torch.tensor([9.0, 0.10, 0.30, 0.05, 0.25, 0.30, 0.0])
    assert kept_length(5, 0.6) == 2
    kept = keep_best(hidden, scores, ((1, 6),), [2])
    assert kept.kept.tolist() == [0, 2, 5, 6]
    assert kept.hidden.flatten().tolist() == [0, 2, 5, 6]
    assert kept.source.tolist() == [0, -1, 2, -1, -1, 5, 6]


def test_ties_go_to_the_earlier_token():
    kept = keep_best(torch.zeros(40, 1), torch.zeros(40), ((0, 40),), [7])
    assert kept.kept.tolist() == list(range(7))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_keep_best_equals_sorting(data):
    seq = data.draw(st.integers(1, 24))
    bounds = sorted(data.draw(st.lists(st.integers(0, seq), unique=True, max_size=6)))
    spans = tuple(zip(bounds[::2], bounds[1::2], strict=False))
    counts = [data.draw(st.integers(1, stop - start)) for start, stop in spans]
    values = data.draw(st.lists(st.integers(0, 4), min_size=seq, max_size=seq))
    wanted = {place for place in range(seq) if not any(start <= place < stop for start, stop in spans)}
    for (start, stop), count in zip(spans, counts, strict=True):
        wanted |= set(sorted(range(start, stop), key=lambda place: (-values[place], place))[:count])
    pruned = keep_best(torch.randn(seq, 3), torch.tensor(values).float(), spans, counts)
    assert pruned.kept.tolist() == sorted(wanted)
    assert pruned.source.tolist() == [place if place in wanted else -1 for place in range(seq)]


def test_rows_of_a_batch_are_padded_on_the_left():
    hidden = torch.arange(12.0).reshape(2, 6, 1)
    scores = torch.tensor([[0, 3.0, 1, 2, 0, 0], [0, 0, 0, 0, 1.0, 0]])
    batch = prune_batch(hidden, scores, [((1, 4),), ((3, 5),)], [0, 2], [(2,), (1,)])
    assert batch.kept.tolist() == [[0, 1, 3, 4, 5], [-1, -1, 2, 4, 5]]
    assert batch.source.tolist() == [[0, 1, -1, 3, 4, 5], [-1, -1, 2, -1, 4, 5]]
    assert batch.hidden[..., 0].tolist() == [[0, 1, 3, 4, 5], [0, 0, 8, 10, 11]]
    assert batch.first == (0, 2)
    assert batch.padded


@pytest.mark.parametrize(("span", "kept"), [(6272, 1254), (6273, 1255)])
def test_counts_of_the_table(span, kept):
    """32 frames of 196 tokens, and the newline token that the span includes."""
    inner, model = FastvConfig().build().inner, tiny_model()
    embeds = torch.randn(1, span + 20, DIM, generator=torch.Generator().manual_seed(0))
    with inner.applied(model.model):
        hidden = model.model(inputs_embeds=embeds, video_spans=torch.tensor([[[14, span + 14]]])).last_hidden_state
    assert hidden.shape[1] == kept + 20
    assert inner.last.tokens_per_layer(LAYERS) == [[span] * 2 + [kept] * (LAYERS - 2)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("prune_layer", value) for value in (0, -1, 2.0, True, None)],
        *[("prune_ratio", value) for value in (1, -0.1, float("nan"), "0.5")],
    ],
)
def test_wrong_settings(field, value):
    with pytest.raises(InputError, match=rf"{field} = .* must be"):
        FastvConfig(**{field: value})


greedy = partial(greedily, steps=STEPS)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash stub"])
def test_whole_model_with_two_videos_and_a_ragged_batch(model, attention):
    rows = [prompt(5, "video", 9, "video", 2, seed=1), prompt(3, "video", 4, seed=3)]
    clips = [video(3, seed=1), video(2, seed=4), video(4, seed=9)]
    ids = torch.full((2, rows[0].shape[1]), 256)
    ids[0], ids[1, -rows[1].shape[1] :] = rows[0][0], rows[1][0]
    mask = ids.ne(256)
    with FastvConfig().build().applied(model) as compressor:
        model.set_attn_implementation(flash_stub.register() if attention == "flash stub" else attention)
        together = greedy(model, ids, attention_mask=mask, images=clips, modalities="video")
        record = compressor.record
        assert record.tokens_after_outer == record.tokens_before == [3 * 196, 2 * 196, 4 * 196]
        assert record.inner.tokens_before == ((589, 393), (785,))
        assert record.inner.tokens_after == ((118, 79), (157,))
        for number, (row, part) in enumerate(zip(rows, (clips[:2], clips[2:]), strict=True)):
            alone = greedy(model, row, images=part, modalities="video")
            for got, want in zip(together.logits, alone.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=1e-4, rtol=0)


def test_labels_follow_the_kept_tokens_and_nothing_is_left(model):
    ids, inputs = prompt(5, "video", 9), {"images": [video(4)], "modalities": ["video"]}
    before = greedy(model, ids, **inputs)
    labels = ids.masked_fill(ids < 0, -100)
    with FastvConfig().build().applied(model), torch.no_grad():
        out = model(input_ids=ids, labels=labels, **inputs)
    wanted = torch.nn.functional.cross_entropy(out.logits[0, -9:-1], ids[0, -8:], reduction="sum")
    start = torch.nn.functional.cross_entropy(out.logits[0, :4], ids[0, 1:5], reduction="sum")
    middle = torch.nn.functional.cross_entropy(out.logits[0, -10:-9], ids[0, -9:-8], reduction="sum")
    torch.testing.assert_close(out.loss, (wanted + start + middle) / 13)
    after = greedy(model, ids, **inputs)
    assert torch.equal(torch.stack(after.logits), torch.stack(before.logits))
