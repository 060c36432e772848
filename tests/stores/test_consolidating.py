"""Consolidated metadata is what zarr's own function writes, without its warning."""

import json
import shutil
import warnings

import pytest
import zarr

from geoemb_xr.stores.consolidating import consolidate


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store #1.zarr"
    root = zarr.create_group(path, zarr_format=3, attributes={"scale": float("nan"), "title": "Überblick"})
    root.create_array("codes", shape=(4, 4), chunks=(2, 2), shards=(4, 4), dtype="i1")[:] = 1
    zone = root.create_group("zone", attributes={"crs": "EPSG:32632"})
    zone.create_array("a", shape=(3,), dtype="f4", fill_value=float("nan"))[:] = 1
    zone.create_group("deep").create_array("b", shape=(2,), dtype="f8")
    root.create_group("empty")
    return path


def document(path):
    return json.loads((path / "zarr.json").read_text(), parse_constant=str)  # NaN equals itself as text


@pytest.mark.parametrize("times", [1, 2])
def test_it_is_what_zarr_writes(store, tmp_path, times):
    twin = shutil.copytree(store, tmp_path / "twin.zarr")
    for _ in range(times):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(twin)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            consolidate(store)
    assert document(store) == document(twin)
    nodes = [list(document(each)["consolidated_metadata"]["metadata"]) for each in (store, twin)]
    assert nodes[0] == nodes[1] == ["codes", "empty", "zone", "zone/a", "zone/deep", "zone/deep/b"]
    assert sorted(p.name for p in store.iterdir()) == sorted(p.name for p in twin.iterdir())


def test_zarr_reads_all_nodes_from_the_root(store):
    consolidate(store)
    for each in ("codes", "zone", "zone/deep"):
        (store / each / "zarr.json").unlink()
    group = zarr.open_group(store, mode="r", use_consolidated=True)
    assert group["codes"][0, 0] == 1
    assert group["zone"].attrs["crs"] == "EPSG:32632"
    assert group["zone/deep/b"].shape == (2,)
