"""What the paper says about accuracy: only the published checkpoint on the paper's benchmarks can tell."""

from __future__ import annotations

from functools import partial
from typing import Any

from eval.claims.judging import PARTLY, REPRODUCED, Claim, Evidence, Judgement, first, not_here
from eval.claims.score_rule import Measured, ScoreVerdict, combined, judge_lead, judge_ratio, judge_score
from eval.paper.config_names import config_stem, slug
from eval.paper.scores import MAIN_SCORES, OTHER_BACKBONES, PaperScores

ACCURACY_PERCENT = 99.1  # abstract: of the uncompressed model's mean score, at 10 % of the tokens
_FEWEST = 2  # methods that make an order
BENCHMARKS = ("benchmarks", "recorded_benchmarks")
TINY = ("tiny", "recorded_tiny")
NEEDS = (
    "checkpoint lmms-lab/llava-onevision-qwen2-7b-ov, the benchmarks (python -m eval.benchmarks.data plan) and a GPU: "
    "bash scripts/verify_claims.sh --checkpoint DIR --data DIR"
)
TASKS = {
    "MVBench": "mvbench",
    "EgoSchema": "egoschema_subset",
    "LongVideoBench": "longvideobench_val_v",
    "VideoMME": "videomme",
}


def tiny_row(evidence: Evidence, name: str) -> tuple[str, dict[str, Any]] | None:
    """Step and scores of one row of the tiny model's main table: measured now if it was, else recorded."""
    for step in TINY:
        result = evidence[step].result
        if result is not None and name in result["rows"]:
            return step, result["rows"][name]
    return None


def on_the_tiny_model(evidence: Evidence, name: str) -> str:
    """What the learned tiny model says about a row, in words; empty if it was not asked."""
    found = tiny_row(evidence, name)
    if found is None:
        return ""
    row = found[1]
    interval = "{:+.1f} points [{:+.1f}, {:+.1f}]".format(*(100 * row[key] for key in ("difference", "low", "high")))
    return (
        f"on the learned tiny model, an instrument and not the 7B model: {100 * row['retention']:.1f} % of the full "
        f"score with {row['outer']:.0f} of {row['before']:.0f} tokens, {interval}, {row['questions']} questions"
    )


def unmeasured(evidence: Evidence, name: str, why: str) -> Judgement:
    """No verdict about the 7B model, with what the tiny one says."""
    tiny, found = on_the_tiny_model(evidence, name), tiny_row(evidence, name)
    if found is None:
        return not_here(why, NEEDS)
    row = found[1]
    ours = {f"tiny model, {key}": row[key] for key in ("score", "retention", "difference", "low", "high")}
    return not_here(f"{why}; {tiny}", NEEDS, ours, found[0])


def benchmark_row(evidence: Evidence, name: str) -> tuple[str, dict[str, Any], str]:
    """Step, scores and what keeps them from being held against the paper (empty if nothing) of one configuration."""
    found = first(evidence, BENCHMARKS)
    if found is None:
        return "", {}, "the paper's benchmarks were not run"
    row = found[1]["rows"].get(f"llava_onevision_7b/{name}")
    if row is None:
        return found[0], {}, f"the benchmark runs have no {name}"
    if row["rehearsal"]:
        return found[0], row, f"the benchmark run is a rehearsal ({row['rehearsal']})"
    withheld = ", ".join(f"{task}: {why}" for task, why in row["withheld"].items())
    return found[0], row, withheld


def scores_identity(method: str, share: int) -> str:
    """Name of the claim about the scores of a row of the main table."""
    return f"table1-scores-{slug(method, share)}"


def judge_cells(name: str, configs: dict[str, str], printed: dict[str, float], evidence: Evidence) -> Judgement:
    """Printed scores by benchmark, each held against the run of the configuration that it was made with.

    Args:
        name: of the row, for what the tiny model says about it.
        configs: configuration by benchmark.
        printed: score by benchmark, in percent.
        evidence: of the steps :data:`BENCHMARKS` and :data:`TINY`.
    """
    found = {title: benchmark_row(evidence, config) for title, config in configs.items()}
    obstacle = next((why for _, _, why in found.values() if why), "")
    if obstacle or not printed:
        return unmeasured(evidence, name, obstacle or "the paper's scores are not known here")
    rows = {title: row for title, (_, row, _) in found.items() if title in printed and TASKS[title] in row["cells"]}
    if not rows:
        return unmeasured(evidence, name, "none of the paper's benchmarks was run")
    judged = {title: judge_score(printed[title], Measured(**row["cells"][TASKS[title]])) for title, row in rows.items()}
    ours = {title: row["scores"][TASKS[title]] for title, row in rows.items()}
    gaps = {title: round(verdict.difference, 6) for title, verdict in judged.items()}
    cells = {TASKS[title]: {"ours": ours[title], **verdict.as_record()} for title, verdict in judged.items()}
    verdict = combined([one.verdict for one in judged.values()], len(printed))
    why = "; ".join(f"{title} {ours[title]:.1f} {_said(one)}" for title, one in judged.items())
    return Judgement(verdict, why, ours, gaps, by=found[next(iter(rows))][0], cells=cells)


def _said(one: ScoreVerdict) -> str:
    why = f", {one.why}" if one.why else ""
    return f"({one.difference:+.1f}, u {one.error:.2f}: {one.verdict}{why})"


def retained_accuracy(evidence: Evidence) -> Judgement:
    """The abstract's share of the mean score, with the error of a ratio whose two parts answer the same questions."""
    step, found, obstacle = benchmark_row(evidence, "holitom_r10")
    if obstacle or found.get("percent") is None or not found["ratio"]:
        return unmeasured(evidence, "holitom_r10", obstacle or "not all four benchmarks were run")
    one = judge_ratio(ACCURACY_PERCENT, found["percent"], found["ratio"])
    why = f"{found['percent']:.1f} % of the mean of the four benchmarks {_said(one)}"
    return Judgement(one.verdict, why, {"percent": found["percent"]}, round(one.difference, 3), by=step)


def best_of_all(share: int, evidence: Evidence) -> Judgement:
    """Whether HoliTom has the best mean of its share, by paired differences of our own runs."""
    rivals = {
        method: config_stem(method, at)
        for method, at in MAIN_SCORES
        if at == share and not method.startswith("HoliTom")
    }
    step, ours, obstacle = benchmark_row(evidence, f"holitom_r{share}")
    named = {method: f"llava_onevision_7b/{config}" for method, config in rivals.items()}
    leads = {method: tuple(ours["leads"][name]) for method, name in named.items() if name in ours.get("leads", {})}
    if obstacle or not leads:
        reasons = (obstacle, *(benchmark_row(evidence, config)[2] for config in rivals.values()))
        why = next((reason for reason in reasons if reason), "the other methods were not run on all four benchmarks")
        return _tiny_order(evidence, share, why)
    verdict = judge_lead(leads)
    if verdict == REPRODUCED and len(leads) != len(rivals):
        verdict = PARTLY
    why = "HoliTom's lead in points: " + ", ".join(f"{name} {gap:+.1f} ± {e:.1f}" for name, (gap, e) in leads.items())
    gaps = {name: round(gap, 3) for name, (gap, _) in leads.items()}
    return Judgement(verdict, why, {"HoliTom": ours["average"]}, gaps, by=step)


def _tiny_order(evidence: Evidence, share: int, why: str) -> Judgement:
    """Methods of one share on the tiny model, all from the one measurement that has most of them."""
    found: dict[str, Any] = {}
    by = None
    for step in TINY:
        result = evidence[step].result or {"rows": {}}
        rows = {name: row for name, row in result["rows"].items() if name.endswith(f"_r{share}")}
        if len(rows) > len(found):
            found, by = rows, step
    if len(found) < _FEWEST:
        return not_here(why, NEEDS)
    ordered = sorted(found.items(), key=lambda one: -one[1]["score"])
    said = ", ".join(f"{name} {100 * row['score']:.1f} %" for name, row in ordered)
    ours = {f"tiny model, {name}": row["score"] for name, row in ordered}
    return not_here(f"{why}; on the learned tiny model, an instrument and not the 7B model: {said}", NEEDS, ours, by)


def printed_scores(scores: PaperScores) -> dict[str, float]:
    """Scores by benchmark, without those that are not printed."""
    return {title: score for title, task in TASKS.items() if (score := scores.of(task)) is not None}


def accuracy_claims() -> list[Claim]:
    """The abstract's, every row of the main table, the order of the methods, and the second table."""
    steps = (*BENCHMARKS, *TINY)
    found = [
        Claim(
            "accuracy-99.1",
            "abstract",
            f"{ACCURACY_PERCENT} % of the uncompressed model's mean score",
            {"percent": ACCURACY_PERCENT},
            steps,
            retained_accuracy,
        )
    ]
    for (method, share), scores in MAIN_SCORES.items():
        text = f"{method} at {share} %: scores on the four benchmarks"
        config, printed = config_stem(method, share), printed_scores(scores)
        means = {"average": scores.average, "percent": scores.percent}
        more = {name: value for name, value in means.items() if value is not None}
        judge = partial(judge_cells, config, dict.fromkeys(TASKS, config), printed)
        found.append(Claim(scores_identity(method, share), "table 1", text, printed | more, steps, judge))
    for share in (25, 20, 15, 10):
        text = f"HoliTom has the best mean score of all methods at {share} %"
        found.append(Claim(f"table1-best-r{share}", "table 1", text, {}, steps, partial(best_of_all, share)))
    for model in OTHER_BACKBONES:
        text = f"HoliTom keeps the accuracy of {model} at 15 %"
        name = f"table2-scores-{model.lower().replace('llava-', '')}"
        found.append(Claim(name, "table 2", text, {}, steps, partial(other_backbone, model)))
    return found


def other_backbone(model: str, evidence: Evidence) -> Judgement:
    """The second table's scores are not known here, so there is nothing to hold a run against."""
    needs = f"the scores that the paper prints for {model}, its checkpoint, the benchmarks and a GPU"
    return not_here("the paper's scores of this table are not part of this repository", needs)
