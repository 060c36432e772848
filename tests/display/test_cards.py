"""Cards and plans: what is told is true, and nothing is computed to tell it."""

import shutil

import dask.array as dask_array
import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core import html
from geoemb_xr.testing import raise_if_dask_computes


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Codes of four years in COGs, in 8 blocks."""
    return gx.open("alphaearth", gx.example("alphaearth"), decode=False)


def test_summary_says_what_an_array_is(opened):
    with raise_if_dask_computes():
        text = repr(opened.emb)
    for word in (
        "alphaearth synthetic: raster",
        "codes (signed-square, int8)",
        "EPSG:32632",
        "of 10 m",
        "2018, 2020, 2022, 2024",
        f"{html.human_bytes(opened.nbytes)} as codes",
        f"{html.human_bytes(opened.nbytes * 4)} decoded",
        f"in {opened.data.npartitions} blocks",
        "CC-BY-4.0",
        "Google DeepMind",
    ):
        assert word in text, word


def test_html_is_escaped_and_has_the_legend(opened):
    truth = gx.testing.scene().truth(opened.emb.geobox, 2018)
    html = truth.emb._repr_html_()
    assert html.count("background:#") == 6
    assert "<table" in html
    evil = opened.assign_attrs(source="<script>alert(1)</script>")
    assert "<script>" not in evil.emb._repr_html_()
    evil = truth.assign_attrs(long_name="<b>x</b>")
    assert "<b>x</b>" not in evil.emb._repr_html_()


def test_any_array_has_a_card():
    plain = xr.DataArray(np.ones((2, 3)), dims=("a", "b"))
    assert "<map: 2 × 3 (a, b)>" in repr(plain.emb)
    broken = gx.testing.synthetic("alphaearth", shape=(4, 5), decode=False).astype("float32")
    assert "decode first" in repr(broken.emb)
    points = gx.testing.synthetic("alphaearth", shape=(9, 9)).emb.sample(
        gx.testing.scene().points(5, radius=30)
    )
    assert "points of" in repr(points.emb)
    assert "in memory" in repr(points.emb)


@pytest.mark.parametrize("name", ["alphaearth", "tessera"])
def test_product_card_has_the_facts(name):
    found = gx.product(name)
    html = found._repr_html_()
    for word in (found.title, found.licence, str(found.dims)):
        assert word in html
    assert gx.Product("bare", dims=3)._repr_html_().count("<tr>") == 2


def test_plan_counts_what_is_read(opened):
    with raise_if_dask_computes():
        everything = opened.emb.plan()
    assert everything.read_bytes == opened.nbytes
    assert everything.reads == everything.blocks == opened.data.npartitions
    assert everything.result_bytes == opened.nbytes
    assert everything.requests >= everything.reads
    one = opened.isel(time=0).emb.plan()
    assert one.reads * 4 == everything.reads
    assert one.read_bytes * 4 == everything.read_bytes
    change = opened.emb.change(2018, 2024).emb.plan()
    assert change.read_bytes * 2 == everything.read_bytes
    assert change.result_bytes == opened.sizes["y"] * opened.sizes["x"] * 4
    assert change.peak_memory < everything.peak_memory
    assert change.tasks > 0


class Store:
    """Something that dask can slice."""

    shape, ndim, dtype = (1, 64, 8, 8), 4, np.dtype(np.int8)

    def __getitem__(self, key):
        return np.zeros(self.shape, self.dtype)[key]


def test_plan_of_other_sources():
    held = gx.testing.synthetic("alphaearth", shape=(8, 8))
    assert held.emb.plan().tasks == 0
    assert "nothing to read" in str(held.emb.plan())
    source = dask_array.from_array(Store(), chunks=(1, 64, 4, 4))
    lazy = gx.wrap(source, "alphaearth", geobox=gx.testing.geobox((8, 8)), time=2018)
    plan = lazy.emb.plan()
    assert (plan.reads, plan.read_bytes, plan.requests) == (4, 64 * 64, 4)
    assert "4 reads" in str(plan)
    assert "4 reads" in plan._repr_html_()
    made = lazy.copy(data=dask_array.zeros((1, 64, 8, 8), chunks=(1, 64, 4, 4), dtype=np.int8))
    assert made.emb.plan().reads == 0


def test_human_bytes():
    assert [html.human_bytes(n) for n in (0, 999, 1000, 1_234_567, 5e12, 3e16)] == [
        "0 B", "999 B", "1 kB", "1.23 MB", "5 TB", "30 PB",
    ]  # fmt: skip


def test_numbers_are_written_as_people_write_them_and_paths_are_short(opened):
    text = repr(opened.emb)
    assert "e+0" not in text
    top = f"{opened.emb.geobox.boundingbox.top:,.0f}".replace(",", " ")
    assert top in text
    far = opened.assign_attrs(source="/data/" + 12 * "folder/" + "aef_2024.tif")
    assert "/data/…/folder" in repr(far.emb)
    assert "aef_2024.tif" in repr(far.emb)
    card = far.emb._repr_html_()
    assert f'title="{far.attrs["source"]}"' in card  # the whole of it, under the mouse


@pytest.mark.slow
def test_a_card_is_left_aligned_and_readable_in_jupyterlab_light_and_dark(opened):
    """JupyterLab's own rules for tables in outputs: centred, striped, aligned to the right."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no Chromium: apt-get install chromium")
    lab = (
        ".jp-RenderedHTMLCommon table {margin-left:auto;margin-right:auto;border:none;table-layout:fixed}"
        ".jp-RenderedHTMLCommon td {text-align:right;max-width:none;padding:.5em}"
        ".jp-RenderedHTMLCommon tbody tr:nth-child(even) {background:#eee}"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 600})
        for ink, paper in (("#ffffff", "#111111"), ("#111111", "#ffffff")):
            body = f'<div class="jp-RenderedHTMLCommon">{opened.emb._repr_html_()}</div>'
            page.set_content(
                f"<style>{lab}</style><body style='margin:0;color:{ink};background:{paper}'>{body}"
            )
            cell = page.locator(".geoemb td").nth(3)
            seen = "e => {const s = getComputedStyle(e), r = getComputedStyle(e.parentElement);"
            seen += " return [s.textAlign, s.backgroundColor, r.backgroundColor, s.color]}"
            align, own, row, colour = cell.evaluate(seen)
            assert (align, own, row) == ("left", "rgba(0, 0, 0, 0)", "rgba(0, 0, 0, 0)")
            assert colour == ("rgb(255, 255, 255)" if ink == "#ffffff" else "rgb(17, 17, 17)")
            assert page.locator(".geoemb table").bounding_box()["x"] < 5
            page.evaluate("document.querySelector('.jp-RenderedHTMLCommon style').remove()")
            align, *_ = cell.evaluate(seen)  # as JupyterLab shows a notebook that it does not trust
            assert align == "left"
            assert page.locator(".geoemb table").bounding_box()["x"] < 5
        browser.close()
