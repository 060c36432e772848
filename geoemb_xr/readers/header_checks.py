"""Checks of the sizes and places that headers state, before memory is taken: no raster is larger than the Earth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from geoemb_xr.core import geometry, longitudes
from geoemb_xr.core.errors import SourceError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: No raster is longer, in pixels: coordinates of an axis are made when it is opened (0.8 GB).
_LONGEST = 100_000_000
#: No store has more bands, or years: labels of all are made when it is opened.
_MOST = 1 << 16
#: No corner lies further from its CRS's origin, in pixels.
_FURTHEST = 1e12
#: The Earth is 40,075 km around; grids may reach somewhat beyond the world, but not begin elsewhere.
_WIDEST = {"degrees": 1000.0, "metres": 2e8}


def check_lengths(shape: Sequence[int], name: str) -> None:
    """Raise for a shape of which an axis is longer than any raster's, or empty."""
    if any(not 0 < n <= _LONGEST for n in shape):
        raise SourceError(f"{name} claims a shape of {tuple(map(int, shape))}: its metadata are damaged")


def check_axes(sizes: Mapping[str, int], name: str) -> None:
    """Raise for an array that claims more bands or times than any has."""
    for axis, size in sizes.items():
        if axis not in ("y", "x") and not 0 < size <= _MOST:
            raise SourceError(f"{name} claims {size} along {axis!r}: its metadata are damaged")


def _corner_latitudes(geobox: GeoBox) -> list[float]:
    """The second coordinate of the centres of the outermost pixels, in units of the CRS."""
    height, width = geobox.shape
    corners = ((col, row) for col in (0.5, width - 0.5) for row in (0.5, height - 0.5))
    return [float((geobox.affine * corner)[1]) for corner in corners]


def check_extent(geobox: GeoBox, name: str) -> None:
    """Raise for a grid that claims more ground than there is: sizes are checked before memory is taken.

    Raises
    ------
    SourceError
        Naming what it claims.
    """
    height, width = geobox.shape
    check_lengths((height, width), name)
    affine, crs = geobox.affine, geometry.as_crs(geobox.crs)
    if crs.is_geocentric or crs.is_vertical:
        raise SourceError(f"{name} has the CRS {crs.name!r}, which has no map: its CRS is wrong")
    unit = "degrees" if crs.is_geographic else "metres"
    wide = max(abs(affine.a) * width + abs(affine.b) * height, abs(affine.d) * width + abs(affine.e) * height)
    step = max(abs(affine.a), abs(affine.b)), max(abs(affine.d), abs(affine.e))
    placed = all(
        abs(at) <= min(_FURTHEST * size, _WIDEST[unit])
        for at, size in zip((affine.c, affine.f), step, strict=True)
    )
    if not (wide <= _WIDEST[unit] and placed):  # NaN is not a place either
        raise SourceError(
            f"{name} claims {height} × {width} pixels, {wide:.3g} {unit} across, at ({affine.c:g}, {affine.f:g}): "
            "that is no raster of the Earth, its metadata are damaged"
        )
    far = longitudes.beyond_poles(_corner_latitudes(geobox))
    if unit == "degrees" and crs.axis_info[0].unit_name == "degree" and far is not None:
        raise SourceError(
            f"{name} has pixels at a latitude of {far:g} degrees, where the Earth has 90: are latitude and "
            "longitude swapped, or is its CRS wrong?"
        )
