"""What must be shown with whatever is made of a product."""

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError


def test_cite_gives_what_must_be_shown():
    da_ = gx.testing.synthetic("alphaearth", shape=(4, 4))
    cited = da_.emb.cite()
    assert cited.licence == "CC-BY-4.0"
    assert cited.bibtex.startswith("@")
    assert "Google" in str(cited)
    assert gx.cite("alphaearth").attribution == gx.product("alphaearth").attribution
    changed = gx.testing.synthetic("alphaearth", shape=(4, 4), years=[2018, 2020]).emb.change(2018, 2020)
    assert changed.emb.cite().products == ("alphaearth synthetic",)
    assert "<pre>" in cited._repr_html_()


def test_cite_of_nothing_known():
    with pytest.raises(EmbeddingError, match="without 'product', 'derived_from' or 'attribution'"):
        gx.cite(xr.DataArray(np.zeros((2, 2)), dims=("y", "x")))


def test_cite_makes_an_entry_of_a_doi():
    made = gx.Product(
        "citing-doi", dims=2, doi="10.1/x", title="A title", licence="CC0-1.0", licence_notes="unclear"
    )
    cited = gx.cite(made)
    assert cited.bibtex == "@misc{citingdoi,\n  title = {A title},\n  doi = {10.1/x}\n}"
    assert cited.licence == "CC0-1.0 (unclear)"
