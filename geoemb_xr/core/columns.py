"""Further columns in types that files have: conversion before Zarr and Parquet are written, and back.

In memory a column may be anything that pandas holds: text with gaps, booleans with gaps, times in a zone, shapes.
A file has numbers, times and text. What is neither is refused by the column's name, before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geoemb_xr.core.errors import EmbeddingError

#: The attribute of a stored variable that says what its column was in memory.
NOTE = "geoemb_xr:column"
#: The attribute of a store that says what names were in memory, by the names that they have in it.
NAMES = "geoemb_xr:names"

#: Zarr keeps names that begin so for itself.
_RESERVED = "__"
#: Bytes of a name, which is a folder's: file systems take 255.
_LONGEST = 200


@dataclass(frozen=True)
class Column:
    """Values of a column in a type that files have.

    Parameters
    ----------
    values : ndarray
        Numbers, booleans, ``datetime64``, ``timedelta64``, or objects that are all ``str`` (``bytes`` of WKB for
        shapes).
    missing : ndarray of bool, optional
        Where a gap is, which the type cannot say itself; ``values`` hold something of their type there.
    kind : str
        What it was in memory: ``plain`` where it is that still, else ``text``, ``boolean``, ``integer``, ``date``,
        ``geometry``, or ``zoned`` and the name of the time zone.
    """

    values: np.ndarray
    missing: np.ndarray | None = None
    kind: str = "plain"

    def in_memory(self) -> np.ndarray:
        """The column as it was: objects, with None where nothing is."""
        if self.kind == "plain":
            return self.values
        values: np.ndarray = self.values.astype(object)
        if self.kind == "geometry":
            import shapely

            values = np.asarray(shapely.from_wkb(_blanked(values, self._gaps())), object)
        elif self.kind == "date":
            values = self.values.astype("datetime64[D]").astype(object)
        elif self.kind.startswith("zoned "):
            zoned = pd.DatetimeIndex(self.values.ravel(), tz="UTC").tz_convert(self.kind.partition(" ")[2])
            values = np.array([*zoned, None], object)[:-1].reshape(self.values.shape)
        values[self._gaps()] = None
        return values

    def _gaps(self) -> np.ndarray:
        found = np.isnat(self.values) if self.values.dtype.kind == "M" else np.zeros(self.values.shape, bool)
        return found if self.missing is None else found | self.missing


def column_of(name: Hashable, values: Any) -> Column:
    """A column in a type that files have.

    Parameters
    ----------
    name : hashable
        Name for the message.
    values : array
        Any; pandas' own arrays are taken as the objects they hold.

    Raises
    ------
    EmbeddingError
        If the column holds what files have no type for, or several things at once.

    Examples
    --------
    >>> column = column_of("crop", ["rye", None, "oats"])
    >>> column.kind, column.missing.tolist(), column.in_memory().tolist()
    ('text', [False, True, False], ['rye', None, 'oats'])
    """
    if not isinstance(getattr(values, "dtype", np.dtype(object)), np.dtype):
        values = values.astype(object)  # as numbers, pandas' integers with gaps would be floats
    array = np.asarray(values)
    if array.dtype.kind in "biufcmM":
        return (
            _refused(name, array) if array.dtype.kind == "f" and array.dtype.itemsize > 8 else Column(array)
        )
    if array.dtype.kind in "US":
        return Column(array) if array.dtype.kind == "U" else _refused(name, array)
    array = array.astype(object)
    missing = np.asarray(pd.isna(array.ravel())).reshape(array.shape)
    present = array[~missing]
    gaps = missing if missing.any() else None
    match pd.api.types.infer_dtype(present, skipna=False):
        case "string" | "empty":
            return Column(np.where(missing, "", array), gaps, "plain" if gaps is None else "text")
        case "boolean":
            values = np.where(missing, False, array).astype(bool)
            return Column(values, gaps, "plain" if gaps is None else "boolean")
        case "integer":
            return _integers(name, array, missing, gaps)
        case "floating" | "mixed-integer-float":
            return Column(np.where(missing, np.nan, array).astype(np.float64))
        case "datetime" | "datetime64":
            return _times(name, array, missing)
        case "date":
            return Column(_blanked(array, missing).astype("datetime64[s]"), None, "date")
        case "timedelta" | "timedelta64":
            return Column(pd.to_timedelta(array.ravel()).to_numpy().reshape(array.shape))
    return _shapes(name, array, missing)


def _blanked(array: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Objects, with None where a value is missing."""
    blanked = array.copy()
    blanked[missing] = None
    return blanked


def _integers(name: Hashable, array: np.ndarray, missing: np.ndarray, gaps: np.ndarray | None) -> Column:
    try:
        values = np.where(missing, 0, array).astype(np.int64)
    except OverflowError:
        return _refused(name, array)
    return Column(values, gaps, "plain" if gaps is None else "integer")


def _times(name: Hashable, array: np.ndarray, missing: np.ndarray) -> Column:
    stamps = [pd.Timestamp(each) for each in array[~missing]]
    zones = {str(each.tz) for each in stamps}
    if len(zones) > 1:
        raise EmbeddingError(
            f"the column {str(name)!r} holds times in several zones ({', '.join(sorted(zones))}); bring them to one"
        )
    values = np.full(array.shape, np.datetime64("NaT", "ns"))
    values[~missing] = [
        each.tz_convert("UTC").tz_localize(None).to_datetime64() if each.tz else each for each in stamps
    ]
    (zone,) = zones
    return Column(values) if zone == "None" else Column(values, None, f"zoned {zone}")


def _shapes(name: Hashable, array: np.ndarray, missing: np.ndarray) -> Column:
    import shapely

    if not shapely.is_geometry(array[~missing]).all():
        return _refused(name, array[~missing])
    return Column(np.where(missing, b"", shapely.to_wkb(_blanked(array, missing))), missing, "geometry")


def _refused(name: Hashable, array: np.ndarray) -> Column:
    types = sorted({type(each).__name__ for each in array.ravel().tolist()})
    raise EmbeddingError(
        f"the column {str(name)!r} holds {' and '.join(types)}, which no file has a type for; make it text, "
        f"numbers or times (.assign_coords), or leave it out: .drop_vars({name!r})"
    )


# --- Zarr -------------------------------------------------------------------------------------------------------


def to_zarr_values(column: Column, name: Hashable = "") -> tuple[np.ndarray, dict[str, Any] | None]:
    """Values as Zarr has them, and a note for the way back; no note where nothing changed.

    A gap is a value that the column does not hold otherwise: Zarr has no nulls.

    Raises
    ------
    EmbeddingError
        If times lie beyond the years 1678 to 2262, which xarray reads back.
    """
    if column.values.dtype.kind == "M" and not _in_nanoseconds(column.values):
        raise EmbeddingError(
            f"the column {str(name)!r} holds times beyond the years 1678 to 2262, which a Zarr store is not read "
            "back with; make it text, or leave it out"
        )
    if column.kind == "plain":
        return column.values, None
    values, gap = column.values, None
    if column.kind == "geometry":
        values = np.array([each.hex() for each in values.ravel()], object).reshape(values.shape)
    if column.kind == "boolean":
        values = values.astype(np.int8)
    if column.missing is not None and column.missing.any():
        gap = _unused(values[~column.missing])
        values = np.where(column.missing, gap, values).astype(values.dtype)
    return values, {"kind": column.kind, **({} if gap is None else {"missing": gap})}


def _in_nanoseconds(times: np.ndarray) -> bool:
    years = times[~np.isnat(times)].astype("datetime64[Y]").astype(np.int64) + 1970
    return bool(((years > 1677) & (years < 2262)).all())


def from_zarr_values(values: np.ndarray, note: Mapping[str, Any]) -> np.ndarray:
    """Restore the column from what :func:`to_zarr_values` returned."""
    kind, gap = str(note.get("kind", "plain")), note.get("missing")
    if kind in ("text", "geometry"):
        values = np.asarray(values).astype(object)
    missing = None if gap is None else np.asarray(values == gap, bool)
    if kind == "geometry":
        values = np.array([*map(bytes.fromhex, values.ravel()), None], object)[:-1].reshape(values.shape)
    elif kind == "boolean":
        values = values == 1
    return Column(values, missing, kind).in_memory()


def _unused(values: np.ndarray) -> str | int:
    """A value for gaps that does not occur in the column."""
    taken = set(values.ravel().tolist())
    if values.dtype == object:
        return next(text for text in ("-" * n for n in range(len(taken) + 1)) if text not in taken)
    return next(number for number in range(-1, -len(taken) - 2, -1) if number not in taken)


def names_for_zarr(names: Iterable[Hashable]) -> dict[Hashable, str]:
    """Replacements for names that Zarr, or the list of coordinates in an attribute, cannot hold.

    A ``/`` would be a folder, and a space would part one name into two.

    Examples
    --------
    >>> names_for_zarr(["band", "land cover", "wet/dry", "wet_dry"])
    {'land cover': 'land_cover', 'wet/dry': 'wet_dry_2'}
    """
    given = list(names)
    renamed: dict[Hashable, str] = {}
    taken = {name for name in given if _fits_zarr(name)}
    for name in given:
        if _fits_zarr(name):
            continue
        if not isinstance(name, str | int | float):
            raise EmbeddingError(f"a store cannot hold the name {name!r}; rename it to text first (.rename)")
        plain = re.sub(r"[^\w.-]+", "_", str(name)).strip("._")[: _LONGEST // 4] or "column"
        plain = f"{plain}_2" if plain.lower() == "zarr.json" else plain
        candidates = (plain if n == 1 else f"{plain}_{n}" for n in range(1, len(given) + 2))
        renamed[name] = next(each for each in candidates if each not in taken)
        taken.add(renamed[name])
    return renamed


def _fits_zarr(name: Hashable) -> bool:
    if not isinstance(name, str) or name.startswith(_RESERVED) or name.lower() == "zarr.json":
        return False
    return bool(re.fullmatch(r"[\w-][\w.-]*", name)) and len(name.encode()) <= _LONGEST


# --- Parquet ----------------------------------------------------------------------------------------------------


def to_arrow(column: Column, name: Hashable = "") -> Any:
    """Convert a column to Arrow: gaps become nulls, time zones and dates become types, shapes become WKB.

    Raises
    ------
    EmbeddingError
        If Arrow has no such type, as for complex numbers.
    """
    import pyarrow as pa

    try:
        return _arrow_of(column)
    except (pa.ArrowException, NotImplementedError) as error:
        raise EmbeddingError(
            f"the column {str(name)!r} holds {column.values.dtype}, which Parquet has no type for; make it numbers "
            "or text, or leave it out"
        ) from error


def _arrow_of(column: Column) -> Any:
    import pyarrow as pa

    mask = column._gaps()
    if column.kind.startswith("zoned "):
        return pa.array(column.values, pa.timestamp("ns", column.kind.partition(" ")[2]), mask=mask)
    if column.kind == "date":
        return pa.array(column.values.astype("datetime64[D]"), pa.date32(), mask=mask)
    if column.kind == "text":
        return pa.array(column.values, pa.string(), mask=mask)
    if column.kind == "geometry":
        return pa.array(column.values, pa.binary(), mask=mask)
    return pa.array(column.values, mask=mask if mask.any() else None)


def from_arrow(values: Any, kind: str) -> np.ndarray:
    """Restore the column from what :func:`to_arrow` returned."""
    import pyarrow.compute as pc

    missing = np.asarray(pc.is_null(values))
    if kind.startswith("zoned ") or kind == "date":
        plain = values.cast("timestamp[ns]" if kind != "date" else "timestamp[s]")
        return Column(plain.to_numpy(zero_copy_only=False), None, kind).in_memory()
    fill = {"text": "", "geometry": b"", "boolean": False, "integer": 0}[kind]
    filled = pc.fill_null(values, fill).to_numpy(zero_copy_only=False)
    return Column(np.asarray(filled), missing, kind).in_memory()
