"""Triton kernels for CUDA. Optional: every one has a plain torch version, which is its fallback and its oracle.

Callers live beside the torch versions and ask :func:`holitom.ops.kernels.dispatch.use_kernels`; nobody else knows. The
modules here, but for ``dispatch``, import triton, so they are themselves imported where they are used.

All accumulate in float32 (float64 where the torch version does), mask odd sizes, and use no atomics: results do not
depend on the order in which programs run.
"""
