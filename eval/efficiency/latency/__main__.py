"""
Time to first token, stage by stage, and time per output token, of a model with and without compression.

    python -m eval.efficiency.latency --geometry tiny --device cpu --configs configs/tiny/{vanilla,holitom_r10}.yaml
    python -m eval.efficiency.latency --geometry llava-onevision-7b --configs configs/llava_onevision_7b/*.yaml
    python -m eval.efficiency.latency --geometry llava-onevision-7b --checkpoint DIR --clip talk.mp4 --configs ...

Without ``--checkpoint`` the model has random weights of the true size, made on the device. Every configuration answers
the same prompt, in turn within one process, after a warm-up; attention backend and types are the same for all. Stages:

    video, preprocess   decoding of the file (none for drawn frames) and making pixel values; not in the first token
    tower, projector    SigLIP; projector and pooling
    signals             what the method reads while the tower runs, such as received attention; not in the tower
    outer               the method before the LLM
    prefill             the LLM on the prompt; holds ``inner``, the method inside it
    time_to_first_token pixel values on the device to the first token on the host, as one piece, not as a sum
    time_per_output_token  mean of the later tokens

Random weights: how many tokens a method with thresholds keeps would mean nothing if all features were alike or none, so
drawn frames have a known share of still picture (``--redundancy``) and the weights keep it
(``eval.instruments.models.geometries.fill``); how many neighbouring features are alike is measured and recorded. Token
counts are those of the run, beside the most that the method's budget allows. A method that left all tokens fails.
``--decoding`` adds the runtime's own ways of decoding to the library's. Output: a table, and as the last line of stdout
one JSON document with the same numbers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eval.efficiency.latency.bench import LatencyBench
from eval.efficiency.latency.clips import clip_sources
from eval.efficiency.sheets import LATENCY, by_clip
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.measure import device_state
from eval.instruments.models.geometries import FRAMES, GEOMETRIES
from eval.instruments.sheets import terminal
from holitom.settings import load_config
from llava.errors import InputError
from llava.model.builder import DTYPES

_DECODINGS = ("static", "graphs")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line, checked before anything is made."""
    parser = Parser(description=__doc__)
    parser.add_argument("--geometry", choices=GEOMETRIES, required=True)
    parser.add_argument(
        "--checkpoint", help="folder or hub id of a checkpoint of that geometry (default: random weights)"
    )
    parser.add_argument("--configs", type=Path, nargs="+", required=True, help="files of configs/, one row each")
    parser.add_argument(
        "--frames", action=Count, help="(default: those of the geometry; the files' num_frames is not read)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="for decoder and tower alike")
    parser.add_argument("--repetitions", action=Count, default=10, help="after one warm-up (default: 10)")
    parser.add_argument("--clip", type=Path, nargs="+", help="video files")
    parser.add_argument("--redundancy", type=float, nargs="+", help="drawn clips with this share of still picture")
    parser.add_argument("--new-tokens", action=Count, default=16)
    parser.add_argument("--threads", action=Count, default=torch.get_num_threads())
    parser.add_argument(
        "--decoding", nargs="*", choices=_DECODINGS, help="other ways than the library's (default: both on CUDA)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    options = parser.parse_args(arguments)
    _complete(options, parser)
    return options


def _complete(options: argparse.Namespace, parser: Parser) -> None:
    """Defaults that follow from other options; what does not go together is an error."""
    cuda = torch.cuda.is_available()
    options.device = options.device or ("cuda" if cuda else "cpu")
    if options.frames is None:
        options.frames = FRAMES[options.geometry]
    if options.device == "cuda" and not cuda:
        parser.error("--device cuda: torch finds no such device here; use --device cpu")
    if options.decoding is None:
        options.decoding = _DECODINGS if options.device == "cuda" else ()
    if "graphs" in options.decoding and options.device == "cpu":
        parser.error("--decoding graphs needs --device cuda: use static")
    if options.new_tokens < 2:  # there is no later token to time
        options.decoding = ()
    if options.device == "cpu" and options.dtype == "float16":
        parser.error("--dtype float16 is for GPUs: use bfloat16 or float32 with --device cpu")


def named_configs(paths: Sequence[Path]) -> dict[str, tuple[Path, Any]]:
    """Files by the name of their row, the one without compression first.

    Raises:
        InputError: if two rows would have one name, or a file is wrong.
    """
    found: dict[str, tuple[Path, Any]] = {}
    for path in paths:
        if path.stem in found:
            raise InputError(f"{found[path.stem][0]} and {path} are both called {path.stem}: measure one of them")
        found[path.stem] = (path, load_config(path))
    return dict(sorted(found.items(), key=lambda item: item[1][1].method is not None))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The result that the last line of the output holds.

    Raises:
        InputError: if a setting does not fit the model, or a method compressed nothing.
    """
    configs = named_configs(options.configs)
    sources = clip_sources(options.clip, options.redundancy)
    torch.set_num_threads(options.threads)
    bench = LatencyBench(options, configs)
    rows = [row for source in sources for row in bench.rows(source)]
    state = device_state() or {}
    return {
        "geometry": options.geometry,
        "checkpoint": options.checkpoint,
        "random_weights": options.checkpoint is None,
        "dtype": options.dtype,
        "attention": options.attention,
        **provenance(),
        "driver": state.pop("driver", None),
        "clocks": state or None,
        "frames": options.frames,
        "clip": sources[0].as_dict(),
        "clips": bench.clips,
        "repetitions": options.repetitions,
        "new_tokens": options.new_tokens,
        "rows": rows,
    }


def print_table(result: dict[str, Any]) -> None:
    """One line per row, every time beside the tokens it belongs to; factors and shares are against vanilla."""
    weights = "random weights" if result["random_weights"] else result["checkpoint"]
    print(
        f"{result['geometry']} ({weights}), {result['frames']} frames, {result['dtype']}, {result['attention']}, "
        f"{result['device']}; medians of {result['repetitions']} in ms"
    )
    for clip, rows in by_clip(result["rows"]).items():
        print(f"\n{clip}\n{terminal(LATENCY, rows)}")
    print()


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table and one line of JSON."""
    result = measure(parse_arguments(arguments))
    print_table(result)
    print(json.dumps(stamped("latency", result)))


if __name__ == "__main__":
    main()
