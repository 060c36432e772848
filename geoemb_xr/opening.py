"""Open a product: source → tiles → cut → one grid → decoded, without reading a pixel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import areas, arrays, geometry, longitudes, times
from geoemb_xr.core.areas import Area
from geoemb_xr.core.errors import CoverageError, EmbeddingError, SourceError, check_choice
from geoemb_xr.core.model import Product, is_encoded
from geoemb_xr.core.model import product as find_product
from geoemb_xr.core.notes import one_call, say
from geoemb_xr.core.protocols import kind_of_opened
from geoemb_xr.core.times import TimeLike
from geoemb_xr.geo import places
from geoemb_xr.geo.places import Places
from geoemb_xr.readers import source_names, tiles
from geoemb_xr.readers import tables as from_tables
from geoemb_xr.readers.points import area_of_points, vectors_at
from geoemb_xr.readers.sources import grids_of, lattice_key
from geoemb_xr.readers.tiles import Request, Tile
from geoemb_xr.stores.files import one_state_per_object
from geoemb_xr.stores.objects import naming_missing_files, shortening_store_errors
from geoemb_xr.stores.storage import current, reaches_objects

if TYPE_CHECKING:
    import pyproj
    from odc.geo.geobox import GeoBox

Zones = Literal["merge", "separate"]
Resampling = Literal["nearest", "bilinear", "average", "mode"]


@one_call()
@reaches_objects
@naming_missing_files()
@one_state_per_object()
def open(  # the name that users know from xarray
    product: str | Product | os.PathLike[str],
    source: Any = None,
    *,
    geopolygon: Any = None,
    bbox: Sequence[float] | None = None,
    bbox_crs: object = geometry.LONLAT,
    points: Any = None,
    like: xr.DataArray | xr.Dataset | None = None,
    geobox: GeoBox | None = None,
    time: TimeLike = None,
    version: str | None = None,
    variant: str | None = None,
    crs: object = None,
    resolution: float | tuple[float, float] | None = None,
    resampling: Resampling | None = None,
    zones: Zones = "merge",
    chunks: Any = "auto",
    decode: bool = True,
    storage: Any = None,
) -> Any:
    """Open a product as a lazy array; nothing is read but metadata.

    At most one of ``geopolygon``, ``bbox``, ``points``, ``like`` and ``geobox`` selects where; without one it is
    the whole source.

    Parameters
    ----------
    product : str, Product or path
        A product's name, or the path of a store that this package wrote, whose metadata name it.
    source : path, glob, URL, store, list, STAC items or dataset, optional
        Place of the data; the published store by default, or the name of one of ``product.stores``. STAC items
        (dicts, pystac's, a JSON file or its URL) stand for the data that they name. A table (CSV, Parquet, GeoJSON,
        DataFrame) with a column per band, as Earth Engine's ``sampleRegions`` writes them, gives its rows as
        points; several with the same columns, in a list or a glob, open as one.
    geopolygon : polygons, GeoDataFrame, GeoJSON or path, optional
        Cut to its bounds; pixels outside are missing. A geometry without a CRS is in degrees.
    bbox : (west, south, east, north), optional
        Densified and rounded outwards to whole pixels; west > east crosses the antimeridian.
    bbox_crs : CRS
        CRS of ``bbox``, and of a geopolygon or points that bring none; degrees by default.
    points : pairs, shapely points, GeoDataFrame, table, dict, GeoJSON or path, optional
        Each point's vector from its own tile and zone, unwarped: ``(location, band)`` in the point's own year
        where the table has a column ``year``, ``time`` or ``date`` and ``time`` is not given, else
        ``(time, location, band)``. Rows without a place or without a date are left out and counted.
    like : DataArray, optional
        Put it on this array's grid.
    geobox : GeoBox, optional
        Put it on this grid.
    time : year, date, list or slice, optional
        A list is exactly those, a slice includes both ends; a missing year is an error.
    version, variant : str, optional
        The product's default version; never mixed.
    crs : CRS, optional
        Put it on a grid in this CRS, edges on multiples of the resolution.
    resolution : float or (float, float), optional
        Pixel size in units of the CRS; the product's own by default. AlphaEarth's files have overviews, which are
        means of their pixels: one of just that size is read in their place (80 m: a 64th of the bytes).
    resampling : str, optional
        See :func:`geoemb_xr.reproject`; published vectors stay exact by default.
    zones : {"merge", "separate"}
        Several UTM zones: bring them over to the one that covers most, or a dict by CRS. On a grid of your own
        the zone of lower code wins where zones overlap, so that a window of the grid has the values of the whole.
    chunks : int, mapping or "auto"
        Side of dask blocks (512); they end where the store's own blocks end.
    decode : bool
        Vectors as float32, else the stored codes (a quarter of the bytes).
    storage : obstore store or dict, optional
        Way to reach objects. A store of your own, of which ``source`` then names keys; or options: those of
        obstore (``region``, ``endpoint``, ``access_key_id``, …), ``timeout`` (seconds until a read that fails is
        given up, 90), ``retries`` (20), ``allow_http`` (read URLs that are not encrypted). By default the
        environment's credentials, else none.

    Returns
    -------
    DataArray, Dataset or dict of DataArray
        ``(time, band, y, x)`` or ``(location, band)``; a Dataset where the product has a quality band; a dict
        with ``zones="separate"``.

    Raises
    ------
    ValueError
        For an unknown product or option, or a malformed box.
    CoverageError
        If the source covers nothing of what was asked; the message says what it covers.
    SourceError
        If a file is not what the product says.
    MissingExtraError
        If the published store needs a package that is not installed.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> source = gx.example("alphaearth")
    >>> da = gx.open("alphaearth", source, bbox=(11.365, 47.247, 11.375, 47.253), time=[2018, 2024])
    >>> da.dims, da.dtype, da.chunks is not None
    (('time', 'band', 'y', 'x'), dtype('float32'), True)
    """
    check_choice("zones", zones, ("merge", "separate"))
    _check_one_selector(geopolygon=geopolygon, bbox=bbox, points=points, like=like, geobox=geobox)
    times.check_time(time)
    tiles.block_sides(chunks)
    where = _Where(
        polygons=None if geopolygon is None else _polygons(geopolygon, bbox_crs),
        box=None if bbox is None else areas.parse_bbox(bbox, bbox_crs),
        points=None if points is None else places.read_places(points, crs=bbox_crs).present("points="),
        geobox=geobox,
    )
    named, source = source_names.located(
        product, source, lambda: where.area(None), in_own_store=storage is not None
    )
    if like is not None:
        where = replace(where, geobox=geometry.geobox_of(like, "like="))
    target = _Target(where.geobox, None if crs is None else geometry.as_crs(crs), resolution, resampling)
    asked = Request(
        where.area(None), time, version, variant, chunks, where.geobox, where.points, decode=decode
    )
    if isinstance(source, str | os.PathLike):
        from geoemb_xr.readers import own

        if own.is_own(source) if named is None else own.is_ours(source):
            if named is not None:
                own.check_product(source, find_product(named))
            return _finish_own(own.read_store(source, asked), asked, where.polygons, target)
        named = own.product_of_store(source) if named is None else named
    assert named is not None  # only a store stands in its place
    # one of your own is made known once it has opened: with a mistake in its facts, it can be tried again
    found = named if isinstance(named, Product) else find_product(named)
    is_table = from_tables.holds_vectors(source, found)
    if found.open is None and not is_table:
        raise SourceError(
            f"{found.name!r} is known, but there is no reader for its files; a table with a column per band (CSV, "
            "Parquet or a DataFrame) can be opened, anything else read by yourself and given to gx.wrap"
        )
    _check_edition(found, version, variant)
    request = replace(asked, area=where.area(found))
    if target.crs is not None and resolution is not None:
        areas.check_resolution(resolution, target.crs)  # refused before any read
    if found.kind == "location":
        request = _encoder_request(request, target)
    read = replace(request, area=_area_to_read(request, found, target))
    with shortening_store_errors(found.name):
        if is_table:
            opened: Any = from_tables.open_table(source, read, found)
        else:
            assert found.open is not None
            opened = found.open(source_names.check_named(found, source), read)
    find_product(found)
    if kind_of_opened(opened, found.name) != "tiles":
        result: Any = _placed(found, opened, request, target)
    elif where.points is not None:
        result = vectors_at(found, list(opened), request)
    else:
        read_from: list[Tile] = list(opened)
        if decode and resampling in (None, "average"):  # codes are never averaged
            read_from = _coarse_where_right(read_from, read, target)
        grids = grids_of(found, read_from, read)
        if zones == "separate":
            if target.geobox is not None or target.crs is not None:
                raise ValueError(
                    "zones='separate' keeps each zone's own grid; leave out geobox, like and crs"
                )
            return {
                geometry.crs_name(geometry.geobox_of(g).crs): _finish(found, g, decode, where.polygons)
                for g in grids
            }
        result = _merge(found, grids, request, target)
    return _finish(found, result, decode, where.polygons)


# --- what was asked for -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Where:
    """What selects a place, one of these at most; everywhere without one."""

    polygons: Places | None = None
    box: Area | None = None
    points: Places | None = None
    geobox: GeoBox | None = None

    def area(self, found: Product | None) -> Area | None:
        """The area to read, with a margin around points and grids that a product's pixels decide."""
        if self.box is not None:
            return self.box
        if self.polygons is not None:
            return self.polygons.area()
        if self.geobox is not None:
            area, affine = areas.area_of(self.geobox), self.geobox.affine
            return _with_margin(area, (affine.a, affine.e), found)
        return area_of_points(self.points, found) if self.points is not None else None


@dataclass(frozen=True)
class _Target:
    """The grid of the result: a GeoBox, or a CRS, a pixel size, or both; the source's own grid without any."""

    geobox: GeoBox | None
    crs: pyproj.CRS | None
    resolution: float | tuple[float, float] | None
    resampling: Resampling | None

    @property
    def is_given(self) -> bool:
        """Whether the result is on another grid than the source's own."""
        return self.geobox is not None or self.crs is not None or self.resolution is not None


def _check_one_selector(**selectors: Any) -> None:
    given = [name for name, value in selectors.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"give one of {', '.join(selectors)}; got {' and '.join(given)}")


def _check_edition(found: Product, version: str | None, variant: str | None) -> None:
    if version is not None and found.versions:
        check_choice("version", version, (*found.versions, "synthetic"))
    if variant is not None:
        check_choice("variant", variant, found.variants)


def _polygons(given: Any, crs: object) -> Places:
    found = places.read_places(given, crs=crs).present("geopolygon=")
    if found.shapes is None:
        raise EmbeddingError("geopolygon= takes polygons; got points, which go into points=")
    return found


def _with_margin(area: Area, steps: tuple[float, float], found: Product | None) -> Area:
    """Pad a target by some pixels, its own and the source's, for the neighbours that interpolation needs."""
    metres = (found.resolution if found is not None else None) or 0.0
    dx = dy = areas.resolution_in(area.crs, metres)
    if area.crs.is_geographic:  # meridians come together
        dx /= max(np.cos(np.radians(max(abs(area.south), abs(area.north)))), 0.01)
    dx, dy = 3 * max(abs(steps[0]), dx), 3 * max(abs(steps[1]), dy)
    west, south, east, north = area.west - dx, area.south - dy, area.east + dx, area.north + dy
    if area.crs.is_geographic:
        south, north = max(south, -90.0), min(north, 90.0)
        west, east = longitudes.around(west, east)
    return Area(west, south, east, north, area.crs)


def _area_to_read(request: Request, found: Product, target: _Target) -> Area | None:
    """The area that was asked for, with a margin where its pixels are put on a grid."""
    area = request.area
    if area is None or found.kind != "pixel" or target.geobox is not None or not target.is_given:
        return area
    if target.crs is None or target.resolution is None:
        steps = (0.0, 0.0) if target.resolution is None else _steps_in(area, target.resolution)
        return _with_margin(area, steps, found)
    geobox = areas.snapped_geobox(area, target.crs, target.resolution)
    return _with_margin(areas.area_of(geobox), (geobox.affine.a, geobox.affine.e), found)


def _steps_in(area: Area, resolution: Any) -> tuple[float, float]:
    """A pixel size of the source's own CRS, which is metres in nearly all, in units of the area's CRS."""
    metres = max(np.abs(np.ravel(resolution)))
    step = areas.resolution_in(area.crs, float(metres))
    return step, step


# --- patches and location encoders --------------------------------------------------------------------------

#: Pixel of a location encoder in a CRS that says no resolution, in metres.
_ENCODER_METRES = 1000.0


def _encoder_request(request: Request, target: _Target) -> Request:
    """A location encoder is evaluated on the grid that was asked for, never warped."""
    if request.area is None or request.points is not None:
        return request
    if target.geobox is not None or not target.is_given:
        return request
    crs = target.crs if target.crs is not None else geometry.LONLAT
    step = target.resolution or areas.resolution_in(crs, _ENCODER_METRES)
    return replace(request, geobox=areas.snapped_geobox(request.area, crs, step))


def _placed(found: Product, opened: Any, request: Request, target: _Target) -> Any:
    """Patches at points or on a grid, where those were asked for; by their footprints, never resampled."""
    if found.kind != "patch" or not isinstance(opened, xr.DataArray):
        return opened
    if request.points is not None:
        from geoemb_xr.geo.points import sample

        return sample(opened, request.points)
    if not target.is_given:
        return opened
    from geoemb_xr.geo.gridding import to_grid

    geobox, step = target.geobox, target.resolution
    if geobox is None and target.crs is not None:
        if request.area is None:
            raise ValueError(
                "crs= puts patches on a grid, which needs an area: give bbox=, or use .emb.to_grid()"
            )
        step = step or areas.resolution_in(target.crs, found.resolution or 1000.0)
        geobox = areas.snapped_geobox(request.area, target.crs, step)
    return to_grid(opened, geobox=geobox) if geobox is not None else to_grid(opened, resolution=step)


# --- tiles to arrays ----------------------------------------------------------------------------------------


def _coarse_where_right(stored: list[Tile], request: Request, target: _Target) -> list[Tile]:
    """Tiles by their overviews, where these hold what the grid that was asked for would average."""
    from geoemb_xr.readers.overviews import coarser

    near = tiles.overlapping(stored, request.area)
    geobox = target.geobox
    if geobox is None and target.resolution is not None and near:
        goal = target.crs if target.crs is not None else geometry.as_crs(near[0].geobox.crs)
        area = request.area or areas.area_of(near[0].geobox)
        geobox = areas.snapped_geobox(area, goal, target.resolution)
    return coarser(near, geobox) if geobox is not None and near else stored


def _merge(found: Product, grids: list[xr.DataArray], request: Request, target: _Target) -> xr.DataArray:
    """Several grids as one: onto the target where one was given, else onto the first's."""
    if len(grids) == 1 and not target.is_given:
        return grids[0]
    from geoemb_xr.geo import warp

    main = geometry.geobox_of(grids[0], "open")
    geobox, resampling = target.geobox, target.resampling
    if geobox is None and target.is_given:
        area = request.area or _area_of_all(grids)
        goal = target.crs if target.crs is not None else geometry.as_crs(main.crs)
        step = target.resolution
        if step is None:
            step = warp.default_resolution(main, goal)
        geobox = areas.snapped_geobox(area, goal, step)
    if geobox is None:
        geobox = _extended(main, request.area or _area_of_all(grids))
        names = list(dict.fromkeys(geometry.crs_name(geometry.geobox_of(g).crs) for g in grids))
        say(
            f"{found.name}: the area lies on {len(grids)} grids in {', '.join(names)}; brought to "
            f"the one in {names[0]} that covers most of it (nearest; zones='separate' keeps them apart)"
        )
        resampling = resampling or "nearest"
    else:
        grids = sorted(grids, key=lattice_key)  # which covers most depends on the window
    blocks = None if request.chunks == "auto" else request.chunks
    merged: xr.DataArray = warp.mosaic(grids, geobox, rule="first", resampling=resampling, chunks=blocks)
    for name in _planes_of(found, grids[0]):  # counts and flags: nearest, whatever the vectors get
        planes = [grid.coords[name].drop_vars(_planes_of(found, grid), errors="ignore") for grid in grids]
        plane = warp.mosaic(planes, geobox, rule="first", resampling="nearest", chunks=blocks)
        merged = merged.assign_coords({name: plane.reset_coords(drop=True)})
    return merged


def _planes_of(found: Product, array: xr.DataArray) -> list[Any]:
    """Names of the planes beside the vectors; scales belong to the codes."""
    scale = found.codec.scale if found.codec is not None else None
    return [
        name
        for name, coord in array.coords.items()
        if name != scale and {"y", "x"} <= set(coord.dims) and name not in array.dims
    ]


def _area_of_all(grids: Sequence[xr.DataArray]) -> Area:
    boxes = [b for g in grids for b in areas.area_of(geometry.geobox_of(g)).lonlat()]
    return Area(*areas.union_bounds(boxes), geometry.as_crs(geometry.LONLAT))


def _extended(main: GeoBox, area: Area) -> GeoBox:
    """A lattice carried on over an area, its pixels unmoved."""
    from affine import Affine

    west, south, east, north = areas.union_bounds(tiles.bounds_for(area, main.crs))
    inverse = ~main.affine
    (c0, r0), (c1, r1) = inverse * (west, north), inverse * (east, south)
    left, top = int(np.floor(c0 + 1e-6)), int(np.floor(r0 + 1e-6))
    shape = (int(np.ceil(r1 - 1e-6)) - top, int(np.ceil(c1 - 1e-6)) - left)
    return geometry.make_geobox(shape, main.affine * Affine.translation(left, top), main.crs)


def _finish(found: Product, opened: Any, decode: bool, geopolygon: Any) -> Any:
    """Mask, decode, and put quality planes beside the vectors."""
    if isinstance(opened, xr.Dataset):
        return opened.assign(embedding=_finish(found, opened["embedding"], decode, geopolygon))
    if geopolygon is not None:
        from geoemb_xr.geo.points import crop

        opened = crop(opened, geopolygon, mask=True)
    beside = _planes_of(found, opened)
    planes = {name: opened.coords[name].reset_coords(drop=True) for name in beside}
    opened = opened.drop_vars(beside)
    if decode and is_encoded(opened):
        opened = arrays.decode(opened)
    return xr.Dataset({"embedding": opened, **planes}) if planes else opened


def _finish_own(opened: Any, request: Request, geopolygon: Any, target: _Target) -> Any:
    """Cut and decode an array of our own store as the request asks: at points, on a grid, masked, decoded."""
    if isinstance(opened, xr.Dataset):
        finished = {
            name: _finish_own(each, request, geopolygon, target) for name, each in opened.data_vars.items()
        }
        return xr.Dataset(finished)
    own_version = str(opened.attrs.get("version", ""))
    if request.version is not None and request.version != own_version:
        raise CoverageError(f"version={request.version!r} was asked for; this store holds {own_version!r}")
    if request.points is not None:
        from geoemb_xr.geo.points import sample

        opened = sample(opened, request.points)
    elif target.is_given:
        from geoemb_xr.geo import warp

        goal = target.geobox if target.geobox is not None else target.crs or geometry.crs_of(opened)
        opened = warp.reproject(opened, goal, resolution=target.resolution, resampling=target.resampling)
    if geopolygon is not None:
        from geoemb_xr.geo.points import crop

        opened = crop(opened, geopolygon, mask=True)
    return arrays.decode(opened) if request.decode and is_encoded(opened) else opened


# --- what exists -------------------------------------------------------------------------------------------


@one_call()
@reaches_objects
def coverage(
    product: str | Product,
    source: Any = None,
    *,
    bbox: Sequence[float] | None = None,
    geopolygon: Any = None,
    time: TimeLike = None,
    storage: Any = None,
) -> pd.DataFrame:
    """List what is published, or what a source of your own has: tiles × years. Reads indexes and headers.

    Parameters
    ----------
    product : str or Product
        Name of a product, or the product.
    source : path, optional
        Your own; the published store by default.
    bbox : (west, south, east, north), optional
        A box in degrees.
    geopolygon : geometry, optional
        Instead of ``bbox``.
    time : year, list or slice, optional
        See :func:`open`.
    storage : obstore store or dict, optional
        See :func:`open`.

    Returns
    -------
    pandas.DataFrame
        A row per tile and year.

    Raises
    ------
    SourceError
        If the product publishes no list of what exists.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> source = gx.example("alphaearth")
    >>> list(gx.coverage("alphaearth", source).columns[:2])
    ['url', 'year']
    """
    found = find_product(product)
    if found.coverage is None and (source is None or found.open is None):
        raise SourceError(f"{found.name!r} publishes no list of what exists")
    _check_one_selector(bbox=bbox, geopolygon=geopolygon)
    source = current().locate(source)
    times.check_time(time)
    where = _Where(
        polygons=None if geopolygon is None else _polygons(geopolygon, geometry.LONLAT),
        box=None if bbox is None else areas.parse_bbox(bbox, geometry.LONLAT),
    )
    request = Request(where.area(found), time)
    if found.coverage is not None:
        return found.coverage(source, request)
    assert found.open is not None
    stored: Any = found.open(source, request)
    if kind_of_opened(stored, found.name) != "tiles":
        raise SourceError(f"{found.name!r} has no tiles to list")
    return tiles.table_of(tiles.overlapping(stored, request.area), time)
