"""Compile every kernel for Hopper (sm_90) and those with products for Ampere (sm_80) too, which needs no GPU.

A program of its own, since nothing may be interpreted. The code is that of a launch at the sizes of LLaVA-OneVision-7B:
the launcher tells the compiler which pointers and numbers are multiples of 16; untold it would read value by value.
Prints one line per kernel and variant: name, architecture, dtype, bytes of shared memory, loads of several values at a
time, asynchronous copies to shared memory, and loads of one half.
"""

import re

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from holitom.ops.kernels import clusters, inner_merge, last_query, products, ranking, similarity, tower

MODULES = (clusters, inner_merge, last_query, products, ranking, similarity, tower)
LONGS = "others kept target source runs counts firsts lengths chosen positions sizes neighbors offsets assignment heads"
KINDS = {
    **dict.fromkeys(f"{LONGS} membership centers columns marked".split(), "*i64"),
    **dict.fromkeys(["eligible", "marks", "mask", "peaks"], "*u8"),
    **dict.fromkeys(["nearest", "table"], "*i32"),
    **dict.fromkeys(["products", "density", "scores", "center_scores"], "*fp64"),
    **dict.fromkeys(["log_sums", "received", "logits", "largest", "totals", "similarity", "norms", "squares"], "*fp32"),
    **dict.fromkeys(["scale", "threshold", "smallest", "same_point", "weight", "rest_of_weight"], "fp32"),
}
FEATURES = ("query", "key", "hidden", "features", "out")
TILES = {
    "ROWS": 64,
    "COLUMNS": 64,
    "HEAD": 72,
    "D": 128,
    "REST": 16,
    "UNIT": 8,
    "GROUP": 7,
    "G": 16,
    "KEYS": 64,
    "H": 32,
    "PARTS": 16,
    "TILE": 32,
    "DEPTH": 32,
    "N": 256,
}
TILES |= {"SLICE": 512, "CHUNK": 128, "BLOCK": 64, "FRAMES": 8, "PAIRS": 32, "TOKENS": 64, "LENGTHS": 32}
FLAGS = ("MASKED", "PER_ROW", "SEQUENTIAL", "PLAIN")
OTHER_KINDS = {
    "mean_over_frames": {"out": "*fp32"},
    "mean_over_heads": {"scores": "*fp32", "heads": "i32"},
    "row_log_sums": {"heads": "i32"},
    "column_sums": {"heads": "i32", "received": "*fp32"},
    "best_in_block": {"nearest": "*i32"},
    "count_windows": {"received": "*fp32", "counts": "*i32"},
    "best_cuts": {"counts": "*i32"},
}
# what is no multiple of 16 in a launch, of the integers that are specialized; all others and every pointer are
ODD = {
    "block_logits": ("kv_heads",),
    "mean_over_heads": ("heads",),
    "adjacent": ("tokens",),
    "run_lengths": ("tokens",),
    "count_windows": ("tokens", "r_frame"),
}
SPECIAL = {
    "row_log_sums": {"D": 64},
    "column_sums": {"D": 64},
    "adjacent": {"D": 4096},
    "best_in_block": {"SLICE": 64},
}


def attributes(kernel: triton.JITFunction, signature: dict[str, str]) -> dict[tuple[int], list[list[object]]]:
    """What the launcher says of the arguments, by their place."""
    odd = ODD.get(kernel.__name__, ())
    told = [
        parameter.num
        for parameter in kernel.params
        if signature[parameter.name][0] in "*i" and not parameter.do_not_specialize and parameter.name not in odd
    ]
    return {(place,): [["tt.divisibility", 16]] for place in told}


def compile_kernel(kernel: triton.JITFunction, dtype: str, flag: bool, architecture: int) -> tuple[int, ...]:
    """Numbers of one variant, as they are printed."""
    constants = {name: TILES.get(name, flag) for name in kernel.arg_names if name in TILES or name in FLAGS}
    constants |= {"PRECISION": "ieee" if dtype == "fp32" else "tf32"} if "PRECISION" in kernel.arg_names else {}
    if "ROWS" in constants and dtype == "fp32":
        constants |= {"ROWS": 32, "COLUMNS": 32}
    constants |= SPECIAL.get(kernel.__name__, {})
    signature = {}
    for name in kernel.arg_names:
        kind = f"*{dtype}" if name in FEATURES else KINDS.get(name, "i32")
        if name == "points":  # which are never halves
            kind = "*fp32" if dtype == "fp32" else "*fp64"
        signature[name] = "constexpr" if name in constants else kind
    signature |= OTHER_KINDS.get(kernel.__name__, {})
    told = attributes(kernel, signature)
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=told)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    code = compiled.asm["ptx"]
    reads = r"ld\.global\S*\.v[24]", r"cp\.async\.c[ag]", r"ld\.global\S*\.[bu]16 "
    return compiled.metadata.shared, *(len(re.findall(read, code)) for read in reads)


def main() -> None:
    """Compile all, in bfloat16 with every flag on and in float32 with every flag off."""
    for module in MODULES:
        for name, kernel in vars(module).items():
            own = isinstance(kernel, triton.JITFunction) and kernel.fn.__module__ == module.__name__
            if not own or name.startswith("_"):
                continue
            for dtype, flag in (("bf16", True), ("fp32", False)):
                for architecture in (80, 90) if "tl.dot" in kernel.src or "PRECISION" in kernel.arg_names else (90,):
                    print(name, architecture, dtype, *compile_kernel(kernel, dtype, flag, architecture))  # noqa: T201


if __name__ == "__main__":
    main()
