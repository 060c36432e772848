"""Inputs of any kind, as strategies of hypothesis: for tests of what must hold for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from affine import Affine

from geoemb_xr.core import arrays, geometry
from geoemb_xr.core.errors import require
from geoemb_xr.core.geometry import METRES_PER_DEGREE
from geoemb_xr.core.model import Product
from geoemb_xr.core.model import product as find_product
from geoemb_xr.geo import wrapping

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
    from odc.geo.geobox import GeoBox


def geoboxes(
    *, crs: Sequence[object] = ("EPSG:32632", "EPSG:3035", "EPSG:4326"), sides: tuple[int, int] = (1, 40)
) -> SearchStrategy[GeoBox]:
    """Grids of any size and orientation, as a strategy of hypothesis.

    Parameters
    ----------
    crs : sequence of CRS
        One of these; 10 or 30 m, in degrees what that is at the equator.
    sides : (int, int)
        Fewest and most pixels a side.

    Returns
    -------
    SearchStrategy of GeoBox
        Some north-up, some south-up, edges on multiples of the resolution.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(geoboxes(sides=(2, 5)))
    ... def has_two_rows(grid):
    ...     assert grid.shape[0] >= 2
    >>> has_two_rows()
    """
    st = require("hypothesis.strategies", "test")

    def grid(
        name: object, shape: tuple[int, int], metres: float, left: int, top: int, south_up: bool
    ) -> GeoBox:
        step = metres / METRES_PER_DEGREE if geometry.as_crs(name).is_geographic else metres
        affine = Affine(step, 0, left * step, 0, step if south_up else -step, top * step)
        return geometry.make_geobox(shape, affine, name)

    place, side = st.integers(-100_000, 100_000), st.integers(*sides)
    metres = st.sampled_from((10.0, 30.0))
    found: SearchStrategy[GeoBox] = st.builds(
        grid, st.sampled_from(list(crs)), st.tuples(side, side), metres, place, place, st.booleans()
    )
    return found


def embeddings(
    product: str | Product = "alphaearth", *, decode: bool = True, sides: tuple[int, int] = (1, 6)
) -> SearchStrategy[xr.DataArray]:
    """Small embedding arrays with any vectors of a product and any gaps, as a strategy of hypothesis.

    Parameters
    ----------
    product : str or Product
        One whose codec has no scales, or one that is stored as floats.
    decode : bool
        Vectors; else codes where the product has a codec.
    sides : (int, int)
        Fewest and most pixels a side.

    Returns
    -------
    SearchStrategy of DataArray
        ``(band, y, x)`` in memory, north-up.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> @settings(max_examples=5)
    ... @given(embeddings("alphaearth", decode=False))
    ... def codes_are_kept(codes):
    ...     again = arrays.encode(arrays.decode(codes))
    ...     missing = (codes == -128).any("band")
    ...     assert (again == codes.where(~missing, np.int8(-128))).all()
    >>> codes_are_kept()
    """
    st = require("hypothesis.strategies", "test")
    found = find_product(product)
    codec = found.codec

    def array(grid: GeoBox, seed: int, gaps: float) -> xr.DataArray:
        rng = np.random.default_rng(seed)
        shape = (len(found.bands), *grid.shape)
        if codec is None:
            data = rng.standard_normal(shape, np.float32)
        else:
            kind = np.iinfo(codec.dtype)
            data = rng.integers(kind.min + 1, min(kind.max, 60_000), shape, endpoint=True).astype(codec.dtype)
        data[:, rng.random(tuple(grid.shape)) < gaps] = np.nan if codec is None else codec.nodata or 0
        wrapped = wrapping.wrap(data, found, geobox=grid, version="synthetic")
        return arrays.decode(wrapped) if decode else wrapped

    seeds = st.integers(0, 2**32 - 1)
    many: SearchStrategy[xr.DataArray] = st.builds(
        array, geoboxes(sides=sides), seeds, st.sampled_from((0, 0.3, 1))
    )
    return many
