"""What the paper says about FLOPs and tokens: the abstract's two shares, and the columns of its tables."""

from __future__ import annotations

from functools import partial
from typing import Any

from eval.claims.judging import (
    CONTRADICTED,
    NOT_HERE,
    PARTLY,
    REPRODUCED,
    Claim,
    Evidence,
    Judgement,
    as_printed,
    at_most,
    first,
    half_digit,
    not_here,
    result_of,
)
from eval.paper.config_names import config_stem, slug
from eval.paper.formula import ONEVISION_7B
from eval.paper.rows import PaperRow, main_rows, other_backbone_rows

FLOPS_PERCENT = 6.9  # abstract: of the uncompressed model's FLOPs
VISUAL_TOKENS_PERCENT = 90.0  # abstract: more than so many of the visual tokens are removed
_SAVES = 100.0  # percent of the uncompressed model's, below which anything is saved
_DIGITS = 1  # behind the point, in all of the paper's FLOPs and percentages
_HALF_TOKEN, _WHOLE_TOKEN = 0.5, 1.0  # per frame: the rounding of a budget, and what no budget allows


def _formula_row(evidence: Evidence, row: PaperRow) -> dict[str, Any]:
    wanted = (row.model.name, row.method, row.retained)
    rows = result_of(evidence, "formula")["rows"]
    return next(r for r in rows if (r["model"], r["method"], r["retained_percent"]) == wanted)


def flops_row(row: PaperRow, evidence: Evidence) -> Judgement:
    """TFLOPs and percentage of one row by the paper's formula, to the printed digit."""
    found = _formula_row(evidence, row)
    paper = {"TFLOPs": row.paper_tflops} | ({} if row.paper_percent is None else {"percent": row.paper_percent})
    return as_printed({"TFLOPs": found["tflops"], "percent": found["percent"]}, paper, _DIGITS)


def flops_share(evidence: Evidence) -> Judgement:
    """The abstract's share, from TFLOPs that are not rounded first."""
    full, ours = (_formula_row(evidence, row) for row in (_row("Vanilla", 100), _row("HoliTom", 10)))
    share = 100 * ours["tflops"] / full["tflops"]
    return as_printed({"percent": round(share, 3)}, {"percent": FLOPS_PERCENT}, _DIGITS)


def flops_with_real_tokens(evidence: Evidence) -> Judgement:
    """The same share with the tokens that the method really leaves on a clip."""
    rows = {row["config"]: row for row in result_of(evidence, "token_counts")["rows"]}
    share = 100 * rows["holitom_r10"]["measured_tflops"] / rows["vanilla"]["measured_tflops"]
    return at_most(round(share, 3), FLOPS_PERCENT, "percent of FLOPs with the tokens measured on the clip", _DIGITS)


def flops_of_everything(evidence: Evidence) -> Judgement:
    """The share when everything that a prefill computes is counted: tower, projector, text, all matrices."""
    found = first(evidence, ("counted", "recorded_flops"))
    assert found is not None
    step, result = found
    counts = {one["config"]: one for one in result["real"] if str(one["geometry"]).endswith("onevision-7b")}
    if not {"vanilla", "holitom_r10"} <= set(counts):
        return not_here(
            "eval.efficiency.flops counts no 7B rows of both",
            "eval.efficiency.flops with vanilla and holitom_r10 at 7B",
        )
    full, ours = counts["vanilla"]["prefill"], counts["holitom_r10"]["prefill"]
    shares = {part: round(100 * ours[part] / full[part], 2) for part in ("llm", "total")}
    within = {part: share - FLOPS_PERCENT <= half_digit(_DIGITS) for part, share in shares.items()}
    # cheaper, but by less than was said, is not the claim's opposite
    verdict = REPRODUCED if all(within.values()) else PARTLY if shares["total"] < _SAVES else CONTRADICTED
    why = (
        f"all products counted, the language model's prefill is at {shares['llm']} % and the whole model's, with the "
        f"vision tower that no such method shortens, at {shares['total']} %; {FLOPS_PERCENT} % is the formula's"
    )
    gap = round(shares["total"] - FLOPS_PERCENT, 2)
    return Judgement(verdict, why, {f"{part} percent": share for part, share in shares.items()}, gap, by=step)


def tokens_removed(evidence: Evidence) -> Judgement:
    """More than 90 % of the visual tokens: before the LLM, counted and measured, behind it, and over the layers."""
    rows = {row["config"]: row for row in result_of(evidence, "token_counts")["rows"]}
    before = ONEVISION_7B.visual_tokens
    nominal = _row("HoliTom", 10).tokens_per_layer
    measured = [int(count) for count in rows["holitom_r10"]["measured"].split(" > ")]
    kept = {
        "before the LLM, nominal": nominal[0],
        "before the LLM, measured": measured[0],
        "behind the inner stage, nominal": nominal[-1],
        "behind the inner stage, measured": measured[-1],
        "mean over the layers, nominal": sum(nominal) / len(nominal),
    }
    removed = {name: round(100 * (1 - count / before), 2) for name, count in kept.items()}
    over = [name for name, share in removed.items() if share > VISUAL_TOKENS_PERCENT]
    verdict = REPRODUCED if len(over) == len(removed) else PARTLY if over else CONTRADICTED
    why = f"percent removed: {', '.join(f'{name} {share}' for name, share in removed.items())}"
    gap = {name: round(share - VISUAL_TOKENS_PERCENT, 2) for name, share in removed.items()}
    return Judgement(verdict, why, removed, gap)


def token_row(row: PaperRow, evidence: Evidence) -> Judgement:
    """Whether a row's nominal tokens are what its configuration really leaves on a clip."""
    rows = {one["config"]: one for one in result_of(evidence, "token_counts")["rows"]}
    found = rows.get(config_stem(*row.key))
    if found is None or found["nominal"] is None:
        return not_here("the row was not measured", "python -m eval.efficiency.token_counts configs/llava_onevision_7b")
    paper, real = ([int(count) for count in found[key].split(" > ")] for key in ("nominal", "measured"))
    ours: dict[str, Any] = {"tokens": found["measured"], "percent": round(100 * found["retained_before_llm"], 2)}
    if len(paper) != len(real):
        return Judgement(CONTRADICTED, f"{len(real)} stage(s) ran, the row has {len(paper)}: {real}", ours)
    gaps = [(a - b) / row.model.frames for a, b in zip(real, paper, strict=True)]
    over = max(gaps)
    verdict = CONTRADICTED if over > _WHOLE_TOKEN else REPRODUCED if _near(gaps) else PARTLY
    words = {
        CONTRADICTED: "above the budget",
        REPRODUCED: "the budget is held",
        PARTLY: "under the budget: how much stands still decides" if over <= 0 else "a little above the budget",
    }
    why = f"{words[verdict]}: {found['measured']} tokens on the clip, {found['nominal']} counted in the paper"
    return Judgement(verdict, why, ours, real[0] - paper[0])


def _near(gaps: list[float]) -> bool:
    return all(abs(gap) <= _HALF_TOKEN for gap in gaps)


def _row(method: str, retained: int) -> PaperRow:
    return next(row for row in main_rows() if (row.method, row.retained) == (method, retained))


_SECOND_TABLE = {"LLaVA-Video-7B": "video-7b", "LLaVA-OneVision-72B": "ov-72b"}


def flops_identity(row: PaperRow) -> str:
    """Name of the claim about a row's FLOPs."""
    model = _SECOND_TABLE.get(row.model.name)
    return f"{'table1' if model is None else f'table2-{model}'}-flops-{slug(*row.key)}"


def _row_claim(row: PaperRow, table: str) -> Claim:
    paper: dict[str, float] = {"TFLOPs": row.paper_tflops}
    if row.paper_percent is not None:
        paper["percent"] = row.paper_percent
    text = f"{row.model.name}, {row.method} at {row.retained} %: {row.paper_tflops} TFLOPs"
    judge = partial(flops_row, row)
    return Claim(flops_identity(row), table, text, paper, ("formula",), judge, CONTRADICTED)


def _token_claim(row: PaperRow) -> Claim:
    text = f"{row.method} leaves {row.retained} % of the visual tokens before the LLM"
    paper = {"percent": float(row.retained)}
    judge = partial(token_row, row)
    return Claim(f"table1-tokens-{slug(*row.key)}", "table 1", text, paper, ("token_counts",), judge, CONTRADICTED)


def abstract_claims() -> list[Claim]:
    """FLOPs and tokens of the abstract."""
    percent = {"percent": FLOPS_PERCENT}
    return [
        Claim(
            "flops-6.9",
            "abstract",
            f"{FLOPS_PERCENT} % of the FLOPs, by the paper's formula and token counts",
            percent,
            ("formula",),
            flops_share,
            CONTRADICTED,
        ),
        Claim(
            "flops-6.9-real-tokens",
            "abstract",
            f"{FLOPS_PERCENT} % of the FLOPs with the tokens really computed",
            percent,
            ("token_counts",),
            flops_with_real_tokens,
            CONTRADICTED,
        ),
        Claim(
            "flops-6.9-everything",
            "abstract",
            f"{FLOPS_PERCENT} % of the FLOPs of the whole model",
            percent,
            ("counted", "recorded_flops"),
            flops_of_everything,
            NOT_HERE,
        ),
        Claim(
            "tokens-90",
            "abstract",
            f"over {VISUAL_TOKENS_PERCENT:.0f} % of the visual tokens are removed",
            {"percent": VISUAL_TOKENS_PERCENT},
            ("token_counts",),
            tokens_removed,
            CONTRADICTED,
        ),
    ]


def table_claims() -> list[Claim]:
    """FLOPs of every row of both tables, and tokens of every row of the first."""
    first_table = [_row_claim(row, "table 1") for row in main_rows()]
    tokens = [_token_claim(row) for row in main_rows() if row.retained < 100]
    second = [_row_claim(row, "table 2") for row in other_backbone_rows()]
    return [*first_table, *tokens, *second]
