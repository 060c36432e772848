"""Packages that take seconds to import, imported when a test uses them.

Each process that runs tests collects every file, and pays for what the files import.
"""

import importlib
from importlib.util import find_spec
from typing import Any

import pytest


class _Package:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # what pytest asks of everything in a file
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


def importorskip(name: str) -> Any:
    """As ``pytest.importorskip`` for a whole file, but the import waits until an attribute is asked for."""
    if find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed", allow_module_level=True)
    return _Package(name)
