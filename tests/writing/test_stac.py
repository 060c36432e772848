"""STAC items, held against what the embeddings extension asks for; arrays to netCDF and back."""

import json

import lazily
import numpy as np
import pytest
import shapely
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError

jsonschema = lazily.importorskip("jsonschema")
LINK = {"type": "object", "required": ["rel", "href"]}
#: What the embeddings extension v0.0.1 (github.com/geo-embeddings/embeddings-stac-specification at 0a9cb04) and
#: STAC 1.0.0 ask of an item: no other ``emb:`` fields than these, and an asset called ``embeddings``.
SCHEMA = {
    "type": "object",
    "required": [
        "type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "properties", "assets",
    ],
    "properties": {
        "type": {"const": "Feature"},
        "stac_version": {"const": "1.0.0"},
        "stac_extensions": {
            "contains": {"const": "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"}
        },
        "bbox": {"type": "array", "minItems": 4, "maxItems": 4, "items": {"type": "number"}},
        "links": {"items": LINK},
        "properties": {
            "required": ["datetime"],
            "properties": {
                "emb:runtime_parameters": {"type": "object"},
                "emb:fit_for_use": {"type": "array", "items": {"type": "string"}},
                "emb:spatial_coverage": {"type": "string"},
                "emb:quantization": {
                    "type": "object",
                    "required": ["method", "original_dtype"],
                    "properties": {
                        "method": {"type": "string"},
                        "original_dtype": {"type": "string"},
                        "quantized_dtype": {"type": "string"},
                        "scale": {"type": "array", "items": {"type": "number"}},
                        "offset": {"type": "array", "items": {"type": "number"}},
                        "link": LINK,
                    },
                    "additionalProperties": False,
                },
            },
            "patternProperties": {"^(?!emb:)": {}},
            "additionalProperties": False,
        },
        "assets": {
            "required": ["embeddings"],
            "additionalProperties": {
                "required": ["href"],
                "patternProperties": {"^(?!emb:)": {}},
                "additionalProperties": False,
            },
        },
    },
}  # fmt: skip


def validate(item):
    jsonschema.Draft7Validator(SCHEMA).validate(item)


@pytest.fixture(scope="module")
def codes():
    return gx.testing.synthetic("alphaearth", shape=(30, 40), years=[2018, 2024], decode=False)


def test_an_item_is_valid_and_says_what_where_and_when(codes, tmp_path):
    path = codes.emb.to_zarr(tmp_path / "aoi.zarr")
    item = codes.emb.to_stac(path)
    validate(item)
    assert json.loads((tmp_path / "aoi.zarr.json").read_text()) == item
    properties = item["properties"]
    assert properties["emb:quantization"]["method"] == "signed_square"
    assert properties["emb:quantization"]["quantized_dtype"] == "int8"
    assert (properties["start_datetime"], properties["end_datetime"]) == (
        "2018-01-01T00:00:00Z",
        "2024-12-31T23:59:59Z",
    )
    assert properties["proj:code"] == "EPSG:32632"
    assert properties["proj:shape"] == [30, 40]
    assert properties["proj:transform"][:6] == list(codes.emb.geobox.affine)[:6]
    assert properties["license"] == "CC-BY-4.0"
    footprint = shapely.geometry.shape(item["geometry"])
    expected = codes.emb.geobox.footprint("EPSG:4326").geom
    assert footprint.buffer(1e-9).contains(expected)
    assert footprint.bounds == tuple(item["bbox"])
    asset = item["assets"]["embeddings"]
    assert (tmp_path / asset["href"]).exists()
    assert [each["name"] for each in asset["raster:bands"]] == codes.band.values.tolist()


def test_what_breaks_the_schema_is_seen(codes, tmp_path):
    item = codes.emb.to_stac(tmp_path / "aoi.zarr")
    for broken in (
        {**item, "properties": {**item["properties"], "emb:dims": 64}},
        {**item, "assets": {"map": item["assets"]["embeddings"]}},
        {**item, "stac_extensions": []},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validate(broken)


def test_points_and_maps_have_items_of_their_own(codes, tmp_path):
    places = codes.emb.year(2024).emb.decode().emb.sample(gx.testing.scene().points(9, radius=100))
    item = places.emb.to_stac(
        tmp_path / "points.parquet", href="https://example.org/points.parquet", id="nine"
    )
    validate(item)
    assert item["id"] == "nine"
    assert item["assets"]["embeddings"]["href"] == "https://example.org/points.parquet"
    classes = gx.testing.scene().truth(codes.emb.geobox, 2024)
    item = classes.emb.to_stac(tmp_path / "cover.tif")
    (band,) = item["assets"]["map"]["raster:bands"]
    assert (band["nodata"], band["classes"][0]) == (0, {"value": 1, "name": "water"})
    assert not any(key.startswith("emb:") for key in item["properties"])
    with pytest.raises(EmbeddingError, match="needs 'x', 'y' and a CRS"):
        codes.drop_vars("spatial_ref").emb.change(2018, 2024).emb.to_stac(tmp_path / "x.tif")


@pytest.mark.parametrize("decode", [True, False])
def test_arrays_come_back_from_netcdf(codes, tmp_path, decode):
    array = codes.emb.decode() if decode else codes
    array.to_netcdf(tmp_path / "aoi.nc", engine="scipy" if decode else None)
    back = gx.open("alphaearth", tmp_path / "aoi.nc", decode=False)
    np.testing.assert_array_equal(back.values, array.values)
    assert back.emb.geobox == codes.emb.geobox
    assert back.attrs["version"] == "synthetic"
    xr.testing.assert_equal(back.time, codes.time)
