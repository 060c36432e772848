"""PCA against scikit-learn and the exact SVD, samples that no chunk changes, pictures without seams."""

import dask
import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA as SklearnPCA

import geoemb_xr as gx
from geoemb_xr.analysis import components
from geoemb_xr.analysis.moments import moments
from geoemb_xr.core import errors
from geoemb_xr.execution import blocks, hashes, sampling
from geoemb_xr.testing import assert_lazy_identical, raise_if_dask_computes


def scene(product="alphaearth", shape=(64, 56), years=(2018, 2024), **options):
    return gx.testing.synthetic(product, shape=shape, years=years, missing=True, **options)


def rows(da):
    """All valid vectors, float64."""
    flat = da.emb.decode().transpose(..., "band").values.reshape(-1, da.sizes["band"]).astype(np.float64)
    return flat[np.isfinite(flat).all(axis=1)]


def sine(a, b):
    """Sine of the largest angle between two subspaces given by orthonormal rows."""
    return np.linalg.norm(a - a @ b.T @ b, 2)


# --- fit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_fit_is_scikit_learns(product, decode):
    da = scene(product, decode=decode).chunk(time=1, y=23, x=31)
    pca = da.emb.fit_pca(8)
    vectors = rows(da)
    expected = SklearnPCA(8, svd_solver="full").fit(vectors)
    ratio = expected.explained_variance_ratio_
    np.testing.assert_allclose(pca.explained_variance_ratio, ratio, rtol=1e-6, atol=1e-7 * ratio[0])
    variance = vectors.var(axis=0).sum() * ratio
    np.testing.assert_allclose(pca.explained_variance, variance, rtol=1e-6, atol=1e-7 * variance[0])
    np.testing.assert_allclose(pca.mean, expected.mean_, rtol=1e-6, atol=1e-7 * np.abs(expected.mean_).max())
    assert pca.n == len(vectors)
    assert sine(pca.loadings[:3], expected.components_[:3]) < 1e-5


def test_top_three_are_those_of_the_exact_svd():
    da = scene(shape=(96, 96))
    vectors = rows(da)
    _, _, exact = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    assert sine(da.emb.fit_pca(3).loadings, exact[:3]) < 1e-5


def test_signs_are_fixed():
    pca = scene().emb.fit_pca(10)
    largest = np.take_along_axis(pca.loadings, np.abs(pca.loadings).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all()


@pytest.mark.parametrize("n_samples", ["all", 3000])
def test_chunks_and_order_of_dimensions_change_nothing_beyond_rounding(n_samples):
    da = scene(decode=False)
    expected = da.emb.fit_pca(4, n_samples=n_samples)
    for other in (
        da.chunk(time=1, y=17, x=40),
        da.chunk(time=2, y=64, x=9),
        da.transpose("x", "y", "band", "time"),
    ):
        found = other.emb.fit_pca(4, n_samples=n_samples)
        assert found.n == expected.n
        np.testing.assert_allclose(found.loadings, expected.loadings, atol=1e-5)
        np.testing.assert_allclose(found.limits, expected.limits, atol=1e-5)


def test_samples_are_the_same_pixels_in_any_crop():
    da = scene(shape=(60, 50))
    part = da.isel(y=slice(13, 47), x=slice(5, 41))
    seed, limit = 3, hashes.threshold(0.3)

    def drawn(array):
        parts = blocks.per_block(sampling.draw, array, seed, limit)
        return blocks.merged(parts, sampling.Sample.merge, label="test")

    whole, inside = drawn(da.chunk(y=11, x=19)), drawn(part)
    found = np.isin(whole.hashes, inside.hashes)
    assert found.sum() == len(inside.hashes) > 400
    np.testing.assert_array_equal(whole.vectors[found], inside.vectors)
    again = drawn(da.chunk(y=60, x=7))
    np.testing.assert_array_equal(whole.vectors, again.vectors)


def test_hashes_are_spread_evenly_and_differ_by_seed_and_year():
    da = scene(shape=(200, 200))
    parts = blocks.per_block(sampling.draw, da, 0, hashes.threshold(0.1))
    drawn = blocks.merged(parts, sampling.Sample.merge, label="test")
    share = len(drawn.hashes) / len(rows(da))
    assert share == pytest.approx(0.1, abs=0.005)
    assert len(np.unique(drawn.hashes)) == len(drawn.hashes)
    other = blocks.merged(
        blocks.per_block(sampling.draw, da, 1, hashes.threshold(0.1)), sampling.Sample.merge, label="t"
    )
    whole = [{row.tobytes() for row in sample.vectors} for sample in (drawn, other)]
    assert len(whole[0] & whole[1]) / len(whole[0]) == pytest.approx(0.1, abs=0.03)


def test_a_sample_is_close_to_all():
    da = scene(shape=(200, 200))
    few, everything = da.emb.fit_pca(3, n_samples=20_000), da.emb.fit_pca(3)
    assert few.n == pytest.approx(20_000 * len(rows(da)) / 80_000, rel=0.05)
    np.testing.assert_allclose(few.explained_variance_ratio, everything.explained_variance_ratio, atol=0.01)
    assert sine(few.loadings, everything.loadings) < 0.15


def test_several_arrays_are_one():
    da = scene()
    whole = da.emb.fit_pca(4)
    parts = [da.isel(x=slice(0, 20)), da.isel(x=slice(20, None)).chunk(y=10)]
    assert sine(gx.fit_pca(parts, 4).loadings, whole.loadings[:4]) < 1e-5
    assert gx.fit_pca(parts, 4).n == whole.n


def test_mask_and_weights():
    da = scene(years=[2018]).isel(time=0)
    mask = (da.x > float(da.x.mean())).expand_dims(y=da.y)
    masked = da.emb.fit_pca(4, mask=mask)
    kept = da.isel(x=da.x.values > float(da.x.mean())).emb.fit_pca(4)
    assert masked.n == kept.n
    np.testing.assert_allclose(masked.loadings, kept.loadings, atol=1e-5)
    weighted = da.chunk(y=19).emb.fit_pca(4, weights=mask.astype(float))
    np.testing.assert_allclose(weighted.loadings, kept.loadings, atol=1e-5)
    heavy = xr.where(mask, 3.0, 1.0)
    vectors = da.transpose("y", "x", "band").values.astype(np.float64).reshape(-1, 64)
    flat = heavy.transpose("y", "x").values.ravel()
    there = np.isfinite(vectors).all(axis=1)
    expected = np.cov(vectors[there].T, aweights=flat[there], bias=True)
    found = da.emb.fit_pca(4, weights=heavy)
    np.testing.assert_allclose(found.explained_variance, np.linalg.eigvalsh(expected)[::-1][:4], rtol=1e-5)
    assert found.n == flat[there].sum()
    sampled = da.emb.fit_pca(4, weights=heavy, n_samples=1500)
    np.testing.assert_allclose(sampled.explained_variance_ratio, found.explained_variance_ratio, atol=0.02)


def test_a_mask_of_one_year_holds_for_all_years():
    da = scene()
    mask = xr.DataArray(np.zeros((64, 56), bool), dims=("y", "x"), coords={"y": da.y, "x": da.x})
    mask[40:, 30:] = True
    assert da.emb.fit_pca(3, mask=mask).n == 2 * 24 * 26


def test_noise_below_the_floor_is_not_reported():
    rng = np.random.default_rng(0)
    low_rank = rng.standard_normal((4000, 5)) @ rng.standard_normal((5, 16))
    data = low_rank.T.reshape(16, 50, 80).astype(np.float32)
    da = gx.wrap(data, gx.Product("low-rank", dims=16), geobox=gx.testing.geobox((50, 80)))
    assert da.emb.fit_pca(16).n_components == 5


def test_missing_bands_count_as_missing_vectors():
    da = scene(years=[2018]).copy()
    clean = da.emb.fit_pca(3)
    da[0, 7, 60, 50] = np.nan
    da[0, :, 61, 50] = np.inf
    found = da.emb.fit_pca(3)
    assert found.n == clean.n - 2
    assert np.isfinite(found.loadings).all()


def test_errors_of_fit():
    da = scene(shape=(9, 8))
    with pytest.raises(ValueError, match="1 to the number of bands, 64; got 65"):
        da.emb.fit_pca(65)
    with pytest.raises(errors.ComparabilityError, match="cannot mix alphaearth"):
        gx.fit_pca([da, scene("tessera", shape=(9, 8))])
    with pytest.raises(errors.EmbeddingError, match="different bands"):
        gx.fit_pca([da, da.isel(band=slice(8))])
    with pytest.raises(ValueError, match="at least one array"):
        gx.fit_pca([])
    with pytest.raises(errors.EmbeddingError, match="0 valid vectors"):
        (da * np.nan).emb.fit_pca()
    with pytest.raises(errors.EmbeddingError, match="another grid"):
        da.emb.fit_pca(mask=da.isel(time=0, band=0, drop=True, x=slice(3)) > 0)
    with pytest.raises(errors.EmbeddingError, match="which the array has not"):
        da.emb.fit_pca(mask=(da > 0).rename(band="layer"))
    with pytest.raises(ValueError, match="1 arrays need as many of mask; got 2"):
        da.emb.fit_pca(mask=[da, da])


# --- use ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
def test_scores_are_scikit_learns_and_lazy(product, decode):
    da = scene(product, shape=(19, 23), decode=decode)
    pca = da.emb.fit_pca(5)
    scores = assert_lazy_identical(lambda a: a.emb.pca(pca), da, rtol=1e-6)
    assert scores.dims == ("time", "component", "y", "x")
    assert scores.component.values.tolist() == ["PC1", "PC2", "PC3", "PC4", "PC5"]
    assert not {"product", "codec"} & set(scores.attrs)
    expected = (rows(da) - pca.mean) @ pca.loadings.T
    found = scores.transpose(..., "component").values.reshape(-1, 5)
    found = found[np.isfinite(found).all(axis=1)]
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


def test_transform_apply_and_inverse():
    da = scene(shape=(19, 23))
    pca = da.emb.fit_pca(64)
    scores = pca.transform(da)
    assert scores.identical(da.emb.pca(pca))
    vectors = rows(da).astype(np.float32)
    np.testing.assert_allclose(
        pca.apply(vectors, "component")[:, :3], ((vectors - pca.mean) @ pca.loadings.T)[:, :3], atol=1e-6
    )
    back = assert_lazy_identical(pca.inverse, scores, rtol=1e-6)
    assert back.emb.product.name == "alphaearth"
    # the components below the floor are not kept
    missing = np.sqrt(max(pca.total_variance - pca.explained_variance.sum(), 0)) * 20 + 1e-5
    np.testing.assert_allclose(back.values, da.values, atol=missing)
    first = pca.inverse(scores.isel(component=slice(3)))
    assert first.sizes["band"] == 64
    with pytest.raises(errors.EmbeddingError, match="first of the components"):
        pca.inverse(scores.isel(component=slice(1, 4)))
    with pytest.raises(errors.EmbeddingError, match="'component' dimension"):
        pca.inverse(da)


def test_a_model_is_saved_and_belongs_to_its_product(tmp_path):
    da = scene(shape=(19, 23))
    pca = da.emb.fit_pca(3)
    assert gx.load_model(pca.save(tmp_path / "pca")) == pca
    assert "TESSERA" not in pca.attribution
    with pytest.raises(errors.ComparabilityError, match="pca cannot mix"):
        scene("tessera", shape=(9, 8)).emb.pca(pca)
    with pytest.raises(errors.EmbeddingError, match="the model takes 64 bands"):
        da.isel(band=slice(9)).emb.rgb(pca)
    assert "alphaearth" in repr(pca)


def test_points_have_components_too():
    da = scene(years=[2018]).isel(time=0).emb.sample(gx.testing.scene().points(40, radius=200))
    pca = da.emb.fit_pca(3)
    assert da.emb.pca(pca).dims == ("location", "component")
    assert da.emb.rgb(pca).dims == ("location", "rgb")


# --- pictures -------------------------------------------------------------------------------------------------


def test_rgb_stretches_components_and_hides_what_is_missing():
    da = scene()
    pca = da.emb.fit_pca(3)
    # scores hold to 1e-6 whatever the block, so that a colour at a half may be rounded to either side
    picture = assert_lazy_identical(lambda a: a.emb.rgb(pca), da, rtol=1 / 255)
    assert (picture != da.chunk(y=17, x=29).emb.rgb(pca)).mean() < 1e-3
    assert picture.dims == ("time", "rgb", "y", "x")
    assert picture.dtype == np.uint8
    scores = da.emb.pca(pca).transpose("component", ...).values
    low, high = pca.limits[:, 0, None, None, None], pca.limits[:, 1, None, None, None]
    expected = np.clip((scores - low) / (high - low), 0, 1) * 255
    found = picture.transpose("rgb", ...).values
    there = np.isfinite(scores[0])
    np.testing.assert_array_equal(found[3], np.where(there, 255, 0))
    assert (found[:, ~there] == 0).all()
    assert np.abs(found[:3][:, there] - expected[:, there]).max() <= 0.51
    # 2 % of the pixels at each end of each colour
    for colour in found[:3]:
        assert 0.005 < (colour[there] == 0).mean() < 0.05


def test_rgb_of_components_and_of_bands():
    da = scene(shape=(19, 23))
    pca = da.emb.fit_pca(3)
    from_scores = assert_lazy_identical(lambda a: a.emb.rgb(pca), da.emb.pca(pca))
    difference = from_scores.values.astype(int) - da.emb.rgb(pca).values
    assert np.abs(difference).max() <= 1
    bands = assert_lazy_identical(lambda a: a.emb.rgb(["A01", "A16", "A09"], limits=(-0.3, 0.3)), da)
    expected = np.clip((da.sel(band="A16").values + 0.3) / 0.6, 0, 1) * 255
    there = np.isfinite(expected)
    assert np.abs(bands.sel(rgb="g").values[there] - expected[there]).max() <= 0.51
    assert bands.identical(da.emb.rgb(["A01", "A16", "A09"]))


def test_two_tiles_and_two_years_share_a_palette():
    left = gx.testing.geobox((48, 40), offset=(-200.0, 0.0))
    right = gx.testing.geobox((48, 40), offset=(200.0, 0.0))
    tiles = [
        gx.testing.synthetic("alphaearth", grid=grid, years=[2018, 2024], decode=False)
        for grid in (left, right)
    ]
    pca = gx.fit_pca(tiles, 3)
    both = xr.concat([tile.emb.rgb(pca) for tile in tiles], "x")
    # the colours across the seam differ as they do between any two columns of one tile
    step = np.abs(both.sel(rgb=["r", "g", "b"]).astype(int).diff("x")).mean(["time", "rgb", "y"])
    assert float(step[39]) <= float(step.max())
    assert float(step[39]) < 3 * float(step.median()) + 1


def test_errors_of_rgb():
    da = scene(shape=(9, 8))
    pca = da.emb.fit_pca(3)
    with pytest.raises(errors.EmbeddingError, match="needs a fitted PCA"):
        da.emb.rgb()
    with pytest.raises(errors.EmbeddingError, match="three band labels"):
        da.emb.rgb(["A01", "A02"])
    with pytest.raises(errors.EmbeddingError, match="needs three components; there are 2"):
        da.emb.rgb(da.emb.fit_pca(2))
    with pytest.raises(errors.EmbeddingError, match="no unit length"):
        scene("tessera", shape=(9, 8)).emb.rgb(["0", "1", "2"])
    for limits in ((1, 0), "auto"):
        with pytest.raises(ValueError, match="low < high"):
            da.emb.rgb(pca, limits=limits)
    with pytest.raises(errors.EmbeddingError, match="or limits="):
        da.emb.pca(pca).emb.rgb()
    with pytest.raises(errors.EmbeddingError, match="not band labels"):
        da.emb.pca(pca).emb.rgb(["A01", "A02", "A03"])


def test_graphs_stay_small_and_nothing_is_computed():
    da = scene(shape=(64, 64), decode=False).chunk(time=1, y=8, x=8)
    pca = da.emb.fit_pca(3)
    with raise_if_dask_computes():
        picture = da.emb.rgb(pca)
    assert len(picture.data.__dask_graph__()) < 2.2 * da.data.npartitions + 10


def test_real_vectors(real_data):
    import rioxarray

    codes = rioxarray.open_rasterio(real_data / "alphaearth-raster" / "aef_wi_2024_int8_northup.tif")
    da = gx.wrap(codes, "alphaearth").chunk(y=40, x=64)
    pca = da.emb.fit_pca(5)
    expected = SklearnPCA(5, svd_solver="full").fit(rows(da))
    np.testing.assert_allclose(pca.explained_variance_ratio, expected.explained_variance_ratio_, rtol=1e-5)
    assert sine(pca.loadings[:3], expected.components_[:3]) < 1e-5
    assert int((da.emb.rgb(pca).sel(rgb="a") == 0).sum()) == 238


def test_moments_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((6, 5000)) + 3).astype(np.float32)
    vectors[2, [7, 400]] = np.nan, np.inf
    valid = np.isfinite(vectors).all(axis=0)
    whole = moments(blocks.Block(vectors, 0), None)
    parts = moments(blocks.Block(vectors[:, :123], 0), None) + components.moments(
        blocks.Block(np.ascontiguousarray(vectors[:, 123:].T), 1), None
    )
    exact = vectors[:, valid].astype(np.float64)
    for each in (whole, parts):
        assert each.n == 4998
        np.testing.assert_allclose(each.mean, exact.mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(each.m2 / each.n, np.cov(exact, bias=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("decode", [True, False])
def test_vectors_less_a_shift_are_those_of_tiles(axis, decode):
    codes = np.random.default_rng(2).integers(-127, 128, (8, 37, 91), dtype=np.int8)
    codes[3, 5, 7:60] = -128
    codec = gx.product("alphaearth").codec
    data = np.moveaxis(codes if not decode else codec.decode(codes, None, 0), 0, axis)
    block = blocks.Block(data, axis, None, None if decode else codec)
    shift = np.linspace(-0.5, 0.5, 8, dtype=np.float32)
    seen = 0
    for (where, vectors), (same, centred, valid) in zip(
        block.pieces(50), block.centred(shift, 50), strict=True
    ):
        assert where == same
        np.testing.assert_array_equal(valid, np.isfinite(vectors).all(axis=0))
        expected = np.where(valid, vectors - shift[:, None], 0)
        np.testing.assert_allclose(centred, expected, rtol=1e-6, atol=1e-7)
        seen += valid.sum()
    assert seen == 37 * 91 - 53


def test_weights_are_repeated_vectors():
    da = scene(shape=(32, 32), years=(2018,)).emb.year(2018)
    times = xr.DataArray(np.random.default_rng(3).integers(0, 4, (32, 32)), dims=("y", "x"))
    times = times.assign_coords(y=da.y, x=da.x)
    flat = da.emb.decode().transpose("y", "x", "band").values.reshape(-1, 64)
    repeated = np.repeat(flat, times.values.ravel(), axis=0)
    repeated = repeated[np.isfinite(repeated).all(axis=1)].astype(np.float64)
    pca = da.chunk(y=11, x=13).emb.fit_pca(3, weights=times)
    expected = SklearnPCA(3, svd_solver="full").fit(repeated)
    assert pca.n == len(repeated)
    np.testing.assert_allclose(pca.mean, expected.mean_, atol=1e-6)
    assert sine(pca.loadings, expected.components_) < 1e-5


def test_an_array_in_memory_is_cut_without_a_copy():
    da = scene(shape=(40, 30), decode=False)
    lazy = blocks.cut_blocks(da, {"y": 16})
    assert lazy.chunksizes["y"] == (16, 16, 8)
    for part in lazy.data.to_delayed().ravel():
        assert dask.delayed(np.shares_memory)(part, da.values).compute(scheduler="sync")
    assert lazy.compute().identical(da)
