"""Memory that a thread keeps, and averages that go through it a cache's worth at a time."""

import threading

import pytest
import torch

from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from holitom.ops import group_clustering, similarity
from holitom.ops.cpu_memory import LARGEST_KEPT, work_buffer
from holitom.ops.group_clustering import ClusterRule, TokenGroups, cluster_groups, frame_tokens
from holitom.ops.similarity import average_frames

CPU = torch.device("cpu")


def test_a_thread_gets_its_own_memory_again() -> None:
    first = work_buffer((4, 8), torch.float32, CPU)
    assert work_buffer((2, 3), torch.float64, CPU).data_ptr() == first.data_ptr()
    others: list[int] = []
    worker = threading.Thread(target=lambda: others.append(work_buffer((4, 8), torch.float32, CPU).data_ptr()))
    worker.start()
    worker.join()
    assert others != [first.data_ptr()]


def test_what_is_large_is_not_kept() -> None:
    work_buffer((8,), torch.float32, CPU)
    large = work_buffer((LARGEST_KEPT + 1,), torch.uint8, CPU)
    assert work_buffer((8,), torch.float32, CPU).data_ptr() != large.data_ptr()


def test_memory_of_inference_mode_is_written_outside_of_it() -> None:
    features, attention = torch.randn(3, 6, 8, dtype=torch.bfloat16), torch.rand(3, 6)
    stage, found = OuterCompression(OuterConfig(0.5, -1.0)), []

    def both() -> None:  # in a thread that has no memory yet
        with torch.inference_mode():
            work_buffer((4,), torch.float32, CPU)
        found.append(work_buffer((4,), torch.float32, CPU).zero_().sum())
        with torch.inference_mode():
            found.append(stage(features, attention).features.clone())
        found.append(stage(features, attention).features)

    worker = threading.Thread(target=both)
    worker.start()
    worker.join()
    assert len(found) == 3
    assert found[1].tolist() == found[2].tolist()


@pytest.mark.parametrize("elements", [1, 20, 45, 2**19])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_averages_in_pieces(dtype: torch.dtype, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of one, two, four and all seven frames."""
    monkeypatch.setattr(similarity, "CACHED_ELEMENTS", elements)
    frames, places = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype), torch.tensor([4, 1])
    segments = [(0, 6), (2, 2), (3, 5)]
    found = average_frames(frames, segments, places.expand(3, 2))
    for mean, (first, last) in zip(found, segments, strict=True):
        expected = frames.double()[first : last + 1, places].mean(0).float()
        torch.testing.assert_close(mean, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("budget", [1, 2**20])
def test_groups_that_keep_all_their_points_are_not_clustered(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same clusters as with distances; only who asks for scores gets them."""
    monkeypatch.setattr(group_clustering, "BATCH_ELEMENTS", budget)
    features = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 0, 1, 0, 0], [1] * 6, [0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0]]).bool()
    groups = TokenGroups(mask, [3, 6, 4, 1], [3, 2, 4, 1])
    rules = [ClusterRule(3, 0.6, scored=asked) for asked in (False, True)]
    plain, scored = (cluster_groups(features, groups, frame_tokens, rule) for rule in rules)
    assert torch.equal(plain.features, scored.features)
    assert torch.equal(plain.centers, scored.centers)
    assert torch.equal(plain.membership, scored.membership)
    assert plain.scores.isnan().tolist() == [True] * 3 + [False] * 2 + [True] * 5
    assert not scored.scores.isnan().any()
