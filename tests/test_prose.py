"""The code in README and documentation runs as it stands, offline: blocks of Python, and calls in how-to tables.

``gx.open`` opens a product's example where a page opens the published store. A block that cannot run here follows
a comment that says why: ``<!-- not run: … -->``.
"""

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot as plt

import geoemb_xr as gx
from geoemb_xr.accessor import EmbAccessor

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Pages whose tables have a call in the last column.
TABLES = ("how-to.md", "earth-engine.md", "if-you-know.md")

WITH_CODE = [page for page in PAGES if page.name in TABLES or "```python" in page.read_text()]

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
CALL = re.compile(r"`((?:\w+ = )?\w+\.[^`]*[(.][^`]*)`")  # not options, and not names alone


def blocks(page: Path) -> Iterator[tuple[str, str | None]]:
    """``(code, why it is not run)`` of each block of Python on a page."""
    text = page.read_text()
    found = list(BLOCK.finditer(text))
    assert len(found) == text.count("```python"), f"{page.name}: a block that this test does not find"
    yield from ((match["code"], match["reason"]) for match in found)


def calls(page: Path) -> list[str]:
    """Calls in the last column of a page's tables."""
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return [call for row in rows for call in CALL.findall(row.rpartition(" | ")[2])]


@pytest.fixture(scope="module")
def things():
    """Names that the pages use."""
    import geopandas as gpd
    import holoviews as hv
    from odc.geo.geobox import GeoBox
    from sklearn.ensemble import RandomForestClassifier

    da = gx.open("alphaearth", gx.example("alphaearth")).isel(x=slice(96), y=slice(96))
    one = da.emb.year(2024).compute()
    grid = GeoBox.from_bbox(da.emb.geobox.boundingbox, shape=(12, 12))
    shown = gx.labels(gx.testing.scene().truth(one.emb.geobox, 2024), per_class=30)
    labels = shown.rename(columns={"land_cover": "crop"})
    fields = gpd.GeoDataFrame(labels[["crop"]], geometry=gpd.points_from_xy(labels.lon, labels.lat), crs=4326)
    fields = fields.to_crs(one.emb.crs)
    fields.geometry = fields.buffer(15)
    estimator = RandomForestClassifier(5, random_state=0)
    estimator.fit(one.emb.sample(labels).values, labels["crop"].astype("category").cat.codes + 1)
    truth = gx.testing.scene().truth(one.emb.geobox, 2024)
    return {
        "gx": gx,
        "xr": xr,
        "hv": hv,
        "da": da,
        "a": da.isel(x=slice(48)),
        "b": da.isel(x=slice(48, None)),
        "one": one,
        "other": gx.testing.synthetic("tessera", grid=one.emb.geobox, years=[2024]).emb.year(2024),
        "visited": labels,
        "table": labels[["lon", "lat"]].assign(year=2024),
        "points": labels,
        "labels": labels,
        "fields": fields,
        "biomass": labels[["lon", "lat"]].assign(biomass=labels["lon"].rank() * 1.5),
        "raster": truth,
        "before": truth.shift(x=4, fill_value=0).assign_attrs(truth.attrs),
        "mask": one.isel(band=0, drop=True) < 0,
        "point": (float(labels["lon"].iloc[0]), float(labels["lat"].iloc[0])),
        "probe": one.emb.fit_probe(labels, target="crop"),
        "ridge": one.emb.fit_probe(labels, target="crop", method="ridge"),
        "new_labels": labels.groupby("crop").head(5),
        "RandomForestClassifier": partial(RandomForestClassifier, n_estimators=5),
        "estimator": estimator,
        "patches": gx.open("earth-index", gx.example("earth-index")),
        "images": gx.testing.images((96, 96), chunks=48),
        "dated": gx.testing.images((32, 32), dates=["2024-01-03", "2024-02-05"]),
        "encoder": gx.encoder("rcf"),
        "grid": grid,
        "vectors": one.emb.reproject(grid).values,
        "mine": gx.Product("mine-of-the-pages", dims=64),
        # as Xee gives it: a variable per band, named x and y, dates, and no CRS
        "ds": one.expand_dims(time=[np.datetime64("2024-01-01")]).drop_vars("spatial_ref").to_dataset("band"),
    }


@pytest.fixture
def world(things, tmp_path, monkeypatch):
    """The same in a folder with the files that the pages read; the published stores are examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    monkeypatch.setitem(
        sys.modules, "geoclip", None
    )  # a further control of each comparison, where it is installed
    truly, coverage = gx.open, gx.coverage

    def offline(product, source=None, **options):
        if source is None and "." not in product:
            source = gx.example(product)
            options.pop("bbox", None)  # the example lies inside the box
        return truly(product, source, **options)

    monkeypatch.setattr(gx, "open", offline)
    monkeypatch.setattr(gx, "coverage", lambda product, bbox: coverage(product, gx.example(product)))
    things["fields"].to_file("fields.gpkg")
    (tmp_path / "tasks").mkdir()
    ids = things["patches"].location.values
    pd.DataFrame({"id": ids, "label": np.arange(len(ids))}).to_csv("tasks/order__regr.csv", index=False)
    (tmp_path / "tiles").symlink_to(gx.example("alphaearth"))
    (tmp_path / "exports").mkdir()
    things["one"].emb.to_cog("exports/2024.tif")  # vectors, as Earth Engine exports them
    things["one"].emb.sample(things["points"]).emb.to_dataframe().to_csv("points.csv", index=False)
    yield dict(things)
    plt.close("all")


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, id=p.name, marks=[] if p.name == "README.md" else pytest.mark.pages) for p in WITH_CODE],
)
def test_code_of_a_page_runs_as_it_stands(page, world):
    tables = calls(page) if page.name in TABLES else []
    for code, reason in [*((call, None) for call in tables), *blocks(page)]:
        if reason is None:
            try:
                exec(code, world)
            except Exception as error:
                raise AssertionError(f"{page.name} has code that fails:\n{code}") from error
        else:
            compile(code, page.name, "exec")


def test_names_on_the_pages_exist():
    """``gx.name`` and ``.emb.name`` wherever a page says them."""
    methods = {name for name in dir(EmbAccessor) if not name.startswith("_")}
    for page in PAGES:
        text = page.read_text()
        assert set(re.findall(r"\bgx\.([a-z]\w*)\(", text)) <= set(gx.__all__), page.name
        assert set(re.findall(r"\.emb\.([a-z]\w*)", text)) <= methods, page.name


def test_a_block_that_fails_is_told(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n1 / 0\n```\n\n<!-- not run: it needs an account -->\n```python\nlogin()\n```\n"
    )
    assert list(blocks(page)) == [("1 / 0\n", None), ("login()\n", "it needs an account")]
    page.write_text("  ```python\n  1\n  ```\n")
    with pytest.raises(AssertionError, match="does not find"):
        list(blocks(page))
