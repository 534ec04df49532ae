"""How many variants of a kernel are compiled: clips of all sizes share them, or every new clip would wait seconds."""

from collections import defaultdict

import pytest
import torch
from triton import JITFunction
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import create_function_from_signature

from holitom.methods.holitom.batch_merging import merge_batch
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from holitom.ops import group_clustering
from holitom.ops.attention_scores import last_query_attention, received_attention
from holitom.ops.kernels import tower

Variants = dict[str, set[str]]


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch, kernels_on) -> Variants:
    """What triton would compile of each kernel: types, divisibility and constants of the arguments it was given."""
    found: Variants = defaultdict(set)
    run = type(tower.column_sums).run
    backend = CUDABackend(GPUTarget("cuda", 90, 32))

    def noted(kernel, *args, **kwargs):
        jitted = JITFunction(kernel.fn, **kernel.kwargs) if isinstance(kernel, InterpretedFunction) else kernel
        bind = create_function_from_signature(jitted.signature, jitted.params, backend)
        named = {name: value for name, value in kwargs.items() if name in kernel.arg_names}
        found[kernel.fn.__name__].add(str(bind(*args, **named)[1]))
        return run(kernel, *args, **kwargs)

    monkeypatch.setattr(type(tower.column_sums), "run", noted)
    return found


def test_outer_stage(random, variants: Variants, monkeypatch) -> None:
    for budget in ("BATCH_ELEMENTS", "GPU_BATCH_ELEMENTS"):
        monkeypatch.setattr(group_clustering, budget, 1)  # a batch for each group
    stage = OuterCompression(OuterConfig(retain_ratio=0.4, contextual_ratio=0.5))
    for frames, moving, cut in ((1, 20, 0), (2, 4, 2), (4, 13, 2), (7, 7, 3), (5, 0, 5)):
        features = random(1, 20, 8).expand(frames, 20, 8) + 0.01 * random(frames, 20, 8)
        features[:, :moving] = random(frames, moving, 8)
        features[cut:] *= random(1, 20, 1).sign()
        stage(features, random(frames, 20).abs())
    assert len(variants) == 12
    # Attention is ranked in float32, density in float64.
    assert {name: len(kinds) for name, kinds in variants.items() if len(kinds) > 1} == {"mark_highest": 2}


def test_inner_stage(random, device, variants: Variants) -> None:
    for seq, start, stop in ((33, 0, 33), (48, 3, 47), (71, 5, 64), (80, 1, 2), (64, 16, 48)):
        query, key = random(1, 14, 16), random(1, 2, seq, 16)
        mask = torch.arange(seq, device=device)[None] >= start
        scores = last_query_attention(query, key, 0.3, mask)
        merge_batch(random(1, seq, 16), scores, [((start, stop),)], [start], 0.5, "sequential")
    assert len(variants) == 7
    assert {name: kinds for name, kinds in variants.items() if len(kinds) > 1} == {}


def test_tower(random, variants: Variants) -> None:
    for images, patches in ((1, 64), (3, 65), (2, 7)):
        query, key = (random(images, patches, 2, 16).transpose(1, 2) for _ in range(2))
        received_attention(query, key, 0.3)
    assert {name: len(kinds) for name, kinds in variants.items()} == {"row_log_sums": 1, "column_sums": 1}
