"""Plans: what a computation would read and hold, found from its graph before it runs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import html
from geoemb_xr.execution.reads import culled_graph, reads_of


@dataclass(frozen=True)
class Plan:
    """What computing an array would take.

    Parameters
    ----------
    blocks : int
        Blocks of the result.
    result_bytes : int
        Bytes of the result, in memory.
    tasks : int
        Number of tasks after blockwise fusion.
    reads : int
        Tasks that read from a source.
    read_bytes : int
        What they hold once read, before decoding; compressed stores transfer less.
    requests : int
        Requests of a run, each stored block once, where the source tells its blocks; else as many as reads.
    transfer_bytes : int
        What these bring, compressed as it is stored: of files read by their headers, else from the sizes of some
        objects. Headers and sizes are asked for by ``plan``, and kept for the run.
    workers : int
        Tasks that run at once on this machine.
    peak_memory : int
        Estimate in bytes: for every worker what it reads, its float32 vectors and its result; the whole result
        once; and the stored blocks of remote files that are kept (``GEOEMB_CACHE_MB``).
    """

    blocks: int
    result_bytes: int
    tasks: int
    reads: int
    read_bytes: int
    requests: int
    transfer_bytes: int
    workers: int
    peak_memory: int

    def _rows(self) -> html.Rows:
        if not self.tasks:
            return [("result", f"{html.human_bytes(self.result_bytes)}, in memory already: nothing to read")]
        return [
            ("result", f"{html.human_bytes(self.result_bytes)} in {self.blocks:,} blocks"),
            (
                "reads",
                f"{html.human_bytes(self.read_bytes)} in {self.reads:,} reads: about {self.requests:,} requests of "
                f"{html.human_bytes(self.transfer_bytes)}",
            ),
            ("tasks", f"{self.tasks:,}, {self.workers} at once"),
            ("peak memory", f"about {html.human_bytes(self.peak_memory)}"),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:<12}{value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        return html.card("plan", [(name, escape(value)) for name, value in self._rows()])


def plan(array: xr.DataArray) -> Plan:
    """Estimate what computing an array would read and hold, without computing anything. Asks for headers and sizes.

    Parameters
    ----------
    array : DataArray
        An embedding or a map, lazy or not.

    Returns
    -------
    Plan
        Prints as a short table. With a cluster, ``workers`` and ``peak_memory`` speak of this machine alone.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64), years=[2018, 2024], chunks=32)
    >>> da.emb.change(2018, 2024).emb.plan().blocks
    4
    """
    return plan_of([array])


def plan_of(arrays: Sequence[xr.DataArray]) -> Plan:
    """The plan of several arrays that are computed together: what they share is read once."""
    size = sum(each.nbytes for each in arrays)
    lazy = [each for each in arrays if each.chunks is not None]
    if not lazy:
        return Plan(len(arrays), size, 0, 0, 0, 0, 0, 0, size)
    from geoemb_xr.execution.internals import optimize_blockwise

    graph, keys = culled_graph(lazy)
    fused = optimize_blockwise(graph, keys=keys)
    reads, requests, transferred, kept = _reads(graph)
    held = max((read.held for read in reads), default=0)
    block = max(math.prod(max(c) for c in each.chunks or ()) * each.dtype.itemsize for each in lazy)
    blocks = sum(each.data.npartitions for each in lazy)
    workers = min(os.cpu_count() or 1, blocks)
    return Plan(
        blocks=blocks + len(arrays) - len(lazy),
        result_bytes=size,
        tasks=sum(len(layer) for layer in fused.layers.values()),
        reads=len(reads),
        read_bytes=sum(read.nbytes for read in reads),
        requests=requests,
        transfer_bytes=transferred,
        workers=workers,
        peak_memory=workers * (held + block) + size + kept,
    )


@dataclass(frozen=True)
class _Read:
    nbytes: int
    held: int  # while a task reads it: codes of a byte become float32 of four


def _reads(graph: Any) -> tuple[list[_Read], int, int, int]:
    """What the tasks of a graph read, with how many requests of how many bytes, and how much of it is kept."""
    found: list[_Read] = []
    windows: dict[int, tuple[Any, list[tuple[slice, ...]]]] = {}
    for source, window in reads_of(graph):
        nbytes, itemsize = _bytes_of(source, [window]), np.dtype(source.dtype).itemsize
        found.append(_Read(nbytes, nbytes * (1 + 4 // itemsize) + getattr(source, "beside", 0)))
        windows.setdefault(id(source), (source, []))[1].append(window)
    requests = transferred = kept = 0
    for source, own in windows.values():
        read = _bytes_of(source, own)
        more, size = source.transfer(own) if hasattr(source, "transfer") else (len(own), read)
        requests, transferred = requests + more, transferred + size
        kept += source.kept(size, read) if hasattr(source, "kept") else 0
    return found, requests, transferred, kept


def _bytes_of(source: Any, windows: Sequence[tuple[slice, ...]]) -> int:
    pixels = sum(math.prod(span.stop - span.start for span in window) for window in windows)
    return int(pixels * np.dtype(source.dtype).itemsize)
