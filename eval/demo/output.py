"""What the demo prints and draws."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from eval.instruments.answering import Trial
from holitom import Compressor
from holitom.record.saving import saved_copy
from holitom.run_facts import frame_times
from holitom.views import save_picture, token_map
from llava.video import VideoClip

# a table that is not cut where the output is no terminal
console = Console(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 120)


def show(rows: list[Trial], merge_layer: int, repetitions: int) -> None:
    """The table on the terminal, every value beside the first row's, and the answers below it."""
    table = Table(title=f"median of {repetitions} runs; FLOPs of the LLM's prefill by the paper's formula")
    for heading in ("", "tokens to the LLM", f"from layer {merge_layer}", "GFLOPs", "first token", "peak memory"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    full = rows[0]
    for row in rows:
        seconds, first_token = row.seconds_to_first_token, "-"
        if seconds is not None:
            first_token = f"{1000 * seconds:.0f} ms"
            if full.seconds_to_first_token is not None:
                first_token += f" ({full.seconds_to_first_token / seconds:.2f}x)"
        table.add_row(
            row.name,
            f"{row.tokens[1]} ({row.tokens[1] / full.tokens[0]:.1%})",
            f"{row.tokens[2]} ({row.tokens[2] / full.tokens[0]:.1%})",
            f"{1000 * row.tflops:.4g} ({row.tflops / full.tflops:.1%})",
            first_token,
            "-" if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f} MB",
        )
    console.print(table)
    for row in rows:
        console.print(f"{row.name:<22}{row.answer!r}", markup=False)


def static_share(compressor: Compressor) -> float:
    """Share of the latest video's tokens, all frames counted, that stood still over their segment."""
    details = compressor.record.videos[0].details
    still = sum(
        count * (last - first + 1) for (first, last), count in zip(details.segments, details.static_counts, strict=True)
    )
    return still / (details.frames * details.tokens_per_frame)


def draw(clip: VideoClip, compressor: Compressor, path: Path, name: str, **meta: Any) -> list[tuple[int, int]]:
    """Save the token map of the latest prompt's first video; returns its segments."""
    record = saved_copy(
        compressor.record, [clip.frames], frame_times(clip), size=480, name=name, video=str(clip.path), **meta
    )
    save_picture(token_map(record), path)
    return compressor.record.videos[0].details.segments
