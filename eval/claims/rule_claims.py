"""What the method is said to do, measured from outside, and whether it does what the authors' release does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from eval.claims.judging import ACCURACY, CONTRADICTED, REPRODUCED, Claim, Evidence, Judgement, all_hold, result_of

THRESHOLDS = {25: 0.80, 20: 0.80, 15: 0.80, 10: 0.65}  # similarity above which a token stands still, by share
MERGE_LAYER, MERGE_LAYER_72B, MERGE_RATIO = 18, 60, 0.5
_KINDS = {
    "outer": "outer stage: similarities, segments, counts and tokens",
    "inner": "inner stage: which tokens are kept and what they are merged to",
    "dpc": "clustering: centres and merged tokens",
    "e2e": "whole runs: embeddings, logits and greedy tokens",
}
_EPSILON = 1e-9


def threshold(share: int, evidence: Evidence) -> Judgement:
    """The similarity at which tokens begin to count as static lies at the paper's threshold."""
    found, paper = result_of(evidence, "rules")["threshold"][str(share)], THRESHOLDS[share]
    holds = found["moving"] <= paper < found["static"]
    why = f"tokens of similarity {found['moving']:.3f} still move, those of {found['static']:.3f} stand still"
    middle = (found["moving"] + found["static"]) / 2
    return Judgement(REPRODUCED if holds else CONTRADICTED, why, found, round(middle - paper, 3))


def inner_stage(where: str, share: str | None, layer: int, evidence: Evidence) -> Judgement:
    """First layer that sees fewer tokens, and the share that is gone there, both counted at the layers themselves."""
    found = result_of(evidence, "rules")[where]
    found = found if share is None else found[share]
    facts = {
        f"the sequence becomes shorter once, at layer {layer}": found["layer"] == layer and found["changes"] == 1,
        f"{MERGE_RATIO} of the tokens are gone there": abs(found["share"] - MERGE_RATIO)
        <= found["half_token"] + _EPSILON,
    }
    measured = f"measured layer {found['layer']}, share {found['share']:.4f}"
    return all_hold(facts, found, measured)


def outer_stage(evidence: Evidence) -> Judgement:
    """Fewer rows enter the first layer than the video has, and without the inner stage they stay as many."""
    rules = result_of(evidence, "rules")
    rows = {f"{share} %": rules["stages"][str(share)] for share in THRESHOLDS}
    facts = {
        f"at {name} no more than {name} enter, but for rounding": row["entering"] <= _most(share, row)
        for (name, row), share in zip(rows.items(), THRESHOLDS, strict=True)
    }
    facts["without the inner stage no layer sees fewer"] = rules["without_inner"]["changes"] == 0
    return all_hold(facts, {share: row["entering"] for share, row in rows.items()}, "rows of the video at layer 0")


def _most(share: int, row: dict[str, Any]) -> float:
    """Rows that a share allows: each frame rounds up, each segment of two frames or more to the nearest, 1 newline."""
    return share / 100 * (row["before"] - 1) + row["frames"] + 0.5 * (row["frames"] // 2) + 1


def reversibility(evidence: Evidence) -> Judgement:
    """Training-free, deterministic, and really in effect."""
    facts = result_of(evidence, "rules")["reversibility"]
    return all_hold(facts, dict(facts), "bit by bit")


def optimal(evidence: Evidence) -> Judgement:
    """No segmentation removes more tokens, on random similarities."""
    found = result_of(evidence, "optimality")
    facts = {
        f"in all {found['samples']} samples the chosen segmentation is the best of all": found["optimal"]
        == found["samples"],
        "the greedy cut is not always": found["greedy_short"] > 0,
    }
    return all_hold(facts, found, f"largest shortfall {found['shortfall']} tokens")


def recording(kind: str, evidence: Evidence) -> Judgement:
    """The recordings of one kind."""
    found = result_of(evidence, "parity")["kinds"][kind]
    facts = {
        "selections are equal and numbers within the limit in all cases": not found["failed"],
        "there are cases": found["cases"] > 0,
    }
    measured = f"{found['cases']} recordings, largest error {found['error']:.1e}, limit {found['limit']:.0e}"
    if found["failed"]:
        measured += f"; the first that fails: {found['failed'][0]}"
    return all_hold(facts, found, measured)


def guard(evidence: Evidence) -> Judgement:
    """The tiny model loses as many answers as it did when its bands were measured."""
    found = result_of(evidence, "guard")
    facts = {f"all tokens: at least {found['least_full']} right": found["full"] >= found["least_full"]}
    for name, (least, most) in found["bands"].items():
        lost = found["checks"][name]["lost"]
        facts[f"{name} loses {lost}, allowed {least} to {most}"] = least <= lost <= most
    ours = {name: check["lost"] for name, check in found["checks"].items()}
    return all_hold(facts, ours, f"answers of {found['samples']} questions")


def _claim(
    identity: str, source: str, text: str, paper: dict[str, float], step: str, judge: Callable[[Evidence], Judgement]
) -> Claim:
    """A claim about what the code does: a check that breaks down contradicts it."""
    return Claim(identity, source, text, paper, (step,), judge, CONTRADICTED)


_SEGMENTATION = "method, temporal segmentation"
_WHOLE = (
    _claim(
        "rule-outer",
        "method, outer stage",
        "the video is shortened to its share before the LLM",
        {f"percent at {share}": share for share in THRESHOLDS},
        "rules",
        outer_stage,
    ),
    _claim(
        "rule-training-free",
        "abstract",
        "training-free, and here deterministic and reversible",
        {},
        "rules",
        reversibility,
    ),
    _claim(
        "optimal-segmentation",
        _SEGMENTATION,
        "the segmentation is globally optimal: no other makes more tokens redundant",
        {"shortfall": 0},
        "optimality",
        optimal,
    ),
)


def _threshold_claim(share: int, paper: float) -> Claim:
    text = f"at {share} % a token stands still above a cosine similarity of {paper}"
    judge = partial(threshold, share)
    return _claim(f"rule-threshold-r{share}", _SEGMENTATION, text, {"threshold": paper}, "rules", judge)


def _inner_claim(name: str, where: str, share: str | None, layer: int) -> Claim:
    text = f"inside the LLM half of the video's tokens are merged away before layer {layer} ({name})"
    paper, judge = {"layer": layer, "share": MERGE_RATIO}, partial(inner_stage, where, share, layer)
    return _claim(f"rule-inner-{name}", "method, inner stage", text, paper, "rules", judge)


def _release_claim(kind: str, what: str) -> Claim:
    text = f"this code does what the release does; {what}"
    return _claim(f"release-{kind}", "authors' release", text, {}, "parity", partial(recording, kind))


def rule_claims() -> list[Claim]:
    """Rules of the method, its optimality, the recordings of the release, and the retention guard."""
    guarded = "compression costs the tiny model as many answers as recorded (an instrument, not the 7B model)"
    return [
        *(_threshold_claim(share, paper) for share, paper in THRESHOLDS.items()),
        *(_inner_claim(f"r{share}", "stages", str(share), MERGE_LAYER) for share in THRESHOLDS),
        _inner_claim("72b", "stages_72b", None, MERGE_LAYER_72B),
        *_WHOLE,
        *(_release_claim(kind, what) for kind, what in _KINDS.items()),
        replace(_claim("tiny-guard", "this project", guarded, {}, "guard", guard), kind=ACCURACY),
    ]
