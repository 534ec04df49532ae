"""The whole outer stage: naive loops, worked examples, properties, precision, errors, and reads of the device."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from holitom.methods.holitom import outer, temporal_merging, temporal_segmentation
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from holitom.ops import token_ops
from holitom.tokens import TokenKind
from llava.errors import InputError
from tests.references import outer as reference


def video(seed=0, frames=8, tokens=24, dim=16, **how):
    return tuple(map(torch.from_numpy, reference.structured_video(seed, frames, tokens, dim, **how)))


def compress(features, attention, order="block", **fields):
    return OuterCompression(OuterConfig(**fields))(features, attention, order)


def expected_kinds(found, frames, tokens):
    kinds = np.full((frames, tokens), TokenKind.DYNAMIC_DROPPED)
    for t, p in found.static_dropped:
        kinds[t, p] = TokenKind.STATIC_DROPPED
    names = {"static": TokenKind.STATIC_MERGED, "contextual": TokenKind.CONTEXTUAL_MERGED}
    centers = {"static": TokenKind.STATIC_CENTER, "contextual": TokenKind.CONTEXTUAL_CENTER}
    for frame, position, _, origin, kind in found.entries:
        for t, p in origin:
            kinds[t, p] = names.get(kind, TokenKind.DYNAMIC_KEPT)
        kinds[frame, position] = centers.get(kind, TokenKind.DYNAMIC_KEPT)
    return kinds


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(1, 9),
    tokens=st.integers(1, 14),
    noise=st.sampled_from([0.05, 0.3, 0.6]),
    moving=st.sampled_from([0.0, 0.4, 1.0]),
    cut_every=st.integers(1, 6),
    order=st.sampled_from(["block", "raster"]),
    retain_ratio=st.sampled_from([0.05, 0.1, 0.25, 0.6, 1.0]),
    similarity_threshold=st.sampled_from([0.65, 0.8]),
    neighbors=st.sampled_from([1, 2, 3, 7]),
    max_segment_frames=st.sampled_from([1, 2, 3, 1024]),
    segmentation=st.sampled_from(["global", "global", "greedy", "fixed"]),
    static_rule=st.sampled_from(["clusters", "clusters", "attention"]),
    contextual_ratio=st.sampled_from([0.0, 0.0, 0.4, 1.0]),
    plain_mean=st.booleans(),
)
def test_equals_the_naive_loops(
    seed, frames, tokens, noise, moving, cut_every, order, retain_ratio, similarity_threshold, neighbors, **rest
):
    how = {"noise": noise, "moving": moving, "cut_every": cut_every}
    features, attention = video(seed, frames, tokens, **how)
    config = OuterConfig(retain_ratio, similarity_threshold, neighbors=neighbors, **rest)
    expected = reference.compress(features.numpy(), attention.numpy(), config, order)
    found = OuterCompression(config)(features, attention, order)
    details = found.details
    assert details.segments == expected.segments
    assert details.removable == expected.removable
    assert details.adjusted_ratio == expected.ratio
    assert details.static_counts == expected.static_counts
    assert found.index.tolist() == expected.index(tokens)
    assert details.source_map().tolist() == expected.source_map(frames, tokens).tolist()
    assert details.token_kinds().tolist() == expected_kinds(expected, frames, tokens).tolist()
    assert sum(details.static_kept) + sum(details.dynamic_kept) == len(found.index)
    np.testing.assert_allclose(found.features.numpy(), expected.features().reshape(-1, 16), atol=1e-5)


def from_similarity(similarity):
    """Unit vectors in the plane whose neighbours in time have the given cosines."""
    angles = np.concatenate([np.zeros((1, np.shape(similarity)[1])), np.cumsum(np.arccos(similarity), axis=0)])
    return torch.tensor(np.stack([np.cos(angles), np.sin(angles)], axis=-1), dtype=torch.float32)


def test_worked_example_with_a_tie():
    features = from_similarity([[0.9, 0.9], [0.9, 0.1], [0.1, 0.1]])
    attention = torch.tensor([[0.1, 0.2], [0.1, 0.2], [0.1, 0.2], [0.4, 0.3]])
    found = compress(features, attention, retain_ratio=0.25)
    assert found.details.segments == [(0, 1), (2, 2), (3, 3)]
    assert found.details.adjusted_ratio == pytest.approx(1 / 3)
    assert found.details.static_kept == [1, 0, 0]
    assert found.details.dynamic_kept == [0, 0, 1, 1]
    # One cluster means k = 1: both densities are 1 and the lower position leads.
    assert found.index.tolist() == [0, 5, 6]
    torch.testing.assert_close(found.features[1:], features[[2, 3], [1, 0]])


def test_worked_example_of_the_global_optimum():
    features = from_similarity([[0.9, 0.9, 0.9], [0.9, 0.2, 0.9], [0.9, 0.9, 0.9], [0.1, 0.1, 0.9]])
    details = compress(features, torch.rand(5, 3)).details
    assert details.segments == [(0, 1), (2, 3), (4, 4)]
    assert details.removable == 6


@pytest.mark.parametrize("order", ["block", "raster"])
def test_everything_kept_is_the_input_unchanged(order):
    """Nothing stands still and the ratio is 1: the tokens pass in their order, bit by bit."""
    features, attention = video(moving=1.0)
    found = compress(features, attention, order, retain_ratio=1.0)
    assert torch.equal(found.features, features.flatten(0, 1))
    assert torch.equal(found.index, torch.arange(len(found.index)))
    assert torch.equal(found.details.source_map().flatten(), found.index)


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.3, 1.0])
def test_identical_frames_are_one_segment(ratio):
    features, attention = video(frames=1)
    found = compress(features.expand(6, -1, -1), attention.expand(6, -1), retain_ratio=ratio)
    details = found.details
    assert details.segments == [(0, 5)]
    assert details.removable == 24 * 5
    assert details.adjusted_ratio == pytest.approx(min(1, ratio * 6))
    assert details.dynamic_kept == [0] * 6
    assert len(found.index) == round(24 * min(1, ratio * 6))


def test_static_tokens_can_vanish():
    """Two static tokens at a ratio below a quarter round to none."""
    features, attention = video(tokens=12, moving=1.0)
    features[:, :2] = features[:1, :2]
    found = compress(features, attention, retain_ratio=0.1)
    assert found.details.segments == [(0, 7)]
    assert found.details.static_counts == [2]
    assert found.details.static_kept == [0]
    kinds = found.details.token_kinds()
    assert (kinds[:, :2] == TokenKind.STATIC_DROPPED).all()
    assert not (kinds[:, 2:] == TokenKind.STATIC_DROPPED).any()


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 12), ratio=st.floats(0.01, 1.0))
def test_size_and_order_rules(seed, frames, ratio):
    features, attention = video(seed, frames)
    block = compress(features, attention, retain_ratio=ratio)
    raster = compress(features, attention, "raster", retain_ratio=ratio)
    total, many = frames * 24, sum(last > first for first, last in block.details.segments)
    budget = total * min(ratio, block.details.adjusted_ratio * (total - block.details.removable) / total)
    assert budget - 0.5 * many - 1e-9 <= len(block.index) <= budget + frames + 0.5 * many + 1e-9
    assert len(block.index) <= OuterCompression(OuterConfig(ratio)).most_kept(frames, 24)
    assert (raster.index.diff() > 0).all()
    order = block.index.argsort()
    assert torch.equal(block.index[order], raster.index)
    assert torch.equal(block.features[order], raster.features)
    assert torch.equal(raster.details.token_kinds(), block.details.token_kinds())
    sources = block.details.source_map().flatten()
    assert torch.equal(sources[block.index], torch.arange(len(block.index)))


def test_permuting_positions_permutes_the_output():
    """No ties in random data, so nothing may depend on where a token lies."""
    features, attention = video(5)
    shuffle = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    plain = compress(features, attention, retain_ratio=0.3).details
    moved = compress(features[:, shuffle], attention[:, shuffle], retain_ratio=0.3).details
    assert plain.segments == moved.segments
    assert torch.equal(plain.token_kinds()[:, shuffle], moved.token_kinds())


def test_reversed_unrelated_frames_are_selected_alike():
    features, attention = video(moving=1.0)
    forward = compress(features, attention, "raster", retain_ratio=0.3).details
    backward = compress(features.flip(0), attention.flip(0), "raster", retain_ratio=0.3).details
    assert torch.equal(forward.selected, backward.selected.flip(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("contextual", [0.0, 0.5])
def test_other_precisions_only_round_the_output(dtype, contextual):
    features, attention = (values.to(dtype) for values in video(3))
    found = compress(features, attention, retain_ratio=0.4, contextual_ratio=contextual)
    wide = compress(features.float(), attention.float(), retain_ratio=0.4, contextual_ratio=contextual)
    assert found.features.dtype == dtype
    assert torch.equal(found.index, wide.index)
    assert torch.equal(found.features.float(), wide.features.to(dtype).float()) or dtype == torch.float64
    torch.testing.assert_close(found.features.float(), wide.features, atol=1e-2, rtol=1e-2)


def test_attention_ties_in_low_precision_go_to_the_lower_position():
    features, _ = video(moving=1.0)
    found = compress(features, torch.ones(8, 24, dtype=torch.bfloat16), retain_ratio=0.2)
    assert (found.index % 24).tolist() == list(range(5)) * 8


def test_inputs_need_no_particular_layout_and_stay_untouched():
    features, attention = video(2)
    scattered = features.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    copies = scattered.clone(), attention.clone()
    found = compress(scattered, attention, retain_ratio=0.4, contextual_ratio=0.3)
    plain = compress(features, attention, retain_ratio=0.4, contextual_ratio=0.3)
    torch.testing.assert_close(found.features, plain.features)
    assert torch.equal(found.index, plain.index)
    assert torch.equal(scattered, copies[0])
    assert torch.equal(attention, copies[1])


def test_parameters_that_require_gradients_are_accepted():
    features, attention = video()
    assert not compress(features.requires_grad_(), attention).features.requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["features", "received_attention"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_that_are_not_finite(value, which, dtype):
    inputs = dict(zip(("features", "received_attention"), (values.to(dtype) for values in video()), strict=True))
    inputs[which][5, 3] = value
    inputs[which][7, 23] = value
    with pytest.raises(InputError, match=rf"^{which} has NaN or infinite values in 2 of 8 frames \(frame 5, 7\)"):
        compress(*inputs.values())


def test_a_single_frame_is_checked_too():
    with pytest.raises(InputError, match=r"features .* 1 of 1 frames \(frame 0\)"):
        compress(torch.full((1, 2, 3), torch.nan), torch.ones(1, 2))


def test_errors_name_what_is_wrong():
    """Called without the shape checks of the test run, as a user would."""
    check = outer.check_inputs
    good = torch.ones(2, 3, 4), torch.ones(2, 3)
    with pytest.raises(InputError, match=r"features of shape \(2, 3\)"):
        check(good[1], good[1], "block")
    with pytest.raises(InputError, match=r"features of shape \(0, 3, 4\)"):
        check(good[0][:0], good[1][:0], "block")
    with pytest.raises(InputError, match=r"dtype torch\.int64"):
        check(good[0].long(), good[1], "block")
    with pytest.raises(InputError, match=r"received_attention of shape \(2, 2\).*\(2, 3\)"):
        check(good[0], good[1][:, :2], "block")
    with pytest.raises(InputError, match="order = 'spiral'"):
        check(*good, "spiral")


def test_most_kept():
    compression = OuterCompression(OuterConfig(retain_ratio=0.1))
    assert compression.most_kept(32, 196) == 627 + 32 + 8
    assert compression.most_kept(1, 1) == 1


class OperatorLog(TorchDispatchMode):
    """Records the name of every operator; indexing by a mask is told from indexing by numbers."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "index" and any(chosen is not None and chosen.dtype == torch.bool for chosen in args[1]):
            name = "index_by_mask"
        self.names.append(name)
        return func(*args, **(kwargs or {}))


WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "index_by_mask"}


@pytest.mark.parametrize("contextual", [0.0, 0.4])
def test_no_operator_waits_for_the_device(contextual):
    """Boolean indexing, unique and item() all wait; their number must be zero, not small."""
    features, attention = video()
    with OperatorLog() as log:
        details = compress(features, attention, retain_ratio=0.4, contextual_ratio=contextual).details
        details.source_map(), details.token_kinds()
    assert len(log.names) > 50
    assert not WAITING & set(log.names)
    with OperatorLog() as other:
        features[features > 0], features.sum().item(), features.unique()
    assert set(other.names) >= {"index_by_mask", "_local_scalar_dense", "_unique2"}


@pytest.mark.parametrize("order", ["block", "raster"])
@pytest.mark.parametrize("contextual", [0.0, 0.4])
def test_one_transfer_to_the_host(monkeypatch, order, contextual):
    """On tensors without data nothing can be read: only the one fetch, answered from a real run, gets by."""
    features, attention = video()
    fetched, devices = [], []
    compression = OuterCompression(OuterConfig(retain_ratio=0.4, contextual_ratio=contextual))
    monkeypatch.setattr(temporal_segmentation, "to_host", lambda values: fetched.append(values) or values)
    real = compression(features, attention, order)
    assert len(fetched) == 1
    assert fetched[0].shape == (8, 2 + 8)

    monkeypatch.setattr(
        temporal_segmentation, "to_host", lambda values: devices.append(values.device.type) or fetched[0]
    )
    found = compression(features.to("meta"), attention.to("meta"), order)
    details = found.details
    assert devices == ["meta"]
    assert found.features.device.type == details.token_kinds().device.type == "meta"
    assert found.features.shape == real.features.shape
    assert details.source_map().shape == (8, 24)
    with pytest.raises(RuntimeError, match="meta"):
        found.index.tolist()


@pytest.mark.parametrize("contextual", [0.0, 0.4])
def test_one_transfer_to_the_device(monkeypatch, contextual):
    """Whoever uploads, whatever module that is in: all the device must know goes there together."""
    uploads, upload = [], token_ops.upload
    counted = lambda device, *columns: uploads.append(len(columns)) or upload(device, *columns)  # noqa: E731
    for name, module in list(sys.modules.items()):
        if name.startswith("holitom.") and getattr(module, "upload", None) is upload:
            monkeypatch.setattr(module, "upload", counted)
    details = compress(*video(), retain_ratio=0.4, contextual_ratio=contextual).details
    assert len(uploads) == 1
    assert max(details.static_kept) > 0, "no static tokens were clustered"
    details.source_map(), details.token_kinds()
    assert len(uploads) == 1, "what is asked for later is there already"
    temporal_merging.upload(torch.device("cpu"), [1])
    assert len(uploads) == 2, "another one would be seen"


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("contextual", [0.0, 1.0])
def test_smallest_videos(frames, tokens, contextual):
    features, attention = video(0, frames, tokens, 1)
    found = compress(features, attention, retain_ratio=0.01, contextual_ratio=contextual)
    assert found.features.shape == (len(found.index), 1)
    assert (found.details.source_map().amax() + 1).item() == len(found.index)


def test_counts_past_the_longest_segment_are_not_made(monkeypatch):
    """The transfer follows the longest segment, not the square of the frames."""
    shapes = []
    monkeypatch.setattr(temporal_segmentation, "to_host", lambda values: shapes.append(values.shape) or values)
    compress(*video(frames=40, cut_every=40), max_segment_frames=4)
    assert shapes == [(40, 2 + 4)]
