"""What dask and xarray do not promise is imported in one place, and does there what we use it for."""

import ast
import re
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import xarray as xr

import geoemb_xr
from geoemb_xr.execution import blocks, internals

VERSIONS = f"dask {dask.__version__}, xarray {xr.__version__}"
#: Modules whose content is documented: the others may move with any version.
PUBLIC = {
    "dask", "dask.array", "dask.base", "dask.callbacks", "dask.delayed", "dask.diagnostics", "dask.highlevelgraph",
    "xarray", "xarray.testing",
}  # fmt: skip
PACKAGE = Path(geoemb_xr.__file__).parent
MODULES = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "execution" / "internals.py"})


def test_no_other_module_imports_what_is_not_promised():
    wrong = []
    for path in MODULES:
        if not re.search(r"\b(dask|xarray)\.", text := path.read_text()):  # to parse them all takes a second
            continue
        for node in ast.walk(ast.parse(text)):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wrong += [
                f"{path.relative_to(PACKAGE)}:{node.lineno} imports {name}: take it from execution.internals"
                for name in names
                if name.split(".")[0] in ("dask", "xarray") and name not in PUBLIC
            ]
    assert not wrong, "\n".join(wrong)


def test_a_task_calls_with_what_others_gave():
    graph = {
        "data": internals.DataNode("data", 3),
        "sum": internals.Task("sum", lambda a, b: a + b, internals.TaskRef("data"), 4),
    }
    assert dask.get(graph, "sum") == 7, VERSIONS


def test_values_are_handed_to_blocks_by_number():
    dep = internals.ArrayValuesDep(((2, 3),), np.array([10, 20]))
    lazy = da.blockwise(
        lambda v: np.full(2 if v == 10 else 3, v),
        "i",
        dep,
        "i",
        dtype=int,
        align_arrays=False,
        meta=np.empty(0, int),
    )
    assert lazy.compute().tolist() == [10, 10, 20, 20, 20], VERSIONS


def test_slices_of_a_source_are_told_from_its_graph():
    lazy = blocks.cut_blocks(xr.DataArray(np.arange(10), dims="y"), {"y": 4}).data + 1
    layers = [each for each in lazy.dask.layers.values() if isinstance(each, internals.Blockwise)]
    (dep,) = [d for each in layers for d in each.io_deps.values() if isinstance(d, internals.ArraySliceDep)]
    assert dep[(1,)] == (slice(4, 8, None),), VERSIONS
    keys = list(internals.flatten(lazy.__dask_keys__()))
    fused = internals.optimize_blockwise(lazy.dask, keys=keys)
    assert len(fused.layers) < len(lazy.dask.layers), VERSIONS


def test_times_are_encoded_as_a_store_has_them():
    times = np.array(["2018-01-01", "2024-01-01"], "datetime64[ns]")
    variable = xr.Variable(
        "time", times, encoding={"units": "days since 1970-01-01", "dtype": np.dtype("int64")}
    )
    encoded = internals.CFDatetimeCoder().encode(variable, name="time")
    assert encoded.values.tolist() == [17532, 19723], VERSIONS


def test_what_is_in_memory_is_told_from_what_is_not():
    class Read(internals.BackendArray):
        shape, dtype = (3,), np.dtype("f4")

        def __getitem__(self, key):
            return np.zeros(3, "f4")

    held = xr.Variable("x", np.zeros(3))
    assert internals.is_in_memory(held), VERSIONS
    assert not internals.is_in_memory(held.chunk(x=2))
    assert not internals.is_in_memory(xr.Variable("x", internals.indexing.LazilyIndexedArray(Read())))
