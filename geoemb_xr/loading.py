"""Reading fitted models from files; the one place that knows every class."""

from __future__ import annotations

import importlib
import os

from geoemb_xr.core.fitted import Fitted, read_model

_MODULES = (
    "analysis.components",
    "analysis.clusters",
    "probes.probe",
    "compression.quantizers",
    "compression.distilling",
)


def load_model(path: str | os.PathLike[str]) -> Fitted:
    """Read any fitted model (PCA, KMeans, Probe, Compressor, Student) from what its ``save`` or ``to_onnx`` wrote.

    Needs no torch.

    Parameters
    ----------
    path : path
        An npz or ONNX file, whose ending may be left out as ``save`` adds it. Pickles in it are refused.

    Raises
    ------
    SourceError
        If it is not a model of ours.

    Examples
    --------
    >>> import geoemb_xr as gx, tempfile, pathlib
    >>> pca = gx.testing.synthetic("alphaearth", shape=(16, 16)).emb.fit_pca(3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gx.load_model(pca.save(pathlib.Path(folder) / "pca.npz")) == pca
    True
    """
    for module in _MODULES:
        importlib.import_module(f"geoemb_xr.{module}")
    return read_model(path)
