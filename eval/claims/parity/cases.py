"""Recorded cases of single steps of the release: the outer stage, the inner merge, and DPC-KNN clustering."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from holitom.methods.holitom.batch_merging import merge_sequence
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from holitom.ops.group_clustering import ClusterRule, TokenGroups, cluster_groups, frame_tokens
from holitom.tokens import Order
from llava.model.newlines import insert_newlines


def largest(got: Tensor, want: Tensor) -> float:
    """Largest absolute difference; infinite if the shapes differ or a value is not finite."""
    if got.shape != want.shape:
        return float("inf")
    if got.numel() == 0:
        return 0.0
    error = (got.double() - want.double()).abs()
    return float(error.max()) if bool(torch.isfinite(error).all()) else float("inf")


def read_case(path: Path, facts: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a case and, unless it has none, its JSON."""
    return load_file(path), json.loads(path.with_suffix(".json").read_text()) if facts else {}


def mismatches(**pairs: tuple[Any, Any]) -> list[str]:
    """Names of the selections whose two values differ."""
    return [f"{name} is {got}, recorded {want}" for name, (got, want) in pairs.items() if got != want]


def outer_config(facts: dict[str, Any]) -> OuterConfig:
    """The settings under which an outer case was recorded, from its JSON."""
    return OuterConfig(
        retain_ratio=facts["retain_ratio"],
        similarity_threshold=facts["tau"],
        center_weight=facts["beta"],
        neighbors=facts["K"],
        max_segment_frames=facts["max_window_size"],
        contextual_ratio=facts["D"],
        plain_mean=facts["no_beta"],
    )


def check_outer(path: Path) -> tuple[float, list[str]]:
    """The outer stage on recorded features and attention: similarity, segments, counts, tokens."""
    tensors, facts = read_case(path)
    config = outer_config(facts)
    features = tensors["X"].float()
    mode = facts["newline_mode"]
    order: Order = "raster" if mode == "grid" else "block"
    kept = OuterCompression(config)(features, tensors["attn"].float(), order)
    details = kept.details
    tokens = kept.features
    if mode == "grid":
        tokens = insert_newlines(tokens, kept.index, tensors["image_newline"], mode, features.shape[1])
    differences = mismatches(
        segments=([list(pair) for pair in details.segments], tensors["windows"].tolist()),
        static_counts=(list(details.static_counts), tensors["n_static"].tolist()),
        removable=(details.removable, round(facts["total_reduced"])),
        tokens=(tokens.shape[0], facts["n_tokens_merged"]),
    )
    error = max(largest(tokens, tensors["merged"]), largest(details.similarity, tensors["feature_sim"]))
    return error, differences


def check_inner(path: Path) -> tuple[float, list[str]]:
    """The inner merge on recorded states and attention: kept positions and merged states."""
    tensors, facts = read_case(path)
    start = facts["image_start"]
    spans = [(start, start + facts["image_length"])]
    merged = merge_sequence(tensors["hidden"][0].float(), tensors["attn_row"].float(), spans, facts["r"])
    kept = tensors["keep_indices"].tolist()
    differences = [] if merged.kept.tolist() == kept else ["kept positions differ"]
    return largest(merged.hidden, tensors["merged_hidden"][0]), differences


def check_dpc(path: Path) -> tuple[float, list[str]]:
    """DPC-KNN on recorded points: centres and both ways to merge a cluster."""
    tensors, facts = read_case(path)
    points = tensors["x"].float()
    batch, count, dim = points.shape
    errors, differences = [], []
    for weight, name in ((facts["beta"], "merged_beta06"), (None, "merged_no_beta")):
        groups = TokenGroups(torch.ones(batch, count, dtype=torch.bool), [count] * batch, [facts["clusters"]] * batch)
        clusters = cluster_groups(points, groups, frame_tokens, ClusterRule(facts["k"], weight))
        errors.append(largest(clusters.features.view(batch, -1, dim), tensors[name]))
        if clusters.centers.view(batch, -1).tolist() != tensors["centers"].tolist():
            differences = ["centres differ"]
    return max(errors), differences
