"""Attention received in the tower and given by the last query: kernels against float64, beside plain torch."""

import pytest
import torch

from holitom.ops.attention_scores import last_query_attention, received_attention, received_by_segment
from holitom.ops.kernels import last_query, tower
from tests.drawn import HealthCheck, given, settings, st
from tests.holitom.ops.kernels.support import DTYPES, REAL, watched, within_twice

SMALL = [(1, 1, 1, 4), (2, 3, 65, 72), (1, 2, 130, 16), (3, 1, 7, 200), (1, 1, 9, 80), (1, 1, 9, 100), (1, 1, 9, 20)]
TOWER = [(2, 16, 729, 72), (1, 16, 730, 72)] if REAL else []


def exact_received(query, key, scale):
    return (query.double() @ key.double().mT * scale).softmax(-1).mean((1, 2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("images", "heads", "patches", "head_dim"), [*SMALL, *TOWER])
def test_received_attention(random, dtype, images, heads, patches, head_dim) -> None:
    # Heads lie between patches and channels in memory, as projections leave them.
    query, key = (2 * random(images, patches, heads, head_dim).to(dtype).transpose(1, 2) for _ in range(2))
    scale = head_dim**-0.5
    wanted, plain = exact_received(query, key, scale), received_attention(query.cpu(), key.cpu(), scale)
    received = tower.received_attention(query, key, scale)
    assert received.shape == (images, patches)
    assert received.dtype == torch.float32
    within_twice(received, plain, wanted)
    naive = ((query @ key.mT) * scale).softmax(-1).mean((1, 2))
    assert (received - wanted).abs().max() <= 2 * (naive.double() - wanted).abs().max() + 1e-7


def test_received_attention_of_large_logits_and_any_stride(random) -> None:
    query, key = 60 * random(1, 2, 8, 40), 60 * random(1, 2, 40, 8).mT.mT
    query, key = query.mT, key
    assert query.stride(-1) != 1
    within_twice(
        tower.received_attention(query, key, 1.0),
        exact_received(query, key, 1.0).float(),
        exact_received(query, key, 1.0),
        1e-3,  # logits of 3e4 are rounded by as much before they are exponents
    )


def test_received_attention_is_the_same_in_every_run(random) -> None:
    query, key = random(2, 3, 70, 20), random(2, 3, 70, 20)
    once, again = (tower.received_attention(query, key, 0.2) for _ in range(2))
    assert torch.equal(once, again)


def test_the_library_takes_the_kernel(random, kernels_on, monkeypatch) -> None:
    query, key = random(2, 2, 30, 8), random(2, 2, 30, 8)
    calls = watched(monkeypatch, "received_attention")
    within_twice(
        received_attention(query, key, 0.3),
        exact_received(query, key, 0.3).float(),
        exact_received(query, key, 0.3),
        1e-6,
    )
    packed = received_by_segment(query[0], key[0], [10, 20], 0.3)
    within_twice(packed[10:], packed[10:], exact_received(query[:1, :, 10:], key[:1, :, 10:], 0.3)[0], 1e-6)
    assert len(calls) == 3
    with torch.enable_grad():
        received_attention(query.requires_grad_(), key, 0.3).sum().backward()
    assert len(calls) == 3
    assert query.grad is not None
    received_attention(query.detach().double(), key.double(), 0.3)
    assert len(calls) == 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_frames_that_follow_each_other_are_one_launch(random, dtype, kernels_on, monkeypatch) -> None:
    query, key = (random(33, 2, 8).to(dtype).transpose(0, 1) for _ in range(2))
    lengths = [7, 7, 7, 5, 7]
    frames = zip(query.split(lengths, 1), key.split(lengths, 1), strict=True)
    alone = [tower.received_attention(asking[None], asked[None], 0.3)[0] for asking, asked in frames]
    calls = watched(monkeypatch, "received_attention")
    assert torch.equal(received_by_segment(query, key, lengths, 0.3), torch.cat(alone))
    assert [len(call[0]) for call in calls] == [3, 1, 1]
    assert {part.dtype for call in calls for part in call[:2]} == {dtype}


QWEN = [(1, 28, 4, 640, 128), (2, 14, 2, 6273, 64)] if REAL else []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padded", [None, torch.bool, torch.int64])
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "seq", "head_dim"), [(2, 6, 2, 150, 40), (1, 1, 1, 1, 3), (2, 21, 1, 65, 16), *QWEN]
)
def test_last_query(random, device, dtype, padded, batch, heads, kv_heads, seq, head_dim) -> None:
    query, key = random(batch, heads, head_dim).to(dtype), random(batch, seq, kv_heads, head_dim).to(dtype)
    key, mask = key.transpose(1, 2), None
    if padded:
        mask = torch.ones(batch, seq, dtype=padded, device=device)
        mask[0, : seq * 3 // 4] = 0  # whole blocks of keys among it
    wide = key.double().repeat_interleave(heads // kv_heads, 1)
    logits = (query.double()[:, :, None] @ wide.mT)[:, :, 0] * 0.3
    if mask is not None:
        logits = logits.masked_fill(mask[:, None] == 0, -torch.inf)
    wanted = logits.softmax(-1).mean(1)
    row = last_query.last_query_attention(query, key, 0.3, mask)
    within_twice(row, last_query_attention(query.cpu(), key.cpu(), 0.3, mask if mask is None else mask.cpu()), wanted)
    if mask is not None:
        assert (row[0, : seq * 3 // 4] == 0).all()


@pytest.mark.parametrize("padding", [0, 1050])
def test_last_query_among_many_blocks(random, device, padding) -> None:
    """More blocks than are joined at a time: all of the first ones are padding, or the largest logit comes late."""
    seq = 64 * 17 + 3
    query, key = random(1, 2, 16), random(1, 1, seq, 16)
    key[0, 0, -1] = 3 * query[0, 0]
    mask = torch.arange(seq, device=device)[None] >= padding
    logits = ((query.double() @ key[0, 0].double().T) * 0.5).masked_fill(~mask[:, None], -torch.inf)
    wanted = logits.softmax(-1).mean(1)
    within_twice(last_query.last_query_attention(query, key, 0.5, mask), wanted.float(), wanted)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 90), st.integers(1, 3), st.integers(1, 40))
def test_rows_sum_to_one(random, patches, heads, head_dim) -> None:
    query, key = random(1, heads, patches, head_dim), random(1, heads, patches, head_dim)
    assert tower.received_attention(query, key, 0.5).sum().item() == pytest.approx(1, abs=1e-5)
    assert last_query.last_query_attention(query[:, :, 0], key, 0.5, None).sum().item() == pytest.approx(1, abs=1e-5)


def test_the_library_takes_the_kernel_for_the_last_query(random, kernels_on, monkeypatch) -> None:
    query, key = random(1, 4, 8), random(1, 2, 30, 8)
    calls = watched(monkeypatch, "last_query_attention")
    last_query_attention(query, key, 0.3, None)
    assert len(calls) == 1
