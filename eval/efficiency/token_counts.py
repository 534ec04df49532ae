"""How many visual tokens does each row of a table really use? Measured beside the nominal count of the paper.

    python -m eval.efficiency.token_counts configs/llava_onevision_7b
    python -m eval.efficiency.token_counts configs/llava_video_7b
    python -m eval.instruments.record results/cpu/token_counts.json -- python -m eval.efficiency.token_counts ...

The compressor of every file is run unchanged on a real clip, by a tiny random model with the layers, frames, pooling
and newlines of the checkpoint that the files name (7B: 28 layers, 32 x 196 tokens; LLaVA-Video: 64 x 169). How many
tokens a method keeps is its rule; where the rule depends on what the clip shows (HoliTom, PruneVid, FastVID), the count
belongs to this clip and these features, and a clip that hardly moves ends under budget. Newline tokens are not counted.
FLOPs are the paper's formula at the checkpoint's sizes. A table, then one line of JSON.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.instruments.answering import VideoPrompt, applied, tokens_per_layer
from eval.instruments.cli import Parser, user_errors
from eval.instruments.clips import default_clip
from eval.instruments.kinds import stamped
from eval.instruments.models.random_checkpoint import make_random_checkpoint
from eval.paper.formula import ONEVISION_05B, ONEVISION_7B, ONEVISION_72B, TERA, VIDEO_7B, Geometry, paper_flops
from eval.paper.rows import main_rows, other_backbone_rows
from holitom.settings import RunConfig, load_config
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from llava.video import VideoClip, load_video

# The checkpoints of configs/, by the last part of their name.
_GEOMETRIES = {
    "llava-onevision-qwen2-0.5b-ov": ONEVISION_05B,
    "llava-onevision-qwen2-7b-ov": ONEVISION_7B,
    "llava-onevision-qwen2-72b-ov-sft": ONEVISION_72B,
    "LLaVA-Video-7B-Qwen2": VIDEO_7B,
}
DEPTH = 27  # layers of SigLIP so400m
# Name of a method's rows in the paper's tables; methods without a row have no nominal count.
_PAPER_NAMES = {
    "fastv": "FastV",
    "pdrop": "PDrop",
    "dycoke": "DyCoke",
    "visionzip": "VisionZip",
    "prunevid": "PruneVid",
    "fastvid": "FastVID",
}


def geometry_of(configs: Sequence[RunConfig]) -> Geometry:
    """Sizes of the one checkpoint that all configurations name.

    Raises:
        InputError: if they name several, or one whose sizes are not known here.
    """
    names = sorted({str(config.model.pretrained) for config in configs})
    if len(names) > 1:
        raise InputError(f"the files are for {' and '.join(names)}: measure the files of one checkpoint at a time")
    geometry = _GEOMETRIES.get(names[0].rstrip("/").rpartition("/")[2])
    if geometry is None:
        raise InputError(f"the sizes of {names[0]} are not known: it must be one of {', '.join(_GEOMETRIES)}")
    return geometry


def retained_percent(config: RunConfig) -> int | None:
    """The row of the table that the settings belong to: the share of tokens before the LLM, or None."""
    settings = config.compressor
    if config.method == "visionzip":
        return {50: 25, 40: 20, 30: 15, 20: 10}.get(settings.tokens_per_frame)
    if config.method == "dycoke":
        return 25 if settings.merge_ratio == 1 else None
    if config.method == "holitom":
        return None if settings.outer is None else round(100 * settings.outer.retain_ratio)
    ratio = getattr(settings, "retain_ratio", 1.0)
    return None if ratio is None else round(100 * ratio)


def nominal(config: RunConfig, frames: int) -> list[int] | None:
    """Tokens per layer as the paper counts the row that a configuration stands for, or None if it has no row."""
    name = "Vanilla" if config.method is None else _PAPER_NAMES.get(config.method)
    if config.method == "holitom":
        name = "HoliTom" if config.compressor.inner is not None else "HoliTom (w/o M)"
    retained, model = retained_percent(config), geometry_of([config])
    rows = [
        row
        for row in (*main_rows(), *other_backbone_rows())
        if (row.model, row.method, row.retained) == (model, name, retained)
    ]
    return list(rows[0].tokens_per_layer) if rows and frames == model.frames else None


def measured(question: VideoPrompt, config: RunConfig) -> list[int]:
    """Visual tokens that each layer computes in the prefill of one question; newlines are not counted."""
    compressor = config.build()
    with applied(compressor, question.model):
        question.generate(1)
    return tokens_per_layer(question, compressor)


def stages(per_layer: Sequence[int]) -> str:
    """``6272 > 1254``: the counts in order, without repetitions."""
    changes = [count for place, count in enumerate(per_layer) if place == 0 or count != per_layer[place - 1]]
    return " > ".join(map(str, changes))


def tflops(per_layer: Sequence[int], model: Geometry) -> float:
    """By the paper's formula, in 1e12."""
    return paper_flops(per_layer, model.hidden_size, model.intermediate_size) / TERA


def config_files(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as their YAML files in alphabetical order.

    Raises:
        InputError: if a folder holds none.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not found:
            raise InputError(f"{path} holds no *.yaml: name a folder of configs/ or a file")
        files += found
    return files


def _question(clip: VideoClip, geometry: Geometry, deep: bool) -> VideoPrompt:
    """The clip before a tiny random model with all layers of the LLM, and of the tower where a method works inside."""
    layout = "llava-video" if geometry == VIDEO_7B else "llava-onevision"
    tower = {"tower_layers": DEPTH} if deep else {}
    with tempfile.TemporaryDirectory() as folder:
        make_random_checkpoint(folder, layers=geometry.layers, layout=layout, **tower)
        tokenizer, model, processor, _ = load_pretrained_model(folder, None, "llava_qwen", torch_dtype="float32")
    return VideoPrompt(tokenizer, model, clip, processor, "What happens in this video?")


def measure_all(paths: Sequence[Path], geometry: Geometry, video: Path, frames: int) -> list[dict[str, Any]]:
    """One record per file, in the order given."""
    clip = load_video(video, frames)
    questions: dict[bool, VideoPrompt] = {}
    records = []
    for path in paths:
        compressor = load_config(path).build()
        deep = compressor is not None and compressor.tower is not None
        if deep not in questions:
            questions[deep] = _question(clip, geometry, deep)
            assert questions[deep].visual_tokens == frames * geometry.tokens_per_frame
        records.append(measure(questions[deep], path, geometry, frames))
        print(table_line(records[-1]), flush=True)
    return records


def measure(question: VideoPrompt, path: Path, geometry: Geometry, frames: int) -> dict[str, Any]:
    """The record of one file."""
    config = load_config(path)
    real, paper = measured(question, config), nominal(config, frames)
    return {
        "config": path.stem,
        "nominal": None if paper is None else stages(paper),
        "measured": stages(real),
        "retained_before_llm": real[0] / question.visual_tokens,
        "nominal_tflops": None if paper is None else round(tflops(paper, geometry), 3),
        "measured_tflops": round(tflops(real, geometry), 3),
    }


def table_line(record: dict[str, Any]) -> str:
    """One line of the table."""
    paper = record["nominal_tflops"]
    cells = [record["config"], record["nominal"] or "-", record["measured"], f"{record['retained_before_llm']:.1%}"]
    cells += ["-" if paper is None else f"{paper:.3f}", f"{record['measured_tflops']:.3f}"]
    return "{:<28} {:>26} {:>26} {:>7} {:>10} {:>10}".format(*cells)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--video", type=Path, help="default: the demo's clip")
    parser.add_argument("--frames", type=int, help="default: those of the checkpoint, 32 or 64")
    options = parser.parse_args(arguments)
    files = config_files(options.configs)
    geometry = geometry_of([load_config(path) for path in files])
    frames = geometry.frames if options.frames is None else options.frames
    heading = "{:<28} {:>26} {:>26} {:>7} {:>10} {:>10}"
    print(heading.format("config", "nominal tokens", "measured tokens", "kept", "nominal T", "measured T"))
    video = options.video or default_clip()
    settings = {"model": geometry.name, "frames": frames, "tokens_per_frame": geometry.tokens_per_frame}
    result = {"video": video.name, **settings, "rows": measure_all(files, geometry, video, frames)}
    print(json.dumps(stamped("tokens", result)))


if __name__ == "__main__":
    main()
