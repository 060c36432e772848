"""What a product's functions return is told by its type, and what is none of it is refused."""

import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError
from geoemb_xr.core.protocols import Coverage, Example, Open, StoredTile, kind_of_opened
from geoemb_xr.readers.tiles import Tile


def tile():
    grid = gx.testing.geobox((4, 5))
    return Tile("a.tif", grid, ("2018-01-01",), reader=None, dtype="float32", bands=("0", "1"))


def test_our_tile_is_a_stored_tile():
    assert isinstance(tile(), StoredTile)
    assert not isinstance("a.tif", StoredTile)


def test_the_functions_of_every_product_are_of_their_kind(catalog_products):
    for each in catalog_products:
        for function, kind in ((each.open, Open), (each.coverage, Coverage), (each.example, Example)):
            assert function is None or isinstance(function, kind), each.name


@pytest.mark.parametrize(
    ("opened", "kind"),
    [
        ([], "tiles"),
        ([tile()], "tiles"),
        ((tile(), tile()), "tiles"),
        (xr.DataArray(0), "array"),
        (xr.Dataset(), "dataset"),
    ],
)
def test_what_was_opened_is_told_apart(opened, kind):
    assert kind_of_opened(opened, "mine") == kind


@pytest.mark.parametrize(
    ("opened", "got"),
    [(None, "a NoneType"), ("a.tif", "a str"), (["a.tif"], "a list with a str"), ({}, "a dict")],
)
def test_what_is_none_of_them_is_refused_by_name(opened, got):
    mine = gx.Product("opens-wrongly", dims=2, open=lambda source, request: opened)
    with pytest.raises(
        SourceError, match=f"the open function of product 'opens-wrongly' returned {got}; it returns"
    ):
        gx.open(mine, "a.tif")


def test_what_is_no_function_is_refused():
    with pytest.raises(ValueError, match=r"open of product 'mine' is a function; got 'a.tif'"):
        gx.Product("mine", dims=2, open="a.tif")
