"""Triton kernels for CUDA. Optional: every one has a plain torch version, which is its fallback and its oracle.

The torch versions ask :func:`holitom.ops.dispatch.kernel_for`, which finds what the modules here enter; nobody else
knows of them. They import triton, so they are imported only where a kernel can run.

All accumulate in float32 (float64 where the torch version does), mask odd sizes, and use no atomics: results do not
depend on the order in which programs run.
"""
