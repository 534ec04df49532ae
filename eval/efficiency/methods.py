"""
Time that every registered method adds to a prefill at the geometry of LLaVA-OneVision-7B, with its default settings.

    python -m eval.efficiency.methods --threads 1
    python -m eval.efficiency.methods --frames 64 --repetitions 10 --device cuda

Three parts, measured in turn in one process so that all methods see the same machine: reading side signals from the
tower's last layer, the outer stage (pooling of the signals included), and the inner stage (scores, reduction, masks and
rotary embeddings; attention and feed-forward layers are left out, the method only changes how many tokens they see).
What a method saves is not in here. Features are random: a still background, moving positions, a cut every 8 frames.
Output: a table with ratios to ``uniform``, and as the last line of stdout one JSON document with the same numbers.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from eval.efficiency.outer import synthetic_video
from eval.efficiency.sheets import METHODS
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.measure import interleaved, timed
from eval.instruments.models.hollow_models import HEAD_DIM, TOWER_DIM, HollowDecoder, HollowTower
from eval.instruments.sheets import terminal
from holitom import Compressor, available_methods
from holitom.encoded_video import EncodedVideo
from holitom.hooks.tower.signals import RECORDERS
from llava.model.builder import DTYPES
from llava.model.pooling import pool_frames

TEXT_TOKENS = 20  # before and behind the video
BASE = "uniform"


@dataclass(frozen=True)
class MethodTimes:
    """One method.

    Attributes:
        method: its name.
        tokens_to_llm: visual tokens that reach the LLM, newlines not counted.
        signals_ms: median of reading its side signals; None if it needs none.
        outer_ms: median of its outer stage; None without one.
        inner_ms: median of its inner stage above an empty pass through the same layers; None without one.
        total_ms: sum of the three.
        ratio: total over that of ``uniform``.
    """

    method: str
    tokens_to_llm: int
    signals_ms: float | None
    outer_ms: float | None
    inner_ms: float | None
    total_ms: float
    ratio: float


class MethodBenchmark:
    """All methods on one synthetic video.

    Args:
        options: the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        device, dtype = torch.device(options.device), DTYPES[options.dtype]
        self.frames, self.tokens = options.frames, options.tokens
        features, _ = synthetic_video(options.frames, options.tokens, options.dim, dtype, moving=0.45)
        self.features = features.to(device)
        patches = (2 * math.isqrt(options.tokens) - 1) ** 2  # 27 x 27 patches become 14 x 14 tokens
        torch.manual_seed(0)
        self.states = torch.randn(options.frames, patches, TOWER_DIM, device=device, dtype=dtype)
        with torch.device(device):
            self.tower = HollowTower().to(dtype)
            self.decoder = HollowDecoder(options.dim, options.layers).to(dtype)
        found = {name: cls().build() for name, cls in available_methods().items()}
        self.compressors: dict[str, Compressor] = {name: each for name, each in found.items() if each.tower is None}
        # what these add cannot be told from what they save: the whole prefill shows it (eval.efficiency.latency)
        self.left_out = sorted(set(found) - set(self.compressors))
        self.kept: dict[str, int] = {}

    def record(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Side signals by name, read while the hollow tower runs."""
        recorders = {name: RECORDERS[name]() for name in names}
        with ExitStack() as recording:
            for recorder in recorders.values():
                recorder.apply(self.tower)
                recording.enter_context(recorder.recording())
            self.tower(self.states)
        return {name: recorder.take() for name, recorder in recorders.items()}

    def compress(self, method: str, signals: dict[str, Tensor]) -> None:
        """The outer stage of one method."""
        outer = self.compressors[method].outer
        assert outer is not None
        pool = partial(pool_frames, stride=2, mode="bilinear")
        self.kept[method] = len(outer(EncodedVideo(self.features, signals, pool)).index)

    def prefill(self, method: str, applied: bool) -> Callable[[], object]:
        """A pass of the tokens that reach the LLM through the hollow decoder, with or without the inner stage."""
        visual = self.kept[method] + 1  # the newline
        rows = torch.arange(2 * TEXT_TOKENS + visual, device=self.features.device) % (self.frames * self.tokens)
        embeds = self.features.flatten(0, 1)[rows][None]
        spans = torch.tensor([[[TEXT_TOKENS, TEXT_TOKENS + visual]]])

        def run() -> None:
            self.decoder(inputs_embeds=embeds, video_spans=spans)

        def run_applied() -> None:
            inner = self.compressors[method].inner
            assert inner is not None
            inner.apply(self.decoder)
            try:
                run()
            finally:
                inner.remove()

        return run_applied if applied else run

    @torch.no_grad()
    def measure(self, repetitions: int) -> dict[tuple[str, str], float]:
        """Median milliseconds by method and part, all taken in turn; the first round warms up and is left out."""
        runs: dict[tuple[str, str], Callable[[], object]] = {}
        for name, compressor in self.compressors.items():
            self.kept[name] = self.frames * self.tokens
            if compressor.outer is not None:
                needed = compressor.outer.signals
                signals = self.record(needed)
                runs[name, "outer"] = partial(self.compress, name, signals)
                runs[name, "outer"]()
                if needed:
                    runs[name, "signals"] = partial(self.record, needed)
            if compressor.inner is not None:
                runs[name, "inner"] = self.prefill(name, applied=True)
                runs[name, "empty"] = self.prefill(name, applied=False)
        seconds = interleaved({key: partial(timed, run) for key, run in runs.items()}, repetitions)
        return {key: 1e3 * statistics.median(values) for key, values in seconds.items()}

    def rows(self, repetitions: int) -> list[MethodTimes]:
        """One row per method, the cheapest first."""
        times = self.measure(repetitions)
        inner = {name: times[name, "inner"] - times[name, "empty"] for name, part in times if part == "inner"}
        total = {
            name: times.get((name, "signals"), 0.0) + times.get((name, "outer"), 0.0) + inner.get(name, 0.0)
            for name in self.compressors
        }
        return [
            MethodTimes(
                method=name,
                tokens_to_llm=self.kept[name],
                signals_ms=times.get((name, "signals")),
                outer_ms=times.get((name, "outer")),
                inner_ms=inner.get(name),
                total_ms=total[name],
                ratio=total[name] / total[BASE],
            )
            for name in sorted(total, key=lambda name: total[name])
        ]


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description="Time what every method adds to a prefill.")
    parser.add_argument("--frames", action=Count, default=32)
    parser.add_argument("--tokens", action=Count, default=196, help="tokens per frame, a square number")
    parser.add_argument("--dim", action=Count, default=3584, help=f"width of the LLM, a multiple of {HEAD_DIM}")
    parser.add_argument("--layers", action=Count, default=28, help="layers of the LLM")
    parser.add_argument("--repetitions", action=Count, default=5)
    parser.add_argument("--threads", action=Count, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args(arguments)
    if math.isqrt(options.tokens) ** 2 != options.tokens:
        parser.error(f"--tokens {options.tokens} is no square number: use 196 (14 x 14)")
    if options.dim % HEAD_DIM:
        parser.error(f"--dim {options.dim} is no multiple of {HEAD_DIM}: use 3584 (7B) or 896 (0.5B)")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no such device here; use --device cpu")
    return options


@user_errors
def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print a table and one line of JSON."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    bench = MethodBenchmark(options)
    rows = bench.rows(options.repetitions)
    print(terminal(METHODS, map(asdict, rows)))
    print(f"inside the tower, see eval.efficiency.latency: {', '.join(bench.left_out)}")
    result = {
        "settings": vars(options),
        **provenance(),
        "rows": [asdict(row) for row in rows],
        "left_out": bench.left_out,
    }
    print(json.dumps(stamped("methods", result)))


if __name__ == "__main__":
    main()
