"""What the paper says about time: the abstract's two ratios and the bars of the efficiency figure."""

from __future__ import annotations

from functools import partial
from typing import Any

from eval.claims.judging import (
    CONTRADICTED,
    PARTLY,
    REPRODUCED,
    Claim,
    Evidence,
    Judgement,
    first,
    not_here,
)
from eval.paper.config_names import config_stem
from eval.paper.scores import EFFICIENCY, is_timed_geometry

TTFT_RATIO, DECODE_RATIO = 2.28, 1.32  # abstract: times faster to the first token, and of decoding throughput
RATIO_DIGITS = 2
SPEED_SHARE = 0.95  # of a printed ratio: its GPU is not known, and times scatter
STEPS = ("latency", "recorded_latency")
NEEDS = "a CUDA GPU: python -m eval.efficiency.latency --geometry llava-onevision-7b (weights may be random)"
_MEASURES = {"ttft": "time_to_first_token", "decode": "tokens_per_second"}  # ratios of eval.efficiency.latency
_STAGES = {"ttft": "time_to_first_token", "decode": "time_per_output_token"}  # and the times behind them
_TOO_SMALL = ("tiny",)


def figure_identity(measure: str, config: str) -> str:
    """Name of the claim about a ratio of the efficiency figure, by its name in ``eval.efficiency.latency``."""
    name = next(name for name, known in _MEASURES.items() if known == measure)
    return f"figure-{name}-{config.replace('_', '-')}"


def of_the_paper(result: dict[str, Any]) -> bool:
    """Whether times were taken at the paper's sizes on a GPU; the paper's own GPU is not known."""
    return is_timed_geometry(result["geometry"]) and bool(result.get("driver"))


def ratio_of(result: dict[str, Any], config: str, measure: str) -> float | None:
    """How many times faster than the uncompressed model, the smallest over the clips."""
    rows = [row for row in result.get("rows", []) if row["config"] == config]
    ratios = [row["against_vanilla"].get(measure) for row in rows if row.get("against_vanilla")]
    known = [float(ratio) for ratio in ratios if ratio is not None]
    return min(known) if known else None


def ratio_claim(config: str, measure: str, printed: float, evidence: Evidence) -> Judgement:
    """A ratio at the paper's sizes on a GPU; elsewhere it is only told."""
    for step in STEPS:
        result = evidence[step].result
        if result is not None and of_the_paper(result) and ratio_of(result, config, measure) is not None:
            ratio = ratio_of(result, config, measure)
            assert ratio is not None
            return _judge_ratio(ratio, printed, str(result.get("device")), step)
    found = first(evidence, STEPS)
    said = "no 7B geometry on a GPU was timed"
    if found is None:
        return not_here(said, NEEDS)
    ratio, where = ratio_of(found[1], config, measure), f"{found[1]['geometry']} on {found[1].get('device')}"
    if ratio is None:
        return not_here(said, NEEDS)
    return not_here(f"{said}; {where}: {ratio:.2f}x", NEEDS, {f"ratio, {where}": round(ratio, 3)}, found[0])


def _judge_ratio(ratio: float, printed: float, device: str, step: str) -> Judgement:
    enough, faster = ratio >= SPEED_SHARE * printed, ratio > 1
    verdict = REPRODUCED if enough else PARTLY if faster else CONTRADICTED
    rule = f"at least {SPEED_SHARE:.0%} of it count"
    why = f"{ratio:.2f}x on {device}, printed {printed}x on a GPU that is not known; {rule}"
    return Judgement(verdict, why, {"ratio": round(ratio, 3)}, round(ratio - printed, 3), by=step)


def direction_here(stage: str, evidence: Evidence) -> Judgement:
    """Whether compression pays at a published geometry, on the device of the evidence; a tiny one is all overhead."""
    found = [(step, result) for step in STEPS if (result := evidence[step].result) is not None]
    step, result = next((one for one in found if one[1]["geometry"] not in _TOO_SMALL), found[0])
    rows = {str(row["config"]): row for row in result["rows"]}
    config = next((name for name in rows if name.startswith("holitom_r")), None)  # both stages
    full, ours = (rows.get(name or "", {}).get("stages_ms", {}).get(stage) for name in ("vanilla", config))
    if not full or not ours or config is None:
        return not_here(f"{stage} of all tokens and of HoliTom was not taken", NEEDS, by=step)
    ratio = full["median"] / ours["median"]
    where = f"{config}, {result['geometry']} on {result.get('device')}: {ratio:.2f}x, {ours['n']} repetitions"
    if result["geometry"] in _TOO_SMALL:
        why = f"only a tiny geometry was timed, which is all overhead: {where}"
        return not_here(why, "a run without --quick", {"ratio": round(ratio, 3)}, step)
    gap, spread = full["median"] - ours["median"], max(full["iqr"], ours["iqr"])
    verdict = REPRODUCED if gap > spread else CONTRADICTED if -gap > spread else PARTLY
    word = {REPRODUCED: "faster", CONTRADICTED: "slower", PARTLY: "no difference beyond the spread"}[verdict]
    return Judgement(verdict, f"{word}: {where}", {"ratio": round(ratio, 3)}, round(ratio - 1, 3), by=step)


def speed_claims() -> list[Claim]:
    """The abstract's two ratios, their direction here, and two for each bar of the figure."""
    claims = []
    for name, printed, what in (
        ("ttft", TTFT_RATIO, "times faster to the first token"),
        ("decode", DECODE_RATIO, "times the decoding speed"),
    ):
        judge = partial(ratio_claim, "holitom_r10", _MEASURES[name], printed)
        text = f"{printed} {what} (HoliTom at 10 %)"
        claims.append(Claim(f"{name}-{printed}", "abstract", text, {"ratio": printed}, STEPS, judge))
        text, at_least = f"HoliTom: more than 1 {what}, on the device of the evidence", {"ratio at least": 1.0}
        here = partial(direction_here, _STAGES[name])
        claims.append(Claim(f"{name}-here", "abstract, direction alone", text, at_least, STEPS, here))
    for (method, share), times in EFFICIENCY.items():
        config, printed_ratios = config_stem(method, share), times.against(EFFICIENCY["Vanilla", 100])
        for name, measure in _MEASURES.items() if method != "Vanilla" else ():
            ratio = round(printed_ratios[measure], RATIO_DIGITS)
            paper = {
                "ratio": ratio,
                "tower ms": times.tower_ms,
                "other ms": times.other_ms,
                "llm ms": times.llm_ms,
                "tokens per second": times.decode_tokens_per_second,
            }
            what = "times faster to the first token" if name == "ttft" else "times the decoding speed"
            text = f"{method} at {share} %: {ratio} {what}"
            judge = partial(ratio_claim, config, measure, ratio)
            claims.append(Claim(figure_identity(measure, config), "efficiency figure", text, paper, STEPS, judge))
    return claims
