"""GeoCLIP: a location encoder aligned with ground photographs; the package ``geoclip`` carries its weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoemb_xr.core.errors import SourceError, missing
from geoemb_xr.core.model import Product
from geoemb_xr.embedding.geoclip import location_encoder
from geoemb_xr.embedding.locations import open_encoder, vectors_at
from geoemb_xr.readers.tiles import Request

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

NAME = "geoclip"


def open_geoclip(source: Any, request: Request) -> xr.DataArray:
    """GeoCLIP's vectors on a grid, an area or points."""
    if source is not None:
        raise SourceError(f"{NAME!r} has its weights in the package geoclip: leave out source={source!r}")
    _package()
    return open_encoder(load_geoclip, request, PRODUCT, lonlat=False, source="geoclip package")


def vectors_at_places(lonlat: np.ndarray) -> np.ndarray:
    """GeoCLIP's vectors of longitudes and latitudes."""
    _package()
    return vectors_at(load_geoclip, lonlat, lonlat=False)


def _package() -> Path:
    """The folder of the installed package, without importing it."""
    spec = importlib.util.find_spec("geoclip")
    if spec is None or spec.origin is None:
        raise missing("geoclip", "locations")
    return Path(spec.origin).parent


def load_geoclip() -> Any:
    """The location encoder with its weights."""
    return location_encoder(_package() / "model" / "weights" / "location_encoder_weights.pth")


PRODUCT = Product(
    NAME,
    dims=512,
    title="GeoCLIP location encoder",
    kind="location",
    extent="Global",
    model="GeoCLIP",
    encoder="Equal Earth projection, random Fourier features at three scales, MLP",
    inputs="longitude and latitude; trained against Flickr photographs (MP-16)",
    access="weights in the Python package geoclip",
    containers=(),
    aliases=("geo-clip",),
    citation=(
        "Vivanco Cepeda, V., Nayak, G. K., Shah, M. (2023): GeoCLIP: Clip-Inspired Alignment between Locations and "
        "Images for Effective Worldwide Geo-localization. NeurIPS 2023. arXiv:2309.16020"
    ),
    bibtex=(
        "@inproceedings{vivanco2023geoclip,\n  title = {{GeoCLIP}: Clip-Inspired Alignment between Locations "
        "and Images for Effective Worldwide Geo-localization},\n  author = {Vivanco Cepeda, Vicente and "
        "Nayak, Gaurav Kumar and Shah, Mubarak},\n  booktitle = {Advances in Neural Information Processing "
        "Systems},\n  year = {2023}\n}"
    ),
    doi="10.48550/arXiv.2309.16020",
    licence="MIT",
    licence_notes="Of code and weights.",
    attribution="GeoCLIP, Vivanco Cepeda et al. 2023 (MIT).",
    quirks=(
        "A function of the place alone: no time, and no file.",
        "Pixels are 0.01 degrees wide where nothing else is asked for.",
    ),
    open=open_geoclip,
    place=vectors_at_places,
)
