"""The metadata of all nodes of a Zarr store in the root's, so that one request tells a reader everything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DOCUMENT = "zarr.json"


def consolidate(store: Path) -> None:
    """Write the metadata of every node of a local Zarr v3 store into the root's document, whole or not at all.

    It is what ``zarr.consolidate_metadata`` writes. That one warns that the specification has no such thing yet
    (xarray, GDAL and zarr itself read it), and a filter of warnings would hold in every thread of the process.

    Parameters
    ----------
    store : Path
        Folder of the root group.
    """
    document = json.loads((store / _DOCUMENT).read_text())
    nodes = sorted(_nodes(store), key=lambda node: (node[0].count("/"), node[0]))
    document["consolidated_metadata"] = _inline(dict(nodes))
    part = store / f"{_DOCUMENT}.part"
    part.write_text(json.dumps(document, indent=2))
    os.replace(part, store / _DOCUMENT)


def _nodes(folder: Path, above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Paths and documents of the nodes below a group; folders of chunks have no document."""
    for child in folder.iterdir():
        if not (child / _DOCUMENT).is_file():
            continue
        node = json.loads((child / _DOCUMENT).read_text())
        name = f"{above}{child.name}"
        if node["node_type"] == "group":
            node["consolidated_metadata"] = _inline({})  # the root tells what is in it
            yield from _nodes(child, f"{name}/")
        yield name, node


def _inline(nodes: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": nodes}
