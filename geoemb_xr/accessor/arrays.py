"""The ``.emb`` accessor: one line per method, each calling the function of the same name.

It holds the array and nothing else: what it knows is computed when asked, so it cannot go stale.
Feature modules are imported inside the methods, so that importing the package stays light.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import xarray as xr

from geoemb_xr.accessor.models import Models
from geoemb_xr.core import arrays, geometry, model, times
from geoemb_xr.core.synonyms import answering_methods, no_method

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyproj
    from odc.geo.geobox import GeoBox
    from torchgeo.datasets import GeoDataset, NonGeoDataset

    from geoemb_xr.analysis.class_maps import Unit
    from geoemb_xr.analysis.components import PCA
    from geoemb_xr.comparing.areas import AreaEstimate
    from geoemb_xr.comparing.diagnostics import Diagnosis
    from geoemb_xr.core import citing
    from geoemb_xr.display.app import App
    from geoemb_xr.execution.planning import Plan
    from geoemb_xr.geo.pools import Stats
    from geoemb_xr.probes.probe import Probe


@xr.register_dataarray_accessor("emb")  # type: ignore[no-untyped-call]  # xarray's own decorator
@answering_methods
class EmbAccessor(Models):
    """Methods for embedding arrays and the maps made from them, as ``array.emb.…``.

    Parameters
    ----------
    array : DataArray
        Any; each method says what it needs.
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._obj = array

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(no_method(name, dir(type(self)), ".emb", xr.DataArray))

    def __repr__(self) -> str:
        from geoemb_xr.display.cards import array_summary

        return array_summary(self._obj)

    def _repr_html_(self) -> str:
        from geoemb_xr.display.cards import array_card

        return array_card(self._obj)

    # --- facts ---------------------------------------------------------------------------------------------

    @property
    def product(self) -> model.Product:
        """The product of an embedding array."""
        return model.check_embedding(self._obj, "product")

    @property
    def kind(self) -> model.ArrayKind:
        """``raster``, ``points`` or ``map``."""
        return model.kind_of(self._obj)

    @property
    def encoded(self) -> bool:
        """Whether the array holds integer codes."""
        return model.is_encoded(self._obj)

    @property
    def crs(self) -> pyproj.CRS | None:
        """The CRS of x and y."""
        return geometry.crs_of(self._obj)

    @property
    def geobox(self) -> GeoBox:
        """The grid, from x, y and the CRS."""
        return geometry.geobox_of(self._obj, "geobox")

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north of the outer edges of pixels, or of places, in the array's CRS."""
        from geoemb_xr.geo.footprints import bounds

        return bounds(self._obj)

    # --- vectors -------------------------------------------------------------------------------------------

    def decode(self) -> xr.DataArray:
        """Codes to float32 vectors; see :func:`geoemb_xr.decode`."""
        return arrays.decode(self._obj)

    def normalize(self) -> xr.DataArray:
        """Vectors of unit length; see :func:`geoemb_xr.normalize`."""
        return arrays.normalize(self._obj)

    def truncate(self, dims: int) -> xr.DataArray:
        """A Matryoshka prefix; see :func:`geoemb_xr.truncate`."""
        return arrays.truncate(self._obj, dims)

    def year(self, when: times.TimeLike) -> xr.DataArray:
        """One year, without ``time``; see :func:`geoemb_xr.year`."""
        return times.year(self._obj, when)

    def check(self, *, coverage: pd.DataFrame | None = None) -> dict[str, Any]:
        """Norms, missing share, seams, lost tiles; see :func:`geoemb_xr.check`."""
        from geoemb_xr.readers.health import check

        return check(self._obj, coverage=coverage)

    # --- points --------------------------------------------------------------------------------------------

    def sample(
        self, points: Any, *, crs: object = None, method: Literal["nearest"] = "nearest"
    ) -> xr.DataArray:
        """Values at points; see :func:`geoemb_xr.sample`."""
        from geoemb_xr.geo.points import sample

        return sample(self._obj, points, crs=crs, method=method)

    def to_grid(
        self, *, resolution: float | tuple[float, float] | None = None, geobox: GeoBox | None = None
    ) -> xr.DataArray:
        """Patches as a raster; see :func:`geoemb_xr.to_grid`."""
        from geoemb_xr.geo.gridding import to_grid

        return to_grid(self._obj, resolution=resolution, geobox=geobox)

    def crop(
        self,
        area: Any,
        *,
        crs: object = geometry.LONLAT,
        mask: bool = True,
        all_touched: bool = False,
    ) -> xr.DataArray:
        """The part inside an area; see :func:`geoemb_xr.crop`."""
        from geoemb_xr.geo.points import crop

        return crop(self._obj, area, crs=crs, mask=mask, all_touched=all_touched)

    def zonal_stats(
        self, areas: Any, *, crs: object = None, stats: Stats | None = None, all_touched: bool = False
    ) -> xr.DataArray:
        """Vectors pooled in polygons; see :func:`geoemb_xr.zonal_stats`."""
        from geoemb_xr.geo.zonal import zonal_stats

        return zonal_stats(self._obj, areas, crs=crs, stats=stats, all_touched=all_touched)

    def to_dataframe(self) -> pd.DataFrame:
        """A wide table; see :func:`geoemb_xr.to_dataframe`."""
        from geoemb_xr.geo.points import to_dataframe

        return to_dataframe(self._obj)

    def to_geodataframe(self, *, min_pixels: int = 1) -> gpd.GeoDataFrame:
        """A wide table with geometries; see :func:`geoemb_xr.to_geodataframe`."""
        from geoemb_xr.geo.points import to_geodataframe

        return to_geodataframe(self._obj, min_pixels=min_pixels)

    # --- geometry ------------------------------------------------------------------------------------------

    def reproject(
        self,
        target: Any,
        *,
        resolution: float | tuple[float, float] | None = None,
        resampling: Literal["nearest", "bilinear", "average", "mode"] | None = None,
        chunks: int | tuple[int, int] | Mapping[Hashable, int] | None = None,
        resultant_length: bool = False,
    ) -> Any:
        """Another grid; see :func:`geoemb_xr.reproject`."""
        from geoemb_xr.geo.warp import reproject

        return reproject(
            self._obj,
            target,
            resolution=resolution,
            resampling=resampling,
            chunks=chunks,
            resultant_length=resultant_length,
        )

    def coarsen(self, factor: int, *, resultant_length: bool = False) -> Any:
        """Means of factor × factor pixels; see :func:`geoemb_xr.coarsen`."""
        from geoemb_xr.geo.warp import coarsen

        return coarsen(self._obj, factor, resultant_length=resultant_length)

    # --- writing -------------------------------------------------------------------------------------------

    def cite(self) -> citing.Citation:
        """Attribution, licence and BibTeX; see :func:`geoemb_xr.cite`."""
        from geoemb_xr.core.citing import cite

        return cite(self._obj)

    def to_cog(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["w-", "w"] = "w-",
        encode: bool = False,
        overviews: Literal["auto", "mean", "mode", "nearest", "none"] = "auto",
        storage: Any = None,
    ) -> Path | str | list[Path | str]:
        """Write GeoTIFFs; see :func:`geoemb_xr.to_cog`."""
        from geoemb_xr.writing.cog import to_cog

        return to_cog(self._obj, path, mode=mode, encode=encode, overviews=overviews, storage=storage)

    def to_geoparquet(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["w-", "w"] = "w-",
        encode: bool = False,
        storage: Any = None,
    ) -> Path | str | list[Path | str]:
        """Write vectors at locations; see :func:`geoemb_xr.to_geoparquet`."""
        from geoemb_xr.writing.geoparquet import to_geoparquet

        return to_geoparquet(self._obj, path, mode=mode, encode=encode, storage=storage)

    def to_torchgeo(
        self,
        *,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        time_series: bool | None = None,
    ) -> GeoDataset | NonGeoDataset:
        """A torchgeo dataset; see :func:`geoemb_xr.to_torchgeo`."""
        from geoemb_xr.interop import to_torchgeo

        return to_torchgeo(self._obj, transforms=transforms, time_series=time_series)

    def to_stac(
        self, path: str | os.PathLike[str], *, id: str | None = None, href: str | None = None
    ) -> dict[str, Any]:
        """Write a STAC item beside a file; see :func:`geoemb_xr.to_stac`."""
        from geoemb_xr.writing.stac import to_stac

        return to_stac(self._obj, path, id=id, href=href)

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
        """Write a Zarr store; see :func:`geoemb_xr.to_zarr`."""
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

    # --- maps of classes -----------------------------------------------------------------------------------

    @property
    def legend(self) -> pd.DataFrame:
        """Names and colours of a class map, by code."""
        from geoemb_xr.analysis.class_maps import legend

        return legend(self._obj)

    def names(self) -> xr.DataArray:
        """Names of classes instead of codes; see :func:`geoemb_xr.names`."""
        from geoemb_xr.analysis.class_maps import names

        return names(self._obj)

    def area(
        self, unit: Unit | Any = "ha", *, areas: Any = None, crs: object = None
    ) -> pd.Series[float] | pd.DataFrame:
        """Ground area per class; see :func:`geoemb_xr.area`."""
        from geoemb_xr.analysis.class_maps import area

        return area(self._obj, unit, areas=areas, crs=crs)

    def sample_design(self, n: int, *, least: int | None = None, seed: int = 0) -> pd.DataFrame:
        """Places to be labelled; see :func:`geoemb_xr.sample_design`."""
        from geoemb_xr.comparing.areas import sample_design

        return sample_design(self._obj, n, least=least, seed=seed)

    def area_estimate(
        self,
        reference: Any,
        *,
        target: str = "label",
        design: Literal["stratified", "random"] | None = None,
        cluster: str | None = None,
        training: Any = None,
        level: float = 0.95,
        unit: Unit = "ha",
    ) -> AreaEstimate:
        """Areas with intervals; see :func:`geoemb_xr.area_estimate`."""
        from geoemb_xr.comparing.areas import area_estimate

        return area_estimate(
            self._obj, reference, target=target, design=design, cluster=cluster, training=training, level=level,
            unit=unit,
        )  # fmt: skip

    # --- time ----------------------------------------------------------------------------------------------

    def aggregate(
        self,
        how: Literal["mean", "median", "min", "max", "std"] = "mean",
        *,
        freq: str | None = None,
        groups: Mapping[Any, Hashable] | Sequence[Hashable] | None = None,
        weights: Mapping[Any, float] | Sequence[float] | xr.DataArray | None = None,
        skipna: bool = True,
        resultant_length: bool = False,
        count: bool = False,
    ) -> xr.DataArray | xr.Dataset:
        """One vector of several years; see :func:`geoemb_xr.aggregate`."""
        from geoemb_xr.analysis.temporal import aggregate

        return aggregate(
            self._obj,
            how,
            freq=freq,
            groups=groups,
            weights=weights,
            skipna=skipna,
            resultant_length=resultant_length,
            count=count,
        )

    def change(
        self,
        a: times.TimeLike,
        b: times.TimeLike = None,
        *,
        metric: Literal["angle", "cosine", "euclidean"] = "angle",
        null: Literal["years"] | None = None,
    ) -> xr.DataArray | xr.Dataset:
        """How far vectors moved between years; see :func:`geoemb_xr.change`."""
        from geoemb_xr.analysis.changes import change

        return change(self._obj, a, b, metric=metric, null=null)

    def change_point(self, *, metric: Literal["angle", "euclidean"] = "angle") -> xr.Dataset:
        """The year of the largest step; see :func:`geoemb_xr.change_point`."""
        from geoemb_xr.analysis.changes import change_point

        return change_point(self._obj, metric=metric)

    # --- looking -------------------------------------------------------------------------------------------

    def explore(
        self,
        *,
        model: PCA | None = None,
        labels: Any = None,
        target: str | None = None,
        probe: Probe | None = None,
        compare: xr.DataArray | None = None,
        design: Any = None,
        tiles: bool = False,
        width: int = 1180,
    ) -> App:
        """Look at an embedding interactively; see :func:`geoemb_xr.explore`."""
        from geoemb_xr.display.app import explore

        return explore(
            self._obj, model=model, labels=labels, target=target, probe=probe, compare=compare, design=design,
            tiles=tiles, width=width,
        )  # fmt: skip

    def plot(
        self,
        *,
        model: PCA | None = None,
        limits: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
        vmin: float | None = None,
        vmax: float | None = None,
        cmap: Any = None,
        cols: int = 4,
        pixels: int = 1000,
        title: str | None = None,
        figsize: tuple[float, float] | None = None,
        ax: Any = None,
        basemap: Any = None,
        interactive: bool = False,
    ) -> Any:
        """Draw an array as a map; see :func:`geoemb_xr.plot`."""
        from geoemb_xr.display.plotting import plot

        return plot(
            self._obj, model=model, limits=limits, vmin=vmin, vmax=vmax, cmap=cmap, cols=cols, pixels=pixels,
            title=title, figsize=figsize, ax=ax, basemap=basemap, interactive=interactive,
        )  # fmt: skip

    def scatter(
        self,
        *,
        by: xr.DataArray | str | None = None,
        method: Literal["pca", "umap"] = "pca",
        n_samples: int = 2500,
        thumbnails: int = 10,
        seed: int = 0,
        title: str | None = None,
        figsize: tuple[float, float] | None = None,
        ax: Any = None,
    ) -> Any:
        """Draw the space of an embedding; see :func:`geoemb_xr.scatter`."""
        from geoemb_xr.display.scattering import scatter

        return scatter(
            self._obj, by=by, method=method, n_samples=n_samples, thumbnails=thumbnails, seed=seed, title=title,
            figsize=figsize, ax=ax,
        )  # fmt: skip

    # --- knowing ----------------------------------------------------------------------------------------------

    def diagnose(
        self, *, n_samples: int = 10_000, neighbours: Sequence[int] = (10, 20, 100), seed: int = 0
    ) -> Diagnosis:
        """Intrinsic dimension, spread, norms and codes; see :func:`geoemb_xr.diagnose`."""
        from geoemb_xr.comparing.diagnostics import diagnose

        return diagnose(self._obj, n_samples=n_samples, neighbours=neighbours, seed=seed)

    def load(self) -> xr.DataArray:
        """Compute into memory with every thread; see :func:`geoemb_xr.load`."""
        from geoemb_xr.execution.memory import load

        return load(self._obj)

    def plan(self) -> Plan:
        """What computing this would read and hold; see :func:`geoemb_xr.plan`."""
        from geoemb_xr.execution.planning import plan

        return plan(self._obj)
