"""Fewer bytes: scikit-learn's components, closed forms of the codes, and what takes them afterwards."""

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core import errors
from geoemb_xr.testing import assert_lazy_identical

HERE = (11.37, 47.25)


def scene(product="alphaearth", shape=(40, 36), **options):
    return gx.testing.synthetic(product, shape=shape, missing=True, **options)


def rows_of(da):
    return da.transpose(..., "band").values.reshape(-1, da.sizes["band"])


def test_components_are_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    da = scene(decode=False)
    model = da.emb.fit_compressor(dims=12)
    vectors = rows_of(da.emb.decode())
    there = np.isfinite(vectors).all(axis=1)
    expected = decomposition.PCA(12).fit(vectors[there].astype(np.float64))
    found = rows_of(da.emb.compress(model).emb.decode())
    np.testing.assert_array_equal(np.isfinite(found).all(axis=1), there)
    theirs = expected.transform(vectors[there])
    theirs *= np.sign((theirs * found[there]).sum(axis=0))
    step = np.abs(theirs).max(axis=1, keepdims=True) / 127
    assert (np.abs(found[there] - theirs) <= 0.51 * step + 1e-5).all()
    assert model.explained == pytest.approx(expected.explained_variance_ratio_.sum(), abs=1e-5)


@pytest.mark.parametrize("codec", ["int8", "signed-square", "bit"])
@pytest.mark.parametrize("dims", [None, 16])
def test_it_is_lazy_and_the_same_in_any_chunks(codec, dims):
    da = scene(decode=False)
    model = da.emb.fit_compressor(dims=dims, codec=codec)
    # components are products, whose last bits hang on the size of blocks: a code may be the next one then
    small = assert_lazy_identical(
        lambda a: a.emb.compress(model).emb.decode(), da, rtol=1e-2 if dims else 0.0
    )
    assert small.sizes["band"] == (dims or 64)
    from_floats = da.emb.decode().emb.compress(model)
    # of components a number at the edge between two codes may get either
    off = np.abs(np.subtract(from_floats, da.emb.compress(model), dtype=np.int16))
    assert (off <= (dims is not None)).all() if codec != "bit" else not off.any()
    assert off.mean() < 1e-3


def test_all_bands_in_fewer_bytes_are_the_same_space():
    da = scene("tessera")
    small = da.emb.compress(da.emb.fit_compressor())
    assert (small.attrs["product"], small.attrs["version"]) == ("tessera", da.attrs["version"])
    again = small.emb.decode()
    off = np.abs(again - da).max("band") / abs(da).max("band")
    assert float(off.max()) <= 0.5 / 127 + 1e-6
    alike = small.emb.similarity(da.isel(time=0, y=20, x=20))  # comparable: no error, and itself
    assert float(alike.isel(time=0, y=20, x=20)) > 0.999
    bits = da.emb.compress(da.emb.fit_compressor(codec="bit"))
    signs = np.where(da.values < 0, -1, 1)
    there = np.isfinite(da.values)
    np.testing.assert_array_equal(bits.values[there], signs[there])
    np.testing.assert_array_equal(bits.values[~there], 0)
    assert float((bits.emb.decode() ** 2).sum("band").max()) == pytest.approx(1, abs=1e-5)


def test_components_are_a_space_of_their_own():
    da = scene(decode=False)
    model = da.emb.fit_compressor(dims=16)
    small = da.emb.compress(model)
    assert small.attrs["version"] == f"{da.attrs['version']}+pca16-{model.hash}"
    other = da.isel(y=slice(0, 30)).emb.fit_compressor(dims=16)
    assert other.hash != model.hash
    with pytest.raises(errors.ComparabilityError):
        gx.concat([small, da.emb.compress(other)], "time")
    with pytest.raises(errors.ComparabilityError):
        small.emb.decompress(other)
    with pytest.raises(errors.ComparabilityError):
        scene("tessera").emb.compress(model)
    assert small.emb.product.licence == da.emb.product.licence
    assert "AlphaEarth" in small.emb.cite().attribution


def test_what_was_compressed_comes_back():
    da = scene(decode=False)
    model = da.emb.fit_compressor(dims=16)
    back = da.emb.compress(model).emb.decompress(model)
    assert (back.attrs["product"], back.attrs["version"]) == ("alphaearth", da.attrs["version"])
    true = da.emb.decode()
    cosine = (back * true).sum("band", skipna=False)
    assert float(cosine.mean()) > 0.97
    np.testing.assert_allclose((back**2).sum("band", skipna=False).max(), 1, atol=1e-5)
    np.testing.assert_array_equal(back.isnull(), true.isnull())


def test_a_prefix_is_what_truncate_gives():
    nested = gx.Product("nested", dims=8, matryoshka=(4,))
    data = np.random.default_rng(0).standard_normal((8, 9, 9)).astype("f4")
    da = gx.wrap(data, nested, geobox=gx.testing.geobox((9, 9)))
    model = da.emb.fit_compressor(dims=4, method="prefix")
    small = da.emb.compress(model)
    cut = da.emb.truncate(4)
    assert small.attrs["product"] == "nested"
    assert float(abs(small.emb.decode() - cut).max()) <= float(abs(cut).max()) / 127
    with pytest.raises(errors.EmbeddingError, match="cannot be made longer"):
        small.emb.decompress(model)
    with pytest.raises(errors.EmbeddingError, match="no prefix of 5 bands"):
        da.emb.fit_compressor(dims=5, method="prefix")


def test_everything_takes_components(tmp_path):
    da = scene(decode=False, shape=(64, 64))
    model = da.emb.fit_compressor(dims=16)
    small = da.emb.compress(model).isel(time=0)
    assert len(small.emb.search(HERE, 5)) == 5
    labels = gx.testing.scene().points(90, radius=300)
    probe = small.emb.fit_probe(labels, target="land_cover")
    whole = da.isel(time=0).emb.fit_probe(labels, target="land_cover")
    same = small.emb.predict(probe) == da.isel(time=0).emb.predict(whole)
    assert float(same.mean()) > 0.9
    for path in (
        small.emb.to_zarr(tmp_path / "a.zarr"),
        small.emb.decode().emb.to_zarr(tmp_path / "b.zarr", encode=True),
    ):
        again = gx.open(path, decode=False)
        assert again.dtype == np.int8
        np.testing.assert_array_equal(again.emb.decode(), small.emb.decode())
        assert again.attrs["version"] == small.attrs["version"]
        assert float((again.emb.decompress(model) * da.isel(time=0).emb.decode()).sum("band").max()) > 0.9
    squares = da.isel(time=0).emb.compress(da.emb.fit_compressor(dims=16, codec="signed-square"))
    again = gx.open(squares.emb.to_cog(tmp_path / "c.tif"), decode=False)
    np.testing.assert_array_equal(again.squeeze(), squares.squeeze())
    points = small.emb.sample(labels)
    again = gx.open(points.emb.to_geoparquet(tmp_path / "d.parquet"))
    expected = points.emb.decode().transpose("location", "band")
    np.testing.assert_array_equal(again.sel(location=expected.location), expected)


def test_a_compressor_is_one_file(tmp_path):
    da = scene()
    for options in ({"dims": 9}, {"codec": "bit"}):
        model = da.emb.fit_compressor(**options)
        again = gx.load_model(model.save(tmp_path / "model.npz"))
        assert again == model
        assert again.hash == model.hash
        assert model.transform(da).identical(da.emb.compress(again))


def test_errors():
    da = scene()
    with pytest.raises(ValueError, match="dims is 1 to the number of bands, 64; got 65"):
        da.emb.fit_compressor(dims=65)
    with pytest.raises(ValueError, match="codec='int4' is not known"):
        da.emb.fit_compressor(codec="int4")
    with pytest.raises(TypeError, match="compress takes a Compressor, as fit_compressor gives it; got PCA"):
        da.emb.compress(da.emb.fit_pca(3))
