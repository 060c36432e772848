"""Embeddings of your own images: a lazy array that is encoded when it is computed, one task per block."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine

from geoemb_xr.core import geometry
from geoemb_xr.core.checks import is_count, is_number, is_whole
from geoemb_xr.core.errors import EmbeddingError, check_choice
from geoemb_xr.core.missing import scaling_in
from geoemb_xr.core.model import BAND, GENERATED, register
from geoemb_xr.embedding import chips, harmonizing, inputs, sensors, stacks
from geoemb_xr.embedding.cards import Encoder, Output, Pooling
from geoemb_xr.embedding.cards import encoder as find_encoder
from geoemb_xr.embedding.chips import Chip, ChipAxis
from geoemb_xr.embedding.encoding import Cutout, Job, Place, Window, encode_block
from geoemb_xr.embedding.harmonizing import Harmonize
from geoemb_xr.embedding.sensors import Factor
from geoemb_xr.execution import blocks, devices, workers
from geoemb_xr.execution.workers import Resources
from geoemb_xr.geo import lattice
from geoemb_xr.readers import samples

#: Side of a block of images that have no blocks of their own, in pixels.
BLOCK = 1024
#: Share of missing pixels above which the vector of a chip is missing.
MISSING = 0.25


def embed(
    images: Any,
    encoder: str | Encoder,
    *,
    bands: Sequence[str] | Mapping[str, str] | None = None,
    output: Output | None = None,
    pooling: Pooling | None = None,
    stride: int | None = None,
    margin: int | str = "auto",
    blend: bool = False,
    missing: float | None = None,
    time: Any = None,
    scale: Factor = 1.0,
    offset: Factor = 0.0,
    quality: bool = False,
    harmonize: Harmonize = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | str = "auto",
    chunks: int | str = "auto",
    resources: Resources | None = None,
) -> Any:
    """Encode images as an embedding array. Lazy: no image is read and no weights are loaded before it is computed.

    Chips are anchored in the lattice of the images' pixels, not in what is computed: a vector has one value
    whatever the chunks and the window, to 1e-5 of its size in float32.

    Parameters
    ----------
    images : DataArray (time?, band, y, x), Dataset with a variable per band, or dict of them
        Images with a CRS, in memory or lazy, as odc-stac, stackstac, rioxarray and Xee give them. Several sensors
        come by name, ``{"s2": …, "s1": …}``: the first gives grid and dates, others are read at its pixels, by
        month; None is one that is absent. Or chips as they are, ``(location, time?, band, y, x)``, of the
        encoder's size; series of pixels ``(location, time, band)``; or a dataset of torchgeo or torch, whose labels
        come along as coordinates.
    encoder : str or Encoder
        Name of an encoder (:func:`encoders` lists them), or a card.
    bands : sequence or mapping of str, optional
        The images' bands in the encoder's order, or from the encoder's names to the images'. Found by their names
        where it is not given. Where the images' bands have no names, it names them as they lie.
    output : {"tokens", "chips", "pixels"}, optional
        A vector per patch, a vector per chip, or a vector per pixel; the encoder's first.
    pooling : {"mean", "cls"}, optional
        Way in which the vector of a chip is made of its tokens; the encoder's own by default.
    stride : int, optional
        Pixels between chips, as many as each owns; a chip looks the same way beyond them on each side. By default
        the side of a chip, less the margins for tokens.
    margin : int or "auto"
        Distance in pixels that a chip looks beyond the tokens that are kept of it; the encoder's own by default.
    blend : bool
        Whether a token is the mean over all chips that see it, weighted by how far in them it lies, in float64 and
        in the order of the chips; else it is that of one chip. Seams become ramps, of vectors no network gave.
        Chips at the edge of a block are encoded for both blocks.
    missing : float, optional
        A chip with a larger share of missing pixels has no vector; 0.25 by default. In others they are filled with
        the encoder's mean. Encoders of series leave out what is missing: only a pixel without any value has none.
    time : date, "each" or selection, optional
        Date that an encoder of single dates sees, or one vector per date; the dates of a series.
    scale, offset : float or mapping of str to float
        ``images * scale + offset`` is in the encoder's unit: ``scale=1e-4`` makes digital numbers reflectance. By
        name for several sensors. What images declare (``scale_factor``) is not applied: it raises where the encoder
        takes another unit, unless one of these is given.
    quality : bool
        Give a Dataset of ``embedding``, ``valid`` (share of pixels that were seen) and ``edge`` (whether a chip was
        cut or moved at an edge of the images).
    harmonize : "auto" or bool
        Remove Sentinel-2's offset of processing baseline 04.00 first, where the images' coordinates say that it is
        there; see :func:`harmonize`. An ``offset`` that is just this one (-0.1 beside a scale of 1e-4) is then not
        added once more.
    device : str
        ``"auto"``, ``"cpu"`` or a device of torch, such as ``"cuda:0"``.
    precision : {"auto", "float32", "bfloat16"}
        bfloat16 by default on a GPU where the encoder's card says that it is safe.
    batch_size : int or "auto"
        Chips at a time.
    chunks : int or "auto"
        Side of a block of the result, in pixels of the images; that of the images' own blocks by default.
    resources : mapping of str to float, optional
        Resources that a worker of the connected dask cluster must offer, such as ``{"GPU": 1}``.

    Returns
    -------
    DataArray (time?, band, y, x) or (time?, location, band), or Dataset
        float32, NaN in every band where there is no vector. A pixel is a patch, a chip's stride or a pixel of the
        images. Product and version say the encoder, its weights and how images were prepared for it. Of images with
        the attribute ``generated_by``, which no sensor saw, the attribute is passed on, and the version is another.

    Raises
    ------
    EmbeddingError
        If the images are not what the encoder takes: no CRS, a rotated grid, missing bands, several dates, fewer
        pixels than a chip, no chip that lies in them, a declared scale that is not applied; and when computed, if
        their numbers cannot be in its unit.
    SourceError
        If its weights are not at hand.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> images = gx.testing.images((256, 256), chunks=128)
    >>> da = gx.embed(images, "rcf", stride=32)
    >>> da.dims, da.emb.product.name
    (('band', 'y', 'x'), 'rcf-encoder')
    """
    card = find_encoder(encoder)
    if output == "pixels" and output in card.outputs:
        card = card.of_pixels()
    generators = inputs.generators_of(images, card)
    if samples.is_samples(images):
        images = inputs.usable_sensors(samples.read_samples(images), card)
    images = inputs.as_array(images)
    are_joined = isinstance(images, Mapping)
    if are_joined:
        images, bands = sensors.joined(images, card, scale, offset, bands, harmonize), None
        scale, offset = 1.0, 0.0
    if isinstance(scale, Mapping) or isinstance(offset, Mapping):
        raise EmbeddingError(
            "scale and offset by sensor are for images by sensor, {'s2': …, 's1': …}; give numbers"
        )
    _check_factor("scale", scale)
    _check_factor("offset", offset)
    how = _Choices.of(card, output, pooling, stride, margin, missing)
    _check_run(how, blend=blend, device=device, precision=precision, batch_size=batch_size)
    is_stack = stacks.is_stack(images)
    if is_stack and output == "tokens":
        raise EmbeddingError(
            "chips without a place get a vector each, output='chips'; tokens are for a raster with a CRS"
        )
    raster = stacks.as_stack(images, card) if is_stack else inputs.as_raster(images, card)
    declared = scaling_in(raster.attrs)
    left = float(offset)
    if not are_joined:
        left = harmonizing.offset_left(raster, harmonize, float(scale), left)
        raster = harmonizing.harmonize(raster, harmonize)
    inputs.check_numbers(raster)
    nodata = inputs.missing_value(raster)
    raster = inputs.pick_bands(inputs.pick_time(raster, card, time), card, bands)
    inputs.check_scaling(declared, raster, card, scale, offset)
    card = _with_bands_of(raster, card)
    job = Job(
        encoder=card,
        output="chips" if is_stack and card.kind != "series" else how.output,
        pooling=how.pooling,
        side=how.side,
        missing=how.missing,
        present=tuple(card.bands.index(b) for b in _labels(raster)),
        nodata=nodata,
        scale=float(scale),
        offset=left,
        months=_months(raster) if card.kind != "image" and not is_stack else (),
        grid=None if is_stack else lattice.source_grid(raster),
        device=device,
        precision=precision,
        batch_size=batch_size,
        quality=quality,
    )
    version = card.version + ("-cls" if job.output == "chips" and job.pooling == "cls" else "")
    version += "-generated" if generators else ""  # a space of its own: never compared with what was observed
    with workers.asked_for(resources):
        if job.grid is None:
            return _with_generators(stacks.embed_stack(raster, job, version), generators)
        inputs.tell_resolution(card, job.grid.metres)
        axes = how.axis(job.grid.y), how.axis(job.grid.x)
        inside = math.prod(
            axis.most_inside(raster.sizes[d]) for axis, d in zip(axes, ("y", "x"), strict=True)
        )
        if 1 - inside > how.missing:
            raise EmbeddingError(
                f"no chip has a vector: chips lie on a lattice, and the fullest has {inside:.0%} of its pixels in "
                f"the images of {raster.sizes['y']} × {raster.sizes['x']} pixels. Give larger images, "
                f"missing={math.ceil(100 - 100 * inside) / 100:g}, or chips as they are with dims (location, band, "
                "y, x)"
            )
        data = _lazy(raster, axes, job, _side_of(raster, chunks), blend=blend)
    return _with_generators(_labelled(data, raster, axes, job, version, blend=blend), generators)


def _check_run(how: _Choices, *, blend: bool, device: str, precision: str, batch_size: int | str) -> None:
    """Raise unless the network can be run so, and its tokens blended if they are to be."""
    if blend and (how.output != "tokens" or how.stride == how.encoder.chip):
        raise EmbeddingError(
            "blend is for output='tokens' of chips that overlap: give a margin=, or a stride= below the chip's "
            f"{how.encoder.chip} pixels"
        )
    devices.check_device(device)
    check_choice("precision", precision, ("auto", "float32", "bfloat16"))
    if batch_size != "auto" and not is_count(batch_size):
        raise EmbeddingError(f"batch_size is a number of chips, or 'auto'; got {batch_size!r}")


def _with_bands_of(raster: xr.DataArray, card: Encoder) -> Encoder:
    """The encoder for the bands of a raster: its first layer is made for these, or a series masks the others."""
    if not card.bands:
        return replace(card, bands=_labels(raster))
    return (
        card.with_bands(_labels(raster)) if card.kind == "image" and _labels(raster) != card.bands else card
    )


def _check_factor(name: str, value: Any) -> None:
    """Raise unless it is a finite number, and no scale of zero."""
    if not is_number(value) or not math.isfinite(value) or (name == "scale" and value == 0):
        raise EmbeddingError(
            f"{name} is a number, as in scale=1e-4: images * scale + offset is in the encoder's unit; got {value!r}"
        )


def _with_generators(found: Any, generators: str) -> Any:
    """The result, which says what a generative model made up of it."""
    if generators:
        parts = found.data_vars.values() if isinstance(found, xr.Dataset) else [found]
        for each in parts:
            each.attrs[GENERATED] = generators
    return found


@dataclass(frozen=True)
class _Choices:
    """The options of one call, checked against the encoder's card."""

    encoder: Encoder
    output: Output
    pooling: Pooling
    stride: int
    missing: float

    @classmethod
    def of(
        cls,
        card: Encoder,
        output: Output | None,
        pooling: Pooling | None,
        stride: Any,
        margin: int | str,
        missing: Any,
    ) -> _Choices:
        output = check_choice("output", output or card.outputs[0], card.outputs)
        pooling = check_choice("pooling", pooling or card.pooling, ("mean", "cls"))
        if pooling == "cls" and not card.prefix:
            raise EmbeddingError(f"{card.name} has no class token: use pooling='mean'")
        if margin != "auto" and not is_whole(margin):
            raise EmbeddingError(f"margin is a number of pixels or 'auto'; got {margin!r}")
        if margin != "auto" and (output != "tokens" or stride is not None):
            raise EmbeddingError("margin is for output='tokens', and says the stride: give one of the two")
        beyond = card.margin if margin == "auto" else int(margin)
        whole = card.chip - 2 * beyond if output == "tokens" else card.chip
        if stride is not None and not is_whole(stride):
            raise EmbeddingError(f"stride is a number of pixels; got {stride!r}")
        step = whole if stride is None else int(stride)
        unit = card.patch if output == "tokens" else 1
        if output != "pixels" and not (
            0 < step <= card.chip and (card.chip - step) % (2 * unit) == 0 and step % unit == 0
        ):
            raise EmbeddingError(
                f"{card.name} looks at chips of {card.chip} pixels: for {output} their stride is at most that, and "
                f"what they look beyond it on each side, ({card.chip} - stride) / 2, whole "
                + (f"patches of {unit} pixels" if unit > 1 else "pixels")
                + f"; got {f'stride={stride}' if stride is not None else f'margin={margin}'}"
            )
        if missing is not None and not (is_number(missing) and 0 <= missing <= 1):
            raise EmbeddingError(f"missing is a share from 0 to 1; got {missing!r}")
        usual = MISSING if card.kind == "image" else 1.0
        return cls(card, output, pooling, step, usual if missing is None else float(missing))

    @property
    def side(self) -> int:
        """Side of a chip, in pixels."""
        return 1 if self.output == "pixels" else self.encoder.chip

    def axis(self, along: lattice.Axis) -> ChipAxis:
        """Chips along an axis of the images."""
        card, start = self.encoder, chips.global_number(along.start)
        if self.output == "pixels":
            return chips.lay_pixels(start, along.size)
        if self.output == "chips":
            return chips.lay_chips(start, along.size, side=card.chip, stride=self.stride)
        margin = (card.chip - self.stride) // 2
        return chips.lay_tokens(start, along.size, side=card.chip, patch=card.patch, margin=margin)


def _labels(raster: xr.DataArray) -> tuple[str, ...]:
    if BAND in raster.coords:
        return tuple(str(b) for b in raster.coords[BAND].values)
    return tuple(str(i) for i in range(raster.sizes[BAND]))


def _months(raster: xr.DataArray) -> tuple[int, ...]:
    return tuple(int(m) - 1 for m in raster.coords["time"].dt.month.values)


def _side_of(raster: xr.DataArray, chunks: int | str) -> int:
    """Pixels of the images along a side of a block of the result."""
    if chunks == "auto":
        if raster.chunks is None:
            return BLOCK
        return int(max(*raster.variable.chunksizes["y"], *raster.variable.chunksizes["x"]))
    if not is_count(chunks):
        raise EmbeddingError(f"chunks is a number of pixels of the images, or 'auto'; got {chunks!r}")
    return int(chunks)


# --- the graph --------------------------------------------------------------------------------------------------


def _lazy(raster: xr.DataArray, axes: tuple[ChipAxis, ChipAxis], job: Job, side: int, *, blend: bool) -> Any:
    """The lazy data of the result: one task per block, which takes only the image blocks that it overlaps."""
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    from geoemb_xr.execution.internals import DataNode, Task, TaskRef

    source = (raster if raster.chunks is not None else blocks.cut_blocks(raster, {"y": side, "x": side})).data
    rows, cols = (axis.blocks(side) for axis in axes)
    days = _days(raster) if job.encoder.takes else [math.nan] * raster.sizes.get("time", 1)
    name = f"embed-{tokenize(source.name, job, rows, cols, days, blend)}"
    tasks: dict[Any, Any] = {f"{name}-job": DataNode(f"{name}-job", job)}
    for (t, dates), (i, row), (j, col) in itertools.product(
        enumerate(_dates(raster, job)), enumerate(rows), enumerate(cols)
    ):
        beside = (axes[0].beside(row), axes[1].beside(col)) if blend else None
        seen = beside or (row, col)
        window = _span(seen[0], job.side, raster.sizes["y"]), _span(seen[1], job.side, raster.sizes["x"])
        found = list(_pieces(source.chunks, (*dates, (0, raster.sizes[BAND]), *window)))
        key = (name, *([t] if dates else []), 0, i, j)
        refs = [TaskRef((source.name, *index)) for index, _ in found]
        place = Place(row, col, window, days[t], beside)
        tasks[key] = Task(key, encode_block, TaskRef(f"{name}-job"), place, tuple(p for _, p in found), *refs)
    graph = HighLevelGraph.from_collections(name, MaterializedLayer(tasks), dependencies=[source])
    sizes = tuple(tuple(group[-1].stop - group[0].first for group in groups) for groups in (rows, cols))
    times = [(1,) * len(_dates(raster, job))] if "time" in raster.dims else []
    shape = (*times, (job.length,), *sizes)
    return da.Array(graph, name, shape, meta=np.empty((0,) * len(shape), np.float32))


def _days(raster: xr.DataArray) -> list[float]:
    """Days since 1970 of each date, NaN where there is none."""
    if "time" not in raster.coords or raster.coords["time"].dtype.kind != "M":
        return [math.nan] * raster.sizes.get("time", 1)
    since = np.atleast_1d(raster.coords["time"].values) - np.datetime64("1970-01-01", "ns")
    return [float(d) for d in since / np.timedelta64(1, "D")]


def _dates(raster: xr.DataArray, job: Job) -> list[tuple[Window, ...]]:
    """The part of the time axis that each date of the result is made of; empty without a time axis."""
    if "time" not in raster.dims:
        return [()]
    count = raster.sizes["time"]
    return [((0, count),)] if job.encoder.kind != "image" else [((t, t + 1),) for t in range(count)]


def _span(group: Sequence[Chip], side: int, size: int) -> Window:
    """The pixels of the images that chips in a row look at."""
    last = group[-1]
    stop = last.stop if side == 1 else last.start + side
    return max(group[0].start, 0), min(stop, size)


def _pieces(
    chunks: Sequence[Sequence[int]], spans: Sequence[Window]
) -> Iterator[tuple[tuple[int, ...], Cutout]]:
    """Blocks that a window touches, and which part of each becomes which part of the window."""
    along = []
    for sizes, (start, stop) in zip(chunks, spans, strict=True):
        edges = np.concatenate(([0], np.cumsum(sizes)))
        low, high = np.searchsorted(edges, start, "right") - 1, np.searchsorted(edges, stop, "left")
        touched = []
        for k in range(int(low), int(high)):
            a, b = max(start, int(edges[k])), min(stop, int(edges[k + 1]))
            if a < b:
                touched.append((k, slice(a - start, b - start), slice(a - int(edges[k]), b - int(edges[k]))))
        along.append(touched)
    for some in itertools.product(*along):
        index, into, of = zip(*some, strict=True)
        yield index, Cutout(into, of)


# --- the result -------------------------------------------------------------------------------------------------


def _labelled(
    data: Any, raster: xr.DataArray, axes: tuple[ChipAxis, ChipAxis], job: Job, version: str, *, blend: bool
) -> Any:
    """The result with its grid, its times and what it is."""
    product = register(job.encoder.product)
    assert job.grid is not None
    box = geometry.make_geobox((axes[0].size, axes[1].size), _affine(job.grid, axes), geometry.crs_of(raster))
    coords: dict[str, Any] = dict(geometry.grid_coords(box))
    dims: tuple[str, ...] = (BAND, "y", "x")
    if "time" in raster.dims:
        dims = ("time", *dims)
        whole = job.encoder.kind != "image"
        if "time" in raster.coords:
            stamps = raster.coords["time"].values
            coords["time"] = stamps[:1] if whole else stamps
    elif "time" in raster.coords and raster.coords["time"].ndim == 0:
        coords["time"] = raster.coords["time"]
    attrs = {
        "product": product.name,
        "version": version,
        "source": str(raster.attrs.get("source") or raster.encoding.get("source") or "images in memory"),
    }
    vectors = data[..., : job.encoder.dims, :, :] if job.quality else data
    named = {**coords, BAND: list(product.bands)}
    out = xr.DataArray(vectors, dims=dims, coords=named, attrs=attrs, name="embedding")
    if not job.quality:
        return out
    derived = {"derived_from": f"{product.name} {version}"}
    valid = xr.DataArray(
        data[..., job.encoder.dims, :, :],
        dims=[d for d in dims if d != BAND],
        coords=coords,
        attrs={"long_name": "share of pixels that were seen", **derived},
    )
    rows, cols = (axis.edges(blend=blend) for axis in axes)
    edge = xr.DataArray(
        rows[:, None] | cols[None, :],
        dims=("y", "x"),
        coords={d: coords[d] for d in ("y", "x", geometry.SPATIAL_REF)},
        attrs={"long_name": "chip cut or moved at an edge of the images", **derived},
    )
    return xr.Dataset({"embedding": out, "valid": valid, "edge": edge})


def _affine(grid: lattice.Grid, axes: tuple[ChipAxis, ChipAxis]) -> Affine:
    """Affine of the result from the origin of the lattice, the same for a crop of the images as for the whole."""
    y, x = (
        ((along.start - chips.global_number(along.start)) + axis.origin * axis.patch) * along.step
        for axis, along in zip(axes, (grid.y, grid.x), strict=True)
    )
    return Affine(grid.x.step * axes[1].patch, 0, x, 0, grid.y.step * axes[0].patch, y)
