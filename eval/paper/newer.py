"""What the papers of methods that are younger than HoliTom print about LLaVA-OneVision-7B, as data.

FlashVID: arXiv 2602.08024, main table and the one of times (A100). EarlyTom: arXiv 2605.30010, main table, whose last
column is the time to first token (A100). Each holds its percentages against its own uncompressed run.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.paper.scores import PaperScores


@dataclass(frozen=True)
class NewerPaper:
    """What one paper prints.

    Attributes:
        method: its name.
        source: of the numbers.
        vanilla: scores of its own uncompressed run; only the average, where it prints no more.
        scores: by share of the tokens in percent.
        vanilla_ms: time to first token of its uncompressed run.
        first_token_ms: the same by share, where it is printed.
        per_benchmark: whether the numbers are those of settings that were chosen for each benchmark.
    """

    method: str
    source: str
    vanilla: PaperScores
    scores: dict[int, PaperScores]
    vanilla_ms: float
    first_token_ms: dict[int, float]
    per_benchmark: bool = False


NEWER_PAPERS = (
    NewerPaper(
        "FlashVID", "FlashVID's paper", PaperScores(58.3, 60.3, 56.6, 58.5, None, 100.0),
        {
            25: PaperScores(58.0, 60.4, 56.8, 59.2, None, 100.3),
            20: PaperScores(58.2, 60.1, 58.5, 58.2, None, 100.5),
            15: PaperScores(57.9, 60.4, 57.5, 58.2, None, 100.2),
            10: PaperScores(57.4, 60.0, 56.5, 57.8, None, 99.1),
        },
        2005.8, {10: 978.3},
    ),
    NewerPaper(
        "EarlyTom", "EarlyTom's paper", PaperScores(None, None, None, None, 58.4, 100.0),
        {
            25: PaperScores(57.4, 60.5, 56.3, 58.5, None, 99.7),
            20: PaperScores(57.8, 60.6, 55.6, 58.0, None, 99.3),
            15: PaperScores(57.5, 60.2, 54.4, 56.9, None, 98.1),
            10: PaperScores(56.5, 60.1, 52.4, 55.8, None, 96.2),
        },
        889.9, {25: 426.3, 20: 415.3, 15: 390.6, 10: 336.2}, per_benchmark=True,
    ),
)  # fmt: skip
