"""Names that authors of products and encoders in other packages can rely on.

The modules behind these names may move between releases; the names here stay, and a change of one is announced in
the changelog a release before it.

======================  ========================================================================================
to describe             names
======================  ========================================================================================
a product               ``Product``, ``register``, ``Codec``, and its errors ``SourceError``, ``CoverageError``
what is asked of it     ``Request``, with its ``Area``
its rasters             ``Tile``, ``Reader``; of GeoTIFFs ``read_info``, ``check_bands``, ``geotiff_tile``; of Zarr
                        ``zarr_tile``; ``table_of`` and ``overlapping`` for its coverage
its Parquet files       ``PatchLayout``, ``open_patches``, ``coverage_patches``
its vectors at places   ``open_encoder``, ``vectors_at``
its files               ``expand``, ``year_of_file``, ``must_be_fetched``
its example             ``write_geotiff``, and :func:`geoemb_xr.testing.scene`
an encoder of images    ``Encoder``, ``read_weights``, ``fill``
a note to the user      ``say``
======================  ========================================================================================

Examples
--------
A product whose files are GeoTIFFs, one per year. In a package, ``open_mine`` stands at the top of a module, so that
workers can import it.

>>> import tempfile
>>> import geoemb_xr as gx
>>> from geoemb_xr.extending import (
...     Product,
...     expand,
...     geotiff_tile,
...     read_info,
...     register,
...     write_geotiff,
...     year_of_file,
... )
>>> def open_mine(source, request):
...     return [
...         geotiff_tile(read_info(file), times=[f"{year_of_file(file)}-01-01"], bands=MINE.bands)
...         for file in expand(source, [".tif"])
...     ]
>>> MINE = register(Product("tiles-of-mine", dims=4, resolution=10.0, open=open_mine))

>>> grid = gx.testing.geobox((64, 64), resolution=10.0)
>>> vectors = gx.testing.scene().vectors(*gx.testing.lonlat_of(grid), 2024, dims=4)
>>> with tempfile.TemporaryDirectory() as folder:
...     file = write_geotiff(f"{folder}/mine-2024.tif", vectors, grid)
...     array = gx.open("tiles-of-mine", folder).compute()
>>> dict(array.sizes), str(array.time.dt.year.item())
({'time': 1, 'band': 4, 'y': 64, 'x': 64}, '2024')
"""

from geoemb_xr.core.areas import Area
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.core.model import Codec, Product, register
from geoemb_xr.core.notes import say
from geoemb_xr.embedding.cards import Encoder
from geoemb_xr.embedding.locations import open_encoder, vectors_at
from geoemb_xr.embedding.weights import fill, read_weights
from geoemb_xr.readers.geoparquet import coverage_patches, open_patches
from geoemb_xr.readers.geotiff import check_bands, geotiff_tile, read_info, write_geotiff
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.readers.tiles import Reader, Request, Tile, overlapping, table_of
from geoemb_xr.readers.zarr import zarr_tile
from geoemb_xr.stores.paths import expand, must_be_fetched, year_of_file

__all__ = [
    "Area",
    "Codec",
    "CoverageError",
    "Encoder",
    "PatchLayout",
    "Product",
    "Reader",
    "Request",
    "SourceError",
    "Tile",
    "check_bands",
    "coverage_patches",
    "expand",
    "fill",
    "geotiff_tile",
    "must_be_fetched",
    "open_encoder",
    "open_patches",
    "overlapping",
    "read_info",
    "read_weights",
    "register",
    "say",
    "table_of",
    "vectors_at",
    "write_geotiff",
    "year_of_file",
    "zarr_tile",
]
