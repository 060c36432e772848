"""Stored rasters, and several of them as one lazy array, read window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoemb_xr.arrays import TimeLike
from geoemb_xr.geometry import Area

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


@dataclass(frozen=True)
class Request:
    """What :func:`geoemb_xr.open` was asked for, as a product's ``open`` function gets it.

    Parameters
    ----------
    area : Area, optional
        The ground to cover; everything where it is None.
    time : year, date, list or slice, optional
        As the user gave it; :func:`geoemb_xr.arrays.pick_times` selects by it.
    version, variant : str, optional
        Checked against the product's, its default filled in.
    chunks : int, mapping or "auto"
        Of dask blocks.
    geobox : GeoBox, optional
        The target grid, where one was given: location encoders are evaluated on it.
    points : table, optional
        Points, where those were asked for.
    """

    area: Area | None = None
    time: TimeLike = None
    version: str | None = None
    variant: str | None = None
    chunks: Any = "auto"
    geobox: GeoBox | None = None
    points: Any = None
