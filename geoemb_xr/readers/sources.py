"""A product's tiles as arrays: one per lattice, in one version, of the times that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core import areas, geometry, times
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.core.missing import codec_attrs
from geoemb_xr.core.model import Product
from geoemb_xr.readers import tiles
from geoemb_xr.readers.tiles import Request, Tile


def grids_of(found: Product, stored: list[Tile], request: Request) -> list[xr.DataArray]:
    """One array per lattice, that which covers most first."""
    near = tiles.overlapping(stored, request.area)
    if not near:
        raise _not_covered(found, stored, request)
    version = one_version(found, near, request)
    times = asked_times(near, request, found)
    near = [tile for tile in near if set(tile.times) & set(times)]
    groups = tiles.by_lattice(near)
    attrs = attrs_of(found, near, version)
    found_arrays = [
        tiles.assemble(group, times, area=request.area, chunks=request.chunks, attrs=attrs)
        for group in groups
    ]
    grids = [each for each in found_arrays if each is not None]
    if not grids:
        raise _not_covered(found, stored, request)
    return sorted(grids, key=lambda each: -each.sizes["y"] * each.sizes["x"])


def _not_covered(found: Product, stored: list[Tile], request: Request) -> CoverageError:
    """The error for an area without tiles, which looks whether latitudes were given before longitudes."""
    area = request.area
    said = f"{found.name} does not cover {area} in this source, which {covers(stored)}"
    if area is not None and area.crs.is_geographic and max(abs(area.west), abs(area.east)) <= 90:
        turned = replace(area, west=area.south, south=area.west, east=area.north, north=area.east)
        if tiles.overlapping(stored, turned):
            said += f". Longitudes come first: (west, south, east, north) would be {turned}"
    return CoverageError(said)


def attrs_of(found: Product, stored: Sequence[Tile], version: str) -> dict[str, Any]:
    """Attributes of an array of tiles: product, version and source, the codec of codes."""
    first = stored[0]
    attrs: dict[str, Any] = {"product": found.name, "version": version, "source": source_of(stored)}
    if first.store:
        attrs["store"] = first.store
    if np.issubdtype(np.dtype(first.dtype), np.integer):
        if found.codec is None:
            raise SourceError(f"{first.name} holds {first.dtype}, but {found.name!r} has no codec")
        attrs |= codec_attrs(found.codec)
    return attrs


def one_version(found: Product, stored: Sequence[Tile], request: Request) -> str:
    """The version that tiles are of.

    Raises
    ------
    SourceError
        If they are of several.
    CoverageError
        If they are not of the one that was asked for.
    """
    names = {tile.version: tile.name for tile in stored if tile.version}
    versions = sorted(names)
    if len(versions) > 1:
        raise SourceError(
            f"this source mixes versions {versions} of {found.name!r}, which are different spaces: "
            + " and ".join(f"{names[version]} is {version!r}" for version in versions)
            + ". Pass the files of one of them"
        )
    own = versions[0] if versions else ""
    # where a product lists families of versions, one of those stands for what begins with it
    if request.version is not None and own and not f"{own}-".startswith(f"{request.version}-"):
        raise CoverageError(f"version={request.version!r} was asked for, but this source holds {own!r}")
    return own or request.version or (found.versions[0] if found.versions else "")


def asked_times(stored: Sequence[Tile], request: Request, found: Product) -> list[str]:
    """The times of tiles that were asked for, as ISO dates."""
    available = sorted({time for tile in stored for time in tile.times})
    stamps = np.array(available, "datetime64[ns]")
    where = f"{found.name} there" if request.area is not None else f"this source of {found.name}"
    return [available[i] for i in times.pick_times(stamps, request.time, covers=where)]


def source_of(stored: Sequence[Tile]) -> str:
    """Where tiles come from, in a line."""
    names = sorted({tile.name for tile in stored})
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def covers(stored: Sequence[Tile]) -> str:
    """Say what tiles cover, for messages."""
    if not stored:
        return "is empty"
    boxes = [b for tile in stored for b in areas.area_of(tile.geobox).lonlat()]
    west, south, east, north = areas.union_bounds(boxes)
    years = times.describe_times(
        np.array(sorted({t for tile in stored for t in tile.times}), "datetime64[ns]")
    )
    return f"covers ({west:.4f}, {south:.4f}, {east:.4f}, {north:.4f}) degrees in {years}"


def lattice_key(array: xr.DataArray) -> tuple[Any, ...]:
    """Return a key that orders lattices alike for every cut: CRS, pixel size, and where their edges lie."""
    box = geometry.geobox_of(array)
    affine = box.affine
    edges = (round(at / step % 1.0, 3) for at, step in ((affine.c, affine.a), (affine.f, affine.e)))
    return (geometry.crs_name(geometry.as_crs(box.crs)), affine.a, *edges)
