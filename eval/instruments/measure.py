"""Time and memory of a piece of work, on the CPU and on CUDA, and the state of the device it runs on."""

import ctypes
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from eval.instruments.progress import progress

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


def after_prefill(model: nn.Module, generate: Callable[[], Value]) -> tuple[float, Value]:
    """Seconds from the end of a model's first forward to the end of a generation, device included; and what it gave.

    Args:
        model: whose first forward is the prefill.
        generate: runs it.
    """
    prefilled: list[float] = []

    def note(*_: object) -> None:
        if not prefilled:
            synchronize()
            prefilled.append(time.perf_counter())

    handle = model.register_forward_hook(note)
    try:
        made = generate()
        synchronize()
        return time.perf_counter() - prefilled[0], made
    finally:
        handle.remove()


def interleaved(runs: Mapping[Key, Callable[[], Value]], repetitions: int) -> dict[Key, list[Value]]:
    """What each run returns, ``repetitions`` times, all taken in turn so that they see the same machine.

    The first round warms up and is left out.
    """
    found: dict[Key, list[Value]] = {key: [] for key in runs}
    for repetition in progress(range(repetitions + 1), "Rounds"):
        for key, run in runs.items():
            value = run()
            if repetition:
                found[key].append(value)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest, largest, distance between the quartiles, and how many values there are (at least one)."""
    ordered = sorted(values)
    quartiles = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else [ordered[0]] * 3
    return {
        "median": round(quartiles[1], 4),
        "min": round(ordered[0], 4),
        "max": round(ordered[-1], 4),
        "iqr": round(quartiles[2] - quartiles[0], 4),
        "n": len(ordered),
    }


_STATE = {
    "driver": "driver_version",
    "sm_mhz": "clocks.sm",
    "max_sm_mhz": "clocks.max.sm",
    "memory_mhz": "clocks.mem",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
    "temperature_c": "temperature.gpu",
}


def device_state() -> dict[str, str] | None:
    """Driver, clocks, power and temperature of the first GPU as its driver's tool prints them; None where it cannot."""
    tool = shutil.which("nvidia-smi")
    if tool is None or not torch.cuda.is_available():
        return None
    command = [tool, "--id=0", f"--query-gpu={','.join(_STATE.values())}", "--format=csv,noheader,nounits"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in line.split(",")]
    return dict(zip(_STATE, values, strict=True)) if len(values) == len(_STATE) else None


@dataclass
class PeakMemory:
    """Highest memory while a block ran.

    Attributes:
        bytes: on CUDA the peak of the allocator; on the CPU the peak resident size of the process above its size when
            the block began (sampled every 5 ms, so a lower bound).
    """

    bytes: int = 0


def _return_free_memory() -> None:
    """Give what the C library holds back from earlier work to the system, or that work would hide what comes next."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def keep_free_memory() -> bool:
    """Let the C library keep, from here on, all memory that this process frees; whether it can be asked to.

    By default glibc returns larger pieces and takes them anew, page by page, and that is most of the time of some work.
    """
    with suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        # M_MMAP_MAX: no mapping of its own for a larger piece; M_TRIM_THRESHOLD, M_TOP_PAD: see mallopt(3)
        return all(mallopt(option, value) for option, value in ((-4, 0), (-1, 2**30), (-2, 2**26)))
    return False


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
    import psutil  # noqa: PLC0415

    _return_free_memory()
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
