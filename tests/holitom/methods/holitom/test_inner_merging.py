"""Merging into the nearest kept token against loops, against the recorded release and by worked example."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.torch import load_file

from holitom.methods.holitom import inner_merging
from holitom.methods.holitom.batch_merging import merge_batch, merge_sequence
from holitom.methods.holitom.inner_merging import merge_into_nearest
from holitom.ops.short_sequences import kept_length
from llava.errors import InputError
from tests.references.decoder import merge_reference

GOLDENS = Path(__file__).parents[3] / "goldens"
CASES = sorted(path.stem for path in GOLDENS.glob("inner_*.json"))
SMALL = examples(derandomize=True, deadline=None, max_examples=60)


def test_goldens_are_there():
    assert len(CASES) == 8


@pytest.mark.parametrize("case", CASES)
def test_equals_the_recorded_release(case):
    data, facts = load_file(GOLDENS / f"{case}.safetensors"), json.loads((GOLDENS / f"{case}.json").read_text())
    span = (facts["image_start"], facts["image_start"] + facts["image_length"])
    merged = merge_into_nearest(data["hidden"][0].float(), data["attn_row"].float(), [span], facts["r"])
    assert torch.equal(merged.kept, data["keep_indices"].long())
    assert (merged.hidden - data["merged_hidden"][0]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("length", "ratio", "kept"),
    [(641, 0.5, 320), (961, 0.5, 480), (1281, 0.5, 640), (1569, 0.5, 784), (323, 0.5, 162), (97, 0.3, 68),
     (20, 0.9, 2), (10, 0.0, 10), (1, 0.5, 1), (2, 0.99, 1), (0, 0.5, 0)],
)  # fmt: skip
def test_kept_length(length, ratio, kept):
    assert kept_length(length, ratio) == kept


# Tokens 0 and 2 are kept, 1 and 3 point along 0.
STATES = torch.tensor([[1.0, 0.0], [2.0, 0.2], [0.0, 1.0], [4.0, 0.1]])
SCORES = torch.tensor([0.4, 0.1, 0.3, 0.2])


def test_worked_example_of_the_sequential_rule():
    merged = merge_into_nearest(STATES, SCORES, [(0, 4)], 0.5)
    assert merged.kept.tolist() == [0, 2]
    assert merged.source.tolist() == [0, 0, 2, 0]
    assert torch.allclose(merged.hidden[0], 0.25 * STATES[0] + 0.25 * STATES[1] + 0.5 * STATES[3])
    assert torch.equal(merged.hidden[1], STATES[2])


def test_worked_example_of_the_mean_rule():
    merged = merge_into_nearest(STATES, SCORES, [(0, 4)], 0.5, "mean")
    assert torch.allclose(merged.hidden[0], (STATES[0] + STATES[1] + STATES[3]) / 3)


@st.composite
def cases(draw):
    """A sequence with up to three spans; scores from a few values, so that ties occur."""
    torch.manual_seed(draw(st.integers(0, 999)))
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=7))
    bounds = [sum(lengths[:end]) for end in range(len(lengths) + 1)]
    spans = [(bounds[part], bounds[part + 1]) for part in range(1, len(lengths), 2)]
    hidden = torch.randn(bounds[-1], 5)
    scores = torch.randint(0, draw(st.sampled_from([2, 1000])), (bounds[-1],)).float()
    return hidden, scores, spans, draw(st.sampled_from([0.0, 0.3, 0.5, 0.75, 0.95]))


@SMALL
@given(cases(), st.sampled_from(["sequential", "mean"]))
def test_equals_loops(case, rule):
    hidden, scores, spans, ratio = case
    if not len(hidden):
        return
    merged = merge_into_nearest(hidden, scores, spans, ratio, rule)
    kept, states = merge_reference(hidden, scores, spans, ratio, rule)
    assert merged.kept.tolist() == kept
    assert torch.allclose(merged.hidden.double(), states, atol=1e-5)
    outside = [position for position in range(len(hidden)) if not any(a <= position < b for a, b in spans)]
    assert merged.source[outside].tolist() == outside
    for start, stop in spans:
        targets = set(merged.source[start:stop].tolist())
        assert targets == {position for position in kept if start <= position < stop}
    assert torch.equal(merged.source[merged.kept], merged.kept)


def test_ties_go_to_the_earlier_token():
    merged = merge_into_nearest(torch.eye(6)[:, :4].contiguous(), torch.ones(6), [(0, 6)], 0.5)
    assert merged.kept.tolist() == [0, 1, 2]
    assert merged.source.tolist() == [0, 1, 2, 0, 0, 0]


def test_similarity_ignores_length():
    """A long vector at an angle has the larger dot product, the short parallel one the larger cosine."""
    hidden = torch.tensor([[10.0, 10.0], [0.1, 0.0], [1.0, 0.0]])
    merged = merge_into_nearest(hidden, torch.tensor([3.0, 2.0, 1.0]), [(0, 3)], 0.4)
    assert merged.source.tolist() == [0, 1, 1]


def test_ratio_zero_returns_the_sequence():
    merged = merge_into_nearest(STATES, SCORES, [(1, 4)], 0.0)
    assert torch.equal(merged.hidden, STATES)
    assert merged.kept.tolist() == merged.source.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("rule", ["sequential", "mean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_rounded_once(dtype, rule):
    """Everything runs in fp32: decisions and states are those of the same numbers in fp32, rounded at the end."""
    torch.manual_seed(0)
    hidden, scores = (2000 * torch.rand(200, 8)).to(dtype), torch.rand(200)
    merged = merge_into_nearest(hidden, scores, [(0, 200)], 0.9, rule)
    exact = merge_into_nearest(hidden.float(), scores, [(0, 200)], 0.9, rule)
    assert merged.hidden.dtype == dtype
    assert torch.equal(merged.source, exact.source)
    assert torch.equal(merged.hidden, exact.hidden.to(dtype))


def test_equal_inputs_give_equal_bits_and_inputs_stay():
    torch.manual_seed(0)
    hidden, scores = torch.randn(200, 16), torch.rand(200)
    before = hidden.clone()
    first, second = (merge_into_nearest(hidden, scores, [(10, 190)], 0.5).hidden for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(hidden, before)


@pytest.mark.parametrize("spans", [[(0, 5)], [(2, 4), (1, 2)], [(0, 3), (2, 4)], [(-1, 2)], [(3, 2)]])
def test_bad_spans(spans):
    with pytest.raises(InputError, match="span"):
        merge_sequence(STATES, SCORES, spans, 0.5)


def test_batch_is_compacted_to_the_right():
    """Row 1 has two tokens of padding and no video; row 0 merges four tokens into two."""
    hidden, scores = torch.stack([STATES, STATES + 5]), torch.stack([SCORES, SCORES])
    batch = merge_batch(hidden, scores, [((0, 4),), ()], [0, 1], 0.5, "mean")
    assert batch.kept.tolist() == [[-1, 0, 2], [1, 2, 3]]
    assert batch.source.tolist() == [[0, 0, 2, 0], [-1, 1, 2, 3]]
    assert batch.padded
    assert (batch.hidden[0, 0] == 0).all()
    assert torch.equal(batch.hidden[1], hidden[1, 1:])
    assert torch.equal(batch.hidden[0, 1:], merge_into_nearest(STATES, SCORES, [(0, 4)], 0.5, "mean").hidden)
    assert not merge_batch(hidden, scores, [((0, 4),), ((0, 4),)], [0, 0], 0.5, "mean").padded


@pytest.mark.parametrize("rule", ["sequential", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cache_full_of_bags_at_a_time_changes_no_number(dtype, rule, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(70, 16, generator=generator).to(dtype)
    hidden[20:30] = hidden[5] + 0.1 * hidden[20:30]  # one bag of many members
    scores, spans = torch.rand(70, generator=generator), [(3, 40), (41, 42), (42, 70)]
    at_once = merge_into_nearest(hidden, scores, spans, 0.5, rule)
    sizes = []
    plain = inner_merging.embedding_bag
    monkeypatch.setattr(
        inner_merging, "embedding_bag", lambda *given, **named: sizes.append(1) or plain(*given, **named)
    )
    monkeypatch.setattr(inner_merging, "CACHED_ELEMENTS", 20)
    parts = merge_into_nearest(hidden, scores, spans, 0.5, rule)
    assert len(sizes) > 6
    assert torch.equal(parts.hidden, at_once.hidden)
    assert torch.equal(parts.source, at_once.source)
