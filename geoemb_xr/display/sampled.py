"""A sample design in the app: its places are labelled one after the other, with the map hidden."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.geo import places

LABEL = "label"


class Walk:
    """The places of a design, the next one, and the labels so far.

    Parameters
    ----------
    design : DataFrame, GeoDataFrame or path
        The result of :func:`geoemb_xr.sample_design`. Labels in it stay; the first place without one is next.
    grid : GeoBox
        Grid of the explored array; places outside of it are an error.

    Raises
    ------
    EmbeddingError
        If there is no place, or one lies outside of the array.
    """

    def __init__(self, design: Any, grid: GeoBox) -> None:
        table = pd.read_csv(design) if isinstance(design, str | os.PathLike) else design
        self.table: pd.DataFrame = table.reset_index(drop=True).copy()
        if LABEL not in self.table:
            self.table[LABEL] = None
        self.table[LABEL] = self.table[LABEL].astype(object).where(self.table[LABEL].notna(), None)
        given = places.read_places(self.table.drop(columns=LABEL))
        if given.points is None or not len(self.table):
            raise EmbeddingError("explore(design=) takes points, as gx.sample_design draws them; got none")
        self.x, self.y = (np.asarray(each) for each in given.xy(grid.crs))
        outside = ~places.pixels_at(grid, self.x, self.y)[2]
        if outside.any():
            raise EmbeddingError(
                f"{outside.sum()} of {outside.size} places of the design lie outside of the array; explore the "
                "array of the map that the design was drawn from"
            )
        self.at = self._open(0)

    @property
    def place(self) -> tuple[float, float]:
        """The place that is shown, in the CRS of the array."""
        return float(self.x[self.at]), float(self.y[self.at])

    @property
    def left(self) -> int:
        """Number of places without a label."""
        return int(self.table[LABEL].isna().sum())

    @property
    def classes(self) -> list[str]:
        """Classes of the design by name: its strata, and the labels so far."""
        columns = [name for name in ("stratum", LABEL) if name in self.table]
        return sorted({str(each) for name in columns for each in self.table[name].dropna()})

    def label(self, name: str) -> None:
        """Label the place, and go to the next one without a label."""
        self.table.loc[self.at, LABEL] = name
        self.at = self._open(self.at)

    def step(self, by: int) -> None:
        """Go on or back by so many places, around the ends."""
        self.at = (self.at + by) % len(self.table)

    def _open(self, start: int) -> int:
        """The first place from ``start`` on that has no label; ``start`` where all have one."""
        order = np.roll(np.arange(len(self.table)), -start)
        still = order[self.table[LABEL].isna().to_numpy()[order]]
        return int(still[0]) if still.size else start

    def say(self) -> str:
        """Describe the current position in the design."""
        label = self.table[LABEL].iloc[self.at]
        here = f"Place {self.at + 1} of {len(self.table)}" + (f": {label}" if label is not None else "")
        return (
            f"{here}. {self.left} still need a label." if self.left else f"{here}. All places are labelled."
        )
