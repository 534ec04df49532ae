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

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.efficiency.sheets import TOKENS
from eval.instruments.answering import VideoPrompt, applied, inner_stages, tokens_per_layer
from eval.instruments.cli import Parser, user_errors
from eval.instruments.clips import default_clip
from eval.instruments.kinds import stamped
from eval.instruments.models.random_checkpoint import make_random_checkpoint
from eval.instruments.progress import progress
from eval.instruments.sheets import terminal
from eval.paper.formula import ONEVISION_05B, ONEVISION_7B, ONEVISION_72B, TERA, VIDEO_7B, Geometry, paper_flops
from eval.paper.rows import PaperRow, main_rows, other_backbone_rows
from holitom.methods import paper_rows, share_of
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


def is_row(row: PaperRow, config: RunConfig) -> bool:
    """Whether settings stand for a row of the paper: model, method, share before the LLM, and whether it drops more."""
    share = 1.0 if config.method is None else share_of(config.method, config.compressor)
    names = {"Vanilla"} if config.method is None else paper_rows(config.method)
    staged = bool(inner_stages(config.build()))
    same = row.model == geometry_of([config]) and row.method in names and share is not None
    shrinks = len(set(row.tokens_per_layer)) > 1
    return same and row.retained == round(100 * (share or 0)) and shrinks == staged


def nominal(config: RunConfig, frames: int) -> list[int] | None:
    """Tokens per layer as the paper counts the row that a configuration stands for, or None if it has no row."""
    row = next((row for row in (*main_rows(), *other_backbone_rows()) if is_row(row, config)), None)
    return list(row.tokens_per_layer) if row is not None and frames == row.model.frames else None


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
    for path in progress(paths, "Rows"):
        compressor = load_config(path).build()
        deep = compressor is not None and compressor.tower is not None
        if deep not in questions:
            questions[deep] = _question(clip, geometry, deep)
            assert questions[deep].visual_tokens == frames * geometry.tokens_per_frame
        print(path, file=sys.stderr, flush=True)
        records.append(measure(questions[deep], path, geometry, frames))
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


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("configs", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--video", type=Path, help="default: the demo's clip")
    parser.add_argument("--frames", type=int, help="default: those of the checkpoint, 32 or 64")
    options = parser.parse_args(arguments)
    files = config_files(options.configs)
    geometry = geometry_of([load_config(path) for path in files])
    frames = geometry.frames if options.frames is None else options.frames
    video = options.video or default_clip()
    settings = {"model": geometry.name, "frames": frames, "tokens_per_frame": geometry.tokens_per_frame}
    rows = measure_all(files, geometry, video, frames)
    print(terminal(TOKENS, rows))
    print(json.dumps(stamped("tokens", {"video": video.name, **settings, "rows": rows})))


if __name__ == "__main__":
    main()
