"""Datasets of samples, torchgeo's above all, as lazy stacks of chips whose labels are coordinates."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.model import BAND

#: Samples in a block.
_SAMPLES = 64
#: What BigEarthNet's images hold: its files are read in the order of their names, so VH comes before VV.
_BIGEARTHNET = {
    "s1": ("VH", "VV"),
    "s2": ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
}
#: What the sensors of Copernicus-Pretrain hold, whose samples say no names.
_COPERNICUS = {
    "s1_grd": ("VV", "VH"),
    "s2_toa": (*(f"B{k:02d}" for k in range(1, 9)), "B8A", *(f"B{k:02d}" for k in range(9, 13))),
    "dem": ("elevation",),
}
_drawing = threading.Lock()


def is_samples(value: object) -> bool:
    """Whether something is a dataset of samples: torch's, torchgeo's, or a list of dicts of arrays."""
    if any(each.__module__.startswith("torch.utils.data") for each in type(value).__mro__):
        return True
    return (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(each, Mapping) for each in value)
    )


def read_samples(dataset: Any) -> xr.DataArray | dict[str, xr.DataArray]:
    """The images of a dataset as a lazy stack of chips, its labels as coordinates.

    Parameters
    ----------
    dataset : torchgeo dataset, torch Dataset, or list of dicts of arrays
        Samples have an ``image``, or several by sensor (``image_s1``, ``image_s2``), and may have a ``label``.

    Returns
    -------
    DataArray (location, time?, band, y, x), or dict of them by sensor
        Images are read when they are computed. Those of MMEarth, which its reader normalises, are in their own
        units again. A label is the coordinate ``label``, a class by its name; of labels
        that are several at a time each class is a coordinate of its name, true or false. Numbers that a sample has
        besides, such as ``lon`` and ``lat``, are coordinates, too.

    Raises
    ------
    SourceError
        If its samples have no image, or cannot be asked for by number.
    """
    import dask
    import dask.array as da

    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise SourceError(
            f"{type(dataset).__name__} gives its samples one after the other, and none by number: take some, as in "
            "list(itertools.islice(dataset, 1000))"
        )
    whole, numbers = _unwrapped(dataset)
    if not len(numbers):
        raise SourceError(f"{type(whole).__name__} has no samples")
    first = _sample(whole, int(numbers[0]))
    keys = [k for k, v in first.items() if _is_image(str(k), v)]
    if not keys:
        raise SourceError(
            f"samples of {type(whole).__name__} have no image: their keys are {', '.join(map(str, first))}. A "
            "dataset of scenes is a raster: open its files with rioxarray or odc-stac, and embed that"
        )
    labels = _labels_of(whole, numbers, first)
    given = dask.delayed(whole, pure=True)
    found = {}
    for key in keys:
        bands, shape = _layout(whole, key, np.shape(first[key]))
        blocks = [
            da.from_delayed(
                dask.delayed(_read)(given, key, numbers[i : i + _SAMPLES], shape),
                (min(_SAMPLES, len(numbers) - i), *shape),
                np.float32,
            )
            for i in range(0, len(numbers), _SAMPLES)
        ]
        dims = ("location", *(("time",) if len(shape) == 4 else ()), BAND, "y", "x")
        coords = {"location": numbers, **({BAND: list(bands)} if bands else {}), **labels}
        attrs = {"source": type(whole).__name__}
        found[key] = xr.DataArray(
            da.concatenate(blocks), dims=dims, coords=coords, attrs=attrs, name="images"
        )
    return found[keys[0]] if len(keys) == 1 else {_sensor(k): v for k, v in found.items()}


def _sensor(key: str) -> str:
    """The sensor that an image of a sample is of: torchgeo calls them ``image_s1``, WebDataset ``s1_grd.pth``."""
    return key.removeprefix("image_").removesuffix(".pth")


def _unwrapped(dataset: Any) -> tuple[Any, np.ndarray]:
    """A dataset and the numbers of its samples; torch's Subset is a part of another."""
    numbers = np.arange(len(dataset))
    while type(dataset).__name__ == "Subset":
        numbers = np.asarray(dataset.indices)[numbers]
        dataset = dataset.dataset
    return dataset, numbers


def _sample(dataset: Any, number: int) -> Mapping[str, Any]:
    """A sample, the same each time: where a dataset draws, as seasons are, it draws by the sample's number."""
    if not hasattr(dataset, "seasons"):
        found = dataset[number]
    else:
        with _drawing:
            state = random.getstate()
            random.seed(number)
            try:
                found = dataset[number]
            finally:
                random.setstate(state)
    if not isinstance(found, Mapping):
        raise SourceError(
            f"a sample of {type(dataset).__name__} is a {type(found).__name__}, not a dict with an image: wrap it"
        )
    return found


def _is_image(key: str, value: Any) -> bool:
    return (
        np.ndim(value) in (3, 4) and not key.startswith(("mask", "label", "bbox")) and np.shape(value)[-1] > 1
    )


def _layout(dataset: Any, key: str, shape: tuple[int, ...]) -> tuple[Sequence[str] | None, tuple[int, ...]]:
    """Names of an image's bands, where the dataset says them, and its shape ``(time?, band, y, x)``."""
    own: Any = getattr(dataset, "bands", None)
    if isinstance(own, str) and type(dataset).__name__.startswith("BigEarthNet"):
        sensor = _sensor(key) if "_" in key else own
        own = _BIGEARTHNET.get(sensor, (*_BIGEARTHNET["s1"], *_BIGEARTHNET["s2"]))
    by_sensor = getattr(dataset, "modality_bands", None)
    if isinstance(by_sensor, Mapping):
        own = by_sensor.get(_sensor(key))
    if own is None and key.endswith(".pth"):
        own = _COPERNICUS.get(_sensor(key))
    names = None if own is None or isinstance(own, str) else [str(b) for b in own]
    count = shape[-3]
    if names and getattr(dataset, "seasons", 1) > 1 and count == len(names) * dataset.seasons:
        return names, (dataset.seasons, len(names), *shape[-2:])
    if names is None and count == 3:
        names = ["red", "green", "blue"]
    return (names if names is not None and len(names) == count else None), shape


def _read(dataset: Any, key: str, numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Images of some samples, float32 ``(location, time?, band, y, x)``; seasons in the order of their dates."""
    out = np.empty((len(numbers), *shape), np.float32)
    for into, number in zip(out, numbers, strict=True):
        sample = _sample(dataset, int(number))
        image = _as_measured(dataset, key, sample)
        if image.size != into.size:
            raise SourceError(
                f"the image of sample {number} of {type(dataset).__name__} is {image.shape}, and others are {shape}"
            )
        into[...] = image.reshape(shape)
        dates = np.asarray(sample.get("t", ()))
        if len(shape) == 4 and dates.shape == shape[:1]:
            into[...] = into[np.argsort(dates, kind="stable")]
    return out


def _as_measured(dataset: Any, key: str, sample: Mapping[str, Any]) -> np.ndarray:
    """An image of a sample in its sensor's units: MMEarth normalises by band, and Sentinel-2 by its level."""
    image = np.asarray(sample[key], np.float32)
    how = getattr(dataset, "normalization_mode", None)
    if how not in ("z-score", "min-max") or not hasattr(dataset, "band_stats"):
        return image
    sensor = _sensor(key)
    own, first = sensor, 0
    if sensor == "sentinel2":
        own = f"sentinel2_{dataset.tile_info[str(int(sample['tile_id']))]['S2_type']}"
    elif sensor.startswith("sentinel1"):  # both orbits are one sensor there, one after the other
        own, first = "sentinel1", 4 * sensor.endswith("_desc")
    if own not in dataset.band_stats:
        return image
    bands = dataset.all_modality_bands[sensor]
    at = [first + bands.index(b) for b in dataset.modality_bands[sensor]]
    low, high = ("mean", "std") if how == "z-score" else ("min", "max")
    shift, size = (np.asarray(dataset.band_stats[own][k])[at, None, None] for k in (low, high))
    if (
        sensor == "sentinel2"
    ):  # it looks for 0, which is no data, after it has normalised, and there 0 is the mean
        image = np.nan_to_num(image, nan=0.0)
    values = image * (size if how == "z-score" else size - shift) + shift
    if sensor == "sentinel2":
        values = np.rint(values)
        values[values == 0] = np.nan
    return values.astype(np.float32)


def _labels_of(dataset: Any, numbers: np.ndarray, first: Mapping[str, Any]) -> dict[str, Any]:
    """Return what samples have beside images, along ``location``, without the images where a dataset allows it."""
    plain = {
        k: v
        for k, v in first.items()
        if np.ndim(v) == 0 and np.asarray(v).dtype.kind in "biufU" and k != "res"
    }
    many = np.ndim(first["label"]) == 1 if "label" in first else False
    if not plain and not many:
        return {}
    only_label = many or set(plain) == {"label"}
    if only_label and hasattr(dataset, "targets") and len(dataset.targets) == len(dataset):
        labels = np.asarray(dataset.targets)[numbers]
    elif only_label and type(dataset).__name__.startswith("BigEarthNet") and not dataset.transforms:
        labels = np.stack([np.asarray(dataset._load_target(int(n))) for n in numbers])
    else:
        samples = [_sample(dataset, int(n)) for n in numbers]
        columns = {
            k: ("location", np.asarray([np.asarray(s[k]) for s in samples])) for k in plain if k != "label"
        }
        if "date" in columns and columns["date"][1].dtype.kind in "if":  # seconds since 1970
            columns["date"] = ("location", columns["date"][1].astype("M8[s]").astype("M8[ns]"))
        if "label" not in first:
            return columns
        labels = np.stack([np.asarray(s["label"]) for s in samples])
        return {**columns, **_named_labels(dataset, labels)}
    return _named_labels(dataset, labels)


def _named_labels(dataset: Any, labels: np.ndarray) -> dict[str, Any]:
    sets = getattr(dataset, "class_sets", {})  # BigEarthNet's two
    names = [
        str(each) for each in getattr(dataset, "classes", sets.get(getattr(dataset, "num_classes", 0), ()))
    ]
    if labels.ndim == 2:
        names = names if len(names) == labels.shape[1] else [f"label {k}" for k in range(labels.shape[1])]
        return {name: ("location", labels[:, k].astype(bool)) for k, name in enumerate(names)}
    if names and labels.dtype.kind in "iu" and labels.max(initial=0) < len(names):
        return {"label": ("location", np.asarray(names)[labels])}
    return {"label": ("location", labels)}
