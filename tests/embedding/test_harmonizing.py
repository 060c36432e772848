"""Sentinel-2's offset: removed by baseline and flag, date by date; dark pixels that contradict are told of."""

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import EmbeddingError

DATES = ["2020-06-01", "2021-06-01", "2022-06-01", "2023-06-01"]
BASELINES = ("s2:processing_baseline", ("time", ["02.14", "03.00", "04.00", "05.09"]))
BANDS = ("B02", "B04", "B08", "SCL")


@pytest.fixture
def true():
    """Digital numbers without an offset, with dark water in them, and classes beside."""
    found = (testing.images((20, 24), dates=DATES, bands=BANDS) * 10_000).round()
    found[:, :3, :6] = 120.0
    found[:, 3] = 4
    found[:, :3, 10, 10] = 0  # no data
    return found.astype("uint16")


def stored(true, has_offset):
    """As a catalogue has them: some dates with the offset."""
    out = true.copy()
    for t, has in enumerate(has_offset):
        if has:
            out[t, :3] = xr.where(true[t, :3] > 0, true[t, :3] + 1000, 0)
    return out


@pytest.mark.parametrize("chunks", [None, {"time": 2, "band": 1, "y": 7, "x": -1}])
@pytest.mark.parametrize(
    ("coords", "has_offset"),
    [
        ([BASELINES], (0, 0, 1, 1)),
        (
            [BASELINES, ("earthsearch:boa_offset_applied", ("time", [False, False, True, False]))],
            (0, 0, 0, 1),
        ),
        (
            [BASELINES, ("earthsearch:boa_offset_applied", ("time", ["False", "False", "True", "True"]))],
            (0, 0, 0, 0),
        ),
        ([("s2:processing_baseline", "05.00")], (1, 1, 1, 1)),
        ([("processing:version", ("time", ["N0214", "N0400", "N0509", "5.10"]))], (0, 1, 1, 1)),
        ([("s2:processing_baseline", "02.00")], (0, 0, 0, 0)),
        ([], (0, 1, 0, 1)),
    ],
)
def test_each_date_is_as_if_it_had_none(true, coords, has_offset, chunks):
    images = stored(true, has_offset)
    images = (images.chunk(chunks) if chunks else images).assign_coords(dict(coords))
    with testing.raise_if_dask_computes():
        found = gx.harmonize(images)
    assert found.dims == images.dims
    if not coords:  # nothing says that there is one
        xr.testing.assert_equal(found, images)
        return
    expected = true.where(true > 0).astype("f4")
    if not any(has_offset):
        expected = images.astype("f4").where(images > 0)
    np.testing.assert_array_equal(found.values[:, :3], expected.values[:, :3])
    np.testing.assert_array_equal(found.values[:, 3], 4)  # classes have no offset
    assert found.dtype == np.float32
    turned = gx.harmonize(images.transpose("x", "band", "time", "y"))
    np.testing.assert_array_equal(turned.transpose(*found.dims).values, found.values)


def test_dark_pixels_that_contradict_the_baseline_are_told(true):
    images = true.assign_coords(dict([BASELINES]))  # the last two dates lack what their baseline says
    with pytest.raises(
        EmbeddingError, match=r"baseline says .* darkest have 120.*harmonize=True, else harmonize=False"
    ):
        gx.harmonize(images.chunk({"time": 1})).compute()
    assert gx.harmonize(images, False) is images
    assert float(gx.harmonize(images, True)[0, 0].min()) == 0


def test_a_flag_that_dark_pixels_contradict_is_told(true):
    flags = ("earthsearch:boa_offset_applied", ("time", [False, False, True, True]))
    images = stored(true, (0, 0, 1, 1)).assign_coords(dict([BASELINES, flags]))
    with pytest.raises(EmbeddingError, match=r"catalogue says .* is removed .* darkest blue has 1120"):
        gx.harmonize(images).compute()


def test_an_offset_that_an_old_baseline_never_had_is_told(true):
    """SSL4EO-S12 adds it to old pictures, to make them like the new."""
    said = true.assign_coords({"s2:processing_baseline": "02.14"})
    images = stored(true, (0, 1, 0, 0)).assign_coords(said.coords)
    with pytest.raises(EmbeddingError, match=r"never in these numbers, .* have 1120 to 1120, as if"):
        gx.harmonize(images.transpose("y", "band", "time", "x").chunk({"time": 1})).compute()
    sand = true.where(true != 120, 1100)  # bright ground, dark in blue alone
    sand[:, 1:3] = sand[:, 1:3].clip(2500)
    kept = gx.harmonize(sand.assign_coords(said.coords))
    np.testing.assert_array_equal(kept.values[:, 1], sand.values[:, 1])


def test_one_picture_may_say_its_baseline_as_an_attribute(true):
    images = stored(true, (0, 0, 0, 1)).isel(time=3).assign_attrs({"s2:processing_baseline": "05.09"})
    expected = true.isel(time=3).where(lambda v: v > 0)
    np.testing.assert_array_equal(gx.harmonize(images).values, expected.values)
    flagged = true.isel(time=3).assign_attrs({"processing_baseline": 5.09, "boa_offset_applied": True})
    np.testing.assert_array_equal(gx.harmonize(flagged).values, expected.values)


def test_reflectance_is_left_as_it_is(true):
    images = (true * 1e-4).assign_coords(dict([BASELINES]))
    np.testing.assert_allclose(gx.harmonize(images).values, images.where(images != 0).values, rtol=1e-6)


def test_embed_and_composite_take_care_of_it(true):
    images = stored(true, (0, 0, 1, 1)).assign_coords(dict([BASELINES]))
    seen = true.where(true > 0)
    months = gx.composite(images, "YS", mask=None)
    np.testing.assert_array_equal(months.values[:, :3], gx.composite(seen, "YS", mask=None).values[:, :3])
    raw = gx.composite(images, "YS", mask=None, harmonize=False)
    assert float((raw - months).max()) == 1000
    own = {"bands": ["B02", "B04", "B08"], "time": "each", "output": "chips", "stride": 8, "scale": 1e-4}
    card = gx.encoder("rcf").with_chip(8)
    found = gx.embed(images.chunk({"time": 1}), card, **own)
    expected = gx.embed(seen, card, **own)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    kept = gx.embed(images, card, harmonize=False, **own)
    assert np.nanmax(np.abs(kept.values - expected.values)) > 1e-2


def test_what_is_harmonized_stays_so_in_embed(true):
    images = (
        (stored(true, (0, 0, 1, 1)) + 3000).astype("uint16").assign_coords(dict([BASELINES]))
    )  # nothing is dark
    once = gx.harmonize(images)
    np.testing.assert_array_equal(gx.harmonize(once), once)
    one = gx.harmonize(images.isel(time=3, drop=True).assign_coords({"s2:processing_baseline": "05.09"}))
    np.testing.assert_array_equal(gx.harmonize(one), once[3])
    assert {"time", "band", "y", "x", "spatial_ref"} == set(once.coords)


@pytest.mark.parametrize("by_sensor", [False, True])
def test_an_offset_that_is_given_too_is_taken_off_once(true, by_sensor):
    images = stored(true, (0, 0, 1, 1)).assign_coords(dict([BASELINES]))
    card = gx.encoder("rcf").with_chip(8)
    own = {"time": "each", "output": "chips", "stride": 8, "scale": 1e-4}

    def made(images, **more):
        images = images.sel(band=["B02", "B04", "B08"])
        return gx.embed({"s2": images} if by_sensor else images, card, **own, **more).values

    expected = made(images)
    np.testing.assert_array_equal(made(images, offset=-0.1), expected)
    np.testing.assert_array_equal(made(images, offset=-0.1, harmonize=True), made(images, harmonize=True))
    # what says nothing is as before: the offset is the user's to know of
    bare = images.drop_vars("s2:processing_baseline")[2:].assign_attrs(_FillValue=0)
    np.testing.assert_allclose(made(bare, offset=-0.1), expected[2:], atol=1e-5)
    for unknown in ("", np.nan):
        unread = bare.assign_coords({"s2:processing_baseline": unknown})
        np.testing.assert_array_equal(made(unread, offset=-0.1), made(bare, offset=-0.1))
    with pytest.raises(EmbeddingError, match=r"offset=-0\.1 is Sentinel-2's offset of 1,000, and the images"):
        made(images[:2], offset=-0.1)


def test_other_ways_are_not_known(true):
    with pytest.raises(ValueError, match="harmonize is 'auto', True or False; got 'yes'"):
        gx.harmonize(true, "yes")
