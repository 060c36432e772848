"""Products, years and label rasters on one grid; vectors of several products as one."""

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core.errors import ComparabilityError, CoverageError, EmbeddingError
from geoemb_xr.testing import assert_lazy_identical

SCENE = gx.testing.Scene()


def aef(**options):
    return gx.testing.synthetic("alphaearth", **{"shape": (24, 28), **options})


def tessera(**options):
    return gx.testing.synthetic("tessera", **{"shape": (24, 28), **options})


def test_arrays_get_the_first_ones_grid_where_all_have_data():
    a = aef(years=[2018, 2024])
    t = tessera(grid=gx.testing.geobox((30, 30), offset=(50, -40)), years=[2024])
    got_a, got_t = gx.align(a, t)
    shared = {d: np.intersect1d(a[d], t[d]) for d in ("y", "x")}
    expected = a.isel(time=[1]).sel(y=shared["y"][::-1], x=shared["x"])
    assert 0 < expected.sizes["y"] < a.sizes["y"]
    xr.testing.assert_identical(got_a, expected)
    # the two lie on one lattice: nothing is resampled
    xr.testing.assert_identical(got_t, t.sel(y=expected.y, x=expected.x))
    assert xr.align(got_a, got_t, join="exact", exclude=["band"])


def test_each_is_resampled_by_its_own_rules():
    fine = aef()
    coarse = gx.testing.geobox((4, 5), resolution=60)
    classes = SCENE.truth(gx.testing.geobox((24, 28)), 2018)
    got, labels = gx.align(fine, classes, like=coarse)
    xr.testing.assert_identical(got, gx.reproject(fine, coarse))
    xr.testing.assert_identical(labels, gx.reproject(classes, coarse, resampling="mode"))
    np.testing.assert_allclose(np.linalg.norm(got, axis=got.dims.index("band")), 1, atol=1e-5)


def test_other_crs_and_codes():
    a = aef(decode=False)
    other = gx.reproject(tessera(), "EPSG:3035", resolution=10)
    got_a, got_t = gx.align(a, other)
    assert got_a.emb.encoded
    assert got_t.emb.crs == got_a.emb.crs
    xr.testing.assert_identical(got_t, gx.reproject(other, got_a.emb.geobox))


def test_periods_are_those_that_all_have():
    a, t = aef(years=[2018, 2020, 2024]), tessera(years=[2020, 2024])
    # half a year later is the same year's period
    late = t.assign_coords(time=t.time + np.timedelta64(180, "D"))
    static = aef(years=[2018]).isel(time=0, drop=True)
    got = gx.align(a, late, static)
    assert got[0].time.dt.year.values.tolist() == [2020, 2024]
    xr.testing.assert_identical(got[1].time, got[0].time)
    np.testing.assert_array_equal(got[1], t)
    assert "time" not in got[2].dims
    with pytest.raises(CoverageError, match="they have 2018; 2020, 2024"):
        gx.align(aef(years=[2018]), t)


def test_what_cannot_be_aligned_is_said():
    far = aef(grid=gx.testing.geobox((8, 8), offset=(90_000, 0)))
    with pytest.raises(
        CoverageError, match=r"no area that all arrays cover: array 0 covers .* array 1 covers"
    ):
        gx.align(aef(), far)
    with pytest.raises(EmbeddingError, match="align: array 1"):
        gx.align(aef(), xr.DataArray(np.zeros(3), dims="location"))
    with pytest.raises(ValueError, match="at least one"):
        gx.align()


def test_a_fused_cosine_is_the_mean_of_cosines():
    a, t = aef(missing=True), tessera()
    both = gx.fuse(a, t)
    flat = {name: each.stack(n=("y", "x")).transpose("n", ...).squeeze() for name, each in
            (("a", a), ("t", t), ("both", both))}  # fmt: skip
    pick = [40, 333]

    def cosine(x):
        u, v = x.isel(n=pick[0]).values, x.isel(n=pick[1]).values
        return u @ v / np.linalg.norm(u) / np.linalg.norm(v)

    assert cosine(flat["both"]) == pytest.approx((cosine(flat["a"]) + cosine(flat["t"])) / 2, abs=1e-6)
    missing = a.isnull().any("band")
    assert missing.any()
    np.testing.assert_array_equal(both.isnull().all("band"), missing)
    np.testing.assert_array_equal(both.isnull().any("band"), missing)


def test_fused_vectors_are_lazy_and_work_like_any_embedding():
    t = tessera()
    assert_lazy_identical(lambda da: gx.fuse(da, t), aef(missing=True))
    both = gx.fuse(aef(), tessera())
    assert both.attrs["product"] == "alphaearth-and-tessera"
    found = gx.product(both.attrs["product"])
    assert "Google" in found.attribution
    assert "TESSERA" in found.attribution
    assert found.unit_norm
    assert both.emb.similarity((11.37, 47.25)).dims == ("time", "y", "x")
    with pytest.raises(ComparabilityError):
        gx.concat([both, aef()], "time")


def test_fuse_refuses_what_is_not_aligned():
    with pytest.raises(EmbeddingError, match=r"same 'x' in all arrays; array 1 differs.*gx\.align"):
        gx.fuse(aef(), tessera(grid=gx.testing.geobox((24, 28), offset=(10, 0))))
    with pytest.raises(EmbeddingError, match="two or more"):
        gx.fuse(aef())
    with pytest.raises(EmbeddingError, match="same space twice"):
        gx.fuse(aef(), aef())
    with pytest.raises(EmbeddingError, match="same dimensions"):
        gx.fuse(aef(), tessera().isel(time=0, drop=True))


def test_arrays_in_a_list_or_by_name_are_refused_in_words():
    da = gx.testing.synthetic("alphaearth", shape=(8, 8))
    with pytest.raises(EmbeddingError, match=r"align\(first, second\); got list"):
        gx.align([da, da])
    with pytest.raises(EmbeddingError, match=r"fuse\(first, second\); got dict"):
        gx.fuse({"a": da}, da)
