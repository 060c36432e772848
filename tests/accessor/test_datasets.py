"""``Dataset.emb``: each variable as its own ``.emb`` does it."""

import dask.array as da
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import Legend


@pytest.fixture(scope="module")
def maps():
    """What predict and aggregate give, side by side: classes, a number, vectors; and a number of no place."""
    array = gx.testing.synthetic("alphaearth", shape=(40, 30), years=[2018, 2020], chunks=20)
    probe = array.emb.year(2018).emb.fit_clusters(3)
    made = array.emb.year(2018).emb.predict(probe, output=["label", "distance"])
    mean = array.emb.aggregate(count=True).drop_vars("time", errors="ignore")
    return xr.Dataset({"label": made["label"], "distance": made["distance"], **mean, "share": 0.5}).drop_vars(
        "time"
    )


OTHER = Legend.of_names(["x", "y", "z", "w"]).attrs()
PLACE = (11.3695, 47.2495)
AREA = shapely.Point(PLACE).buffer(0.001)


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("crop", (AREA,)),
        ("reproject", ("EPSG:3035",)),
        ("coarsen", (2,)),
        ("sample", ([PLACE],)),
    ],
)
def test_each_variable_is_what_its_own_accessor_gives(verb, args, maps):
    with gx.testing.raise_if_dask_computes() if verb != "sample" else xr.set_options():
        made = getattr(maps.emb, verb)(*args)
    assert list(made) == list(maps)
    for name in ("label", "distance", "embedding", "count"):
        expected = getattr(maps[name].emb, verb)(*args).rename(name)
        xr.testing.assert_identical(
            made[name].drop_vars(set(made[name].coords) - set(expected.coords)), expected
        )
    assert made["share"] == 0.5


def test_variables_of_other_classes_have_dimensions_of_their_own(maps):
    other = maps["label"].assign_attrs(OTHER)
    made = xr.Dataset({"a": maps["label"], "b": other}).emb.zonal_stats([AREA])
    np.testing.assert_array_equal(made["b"], gx.zonal_stats(other, [AREA]))
    assert made["a"].dims == ("location", "category")
    assert made["b"].dims == ("location", "b_category")


def test_classes_of_each_category_are_moved_alone(maps):
    sets = (maps["label"] == xr.DataArray([1, 2, 3], dims="category")).transpose("category", "y", "x")
    sets = sets.astype("u1").assign_attrs(maps["label"].attrs)
    maps = xr.Dataset({"sets": sets}).load()
    lazy = maps.chunk({"category": 1, "y": 20})
    for call in (
        lambda each: each.emb.coarsen(2),
        lambda each: each.emb.reproject("EPSG:3035", resolution=20),
    ):
        expected = [call(maps["sets"].isel(category=i)).values for i in range(maps.sizes["category"])]
        np.testing.assert_array_equal(call(lazy)["sets"].values, expected)
        np.testing.assert_array_equal(call(maps["sets"]).values, expected)


def test_zonal_stats_of_numbers(maps):
    made = maps[["distance", "share"]].emb.zonal_stats([AREA])
    expected = maps["distance"].emb.zonal_stats([AREA])
    np.testing.assert_array_equal(made["distance"].values, expected.values)


def test_one_store_and_a_file_each(maps, tmp_path):
    placed = maps.drop_vars("share")
    back = gx.open(placed.emb.to_zarr(tmp_path / "maps.zarr"))
    for name in placed:
        np.testing.assert_array_equal(back[name].values, placed[name].values)
    pair = placed[["label", "distance"]]
    with pytest.raises(ValueError, match=r"a template such as .*maps_\{name\}\.tif"):
        pair.emb.to_cog(tmp_path / "maps.tif")
    paths = pair.emb.to_cog(tmp_path / "{name}.tif")
    assert [path.name for path in paths] == ["label.tif", "distance.tif"]
    with rasterio.open(paths[0]) as file:
        np.testing.assert_array_equal(file.read(1), placed["label"].values)
    paths[0].unlink()
    with pytest.raises(FileExistsError, match=r"distance\.tif"):
        pair.emb.to_cog(tmp_path / "{name}.tif")
    assert not paths[0].exists()  # nothing is written before all fit


def test_a_plan_counts_what_is_shared_once(maps):
    both = maps[["label", "distance"]].emb.plan()
    one = maps["label"].emb.plan()
    assert both.blocks == 2 * one.blocks
    assert both.result_bytes == maps["label"].nbytes + maps["distance"].nbytes
    source = da.zeros((40, 30), chunks=20)
    shared = xr.Dataset({name: (("y", "x"), source + n) for n, name in enumerate("ab")}).emb.plan()
    assert shared.tasks < 2 * xr.DataArray(source + 0, dims=("y", "x")).emb.plan().tasks + 4


def test_a_panel_a_variable(maps):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    axes = maps.emb.plot(cols=3, title="all")
    assert [ax.get_title(loc="left") or ax.get_title() for ax in axes] == [*maps.drop_vars("share")]
    assert len(axes[0].figure.axes) >= 4
    plt.close("all")
    several = gx.testing.synthetic("alphaearth", shape=(8, 8), years=[2018, 2020]).to_dataset()
    axes = several.emb.plot()
    assert [ax.get_title(loc="left") for ax in axes] == ["embedding: 2018", "embedding: 2020"]
    palette = gx.plot(several["embedding"])[1].images[0].get_array()
    np.testing.assert_array_equal(axes[1].images[0].get_array(), palette)  # one palette for both years
    plt.close("all")
    with pytest.raises(EmbeddingError, match="48 panels"):
        xr.concat([several] * 24, "time").emb.plot()
    assert not plt.get_fignums()


def test_points_are_cropped_too(maps):
    places = gx.testing.scene().points(50, radius=300)
    there = maps[["label"]].emb.sample(places)
    inside = there.emb.crop(AREA)["label"]
    expected = places[shapely.intersects_xy(AREA, places.lon, places.lat)].index
    assert inside.location.values.tolist() == expected.tolist()


def test_nothing_with_a_place_is_refused():
    with pytest.raises(EmbeddingError, match="none of"):
        xr.Dataset({"a": 1}).emb.crop(AREA)


def test_the_repr_names_the_variables(maps):
    assert "label: y 40, x 30" in repr(maps.emb)


def test_a_table_of_codes_that_became_floats_is_refused():
    codes = gx.testing.synthetic("alphaearth", shape=(4, 4), decode=False).isel(time=0)
    spoilt = codes.where(codes.x > codes.x[0])
    for method in ("to_dataframe", "to_geodataframe"):
        with pytest.raises(EmbeddingError, match=rf"{method} got codes .*turned into float"):
            getattr(spoilt.emb, method)()
