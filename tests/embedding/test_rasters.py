"""Embedding one's own images: equal to the network on each chip, the same for every window and chunking."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from mixing import BANDS, MIXING, Mixing, assert_close, make_mixing, scene, torch

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError, SourceError
from geoemb_xr.embedding import chips


def tokens_of(encoder, chip):
    """What the network gives for one chip ``(band, y, x)``, straight from its card: ``(token, dims)``."""
    mean, std = (
        np.broadcast_to(v, len(BANDS))[:, None, None].astype("f4") for v in (encoder.mean, encoder.std)
    )
    filled = np.where(np.isnan(chip), 0, (chip - mean) / std)
    with torch.inference_mode():
        return make_mixing(encoder).eval()(torch.from_numpy(filled[None].astype("f4")))[0].numpy()


def whole_image_reference(encoder, images, edge_y, edge_x):
    """Every token by its definition, one at a time: which chip owns it is told from its global number alone."""
    side, patch, margin = encoder.chip, encoder.patch, encoder.margin
    stride = side - 2 * margin
    _, height, width = images.shape
    rows = range(-(-edge_y // patch), (edge_y + height) // patch)
    cols = range(-(-edge_x // patch), (edge_x + width) // patch)
    out = np.empty((encoder.dims, len(rows), len(cols)), "f4")
    known = {}
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            where = []
            for number, first, last in ((r, rows[0], rows[-1]), (c, cols[0], cols[-1])):
                start = number * patch // stride * stride - margin
                where.append(min(max(start, first * patch), max((last + 1) * patch - side, first * patch)))
            top, left = where
            if (top, left) not in known:
                chip = np.full((len(images), side, side), np.nan, "f4")
                part = images[:, top - edge_y : top - edge_y + side, left - edge_x : left - edge_x + side]
                chip[:, : part.shape[1], : part.shape[2]] = part
                known[top, left] = tokens_of(encoder, chip)[1:]
            token = (r - top // patch) * (side // patch) + c - left // patch
            out[:, i, j] = known[top, left][token]
    return out


def edges_of(images):
    """Global pixel numbers of the first row and column."""
    return round(-(float(images.y[0]) + 5) / 10), round((float(images.x[0]) - 5) / 10)


# --- values -------------------------------------------------------------------------------------------------


def test_rcf_is_torchgeo_s_on_each_chip():
    models = pytest.importorskip("torchgeo.models")
    images = scene((100, 90))
    edge_y, edge_x = edges_of(images)
    da = gx.embed(images, "rcf").compute()
    theirs = models.RCF(4, 512, kernel_size=3, bias=-1.0, seed=1)
    seen = 0
    for i, y in enumerate(da.y.values):
        for j, x in enumerate(da.x.values):
            top, left = round(-(y + 160) / 10) - edge_y, round((x - 160) / 10) - edge_x
            chip = images.values[:, max(top, 0) : top + 32, max(left, 0) : left + 32]
            if chip.shape[1:] == (32, 32):
                assert_close(da.values[:, i, j], theirs(torch.from_numpy(chip[None])).numpy()[0])
                seen += 1
    assert seen == 6


@pytest.mark.parametrize("offset", [(0, 0), (30, -50), (70, 20)])
def test_tokens_are_those_of_a_slow_reference(offset):
    images = testing.images(grid=testing.geobox((90, 75), offset=offset))
    da = gx.embed(images, MIXING)
    assert_close(da.values, whole_image_reference(MIXING, images.values, *edges_of(images)))
    assert da.dtype == np.float32
    assert da.chunks is not None


def blended_reference(encoder, images, edge_y, edge_x):
    """Every chip of the stride's grid on its own, laid over one another by the definition, chip after chip."""
    side, patch, margin = encoder.chip, encoder.patch, encoder.margin
    stride, count = side - 2 * margin, side // patch
    taper = np.minimum(np.arange(count) + 0.5, count - np.arange(count) - 0.5)
    ranges, starts = [], []
    for edge, size in zip((edge_y, edge_x), images.shape[1:], strict=True):
        first, last = -(-edge // patch), (edge + size) // patch
        low, high = first * patch, max(last * patch - side, first * patch)
        wanted = range(low // stride * stride - margin, last * patch - margin, stride)
        ranges.append((first, last))
        starts.append(sorted({min(max(at, low), high) for at in wanted}))
    (top, bottom), (left, right) = ranges
    total, weight = (
        np.zeros((encoder.dims, bottom - top, right - left)),
        np.zeros((bottom - top, right - left)),
    )
    for y in starts[0]:
        for x in starts[1]:
            chip = np.full((len(images), side, side), np.nan, "f4")
            part = images[:, y - edge_y : y - edge_y + side, x - edge_x : x - edge_x + side]
            chip[:, : part.shape[1], : part.shape[2]] = part
            tokens = tokens_of(encoder, chip)[1:].reshape(count, count, -1)
            for i, j in np.ndindex(count, count):
                r, c = y // patch + i, x // patch + j
                if top <= r < bottom and left <= c < right:
                    total[:, r - top, c - left] += taper[i] * taper[j] * tokens[i, j].astype("f8")
                    weight[r - top, c - left] += taper[i] * taper[j]
    return total / weight


@pytest.mark.parametrize("offset", [(0, 0), (30, -50), (70, 20)])
def test_blended_tokens_are_those_of_a_slow_reference_in_any_chunks(offset):
    images = testing.images(grid=testing.geobox((90, 75), offset=offset))
    expected = blended_reference(MIXING, images.values, *edges_of(images))
    whole = gx.embed(images, MIXING, blend=True, chunks=1000).compute()
    assert_close(whole.values, expected)
    assert np.abs(whole.values - gx.embed(images, MIXING).values).max() > 1e-3
    for chunks in (16, 40):
        with testing.raise_if_dask_computes():
            lazy = gx.embed(images.chunk(y=33, x=50), MIXING, blend=True, chunks=chunks)
        assert lazy.data.npartitions > 1
        assert_close(lazy.values, whole.values)
        assert_close(lazy[:, 2:5, 1:4].values, whole[:, 2:5, 1:4].values)
        xr.testing.assert_identical(lazy.coords.to_dataset(), whole.coords.to_dataset())


def test_blended_tokens_skip_chips_without_data_and_say_so_where_there_is_none():
    images = scene((100, 90))
    images.values[:, :48] = np.nan
    found = gx.embed(images, MIXING, blend=True, missing=0.1, quality=True).compute()
    gone = found.valid.values == 0
    assert gone.any()
    assert not gone.all()
    assert np.isnan(found.embedding.values[:, gone]).all()
    assert np.isfinite(found.embedding.values[:, -3:]).all()
    with pytest.raises(EmbeddingError, match=r"blend is for output='tokens' of chips that overlap"):
        gx.embed(images, MIXING, blend=True, output="chips")
    with pytest.raises(EmbeddingError, match=r"blend is for .* below the chip's 32 pixels"):
        gx.embed(images, MIXING, blend=True, margin=0)


def test_a_token_lies_where_its_pixels_lie():
    images = scene()
    da = gx.embed(images, MIXING)
    box, own = da.emb.geobox, images.odc.geobox if hasattr(images, "odc") else None
    assert box.resolution.x == 80.0
    assert float(da.x[0]) - 40 in images.x.values - 5  # a token's left edge is a pixel's
    assert round((float(da.x[0]) - 40) / 10) % MIXING.patch == 0
    assert own is None or own.crs == box.crs


def test_chunks_change_nothing_and_nothing_is_computed_while_building():
    images = scene((130, 110))
    expected = gx.embed(images, MIXING, chunks=1000).compute()
    for sizes in ({"y": 17, "x": 50, "band": 1}, {"y": 64, "x": 33, "band": 3}):
        with testing.raise_if_dask_computes():
            lazy = gx.embed(images.chunk(sizes), MIXING)
        assert lazy.data.npartitions > 1
        _ = lazy.data.blocks[(0, 0, 0)].compute()
        assert_close(lazy.values, expected.values)
        xr.testing.assert_identical(lazy.coords.to_dataset(), expected.coords.to_dataset())
        assert lazy.attrs == expected.attrs
    turned = gx.embed(images.chunk({"y": 50, "x": 50}).transpose("x", "band", "y"), MIXING)
    assert_close(turned.values, expected.values)
    south = gx.embed(images.isel(y=slice(None, None, -1)), MIXING)
    assert_close(south.values, expected.values)
    xr.testing.assert_identical(south.coords.to_dataset(), expected.coords.to_dataset())
    window = {"y": slice(3, 7), "x": slice(2, 9)}
    assert_close(gx.embed(images, MIXING, chunks=40).isel(window).values, expected.isel(window).values)


@pytest.mark.parametrize("blend", [False, True])
def test_a_crop_of_the_images_has_the_same_vectors_away_from_its_edges(blend):
    images = scene((150, 140))
    whole = gx.embed(images, MIXING, blend=blend).compute()
    crop = images.isel(y=slice(13, 120), x=slice(27, 140))
    part = gx.embed(crop, MIXING, blend=blend, quality=True).compute()
    inner = part.embedding.where(~part.edge)
    assert 0 < int(part.edge.sum()) < part.edge.size
    same = whole.sel(y=part.y, x=part.x)  # bit for bit the same coordinates
    kept = ~part.edge.values
    assert_close(inner.values[:, kept], same.values[:, kept])
    other = np.abs(part.embedding.values - same.values).max(0)
    assert other[part.edge.values].max() > 1e-3  # what is flagged does differ


@given(
    start=st.integers(-300, 300),
    size=st.integers(32, 200),
    margin=st.sampled_from([0, 4, 8, 12]),
    cut=st.integers(0, 60),
)
def test_each_token_has_one_owner_that_saw_it(start, size, margin, cut):
    axis = chips.lay_tokens(start, size, side=32, patch=4, margin=margin)
    owned = [j for chip in axis.chips for j in range(chip.first, chip.stop)]
    assert owned == list(range(axis.size))
    for chip in axis.chips:
        assert (start + chip.start) % 4 == 0
        assert chip.skip >= 0
        assert chip.skip + chip.stop - chip.first <= 8
        assert start + chip.start + 4 * chip.skip == 4 * (axis.origin + chip.first)
        assert chip.start >= -3
        assert chip.start + 32 <= size + 3
    if size - cut >= 32:  # a crop has the same chips where they lie inside
        part = chips.lay_tokens(start + cut, size - cut, side=32, patch=4, margin=margin)
        there, here = seen_whole(axis, start), seen_whole(part, start + cut)
        assert here.keys() <= there.keys()
        assert all(there[at][1] == stop for at, (_, stop) in here.items())


def seen_whole(axis, start):
    """Chips that no edge has moved: where they begin, and the tokens they own, in global numbers."""
    return {
        start + chip.start: (axis.origin + chip.first, axis.origin + chip.stop)
        for chip in axis.chips
        if not chip.edge
    }


def test_the_vector_of_a_chip_is_the_mean_of_its_patches_or_its_class_token():
    images = scene((128, 128))
    edge_y, edge_x = edges_of(images)
    top, left = -edge_y % 32, -edge_x % 32
    chip = images.values[:, top : top + 32, left : left + 32]
    tokens = tokens_of(MIXING, chip)
    mean = gx.embed(images, MIXING, output="chips")
    cls = gx.embed(images, MIXING, output="chips", pooling="cls")
    at = {"y": int(top > 0), "x": int(left > 0)}
    assert_close(mean.isel(at).values, tokens[1:].mean(0))
    assert_close(cls.isel(at).values, tokens[0])
    assert mean.emb.geobox.resolution.x == 320.0
    with pytest.raises(ComparabilityError, match="cannot mix"):
        gx.mosaic([mean, cls], "EPSG:32632")


def test_chips_closer_than_their_side_are_centred_on_their_pixel():
    images = scene((128, 128))
    edge_y, edge_x = edges_of(images)
    da = gx.embed(images, MIXING, output="chips", stride=16)
    i, j = 3, 4
    top, left = round(-(float(da.y[i]) + 80) / 10) - edge_y, round((float(da.x[j]) - 80) / 10) - edge_x
    chip = images.values[:, top - 8 : top + 24, left - 8 : left + 24]
    assert_close(da.isel(y=i, x=j).values, tokens_of(MIXING, chip)[1:].mean(0))


def test_a_stack_of_chips_has_a_vector_each_and_keeps_what_is_known_of_them():
    rng = np.random.default_rng(2)
    data = rng.uniform(0.01, 0.6, (7, 4, 32, 32)).astype("f4")
    data[3, :, :20] = np.nan
    coords = {
        "band": list(BANDS),
        "location": list("abcdefg"),
        "label": ("location", np.arange(7)),
        "year": 2024,
    }
    chips = xr.DataArray(data, dims=("location", "band", "y", "x"), coords=coords)
    found = gx.embed(chips.chunk({"location": 3, "band": 2}), MIXING, output="chips", quality=True)
    da = found.embedding
    assert da.dims == ("location", "band")
    assert da.emb.kind == "points"
    np.testing.assert_array_equal(da.label, np.arange(7))
    assert np.isnan(da.values[3]).all()
    np.testing.assert_allclose(found.valid, [1, 1, 1, 12 / 32, 1, 1, 1])
    for k in (0, 2, 6):
        assert_close(da.values[k], tokens_of(MIXING, data[k])[1:].mean(0))
    turned = gx.embed(chips.transpose("x", "location", "y", "band"), MIXING, output="chips", missing=1.0)
    assert np.isfinite(turned.values).all()
    assert turned.attrs["version"] == gx.embed(scene(), MIXING).attrs["version"]
    with pytest.raises(EmbeddingError, match=r"get a vector each, output='chips'"):
        gx.embed(chips, MIXING, output="tokens")
    with pytest.raises(EmbeddingError, match=r"chips of 32 × 32 pixels, and these have 32 × 20"):
        gx.embed(chips.isel(x=slice(20)), MIXING)
    dated = xr.concat([chips, chips * 0.5], "time").assign_coords(
        time=np.array(["2020-04", "2021-04"], "M8[ns]")
    )
    with pytest.raises(EmbeddingError, match=r"2 dates .*time='each'"):
        gx.embed(dated, MIXING)
    each = gx.embed(dated, MIXING, time="each", missing=1.0)
    assert each.dims == ("time", "location", "band")
    assert_close(each.values[0], turned.values)
    assert_close(each.values[1], gx.embed(chips * 0.5, MIXING, output="chips", missing=1.0).values)
    assert_close(gx.embed(dated, MIXING, time="2021-04", missing=1.0).values, each.values[1:])
    np.testing.assert_array_equal(each.label, np.arange(7))


# --- missing pixels -----------------------------------------------------------------------------------------


def test_few_missing_pixels_become_the_mean_and_many_leave_no_vector():
    images = scene((128, 128))
    edge_y, edge_x = edges_of(images)
    top, left = -edge_y % 32, -edge_x % 32
    holes = images.copy()
    holes[1, top + 3 : top + 9, left + 2 : left + 12] = np.nan  # one band suffices; 60 of 1024 pixels
    holes[:, top : top + 32, left + 32 : left + 44] = np.nan  # 37 % of its neighbour
    both = gx.embed(holes, MIXING, output="chips", quality=True).compute()
    i, j = int(top > 0), int(left > 0)
    chip = holes.values[:, top : top + 32, left : left + 32]
    assert_close(both.embedding.values[:, i, j], tokens_of(MIXING, chip)[1:].mean(0))
    assert float(both.valid[i, j]) == pytest.approx(1 - 60 / 1024)
    assert np.isnan(both.embedding.values[:, i, j + 1]).all()
    assert float(both.valid[i, j + 1]) == pytest.approx(1 - 12 / 32)
    more = gx.embed(holes, MIXING, output="chips", missing=0.5).compute()
    assert np.isfinite(more.values[:, i, j + 1]).all()


def test_codes_of_no_data_are_missing_and_chips_without_data_cost_nothing():
    images = (scene((128, 128)) * 10_000).astype("uint16")
    images.attrs["nodata"] = 0
    images[:, :, :64] = 0
    Mixing.calls = 0
    da = gx.embed(images, MIXING, scale=1e-4, quality=True).compute()
    kept = np.isfinite(da.embedding.values).all(0)
    assert not kept[:, :4].any()
    assert kept[1:-1, -4:-1].all()
    full = Mixing.calls
    Mixing.calls = 0
    _ = gx.embed(images.where(False), MIXING, missing=1.0).compute()
    assert Mixing.calls == 0 < full
    tokens = gx.embed(images, MIXING, scale=1e-4, missing=0.9).compute()
    blind = da.valid.values == 0
    assert blind.any()
    assert np.isnan(tokens.values[:, blind]).all()  # no token is made up where no pixel was seen


# --- what bad input gets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda im: im.drop_vars("spatial_ref"), {}, "needs a CRS"),
        (lambda im: im.isel(band=[0, 1, 2]), {}, "B08 is missing"),
        (lambda im: im.drop_vars("band"), {}, "have no names"),
        (lambda im: im, {"bands": ["B02", "B03"]}, "bands= names 2"),
        (lambda im: im.isel(y=slice(0, 20)), {}, "20 pixels along an axis, fewer than the 32"),
        (lambda im: im.rename(x="easting"), {}, "easting is none of them"),
        (lambda im: im.values, {}, "got ndarray"),
        (lambda im: im.expand_dims(time=2).assign_coords(time=np.array(["2024-05-01", "2024-06-01"], "M8[ns]")), {},
         "2024-05-01, 2024-06-01.*time='each'"),
        (lambda im: im, {"stride": 12}, "got stride=12"),
        (lambda im: im, {"margin": 4}, "got margin=4"),
        (lambda im: im, {"missing": 3}, "share from 0 to 1"),
        (lambda im: im, {"chunks": 0}, "chunks is a number"),
        (lambda im: im, {"batch_size": 0}, "batch_size is a number"),
        (lambda im: im, {"stride": 8.0}, r"stride is a number of pixels; got 8.0"),
        (lambda im: im, {"missing": "some"}, r"missing is a share from 0 to 1; got 'some'"),
        (lambda im: im, {"scale": 0}, "scale is a number"),
        (lambda im: im, {"offset": float("nan")}, "offset is a number"),
        (lambda im: im + 1j, {}, r"complex.*abs\(images\) \*\* 2"),
        (lambda im: im.astype(object), {}, "the images are object"),
        (lambda im: im.assign_coords(band=["B02", "B02", "B04", "B08"]), {}, "the band B02 more than once"),
        (lambda im: im.assign_coords(wavelength=("band", [492, 560, 665, 1610.0])), {}, "B08 lies at 1610 nm"),
    ],
)  # fmt: skip
def test_images_that_an_encoder_cannot_take_say_why(change, options, message):
    card = replace(MIXING, wavelengths=(492.4, 559.8, 664.6, 832.8))
    with pytest.raises(EmbeddingError, match=message):
        gx.embed(change(scene()), card, **options)


def test_images_that_hold_no_chip_say_so_instead_of_giving_nothing():
    images = scene().isel(y=slice(3, 35), x=slice(3, 35))  # as large as a chip, but not where one lies
    with pytest.raises(EmbeddingError, match=r"no chip has a vector.*the fullest has \d+% .* 32 × 32 pixels"):
        gx.embed(images, "rcf")
    assert gx.embed(images, "rcf", missing=0.75).notnull().any()


def test_a_rotated_grid_says_so():
    images = scene()
    images.spatial_ref.attrs["GeoTransform"] = "600000 9.8 1.7 5200000 1.7 -9.8"
    with pytest.raises(EmbeddingError, match="rotated"):
        gx.embed(images, MIXING)


def test_output_and_encoder_that_do_not_exist_are_told_with_those_that_do():
    with pytest.raises(ValueError, match="valid are 'tokens', 'chips'"):
        gx.embed(scene(), MIXING, output="pixels")
    with pytest.raises(ValueError, match=r"unknown encoder 'rfc'.*Did you mean 'rcf'"):
        gx.embed(scene(), "rfc")
    with pytest.raises(SourceError, match="no weights at"):
        gx.encoder("rcf", weights="/nowhere/at/all.pt")
    with pytest.raises(EmbeddingError, match="no class token"):
        gx.embed(scene(), "rcf", pooling="cls")


@pytest.mark.parametrize(
    ("unit", "factor", "message"),
    [
        ("reflectance", 10_000, r"digital numbers.*scale=1e-4"),
        ("dn", 1, r"reflectance, and the encoder takes digital numbers.*scale=10000"),
        ("dB", 1, "linear power"),
        ("power", -30, "decibels"),
        ("K", 50, "kelvin"),
    ],
)
def test_numbers_in_another_unit_are_caught_at_the_first_block(unit, factor, message):
    lazy = gx.embed(scene() * factor, replace(MIXING, units=unit))
    with pytest.raises(EmbeddingError, match=message):
        lazy.compute()


def test_a_number_for_missing_pixels_that_is_not_declared_is_caught():
    images = (scene() * 10_000).fillna(0).round().astype("int16").load()
    images[:, :40, :40] = -9999
    with pytest.raises(
        EmbeddingError, match=r"values as low as -0\.9999.*images\.assign_attrs\(_FillValue=…\)"
    ):
        gx.embed(images, MIXING, scale=1e-4).compute()
    assert gx.embed(images.assign_attrs(_FillValue=-9999), MIXING, scale=1e-4).isnull().any()


def test_a_declared_scale_that_is_not_applied_is_told_of_before_anything_is_read():
    images = (scene() * 10_000).fillna(0).round().astype("int16")
    stored = images.to_dataset("band")
    for band in BANDS:
        stored[band].attrs["scale_factor"] = 1e-4
    masked = xr.decode_cf(stored)
    one = images.assign_attrs(scales=(1.0, 1e-4, 1e-4, 1e-4), offsets=(0.0, -0.1, 0.0, 0.0))
    message = (
        r"a scale of 0.0001 and an offset of (-0\.1|0), which are not applied.*takes reflectance.*scale= and"
    )
    for wrong in (
        stored,
        one,
        one.to_dataset("band"),
        stored.assign(B08=masked["B08"]),
        {"s2": stored},
        gx.composite(in_january(one)),
    ):
        with pytest.raises(EmbeddingError, match=message):
            gx.embed(wrong, MIXING)
    expected = gx.embed(images, MIXING, scale=1e-4).compute()
    for known in (gx.embed(stored, MIXING, scale=1e-4), gx.embed(masked, MIXING)):
        assert_close(known.values, expected.values)
    gx.embed(stored, replace(MIXING, units="dn"))  # of these 10,000 is white
    with pytest.raises(EmbeddingError, match="takes dn"):
        gx.embed(images.assign_attrs(scale_factor=2.75e-5, add_offset=-0.2), replace(MIXING, units="dn"))


def in_january(images):
    return images.expand_dims(time=[np.datetime64("2024-01-01", "ns")])


def test_scale_and_offset_bring_digital_numbers_home():
    images = scene()
    expected = gx.embed(images, MIXING).compute()
    numbers = (images * 10_000 + 1000).round().astype("uint16")
    got = gx.embed(numbers, MIXING, scale=1e-4, offset=-0.1).compute()
    np.testing.assert_allclose(got.values, expected.values, atol=1e-3)


@pytest.mark.parametrize("names", [("blue", "green", "red", "nir"), ("B2", "b3", "B04_10m", "B8"), BANDS])
def test_bands_are_found_by_the_names_they_go_by_in_any_order(names):
    images = scene().isel(band=[2, 0, 3, 1])
    images = images.assign_coords(band=[names[k] for k in (2, 0, 3, 1)])
    expected = gx.embed(scene(), MIXING)
    assert_close(gx.embed(images, MIXING).values, expected.values)
    other = images.assign_coords(band=list("wxyz"))
    asked = gx.embed(other, MIXING, bands={"B02": "x", "B03": "z", "B04": "w", "B08": "y"})
    assert_close(asked.values, expected.values)
    assert_close(gx.embed(other, MIXING, bands=["x", "z", "w", "y"]).values, expected.values)


def test_a_dataset_with_a_variable_a_band_is_a_raster():
    images = scene()
    assert_close(gx.embed(images.to_dataset("band"), MIXING).values, gx.embed(images, MIXING).values)


def test_pixels_far_from_those_an_encoder_knows_are_told_of(caplog):
    coarse = testing.images(grid=testing.geobox((64, 64), resolution=30.0))
    with caplog.at_level("INFO", logger="geoemb_xr"):
        gx.embed(coarse, MIXING)
    assert "made for pixels of 10 m, and the images have 30 m" in caplog.text


# --- what comes out is an embedding -------------------------------------------------------------------------


def test_each_date_has_its_vectors():
    images = scene(dates=["2020-04-01", "2020-07-01", "2021-07-01"], chunks=40)
    each = gx.embed(images, MIXING, time="each")
    assert each.dims == ("time", "band", "y", "x")
    assert_close(each.isel(time=1).values, gx.embed(images.isel(time=1), MIXING).values)
    one = gx.embed(images, MIXING, time="2020-07-01")
    assert one.sizes["time"] == 1
    with pytest.raises(EmbeddingError, match=r"no date '2030'; they have 3 dates \(2020-04-01"):
        gx.embed(images, MIXING, time="2030")
    assert_close(one.values[0], each.values[1])
    mean = each.emb.aggregate("mean")  # the temporal form of a yardstick
    assert_close(mean.values.squeeze(), each.values.mean(0))


def test_everything_else_works_on_what_comes_out(tmp_path):
    images = scene((128, 128), chunks=64)
    da = gx.embed(images, "rcf", stride=16)
    assert da.emb.kind == "raster"
    assert "Rolf" in gx.cite(da).citation
    path = da.emb.to_zarr(tmp_path / "own.zarr", encode=True)
    back = gx.open(path)
    assert back.attrs["version"] == da.attrs["version"]
    assert back.emb.product == da.emb.product
    whole = np.isfinite(da.values).all(0)
    np.testing.assert_allclose(
        back.values[:, whole], da.values[:, whole], atol=np.nanmax(np.abs(da.values)) / 127
    )
    points = testing.scene().points(60, radius=500)
    probe = da.emb.fit_probe(points, target="land_cover", method="ridge")
    assert da.emb.predict(probe).shape == da.shape[1:]


def test_other_weights_or_another_preparation_are_another_space(tmp_path):
    images = scene()
    path = tmp_path / "weights.pt"
    path.write_bytes(b"one")
    first = gx.embed(images, gx.encoder(MIXING, weights=path))
    path.write_bytes(b"two!")
    second = gx.embed(images, gx.encoder(MIXING, weights=path))
    third = gx.embed(images, replace(MIXING, preparation=2))
    versions = [each.attrs["version"] for each in (first, second, third, gx.embed(images, MIXING))]
    assert len(set(versions)) == 4
    with pytest.raises(ComparabilityError, match="different spaces"):
        gx.concat([first.expand_dims(time=[0]), second.expand_dims(time=[1])], dim="time")


def test_the_graph_has_one_task_a_block_and_no_image_in_it():
    images = scene((256, 256)).chunk({"y": 64, "x": 64})
    da = gx.embed(images, MIXING, chunks=64)
    layer = next(v for k, v in da.data.dask.layers.items() if k.startswith("embed-"))
    assert len(layer) == da.data.npartitions + 1  # and what they have in common
    assert len(pickle.dumps(dict(layer))) / len(layer) < 4000
    again = gx.embed(images, MIXING, chunks=64)
    assert again.data.name == da.data.name
    assert gx.embed(images, MIXING, chunks=64, missing=0.5).data.name != da.data.name


def test_a_network_that_breaks_its_card_s_promise_says_so():
    with pytest.raises(EmbeddingError, match=r"gave \(\d+, 17, 6\).*must give tokens \(n, 0 \+ 16, 6\)"):
        gx.embed(scene(), replace(MIXING, prefix=0)).compute()


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int16", -9999), ("uint16", 0), ("int32", -1), ("float64", -9999.0), (">f4", -9999.0)],
)
def test_numbers_of_any_type_are_the_same_image(dtype, nodata):
    images = (scene() * 10_000).round()
    images[:, 10:14, 20:30] = np.nan
    expected = gx.embed((images * np.float32(1e-4)).astype("f4"), MIXING)
    stored = images.fillna(nodata).astype(dtype)
    stored.attrs["nodata"] = nodata
    assert_close(gx.embed(stored, MIXING, scale=1e-4).values, expected.values)
    # text says none, and a value of stored numbers is none of those that were scaled
    images.attrs["missing_value"] = "none"
    images.encoding = {"_FillValue": float(images[0, 0, 0]), "scale_factor": 2.0}
    assert_close(gx.embed(images, MIXING, scale=1e-4).values, expected.values)
