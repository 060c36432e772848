"""The torchgeo datasets; importing this module imports torchgeo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import shapely
import torch
import xarray as xr
from geopandas import GeoDataFrame
from rasterio.transform import from_origin
from torch import Tensor
from torchgeo.datasets import GeoDataset, NonGeoDataset

from geoemb_xr.core import arrays, geometry
from geoemb_xr.core.legend import is_class_map
from geoemb_xr.core.model import BAND, Product, check_embedding, is_encoded, kind_of, register, registered

Sample = dict[str, Any]
Transforms = Callable[[Sample], Sample] | None


class _Travels:
    """Brings its product along to workers that are started anew, where it was never registered."""

    array: xr.DataArray
    product: Product | None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.product is not None and self.product.name not in {each.name for each in registered()}:
            register(self.product)


def _product_of(array: xr.DataArray) -> Product | None:
    return check_embedding(array, "to_torchgeo") if kind_of(array) != "map" else None


class ArrayDataset(_Travels, GeoDataset):  # type: ignore[misc]  # torchgeo is not typed here
    """An array as a torchgeo ``GeoDataset``: one item of the index per time.

    Parameters
    ----------
    array : DataArray (time?, band?, y, x)
        Array with a grid and a CRS.
    transforms : callable, optional
        Applied to each sample.
    time_series : bool
        Whether a sample stacks the times of its slice.
    """

    def __init__(self, array: xr.DataArray, transforms: Transforms, time_series: bool) -> None:
        self.geobox = geometry.geobox_of(array, "to_torchgeo")
        self.product = _product_of(array)
        others = [d for d in array.dims if d not in ("time", "y", "x")]
        times = ["time"] if "time" in array.dims else []
        self.array = array.transpose(*times, *others, "y", "x")
        self.transforms = transforms
        self.time_series = time_series
        self.is_image = not is_class_map(array)
        self.bands = (
            tuple(map(str, array.coords[others[0]].values)) if others and others[0] in array.coords else ()
        )
        affine, box = self.geobox.affine, self.geobox.boundingbox
        self._res = (abs(affine.a), abs(affine.e))
        spans = _periods(array)
        place = shapely.box(box.left, box.bottom, box.right, box.top)
        self.index = GeoDataFrame(
            {"step": range(len(spans))},
            index=pd.IntervalIndex.from_tuples(spans, closed="both", name="datetime"),
            geometry=[place] * len(spans),
            crs=geometry.as_crs(self.geobox.crs),
        )

    def __getitem__(self, index: Any) -> Sample:
        """A sample of a slice ``[xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres]``."""
        x, y, t = self._disambiguate_slice(index)
        hits = self.index.iloc[self.index.index.overlaps(pd.Interval(t.start, t.stop))]
        hits = hits.iloc[:: t.step].cx[x.start : x.stop, y.start : y.stop]
        if hits.empty:
            raise IndexError(f"index: {index} not found in dataset with bounds: {self.bounds}")
        rows, cols = self._pixels(x, y)
        steps = hits["step"].tolist()
        data = torch.from_numpy(np.stack([self._read(step, rows, cols) for step in steps]))
        if not self.time_series:
            data = _first_valid(data)
        transform = from_origin(x.start, y.stop, x.step, y.step)
        sample: Sample = {"bounds": self._slice_to_tensor(index), "transform": torch.tensor(transform)}
        sample["image" if self.is_image else "mask"] = data
        return self.transforms(sample) if self.transforms is not None else sample

    def _pixels(self, x: slice, y: slice) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of the array under each pixel of a sample, in the dataset's CRS."""
        width, height = round((x.stop - x.start) / x.step), round((y.stop - y.start) / y.step)
        xs = x.start + (np.arange(width) + 0.5) * x.step
        ys = y.stop - (np.arange(height) + 0.5) * y.step
        px, py = np.meshgrid(xs, ys)
        if not geometry.same_crs(self.crs, self.geobox.crs):
            to_array = geometry.transformer(geometry.as_crs(self.crs), geometry.as_crs(self.geobox.crs))
            px, py = to_array.transform(px, py)
        inverse = ~self.geobox.affine
        cols = px * inverse.a + py * inverse.b + inverse.c
        rows = px * inverse.d + py * inverse.e + inverse.f
        # an exact edge belongs to the higher index, whatever rounding made of it
        return np.floor(rows + 1e-6), np.floor(cols + 1e-6)

    def _read(self, step: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Pixels of one time: float32 ``(band, y, x)`` with NaN, or int64 ``(y, x)`` with 0."""
        one = self.array.isel(time=step) if "time" in self.array.dims else self.array
        height, width = self.geobox.shape
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        lead = one.shape[:-2] if not is_encoded(one) else (len(self._labels(one)),)
        if not inside.any():
            return self._empty((*lead, *rows.shape))
        r, c = rows[inside].astype(np.int64), cols[inside].astype(np.int64)
        top, left = r.min(), c.min()
        window = one.isel(y=slice(top, r.max() + 1), x=slice(left, c.max() + 1))
        values = _computed(window)
        out = self._empty((*values.shape[:-2], *rows.shape))
        out[..., inside] = values[..., r - top, c - left]
        return out if out.ndim == 3 or not self.is_image else out[None]

    def _labels(self, one: xr.DataArray) -> tuple[str, ...]:
        codec = arrays.codec_of(one)
        return codec.bands or tuple(map(str, one.coords[BAND].values))

    def _empty(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, np.nan, np.float32) if self.is_image else np.zeros(shape, np.int64)


def _computed(window: xr.DataArray) -> np.ndarray:
    """The values of a window; in a worker of a DataLoader without threads, which do not survive a fork."""
    import dask

    in_worker = torch.utils.data.get_worker_info() is not None
    with dask.config.set(scheduler="synchronous" if in_worker else "threads"):
        if kind_of(window) != "map" and is_encoded(window):
            window = arrays.decode(window.compute())
        return np.asarray(window.values)


def _first_valid(data: Tensor) -> Tensor:
    """Take the first of several times that has data at each pixel, as torchgeo merges files."""
    merged = data[0]
    for later in data[1:]:
        missing = torch.isnan(merged) if merged.is_floating_point() else merged == 0
        merged = torch.where(missing, later, merged)
    return merged


def _periods(array: xr.DataArray) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
    """Start and end of each time: until the next one starts, a year at most."""
    if "time" not in array.coords:
        return [(pd.Timestamp.min, pd.Timestamp.max)]
    starts = [pd.Timestamp(value) for value in np.atleast_1d(array.coords["time"].values)]
    tick = pd.Timedelta(1, "us")
    spans = []
    for start in starts:
        later = [each for each in starts if each > start]
        end = min([*later, start + pd.DateOffset(years=1)])
        spans.append((start, end - tick))
    return spans


class LocationDataset(_Travels, NonGeoDataset):  # type: ignore[misc]  # torchgeo is not typed here
    """Vectors at locations as a torchgeo ``NonGeoDataset``: an item per vector, times one after another.

    Parameters
    ----------
    array : DataArray (time?, location, band)
        Computed when the first sample is asked for.
    transforms : callable, optional
        Applied to each sample.
    """

    def __init__(self, array: xr.DataArray, transforms: Transforms) -> None:
        times = ["time"] if "time" in array.dims else []
        self.array = array.transpose(*times, "location", BAND)
        self.product = _product_of(array)
        self.transforms = transforms
        self._vectors: np.ndarray | None = None
        self._times = _posix(array)

    def __len__(self) -> int:
        return int(self.array.sizes["location"] * self.array.sizes.get("time", 1))

    def __getitem__(self, index: int) -> Sample:
        """A vector with its place and time, as float64: a float32 longitude is a metre off."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is not one of {len(self)} vectors")
        if self._vectors is None:
            vectors = _computed(self.array)
            self._vectors = vectors.reshape(-1, vectors.shape[-1])
        place = index % self.array.sizes["location"]
        sample: Sample = {
            "embedding": torch.from_numpy(self._vectors[index].astype(np.float32)),
            "x": torch.tensor(float(self.array.coords["x"][place]), dtype=torch.float64),
            "y": torch.tensor(float(self.array.coords["y"][place]), dtype=torch.float64),
        }
        if self._times is not None:
            sample["t"] = torch.tensor(float(self._times[index]), dtype=torch.float64)
        return self.transforms(sample) if self.transforms is not None else sample


def _posix(array: xr.DataArray) -> np.ndarray | None:
    """Seconds since 1970 of each vector: its own date, else its time."""
    size = array.sizes["location"]
    if "date" in array.coords and array.coords["date"].dims == ("location",):
        stamps = np.tile(array.coords["date"].values, array.sizes.get("time", 1))
    elif "time" in array.coords:
        stamps = np.repeat(np.atleast_1d(array.coords["time"].values), size)
    else:
        return None
    return stamps.astype("datetime64[ns]").astype(np.int64) / 1e9
