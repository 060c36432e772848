"""Classes and labelled pixels of the app, and the probe fitted on them, without widgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError, check_choice, require
from geoemb_xr.core.legend import Legend, default_colour, expected_colour
from geoemb_xr.core.model import Product, attribution_of
from geoemb_xr.core.notes import quiet
from geoemb_xr.display.windows import Pixel
from geoemb_xr.geo import wrapping

if TYPE_CHECKING:
    import geopandas as gpd
    from odc.geo.geobox import GeoBox

    from geoemb_xr.probes.probe import Probe


class Labelled:
    """Classes, labelled pixels in the order they were labelled, and a probe that is fitted when it is asked for.

    Parameters
    ----------
    product : Product
        Product of the vectors.
    attrs : mapping
        Attributes of the array that is labelled.
    grid : GeoBox
        Grid of the array.
    dated : bool
        Whether its pixels have a time.
    """

    def __init__(self, product: Product, attrs: Mapping[Any, Any], grid: GeoBox, *, dated: bool) -> None:
        self.product, self.attrs, self.grid, self.dated = product, dict(attrs), grid, dated
        #: Colours of the classes, by name.
        self.classes: dict[str, str] = {}
        #: Pixels and their classes, in the order they were labelled.
        self.labelled: list[tuple[Pixel, str]] = []
        self._probe: Probe | None = None
        self._before: list[list[tuple[Pixel, str]]] = []

    # --- classes -----------------------------------------------------------------------------------------------

    def add_class(self, name: str, colour: str | None = None) -> None:
        """Make a class that pixels can be labelled with; ``colour`` is ``#rrggbb``."""
        name = name.strip()
        if not name or name in self.classes:
            raise ValueError(
                f"a new class needs a name of its own; got {name!r}, there are {list(self.classes)}"
            )
        self.classes[name] = colour or self._free_colour(name)

    def _free_colour(self, name: str) -> str:
        """The usual colour of a class, or the next unused one."""
        expected = expected_colour(name)
        candidates = [expected] if expected else []
        candidates += [default_colour(i) for i in range(len(self.classes) + 1)]
        return next(each for each in candidates if each not in self.classes.values())

    def rename_class(self, name: str, new: str) -> None:
        """Give a class another name; its labels and its colour stay."""
        check_choice("class", name, self.classes)
        new = new.strip()
        if not new or new in self.classes:
            raise ValueError(f"the new name is one that no class has; got {new!r}")
        self.classes = {new if own == name else own: colour for own, colour in self.classes.items()}
        for labels in (self.labelled, *self._before):
            labels[:] = [(pixel, new if own == name else own) for pixel, own in labels]
        self._probe = None

    def recolour_class(self, name: str, colour: str) -> None:
        """Give a class another colour, ``#rrggbb``."""
        check_choice("class", name, self.classes)
        Legend((1,), (name,), (colour,))  # checks it
        self.classes[name] = colour
        self._probe = None

    def remove_class(self, name: str) -> None:
        """Delete a class and its labels."""
        check_choice("class", name, self.classes)
        del self.classes[name]
        for labels in (self.labelled, *self._before):
            labels[:] = [each for each in labels if each[1] != name]
        self._probe = None

    # --- pixels ------------------------------------------------------------------------------------------------

    def put(self, pixels: list[tuple[Pixel, str]], colours: Mapping[str, str] | None = None) -> None:
        """Label pixels in one step that can be taken back; a pixel has one label per period.

        Parameters
        ----------
        pixels : list of (Pixel, str)
            Classes that are not there yet are made.
        colours : mapping of str to str, optional
            Colours of such classes.
        """
        for name in dict.fromkeys(name for _, name in pixels):
            if name not in self.classes:
                self.add_class(name, (colours or {}).get(name))
        new = {pixel.key for pixel, _ in pixels}
        self._keep([each for each in self.labelled if each[0].key not in new] + pixels)

    def undo(self) -> None:
        """Take the last step back: a label, a polygon, or all labels of a file."""
        if self._before:
            self.labelled = self._before.pop()
            self._probe = None

    def _keep(self, pixels: list[tuple[Pixel, str]]) -> None:
        self._before.append(self.labelled)
        self.labelled = pixels
        self._probe = None

    def counts(self) -> dict[str, int]:
        """Number of labels per class."""
        return {name: sum(own == name for _, own in self.labelled) for name in self.classes}

    @property
    def labels(self) -> gpd.GeoDataFrame:
        """One row per labelled pixel: ``label``, ``time``, and its centre in the array's CRS."""
        geopandas = require("geopandas", "vector")
        pixels = [pixel for pixel, _ in self.labelled]
        columns: dict[str, Any] = {"label": np.array([name for _, name in self.labelled], object)}
        if self.dated:
            columns["time"] = np.array([pixel.time for pixel in pixels], "datetime64[ns]")
        frame = geopandas.GeoDataFrame(
            columns,
            geometry=geopandas.points_from_xy([p.x for p in pixels], [p.y for p in pixels]),
            crs=geometry.as_crs(self.grid.crs),
        )
        credit = attribution_of(xr.DataArray(attrs=self.attrs))
        frame.attrs = {"attribution": credit, "colours": dict(self.classes)}
        return frame

    # --- the probe ---------------------------------------------------------------------------------------------

    def use_probe(self, probe: Probe) -> None:
        """Use a probe that was fitted elsewhere, until a label changes."""
        if probe.legend is None:
            raise EmbeddingError("explore shows probes of classes; this one predicts a number")
        for name, colour in zip(probe.legend.names, probe.legend.colours, strict=True):
            if name not in self.classes:
                self.classes[name] = colour
        self._probe = probe

    @property
    def probe(self) -> Probe | None:
        """A probe fitted on the labels; None until two classes have one."""
        if self._probe is None and len({name for _, name in self.labelled}) > 1:
            self._probe = self._fit_probe()
        return self._probe

    def _fit_probe(self) -> Probe:
        from geoemb_xr.probes.fitting import fit_probe

        with quiet():  # a probe refitted at every click would tell of itself each time
            probe = fit_probe(self._points(), target="label", cv=0)
        assert probe.legend is not None
        names = probe.legend.names
        colours = tuple(self.classes[name] for name in names)
        return replace(probe, legend=Legend(probe.legend.values, names, colours))

    def _points(self) -> xr.DataArray:
        """The labelled vectors as an embedding of points: nothing is read again."""
        pixels = [pixel for pixel, _ in self.labelled]
        points = wrapping.wrap(
            np.stack([pixel.vector for pixel in pixels]),
            self.product,
            x=[pixel.x for pixel in pixels],
            y=[pixel.y for pixel in pixels],
            crs=self.grid.crs,
            version=str(self.attrs.get("version", "")),
        )
        return points.assign_coords(label=("location", [name for _, name in self.labelled]))
