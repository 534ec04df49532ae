"""Measured behaviour of the method: what it does to made inputs, apart from what its settings and records say."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.instruments.answering import VideoPrompt, applied
from eval.instruments.models.random_checkpoint import make_random_checkpoint
from holitom.encoded_video import EncodedVideo
from holitom.methods.holitom.temporal_segmentation import SEGMENTERS, greedy_segments, static_counts, static_run_lengths
from holitom.settings import RunConfig, load_config
from holitom.shipped import CONFIGS
from holitom.tokens import TokenKind
from llava.model.builder import load_pretrained_model
from llava.video import VideoClip

SHARES = (25, 20, 15, 10)
_FRAMES = 4  # of the clip that goes through a whole model
_LADDER = 0.01  # between the similarities of neighbouring tokens
_SIDE = 14


def segmentations(frames: int) -> Iterator[list[tuple[int, int]]]:
    """Every way to cut so many frames, 2^(frames - 1) of them; first and last frame inclusive."""
    for cuts in product((False, True), repeat=frames - 1):
        edges = [0, *(place + 1 for place, cut in enumerate(cuts) if cut), frames]
        yield [(start, stop - 1) for start, stop in pairwise(edges)]


def removable(similarity: np.ndarray, segments: list[tuple[int, int]], threshold: float) -> int:
    """Tokens saved by a segmentation, straight from the definition: a token that stays above the threshold over all
    pairs of a segment of L frames saves L - 1 (Sec. 3.1)."""
    saved = 0
    for start, stop in segments:
        still = (similarity[start:stop] > threshold).all(axis=0)
        saved += int(still.sum()) * (stop - start)
    return saved


def global_optimality(samples: int, seed: int = 0) -> dict[str, Any]:
    """The chosen segmentation against the best of all, on random similarities of 2 to 9 frames.

    Returns:
        ``samples``, in how many the choice is ``optimal``, the largest ``shortfall`` in tokens, and in how many the
        greedy cut falls short (``greedy_short``), without which the search would be needless.
    """
    rng = np.random.default_rng(seed)
    optimal = greedy_short = shortfall = 0
    for _ in range(samples):
        frames, tokens = int(rng.integers(2, 10)), int(rng.integers(1, 13))
        spread = float(rng.choice([0.3, 1.0, 2.0]))  # still, mixed and restless videos
        similarity = (1 - rng.uniform(0, spread, (frames - 1, tokens))).astype(np.float32)
        threshold = float(rng.choice([0.2, 0.65, 0.8]))
        best = max(removable(similarity, cut, threshold) for cut in segmentations(frames))
        counts = static_counts(static_run_lengths(torch.from_numpy(similarity), threshold), frames)
        found = SEGMENTERS["global"](counts, frames)
        gap = best - removable(similarity, found.segments, threshold)
        optimal += gap == 0
        shortfall = max(shortfall, gap)
        greedy_short += removable(similarity, greedy_segments(counts, frames).segments, threshold) < best
    return {"samples": samples, "optimal": optimal, "shortfall": shortfall, "greedy_short": greedy_short}


def ladder_video(frames: int = 2) -> tuple[EncodedVideo, np.ndarray]:
    """A video whose tokens have known similarities to the next frame: 0.50 for the first, 0.01 more for each next.

    Returns:
        The video, (frames, 196, 4) float32, and the similarity of each token (196,); from 1.0 on it stays 0.2.
    """
    tokens = _SIDE * _SIDE
    similarity = 0.505 + _LADDER * np.arange(tokens)
    similarity[similarity >= 1] = 0.2
    angles = torch.from_numpy(np.outer(np.arange(frames), np.arccos(similarity)))
    zeros = torch.zeros(frames, tokens)
    features = torch.stack([angles.cos().float(), angles.sin().float(), zeros, zeros], dim=-1)
    attention = torch.linspace(1, 2, tokens).expand(frames, tokens).clone()
    return EncodedVideo(features, {"received_attention": attention}), similarity


def measured_threshold(config: RunConfig) -> dict[str, float]:
    """Between which similarities the outer stage begins to take a token for static.

    Returns:
        ``moving``: the largest similarity that was not static; ``static``: the smallest that was.
    """
    video, similarity = ladder_video()
    compressor = config.build()
    assert compressor is not None
    assert compressor.outer is not None
    details = compressor.outer(video).details
    kinds = details.token_kinds().numpy()
    static = np.isin(kinds[0], (TokenKind.STATIC_MERGED, TokenKind.STATIC_CENTER, TokenKind.STATIC_DROPPED))
    if not static.any() or static.all():
        return {"moving": float(similarity.max()), "static": 1.0 if not static.any() else float(similarity.min())}
    return {"moving": float(similarity[~static].max()), "static": float(similarity[static].min())}


def random_question(layers: int, folder: Path) -> VideoPrompt:
    """A question about four frames of noise for a tiny random model with so many decoder layers."""
    make_random_checkpoint(folder, layers=layers)
    tokenizer, model, processor, _ = load_pretrained_model(folder, None, "llava_qwen", torch_dtype="float32")
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8), _FRAMES, axis=0)
    still[:, :, :32] = rng.integers(0, 256, (_FRAMES, 64, 32, 3), dtype=np.uint8)  # one half moves
    clip = VideoClip(still, tuple(range(_FRAMES)), _FRAMES, 1.0, float(_FRAMES), "made", Path("noise"))
    return VideoPrompt(tokenizer, model, clip, processor, "What happens in this video?")


@torch.no_grad()
def layer_lengths(question: VideoPrompt, config: RunConfig) -> list[int]:
    """Rows of the video, newline included, that really enter each decoder layer in a prefill."""
    seen: list[int] = []
    with applied(config.build(), question.model):
        layers = question.model.get_model().layers
        # behind the compressor's own hooks, so that this sees what the layer computes
        watches = [layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1])) for layer in layers]
        try:
            _logits(question)
        finally:
            for watch in watches:
                watch.remove()
    text = question.ids.shape[1] - 1
    return [length - text for length in seen]


def _logits(question: VideoPrompt) -> Tensor:
    inputs: dict[str, Any] = {"images": [question.pixels], "modalities": ["video"]}
    logits: Tensor = question.model(question.ids, use_cache=False, logits_to_keep=1, **inputs).logits
    return logits


def inner_stage(question: VideoPrompt, config: RunConfig) -> dict[str, Any]:
    """Where the sequence becomes shorter inside the LLM, and by how much.

    Returns:
        ``before``: rows of the uncompressed video; ``entering``: those that reach the LLM; ``layer``: first layer that
        sees fewer, or None; ``share``: of the rows that are gone from there on.
    """
    lengths = layer_lengths(question, config)
    shorter = [layer for layer in range(1, len(lengths)) if lengths[layer] < lengths[layer - 1]]
    share = 1 - lengths[-1] / lengths[0] if lengths[0] else 0.0
    before = question.visual_tokens + question.newlines
    layer = shorter[0] if len(shorter) == 1 else None
    found = {"before": before, "frames": _FRAMES, "entering": lengths[0], "layer": layer}
    return {**found, "changes": len(shorter), "share": share, "half_token": 0.5 / max(1, lengths[0])}


@torch.no_grad()
def reversibility(question: VideoPrompt, config: RunConfig) -> dict[str, bool]:
    """What "training-free" and "deterministic" mean, bit by bit."""
    model = question.model
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = _logits(question)
    runs = []
    for _ in range(2):
        compressor = config.build()
        with applied(compressor, model):
            logits = _logits(question)
        assert compressor is not None
        runs.append((logits, compressor.record.videos[0].index))
    after = model.state_dict()
    same_weights = set(after) == set(weights) and all(torch.equal(after[name], weights[name]) for name in weights)
    return {
        "no weight is changed or added": same_weights,
        "taken off, the model answers as before": torch.equal(_logits(question), plain),
        "twice the same logits": torch.equal(runs[0][0], runs[1][0]),
        "twice the same tokens": torch.equal(runs[0][1], runs[1][1]),
        "the compressed logits differ from the full ones": not torch.equal(runs[0][0], plain),
    }


def measure_rules() -> dict[str, Any]:
    """Thresholds, stages and reversibility of the paper's HoliTom rows."""
    rows = CONFIGS / "llava_onevision_7b"
    configs = {share: load_config(rows / f"holitom_r{share}.yaml") for share in SHARES}
    found: dict[str, Any] = {"threshold": {str(share): measured_threshold(config) for share, config in configs.items()}}
    with tempfile.TemporaryDirectory() as folder:
        question = random_question(28, Path(folder) / "28")
        found["stages"] = {str(share): inner_stage(question, config) for share, config in configs.items()}
        without = load_config(rows / "holitom_without_inner_r15.yaml")
        found["without_inner"] = inner_stage(question, without)
        found["reversibility"] = reversibility(question, configs[15])
        deep = random_question(80, Path(folder) / "80")
        found["stages_72b"] = inner_stage(deep, load_config(CONFIGS / "llava_onevision_72b" / "holitom_r15.yaml"))
    return found
