"""Memory of the machine, the container or the dask worker that this process runs in."""

from __future__ import annotations

import sys
from pathlib import Path

#: Of a container: files with its limit, what is in use, and statistics, and what these call reclaimable.
_CGROUPS = [
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
]


def free_memory() -> int | None:
    """Bytes that are free or can be freed, on this machine or in its container; None where neither is known."""
    known = [each for each in (_free_here(), _free_in_container()) if each is not None]
    return min(known, default=None)


def _free_here(path: str = "/proc/meminfo") -> int | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    return found[0] if found else None


def _free_in_container(root: str = "/sys/fs/cgroup") -> int | None:
    for limit, used, statistics, reclaimable in _CGROUPS:
        try:
            most = (Path(root) / limit).read_text().strip()
            in_use = int((Path(root) / used).read_text())
            lines = (Path(root) / statistics).read_text().splitlines()
        except (OSError, ValueError):
            continue
        if most == "max":
            return None
        cached = sum(int(line.split()[1]) for line in lines if line.split()[0] == reclaimable)
        return max(int(most) - in_use + cached, 0)
    return None


def worker_memory() -> int | None:
    """The limit, in bytes, of the dask worker that runs the calling task; None elsewhere, or where it has none."""
    distributed = sys.modules.get("distributed")
    if distributed is None or not hasattr(distributed, "get_worker"):  # another thread may be importing it
        return None
    try:
        limit: int | None = distributed.get_worker().memory_manager.memory_limit
    except ValueError:  # not in a task of a worker
        return None
    return limit
