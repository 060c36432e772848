"""Versions of what is installed, for reports of problems."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from typing import TextIO

PACKAGE = "geoemb-xr"


def show_versions(file: TextIO | None = None) -> None:
    """Print the versions of this package, of Python, and of every package it can use.

    Nothing is imported: versions are read from the metadata of what is installed.

    Parameters
    ----------
    file : text file, optional
        File to write to; standard output by default.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> gx.show_versions()
    geoemb-xr ...
    python ...
    """
    lines = {
        PACKAGE: _version(PACKAGE),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in _requirements()},
        "GPU": _gpu(),
    }
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}", file=file or sys.stdout)


def _requirements() -> list[str]:
    """Names of the packages that this one requires, extras included, tests and documentation left out."""
    declared = importlib.metadata.requires(PACKAGE) or []
    used = [line for line in declared if not re.search(r"extra == ['\"](test|docs|all)['\"]", line)]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in used]
    return [name for name in dict.fromkeys(names) if name != PACKAGE]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _gpu() -> str:
    """The CUDA devices, where torch has been imported already: to look is not worth importing it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return "torch is not imported"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names) or "none that torch sees"
