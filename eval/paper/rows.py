"""The paper's efficiency rows: the token counts behind each, and the FLOPs it prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eval.paper.formula import (
    ONEVISION_7B,
    ONEVISION_72B,
    TERA,
    VIDEO_7B,
    Geometry,
    fastv_layers,
    inner_layers,
    outer_layers,
    paper_flops,
    pdrop_layers,
)
from eval.paper.scores import MAIN_SCORES, PaperScores

# folder of configs/ -> the model as the tables call it, and the last part of its name on the hub
MODELS = {
    "llava_onevision_7b": ("LLaVA-OneVision-7B", "llava-onevision-qwen2-7b-ov"),
    "llava_onevision_72b": ("LLaVA-OneVision-72B", "llava-onevision-qwen2-72b-ov-sft"),
    "llava_video_7b": ("LLaVA-Video-7B", "LLaVA-Video-7B-Qwen2"),
}


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's tables: the token counts behind it, and the TFLOPs and percentage (if any) it prints.

    ``retained`` is the printed share of tokens that reach the language model, in percent.
    """

    model: Geometry
    method: str
    retained: int
    tokens_per_layer: tuple[int, ...]
    paper_tflops: float
    paper_percent: float | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Method and share, by which scores, times and configurations are found."""
        return self.method, self.retained

    @property
    def tflops(self) -> float:
        """TFLOPs by the paper's formula, not rounded."""
        return paper_flops(self.tokens_per_layer, self.model.hidden_size, self.model.intermediate_size) / TERA

    @property
    def percent(self) -> float:
        """Share of the uncompressed model, from TFLOPs rounded to one decimal first, as the paper does."""
        full = paper_flops(outer_layers(self.model), self.model.hidden_size, self.model.intermediate_size) / TERA
        return 100 * round(self.tflops, 1) / round(full, 1)


def main_rows() -> list[PaperRow]:
    """The 24 rows of the paper's main table (LLaVA-OneVision-7B) in its order.

    FastV's and PDrop's layers and ratios are inferred: the defaults here are those that give the printed FLOPs, on this
    model and on the others. All outer methods of one ratio are counted alike, as the paper does.
    """
    model = ONEVISION_7B
    rows = [
        PaperRow(model, "Vanilla", 100, tuple(outer_layers(model)), 40.8, 100.0),
        PaperRow(model, "FastV", 100, tuple(fastv_layers(model)), 9.3, 22.8),
        PaperRow(model, "PDrop", 100, tuple(pdrop_layers(model)), 10.5, 25.7),
        PaperRow(model, "DyCoke", 25, tuple(outer_layers(model, 0.25)), 8.7, 21.3),
    ]
    printed = {
        25: (8.7, 21.3, 7.1, 17.4),
        20: (7.0, 17.2, 5.8, 14.2),
        15: (5.2, 12.7, 4.3, 10.5),
        10: (3.4, 8.3, 2.8, 6.9),
    }
    for retained, (outer, outer_percent, both, both_percent) in printed.items():
        layers = tuple(outer_layers(model, retained / 100))
        for method in ("VisionZip", "PruneVid", "FastVID", "HoliTom (w/o M)"):
            rows.append(PaperRow(model, method, retained, layers, outer, outer_percent))
        layers = tuple(inner_layers(model, retained / 100, merge_layer=18))
        rows.append(PaperRow(model, "HoliTom", retained, layers, both, both_percent))
    return rows


def other_backbone_rows() -> list[PaperRow]:
    """The rows of the paper's second table (LLaVA-Video-7B, LLaVA-OneVision-72B)."""
    video, large = VIDEO_7B, ONEVISION_72B
    return [
        PaperRow(video, "Vanilla", 100, tuple(outer_layers(video)), 80.2),
        PaperRow(video, "FastV", 100, tuple(fastv_layers(video)), 17.1),
        PaperRow(video, "PDrop", 100, tuple(pdrop_layers(video)), 19.5),
        PaperRow(video, "HoliTom (w/o M)", 15, tuple(outer_layers(video, 0.15)), 9.3),
        PaperRow(video, "HoliTom", 15, tuple(inner_layers(video, 0.15, merge_layer=18)), 7.6),
        PaperRow(large, "Vanilla", 100, tuple(outer_layers(large)), 429.3),
        PaperRow(large, "FastV", 100, tuple(fastv_layers(large)), 86.4),
        PaperRow(large, "HoliTom (w/o M)", 15, tuple(outer_layers(large, 0.15)), 59.0),
        PaperRow(large, "HoliTom", 15, tuple(inner_layers(large, 0.15, merge_layer=60)), 51.6),
    ]


def rows_of(model: str) -> list[PaperRow]:
    """The paper's rows of one folder of ``configs/``, in their order; empty for other folders."""
    title = MODELS.get(model, ("",))[0]
    return [row for row in (*main_rows(), *other_backbone_rows()) if row.model.name == title]


def scores_of(row: PaperRow | None) -> PaperScores | None:
    """The printed scores of a row; None where they are not known here."""
    if row is None or row.model.name != MODELS["llava_onevision_7b"][0]:
        return None
    return MAIN_SCORES[row.key]


def as_record(row: PaperRow) -> dict[str, Any]:
    """The row as plain data for the table and the JSON line."""
    return {
        "model": row.model.name,
        "method": row.method,
        "retained_percent": row.retained,
        "tokens": [row.tokens_per_layer[0], row.tokens_per_layer[-1]],  # of the first and the last layer
        "paper_tflops": row.paper_tflops,
        "tflops": round(row.tflops, 3),
        "difference": round(row.tflops - row.paper_tflops, 3),
        "paper_percent": row.paper_percent,
        "percent": round(row.percent, 1),
        "agrees": round(row.tflops, 1) == row.paper_tflops and row.paper_percent in (None, round(row.percent, 1)),
    }
