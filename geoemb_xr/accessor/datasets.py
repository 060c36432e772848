"""The ``.emb`` accessor of Datasets, such as ``predict(output=[…])`` gives: each variable by its own rule."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import xarray as xr

from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.synonyms import answering_methods, no_method

if TYPE_CHECKING:
    import pandas as pd

    from geoemb_xr.execution.planning import Plan
    from geoemb_xr.geo.pools import Stats


@xr.register_dataset_accessor("emb")  # type: ignore[no-untyped-call]  # xarray's own decorator
@answering_methods
class EmbDatasetAccessor:
    """Methods for Datasets of embeddings and maps, as ``dataset.emb.…``.

    Variables without a place (neither y and x nor ``location``) are kept as they are.

    Parameters
    ----------
    dataset : Dataset
        Any; each method says what it needs.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._obj = dataset

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            from geoemb_xr.accessor.arrays import EmbAccessor

            if hasattr(EmbAccessor, name) and not name.startswith("_"):
                first = next(iter(map(str, self._obj.data_vars)), "name")
                raise AttributeError(
                    f"{name!r} is of one array: ds[{first!r}].emb.{name}; this Dataset holds "
                    f"{list(self._obj.data_vars)}"
                )
            raise AttributeError(no_method(name, dir(type(self)), "Dataset.emb", xr.Dataset))

    def __repr__(self) -> str:
        lines = [
            f"  {name}: {', '.join(f'{d} {n}' for d, n in v.sizes.items())}" for name, v in self._obj.items()
        ]
        return "\n".join([f"<emb of {len(lines)} variables>", *lines])

    # --- a place ---------------------------------------------------------------------------------------------

    def crop(
        self, area: Any, *, crs: object = geometry.LONLAT, mask: bool = True, all_touched: bool = False
    ) -> xr.Dataset:
        """The part of every variable inside an area; see :func:`geoemb_xr.crop`."""
        from geoemb_xr.geo.points import crop

        return self._map_placed(lambda array: crop(array, area, crs=crs, mask=mask, all_touched=all_touched))

    def reproject(
        self,
        target: Any,
        *,
        resolution: float | tuple[float, float] | None = None,
        resampling: Literal["nearest", "bilinear", "average", "mode"] | None = None,
        chunks: int | tuple[int, int] | Mapping[Hashable, int] | None = None,
    ) -> xr.Dataset:
        """Every variable on another grid; see :func:`geoemb_xr.reproject`."""
        from geoemb_xr.geo.warp import reproject

        options: dict[str, Any] = {"resolution": resolution, "resampling": resampling, "chunks": chunks}
        return self._map_placed(lambda array: reproject(array, target, **options))

    def coarsen(self, factor: int) -> xr.Dataset:
        """Every variable in pixels factor × factor as large; see :func:`geoemb_xr.coarsen`."""
        from geoemb_xr.geo.warp import coarsen

        return self._map_placed(lambda array: coarsen(array, factor))

    def sample(
        self, points: Any, *, crs: object = None, method: Literal["nearest"] = "nearest"
    ) -> xr.Dataset:
        """Values of every variable at points; see :func:`geoemb_xr.sample`."""
        from geoemb_xr.geo.points import sample

        return self._map_placed(lambda array: sample(array, points, crs=crs, method=method))

    def zonal_stats(
        self, areas: Any, *, crs: object = None, stats: Stats | None = None, all_touched: bool = False
    ) -> xr.Dataset:
        """Every variable pooled in polygons; see :func:`geoemb_xr.zonal_stats`."""
        from geoemb_xr.geo.zonal import zonal_stats

        options: dict[str, Any] = {"crs": crs, "stats": stats, "all_touched": all_touched}
        return self._map_placed(lambda array: zonal_stats(array, areas, **options))

    # --- looking ---------------------------------------------------------------------------------------------

    def load(self) -> xr.Dataset:
        """Compute every variable into memory with every thread; see :func:`geoemb_xr.load`."""
        from geoemb_xr.execution.memory import load

        return load(self._obj)

    def plan(self) -> Plan:
        """What computing all variables would read and hold; see :func:`geoemb_xr.plan`."""
        from geoemb_xr.execution.planning import plan_of

        return plan_of(list(self._obj.data_vars.values()))

    def plot(
        self,
        *,
        cols: int = 2,
        pixels: int = 1000,
        title: str | None = None,
        figsize: tuple[float, float] | None = None,
        interactive: bool = False,
    ) -> Any:
        """Draw a panel per variable, or per year, component or category of one; see :func:`geoemb_xr.plot`."""
        from geoemb_xr.display.panels import plot_each

        return plot_each(
            self._placed(), cols=cols, pixels=pixels, title=title, figsize=figsize, interactive=interactive
        )

    # --- writing ---------------------------------------------------------------------------------------------

    def to_cog(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["w-", "w"] = "w-",
        encode: bool = False,
        overviews: Literal["auto", "mean", "mode", "nearest", "none"] = "auto",
        storage: Any = None,
    ) -> list[Path | str]:
        """Write one GeoTIFF per variable, named by ``{name}`` in the path; see :func:`geoemb_xr.to_cog`."""
        from geoemb_xr.writing.cog import to_cog_each

        options: dict[str, Any] = {"mode": mode, "encode": encode, "overviews": overviews, "storage": storage}
        return to_cog_each(self._placed(), path, **options)

    def to_zarr(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["w-", "w", "a", "r+"] = "w-",
        encode: bool = False,
        chunks: int = 256,
        shards: int | None = None,
        storage: Any = None,
        errors: Literal["raise", "missing"] = "raise",
    ) -> Path | str:
        """Write all variables to one Zarr store; see :func:`geoemb_xr.to_zarr`."""
        from geoemb_xr.writing.zarr import to_zarr

        return to_zarr(
            self._obj,
            path,
            mode=mode,
            encode=encode,
            chunks=chunks,
            shards=shards,
            storage=storage,
            errors=errors,
        )

    # --- each ------------------------------------------------------------------------------------------------

    def _placed(self) -> dict[str, xr.DataArray]:
        placed = {str(name): array for name, array in self._obj.data_vars.items() if _has_place(array)}
        if not placed:
            raise EmbeddingError(f"none of {list(self._obj.data_vars)} has y and x, or 'location'")
        return placed

    def _map_placed(self, function: Callable[[xr.DataArray], xr.DataArray]) -> xr.Dataset:
        """A function of every variable that has a place; the others as they are."""
        made = {name: function(array) for name, array in self._placed().items()}
        kept = {str(name): array for name, array in self._obj.data_vars.items() if str(name) not in made}
        made = _with_distinct_dims({**made, **kept})
        parts = [array.rename(name).to_dataset() for name, array in made.items()]
        try:
            # coordinates of one place are the same ones: to compare them would compute those of a value per pixel
            merged = xr.merge(parts, join="exact", compat="override")
        except ValueError as error:
            raise EmbeddingError(
                f"the variables {list(made)} give different labels, which one Dataset cannot hold ({error}); "
                "take them one by one: ds[name].emb"
            ) from error
        order = [name for name in self._obj.data_vars if name in merged]
        return merged[order].assign_attrs(self._obj.attrs)


def _has_place(array: xr.DataArray) -> bool:
    return {"y", "x"} <= set(array.dims) or "location" in array.dims


def _with_distinct_dims(arrays: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Variables whose classes or components are not those of the ones before have dimensions of their own."""
    known: dict[Hashable, pd.Index] = {}
    found = {}
    for name, array in arrays.items():
        own = {}
        for dim in ("category", "component"):
            if dim in array.indexes and not known.setdefault(dim, array.indexes[dim]).equals(
                array.indexes[dim]
            ):
                own[dim] = f"{name}_{dim}"
        found[name] = array.rename(own) if own else array
    return found
