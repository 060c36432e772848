"""Codes and vectors: exact inverses, NumPy and torch alike, as aef-loader, geotessera and torchgeo decode."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import geoemb_xr as gx
from geoemb_xr.core import codecs, model
from geoemb_xr.core.errors import EmbeddingError, SourceError

AXES = st.sampled_from((0, 1, 2))


def placed(codes, axis):
    """Codes with bands first, their band axis moved."""
    return np.moveaxis(codes, 0, axis)


def int8_codes(bands=16, low=-127):
    return hnp.arrays(np.int8, (bands, 3, 4), elements=st.integers(low, 127))


def scales(shape=(3, 4)):
    finite = st.floats(2**-10, 2**4, width=32)
    return hnp.arrays(np.float32, shape, elements=finite | st.sampled_from((np.nan, np.inf)))


# --- encode(decode(q)) == q ---------------------------------------------------------------------------------


@given(int8_codes(), AXES)
def test_signed_square_is_inverted(codes, axis):
    given_codes = placed(codes, axis)
    again, scale = codecs.encode_signed_square(codecs.decode_signed_square(given_codes, None, axis), axis)
    assert scale is None
    np.testing.assert_array_equal(again, given_codes)


def test_signed_square_of_every_code():
    codes = np.arange(-127, 128, dtype=np.int8)[None]
    decoded = codecs.decode_signed_square(codes, None, 0)
    exact = np.sign(codes.astype(float)) * (codes.astype(float) / 127.5) ** 2
    np.testing.assert_allclose(decoded, exact, rtol=2e-7)
    np.testing.assert_array_equal(codecs.encode_signed_square(decoded, 0)[0], codes)


@given(int8_codes(low=-128), AXES)
def test_one_missing_band_makes_a_vector_missing(codes, axis):
    decoded = codecs.decode_signed_square(placed(codes, axis), None, axis)
    missing = np.broadcast_to((codes == -128).any(axis=0), codes.shape)
    np.testing.assert_array_equal(np.isnan(decoded), placed(missing, axis))


@given(int8_codes(), scales(), AXES)
def test_per_pixel_scale_is_inverted(codes, scale, axis):
    codes[0] = 127  # the quantiser gives the largest component the largest code
    given_codes = placed(codes, axis)
    decoded = codecs.decode_per_pixel_scale(given_codes, scale, axis)
    np.testing.assert_array_equal(np.isnan(decoded).all(axis), ~np.isfinite(scale))
    np.testing.assert_array_equal(np.isnan(decoded).any(axis), ~np.isfinite(scale))
    again, scale_again = codecs.encode_per_pixel_scale(decoded, axis)
    held = np.isfinite(scale)
    np.testing.assert_array_equal(
        np.moveaxis(again, axis, -1)[held], np.moveaxis(given_codes, axis, -1)[held]
    )
    np.testing.assert_allclose(scale_again[held], scale[held], rtol=1e-6)
    assert np.isnan(scale_again[~held]).all()


@given(hnp.arrays(np.uint16, (1, 3, 4), elements=st.integers(0, 63_999)), AXES)
def test_fsq_is_inverted(codes, axis):
    given_codes = placed(codes, axis)
    decoded = codecs.decode_fsq(given_codes, None, axis)
    assert decoded.shape[axis] == 6
    np.testing.assert_array_equal(codecs.encode_fsq(decoded, axis)[0], given_codes)


def test_fsq_of_every_code():
    codes = np.arange(1, 64_000, dtype=np.uint16)[None]
    decoded = codecs.decode_fsq(codes, None, 0)
    np.testing.assert_array_equal(codecs.encode_fsq(decoded, 0)[0], codes)
    assert len(np.unique(decoded, axis=1).T) == 63_999
    low, high = decoded.min(axis=1), decoded.max(axis=1)
    np.testing.assert_array_equal(low, -1)
    np.testing.assert_array_equal(high, [0.75] * 3 + [1] * 3)


@given(hnp.arrays(np.uint16, (5, 3, 4), elements=st.integers(0, 65_535)), AXES)
def test_unscaled_is_inverted(codes, axis):
    given_codes = placed(codes, axis)
    decoded = codecs.decode_unscaled(given_codes, None, axis)
    np.testing.assert_array_equal(np.isnan(decoded).any(axis), (given_codes == 0).all(axis))
    np.testing.assert_array_equal(codecs.encode_unscaled(decoded, axis)[0], given_codes)


@given(hnp.arrays(np.uint16, (5, 3, 4), elements=st.integers(0, 16_384)), AXES)
def test_offset_16_is_inverted(codes, axis):
    given_codes = placed(codes, axis)
    decoded = codecs.decode_offset_16(given_codes, None, axis)
    np.testing.assert_array_equal(np.isnan(decoded).any(axis), (given_codes == 0).all(axis))
    np.testing.assert_array_equal(codecs.encode_offset_16(decoded, axis)[0], given_codes)


def test_16_bit_exports_of_earth_engine_are_wrapped():
    vectors = gx.testing.synthetic("alphaearth", shape=(6, 7), missing=True)
    exported = np.where(np.isnan(vectors), 0, np.rint((vectors + 1) * 8192)).astype(np.uint16)[0]
    wrapped = gx.wrap(exported, "alphaearth", geobox=gx.testing.geobox((6, 7)), time=2018)
    assert (wrapped.dtype, wrapped.attrs["codec"]) == (np.uint16, "offset-16")
    decoded = gx.testing.assert_lazy_identical(gx.decode, wrapped)
    np.testing.assert_allclose(decoded.values, vectors.values, atol=1 / 16_384)
    assert abs(decoded.emb.normalize() - vectors.emb.normalize()).max() < 2e-4
    with pytest.raises(ValueError, match="codes of 'alphaearth' are int8 or uint16; got int32"):
        gx.wrap(exported.astype(np.int32), "alphaearth", geobox=gx.testing.geobox((6, 7)))


# --- what cannot be encoded, and what nearly is -------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(codecs.CODECS))
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_with_a_band_that_is_not_finite_is_missing(name, axis, value):
    codec = codecs.CODECS[name]
    vectors = np.full((6, 3, 4), 0.5, np.float32) if name != "unscaled" else np.full((6, 3, 4), 7, np.float32)
    vectors[2, 1, 1] = value
    codes, scale = codec.encode(placed(vectors, axis), axis)
    again = codec.decode(codes, scale, axis)
    missing = np.zeros((6, 3, 4), bool)
    missing[:, 1, 1] = True
    np.testing.assert_array_equal(np.isnan(again), placed(missing, axis))
    with_nan = placed(np.where(missing, np.nan, vectors).astype(np.float32), axis)
    np.testing.assert_array_equal(codec.encode(with_nan, axis)[0], codes)


@pytest.mark.parametrize("name", sorted(codecs.CODECS))
@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("bands", ["one", "all"])
def test_minus_one_is_no_missing_value(name, axis, bands):
    codec = codecs.CODECS[name]
    vectors = np.full((6, 3, 4), 0.25, np.float32)
    vectors[0 if bands == "one" else slice(None)] = -1
    codes, scale = codec.encode(placed(vectors, axis), axis)
    assert codec.nodata is None or name in ("offset-16", "unscaled") or not (codes == codec.nodata).any()
    if name == "unscaled":
        return  # its values are 0 and more, and a vector of zeros is missing there
    again = codec.decode(codes, scale, axis)
    if name == "sign":
        np.testing.assert_array_equal(np.sign(again), placed(np.sign(vectors), axis))
        return
    step = {"signed-square": 0.008, "fsq": 0.25, "offset-16": 1.3e-4, "per-pixel-scale": 0.004}[name]
    np.testing.assert_allclose(again, placed(vectors, axis), atol=step)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_one_band_without_a_scale_makes_a_vector_missing(bad):
    codes, scale = np.full((4, 2, 3), 5, np.int8), np.full((4, 2, 3), 0.5, np.float32)
    scale[1, 0, 2] = bad
    decoded = codecs.decode_per_pixel_scale(codes, scale, 0)
    missing = np.zeros((4, 2, 3), bool)
    missing[:, 0, 2] = True
    np.testing.assert_array_equal(np.isnan(decoded), missing)
    assert (decoded[~missing] == 2.5).all()


# --- torch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", sorted(codecs.CODECS))
def test_torch_decodes_alike(name, axis):
    torch = pytest.importorskip("torch")
    codec, rng = codecs.CODECS[name], np.random.default_rng(0)
    bands, high = (1, 64_000) if name == "fsq" else (16, 128 if codec.dtype == "int8" else 65_536)
    codes = rng.integers(-128 if codec.dtype == "int8" else 0, high, (bands, 7, 9)).astype(codec.dtype)
    codes[:, 0, 0] = codec.nodata or 0
    scale = rng.uniform(0.01, 0.4, (7, 9)).astype(np.float32) if codec.scale else None
    if scale is not None:
        scale[0, :3] = np.nan, np.inf, 0
    moved = placed(codes, axis)
    expected = codec.decode(moved, scale, axis)
    got = codec.decode_torch(
        torch.from_numpy(np.ascontiguousarray(moved)),
        None if scale is None else torch.from_numpy(scale),
        axis,
    )
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-7, atol=0)
    assert np.isnan(expected).any()


def test_torch_takes_scales_of_bands():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    codes = rng.integers(-127, 128, (8, 3, 4)).astype(np.int8)
    scale = rng.uniform(0.01, 1, codes.shape).astype(np.float32)
    scale[2, 1, 1] = np.inf
    expected = codecs.decode_per_pixel_scale(codes, scale, 0)
    got = codecs.PER_PIXEL_SCALE.decode_torch(torch.from_numpy(codes), torch.from_numpy(scale), 0)
    np.testing.assert_array_equal(got.numpy(), expected)
    assert np.isnan(expected[:, 1, 1]).all()


# --- decoders that others wrote -----------------------------------------------------------------------------


def test_aef_loader_decodes_alike():
    loader = pytest.importorskip("aef_loader")
    rng = np.random.default_rng(2)
    codes = rng.integers(-127, 128, (64, 32, 32)).astype(np.int8)
    codes[:, :3] = -128
    theirs = loader.dequantize_aef(xr.DataArray(codes, dims=("band", "y", "x"))).values
    ours = codecs.decode_signed_square(codes, None, 0)
    np.testing.assert_allclose(ours, theirs, rtol=3e-7)


@pytest.mark.parametrize("each_band", [False, True])
def test_geotessera_decodes_alike(each_band):
    core = pytest.importorskip("geotessera.core")
    rng = np.random.default_rng(3)
    codes = rng.integers(-127, 128, (20, 30, 128)).astype(np.int8)
    scale = rng.uniform(0.05, 0.4, codes.shape if each_band else codes.shape[:2]).astype(np.float32)
    scale[0, 0], scale[1, 1] = np.nan, np.inf
    theirs = core.dequantize_embedding(codes, scale)
    np.testing.assert_array_equal(codecs.decode_per_pixel_scale(codes, scale, 2), theirs)


def test_torchgeo_decodes_esd_alike():
    datasets = pytest.importorskip("torchgeo.datasets")
    torch = pytest.importorskip("torch")
    codes = np.random.default_rng(4).integers(1, 64_000, (12, 5, 6)).astype(np.uint16)
    theirs = datasets.EmbeddedSeamlessData.quantizer.quantize(torch.from_numpy(codes.astype(np.int64)))
    np.testing.assert_allclose(codecs.decode_fsq(codes[:, None], None, 1), theirs.numpy(), atol=1e-7)


def test_real_tessera(real_data):
    pd = pytest.importorskip("pandas")
    folder = real_data / "tessera-points"
    codes, scale = np.load(folder / "int8_embeddings.npy"), np.load(folder / "scales.npy")
    decoded = codecs.decode_per_pixel_scale(codes, scale, 1)
    table = pd.read_csv(folder / "tessera_ukbms_10sites.csv")
    published = table.select_dtypes("number").to_numpy()[:, -128:]
    np.testing.assert_allclose(decoded, published, atol=4e-7, rtol=1e-6)
    again, scale_again = codecs.encode_per_pixel_scale(decoded, 1)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_allclose(scale_again, scale, rtol=1e-6)
    norms = np.linalg.norm(decoded, axis=1)
    assert norms.min() > 27
    assert norms.max() < 33


def test_real_alphaearth(real_data):
    gdal = pytest.importorskip("rasterio")
    with gdal.open(real_data / "alphaearth-raster" / "aef_wi_2024_int8_northup.tif") as file:
        codes = file.read()
    decoded = codecs.decode_signed_square(codes, None, 0)
    held = (codes != -128).all(0)
    assert int((~held).sum()) == 238
    norms = np.linalg.norm(decoded[:, held], axis=0)
    assert norms.min() == pytest.approx(0.9931, abs=5e-5)
    assert norms.max() == pytest.approx(1.0077, abs=5e-5)
    np.testing.assert_array_equal(codecs.encode_signed_square(decoded, 0)[0], codes)


# --- what is refused ----------------------------------------------------------------------------------------


def test_wrong_input_is_refused():
    codes = np.ones((4, 2, 2), np.int8)
    with pytest.raises(SourceError, match="needs scales"):
        codecs.decode_per_pixel_scale(codes, None, 0)
    with pytest.raises(SourceError, match=r"scales of shape \(3, 2\)"):
        codecs.decode_per_pixel_scale(codes, np.ones((3, 2), np.float32), 0)
    with pytest.raises(SourceError, match="has no scales"):
        codecs.decode_signed_square(codes, np.ones((2, 2), np.float32), 0)
    with pytest.raises(SourceError, match="0 to 63999; got 64000"):
        codecs.decode_fsq(np.full((1, 2, 2), 64_000, np.uint16), None, 0)
    with pytest.raises(SourceError, match="one code band; got 2"):
        codecs.decode_fsq(np.ones((2, 2, 2), np.uint16), None, 0)


def test_scales_that_were_dropped_are_named():
    codes = gx.testing.synthetic("tessera", shape=(4, 4), decode=False)
    with pytest.raises(EmbeddingError, match="need the coordinate 'scale'"):
        codes.drop_vars("scale").emb.decode()


@pytest.mark.parametrize("name", ["alphaearth", "tessera", "esd"])
def test_decode_and_encode_are_lazy_and_chunk_invariant(name):
    if name not in {p.name for p in model.registered()}:
        pytest.skip(f"no product {name}")
    codes = gx.testing.synthetic(name, shape=(13, 11), years=[2018, 2020], decode=False, missing=True)
    decoded = gx.testing.assert_lazy_identical(gx.decode, codes)
    assert decoded.dtype == np.float32
    gx.testing.assert_lazy_identical(gx.encode, decoded)
