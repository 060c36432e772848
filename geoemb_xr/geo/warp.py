"""Warping: reproject, mosaic and coarsen. Exact, the same for every chunking, one task per block.

Every output block is one task that takes just the source blocks it lies in. Where its pixels lie there is found by
:mod:`geoemb_xr.geo.lattice`; what is done with them stands in :mod:`geoemb_xr.geo.resampling`. A mean over very
many source pixels is summed one square of the source at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from geoemb_xr.core import arrays, geometry
from geoemb_xr.core.areas import Area, area_of, resolution_in, snapped_geobox, union_bounds
from geoemb_xr.core.checks import is_count
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.missing import NODATA_KEYS, fill_of, without_codec
from geoemb_xr.core.model import (
    BAND,
    check_comparable,
    comparability_key,
    is_encoded,
    kind_of,
)
from geoemb_xr.geo import lattice
from geoemb_xr.geo.lattice import Grid
from geoemb_xr.geo.resampling import Resampling, Rule
from geoemb_xr.geo.warp_plans import Chunks
from geoemb_xr.geo.warp_tasks import VECTORS, scale_under, warped

#: Up to this many source pixels in a target pixel, nearest is the default: published vectors stay exact.
NEAREST_UP_TO = 1.5


def _default_resampling(array: xr.DataArray, source: Grid, target: Grid, stats: bool) -> Resampling:
    close = target.metres <= NEAREST_UP_TO * source.metres
    if _is_labels(array):
        return "nearest" if close or array.dtype.kind == "b" else "mode"
    return "nearest" if close and not stats else "average"


def _check_resampling(array: xr.DataArray, resampling: Resampling, stats: bool, what: str) -> None:
    check_choice("resampling", resampling, ("nearest", "bilinear", "average", "mode"))
    labels = _is_labels(array)
    if labels and resampling in ("bilinear", "average"):
        raise EmbeddingError(
            f"{what} got whole numbers ({array.dtype}), which {resampling} would mix as if they were amounts: "
            "use 'nearest' or 'mode' for classes, .astype('float32') for amounts"
        )
    if resampling == "mode" and not (labels and array.dtype.name in ("uint8", "uint16")):
        raise EmbeddingError(f"resampling='mode' is for class maps (uint8, uint16); got {array.dtype}")
    if stats and resampling != "average":
        raise ValueError(f"resultant_length=True goes with resampling='average'; got {resampling!r}")


# --- public -----------------------------------------------------------------------------------------------------


def reproject(
    array: xr.DataArray,
    target: Any,
    *,
    resolution: float | tuple[float, float] | None = None,
    resampling: Resampling | None = None,
    chunks: Chunks = None,
    resultant_length: bool = False,
) -> Any:
    """Put an array on another grid. Lazy, and the same for every chunking.

    Parameters
    ----------
    array : DataArray (…, y, x)
        An embedding (codes or vectors), or a map.
    target : CRS, GeoBox or DataArray
        A CRS (grid edges at multiples of ``resolution``), a grid, or an array to match.
    resolution : float or (float, float), optional
        Pixel size in units of the CRS; the array's ground resolution by default.
    resampling : {"nearest", "bilinear", "average", "mode"}, optional
        ``nearest`` moves published vectors as they are, codes as codes. ``bilinear`` and ``average`` (weighted by
        the area of the true footprint) decode, leave missing pixels out, and renormalise where the product has
        unit length. ``mode`` is for class maps. By default nearest where a target pixel is at most 1.5 source
        pixels wide, else average (mode for class maps).
    chunks : int, (int, int) or mapping, optional
        Blocks of the result; by default they hold about as many source pixels as the source's blocks.
    resultant_length : bool
        With ``average``: also how well the averaged vectors agree, ‖Σwx‖ / Σw‖x‖ in [0, 1], and the valid share
        of each footprint.

    Returns
    -------
    DataArray or Dataset
        North-up; missing outside of the array: NaN, the codec's nodata, or of other whole numbers the nodata that
        the array declares, else 0. With ``resultant_length`` a Dataset with ``embedding``, ``resultant_length`` and
        ``valid_fraction``.

    Raises
    ------
    EmbeddingError
        If the array has no grid or CRS, if its bands are in several chunks, or if classes would be averaged.
    ValueError
        If the target is not a grid, or an option is unknown.

    Notes
    -----
    Positions come from PROJ on a lattice in the target CRS, refined to 0.01 source pixel, and are rounded to
    1/4096 pixel; an exact edge belongs to the pixel of higher number. So a window of the result is the result of
    a window.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(40, 40))
    >>> da.emb.reproject("EPSG:3035", resolution=10).sizes["band"]
    64
    >>> coarse = da.emb.reproject("EPSG:3035", resolution=100, resultant_length=True)
    >>> bool(coarse.resultant_length.max() <= 1)
    True
    """
    geobox, coords = _target(array, target, resolution)
    source, grid = lattice.source_grid(array), lattice.target_grid(geobox)
    how = resampling or _default_resampling(array, source, grid, resultant_length)
    return _warped_array(array, geobox, coords, how, chunks, resultant_length, "reproject")


def coarsen(array: xr.DataArray, factor: int, *, resultant_length: bool = False) -> Any:
    """Means of ``factor`` × ``factor`` pixels, from the north-west corner on. Lazy.

    Sums over the valid base pixels, normalised once where the product has unit length; the last row and column
    take what there is. Around the world the last column takes the first pixels too, where it reaches past the
    end of the grid: that is the ground that it covers. Class maps get the class of most pixels. For several
    levels coarsen the base array each time: a mean of means is not the mean.

    Parameters
    ----------
    array : DataArray (…, y, x)
        An embedding (codes are decoded) or a map.
    factor : int
        Pixels a side, at least 1.
    resultant_length : bool
        Also give how well the averaged vectors agree, and the valid share: see :func:`reproject`.

    Returns
    -------
    DataArray or Dataset
        North-up, float32 for embeddings.

    Raises
    ------
    ValueError
        If ``factor`` is not a positive whole number.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(10, 8))
    >>> da.emb.coarsen(4).sizes["y"], da.emb.coarsen(4).sizes["x"]
    (3, 2)
    """
    if not is_count(factor):
        raise ValueError(f"factor is a whole number of pixels, at least 1; got {factor!r}")
    base = geometry.north_up(geometry.geobox_of(array, "coarsen"))
    shape = tuple(-(-size // factor) for size in base.shape)
    geobox = GeoBox(shape, base.affine * base.affine.scale(factor), base.crs)
    how: Resampling = "mode" if _is_labels(array) else "average"
    return _warped_array(array, geobox, geometry.grid_coords(geobox), how, None, resultant_length, "coarsen")


def mosaic(
    sources: Sequence[xr.DataArray] | xr.DataArray,
    target: Any,
    *,
    rule: Rule = "nearest-centre",
    resolution: float | tuple[float, float] | None = None,
    resampling: Resampling | None = None,
    chunks: Chunks = None,
) -> xr.DataArray:
    """Several arrays, of any CRSs, on one grid. Lazy.

    Parameters
    ----------
    sources : sequence of DataArray
        Embeddings of one product and version, or maps of one kind, with the same dimensions, bands and times.
    target : CRS, GeoBox or DataArray
        See :func:`reproject`; a CRS covers all the arrays.
    rule : {"nearest-centre", "first"}
        Rule for which array a pixel is taken from where several have data: the one whose centre is nearest, so
        that seams fall midway, or the first.
    resolution, resampling, chunks
        See :func:`reproject`.

    Returns
    -------
    DataArray
        North-up, with the attributes of the first.

    Raises
    ------
    ComparabilityError
        If products or versions differ.
    EmbeddingError
        If dimensions, bands, times or encodings differ.
    ValueError
        If there is no array, or for an unknown rule.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> west = gx.testing.synthetic("alphaearth", grid=gx.testing.geobox((8, 8)))
    >>> east = gx.testing.synthetic("alphaearth", grid=gx.testing.geobox((8, 8), offset=(80, 0)))
    >>> gx.mosaic([west, east], "EPSG:32632").sizes["x"]
    16
    """
    # list() of an array would be its years
    sources = [sources] if isinstance(sources, xr.DataArray) else list(sources)
    _check_alike(sources)
    check_choice("rule", rule, ("nearest-centre", "first"))
    first = sources[0]
    geobox, coords = _target(first, target, resolution, sources)
    grid = lattice.target_grid(geobox)
    how = resampling or _default_resampling(first, lattice.source_grid(first), grid, False)
    out: xr.DataArray = _warped_array(
        first, geobox, coords, how, chunks, False, "mosaic", sources=sources, rule=rule
    )
    names = {str(each.attrs["source"]) for each in sources if "source" in each.attrs}
    if len(names) > 1:
        out.attrs["source"] = f"{len(names)} sources"
    return out


def _is_labels(array: xr.DataArray) -> bool:
    """Whether an array is a map of whole numbers, which mixing would make meaningless, and not a picture."""
    return kind_of(array) == "map" and array.dtype.kind in "iub" and "rgb" not in array.dims


def _warped_array(
    array: xr.DataArray,
    geobox: GeoBox,
    coords: Mapping[str, xr.DataArray],
    how: Resampling,
    chunks: Chunks,
    stats: bool,
    what: str,
    *,
    sources: Sequence[xr.DataArray] = (),
    rule: Rule = "first",
) -> Any:
    """The result with its coordinates and attributes."""
    sources = sources or [array]
    _check_resampling(array, how, stats, what)
    grid = lattice.target_grid(geobox)
    data, stat_data = warped(sources, grid, how, rule, chunks, stats, what)
    encoded = is_encoded(array) and kind_of(array) == "raster"
    kept = {
        k: v for k, v in array.coords.items() if not {"y", "x"} & set(v.dims) and k != geometry.SPATIAL_REF
    }
    attrs = dict(array.attrs)
    # where a value marked what is missing, NaN does now; a value that the dtype cannot hold never did
    if kind_of(array) == "map" and (array.dtype.kind == "f" or fill_of(array) is None):
        attrs = {k: v for k, v in attrs.items() if k not in NODATA_KEYS}
    if encoded:
        codec = arrays.codec_of(array)
        if how != "nearest":
            attrs = without_codec(attrs)
            if codec.bands:
                kept[BAND] = xr.DataArray(list(codec.bands), dims=BAND)
        elif codec.scale is not None:
            side = chunks if array.chunks is None else _chunks_of(data, array.dims)
            scales = [_placed_scale(each, what, clean=len(sources) > 1) for each in sources]
            moved, _ = warped(scales, grid, "nearest", rule, side, False, f"{what}-scale")
            kept[codec.scale] = xr.DataArray(moved, dims=scales[0].dims)
    out = xr.DataArray(data, dims=array.dims, coords={**kept, **coords}, attrs=attrs)
    out.name = array.name  # given to the constructor, None would become the graph's name
    if not stats:
        return out
    others = [d for d in array.dims if d not in ("y", "x") and d not in VECTORS]
    extra = {k: v for k, v in out.coords.items() if not set(v.dims) & set(VECTORS)}
    planes = {
        name: xr.DataArray(stat_data[..., n], dims=(*others, "y", "x"), coords=extra)
        for n, name in enumerate(("resultant_length", "valid_fraction"))
    }
    return xr.Dataset({"embedding": out.rename("embedding"), **planes})


def _placed_scale(array: xr.DataArray, what: str, *, clean: bool) -> xr.DataArray:
    """Scales as a map; ``clean`` makes all that mean missing NaN, so that a mosaic chooses as for the codes."""
    scale = scale_under(array, what)
    scale = scale.assign_coords({k: array.coords[k] for k in ("y", "x", geometry.SPATIAL_REF)})
    return scale.where(np.isfinite(scale) & (scale != 0)) if clean else scale


def _chunks_of(data: Any, dims: Sequence[Hashable]) -> tuple[int, int]:
    return data.chunks[list(dims).index("y")][0], data.chunks[list(dims).index("x")][0]


def default_resolution(source: GeoBox, crs: object) -> float | tuple[float, float]:
    """The pixel size that keeps a grid's ground resolution in another CRS.

    Parameters
    ----------
    source : GeoBox
        The grid.
    crs : CRS
        The other.
    """
    goal = geometry.as_crs(crs)
    if geometry.same_crs(source.crs, goal):
        return abs(source.affine.a), abs(source.affine.e)
    metres = lattice.target_grid(geometry.north_up(source)).metres
    return resolution_in(goal, float(f"{metres:.9g}"))


def _target(
    array: xr.DataArray,
    target: Any,
    resolution: float | tuple[float, float] | None,
    sources: Sequence[xr.DataArray] = (),
) -> tuple[GeoBox, Mapping[str, xr.DataArray]]:
    """The grid that was asked for, north-up, and its coordinates."""
    if isinstance(target, xr.Dataset | xr.DataArray):
        target = geometry.plain_names(target)
    if isinstance(target, xr.Dataset):
        target = target[next(name for name, each in target.items() if {"y", "x"} <= set(each.dims))]
    if isinstance(target, xr.DataArray | GeoBox):
        if resolution is not None:
            raise ValueError("resolution goes with a CRS; a GeoBox or an array has its own")
        if isinstance(target, GeoBox):
            box = geometry.north_up(target)
            return box, geometry.grid_coords(box)
        flat = geometry.north_up_array(target)
        box = geometry.geobox_of(flat, "the array to match")
        return box, geometry.grid_coords(box, flat.coords["y"].values, flat.coords["x"].values)
    crs = geometry.as_crs(target)
    boxes = [geometry.geobox_of(each, "reproject") for each in (sources or [array])]
    areas = [area_of(box) for box in boxes]
    step = resolution if resolution is not None else default_resolution(boxes[0], crs)
    if len(areas) == 1:
        box = snapped_geobox(areas[0], crs, step)
    else:
        parts = [snapped_geobox(area, crs, step) for area in areas]
        bounds = union_bounds([area_of(part).bounds for part in parts])
        box = snapped_geobox(Area(*bounds, crs), crs, step)
    return box, geometry.grid_coords(box)


def _check_alike(sources: Sequence[xr.DataArray]) -> None:
    if not sources:
        raise ValueError("mosaic needs at least one array")
    first = sources[0]
    for each in sources[1:]:
        check_comparable("mosaic", comparability_key(first), comparability_key(each))
        if each.dims != first.dims or each.dtype != first.dtype:
            raise EmbeddingError(
                f"mosaic needs arrays of the same dimensions and type; got {first.dims} {first.dtype} and "
                f"{each.dims} {each.dtype}; decode them all, or none"
            )
        for dim in first.dims:
            if dim not in ("y", "x") and not np.array_equal(_labels(first, dim), _labels(each, dim)):
                raise EmbeddingError(
                    f"mosaic needs the same {dim!r} in all arrays; got {_labels(first, dim)[:4]} and "
                    f"{_labels(each, dim)[:4]}; select those they share first"
                )


def _labels(array: xr.DataArray, dim: Hashable) -> np.ndarray:
    return np.asarray(array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim]))
