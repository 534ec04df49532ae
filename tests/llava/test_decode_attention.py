"""Attention of one token to a cache of fixed size, and the cache that grows in place."""

import copy

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from transformers import DynamicCache

from llava.model.decode_attention import attend_to_cache, bias_dtype, split_attention
from llava.model.growing_cache import GrowingCache


def naive(query: Tensor, keys: Tensor, values: Tensor, real: list[list[int]], scaling: float) -> Tensor:
    """Every row and head by itself over the entries that are real, in float64."""
    batch, heads, head_dim = query.shape
    kv_heads = keys.shape[0] // batch
    out = torch.zeros(batch, heads, head_dim, dtype=torch.float64)
    for row in range(batch):
        for head in range(heads):
            at = row * kv_heads + head // (heads // kv_heads)
            scores = [float(query[row, head].double() @ keys[at, entry].double()) * scaling for entry in real[row]]
            weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
            for weight, entry in zip(weights, real[row], strict=True):
                out[row, head] += weight * values[at, entry].double()
    return out.flatten(1)


def drawn(batch: int, kv_heads: int, group: int, capacity: int, head_dim: int, dtype: torch.dtype, seed: int):
    """Random inputs; masked entries hold large finite values, which must not be seen."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, kv_heads * group, head_dim, generator=generator).to(dtype)
    keys, values = torch.randn(2, batch * kv_heads, capacity, head_dim, generator=generator).to(dtype)
    hidden = torch.rand(batch, capacity, generator=generator) < 0.4
    hidden[:, capacity // 2] = False
    masked = hidden.repeat_interleave(kv_heads, dim=0)[..., None]
    keys, values = (tensor.masked_fill(masked, 3e4) for tensor in (keys, values))
    bias = torch.zeros(batch, capacity).masked_fill(hidden, -torch.inf)
    real = [(~row).nonzero().flatten().tolist() for row in hidden]
    return query, keys.contiguous(), values.contiguous(), bias, real


SIZES = [(1, 1, 1, 1, 2), (1, 2, 7, 512, 64), (3, 2, 2, 256, 16), (2, 4, 1, 37, 8), (2, 1, 3, 513, 6)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("attend", [attend_to_cache, split_attention])
def test_float32_equals_the_naive_way(attend, sizes: tuple[int, ...]) -> None:
    query, keys, values, bias, real = drawn(*sizes, torch.float32, seed=sum(sizes))
    got = attend(query, keys, values, bias, 0.3)
    torch.testing.assert_close(got.double(), naive(query, keys, values, real, 0.3), atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attend", [attend_to_cache, split_attention])
def test_low_precision_is_held_to_twice_sdpa_s_error(attend, dtype: torch.dtype) -> None:
    errors = torch.zeros(2, dtype=torch.float64)
    for seed in range(3):
        query, keys, values, bias, real = drawn(2, 2, 7, 512, 64, dtype, seed)
        want = naive(query, keys, values, real, 0.125)
        own = attend(query, keys, values, bias.to(dtype) if attend is attend_to_cache else bias, 0.125)
        wide_keys, wide_values = (each.unflatten(0, (2, 2)).repeat_interleave(7, dim=1) for each in (keys, values))
        mask = (bias == 0)[:, None, None]
        plain = torch.nn.functional.scaled_dot_product_attention(query[:, :, None], wide_keys, wide_values, mask)
        assert own.dtype == dtype
        errors += torch.stack([(own.double() - want).norm(), (plain.flatten(1).double() - want).norm()])
    assert 0 < errors[0] <= 2 * errors[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_path_of_a_gpu_has_the_right_shapes_and_types(dtype: torch.dtype) -> None:
    """No values: tensors that only say they are on a GPU."""
    with FakeTensorMode():
        query = torch.empty(2, 28, 128, dtype=dtype, device="cuda")
        keys = torch.empty(8, 768, 128, dtype=dtype, device="cuda")
        bias = torch.empty(2, 768, dtype=bias_dtype(torch.device("cuda"), dtype), device="cuda")
        out = attend_to_cache(query, keys, keys, bias, 0.1)
    assert (out.shape, out.dtype, out.device.type) == ((2, 28 * 128), dtype, "cuda")


def filled(cache: DynamicCache, counts: list[list[int]], seed: int = 0) -> DynamicCache:
    generator = torch.Generator().manual_seed(seed)
    for layer, steps in enumerate(counts):
        for count in steps:
            keys, values = torch.randn(2, 2, 3, count, 4, generator=generator)
            whole = cache.update(keys, values, layer)
            assert all(torch.equal(one, other) for one, other in zip(whole, own(cache, layer), strict=True))
    return cache


def own(cache: DynamicCache, layer: int) -> tuple[Tensor, Tensor]:
    return cache.layers[layer].keys, cache.layers[layer].values


def assert_same(one: DynamicCache, other: DynamicCache) -> None:
    for layer in range(len(other.layers)):
        assert one.get_seq_length(layer) == other.get_seq_length(layer)
        assert all(torch.equal(*pair) for pair in zip(own(one, layer), own(other, layer), strict=True))


def test_a_growing_cache_holds_what_a_dynamic_one_holds() -> None:
    counts = [[9, 1, 1, 1, 1, 1], [5, 1, 3, 1]]
    cache = filled(GrowingCache(2, room=4), counts)
    assert_same(cache, filled(DynamicCache(), counts))
    assert isinstance(cache, DynamicCache)
    assert not cache.is_compileable


def test_a_growing_cache_copies_only_when_its_room_is_used() -> None:
    cache = filled(GrowingCache(1, room=4), [[9]])
    place = cache.layers[0].keys.data_ptr()
    filled(cache, [[1, 1, 1, 1]], seed=1)
    assert cache.layers[0].keys.data_ptr() == place
    assert cache.copied_bytes == 0
    filled(cache, [[1]], seed=2)
    assert cache.copied_bytes == 2 * 2 * 3 * 13 * 4 * 4


@pytest.mark.parametrize("change", ["crop", "select", "repeat", "gather", "copy", "reorder"])
def test_a_growing_cache_takes_over_what_others_put_into_it(change: str) -> None:
    caches = [filled(kind, [[6, 1]]) for kind in (GrowingCache(1, room=4), DynamicCache())]
    for cache in caches:
        layer = cache.layers[0]
        if change == "crop":
            cache.crop(-2)
        elif change == "select":
            cache.batch_select_indices(torch.tensor([1]))
        elif change == "repeat":
            cache.batch_repeat_interleave(2)
        elif change == "reorder":
            cache.reorder_cache(torch.tensor([1, 0]))
        elif change == "gather":
            layer.keys, layer.values = layer.keys[:, :, [0, 2, 5]], layer.values[:, :, [0, 2, 5]]
    if change == "copy":
        before = copy.deepcopy(caches[0])
        filled(caches[0], [[1]], seed=8)
        assert_same(before, caches[1])
        caches[0] = before
    rows = caches[0].layers[0].keys.shape[0]
    new = torch.randn(2, rows, 3, 1, 4)
    for cache in caches:
        cache.update(*new, 0)
    assert_same(*caches)
