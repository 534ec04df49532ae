"""Time and memory of a piece of work, on the CPU and on CUDA."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

_SAMPLE_SECONDS = 0.005


def synchronize() -> None:
    """Wait for the device, so that a clock read next means something."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, device included."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


@dataclass
class PeakMemory:
    """Highest memory while a block ran.

    Attributes:
        bytes: on CUDA the peak of the allocator; on the CPU the peak resident size of the process above its size when
            the block began (sampled every 5 ms, so a lower bound).
    """

    bytes: int = 0


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the peak memory of a ``with`` block."""
    peak = PeakMemory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield peak
        synchronize()
        peak.bytes = torch.cuda.max_memory_allocated()
        return
    process = psutil.Process()
    before, done = process.memory_info().rss, threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            peak.bytes = max(peak.bytes, process.memory_info().rss - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.bytes = max(peak.bytes, process.memory_info().rss - before)
