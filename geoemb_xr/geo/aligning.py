"""Several arrays on one grid and one time axis, and their vectors stacked for one probe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.arrays import decode, normalize
from geoemb_xr.core.errors import CoverageError, EmbeddingError
from geoemb_xr.core.model import (
    BAND,
    Product,
    attribution_of,
    check_embedding,
    comparability_key,
    normalise_name,
    register,
)
from geoemb_xr.core.times import describe_times
from geoemb_xr.geo.warp import reproject

TIME = "time"


# --- one grid, one time axis --------------------------------------------------------------------------------


def align(*arrays: xr.DataArray, like: xr.DataArray | GeoBox | None = None) -> tuple[xr.DataArray, ...]:
    """Bring arrays to one grid and one time axis. Lazy.

    Each array is resampled by its own rules, as :func:`geoemb_xr.reproject` does it: published vectors stay exact
    where the grids are about equally fine, finer ones are averaged on the sphere, and classes take the class of
    most pixels. An array that already lies on the grid is not touched.

    Parameters
    ----------
    *arrays : DataArray (…, y, x)
        Embeddings of any products, class maps, label rasters, other maps.
    like : DataArray or GeoBox, optional
        The grid. By default the grid of the first array, cut to the area that all arrays cover.

    Returns
    -------
    tuple of DataArray
        In the order given, on the same ``y`` and ``x``. Arrays with a ``time`` dimension keep the periods that
        all of them have, under the dates of the first; arrays without one are left as they are.

    Raises
    ------
    EmbeddingError
        If an array has no grid, such as patches off a grid (:func:`geoemb_xr.to_grid` makes one).
    CoverageError
        If no area or no period is common to all arrays; the message says what each one has.
    ValueError
        If there is no array.

    See Also
    --------
    fuse : Stack the vectors of aligned arrays.

    Notes
    -----
    Two steps are the same period where their dates are equal, or, if no array has two steps in one year, where
    their years are equal.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> a = gx.testing.synthetic("alphaearth", shape=(40, 40), years=[2018, 2024])
    >>> t = gx.testing.synthetic("tessera", shape=(30, 30), years=[2024])
    >>> a, t = gx.align(a, t)
    >>> a.sizes["y"], t.sizes["y"], a.time.dt.year.values.tolist()
    (30, 30, [2024])
    """
    if not arrays:
        raise ValueError("align needs at least one array")
    _check_arrays(arrays, "align")
    boxes = [
        geometry.north_up(geometry.geobox_of(each, f"align: array {i}")) for i, each in enumerate(arrays)
    ]
    target = _shared_grid(boxes) if like is None else _grid_of(like)
    placed = [_placed(each, box, target) for each, box in zip(arrays, boxes, strict=True)]
    return tuple(_on_shared_times(placed))


def _check_arrays(arrays: Sequence[Any], what: str) -> None:
    for each in arrays:
        if not isinstance(each, xr.DataArray):
            raise EmbeddingError(
                f"{what} takes arrays one after the other, {what}(first, second); got {type(each).__name__}"
            )


def _grid_of(like: xr.DataArray | GeoBox) -> GeoBox:
    return geometry.north_up(like if isinstance(like, GeoBox) else geometry.geobox_of(like, "like="))


def _shared_grid(boxes: Sequence[GeoBox]) -> GeoBox:
    """The first grid, cut to the pixels that the bounds of all the others reach."""
    grid = boxes[0]
    rows, cols = slice(0, grid.shape[0]), slice(0, grid.shape[1])
    for number, box in enumerate(boxes[1:], start=1):
        area = areas.area_of(box)
        bounds = areas.project_bounds(area.bounds, area.crs, grid.crs)
        window = None if bounds is None else areas.window_of(grid, bounds)
        if window is not None:
            rows, cols = _common(rows, window[0]), _common(cols, window[1])
        if window is None or rows.start >= rows.stop or cols.start >= cols.stop:
            raise CoverageError(
                f"align found no area that all arrays cover: array 0 {areas.covers(grid)}; "
                f"array {number} {areas.covers(box)}"
            )
    return grid[rows, cols]


def _common(a: slice, b: slice) -> slice:
    return slice(max(a.start, b.start), min(a.stop, b.stop))


def _placed(array: xr.DataArray, box: GeoBox, target: GeoBox) -> xr.DataArray:
    """An array on the target grid; cut instead of resampled where its own grid is the same lattice."""
    if geometry.same_crs(box.crs, target.crs):
        found = areas.window_of(box, areas.area_of(target).bounds)
        if found is not None and geometry.same_grid(box[found], target):
            upright = geometry.north_up_array(array).isel(y=found[0], x=found[1])
            return upright.assign_coords({k: v for k, v in geometry.grid_coords(target).items() if k in "yx"})
    moved: xr.DataArray = reproject(array, target)
    return moved


def _on_shared_times(arrays: Sequence[xr.DataArray]) -> list[xr.DataArray]:
    """Arrays with the periods that all those with a time dimension have."""
    timed = [each for each in arrays if TIME in each.dims]
    if len(timed) < 2:
        return list(arrays)
    stamps = [each.indexes[TIME] for each in timed]
    years = [pd.Index(index.year) for index in stamps]
    keys = years if all(index.is_unique for index in years) else stamps
    shared = reduce(lambda a, b: a.intersection(b, sort=True), keys)
    if not len(shared):
        have = "; ".join(describe_times(index.values) for index in stamps)
        raise CoverageError(f"align found no period that all arrays have; they have {have}")
    dates = timed[0][TIME].isel({TIME: keys[0].get_indexer(shared)})
    steps = iter(keys)
    return [
        each.isel({TIME: next(steps).get_indexer(shared)}).assign_coords({TIME: dates})
        if TIME in each.dims
        else each
        for each in arrays
    ]


# --- one vector of several ----------------------------------------------------------------------------------


def fuse(*arrays: xr.DataArray) -> xr.DataArray:
    """Stack the vectors of several products into one embedding. Lazy, one task per block.

    Each product's vectors are decoded, brought to unit length and divided by √k for k arrays, so that no product
    outweighs another by its scale: the cosine of two fused vectors is the mean of their cosines in each product.

    Parameters
    ----------
    *arrays : DataArray (…, band, …)
        Two or more embeddings (codes or vectors) with the same coordinates on all dimensions but ``band``:
        :func:`align` gives them so. Locations work as rasters do.

    Returns
    -------
    DataArray
        float32, of unit length. The bands are named ``alphaearth:A00``; a pixel that is missing in one array is
        missing. The product is one of its own and is registered: the names joined by ``-and-``, the versions by
        ``" + "``; its attribution, licence and citation are those of all.

    Raises
    ------
    EmbeddingError
        If fewer than two arrays are given, or their coordinates differ.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> a = gx.testing.synthetic("alphaearth", shape=(20, 20))
    >>> t = gx.testing.synthetic("tessera", shape=(20, 20))
    >>> both = gx.fuse(*gx.align(a, t))
    >>> both.sizes["band"], both.attrs["product"], str(both.band.values[0])
    (192, 'alphaearth-and-tessera', 'alphaearth:A00')
    """
    _check_arrays(arrays, "fuse")
    if len(arrays) < 2:
        raise EmbeddingError(f"fuse stacks two or more embeddings; got {len(arrays)}")
    products = [check_embedding(each, "fuse") for each in arrays]
    _check_shared_coordinates(arrays)
    keys = [comparability_key(each) for each in arrays]
    names = _distinct([name for name, _ in keys], [version for _, version in keys])
    vectors = [normalize(decode(each)) for each in arrays]
    labels = [
        f"{name}:{band}"
        for name, each in zip(names, vectors, strict=True)
        for band in each.coords[BAND].values.astype(str)
    ]
    made = register(_joined_product(products, names, labels, arrays))
    dims = [f"{BAND}_{i}" for i in range(len(vectors))]
    stacked: xr.DataArray = xr.apply_ufunc(
        _stacked,
        *(each.drop_vars(BAND).rename({BAND: dim}) for each, dim in zip(vectors, dims, strict=True)),
        input_core_dims=[[dim] for dim in dims],
        output_core_dims=[[BAND]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {BAND: len(labels)}},
    )
    attrs = {
        "product": made.name,
        "version": " + ".join(dict.fromkeys(version for _, version in keys if version)),
        "source": "; ".join(
            dict.fromkeys(str(each.attrs["source"]) for each in arrays if "source" in each.attrs)
        ),
    }
    out = stacked.assign_coords({BAND: labels}).transpose(*vectors[0].dims).assign_attrs(attrs)
    out.name = arrays[0].name
    return out


def _stacked(*vectors: np.ndarray) -> np.ndarray:
    """``(…, band)`` of blocks ``(…, band_i)``; missing in all bands where one is missing."""
    share = np.float32(1 / np.sqrt(len(vectors)))
    out = np.concatenate(vectors, axis=-1) * share
    out[np.logical_or.reduce([np.isnan(each[..., 0]) for each in vectors])] = np.nan
    return np.asarray(out)


def _check_shared_coordinates(arrays: Sequence[xr.DataArray]) -> None:
    first = arrays[0]
    for number, each in enumerate(arrays[1:], start=1):
        if set(each.dims) != set(first.dims):
            raise EmbeddingError(
                f"fuse needs the same dimensions; array 0 has {first.dims}, array {number} has {each.dims}"
            )
        for dim in first.dims:
            if dim == BAND or (dim not in first.coords and dim not in each.coords):
                continue
            if not np.array_equal(first[dim].values, each[dim].values):
                raise EmbeddingError(
                    f"fuse needs the same {dim!r} in all arrays; array {number} differs: "
                    "bring them together with gx.align(…)"
                )


def _distinct(names: Sequence[str], versions: Sequence[str]) -> list[str]:
    """Names that tell arrays apart: the version is added where a product comes twice."""
    found = [
        name if names.count(name) == 1 else normalise_name(f"{name}-{version}")
        for name, version in zip(names, versions, strict=True)
    ]
    if len(set(found)) < len(found):
        raise EmbeddingError(f"fuse got the same space twice: {', '.join(found)}")
    return found


def _joined_product(
    products: Sequence[Product], names: Sequence[str], labels: Sequence[str], arrays: Sequence[Any]
) -> Product:
    def joined(texts: Sequence[str], by: str = "; ") -> str:
        return by.join(dict.fromkeys(text for text in texts if text))

    return Product(
        "-and-".join(names),
        dims=len(labels),
        title=joined([each.title or each.name for each in products], " with "),
        bands=tuple(labels),
        unit_norm=True,
        trained_on=tuple(dict.fromkeys(label for each in products for label in each.trained_on)),
        licence=joined([each.licence for each in products]),
        licence_notes=joined([each.licence_notes for each in products]),
        share_alike=any(each.share_alike for each in products),
        attribution=joined([attribution_of(each) for each in arrays]),
        citation=joined([each.citation for each in products]),
        bibtex=joined([each.bibtex for each in products], "\n\n"),
    )
