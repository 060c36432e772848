"""Stored rasters, and several of them as one lazy array, read window by window.

A :class:`Tile` says where a stored raster lies and how a window of it is read. Tiles of one lattice (same CRS,
pixel size and pixel edges) are one grid: :func:`assemble` cuts that grid to what was asked for by index
arithmetic, before dask sees anything, and makes one array of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from affine import Affine

from geoemb_xr.core import areas, geometry
from geoemb_xr.core.areas import Area, Bounds
from geoemb_xr.core.checks import is_count, is_whole
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.missing import missing_pixels
from geoemb_xr.core.model import BAND
from geoemb_xr.core.times import TimeLike, pick_times
from geoemb_xr.readers.tile_arrays import TileArray

if TYPE_CHECKING:
    import pandas as pd
    from odc.geo.geobox import GeoBox

#: Side of a dask block where nothing else is asked for: 64 bands of it decode to 67 MB.
DEFAULT_BLOCK = 512
#: How large a decoded block may be before that side is halved, in bytes: 128 bands at 512² are 134 MB.
_BLOCK_BYTES = 256 << 20
#: Points are read by squares of that side, and so many in a task.
_POINTS_SIDE, _POINTS_A_TASK = 512, 4096
#: Share of a pixel by which the edges of tiles of one lattice may differ.
_LATTICE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Request:
    """What :func:`geoemb_xr.open` was asked for, as a product's ``open`` function gets it.

    Parameters
    ----------
    area : Area, optional
        The ground to cover; everything where it is None.
    time : year, date, list or slice, optional
        The choice of the user; :func:`geoemb_xr.core.times.pick_times` selects by it.
    version, variant : str, optional
        Checked against the product's, its default filled in.
    chunks : int, mapping or "auto"
        Chunks of dask blocks.
    geobox : GeoBox, optional
        The target grid, where one was given: location encoders are evaluated on it.
    points : table, optional
        Points, where those were asked for.
    decode : bool
        Whether codes will be decoded, for which what belongs to them is read with them.
    """

    area: Area | None = None
    time: TimeLike = None
    version: str | None = None
    variant: str | None = None
    chunks: Any = "auto"
    geobox: GeoBox | None = None
    points: Any = None
    decode: bool = False


class Reader(Protocol):
    """Reads a window of a stored raster; small and picklable, since it travels to workers."""

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """The window ``(band, y, x)``, or ``(y, x)`` for a plane without bands, rows as stored."""
        ...


@dataclass(frozen=True)
class Tile:
    """One stored raster.

    Parameters
    ----------
    name : str
        Path or URL, for messages and for graph names.
    geobox : GeoBox
        All of it, as stored: south-up where the store is.
    times : tuple of str
        ISO dates, the start of each stored period.
    reader : Reader
        Reads a window.
    dtype : str
        The stored data type.
    bands : tuple of str
        Labels; empty for a plane.
    block : (int, int)
        Height and width of the store's own blocks.
    fill : float
        The value where there is no data.
    token : str
        A key that changes when the file is rewritten: size and ETag or modification time.
    version : str
        The product's version, where the file tells.
    store : str
        Name of the published store where it is not first-hand: mixing it with others warns.
    beside : mapping of str to Tile
        Planes of the same grid that belong to it: scales, quality.
    decider : Tile, optional
        The one of the same grid that tells where this one is missing, where its own values do not: scales tell
        it of their codes, codes of their quality.
    overviews_are_means : bool
        Whether the file's overviews are means of the vectors of all pixels below, normalised once.
    """

    name: str
    geobox: GeoBox
    times: tuple[str, ...]
    reader: Reader
    dtype: str
    bands: tuple[str, ...] = ()
    block: tuple[int, int] = (DEFAULT_BLOCK, DEFAULT_BLOCK)
    fill: float = 0
    token: str = ""
    version: str = ""
    store: str = ""
    beside: Mapping[str, Tile] = field(default_factory=dict, hash=False)
    decider: Tile | None = None
    overviews_are_means: bool = False

    def missing(self, values: np.ndarray) -> np.ndarray:
        """Which pixels of a window hold no data; of a plane its fill, what is not finite, and a scale of 0."""
        if self.bands:
            return missing_pixels(values, 0, self.fill)
        return missing_pixels(values[None], 0, 0 if values.dtype.kind == "f" else self.fill)

    def shifted(self, degrees: float) -> Tile:
        """The same raster a turn of the globe further, for areas across the antimeridian."""
        affine = Affine.translation(degrees, 0) * self.geobox.affine
        moved = geometry.make_geobox(tuple(self.geobox.shape), affine, self.geobox.crs)
        beside = {name: each.shifted(degrees) for name, each in self.beside.items()}
        return replace(self, geobox=moved, beside=beside)


def table_of(tiles: Iterable[Tile], time: TimeLike = None) -> pd.DataFrame:
    """Tiles × periods as a table: where each lies, in degrees, and in which grid.

    Parameters
    ----------
    tiles : iterable of Tile
        Tiles of any lattices.
    time : year, list or slice, optional
        See ``gx.open``.

    Returns
    -------
    DataFrame
        Columns ``url, year, time, crs, west, south, east, north, version``.
    """
    import pandas as pd

    tiles = list(tiles)
    times = sorted({time for tile in tiles for time in tile.times})
    chosen = {times[i] for i in pick_times(np.array(times, "datetime64[ns]"), time, covers="this source")}
    rows = []
    for tile in tiles:
        box = areas.union_bounds(areas.area_of(tile.geobox).lonlat())
        crs = geometry.crs_name(geometry.as_crs(tile.geobox.crs))
        rows += [(tile.name, int(t[:4]), t, crs, *box, tile.version) for t in tile.times if t in chosen]
    columns = ["url", "year", "time", "crs", "west", "south", "east", "north", "version"]
    table = pd.DataFrame(rows, columns=columns).astype({"time": "datetime64[ns]"})
    return table.sort_values(["time", "url"], ignore_index=True)


# --- lattices -----------------------------------------------------------------------------------------------


def bounds_for(area: Area, crs: object) -> list[Bounds]:
    """An area's bounds in a tile's CRS; in degrees one box that may run on past 180."""
    parts = area.bounds_in(crs)
    if geometry.as_crs(crs).is_geographic:
        unrolled = [(w, s, e + 360 if e < w else e, n) for w, s, e, n in parts]
        if len(unrolled) == 2 and unrolled[0][0] > unrolled[1][2]:
            west, south, _, north = unrolled[0]
            return [(west, south, unrolled[1][2] + 360, north)]
        return unrolled
    return parts


def overlapping(tiles: Iterable[Tile], area: Area | None) -> list[Tile]:
    """Tiles that an area touches, a turn of the globe further where its longitudes are counted so.

    A global raster comes twice where the area crosses its edge.
    """
    if area is None:
        return list(tiles)
    bounds: dict[Any, list[Bounds]] = {}
    found: list[Tile] = []
    for tile in tiles:
        crs = geometry.as_crs(tile.geobox.crs)
        if crs not in bounds:
            bounds[crs] = bounds_for(area, crs)
        turned = [tile]
        if crs.is_geographic and any(box[2] > 180 for box in bounds[crs]):
            turned.append(tile.shifted(360))
        if crs.is_geographic and _east(tile.geobox) > 180:  # longitudes from 0 to 360
            turned.append(tile.shifted(-360))
        found += [
            each
            for each in turned
            if any(areas.window_of(each.geobox, box) is not None for box in bounds[crs])
        ]
    return found


def _east(geobox: GeoBox) -> float:
    edges = geobox.affine.c, geobox.affine.c + geobox.affine.a * geobox.shape[1]
    return float(max(edges))


def by_lattice(tiles: Iterable[Tile]) -> list[list[Tile]]:
    """Group tiles whose pixels lie on one lattice: those need no resampling to be one array."""
    groups: dict[tuple[Any, ...], list[Tile]] = {}
    for tile in tiles:
        a = geometry.north_up(tile.geobox).affine
        if a.b or a.d:
            raise SourceError(f"{tile.name} is a rotated raster; warp it to a north-up grid first (gdalwarp)")
        crs = geometry.as_crs(tile.geobox.crs)
        phase = tuple(
            round((o / s) % 1.0 / _LATTICE_TOLERANCE) % round(1 / _LATTICE_TOLERANCE)
            for o, s in ((a.c, a.a), (a.f, a.e))
        )
        key = (crs.to_epsg() or crs.to_wkt(), float(f"{a.a:.9g}"), float(f"{a.e:.9g}"), phase)
        groups.setdefault(key, []).append(tile)
    for group in groups.values():
        _check_twins(group)
    return list(groups.values())


def _check_twins(tiles: Iterable[Tile]) -> None:
    """Raise where two files hold one time on one grid: which of them is meant is not for us to choose."""
    seen: dict[Any, str] = {}
    for tile in tiles:
        a = tile.geobox.affine
        for time in tile.times:
            place = (time, tuple(tile.geobox.shape), *(round(v, 3) for v in (a.c, a.f)), a.e > 0)
            other = seen.setdefault(place, tile.name)
            if other != tile.name:
                raise SourceError(
                    f"{other} and {tile.name} both hold {time} on one grid; give those that you mean as a list"
                )


@dataclass(frozen=True)
class _SharedLattice:
    """The north-up lattice of some tiles, and where each lies on it."""

    geobox: GeoBox
    places: np.ndarray  # (tile, 4): first row, first column, stop row, stop column


def _common_grid(tiles: Sequence[Tile]) -> _SharedLattice:
    boxes = [geometry.north_up(tile.geobox) for tile in tiles]
    base = boxes[0].affine
    places = np.empty((len(tiles), 4), np.int64)
    for i, box in enumerate(boxes):
        col, row = ~base * (box.affine.c, box.affine.f)
        places[i] = (round(row), round(col), round(row) + box.shape[0], round(col) + box.shape[1])
    origin = places[:, :2].min(axis=0)
    affine = base * Affine.translation(int(origin[1]), int(origin[0]))
    places -= np.tile(origin, 2)
    shape = (int(places[:, 2].max()), int(places[:, 3].max()))
    return _SharedLattice(geometry.make_geobox(shape, affine, boxes[0].crs), places)


# --- one lazy array -----------------------------------------------------------------------------------------


def assemble(
    tiles: Sequence[Tile],
    times: Sequence[str],
    *,
    area: Area | None = None,
    chunks: Any = "auto",
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray | None:
    """Tiles of one lattice as a lazy array of an area; None where the area misses them.

    Parameters
    ----------
    tiles : sequence of Tile
        Tiles of one lattice.
    times : sequence of str
        ISO dates: the time axis. A tile that lacks one leaves it empty.
    area : Area, optional
        Cut to it, rounded outwards to whole pixels.
    chunks : int, mapping or "auto"
        Side of blocks; they end where the store's own blocks end.
    attrs : mapping, optional
        Attributes of the array.

    Returns
    -------
    DataArray (time, band, y, x) or None
        dask-backed, north-up, with the tiles' ``beside`` planes as variables in ``.attrs``-free coordinates.
    """
    found = assembly(tiles, times, area=area, chunks=chunks, attrs=attrs)
    return None if found is None else found.grid


@dataclass(frozen=True)
class Assembly:
    """Tiles of one lattice as a lazy array, and what it reads from."""

    grid: xr.DataArray
    source: TileArray
    planes: Mapping[str, TileArray]

    def at(self, rows: np.ndarray, cols: np.ndarray) -> xr.DataArray:
        """The array ``(time, band, location)`` at pixels, without the blocks around them. Lazy."""
        order = np.lexsort((cols // _POINTS_SIDE, rows // _POINTS_SIDE))
        groups = np.array_split(order, math.ceil(order.size / _POINTS_A_TASK))
        coords = {name: c.variable for name, c in self.grid.coords.items() if not {"y", "x"} & set(c.dims)}
        planes = {
            name: (("time", "location"), _lazy_at(plane, rows, cols, groups))
            for name, plane in self.planes.items()
        }
        return xr.DataArray(
            _lazy_at(self.source, rows, cols, groups),
            dims=("time", BAND, "location"),
            coords={**coords, **planes},
            name=self.grid.name,
            attrs=self.grid.attrs,
        )


def assembly(
    tiles: Sequence[Tile],
    times: Sequence[str],
    *,
    area: Area | None = None,
    chunks: Any = "auto",
    attrs: Mapping[str, Any] | None = None,
) -> Assembly | None:
    """As :func:`assemble`, with what the array reads from."""
    grid = _common_grid(tiles)
    window = _window(grid.geobox, area)
    if window is None:
        return None
    rows, cols = window
    inside = [
        i
        for i, (top, left, bottom, right) in enumerate(grid.places)
        if top < rows.stop and bottom > rows.start and left < cols.stop and right > cols.start
    ]
    if not inside:
        return None
    tiles, places = [tiles[i] for i in inside], grid.places[inside]
    edges = _chunks(tiles, places, window, chunks)
    affine = grid.geobox.affine
    ys = geometry.pixel_centres(affine.f, affine.e, rows.start, rows.stop)
    xs = geometry.pixel_centres(affine.c, affine.a, cols.start, cols.stop)
    coords: dict[str, Any] = {
        "time": np.array(times, "datetime64[ns]"),
        BAND: list(tiles[0].bands),
        **geometry.grid_coords(grid.geobox, ys, xs),
    }
    source = TileArray(tiles, places, window, times)
    source.look_for_objects()
    planes = {}
    for name in tiles[0].beside:
        planes[name] = TileArray([tile.beside[name] for tile in tiles], places, window, times)
        planes[name].absence = source.absence  # shared, so that it is said once
        coords[name] = (("time", "y", "x"), _lazy(planes[name], edges))
    array = xr.DataArray(
        _lazy(source, edges),
        dims=("time", BAND, "y", "x"),
        coords=coords,
        name="embedding",
        attrs=dict(attrs or {}),
    )
    return Assembly(array, source, planes)


def _window(geobox: GeoBox, area: Area | None) -> tuple[slice, slice] | None:
    if area is None:
        return slice(0, geobox.shape[0]), slice(0, geobox.shape[1])
    found = [areas.window_of(geobox, box) for box in bounds_for(area, geobox.crs)]
    windows = [w for w in found if w is not None]
    if not windows:
        return None
    rows, cols = zip(*windows, strict=True)
    return (
        slice(min(r.start for r in rows), max(r.stop for r in rows)),
        slice(min(c.start for c in cols), max(c.stop for c in cols)),
    )


def _lazy(source: TileArray, edges: tuple[tuple[int, ...], tuple[int, ...]]) -> Any:
    import dask.array as da
    from dask.base import tokenize

    chunks = ((1,) * len(source.times), *(((source.bands,),) if source.bands else ()), *edges)
    return da.from_array(
        source,
        chunks=chunks,
        name=f"tiles-{tokenize(_token(source), chunks)}",
        asarray=False,
        fancy=False,
        meta=np.empty((0,) * source.ndim, source.dtype),
    )


def _token(source: TileArray) -> str:
    """A name for what is read, so that a rewritten file is not taken for an old one."""
    from dask.base import tokenize

    return str(
        tokenize(
            [(t.name, t.token, t.times, t.dtype, t.bands) for t in source.tiles],
            source.places.tolist(),
            source.shape,
            list(source.times),
            source.storage,
        )
    )


def _lazy_at(source: TileArray, rows: np.ndarray, cols: np.ndarray, groups: Sequence[np.ndarray]) -> Any:
    """Pixels of a source as a dask array ``(time, band?, n)``, one task for a time and a group of them."""
    import dask
    import dask.array as da
    from dask.base import tokenize

    state = _token(source)
    token = tokenize(state, rows, cols)
    held = dask.delayed(source, name=f"source-{state}")
    read = dask.delayed(_read_pixels, pure=True)
    lead = source.shape[:-2]
    meta = np.empty((0,) * (len(lead) + 1), source.dtype)

    def part(time: int, number: int, members: np.ndarray) -> Any:
        name = f"pixels-{token}-{time}-{number}"
        task = read(held, time, rows[members], cols[members], dask_key_name=name)
        return da.from_delayed(task, (1, *lead[1:], members.size), dtype=source.dtype, meta=meta)

    steps = [
        da.concatenate([part(time, n, members) for n, members in enumerate(groups)], axis=-1)
        for time in range(len(source.times))
    ]
    joined = da.concatenate(steps, axis=0)
    place = np.argsort(np.concatenate(groups))  # groups are of neighbours: back to the order of the points
    return joined if (place == np.arange(place.size)).all() else joined[..., place]


def _read_pixels(source: TileArray, time: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    return source.at(time, rows, cols)[None]


def _chunks(
    tiles: Sequence[Tile], places: np.ndarray, window: tuple[slice, slice], chunks: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunk sizes along y and x whose edges fall on the store's own block edges, first and last ragged."""
    sides = block_sides(chunks, len(tiles[0].bands))
    out = []
    for axis, (dim, span) in enumerate(zip(("y", "x"), window, strict=True)):
        edges = {span.start, span.stop}
        for tile, place in zip(tiles, places, strict=True):
            start, stop = int(place[axis]), int(place[axis + 2])
            edges.update(e for e in (start, stop) if span.start < e < span.stop)
            step = _aligned(sides[dim], tile.block[axis])
            if chunks == "auto" and tile.block[axis] < step and span.stop - span.start <= step:
                continue  # a small window is one block, of which no stored block is read twice
            flipped = tile.geobox.affine.e > 0 if axis == 0 else tile.geobox.affine.a < 0
            # blocks are counted from where the store begins, which is the far end of a flipped axis
            marks = range(stop, start - 1, -step) if flipped else range(start, stop + 1, step)
            edges.update(marks[i] for i in _between(marks, span))
        ordered = sorted(edges)
        out.append(tuple(np.diff(ordered).tolist()))
    return out[0], out[1]


def _between(marks: range, span: slice) -> Iterable[int]:
    """Positions in ``marks`` that lie strictly inside a span, found without walking all of them."""
    if len(marks) == 0:
        return ()
    first, step = marks[0], marks.step
    a, b = (span.start - first) / step, (span.stop - first) / step
    low, high = max(math.ceil(min(a, b)), 0), min(math.floor(max(a, b)), len(marks) - 1)
    return (i for i in range(low, high + 1) if span.start < marks[i] < span.stop)


def _aligned(side: int, block: int) -> int:
    """The block side nearest to what was asked for that is a multiple, or a whole part, of the store's."""
    if side >= block:
        return max(side // block, 1) * block
    parts = max(round(block / side), 1)
    while block % parts:  # whole parts only, so that no stored block straddles two of ours unevenly
        parts += 1
    return block // parts


def block_sides(chunks: Any, bands: int = 0) -> dict[str, int]:
    """``chunks=`` as block sides along y and x; "auto" takes smaller blocks of long vectors."""
    auto = DEFAULT_BLOCK
    while auto > 32 and auto**2 * bands * 4 > _BLOCK_BYTES:
        auto //= 2
    if chunks == "auto" or chunks is None:
        return {"y": auto, "x": auto}
    if isinstance(chunks, Mapping):
        if strange := [dim for dim in chunks if dim not in ("time", "location", BAND, "y", "x")]:
            raise ValueError(
                f"chunks names dimensions of an embedding, such as 'y' and 'x'; got {strange[0]!r}"
            )
        sides = {dim: chunks.get(dim, auto) for dim in ("y", "x")}
    elif is_whole(chunks):
        sides = {"y": int(chunks), "x": int(chunks)}
    else:
        raise ValueError(f"chunks is 'auto', a side in pixels, or a mapping with 'y' and 'x'; got {chunks!r}")
    big = 1 << 40
    checked = {dim: big if side in (-1, "auto") and side == -1 else side for dim, side in sides.items()}
    checked = {dim: auto if side == "auto" else side for dim, side in checked.items()}
    if not all(map(is_count, checked.values())):
        raise ValueError(f"chunks are positive numbers of pixels, or -1 for all; got {chunks!r}")
    return {dim: int(side) for dim, side in checked.items()}
