"""The types of a product's functions, so that readers and ``gx.open`` need not import each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import xarray as xr

from geoemb_xr.core.errors import SourceError

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class StoredTile(Protocol):
    """A stored raster such as :class:`geoemb_xr.readers.tiles.Tile`, which ``gx.open`` cuts, joins and decodes."""

    @property
    def name(self) -> str:
        """Path or URL."""

    @property
    def geobox(self) -> Any:
        """The grid of all of it."""

    @property
    def times(self) -> tuple[str, ...]:
        """Starts of its periods."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Labels of its bands."""


#: What opening a source gives: stored rasters to be put together, vectors of patches or places as an array, or
#: vectors and what lies beside them as a Dataset with a variable ``embedding``.
Opened = Sequence[StoredTile] | xr.DataArray | xr.Dataset


@runtime_checkable
class Open(Protocol):
    """Opens a source of a product. Nothing but metadata is read."""

    def __call__(self, source: Any, request: Any, /) -> Opened:
        """Open what a :class:`geoemb_xr.readers.tiles.Request` asks of a source, None for the published."""


@runtime_checkable
class Coverage(Protocol):
    """Lists what exists, a row per tile and year."""

    def __call__(self, source: Any, request: Any, /) -> pd.DataFrame:
        """List what matches a request in a source, None for the published."""


@runtime_checkable
class Example(Protocol):
    """Writes a small synthetic source in the true format."""

    def __call__(self, folder: Path, container: str, /) -> Any:
        """Write it into a folder, and return what ``gx.open`` takes as its source."""


@runtime_checkable
class TextEncoder(Protocol):
    """Puts words into the space of a product."""

    def __call__(self, texts: Sequence[str], version: str, /) -> Any:
        """Vectors ``(text, band)`` in the space of a version; raises where that has no text encoder."""


@runtime_checkable
class PlaceEncoder(Protocol):
    """Turns places into vectors of a product."""

    def __call__(self, lonlat: Any, /) -> Any:
        """Vectors ``(n, band)`` of longitudes and latitudes ``(n, 2)``."""


def kind_of_opened(opened: object, name: str) -> Literal["tiles", "array", "dataset"]:
    """The kind of what :class:`Open` returned.

    Parameters
    ----------
    opened : object
        The result of a product's ``open``.
    name : str
        The product's.

    Raises
    ------
    SourceError
        If it is none of them.
    """
    if isinstance(opened, xr.DataArray):
        return "array"
    if isinstance(opened, xr.Dataset):
        return "dataset"
    if isinstance(opened, Sequence) and all(isinstance(each, StoredTile) for each in opened):
        return "tiles"
    got = type(opened).__name__
    if isinstance(opened, Sequence) and not isinstance(opened, str):
        odd = next(each for each in opened if not isinstance(each, StoredTile))
        got = f"{got} with a {type(odd).__name__}"
    raise SourceError(
        f"the open function of product {name!r} returned a {got}; it returns a list of tiles "
        "(geoemb_xr.readers.tiles.Tile), a DataArray, or a Dataset with a variable 'embedding'"
    )
