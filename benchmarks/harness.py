"""What every benchmark here does alike: interleave, take medians, print ratios, watch memory.

Rates of one machine say little about another, and this kind drifts by a factor of two within an hour: what counts
is the ratio to a peer, and to the limit of memory, in one process and in turns.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoemb_xr.core import compiling

compiling.SPARED = 0  # compiled loops from the first call on: what is timed is what long work takes


def compare(
    calls: Mapping[str, Callable[[], Any]],
    *,
    repeat: int = 5,
    warm: int = 1,
    slow: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each call, taken in turns after ``warm`` rounds that do not count, by any clock.

    ``slow`` names calls that take minutes, and how often each is timed, from the first round that counts.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm + repeat):
        for name, call in calls.items():
            if slow and name in slow and not warm <= turn < warm + slow[name]:
                continue
            gc.collect()
            start = clock()
            call()
            if turn >= warm:
                times[name].append(clock() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def consume(*arrays: Any, threads: int = 2) -> None:
    """Compute lazy arrays together, block by block, and keep nothing of them."""
    import dask

    data = [getattr(each, "data", each) for each in arrays]
    small = [d.map_blocks(_touch, dtype=np.int8, chunks=tuple((1,) * n for n in d.numblocks)) for d in data]
    dask.compute(*small, scheduler="threads", num_workers=threads)


def _touch(block: Any) -> np.ndarray:
    return np.zeros((1,) * block.ndim, np.int8)


def memcpy_seconds(size: int, *, threads: int = 2) -> float:
    """How long copying ``size`` bytes takes on all threads: the limit of whatever moves them once."""
    part = np.ones(min(size // threads, 1 << 27), np.uint8)
    into = [np.empty_like(part) for _ in range(threads)]

    def copy(n: int) -> None:
        np.copyto(into[n], part)

    def once() -> None:
        workers = [threading.Thread(target=copy, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return compare({"copy": once}, repeat=5)["copy"] * size / (part.size * threads)


def rss() -> int:
    """Bytes of memory this process holds now."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def trim() -> None:
    """Give freed memory back to the system, where the C library can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory() -> int:
    """Bytes of memory that can be taken, by what the system says; very many where it says nothing."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    return found[0] if found else 1 << 60


@dataclass
class Peak:
    """The most memory held, beyond what was held at the start, in bytes."""

    extra: int = 0


@contextmanager
def peak_memory(every: float = 0.002) -> Iterator[Peak]:
    """Watch memory while a block runs; what was freed before is given back first, or it would be used unseen."""
    gc.collect()
    trim()
    found, before, done = Peak(), rss(), threading.Event()

    def watch() -> None:
        while not done.wait(every):
            found.extra = max(found.extra, rss() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Print rows as a Markdown table, each as soon as it is there, and return it."""
    lines: list[str] = []

    def add(*more: str) -> None:
        print(*more, sep="\n", flush=True)
        lines.extend(more)

    add(f"### {title}", "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns))
    for row in rows:
        add("| " + " | ".join(_cell(value) for value in row) + " |")
    add("")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def options(
    description: str | None, argv: Sequence[str] | None = None, **sizes: tuple[int, str]
) -> argparse.Namespace:
    """Parse what every benchmark takes, ``--small`` and ``--repeat``, and numbers of its own: default and help."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--repeat", type=int, default=5, help="how often each call is timed")
    for name, (default, meaning) in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    return parser.parse_args(argv)
