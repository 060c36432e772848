"""Examples: a product's file holds its facts, and a room of its own writes what they are tried on."""

import ast
import inspect
from pathlib import Path

import pytest

import geoemb_xr as gx
from geoemb_xr.catalog import alphaearth
from geoemb_xr.core.model import registered
from geoemb_xr.examples import alphaearth as writer
from geoemb_xr.examples import cached, patches

WITH_EXAMPLE = [product for product in registered() if product.example is not None]


@pytest.mark.parametrize("product", WITH_EXAMPLE, ids=lambda product: product.name)
def test_an_example_is_written_by_the_room_of_examples(product):
    module = inspect.getmodule(product.example)
    assert module.__name__.startswith("geoemb_xr.examples.")
    catalog = Path(alphaearth.__file__).with_name(Path(module.__file__).name)
    names = [node.name for node in ast.parse(catalog.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert not [name for name in names if "example" in name]


def test_an_example_is_written_anew_when_what_writes_it_changes(monkeypatch, tmp_path):
    monkeypatch.setattr(cached, "cache_dir", lambda: tmp_path)
    first = gx.example("clay-v0")
    assert gx.example("clay-v0") == first
    for module in (writer, patches):
        found = gx.product("alphaearth")
        assert inspect.getsource(module) in cached._code_of(found)
    monkeypatch.setattr(cached, "_code_of", lambda found: "another")
    assert gx.example("clay-v0") != first
