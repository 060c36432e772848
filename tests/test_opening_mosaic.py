"""Opening the global mosaic of AlphaEarth: a window of 10⁹ chunks, and what it may not be mixed with."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zarr

import geoemb_xr as gx

BBOX = (11.365, 47.247, 11.375, 47.253)


def mosaic_like(path, *, older=False):
    """The public mosaic's metadata, nothing written."""
    root = zarr.open_group(path, mode="w", zarr_format=3)
    attrs = {
        "proj:code": "EPSG:4326",
        "spatial:transform": [8.983111749910169e-05, 0, -180, 0, -8.983111749910169e-05, 83.68570533713473],
    }
    array = root.create_array(
        "embeddings",
        shape=(9, 64, 1_859_584, 4_009_984),
        chunks=(1, 64, 256, 256),
        shards=(1, 64, 4096, 4096),
        dtype="int8",
        fill_value=-128,
        dimension_names=("time", "embedding" if older else "band", "y", "x"),
    )
    (array if older else root).attrs.update(attrs)
    times = root.create_array("time", shape=(9,), dtype="int32", dimension_names=("time",))
    times[:] = np.arange(2017, 2026, dtype=np.int32)
    return path


@pytest.mark.parametrize("older", [False, True])
def test_a_window_of_the_global_mosaic(tmp_path, older):
    path = mosaic_like(tmp_path / "m.zarr", older=older)
    da = gx.open("alphaearth", str(path), bbox=BBOX, time=[2018, 2024], decode=False)
    assert da.shape[:2] == (2, 64)
    assert da.shape[2] < 80
    assert da.data.npartitions <= 8
    assert da["x"].values[0] == pytest.approx(BBOX[0], abs=1e-4)
    assert (da.compute() == -128).all()


def test_a_window_of_the_global_mosaic_is_cheap(tmp_path):
    """The design's bound: under 60 MB above the imports, opening and the first small computation."""
    path = mosaic_like(tmp_path / "m.zarr")
    code = f"""
    import resource, zarr, xarray, dask.array, distributed, rasterio
    import geoemb_xr as gx, geoemb_xr.opening
    gx.testing.synthetic("alphaearth", shape=(4, 4), decode=False, chunks=4).emb.decode().compute()  # imports numba
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gx.open("alphaearth", {str(path)!r}, bbox=(11.30, 47.20, 11.33, 47.23), time=2024).isel(band=0).compute()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 60_000 * (1 if sys.platform == "linux" else 1024)


def test_mixing_the_mosaic_with_first_hand_tiles_warns():
    cog = gx.example("alphaearth")
    first = gx.open("alphaearth", cog, bbox=BBOX, time=2018)
    copy = gx.open("alphaearth", gx.example("alphaearth", container="zarr"), like=first, time=2020)
    assert copy.attrs["store"] == "mosaic"
    assert "store" not in first.attrs
    with pytest.warns(UserWarning, match="concat mixes the first-hand files and 'mosaic'"):
        gx.concat([first, copy], "time")


def test_the_mosaic_across_the_antimeridian(tmp_path):
    path = mosaic_like(tmp_path / "m.zarr")
    da = gx.open("alphaearth", str(path), bbox=(179.99, -17.01, -179.99, -17.0), time=2024, decode=False)
    assert float(da["x"].values[0]) < 180 < float(da["x"].values[-1]) < 180.02
