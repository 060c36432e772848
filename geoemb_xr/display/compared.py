"""A second array in the explorer, a product or any map, at the same places and year."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from geoemb_xr.core import times
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import check_embedding, kind_of
from geoemb_xr.display import layers
from geoemb_xr.display.windows import Window, thin
from geoemb_xr.execution.computing import computed
from geoemb_xr.geo.gridding import as_raster
from geoemb_xr.geo.warp import reproject

if TYPE_CHECKING:
    from affine import Affine

#: Pixels along the longer side of what colours are fitted on.
_FIT_PIXELS = 300


class Compared:
    """A second array, drawn over the windows of the explored one.

    Parameters
    ----------
    array : DataArray (time?, …, y, x)
        An embedding of any product, which gets colours of its own, or a map: a picture, classes or numbers. Any
        grid and CRS.
    grid : GeoBox
        Grid of the explored array.

    Raises
    ------
    EmbeddingError
        If the array has other dims, or no place.
    """

    def __init__(self, array: xr.DataArray, grid: GeoBox) -> None:
        if kind_of(array) != "map":
            check_embedding(array, "explore(compare=)")
        self.array = as_raster(array, "explore(compare=)")
        extra = set(self.array.dims) - {"time", "band", "rgb", "y", "x"}
        if extra:
            raise EmbeddingError(
                "explore(compare=) shows an embedding or one map; select one step first of "
                f"{', '.join(sorted(map(str, extra)))}"
            )
        self.grid = grid
        self._palette: layers.Palette | None = None

    @property
    def name(self) -> str:
        """The name of the compared array, in a few words."""
        one = self.array.isel(time=0, drop=True) if "time" in self.array.dims else self.array
        return layers.map_title(one.drop_vars("time", errors="ignore")) or "compared map"

    def year(self, time: np.datetime64 | None) -> str:
        """The period that is shown beside another; empty without time."""
        found = self._period_of(time).coords.get("time")
        return "" if found is None else times.describe_times(np.atleast_1d(found.values))

    def _period_of(self, time: np.datetime64 | None) -> xr.DataArray:
        """The period of the same year, else the nearest one."""
        if "time" not in self.array.dims:
            return self.array
        if time is None:
            return self.array.isel(time=-1)
        years = self.array.coords["time"].values.astype("datetime64[Y]").astype(int)
        return self.array.isel(time=int(np.abs(years - time.astype("datetime64[Y]").astype(int)).argmin()))

    def show(self, window: Window, time: np.datetime64 | None) -> xr.DataArray:
        """Colours (y, x, rgb), classes or numbers (y, x) of the shown window. Computes it."""
        array = self._period_of(time)
        shown = computed(reproject(array, self._shown_grid(window), resampling="nearest"))
        if self._palette is None:
            overview = computed(thin(array, _FIT_PIXELS)) if kind_of(array) != "map" else shown
            self._palette = layers.palette_of(overview, model=None, limits=None, cmap=None)
        return self._palette.apply(shown)

    def _shown_grid(self, window: Window) -> GeoBox:
        """The grid of the shown cells; nearest takes what lies at the middle of each."""
        affine: Affine = self.grid.affine
        (rows, cols) = window
        moved = affine * affine.translation(cols.first, rows.first) * affine.scale(cols.step, rows.step)
        return GeoBox((rows.cells, cols.cells), moved, self.grid.crs)


def is_picture(found: Any) -> bool:
    """Whether a map already holds colours."""
    return "rgb" in found.dims
