"""Tessera's stores, tiles and exports, of the synthetic scene."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from geoemb_xr import testing
from geoemb_xr.core import areas, conventions, geometry
from geoemb_xr.core.codecs import decode_per_pixel_scale
from geoemb_xr.readers import geotiff
from geoemb_xr.stores.consolidating import consolidate

NAME = "tessera"
DIMS = 128
_CODES_FOLDER, _MASKS_FOLDER = "global_0.1_degree_representation", "global_0.1_degree_tiff_all"


def example_tessera(
    directory: Path, container: str, *, years: Sequence[int] = (2018, 2020, 2022, 2024), size: int = 128
) -> Path:
    """Write the synthetic scene as Tessera is published; returns the source."""
    grid = testing.geobox((size, size))
    codes = testing.synthetic(NAME, grid=grid, years=list(years), decode=False)
    scales = codes.coords["scale"].values.copy()
    for step, year in enumerate(years):
        water = testing.scene().names.index("water") + 1
        scales[step][testing.scene().truth(grid, year).values == water] = np.nan
    scales[:, :2, :2] = np.nan  # a pond
    scales[:, -2:, -2:] = np.inf  # a corner that no tile filled
    if container == "zarr":
        return write_store(directory / "tessera.zarr", grid, codes.values, scales, years)
    if container == "legacy":
        for step, year in enumerate(years):
            _example_legacy(directory / f"{year}.zarr", grid, codes.values[step], scales[step])
        return directory
    for step, year in enumerate(years):
        if container == "npy":
            _example_npy(directory, grid, year, codes.values[step], scales[step])
        elif year in (years[0], years[-1]):  # floats take four times the bytes
            _example_export(
                directory, grid, year, decode_per_pixel_scale(codes.values[step], scales[step], 0)
            )
    return directory


def write_store(path: Path, grid: Any, codes: np.ndarray, scales: np.ndarray, years: Sequence[int]) -> Path:
    """A store as geotessera makes them, with smaller shards."""
    import zarr

    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update(
        {
            "zarr_conventions": [{"uuid": conventions.GEOEMB_UUID, "name": "geoemb:"}],
            "geoemb:type": "pixel",
            "geoemb:dimensions": DIMS,
            "geoemb:model": "https://geotessera.org/model/1.1",
            "geoemb:data_type": "int8",
            "geoemb:gsd": 10.0,
            "geoemb:spatial_layout": "utm_zones",
            "geoemb:build_version": "synthetic",
            "geoemb:quantization": {
                "method": "per_pixel_scale",
                "original_dtype": "float32",
                "quantized_dtype": "int8",
                "scale": {"type": "array", "array_name": "scales", "nodata": "+inf"},
            },
        }
    )
    group = root.create_group(_zone_of(grid))
    height, width = grid.shape
    box = grid.boundingbox
    group.attrs.update(
        {
            "zarr_conventions": [{"uuid": u} for u in (conventions.SPATIAL_UUID, conventions.PROJ_UUID)],
            "proj:code": geometry.crs_name(grid.crs),
            "spatial:dimensions": ["y", "x"],
            "spatial:bbox": [box.left, box.bottom, box.right, box.top],
            "spatial:transform_type": "affine",
            "spatial:transform": list(grid.affine)[:6],
            "spatial:shape": [height, width],
            "spatial:registration": "pixel",
        }
    )
    side = min(32, height)
    shape = (1, DIMS, height, width)
    group.create_array(
        "embeddings",
        shape=codes.shape,
        chunks=(1, DIMS, side, side),
        shards=shape,
        dtype="int8",
        fill_value=0,
        dimension_names=("time", "band", "y", "x"),
    )[:] = codes
    group.create_array(
        "scales",
        shape=scales.shape,
        chunks=(1, side, side),
        shards=(1, height, width),
        dtype="float32",
        fill_value=np.inf,
        dimension_names=("time", "y", "x"),
    )[:] = scales
    a = grid.affine
    coordinates = {
        "time": np.asarray(years, np.int32),
        "band": np.arange(DIMS, dtype=np.int32),
        "y": geometry.pixel_centres(a.f, a.e, 0, height),
        "x": geometry.pixel_centres(a.c, a.a, 0, width),
    }
    for name, values in coordinates.items():
        group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=(name,))[:] = values
    consolidate(path)  # as the published stores have it
    return path


def _example_legacy(path: Path, grid: Any, codes: np.ndarray, scales: np.ndarray) -> None:
    """A yearly store as they were before the conventions: band last, NaN the only sentinel."""
    import zarr

    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"geoemb:build_version": "synthetic"})
    group = root.create_group(_zone_of(grid))
    height, width = grid.shape
    a = grid.affine
    arrays_ = {
        "embeddings": (np.moveaxis(codes, 0, -1), ("northing", "easting", "band"), 0),
        "scales": (
            np.where(np.isfinite(scales), scales, np.float32(np.nan)),
            ("northing", "easting"),
            np.nan,
        ),
        "northing": (geometry.pixel_centres(a.f, a.e, 0, height), ("northing",), 0),
        "easting": (geometry.pixel_centres(a.c, a.a, 0, width), ("easting",), 0),
    }
    for name, (values, dims, fill) in arrays_.items():
        group.create_array(
            name, shape=values.shape, dtype=values.dtype, fill_value=fill, dimension_names=dims
        )[:] = values


def _zone_of(grid: Any) -> str:
    """The group of a grid in UTM."""
    epsg = geometry.as_crs(grid.crs).to_epsg()
    assert epsg is not None
    return f"utm{epsg % 100:02d}"


def _example_name(grid: Any) -> str:
    """The 0.1° tile that holds a grid's middle."""
    west, south, east, north = areas.area_of(grid).lonlat()[0]
    lon, lat = (math.floor(v / 2 * 10) / 10 + 0.05 for v in (west + east, south + north))
    return f"grid_{lon:.2f}_{lat:.2f}"


def _example_npy(directory: Path, grid: Any, year: int, codes: np.ndarray, scales: np.ndarray) -> None:
    """Codes, scales and landmask as geotessera keeps them; the landmask states an unsnapped corner."""
    name = _example_name(grid)
    folder = directory / _CODES_FOLDER / str(year) / name
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", np.ascontiguousarray(np.moveaxis(codes, 0, -1)))
    np.save(folder / f"{name}_scales.npy", scales)
    unsnapped = Affine.translation(3.7, -2.1) * grid.affine
    geotiff.write_geotiff(
        directory / _MASKS_FOLDER / f"{name}.tiff",
        np.isfinite(scales)[None].astype(np.uint8),
        geometry.make_geobox(tuple(grid.shape), unsnapped, grid.crs),
        compress="deflate",
    )
    sidecar = {"dataset_version": "synthetic", "dataset_variant": "synthetic"}
    (directory / "tessera_metadata.json").write_text(json.dumps(sidecar))


def _example_export(directory: Path, grid: Any, year: int, vectors: np.ndarray) -> None:
    """A decoded GeoTIFF as geotessera exports it."""
    name = _example_name(grid)
    geotiff.write_geotiff(
        directory / str(year) / name / f"{name}_{year}.tiff",
        vectors,
        grid,
        nodata=float("nan"),
        descriptions=[f"Tessera_Band_{i}" for i in range(DIMS)],
        tags={"TESSERA_YEAR": str(year), "GEOEMB_VERSION": "synthetic"},
        compress="deflate",
        interleave="pixel",
        blockxsize=256,
        blockysize=256,
    )
