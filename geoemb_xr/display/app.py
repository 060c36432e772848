"""The interactive app: Bokeh figures and Panel widgets around an :class:`~geoemb_xr.display.explorer.Explorer`.

It runs in JupyterLab and under ``panel serve``; nothing but ``tiles=True`` asks the network for anything.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import require
from geoemb_xr.core.model import check_embedding
from geoemb_xr.core.notes import in_notebook
from geoemb_xr.display import app_words
from geoemb_xr.display.app_display import Display, ground_stretch
from geoemb_xr.display.app_layout import MARGINS, SIDE

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from geoemb_xr.analysis.components import PCA
    from geoemb_xr.display.explorer import Explorer
    from geoemb_xr.probes.probe import Probe


def explore(
    array: xr.DataArray,
    *,
    model: PCA | None = None,
    labels: Any = None,
    target: str | None = None,
    probe: Probe | None = None,
    compare: xr.DataArray | None = None,
    design: Any = None,
    tiles: bool = False,
    width: int = 1180,
) -> App:
    """Look at an embedding interactively: pan, zoom, go through the years, click, label. Computes what is shown.

    A click chooses a pixel: its vector, its course over time and a map of what is similar to it are shown.
    Classes can be made, and pixels clicked, boxes dragged and polygons drawn to label them; from the second class
    on a probe is refitted, and its map redrawn, at each step. The right map may also show another year or another
    array, beside the left map or, with "swipe", over its right part. While the mouse is over a map, the arrows go
    through the years, digits choose a class, Enter labels the chosen pixel or closes a polygon, Escape leaves off.

    Parameters
    ----------
    array : DataArray (time?, band, y, x)
        A raster embedding, encoded or decoded, lazy or in memory. Codes (:func:`open` with
        ``decode=False``) take a quarter of the memory. Patches (location, band) are shown on their own grid, points
        as squares as wide as points are apart; a click chooses the one at a place.
    model : PCA, optional
        Model of the colours; by default fitted on what is shown first, of the first and the last year, and kept.
    labels : GeoDataFrame, table, or path of a file, optional
        Labels to start with: points, boxes and polygons, as :func:`fit_probe` takes them.
    target : str, optional
        The column of their classes; the only one that may be it by default.
    probe : Probe, optional
        Probe of classes, whose map is shown until a label changes.
    compare : DataArray, optional
        Another embedding (of any product, grid and CRS) or a map, such as classes, for the right map; years are
        matched.
    design : DataFrame or path, optional
        Places to be labelled one after the other, as :func:`sample_design` draws them. The stratum of a place is
        never shown. ``app.design`` is the table with its labels, for :func:`area_estimate`; what it says does not
        train the probe.
    tiles : bool
        Whether satellite pictures from the network lie under the map, which is then in Web Mercator.
    width : int
        Greatest width of the app, in pixels of the screen. It is as wide as its cell or window where that is
        narrower: the controls are then below the maps, and on a phone the maps are one below the other.

    Returns
    -------
    App
        Shown as the last line of a cell; ``.servable()`` in a script for ``panel serve``; ``.show()`` in a browser.
        ``app.labels`` is the GeoDataFrame of labels, ``app.probe`` the probe, ``app.model`` the PCA.

    Raises
    ------
    EmbeddingError
        If the array is not an embedding, or the design has places outside of it.
    MissingExtraError
        If Panel is not installed.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(64, 64), years=[2018, 2024])
    >>> app = da.emb.explore()
    >>> app.state.add_class("forest")
    >>> app.labels.crs.to_epsg(), app.probe is None
    (32632, True)
    """
    from geoemb_xr.display.dots import squares_of_points
    from geoemb_xr.display.explorer import Explorer
    from geoemb_xr.geo.gridding import as_raster

    require("panel", "viz")
    check_embedding(array, "explore")
    array = as_raster(squares_of_points(array), "explore")
    if tiles:
        from geoemb_xr.geo.warp import reproject

        array = reproject(array, "EPSG:3857", resampling="nearest")
    size = _map_size(array, width)
    state = Explorer(array, model=model, size=size, compare=compare, design=design)
    if labels is not None:
        state.load_labels(labels, target=target)
    if probe is not None:
        state.use_probe(probe)
    return App(state, size, tiles=tiles)


def _map_size(array: xr.DataArray, width: int) -> tuple[int, int]:
    """Width and height of a map on the screen: as the array, but neither a strip nor taller than a screen."""
    across = max((width - SIDE - MARGINS) // 2, 200)
    box = geometry.geobox_of(array, "explore").boundingbox
    ratio = (box.top - box.bottom) / (box.right - box.left) * ground_stretch(array)
    return across, int(across * np.clip(ratio, 0.6, 1.15))


class App:
    """The result of :func:`explore`: shown in a notebook or served, with the labels and models made in it.

    Parameters
    ----------
    state : Explorer
        State of the app, usable without the widgets too.
    size : (int, int)
        Greatest width and height of a map on the screen.
    tiles : bool
        Whether pictures from the network lie underneath.
    """

    def __init__(self, state: Explorer, size: tuple[int, int], *, tiles: bool = False) -> None:
        _load_extension()
        self.state = state
        self._size, self._tiles = size, tiles
        if state.pixel is None:
            state.click(*state.centre)  # so that the charts show something from the start
            state.note = ""

    def save_labels(self, path: str | os.PathLike[str]) -> Path:
        """Write the labels to a file whose ending GDAL knows, such as ``labels.gpkg``; return its path."""
        target = Path(path)
        self.labels.to_file(target)
        return target

    def load_labels(self, labels: Any, *, target: str | None = None) -> None:
        """Add labels from a table or a file, such as one that :meth:`save_labels` wrote."""
        self.state.load_labels(labels, target=target)

    @property
    def labels(self) -> gpd.GeoDataFrame:
        """The labels as points, with the columns ``label`` and ``time``."""
        return self.state.labels

    @property
    def design(self) -> pd.DataFrame | None:
        """The sample design with the labels it has so far; None without one."""
        return None if self.state.walk is None else self.state.walk.table.copy()

    @property
    def probe(self) -> Probe | None:
        """The probe fitted on the labels; None until two classes have one."""
        return self.state.probe

    @property
    def model(self) -> PCA:
        """The PCA that the colours are made with."""
        return self.state.model

    def display(self) -> Display:
        """Make another display of the same state, with its own figures and widgets."""
        return Display(self.state, self._size, tiles=self._tiles)

    def servable(self, title: str | None = None) -> App:
        """Make the app servable by ``panel serve``."""
        self._page().servable(title=title or app_words.title(self.state))
        return self

    def show(self, **options: Any) -> Any:
        """Serve the app from this process and open a browser; options as of ``panel.serve``.

        Each page that is opened, or loaded again, has figures and widgets of its own around the same labels.
        """
        serve = require("panel", "viz").serve
        return serve(self._page, **{"title": app_words.title(self.state), **options})

    def _page(self) -> Any:
        """The layout of another display, as a page of its own: as wide as its window on phones, too."""
        page = require("panel", "viz").state.curdoc
        if page is not None:
            page.template_variables["meta"] = {"viewport": "width=device-width, initial-scale=1"}
        return self.display().layout

    def __panel__(self) -> Any:
        return self.display().layout

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The live app, with a picture of it for wherever the app cannot run."""
        _load_extension()
        bundle = self.display().layout._repr_mimebundle_(include, exclude)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        if data and "text/html" in data:
            data = app_words.over_picture(data, self._picture())
        return data, metadata

    def _picture(self) -> bytes:
        """A PNG of what is shown, for where no script runs."""
        from geoemb_xr.display.plotting import plot

        picture = self.state.picture()
        figure = require("matplotlib.figure", "viz").Figure(figsize=(5, 4.5), layout="constrained")
        require("matplotlib.backends.backend_agg", "viz").FigureCanvasAgg(figure)
        heading = f"{self.state.product.name} {self.state.period}".strip()
        plot(picture, ax=figure.add_subplot(), title=heading)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=80)
        return drawn.getvalue()

    def __repr__(self) -> str:
        return f"<App exploring {app_words.title(self.state)}: {sum(self.state.counts().values())} labels>"


def _load_extension() -> None:
    """Load Panel into a notebook at each display, since scripts are lost with the cell that loaded them.

    They come from the installed packages, so that a page asks no other host for them.
    """
    pn = require("panel", "viz")
    if in_notebook() or not pn.extension._loaded:
        pn.extension(inline=True)
