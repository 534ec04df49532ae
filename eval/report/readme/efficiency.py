"""The README's efficiency section: FLOPs, latencies, kernels, decoding from ``results/*/``, and what is not there."""

from pathlib import Path
from typing import Any

from eval.efficiency.sheets import DECODE, FLOPS, KERNELS, LATENCY, by_clip, decode_rows, flops_rows
from eval.instruments.kinds import read_json
from eval.instruments.sheets import markdown
from eval.report.readme.measured import from_files, section, source
from llava.errors import InputError

_MAIN = "llava-onevision-7b"
# file, whether it must be of a GPU, what it measures, the command that does
_TIMES, _CHECK = "time to first token and decoding", "bash scripts/gpu_check.sh"
_BENCH = "bash scripts/bench_efficiency.sh"
_WANTED = (
    ("flops.json", False, "FLOPs counted on the graph of the real size", "bash scripts/measure_cpu.sh"),
    ("latency_llava-onevision-0.5b.json", False, "time to first token of the 0.5B model on a CPU", _BENCH),
    ("latency_llava-onevision-7b.json", True, f"{_TIMES} of LLaVA-OneVision-7B on a GPU", _BENCH),
    ("latency_llava-video-7b.json", True, f"{_TIMES} of LLaVA-Video-7B at 64 frames on a GPU", _BENCH),
    ("bench_kernels.json", True, "the Triton kernels on a GPU, their launches and syncs", f"{_CHECK} bench"),
    ("bench_decode.json", True, "decoding with a static cache and with CUDA graphs on a GPU", _BENCH),
)


def flops_section(record: dict[str, Any]) -> list[str]:
    """Real FLOPs of the main checkpoint by stage."""
    result = record["result"]
    rows = [row for row in result["real"] if row["geometry"] == _MAIN]
    agree = sum(bool(row.get("agrees")) for row in result["rows"])
    text = (
        f"**FLOPs.** By the paper's formula {agree} of {len(result['rows'])} rows give the printed digits. Really, "
        f"tower and text included, a multiplication and its addition counted as two, {_MAIN} at the paper's token "
        "counts (the graph of the real size under torch's FLOP counter):"
    )
    return section(text, FLOPS, flops_rows(rows), f"From {source(record)}.")


def latency_section(record: dict[str, Any]) -> list[str]:
    """Latencies of one geometry on one device, a table for each clip."""
    result = record["result"]
    weights = "random weights" if result["random_weights"] else f"weights of {result['checkpoint']}"
    lines = [
        f"**Time to first token, {result['geometry']}**, {weights}, {result['frames']} frames, {result['dtype']}, "
        f"{result['attention']}, {result['repetitions']} interleaved repetitions, medians (range) in ms from "
        "pixel values to the first token; decoding with the library's own loop:",
    ]
    alike = {clip["name"]: clip["features_alike"] for clip in result["clips"]}
    for clip, rows in by_clip(result["rows"]).items():
        same = "" if alike[clip] is None else f"; {alike[clip]:.0%} of the features are alike in neighbouring frames"
        lines += ["", f"Clip: {clip}{same}.", "", *markdown(LATENCY, rows)]
    return [*lines, "", f"From {source(record)}."]


def kernels_section(record: dict[str, Any]) -> list[str]:
    """Times, errors, launches and syncs of the parts that have a kernel."""
    result = record["result"]
    what = "kernels" if result["kernels_measured"] else "torch versions alone: no GPU that the kernels are written for"
    text = (
        f"**Parts that have a kernel** ({what}), at the sizes of LLaVA-OneVision-7B; ratio: plain torch code (on a "
        "GPU the torch version) over ours; errors against float64 beside those of plain code:"
    )
    return section(text, KERNELS, result["rows"], f"From {source(record)}.")


def decode_section(record: dict[str, Any]) -> list[str]:
    """Time per decoded token in every way of decoding, beside the bytes of a step."""
    result = record["result"]
    settings = result["settings"]
    text = (
        f"**Decoding, {settings['geometry']}**, random weights, {settings['frames']} frames, {settings['dtype']}, "
        f"{settings['attention']}, {settings['new_tokens']} tokens, {settings['repetitions']} interleaved repetitions, "
        "medians; the cache's share is that of the bytes a step must read. The first answer, which is no repetition, "
        "holds what is done once, such as capturing a graph:"
    )
    return section(text, DECODE, decode_rows(result["rows"]), f"From {source(record)}.")


SECTIONS = {
    "flops.json": ("flops", flops_section),
    "latency_*.json": ("latency", latency_section),
    "bench_kernels.json": ("kernels", kernels_section),
    "bench_decode.json": ("decode", decode_section),
}


def _recorded(results: Path) -> list[tuple[str, dict[str, Any]]]:
    """Name and record of every result file; those that are no JSON are left to the sections to complain about."""
    found = []
    for path in sorted(results.glob("*/*.json")):
        try:
            record, _ = read_json(path)
        except InputError:
            continue
        if isinstance(record.get("result"), dict):
            found.append((path.name, record))
    return found


def not_measured(results: Path) -> list[str]:
    """What is missing among the results, one list entry each, with the command that would give it."""
    found = _recorded(results)
    lines = []
    for name, gpu, what, command in _WANTED:
        there = [record for other, record in found if other == name and (not gpu or record.get("cuda"))]
        if not there:
            lines.append(f"* {what}: `{command}`")
    latencies = [record["result"] for name, record in found if name.startswith("latency_")]
    if not any(result.get("random_weights") is False for result in latencies):
        command = "bash scripts/bench_efficiency.sh --checkpoint DIR"
        lines.append(f"* any latency with the weights of a published checkpoint: `{command}`")
    return lines


def efficiency(results: Path) -> str:
    """The section.

    Raises:
        InputError: if a result file cannot be read.
    """
    lines: list[str] = []
    for name, (kind, make) in SECTIONS.items():
        lines += from_files(results, name, kind, make)
    missing = not_measured(results)
    lines += ["**Not measured:**", "", *missing] if missing else ["Everything that the scripts measure was measured."]
    return "\n".join(lines).rstrip()
