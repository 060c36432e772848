"""The accessor is one line a method: the function of the same name, first argument dropped."""

import ast
import inspect
import pickle
import textwrap

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.accessor import EmbAccessor
from geoemb_xr.core.errors import EmbeddingError

FACTS = {"product", "kind", "encoded", "crs", "geobox", "bounds", "legend"}
METHODS = [
    name for name, _ in inspect.getmembers(EmbAccessor, inspect.isfunction) if not name.startswith("_")
]


def test_every_method_has_a_function_and_every_fact_is_a_property():
    properties = {name for name, _ in inspect.getmembers(EmbAccessor, lambda v: isinstance(v, property))}
    assert properties <= FACTS
    missing = [name for name in METHODS if not callable(getattr(gx, name, None))]
    assert missing == []


@pytest.mark.parametrize("name", METHODS)
def test_method_and_function_have_the_same_signature(name):
    method = list(inspect.signature(getattr(EmbAccessor, name)).parameters.values())[1:]
    function = list(inspect.signature(getattr(gx, name)).parameters.values())[1:]
    assert [(p.name, p.kind, p.default) for p in method] == [(p.name, p.kind, p.default) for p in function]


@pytest.mark.parametrize("name", METHODS)
def test_method_passes_everything_on(name):
    """Its body is a docstring, imports, and one call with each argument under its own name."""
    (method,) = ast.parse(textwrap.dedent(inspect.getsource(getattr(EmbAccessor, name)))).body
    statements = [s for s in method.body[1:] if not isinstance(s, (ast.Import, ast.ImportFrom))]
    assert len(statements) == 1
    assert isinstance(statements[0], ast.Return)
    call = statements[0].value
    assert isinstance(call, ast.Call)
    called = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
    assert called == name
    given = [a.arg for a in (*method.args.args[1:], *method.args.kwonlyargs)]
    positional = [ast.unparse(a) for a in call.args]
    keywords = {k.arg: ast.unparse(k.value) for k in call.keywords if k.arg is not None}
    assert positional[0] == "self._obj"
    passed = set(positional[1:]) | {k for k, v in keywords.items() if k == v}
    starred = {ast.unparse(a.value) for a in call.args if isinstance(a, ast.Starred)}
    assert set(given) <= passed | starred, f"{name} does not pass on {set(given) - passed - starred}"


def test_methods_are_documented():
    for name in METHODS:
        assert getattr(EmbAccessor, name).__doc__, name


def test_the_accessor_holds_no_state():
    da = gx.testing.synthetic("alphaearth", shape=(4, 4))
    bare = len(pickle.dumps(da))
    assert da.emb.product.name == "alphaearth"
    assert len(pickle.dumps(da)) < bare + 500
    da.attrs["product"] = "tessera"
    with pytest.raises(ValueError, match="not those of 'tessera'"):
        _ = da.emb.product


def test_repr_computes_nothing():
    da = gx.testing.synthetic("alphaearth", shape=(8, 8), chunks=4)
    with gx.testing.raise_if_dask_computes():
        text, html = repr(da.emb), da.emb._repr_html_()
    assert "alphaearth" in text
    assert "CC-BY-4.0" in html


def test_bounds_are_the_outer_edges():
    grid = gx.testing.synthetic("alphaearth", shape=(8, 4))
    assert grid.emb.bounds == tuple(grid.emb.geobox.boundingbox.bbox)
    assert grid.isel(y=slice(None, None, -1)).emb.bounds == grid.emb.bounds
    points = gx.testing.scene().points(20, radius=100)
    there = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.sample(points)
    np.testing.assert_allclose(there.emb.bounds, [there.x.min(), there.y.min(), there.x.max(), there.y.max()])
    patches = gx.open("clay-v0", gx.example("clay-v0"))
    np.testing.assert_allclose(patches.emb.bounds, patches.emb.to_geodataframe().total_bounds)
    with pytest.raises(EmbeddingError, match="bounds"):
        grid.drop_vars("spatial_ref").emb.bounds  # noqa: B018
