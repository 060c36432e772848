"""Presto, embeddings of Togo by NASA Harvest: uint16 codes whose scaling is not published."""

from __future__ import annotations

from typing import Any

from geoemb_xr.core.codecs import UNSCALED
from geoemb_xr.core.model import Product
from geoemb_xr.core.notes import say
from geoemb_xr.examples.presto import example_presto
from geoemb_xr.execution.threads import side_by_side
from geoemb_xr.readers import geotiff
from geoemb_xr.readers.tiles import Request, Tile
from geoemb_xr.stores import paths

NAME = "presto"
DIMS = 128
BANDS = tuple(str(i) for i in range(DIMS))
_CRS = "EPSG:25231"
_START = "2019-03-01"


def open_presto(source: Any, request: Request) -> list[Tile]:
    """Tiles of local files, all of the one year from March 2019."""
    if source is None:
        raise paths.must_be_fetched(
            NAME,
            "Togo_Presto_embeddings_v2025_06_19*.tif",
            "Hugging Face, dataset izvonkov/Togo_Presto_Embeddings (128.8 GB in all)",
        )
    say("presto: uint16 codes become float32 without scaling, because no publisher states one; 0 is missing")
    return side_by_side(_tile, paths.expand(source, (".tif", ".tiff")))


def _tile(name: str) -> Tile:
    info = geotiff.read_info(name)
    numbers = geotiff.check_bands(info, NAME, BANDS, ("uint16",))
    version = info.tags.get("GEOEMB_VERSION", PRODUCT.versions[0])
    return geotiff.geotiff_tile(info, times=(_START,), bands=BANDS, indexes=numbers, fill=0, version=version)


PRODUCT = Product(
    NAME,
    dims=DIMS,
    title="Presto embeddings of Togo",
    kind="pixel",
    bands=BANDS,
    dtype="uint16",
    codec=UNSCALED,
    resolution=10.0,
    extent="Togo",
    period="2019–2020",
    cadence="Annual",
    survey="Presto | Pixel | Togo | 10 m | 2019–2020 | Annual | 128 | uint16 | CC-BY-4.0",
    model="Presto",
    encoder="Transformer over a pixel's own time series",
    inputs="Sentinel-1, Sentinel-2, ERA5, SRTM and the place, of one pixel, March 2019 to March 2020",
    trained_on=("Dynamic World",),
    access="Hugging Face and Earth Engine: download, then give the files",
    containers=("geotiff",),
    versions=("v2025_06_19",),
    torchgeo="PrestoEmbeddings",
    aliases=("presto-togo", "togo-presto", "PrestoEmbeddings"),
    citation=(
        "Zvonkov, I., Tseng, G., Becker-Reshef, I., Kerner, H. (2025): Cropland Mapping using Geospatial "
        "Embeddings. arXiv:2511.02923; model: Tseng, G. et al. (2023): Lightweight, pre-trained transformers "
        "for remote sensing timeseries. arXiv:2304.14065"
    ),
    bibtex=(
        "@article{zvonkov2025cropland,\n  title = {Cropland Mapping using Geospatial Embeddings},\n  author "
        "= {Zvonkov, Ivan and Tseng, Gabriel and Becker-Reshef, Inbal and Kerner, Hannah},\n  journal = "
        "{arXiv preprint arXiv:2511.02923},\n  year = {2025}\n}\n@article{tseng2023presto,\n  title = "
        "{Lightweight, Pre-trained Transformers for Remote Sensing Timeseries},\n  author = {Tseng, Gabriel "
        "and others},\n  journal = {arXiv preprint arXiv:2304.14065},\n  year = {2023}\n}"
    ),
    doi="10.48550/arXiv.2511.02923",
    licence="CC-BY-4.0",
    attribution="Presto embeddings of Togo, NASA Harvest (CC BY 4.0).",
    quirks=(
        "How the uint16 codes map to the model's floats is not published; distances and angles are of codes.",
        "A vector of zeros is missing; the files declare no nodata.",
        "The '19' before the offsets in a file's name is the day of the release, not a year.",
    ),
    open=open_presto,
    example=example_presto,
)
