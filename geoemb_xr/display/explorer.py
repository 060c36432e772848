"""The state of the interactive app, without widgets: a window, a click, labels, a probe.

Only what is shown is ever computed: the middle pixel of each cell that one pixel of the screen covers. The codes of
shown windows stay in memory, so that a click is answered from there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from geoemb_xr.core import areas, arrays, geometry, kernels, times
from geoemb_xr.core.errors import EmbeddingError, check_choice, require
from geoemb_xr.core.model import BAND, check_embedding
from geoemb_xr.core.notes import quiet
from geoemb_xr.display.compared import Compared
from geoemb_xr.display.labelled import Labelled
from geoemb_xr.display.layers import for_pictures
from geoemb_xr.display.sampled import Walk
from geoemb_xr.display.windows import READ_LIMIT, Pixel, Window, view_window
from geoemb_xr.execution import blocks
from geoemb_xr.execution.computing import computed
from geoemb_xr.geo import places
from geoemb_xr.geo.gridding import as_raster

if TYPE_CHECKING:
    from geoemb_xr.analysis.components import PCA

Answer = Literal["similarity", "change", "classes", "year", "compared"]
#: Bytes of shown windows that are kept.
MEMORY = 512_000_000
#: Pixels that a thread draws at a time.
STRIP = 1 << 19


# --- the state ------------------------------------------------------------------------------------------------


class Explorer(Labelled):
    """State of the app: the array, what is shown of it, the clicked pixel, labels and the probe.

    Parameters
    ----------
    array : DataArray (time?, band, y, x)
        A raster embedding, encoded or decoded; lazy or in memory. Patches are shown on their own grid.
    model : PCA, optional
        Model of the picture's colours; by default fitted on what is shown first, of the first and the last period.
    size : (int, int)
        Width and height of the picture in pixels of the screen.
    memory : int
        Bytes of windows to keep.
    compare : DataArray, optional
        Another embedding, or a map, to be shown beside it.
    design : DataFrame or path, optional
        Places to be labelled one after the other, from :func:`geoemb_xr.sample_design`.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> state = Explorer(gx.testing.synthetic("alphaearth", shape=(64, 64), years=[2018, 2024]))
    >>> state.picture().dims
    ('y', 'x', 'rgb')
    >>> pixel = state.click(*state.centre)
    >>> state.course(pixel).index.year.tolist()
    [2018, 2024]
    """

    def __init__(
        self,
        array: xr.DataArray,
        *,
        model: PCA | None = None,
        size: tuple[int, int] = (512, 512),
        memory: int = MEMORY,
        compare: xr.DataArray | None = None,
        design: Any = None,
    ) -> None:
        product = check_embedding(array, "explore")
        array = as_raster(array, "explore")
        extra = set(array.dims) - {"time", BAND, "y", "x"}
        if extra:
            raise EmbeddingError(f"explore shows dims time, band, y and x; got {tuple(array.dims)} too")
        self.array = geometry.north_up_array(array)
        grid = geometry.geobox_of(self.array, "explore")
        self.times = np.atleast_1d(array.coords["time"].values) if "time" in array.coords else None
        if "time" not in self.array.dims and self.times is not None:
            self.array = self.array.expand_dims("time")
        super().__init__(product, self.array.attrs, grid, dated=self.times is not None)
        #: Names of the periods, years where each is one; empty without time.
        self.periods = [] if self.times is None else [times.describe_times(t[None]) for t in self.times]
        #: Position of the period that is shown.
        self.step = 0 if self.times is None else len(self.times) - 1
        #: Position of the period that the right map shows as a picture.
        self.other = 0
        self.memory = memory
        self.compared = None if compare is None else Compared(compare, grid)
        self.walk = None if design is None else Walk(design, grid)
        for name in self.walk.classes if self.walk is not None else ():
            self.add_class(name)
        #: What to tell the user about the last action.
        self.note = ""
        self.pixel: Pixel | None = None
        self._kept: OrderedDict[tuple[int, Window], xr.DataArray] = OrderedDict()
        self._course: tuple[Pixel, pd.Series] | None = None
        self.window = self._window(None, None, *size)
        self.model = model if model is not None else self._fit()

    def _fit(self) -> PCA:
        steps = sorted({0, self.step})
        return for_pictures([self._codes(step) for step in steps])

    # --- where -------------------------------------------------------------------------------------------------

    @property
    def bounds(self) -> areas.Bounds:
        """Left, bottom, right and top of the array."""
        box = self.grid.boundingbox
        return box.left, box.bottom, box.right, box.top

    @property
    def shown(self) -> areas.Bounds:
        """Left, bottom, right and top of the cells that are shown."""
        return self.window.bounds(self.grid)

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the array, x and y."""
        left, bottom, right, top = self.bounds
        return (left + right) / 2, (bottom + top) / 2

    @property
    def period(self) -> str:
        """Name of the shown period."""
        return self.periods[self.step] if self.times is not None else ""

    def _window(
        self,
        x_range: tuple[float, float] | None,
        y_range: tuple[float, float] | None,
        width: int,
        height: int,
    ) -> Window:
        window, cut = view_window(self.array, self.grid, x_range, y_range, (width, height))
        self.note = (
            f"The middle of the view is shown: all of it would read over {READ_LIMIT / 1e9:.0f} GB."
            if cut
            else ""
        )
        return window

    # --- what is shown -----------------------------------------------------------------------------------------

    def view(
        self,
        x_range: tuple[float, float] | None = None,
        y_range: tuple[float, float] | None = None,
        width: int = 512,
        height: int = 512,
    ) -> xr.DataArray:
        """Move to another part of the array, and show it at the screen's resolution.

        Parameters
        ----------
        x_range, y_range : (float, float), optional
            Coordinates in the array's CRS; all of it by default.
        width, height : int
            Pixels of the screen.

        Returns
        -------
        DataArray (y, x, rgb)
            See :meth:`picture`.
        """
        self.look(x_range, y_range, width, height)
        return self.picture()

    def look(
        self,
        x_range: tuple[float, float] | None,
        y_range: tuple[float, float] | None,
        width: int,
        height: int,
    ) -> None:
        """Move to another part of the array without reading it yet; parameters as of :meth:`view`."""
        self.window = self._window(x_range, y_range, width, height)

    def go_to(self, step: int) -> None:
        """Show another period, by its position."""
        if self.times is None or not 0 <= step < len(self.times):
            raise ValueError(f"there are {len(self.periods)} periods; got position {step}")
        self.step = step

    def picture(self) -> xr.DataArray:
        """The shown window in the colours of the model: uint8 (y, x, rgb)."""
        return computed(self._coloured(self.step))

    def _coloured(self, step: int) -> xr.DataArray:
        from geoemb_xr.analysis.components import rgb

        return rgb(self._strips(step), self.model)

    def answer(self, kind: Answer) -> xr.DataArray | None:
        """A map over the shown window; None where something is missing for it yet.

        Parameters
        ----------
        kind : {"similarity", "change", "classes", "year", "compared"}
            Similarity to the clicked pixel; change since the first period; classes of the probe; the picture of
            another period (:attr:`other`); the array to compare with.

        Returns
        -------
        DataArray (y, x), of pictures (y, x, rgb), or None

        Raises
        ------
        ValueError
            For an unknown kind.
        """
        check_choice("kind", kind, get_args(Answer))
        make = {
            "similarity": self._similarity,
            "change": self._change,
            "classes": self._classified,
            "year": lambda: self._coloured(self.other),
            "compared": self._compared,
        }
        found = make[kind]()
        return None if found is None else computed(found)

    def _compared(self) -> xr.DataArray | None:
        time = None if self.times is None else self.times[self.step]
        return None if self.compared is None else self.compared.show(self.window, time)

    def _similarity(self) -> xr.DataArray | None:
        from geoemb_xr.retrieval.scores import similarity

        return None if self.pixel is None else similarity(self._strips(self.step), self.pixel.vector)

    def _change(self) -> xr.DataArray | None:
        from geoemb_xr.analysis.changes import change

        if self.times is None or self.step == 0:
            return None
        years = xr.concat([self._strips(0), self._strips(self.step)], "time")
        first, other = years.coords["time"].values
        found: xr.DataArray = change(years, first, other)
        return found

    def _classified(self) -> xr.DataArray | None:
        from geoemb_xr.predicting.maps import predict

        probe = self.probe
        if probe is None:
            return None
        found: xr.DataArray = predict(self._strips(self.step), probe, device="cpu")
        return found

    def _codes(self, step: int) -> xr.DataArray:
        """The shown pixels of a period in memory, band last: (y, x, band)."""
        key = step, self.window
        if key not in self._kept:
            self._kept[key] = self._read(step, self.window)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > self.memory:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _strips(self, step: int) -> xr.DataArray:
        """The shown pixels of a period, where they are many in strips that threads share."""
        codes = self._codes(step)
        rows = max(STRIP // codes.sizes["x"], 1)
        return codes if codes.sizes["y"] < 2 * rows else blocks.cut_blocks(codes, {"y": rows})

    def _read(self, step: int, window: Window) -> xr.DataArray:
        part = computed(self._period(step).isel(y=window.rows.pixels, x=window.cols.pixels))
        axis = part.get_axis_num(BAND)
        assert isinstance(axis, int)
        last = part.transpose(..., BAND)
        return last.copy(data=kernels.band_last(np.ascontiguousarray(part.values), axis))

    def _period(self, step: int) -> xr.DataArray:
        return self.array if self.times is None else self.array.isel(time=step)

    # --- a click -----------------------------------------------------------------------------------------------

    def click(self, x: float, y: float) -> Pixel | None:
        """Choose the pixel that is shown at a place: the maps and the course are then about it.

        Parameters
        ----------
        x, y : float
            Coordinates in the array's CRS.

        Returns
        -------
        Pixel or None
            None outside of the array and where it has no data; :attr:`note` says which.
        """
        found = self._pixel_at(x, y)
        if found is not None:
            self.pixel = found
        return found

    def _pixel_at(self, x: float, y: float) -> Pixel | None:
        self.note = ""
        rows, cols, inside = places.pixels_at(self.grid, np.array([x]), np.array([y]))
        if not inside[0]:
            self.note = "That is outside of the array."
            return None
        row, col = int(rows[0]), int(cols[0])
        i, j = self.window.rows.cell(row), self.window.cols.cell(col)
        if i is not None and j is not None:
            found = self._codes(self.step).isel(y=i, x=j)
            row, col = (s.pixels.start + k * s.step for s, k in zip(self.window, (i, j), strict=True))
        else:
            found = computed(self._period(self.step).isel(y=row, x=col))
        vector = arrays.decode(found).values.astype(np.float32)
        if not np.isfinite(vector).all():
            self.note = "There is no data at that pixel."
            return None
        time = None if self.times is None else self.times[self.step]
        return Pixel(row, col, float(found.x), float(found.y), time, vector)

    def course(self, pixel: Pixel) -> pd.Series:
        """Angle in degrees between a pixel's vector in each period and in the first one that has data.

        Parameters
        ----------
        pixel : Pixel
            Pixel from :meth:`click`.

        Returns
        -------
        pandas.Series
            By time; NaN where there is no data; empty without time.
        """
        from geoemb_xr.analysis.changes import change

        if self.times is None:
            return pd.Series(dtype=np.float64, name="angle")
        if self._course is not None and self._course[0] is pixel:
            return self._course[1]
        vectors = computed(arrays.decode(self.array.isel(y=pixel.row, x=pixel.col)))
        valid = np.isfinite(vectors.transpose("time", BAND).values).all(axis=1)
        angle = pd.Series(np.where(valid, 0.0, np.nan), pd.DatetimeIndex(self.times), name="angle")
        if valid.sum() > 1:
            there = vectors.isel(time=valid)
            steps = change(there, there.coords["time"].values[0])
            angle[pd.DatetimeIndex(steps.coords["time"].values)] = steps.values
        self._course = pixel, angle
        return angle

    # --- labels ------------------------------------------------------------------------------------------------

    def label(self, x: float, y: float, name: str) -> Pixel | None:
        """Choose the pixel shown at a place, as :meth:`click`, and label it; a pixel has one label per period.

        Parameters
        ----------
        x, y : float
            Coordinates in the array's CRS.
        name : str
            The name of one of :attr:`classes`.

        Raises
        ------
        ValueError
            For an unknown class.
        """
        check_choice("class", name, self.classes)
        pixel = self.click(x, y)
        if pixel is not None:
            self.put([(pixel, name)])
        return pixel

    def label_area(self, shape: Any, name: str) -> int:
        """Label the pixels of a polygon, at most 50 that lie evenly over it; return how many.

        Parameters
        ----------
        shape : shapely geometry
            Coordinates in the array's CRS; a box too.
        name : str
            The name of one of :attr:`classes`.

        Raises
        ------
        ValueError
            For an unknown class.
        """
        check_choice("class", name, self.classes)
        geopandas = require("geopandas", "vector")
        drawn = geopandas.GeoDataFrame(
            {"label": [name]}, geometry=[shape], crs=geometry.as_crs(self.grid.crs)
        )
        with quiet():
            count = self.load_labels(drawn)
        self.note = "" if count else "There is no data inside that shape."
        return count

    def load_labels(self, labels: Any, *, target: str | None = None) -> int:
        """Add labels from a table or file: points, and pixels of boxes and polygons; the number of pixels.

        Parameters
        ----------
        labels : GeoDataFrame, table, or path of a file
            Anything that :func:`geoemb_xr.fit_probe` takes. What says no year is of the shown period.
        target : str, optional
            The column of classes.
        """
        from geoemb_xr.display.given_labels import labelled_pixels

        found, colours = labelled_pixels(self.array, self.times, self.step, labels, target)
        if found:
            self.put(found, colours)
        return len(found)
