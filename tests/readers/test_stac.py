"""STAC items stand for the data that they name, in whatever shape they are given."""

import json
import shutil

import numpy as np
import pytest
from object_server import ObjectServer

import geoemb_xr as gx
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.readers import stac

STORAGE = {"allow_http": True, "timeout": 5}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Tiles of two years, their items and a collection that links to them, in a served folder."""
    root = tmp_path_factory.mktemp("stac")
    source = gx.product("alphaearth").example(root / "tiles", "cog", years=(2020, 2021), size=64)
    files = sorted(source.rglob("*.tif*"))
    items = []
    for number, file in enumerate(files):
        name = f"item{number}.json"
        document = item_of(f"tiles/{file.relative_to(root / 'tiles').as_posix()}", name)
        (root / name).write_text(json.dumps(document))
        items.append(document)
    collection = {
        "stac_version": "1.0.0",
        "type": "Collection",
        "id": "aef",
        "links": [{"rel": "item", "href": f"./{each['id']}"} for each in items],
    }
    (root / "collection.json").write_text(json.dumps(collection))
    pages = [{"type": "FeatureCollection", "features": [each], "links": []} for each in items]
    for number, page in enumerate(pages[:-1], 1):
        page["links"] = [{"rel": "next", "href": f"page{number}.json"}]
    for number, page in enumerate(pages):
        (root / f"page{number}.json").write_text(json.dumps(page))
    return root, items, gx.open("alphaearth", [str(f) for f in files])[..., :16, :16].compute()


def item_of(href, name, **changes):
    return {
        "stac_version": "1.0.0",
        "type": "Feature",
        "id": name,
        "bbox": [11.0, 47.0, 12.0, 48.0],
        "assets": {
            "embedding": {"href": href, "roles": ["data"]},
            "look": {"href": "look.tif", "roles": ["overview"]},
            "thumb": {"href": "thumb.png"},
        },
        "links": [],
        **changes,
    }


class Pystac:
    """Stands for pystac's classes, which are told by where they are defined."""

    def __init__(self, document):
        self.document = document

    def to_dict(self):
        return self.document


Pystac.__module__ = "pystac.item"


def absolute(root, items):
    made = json.loads(json.dumps(items))
    for each in made:
        each["assets"]["embedding"]["href"] = str(root / each["assets"]["embedding"]["href"])
    return made


@pytest.mark.parametrize(
    "shape",
    ["dicts", "collection of dicts", "pystac", "file", "files", "linked", "pages", "url", "linked url"],
)
def test_items_of_every_shape_are_their_data(tiles, shape):
    root, items, expected = tiles
    with ObjectServer(root) as server:
        whole = absolute(root, items)
        source = {
            "dicts": whole,
            "collection of dicts": {"type": "FeatureCollection", "features": whole},
            "pystac": [Pystac(each) for each in whole],
            "file": root / "page0.json",
            "files": [root / each["id"] for each in items],
            "linked": str(root / "collection.json"),
            "pages": root / "page0.json",
            "url": [f"{server.url}/{each['id']}" for each in items],
            "linked url": f"{server.url}/collection.json",
        }[shape]
        opened = gx.open("alphaearth", source, storage=STORAGE)[..., :16, :16]
        np.testing.assert_array_equal(opened.values, expected.values)


def test_items_elsewhere_are_left_out_and_said(tiles):
    root, items, _ = tiles
    far = absolute(root, items)
    far[0] |= {"bbox": [100.0, 0.0, 101.0, 1.0]}
    far[0]["assets"]["embedding"]["href"] = "/nowhere/2020.tif"
    box = (11.36, 47.24, 11.38, 47.26)
    assert gx.open("alphaearth", far, bbox=box).size  # the file that is nowhere is not asked for
    with pytest.raises(CoverageError, match="none of the 1 STAC items touches"):
        gx.open("alphaearth", far[:1], bbox=box)


def test_earth_index_is_read_by_its_items(tmp_path):
    example = gx.product("earth-index").example(tmp_path, "geoparquet")
    file = example if example.is_file() else next(example.rglob("*.parquet"))
    item = item_of(str(file), "a")
    assert gx.open("earth-index", item).identical(gx.open("earth-index", file))


@pytest.mark.parametrize("href", ["file:///etc/a.tif", "/vsicurl/http://x/a.tif"])
def test_an_item_of_the_network_names_no_file_of_this_machine(href, tmp_path):
    (tmp_path / "i.json").write_text(json.dumps(item_of(href, "i")))
    with ObjectServer(tmp_path) as server, pytest.raises(SourceError, match="names a file of this machine"):
        gx.open("alphaearth", f"{server.url}/i.json", storage=STORAGE)


def test_paths_in_an_item_of_the_network_are_the_servers(tmp_path):
    assert stac._resolved("/etc/a.tif", "https://host/x/i.json") == "https://host/etc/a.tif"
    assert stac._resolved("../a.tif", "s3://bucket/x/y/i.json") == "s3://bucket/x/a.tif"
    assert stac._resolved("a b.tif", str(tmp_path / "i.json")) == str(tmp_path / "a b.tif")


def test_what_names_no_data_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="name no data"):
        gx.open("alphaearth", item_of("a.png", "i"))
    with pytest.raises(SourceError, match="relative"):
        gx.open("alphaearth", item_of("a.tif", "i"))


def test_geojson_of_points_is_no_stac(tmp_path):
    points = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {}, "geometry": None}],
    }
    (tmp_path / "a.geojson").write_text(json.dumps(points))
    assert stac.files_of(tmp_path / "a.geojson") is None
    assert stac.files_of(points) is None
    shutil.rmtree(tmp_path)
