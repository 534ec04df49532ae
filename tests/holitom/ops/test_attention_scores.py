"""The two attention scores against attention written out, head by head."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.ops.attention_scores import last_query_attention, received_attention
from llava.errors import InputError

SMALL = settings(derandomize=True, deadline=None, max_examples=30)


def naive_received(query, key, scale):
    """Mean over heads and queries of softmax maps, one dot product at a time."""
    images, heads, patches, _ = query.shape
    result = torch.zeros(images, patches, dtype=torch.float64)
    for image in range(images):
        for head in range(heads):
            for asking in range(patches):
                weights = [
                    math.exp(scale * float(query[image, head, asking].double() @ key[image, head, asked].double()))
                    for asked in range(patches)
                ]
                for asked in range(patches):
                    result[image, asked] += weights[asked] / sum(weights) / heads / patches
    return result


def naive_last(query, key, scale, mask):
    """Softmax row of one query per head over the real tokens only."""
    batch, heads, _ = query.shape
    result = torch.zeros(batch, key.shape[2], dtype=torch.float64)
    for row in range(batch):
        real = [position for position in range(key.shape[2]) if mask is None or mask[row, position]]
        for head in range(heads):
            shared = head // (heads // key.shape[1])
            logits = {p: scale * float(query[row, head].double() @ key[row, shared, p].double()) for p in real}
            weights = {position: math.exp(logit) for position, logit in logits.items()}
            for position, weight in weights.items():
                result[row, position] += weight / sum(weights.values()) / heads
    return result


@SMALL
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_received_attention_equals_the_maps(images, heads, patches, chunk, seed):
    torch.manual_seed(seed)
    query, key = torch.randn(2, images, heads, patches, 4)
    received = received_attention(query, key, 0.7, chunk)
    assert received.dtype == torch.float32
    assert torch.allclose(received.double(), naive_received(query, key, 0.7), atol=1e-6)
    assert torch.allclose(received.sum(1), torch.ones(images))


def test_received_attention_is_what_keys_receive_not_what_queries_give():
    """One patch that all others look at gets nearly everything; the transposed mean would be uniform."""
    query, key = torch.ones(1, 1, 4, 2), torch.zeros(1, 1, 4, 2)
    key[0, 0, 2] = 10.0
    received = received_attention(query, key, 1.0)
    assert received[0, 2] > 0.99


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_received_attention_survives_large_logits_in_low_precision(dtype):
    torch.manual_seed(0)
    query, key = (30 * torch.randn(2, 2, 2, 5, 8)).to(dtype)
    wanted = (query.double() @ key.double().mT).softmax(-1).mean(dim=(1, 2))
    assert torch.allclose(received_attention(query, key, 1.0).double(), wanted, atol=1e-5)


def test_received_attention_leaves_its_inputs_alone():
    query, key = torch.randn(2, 3, 2, 5, 4)
    before = query.clone(), key.clone()
    received_attention(query, key, 1.0, chunk=2)
    assert torch.equal(query, before[0])
    assert torch.equal(key, before[1])


def test_received_attention_of_no_images_and_bad_chunks():
    empty = torch.zeros(0, 2, 5, 4)
    assert received_attention(empty, empty, 1.0).shape == (0, 5)
    with pytest.raises(InputError, match="chunk = 0"):
        received_attention(empty, empty, 1.0, chunk=0)


@SMALL
@given(st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.integers(1, 7), st.booleans(), st.integers(0, 99))
def test_last_query_attention_equals_the_row(batch, kv_heads, group, seq, padded, seed):
    torch.manual_seed(seed)
    query, key = torch.randn(batch, kv_heads * group, 4), torch.randn(batch, kv_heads, seq, 4)
    mask = None
    if padded:
        mask = (torch.arange(seq) >= torch.randint(0, seq, (batch, 1))).long()
    row = last_query_attention(query, key, 0.5, mask)
    assert torch.allclose(row.double(), naive_last(query, key, 0.5, mask), atol=1e-6)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_padding_receives_nothing_and_changes_nothing(kind):
    """The row of a padded sequence is the row of the sequence alone, however loud the padding is."""
    torch.manual_seed(0)
    query, key = torch.randn(1, 4, 8), torch.randn(1, 2, 6, 8)
    loud = torch.cat([100 * query[:, ::2].unsqueeze(2).expand(-1, -1, 3, -1), key], dim=2)
    mask = torch.tensor([[0] * 3 + [1] * 6]).to(kind)
    padded = last_query_attention(query, loud, 0.3, mask)
    assert (padded[:, :3] == 0).all()
    assert torch.allclose(padded[:, 3:], last_query_attention(query, key, 0.3, None), atol=1e-7)


def test_query_heads_share_key_heads_in_groups():
    """Heads 0 and 1 ask key head 0, heads 2 and 3 ask key head 1; interleaving them would swap the two tokens."""
    key = torch.tensor([[[[9.0], [0.0]], [[0.0], [9.0]]]])
    query = torch.tensor([[[1.0], [1.0], [0.0], [0.0]]])
    row = last_query_attention(query, key, 1.0, None)
    assert row[0, 0] == pytest.approx(0.5 * 1 + 0.5 * 0.5, abs=1e-3)
