"""Recorded cases of FlashVID's and EarlyTom's releases: the outer stages, the pruning, merged frames, a whole tower."""

import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from eval.claims.parity.cases import largest, mismatches, read_case
from holitom.encoded_video import EncodedVideo, FrameMerges
from holitom.hooks.tower.frame_merging import FrameMerging
from holitom.hooks.tower.parts import TowerPlaces
from holitom.methods.earlytom import EarlyTomMerging, EarlyTomOuter
from holitom.methods.earlytom.frame_merging import (
    MergeRule,
    fetch_similarities,
    merge_frames,
    plan_frames,
    stream_segments,
)
from holitom.methods.earlytom.selection import ratio_after_merging, select_tokens
from holitom.methods.flashvid import FlashVidConfig
from holitom.methods.flashvid.compression import compress_frames, frame_budget
from holitom.methods.flashvid.inner import pruned_length
from holitom.ops.pruning import keep_best
from llava.model.pooling import pool_frames
from llava.model.vision_tower import SiglipVisionTower

HEADS = {"A": 4, "B": 2}  # of the recorded towers; all other sizes show in their weights
HALF_SPACING = 2.0**-11  # relative rounding error of what is stored in half precision
TIGHT = 1e-6  # margins of decisions that float32 may take either way
TIES = {"density", "centre_order"}  # margins of the ties of densities, which a rule decides


def decided_by_rounding(facts: dict) -> bool:
    """Whether a recorded decision was so close that only counts can be compared."""
    margins = [value for kind, value in facts["margins"].items() if kind not in TIES]
    return not facts.get("exact", True) or min(margins, default=1.0) < TIGHT


def flashvid_config(settings: dict) -> FlashVidConfig:
    """The settings under which a case was recorded, from its JSON."""
    return FlashVidConfig(
        retain_ratio=settings["retention_ratio"],
        expansion=settings["expansion"],
        picked_share=settings["alpha"],
        segment=settings["do_segment"],
        min_segments=settings["min_segment_num"],
        similarity_threshold=settings["segment_threshold"],
        complementary=settings["complementary_segment"],
        link_threshold=settings["temporal_threshold"],
    )


def check_flashvid(path: Path) -> tuple[float, list[str]]:
    """The outer stage on recorded features and attention; where rounding decides otherwise, the counts alone."""
    tensors, facts = read_case(path)
    config, features = flashvid_config(facts["settings"]), tensors["X"].float()
    budget = frame_budget(features.shape[1], config.retain_ratio, config.expansion, config.picked_share)
    found = compress_frames(features, tensors["attn"].float(), budget, config.rules())
    differences = mismatches(
        budget=(budget.total, facts["budget_per_frame"]), picks=(budget.picked, facts["n_attn_div"])
    )
    same = found.index.tolist() == tensors["index"].tolist()
    if not same and decided_by_rounding(facts):
        several = sum(last - first + 1 for first, last in found.segments if last > first)
        over = len(found.index) - budget.total * len(features)
        return 0.0, differences if 0 <= over <= several else [*differences, f"{over} tokens over the budget"]
    if not same:
        differences.append("indices differ")
    if found.picked.nonzero()[:, 1].tolist() != tensors["picked"].flatten().tolist():
        differences.append("picks differ")
    if "segment_lengths" in tensors:
        lengths = [last - first + 1 for first, last in found.segments]
        differences += mismatches(
            segments=(lengths, [length for length in tensors["segment_lengths"].tolist() if length])
        )
    return largest(found.features, tensors["tokens"]), differences


def check_flashvid_prune(path: Path) -> tuple[float, list[str]]:
    """The pruning inside the LLM on a recorded attention row."""
    tensors, facts = read_case(path)
    hidden, start, length = tensors["hidden"][0].float(), facts["start"], facts["visual_length"]
    count = pruned_length(length, facts["settings"]["llm_retention_ratio"])
    scores = tensors["attention_last_row"].float().mean(0)
    pruned = keep_best(hidden, scores, ((start, start + length),), (count,))
    differences = mismatches(kept=(count, facts["kept_visual"]))
    if pruned.kept.tolist() != tensors["keep"].tolist():
        differences.append("kept positions differ")
    return largest(pruned.hidden, hidden[tensors["keep"].long()]), differences


def merge_rule(settings: dict) -> MergeRule:
    """The settings under which frames were merged, from a case's JSON."""
    return MergeRule(settings["tau"], settings["M"], settings["ema"])


def check_earlytom_merge(path: Path) -> tuple[float, list[str]]:
    """Merged frames of recorded states and attention: segments, sources, states, the groups behind them."""
    tensors, facts = read_case(path)
    states, rule = tensors["hidden"].float(), merge_rule(facts["settings"])
    plan = plan_frames(len(states), fetch_similarities(states, rule.max_frames), rule)
    merged = merge_frames(states, plan)
    groups = plan.segments
    if facts["settings"]["last_layer"]:
        groups = stream_segments(len(merged), fetch_similarities(merged, rule.max_frames), rule)
    differences = mismatches(
        segments=([list(pair) for pair in plan.segments], tensors["groups"].tolist()),
        sources=([[frame.first, frame.second] for frame in plan.frames], tensors["aux_sources"].tolist()),
        groups=([list(pair) for pair in groups], tensors["final_groups"].tolist()),
    )
    received = merge_frames(tensors["attn"].float(), plan)
    return max(largest(merged, tensors["merged"]), largest(received, tensors["merged_attn"])), differences


def check_earlytom_select(path: Path) -> tuple[float, list[str]]:
    """Tokens selected by recorded attention and groups."""
    tensors, facts = read_case(path)
    features = tensors["X"].float()
    ratio = ratio_after_merging(facts["settings"]["retain_ratio"], facts["initial_frames"], len(features))
    chosen = select_tokens(tensors["attn"].float(), [(a, b) for a, b in tensors["groups"].tolist()], ratio)
    differences = mismatches(ratio=(ratio, facts["adjusted_ratio"]))
    if chosen.tolist() != tensors["index"].tolist():
        return math.inf, [*differences, "indices differ"]
    return largest(features.flatten(0, 1)[chosen], tensors["tokens"]), differences


@cache
def recorded_tower(folder: Path, name: str) -> SiglipVisionTower:
    """The recorded tower ``name`` of a folder, in float32."""
    weights, _ = read_case(folder / f"earlytom_tower_{name}_weights.safetensors", facts=False)
    patch = weights["embeddings.patch_embedding.weight"]
    layers = 1 + max(int(key.split(".")[2]) for key in weights if key.startswith("encoder.layers."))
    sizes = {
        "hidden_size": patch.shape[0],
        "intermediate_size": weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": layers + 1,  # LLaVA leaves the last one out
        "num_attention_heads": HEADS[name],
        "num_channels": 3,
        "patch_size": patch.shape[-1],
        "image_size": patch.shape[-1] * math.isqrt(weights["embeddings.position_embedding.weight"].shape[0]),
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    }
    tower = SiglipVisionTower(SimpleNamespace(vision_config=sizes, _attn_implementation="sdpa")).float().eval()
    missing, _ = tower.vision_tower.load_state_dict(weights, strict=False)
    assert all(key.startswith("post_layernorm") for key in missing), missing
    return tower


@torch.no_grad()
def run_tower(tower: SiglipVisionTower, pixels: Tensor, settings: dict) -> tuple[Tensor, FrameMerges]:
    """States that leave the tower, and what happened to the frames of one video in it."""
    merging = FrameMerging(settings["merge_after_layers"], EarlyTomMerging(merge_rule(settings)))
    merging.apply(TowerPlaces(list(tower.gates), [layer.self_attn for layer in tower.vision_tower.encoder.layers]))
    with merging.recording():
        states = tower(pixels)
    (merges,) = merging.take()
    merging.remove()
    return states, merges


def recorded_targets(tensors: dict[str, Tensor], frames: int) -> list[list[int]]:
    """Behind every merge layer, the merged frame that each frame of the video is in; -1 for lost ones."""
    held = [[frame] for frame in range(frames)]
    found = []
    for number in range(len([name for name in tensors if name.endswith("_sources")])):
        pairs = tensors[f"merge{number}_sources"].tolist()
        held = [[frame for source in pair if source >= 0 for frame in held[source]] for pair in pairs]
        into = {frame: merged for merged, frames_in in enumerate(held) for frame in frames_in}
        found.append([into.get(frame, -1) for frame in range(frames)])
    return found


def check_earlytom_tower(path: Path) -> tuple[float, list[str]]:
    """A whole recorded tower from pixels to the tokens that reach the LLM."""
    tensors, facts = read_case(path)
    tower, settings = recorded_tower(path.parent, facts["tower"]), facts["settings"]
    states, merges = run_tower(tower, tensors["pixel_values"].float(), settings)
    features = pool_frames(states, 2, "bilinear")
    pool = lambda signal: pool_frames(signal, 2, "bilinear")  # noqa: E731
    video = EncodedVideo(features, {}, pool, merges=merges)
    kept = EarlyTomOuter(settings["retain_ratio"])(video)
    first = torch.tensor(merges.representatives)[tensors["index"] // features.shape[1]]
    index = first * features.shape[1] + tensors["index"] % features.shape[1]
    differences = mismatches(
        targets=([list(target) for target in merges.targets], recorded_targets(tensors, facts["T"])),
        frames=(merges.frames_per_layer(len(tower.gates)), facts["frames_seen_by_layer"]),
        groups=([list(pair) for pair in merges.groups], tensors["final_groups"].tolist()),
    )
    if kept.index.tolist() != index.tolist():
        if decided_by_rounding(facts):
            return 0.0, mismatches(tokens=(len(kept.index), facts["tokens_out"]))
        return math.inf, [*differences, "indices differ"]
    assert merges.received_attention is not None  # EarlyTom's rules read it
    want = tensors["last_hidden"]
    rounding = HALF_SPACING * want.float().abs() if want.dtype == torch.float16 else torch.zeros(())
    beyond = ((states - want.float()).abs() - rounding).clamp_min(0) if states.shape == want.shape else states / 0
    errors = [
        largest(beyond, torch.zeros_like(beyond)),
        largest(kept.features, tensors["tokens"]),
        largest(video.pooled_values(merges.received_attention), tensors["pooled_attention"]),
    ]
    return max(errors), differences
