"""The scores and times that the paper prints (HoliTom, NeurIPS 2025), as data.

FLOPs and token counts of the same rows are in :mod:`eval.paper.rows`. Only what is known here is filled in: the paper's
second-backbone table is represented by its FLOPs, its ablations by the points that are rows of the main table as well;
everything else stays None and is shown as n/a.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperScores:
    """One row of the paper's main table, in percent; None where the paper prints a dash."""

    mvbench: float | None
    egoschema: float | None  # of the full set of 5,031 questions
    longvideobench: float | None
    videomme: float | None
    average: float | None = None
    percent: float | None = None  # average relative to the uncompressed model's

    def of(self, task: str) -> float | None:
        """The score of one lmms-eval task; the EgoSchema subset is held against the full set."""
        return {
            "mvbench": self.mvbench,
            "egoschema": self.egoschema,
            "egoschema_subset": self.egoschema,
            "longvideobench_val_v": self.longvideobench,
            "videomme": self.videomme,
        }.get(task)


# (method, share of tokens before the LLM in percent) -> scores; main table, LLaVA-OneVision-7B.
# FastVID's rows are copied by the paper from the FastVID paper, whose own MVBench baseline is 56.9.
MAIN_SCORES = {
    ("Vanilla", 100): PaperScores(58.3, 60.4, 56.4, 58.6, 58.4, 100.0),
    ("FastV", 100): PaperScores(55.9, 57.5, 56.7, 56.1, 56.5, 96.7),
    ("PDrop", 100): PaperScores(56.1, 58.0, 54.1, 56.4, 56.2, 96.2),
    ("DyCoke", 25): PaperScores(53.1, 59.5, 49.5, 54.3, 54.1, 92.6),
    ("VisionZip", 25): PaperScores(57.9, 60.3, 56.5, 58.2, 58.2, 99.7),
    ("PruneVid", 25): PaperScores(57.4, 59.9, 55.7, 57.4, 57.6, 98.6),
    ("FastVID", 25): PaperScores(56.5, None, 56.3, 58.0),
    ("HoliTom (w/o M)", 25): PaperScores(58.5, 60.8, 56.5, 59.1, 58.7, 100.5),
    ("HoliTom", 25): PaperScores(58.4, 61.2, 56.7, 58.9, 58.8, 100.7),
    ("VisionZip", 20): PaperScores(57.7, 59.8, 55.2, 57.9, 57.7, 98.8),
    ("PruneVid", 20): PaperScores(57.2, 59.7, 54.7, 56.9, 57.1, 97.8),
    ("FastVID", 20): PaperScores(56.3, None, 57.1, 57.9),
    ("HoliTom (w/o M)", 20): PaperScores(58.5, 60.7, 56.3, 58.6, 58.5, 100.2),
    ("HoliTom", 20): PaperScores(58.7, 61.0, 57.1, 58.6, 58.8, 100.7),
    ("VisionZip", 15): PaperScores(56.5, 59.8, 54.4, 56.1, 56.7, 97.1),
    ("PruneVid", 15): PaperScores(56.8, 59.7, 55.4, 56.6, 57.1, 97.8),
    ("FastVID", 15): PaperScores(56.0, None, 56.2, 57.7),
    ("HoliTom (w/o M)", 15): PaperScores(58.1, 61.0, 57.0, 58.1, 58.5, 100.2),
    ("HoliTom", 15): PaperScores(58.1, 61.2, 56.4, 57.3, 58.2, 99.7),
    ("VisionZip", 10): PaperScores(53.5, 58.0, 49.3, 53.4, 53.5, 91.6),
    ("PruneVid", 10): PaperScores(56.2, 59.8, 54.5, 56.0, 56.6, 96.9),
    ("FastVID", 10): PaperScores(55.9, None, 56.3, 57.3),
    ("HoliTom (w/o M)", 10): PaperScores(56.9, 61.1, 56.5, 56.9, 57.8, 99.0),
    ("HoliTom", 10): PaperScores(57.3, 61.2, 56.3, 56.8, 57.9, 99.1),
}

OTHER_BACKBONES = ("LLaVA-Video-7B", "LLaVA-OneVision-72B")  # of the second table, whose scores are not known here


@dataclass(frozen=True)
class PaperTimes:
    """One bar of the paper's efficiency figure: milliseconds of the stages, and tokens per second of decoding."""

    tower_ms: int
    other_ms: int
    llm_ms: int
    decode_tokens_per_second: float

    @property
    def total_ms(self) -> int:
        """The whole bar: time to first token."""
        return self.tower_ms + self.other_ms + self.llm_ms

    @property
    def bar(self) -> str:
        """Tower, other and LLM in words."""
        return f"{self.tower_ms} + {self.other_ms} + {self.llm_ms}"

    def against(self, full: PaperTimes) -> dict[str, float]:
        """How many times faster than ``full``, by the names that ``eval.efficiency.latency`` gives the same ratios."""
        return {
            "time_to_first_token": full.total_ms / self.total_ms,
            "tokens_per_second": self.decode_tokens_per_second / full.decode_tokens_per_second,
        }


# Efficiency figure, LLaVA-OneVision-7B. Its bars are at different retentions; the average scores printed beside them
# identify HoliTom at 10 %, VisionZip at 20 %, and PruneVid at 20 or 15 %. The paper's GPU is not known here.
EFFICIENCY = {
    ("Vanilla", 100): PaperTimes(500, 45, 1142, 29.5),
    ("FastV", 100): PaperTimes(500, 45, 372, 36.8),
    ("PDrop", 100): PaperTimes(500, 45, 363, 36.7),
    ("VisionZip", 20): PaperTimes(500, 48, 271, 37.5),
    ("PruneVid", 20): PaperTimes(500, 75, 214, 38.2),
    ("HoliTom (w/o M)", 10): PaperTimes(500, 85, 175, 38.8),
    ("HoliTom", 10): PaperTimes(500, 85, 156, 38.8),
}


def is_timed_geometry(name: object) -> bool:
    """Whether a latency record calls the efficiency figure's model so, LLaVA-OneVision-7B; no other of 7B is meant."""
    plain = str(name).lower()
    return "onevision" in plain and "7b" in plain
