"""Time per decoded token in every way of decoding, and the bytes that explain it.

    python -m eval.efficiency.decode --geometry tiny --configs configs/tiny/holitom_r10.yaml
    python -m eval.efficiency.decode --geometry llava-onevision-7b --device cuda --dtype bfloat16 --configs ...

A model of the true size with random weights answers the uncompressed prompt and each configuration's, in turn:

    eager         transformers' loop; its cache is concatenated, and so copied, for every token
    preallocated  the same loop on a cache that has room for the answer
    static        one step over tensors that never move
    graphs        that step replayed as a CUDA graph (CUDA only)

All do greedy search without a stopping token. The time is that of ``generate`` from the end of its prefill on, with
whatever a way does for every answer, such as filling its cache. What it does once, such as capturing a graph, is in the
first answer, whose time stands apart. Beside them stand the bytes a step must read (weights and cache), those it copies
from one place to another, and its operations, both counted in a step that is run. Last line: JSON with the numbers.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from eval.efficiency.decode_runs import VANILLA, DecodeBenchmark, DecodeSettings
from eval.efficiency.sheets import DECODE, decode_rows
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.measure import device_state
from eval.instruments.models.geometries import FRAMES, GEOMETRIES
from eval.instruments.sheets import terminal
from llava.errors import InputError
from llava.model.builder import DTYPES


def parse_arguments(arguments: list[str] | None) -> DecodeSettings:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="llava-onevision-0.5b")
    parser.add_argument("--configs", type=Path, nargs="*", default=[], help="YAML files beside the vanilla model")
    parser.add_argument("--frames", action=Count, help="of the video; the geometry's by default")
    parser.add_argument("--new-tokens", action=Count, least=2, default=64, help="length of each answer")
    parser.add_argument("--repetitions", action=Count, default=5)
    parser.add_argument("--threads", action=Count, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="of the first two ways")
    options = parser.parse_args(arguments)
    options.frames = FRAMES[options.geometry] if options.frames is None else options.frames
    names = [VANILLA, *(path.stem for path in options.configs)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{names.count(name)} rows are called {name!r}: give every file once, {VANILLA} comes by itself"
            )
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no such device here; use --device cpu")
    return DecodeSettings(**vars(options))


def measure(settings: DecodeSettings) -> dict[str, Any]:
    """The benchmark of a command line as one document."""
    torch.set_num_threads(settings.threads)
    rows = DecodeBenchmark(settings).rows()
    shown = {**asdict(settings), "configs": [str(path) for path in settings.configs]}
    return {"settings": shown, **provenance(), "clocks": device_state(), "random_weights": True, "rows": rows}


@user_errors
def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print a table and one line of JSON."""
    result = measure(parse_arguments(arguments))
    print(terminal(DECODE, decode_rows(result["rows"])))
    print(json.dumps(stamped("decode", result)))


if __name__ == "__main__":
    main()
