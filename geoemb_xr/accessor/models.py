"""The methods of ``.emb`` that fit a model, apply one, or search an array for places like a given one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from geoemb_xr.core import times

if TYPE_CHECKING:
    import pandas as pd

    from geoemb_xr.analysis.clusters import KMeans
    from geoemb_xr.analysis.components import PCA
    from geoemb_xr.comparing.explaining import Explanation
    from geoemb_xr.compression.losses import Losses
    from geoemb_xr.compression.quantizers import Compressor
    from geoemb_xr.execution.workers import Resources
    from geoemb_xr.probes.probe import Method, Probe
    from geoemb_xr.retrieval.sketches import Sketch


class Models:
    """Methods of ``.emb`` that fit or apply models, or search; :class:`EmbAccessor` has the others."""

    _obj: xr.DataArray

    # --- looking -----------------------------------------------------------------------------------------

    def fit_pca(
        self,
        n_components: int = 3,
        *,
        n_samples: int | Literal["all"] | None = None,
        weights: xr.DataArray | Sequence[xr.DataArray] | None = None,
        mask: xr.DataArray | Sequence[xr.DataArray] | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> PCA:
        """Fit principal components; see :func:`geoemb_xr.fit_pca`."""
        from geoemb_xr.analysis.components import fit_pca

        return fit_pca(
            self._obj, n_components, n_samples=n_samples, weights=weights, mask=mask, seed=seed, device=device
        )

    def pca(self, model: PCA) -> xr.DataArray:
        """Scores along components; see :func:`geoemb_xr.pca`."""
        from geoemb_xr.analysis.components import pca

        return pca(self._obj, model)

    def rgb(
        self,
        model: PCA | Sequence[str] | None = None,
        *,
        limits: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
    ) -> xr.DataArray:
        """A picture of three components or bands; see :func:`geoemb_xr.rgb`."""
        from geoemb_xr.analysis.components import rgb

        return rgb(self._obj, model, limits=limits)

    def fit_clusters(
        self,
        n_clusters: int,
        *,
        mask: xr.DataArray | Sequence[xr.DataArray] | None = None,
        n_samples: int | Literal["all"] = 200_000,
        seed: int = 0,
        method: Literal["full", "minibatch"] = "full",
    ) -> KMeans:
        """Fit k-means; see :func:`geoemb_xr.fit_clusters`."""
        from geoemb_xr.analysis.clusters import fit_clusters

        return fit_clusters(self._obj, n_clusters, mask=mask, n_samples=n_samples, seed=seed, method=method)

    # --- probing -----------------------------------------------------------------------------------------

    def fit_probe(
        self,
        labels: Any = None,
        *,
        target: str | None = None,
        method: Method = "logistic",
        time: Any = None,
        group: Any = None,
        weights: Any = None,
        n_samples: int | Literal["all"] | None = None,
        cv: int = 5,
        seed: int = 0,
        **options: Any,
    ) -> Probe:
        """Fit a probe on labels; see :func:`geoemb_xr.fit_probe`."""
        from geoemb_xr.probes.fitting import fit_probe

        return fit_probe(
            self._obj,
            labels,
            target=target,
            method=method,
            time=time,
            group=group,
            weights=weights,
            n_samples=n_samples,
            cv=cv,
            seed=seed,
            **options,
        )

    def predict(
        self,
        model: Any,
        *,
        output: str | Sequence[str] = "label",
        device: str = "auto",
        batch_size: int | str = "auto",
        resources: Resources | None = None,
    ) -> Any:
        """Apply a fitted model; see :func:`geoemb_xr.predict`."""
        from geoemb_xr.predicting.maps import predict

        return predict(
            self._obj, model, output=output, device=device, batch_size=batch_size, resources=resources
        )

    def explain(
        self,
        probe: Probe,
        *,
        labels: Any = None,
        target: str | None = None,
        time: Any = None,
        group: Any = None,
        layers: Mapping[str, xr.DataArray] | None = None,
        cv: int = 5,
        repeats: int = 5,
        seed: int = 0,
    ) -> Explanation:
        """What a probe relies on; see :func:`geoemb_xr.explain`."""
        from geoemb_xr.comparing.explaining import explain

        return explain(
            self._obj, probe, labels=labels, target=target, time=time, group=group, layers=layers, cv=cv,
            repeats=repeats, seed=seed,
        )  # fmt: skip

    # --- retrieval ---------------------------------------------------------------------------------------

    def similarity(
        self,
        query: Any,
        *,
        how: Literal["mean", "max"] = "mean",
        metric: Literal["cosine", "euclidean"] = "cosine",
        time: times.TimeLike = None,
        crs: object = None,
        device: str = "cpu",
    ) -> xr.DataArray:
        """How similar every pixel is to a place; see :func:`geoemb_xr.similarity`."""
        from geoemb_xr.retrieval.scores import similarity

        return similarity(self._obj, query, how=how, metric=metric, time=time, crs=crs, device=device)

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        negatives: Any = None,
        exclude_query: bool = True,
        min_distance: float | None = None,
        how: Literal["mean", "max", "each"] = "mean",
        metric: Literal["cosine", "euclidean"] = "cosine",
        time: times.TimeLike = None,
        background: Any = None,
        sketch: Sketch | str | os.PathLike[str] | None = None,
        crs: object = None,
        device: str = "cpu",
    ) -> pd.DataFrame:
        """The k most similar places; see :func:`geoemb_xr.search`."""
        from geoemb_xr.retrieval.ranking import search

        return search(
            self._obj,
            query,
            k,
            negatives=negatives,
            exclude_query=exclude_query,
            min_distance=min_distance,
            how=how,
            metric=metric,
            time=time,
            background=background,
            sketch=sketch,
            crs=crs,
            device=device,
        )

    def build_sketch(self, path: str | os.PathLike[str] | None = None, *, seed: int = 0) -> Sketch:
        """64 sign bits per vector for :meth:`search`; see :func:`geoemb_xr.build_sketch`."""
        from geoemb_xr.retrieval.sketches import build_sketch

        return build_sketch(self._obj, path, seed=seed)

    # --- fewer bytes -------------------------------------------------------------------------------------

    def fit_compressor(
        self,
        *,
        dims: int | None = None,
        codec: Literal["int8", "signed-square", "bit"] = "int8",
        method: Literal["pca", "prefix"] = "pca",
        n_samples: int | Literal["all"] | None = None,
        mask: xr.DataArray | Sequence[xr.DataArray] | None = None,
        seed: int = 0,
    ) -> Compressor:
        """Fit a compressor; see :func:`geoemb_xr.fit_compressor`."""
        from geoemb_xr.compression.quantizers import fit_compressor

        return fit_compressor(
            self._obj, dims=dims, codec=codec, method=method, n_samples=n_samples, mask=mask, seed=seed
        )

    def compress(self, model: Compressor) -> xr.DataArray:
        """Vectors in fewer bytes; see :func:`geoemb_xr.compress`."""
        from geoemb_xr.compression.quantizers import compress

        return compress(self._obj, model)

    def decompress(self, model: Compressor) -> xr.DataArray:
        """Vectors of the first space again; see :func:`geoemb_xr.decompress`."""
        from geoemb_xr.compression.quantizers import decompress

        return decompress(self._obj, model)

    def losses(
        self,
        labels: Any = None,
        *,
        target: str | None = None,
        dims: Sequence[int] = (8, 16, 32),
        n_samples: int = 6000,
        seed: int = 0,
    ) -> Losses:
        """What fewer bytes cost; see :func:`geoemb_xr.losses`."""
        from geoemb_xr.compression.losses import losses

        return losses(self._obj, labels, target=target, dims=dims, n_samples=n_samples, seed=seed)
