"""``import geoemb_xr`` is light, and imports inside the package point one way."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import geoemb_xr

HEAVY = (
    "torch",
    "numba",
    "rasterio",
    "geopandas",
    "matplotlib",
    "hvplot",
    "sklearn",
    "pyarrow",
    "zarr",
    "panel",
)
PACKAGE = Path(geoemb_xr.__file__).parent


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_import_loads_nothing_heavy():
    # what xarray and dask.array load themselves is not ours
    code = f"""
import json, sys, xarray, dask.array
before = set(sys.modules)
import geoemb_xr
print(json.dumps([m for m in {HEAVY!r} if m in sys.modules and m not in before]))
"""
    assert json.loads(run_python(code)) == []


def test_completion_shows_what_matters_and_every_name_resolves():
    names = dir(geoemb_xr)
    assert not [n for n in names if n.startswith("_")]
    for name in names:
        assert getattr(geoemb_xr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        geoemb_xr.opne  # noqa: B018 - the access is the test


# Layers from the bottom up: a module imports from layers below, or from its own layer.
ORDER = (
    {"model"},
    {"geometry", "legend", "kernels", "progress", "workers"},
    {"codecs"},
    {"arrays", "citing", "conventions"},
    {"blocks", "fitted", "footprints", "fused", "lattice", "polygons", "testing", "tiles"},
    {"warp", "resampling"},
    {"readers"},
    {"catalog"},
    {"opening"},
)
RANK = {name: rank for rank, layer in enumerate(ORDER) for name in layer}
# A feature is a module, or a few that belong together; features stand on warp and below, not on each other.
FAMILIES = (
    {"points", "zones"},
    {
        "probes", "heads", "neighbours", "training", "validation", "applicability", "labelling", "probe_card",
        "class_maps", "predicting", "torch_models", "devices", "fused_cuda", "streaming",
    },
    {"app", "explorer"},
)  # fmt: skip
TOP = {"__init__", "accessor", "__main__"}


def top_level_imports(path: Path) -> set[str]:
    """Modules of the package that a file imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "geoemb_xr":
            parts = node.module.split(".")
            found.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    parts = path.relative_to(PACKAGE).parts
    own = parts[0] if len(parts) > 1 else path.stem
    if own in TOP:
        return
    family = next((f for f in FAMILIES if own in f), {own})
    below = RANK.get(own, RANK["warp"])
    for imported in top_level_imports(path) - family:
        assert imported in RANK, f"{own} imports {imported}, another feature"
        assert RANK[imported] <= below, f"{own} imports {imported}, which lies above it"
