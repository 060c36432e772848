"""Products, the registry, and what may be compared with what."""

import pickle

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core import errors, model
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError, MissingExtraError
from geoemb_xr.core.model import Product


def test_one_class_catches_every_error_of_ours():
    """Wherever it was raised: a script need not know whether a file or what was asked for is at fault."""
    own = [errors.ComparabilityError, errors.CoverageError, errors.SourceError]
    assert all(issubclass(each, EmbeddingError) and issubclass(each, ValueError) for each in own)
    assert [getattr(gx, each.__name__) for each in own] == own
    assert gx.EmbeddingError is EmbeddingError


def test_a_name_and_a_length_are_a_whole_product():
    mine = Product("two-words", dims=3)
    assert mine.bands == mine.decoded_bands == ("0", "1", "2")
    assert pickle.loads(pickle.dumps(mine)) == mine


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "Upper", "dims": 3}, "lower case"),
        ({"name": "x", "dims": 0}, "at least 1"),
        ({"name": "x", "dims": 3, "bands": ("a", "b")}, "dims=3 but 2 band labels"),
        ({"name": "x", "dims": 3, "kind": "pixle"}, "Did you mean 'pixel'"),
    ],
)
def test_a_malformed_product_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Product(**wrong)


@pytest.mark.parametrize("name", ["alphaearth", "AEF", "gse", "GoogleSatelliteEmbedding", "Alpha_Earth"])
def test_aliases_find_the_same_product(name):
    assert gx.product(name) is gx.product("alphaearth")


def test_a_changed_product_of_ones_own_takes_the_place_of_the_one_before(caplog):
    gx.register(Product("cell-run-twice", dims=3, aliases=("first-alias",)))
    gx.register(Product("cell-run-twice", dims=3, aliases=("first-alias",)))
    assert not caplog.records  # the same again
    changed = gx.register(Product("cell-run-twice", dims=4, aliases=("second-alias",), doi="10.1/x"))
    (note,) = caplog.messages
    assert "product 'cell-run-twice' is registered again, with another dims, bands, aliases, doi" in note
    assert gx.product("cell-run-twice") is gx.product("second-alias") is changed
    with pytest.raises(ValueError, match="unknown product 'first-alias'"):
        gx.product("first-alias")


@pytest.mark.parametrize(
    ("name", "aliases"),
    [("alphaearth", ()), ("aef", ()), ("mine", ("Alpha_Earth",)), ("mine", ("cell-of-mine",))],
)
def test_the_name_of_another_product_is_kept_for_it(name, aliases):
    gx.register(Product("cell-of-mine", dims=3))
    known = model.registered()
    with pytest.raises(ValueError, match=r"already, with other facts; give yours another name"):
        gx.register(Product(name, dims=3, aliases=aliases))
    assert model.registered() == known


def test_unknown_product_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown product 'alphaerth'.*tessera.*Did you mean 'alphaearth'"):
        gx.product("alphaerth")


def test_a_name_that_several_begin_with_lists_them():
    with pytest.raises(ValueError, match=r"Did you mean 'clay-v0' or .*'clay-v1.5-sentinel2'\?"):
        gx.product("Clay")


def test_every_product_has_the_facts_that_must_travel():
    for each in model.registered():
        if each.open is None:
            continue
        assert each.licence, each.name
        assert each.attribution, each.name
        assert each.citation, each.name
        assert each.containers or each.kind == "location", each.name


def test_products_is_a_table_with_a_row_a_product():
    table = gx.products()
    assert list(table.index) == [p.name for p in model.registered()]
    assert table.loc["alphaearth", "codec"] == "signed-square"
    assert table.loc["alphaearth", "unit_norm"]


def test_codes_turned_into_floats_are_named_with_the_way_out():
    codes = gx.testing.synthetic("alphaearth", shape=(4, 4), decode=False)
    shifted = codes.where(codes["x"] > codes["x"][0])
    assert shifted.dtype.kind == "f"  # what plain xarray does, and why dtype alone cannot tell
    with pytest.raises(EmbeddingError, match=r"plain xarray turned into float.*decode first"):
        shifted.emb.decode()


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (xr.DataArray(np.zeros((2, 2)), dims=("y", "x")), "needs an embedding"),
        (xr.DataArray(np.zeros(2), dims="band", attrs={"product": "nope"}), "unknown product"),
        (
            xr.DataArray(np.zeros(2, "i1"), dims="band", attrs={"product": "alphaearth"}),
            "without the attribute 'codec'",
        ),
        (
            xr.DataArray(
                np.zeros(2, "f4"), dims="band", coords={"band": ["B2", "B3"]}, attrs={"product": "aef"}
            ),
            "bands that are not those of 'alphaearth'",
        ),
    ],
)
def test_what_is_no_embedding_is_refused(array, says):
    with pytest.raises(ValueError, match=says):
        model.check_embedding(array, "test")


def test_split_bands_are_refused():
    da = gx.testing.synthetic("alphaearth", shape=(4, 4), chunks=4).chunk(band=32)
    with pytest.raises(EmbeddingError, match=r"all bands in one chunk.*chunk\(band=-1\)"):
        da.emb.normalize()


def test_two_spaces_are_never_mixed():
    with pytest.raises(ComparabilityError, match=r"cannot mix alphaearth v1 and tessera v1\.1"):
        model.check_comparable("change", ("alphaearth", "v1"), ("tessera", "v1.1"))
    model.check_comparable("change", ("alphaearth", "v1"), ("alphaearth", "v1"))


def test_missing_package_names_the_extra():
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[viz\]'"):
        errors.require("no_such_package_at_all.sub", "viz")


def test_maps_never_keep_product_or_codec():
    da = gx.testing.synthetic("alphaearth", shape=(4, 4), decode=False)
    attrs = model.derived_attrs(da, units="degree")
    assert set(attrs) == {"derived_from", "attribution", "units"}
    assert attrs["derived_from"] == "alphaearth synthetic"
