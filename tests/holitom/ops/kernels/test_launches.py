"""How many kernels and other operators the stages take once they run on kernels."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

import holitom
from eval.efficiency.outer import synthetic_video
from eval.instruments.device_counts import count
from holitom.methods.holitom.batch_merging import merge_batch
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from holitom.ops import kernels
from holitom.ops.attention_scores import last_query_attention
from holitom.ops.kernels import tower

# What moves the outer stage's numbers counts as operators on CUDA alone: one upload that is asked whether it is pinned,
# pinned and copied, and one copy to the host. From a CPU to itself nothing is moved.
MOVES = 3 + 1


def test_every_kernel_is_asked_for(kernels_on) -> None:
    """What has another name than the one that is asked for would never run, and nothing would tell."""
    kernels._look()
    texts = [path.read_text() for path in Path(holitom.__file__).parent.rglob("*.py")]
    asked = {name for text in texts for name in re.findall(r'kernel_for\("(\w+)"', text)}
    assert asked == set(kernels._KERNELS) != set()


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Names of the kernels launched; what the interpreter does inside is not counted as operators."""
    found: Counter[str] = Counter()
    run = type(tower.column_sums).run

    def counted(kernel, *args, **kwargs):
        found[kernel.fn.__name__] += 1
        with _disable_current_modes():
            return run(kernel, *args, **kwargs)

    monkeypatch.setattr(type(tower.column_sums), "run", counted)
    return found


def test_outer_stage(device, kernels_on, launches) -> None:
    features, received = (part.to(device) for part in synthetic_video(12, 20, 8, torch.float32, 0.45))
    counts = count(lambda: OuterCompression(OuterConfig())(features, received), device)
    assert counts.syncs <= 1
    assert sum(launches.values()) % 14 == 0  # the same fourteen in every run
    segmentation = {"adjacent", "run_lengths", "count_windows", "best_cuts"}
    assert set(launches) >= segmentation | {"mean_over_frames", "partial_products", "merge_members"}
    assert counts.operators <= 38 + (MOVES if device.type == "cuda" else 0)


def test_inner_stage(random, kernels_on, launches, device) -> None:
    hidden, query, key = random(1, 80, 8), random(1, 4, 8), random(1, 2, 80, 8)

    def stage() -> None:
        scores = last_query_attention(query, key, 0.3, None)
        merge_batch(hidden, scores, [((5, 70),)], [0], 0.5, "sequential")

    counts = count(stage, device)
    assert counts.syncs == 0
    assert sum(launches.values()) % 7 == 0  # two for the scores, five for the merge
    assert counts.operators <= 3
