"""What the papers of younger methods print, as claims of theirs by the same rules: scores and times to first token."""

from __future__ import annotations

from functools import partial

from eval.claims.judging import Claim
from eval.claims.score_claims import BENCHMARKS, TASKS, TINY, judge_cells, printed_scores
from eval.claims.speed_claims import RATIO_DIGITS, ratio_claim
from eval.claims.speed_claims import STEPS as SPEED_STEPS
from eval.paper.config_names import config_stem
from eval.paper.newer import NEWER_PAPERS


def newer_score_claims() -> list[Claim]:
    """Scores that papers of younger methods print, as claims of theirs, by the same rule."""
    found = []
    for paper in NEWER_PAPERS:
        for share, scores in paper.scores.items():
            config, printed = config_stem(paper.method, share), printed_scores(scores)
            settings = {title: f",benchmark={title.lower()}" if paper.per_benchmark else "" for title in TASKS}
            configs = {title: f"{config}{more}" for title, more in settings.items()}
            text = f"{paper.method} at {share} %: scores on the four benchmarks"
            if paper.per_benchmark:
                text += ", with the settings of each"
            more = {} if scores.percent is None else {"percent": scores.percent}
            name, judge = config.replace("_r", "-scores-r"), partial(judge_cells, config, configs, printed)
            found.append(Claim(name, paper.source, text, printed | more, (*BENCHMARKS, *TINY), judge))
    return found


def newer_speed_claims() -> list[Claim]:
    """Times to first token that papers of younger methods print, as ratios to their own uncompressed run."""
    claims = []
    for paper in NEWER_PAPERS:
        for share, milliseconds in paper.first_token_ms.items():
            config, ratio = config_stem(paper.method, share), round(paper.vanilla_ms / milliseconds, RATIO_DIGITS)
            printed = {"ratio": ratio, "ms": milliseconds, "vanilla ms": paper.vanilla_ms}
            text = f"{paper.method} at {share} %: {ratio} times faster to the first token"
            judge = partial(ratio_claim, config, "time_to_first_token", ratio)
            claims.append(Claim(config.replace("_r", "-ttft-r"), paper.source, text, printed, SPEED_STEPS, judge))
    return claims
