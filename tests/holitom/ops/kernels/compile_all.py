"""Compile every kernel for Hopper (sm_90), which needs no GPU; run as a program, since nothing may be interpreted.

Prints one line per kernel: its name and how many bytes of shared memory it takes.
"""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from holitom.ops.kernels import clusters, inner_merge, last_query, ranking, similarity, tower

MODULES = (clusters, inner_merge, last_query, ranking, similarity, tower)
LONGS = "others kept target source runs counts firsts lengths chosen positions sizes neighbors offsets assignment heads"
KINDS = {
    **dict.fromkeys(f"{LONGS} membership centers columns marked".split(), "*i64"),
    **dict.fromkeys(["eligible", "marks", "mask", "peaks"], "*u8"),
    **dict.fromkeys(["nearest", "table"], "*i32"),
    **dict.fromkeys(["gram", "density", "scores", "center_scores", "points"], "*fp64"),
    **dict.fromkeys(["log_sums", "received", "logits", "largest", "totals", "similarity", "norms", "squares"], "*fp32"),
    **dict.fromkeys(["scale", "threshold", "smallest", "same_point", "weight", "rest_of_weight"], "fp32"),
}
FEATURES = ("query", "key", "hidden", "features", "out")
TILES = {
    "ROWS": 64,
    "COLUMNS": 64,
    "D": 128,
    "GROUP": 7,
    "G": 16,
    "KEYS": 64,
    "H": 32,
    "PARTS": 16,
    "TILE": 32,
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
    "count_windows": {"received": "*fp32"},
}
SPECIAL = {
    "adjacent": {"D": 4096},
    "best_in_block": {"SLICE": 64},
}


def compile_kernel(kernel: triton.JITFunction, dtype: str, flag: bool) -> int:
    """Shared memory of one variant in bytes."""
    constants = {name: TILES.get(name, flag) for name in kernel.arg_names if name in TILES or name in FLAGS}
    constants |= {"PRECISION": "ieee" if dtype == "fp32" else "tf32"} if "PRECISION" in kernel.arg_names else {}
    if "ROWS" in constants and dtype == "fp32":
        constants |= {"ROWS": 32, "COLUMNS": 32}
    constants |= SPECIAL.get(kernel.__name__, {})
    signature = {}
    for name in kernel.arg_names:
        kind = f"*{dtype}" if name in FEATURES else KINDS.get(name, "i32")
        signature[name] = "constexpr" if name in constants else kind
    signature |= OTHER_KINDS.get(kernel.__name__, {})
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).metadata.shared


def main() -> None:
    """Compile all, in bfloat16 with every flag on and in float32 with every flag off."""
    for module in MODULES:
        for name, kernel in vars(module).items():
            own = isinstance(kernel, triton.JITFunction) and kernel.fn.__module__ == module.__name__
            if own and not name.startswith("_"):
                shared = max(compile_kernel(kernel, *variant) for variant in (("bf16", True), ("fp32", False)))
                print(name, shared)  # noqa: T201


if __name__ == "__main__":
    main()
