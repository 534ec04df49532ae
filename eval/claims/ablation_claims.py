"""What the paper's ablations say. About the 7B model only its benchmarks can tell; the tiny model shows directions."""

from __future__ import annotations

from functools import partial
from typing import Any

from eval.claims.judging import Claim, Evidence, Judgement, better, first, not_here
from eval.claims.score_claims import BENCHMARKS, NEEDS

TINY = ("tiny", "recorded_tiny")
_POINTS = ("tiny", "recorded_ablations")
_CLAIMS: dict[str, tuple[str, dict[str, float]]] = {
    "threshold": ("a similarity threshold of 0.80 is a good choice", {"threshold": 0.80}),
    "retain_ratio": ("accuracy falls slowly down to 10 % of the tokens", {"percent": 10.0}),
    "inner_layer": ("merging inside the LLM costs little from layer 18 of 28 on", {"layer": 18}),
    "inner_ratio": ("half of the tokens can be merged away inside the LLM", {"share": 0.5}),
    "frames": ("the method holds with other numbers of frames", {"frames": 32}),
    "stages": ("both stages together keep the accuracy of the outer stage alone", {}),
    "segmentation": ("the global segmentation is better than greedy and fixed cuts", {}),
    "tokens": ("attention selects dynamic tokens, clustering merges static ones", {}),
}


def ablation(name: str, evidence: Evidence) -> Judgement:
    """The points of one ablation as the tiny model answers them; never a verdict about the 7B model."""
    for step in _POINTS:
        result = evidence[step].result
        points = {} if result is None else _points(result, name)
        if len(points) > 1:
            shown = ", ".join(f"{point} {100 * row['score']:.1f} %" for point, row in points.items())
            why = f"on the learned tiny model, an instrument and not the 7B model: {shown}"
            ours = {f"tiny model, {point}": row["score"] for point, row in points.items()}
            return not_here(f"the paper's benchmarks were not run; {why}", _needs(name), ours, step)
    return not_here("the paper's benchmarks were not run", _needs(name))


def _needs(name: str) -> str:
    scripts = {"segmentation": "stages", "tokens": "stages"}
    return f"{NEEDS}, then bash scripts/ablate_{scripts.get(name, name)}.sh --data DIR"


def _points(result: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    points = result.get("ablations", {}).get(name, {}).get("points", {})
    rows = result.get("rows", {})
    return {", ".join(facts["changes"]) or point: rows[point] for point, facts in points.items() if point in rows}


def duel(pair: str, evidence: Evidence) -> Judgement:
    """Two methods of the tiny model at equal budgets."""
    found = first(evidence, TINY)
    assert found is not None
    step, result = found
    facts = result["duels"].get(pair)
    if facts is None:
        return not_here(f"{pair} was not measured", "bash scripts/table_tiny.sh")
    judgement = better(facts["difference"], facts["low"], facts["high"], pair)
    return Judgement(judgement.verdict, judgement.why, judgement.ours, judgement.difference, by=step)


def ablation_claims() -> list[Claim]:
    """One claim for each ablation, and what the instrument itself can decide."""
    steps = ("tiny", "recorded_ablations", "recorded_tiny", *BENCHMARKS)
    claims = [
        Claim(f"ablation-{name.replace('_', '-')}", "ablations", text, paper, steps, partial(ablation, name))
        for name, (text, paper) in _CLAIMS.items()
    ]
    for rival, share in (("random", 15), ("random", 10)):
        text = f"HoliTom is better than {rival} selection at {share} % on the learned tiny model (an instrument)"
        judge = partial(duel, f"holitom_r{share} - {rival}_r{share}")
        claims.append(Claim(f"tiny-beats-{rival}-r{share}", "this project", text, {}, TINY, judge))
    return claims
