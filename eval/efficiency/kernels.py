"""
Every kernel against its torch version: error and time, several dtypes and sizes, in turn within one run.

    python -m eval.efficiency.kernels                    # on a GPU: the kernels; on a CPU: the torch versions alone
    python -m eval.efficiency.kernels --quick --only inner_merge

An error is the largest difference to the same work in float64, over the largest value there. A kernel may be twice as
far away as plain torch code in the same precision. ``ratio`` is a time over that of ours: on a GPU that of the torch
version, on a CPU, where kernels are not measured, that of plain code. Operators, launches and syncs are those of one
call. The last line of stdout is one JSON document.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from eval.efficiency.outer import synthetic_video
from eval.efficiency.sheets import KERNELS
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.device_counts import count
from eval.instruments.kinds import stamped
from eval.instruments.measure import interleaved, timed
from eval.instruments.sheets import terminal
from holitom.methods.holitom.batch_merging import merge_sequence
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from holitom.ops import kernels
from holitom.ops.attention_scores import last_query_attention, received_attention
from holitom.ops.similarity import similarity_and_norms
from llava.model.builder import DTYPES

TIMES = 2  # as far from float64 as plain code may a kernel be
# Rounding that no float32 sum escapes; results that are stored in halves round to those at any rate.
FLOOR = 1e-6


@dataclass(frozen=True)
class KernelCase:
    """One function on one set of inputs.

    Attributes:
        ours: the library's function, which takes a kernel where it can.
        plain: the same result in the plainest torch code, in the precision of its arguments.
        inputs: what both are given.
        selects: results follow a selection, on which halves and float64 may differ: times and counts only.
    """

    ours: Callable[..., Tensor]
    plain: Callable[..., Tensor] | None
    inputs: tuple[Tensor, ...]
    selects: bool = False


def plain_received(query: Tensor, key: Tensor) -> Tensor:
    """Column means of the whole map."""
    return (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1).mean((1, 2))


def plain_last_query(query: Tensor, key: Tensor) -> Tensor:
    """The last row of every head's map, keys repeated for the heads that share them."""
    wide = key.repeat_interleave(query.shape[1] // key.shape[1], 1, output_size=query.shape[1])
    return (query[:, :, None] @ wide.mT * query.shape[-1] ** -0.5).softmax(-1).mean(1)[:, 0]


def plain_similarity(features: Tensor) -> Tensor:
    """Cosine similarity of neighbouring frames in one call."""
    return torch.cosine_similarity(features[:-1], features[1:], dim=-1)


def plain_merge(hidden: Tensor, scores: Tensor) -> Tensor:
    """The merge of one span, one token after the other."""
    kept = scores.topk(len(scores) // 2).indices.sort().values
    left = torch.ones_like(scores, dtype=torch.bool).index_fill_(0, kept, False).nonzero().flatten()
    nearest = (normalize(hidden[left], dim=-1) @ normalize(hidden[kept], dim=-1).T).argmax(-1)
    merged = hidden[kept]
    for token, target in zip(left.tolist(), nearest.tolist(), strict=True):
        merged[target] = (merged[target] + hidden[token]) / 2
    return merged


def cases(quick: bool, dtype: torch.dtype, device: str) -> dict[str, KernelCase]:
    """Every kernel at the sizes of LLaVA-OneVision-7B, or at small odd ones."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(device, dtype)

    images, patches, seq, long_seq, dim = (1, 101, 130, 301, 200) if quick else (8, 729, 640, 6273, 3584)
    frames, tokens = (9, 30) if quick else (32, 196)
    tower = [normal(images, patches, 16, 72).transpose(1, 2) for _ in range(2)]
    video, attention = (part.to(device) for part in synthetic_video(frames, tokens, dim, dtype, 0.45))
    scale, stage = 72**-0.5, OuterCompression(OuterConfig())
    received = KernelCase(lambda q, k: received_attention(q, k, scale), plain_received, tuple(tower))
    found = {"received_attention": received}
    for name, length in (("last_query", seq), ("last_query_long", long_seq)):
        row = normal(1, 28, 128), normal(1, 4, length, 128)
        found[name] = KernelCase(lambda q, k: last_query_attention(q, k, 128**-0.5, None), plain_last_query, row)
    for name, length in (("inner_merge", seq), ("inner_merge_long", long_seq)):
        states = normal(length, dim), torch.randn(length, generator=draw).to(device)
        merge = partial(_merge, length=length)
        found[name] = KernelCase(merge, plain_merge if length == seq else None, states, selects=True)
    found["similarity"] = KernelCase(lambda features: similarity_and_norms(features)[0], plain_similarity, (video,))
    found["outer_stage"] = KernelCase(lambda *given: stage(*given).features, None, (video, attention), selects=True)
    return found


def _merge(hidden: Tensor, scores: Tensor, length: int) -> Tensor:
    return merge_sequence(hidden, scores, [(0, length)], 0.5).hidden


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest value; what is not a number counts as infinitely wrong."""
    error = ((found.double() - wanted).abs().max() / wanted.abs().max()).item()
    return error if math.isfinite(error) else math.inf


def errors(case: KernelCase) -> dict[str, Any]:
    """How far ours and plain code are from float64, and whether ours is near enough."""
    if case.plain is None or case.selects:
        return {"error": None, "plain_error": None, "within": None}
    wanted = case.plain(*(part.double() for part in case.inputs))
    ours, plain = (relative_error(run(*case.inputs), wanted) for run in (case.ours, case.plain))
    return {"error": ours, "plain_error": plain, "within": ours <= TIMES * plain + FLOOR}


def without_kernels(work: Callable[[], Any]) -> Any:
    """Run a piece of work in the torch versions."""
    supported = kernels.supported
    kernels.supported = lambda device: False  # type: ignore[assignment]
    try:
        return work()
    finally:
        kernels.supported = supported


def bench(name: str, case: KernelCase, dtype: str, device: str, repetitions: int) -> dict[str, Any]:
    """One row of the table."""
    ours: Callable[[], object] = partial(case.ours, *case.inputs)
    other: Callable[[], object] | None = partial(case.plain, *case.inputs) if case.plain else None
    against = "plain" if other else None
    if device == "cuda":
        other, against = partial(without_kernels, ours), "torch"
    runs = {"ours": partial(timed, ours)} | ({"other": partial(timed, other)} if other else {})
    times = {key: 1e3 * statistics.median(taken) for key, taken in interleaved(runs, repetitions).items()}
    ratio = round(times["other"] / times["ours"], 2) if other else None
    shapes = [list(part.shape) for part in case.inputs]
    row = {"name": name, "dtype": dtype, "shapes": shapes, "ms": times["ours"], "against": against, "ratio": ratio}
    return row | errors(case) | asdict(count(ours, device))


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the cases")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--repetitions", action=Count, default=10)
    parser.add_argument("--threads", action=Count, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    known = cases(True, torch.float32, "cpu")
    for name in options.only or ():
        if name not in known:
            parser.error(f"--only {name} is unknown: the cases are {', '.join(known)}; name some of them")
    return options


@user_errors
@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print a table and one line of JSON."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    measured = kernels.supported(torch.device(device, 0) if device == "cuda" else torch.device("cpu"))
    rows = []
    for dtype in options.dtypes:
        for name, case in cases(options.quick, DTYPES[dtype], device).items():
            if options.only and name not in options.only:
                continue
            print(f"{name} {dtype}", file=sys.stderr, flush=True)
            rows.append(bench(name, case, dtype, device, options.repetitions))
    print(terminal(KERNELS, rows))
    if not measured:
        print("kernels: not measured, there is no GPU that they are written for; the rows are the torch versions")
    wrong = [f"{row['name']} {row['dtype']}" for row in rows if row["within"] is False]
    print(
        json.dumps(stamped("kernels", {**provenance(), "kernels_measured": measured, "too_far": wrong, "rows": rows}))
    )


if __name__ == "__main__":
    main()
