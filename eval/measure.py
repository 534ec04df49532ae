"""Time and memory of a piece of work, on the CPU and on CUDA."""

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch

_SAMPLE_SECONDS = 0.005
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


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


def interleaved(runs: Mapping[Key, Callable[[], Value]], repetitions: int) -> dict[Key, list[Value]]:
    """What each run returns, ``repetitions`` times, all taken in turn so that they see the same machine.

    The first round warms up and is left out.
    """
    found: dict[Key, list[Value]] = {key: [] for key in runs}
    for repetition in range(repetitions + 1):
        for key, run in runs.items():
            value = run()
            if repetition:
                found[key].append(value)
    return found


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
