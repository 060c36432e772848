"""PROJ in many threads, without finding the way from one CRS to another in each of them.

A transformer of pyproj is made anew in each thread that calls it, which takes 0.1 s: a first block on each of eight
threads would spend more on that than on its pixels.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyproj

#: Points that a thread has another one move, until it is worth its while to make a transformer of its own.
LENT = 1 << 16

_lender = ThreadPoolExecutor(1, "geoemb-proj")


def _start_anew() -> None:
    """Have a thread again, which a process that was forked does not inherit."""
    global _lender
    _lender = ThreadPoolExecutor(1, "geoemb-proj")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class Transformer:
    """A way from one CRS to another, x and y: pyproj's, which one thread has for all that move few points.

    Parameters
    ----------
    source, target : CRS
        Where from, and where to.

    Examples
    --------
    >>> import pyproj
    >>> x, y = Transformer(pyproj.CRS(4326), pyproj.CRS(32632)).transform(9.0, 0.0)
    >>> round(x), round(y)
    (500000, 0)
    """

    def __init__(self, source: pyproj.CRS, target: pyproj.CRS) -> None:
        self._ends = source, target
        self._lent = threading.local()
        self._proj: pyproj.Transformer | None = None

    def transform(self, x: Any, y: Any, *, errcheck: bool = False, back: bool = False) -> Any:
        """Move points, or move them ``back``; inf where there is no way, or an error with ``errcheck``."""
        direction = "INVERSE" if back else "FORWARD"
        return self._asked(
            np.size(x), lambda proj: proj.transform(x, y, errcheck=errcheck, direction=direction)
        )

    def transform_bounds(
        self,
        left: float,
        bottom: float,
        right: float,
        top: float,
        *,
        densify_pts: int = 21,
        back: bool = False,
    ) -> Any:
        """Move a box, or move it ``back``: the one around its moved edges, of which as many points are moved."""
        box, direction = (left, bottom, right, top), "INVERSE" if back else "FORWARD"
        return self._asked(
            4 * densify_pts,
            lambda proj: proj.transform_bounds(*box, densify_pts=densify_pts, direction=direction),
        )

    def _asked[T](self, points: int, what: Callable[[pyproj.Transformer], T]) -> T:
        self._lent.points = getattr(self._lent, "points", 0) + points
        if self._lent.points <= LENT:
            try:
                answer = _lender.submit(lambda: what(self._transformer()))
            except RuntimeError:  # no threads can be started here, or no longer
                pass
            else:
                return answer.result()
        return what(self._transformer())

    def _transformer(self) -> pyproj.Transformer:
        # no lock, which a process forked meanwhile would never get: each thread looks for its own way in any case
        if self._proj is None:
            self._proj = pyproj.Transformer.from_crs(*self._ends, always_xy=True)
        return self._proj
