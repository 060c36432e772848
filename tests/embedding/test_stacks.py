"""Chips and series without a grid: the same vectors as of a raster at their places and months."""

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError

torch = pytest.importorskip("torch")

BANDS = ("B02", "B08", "VV")


class Told(torch.nn.Module):
    """Gives the months, the place, the mean of each band and the share of it that is absent."""

    def forward(self, series, *, absent, months, lonlat):
        axes = (1,) if series.ndim == 3 else (1, 3, 4)
        parts = [months.float().mean(1, keepdim=True), lonlat, series.mean(axes), absent.float().mean(axes)]
        return torch.cat(parts, 1)


def card(kind):
    side = 1 if kind == "series" else 8
    return gx.Encoder(
        f"told-{kind}", dims=9, kind=kind, bands=BANDS, chip=side, patch=side, steps=6, optional=BANDS,
        outputs=("pixels",) if kind == "series" else ("chips",), make=Told(),
    )  # fmt: skip


@pytest.fixture
def images():
    """Four months of three bands on 16 × 16 pixels, a hole in one."""
    dates = ["2024-03-04", "2024-04-09", "2024-06-01", "2024-08-20"]
    rng = np.random.default_rng(0)
    found = testing.images((16, 16), dates=dates, bands=("B02", "B08"))
    data = np.concatenate([found.values, rng.random((4, 1, 16, 16), np.float32)], 1)
    data[1, 0, 2:5, 3:7] = np.nan
    coords = {**{k: found[k] for k in ("time", "y", "x", "spatial_ref")}, "band": list(BANDS)}
    return xr.DataArray(data, dims=found.dims, coords=coords)


def test_series_of_places_are_those_of_a_raster(images):
    expected = gx.embed(images, card("series")).isel(time=0, drop=True).stack(location=("y", "x"))
    lon, lat = testing.lonlat_of(geometry.geobox_of(images, "test"))
    series = images.stack(location=("y", "x")).reset_index("location")
    series = series.drop_vars(["x", "y", "spatial_ref"]).assign_coords(
        location=np.arange(256), lon=("location", lon.ravel()), lat=("location", lat.ravel())
    )
    with testing.raise_if_dask_computes():
        da = gx.embed(series.chunk({"location": 100, "time": 2}), card("series"), quality=True)
    np.testing.assert_allclose(da.embedding.values, expected.transpose("location", "band").values, atol=1e-5)
    assert da.valid.values[2 * 16 + 3] == pytest.approx(11 / 12)
    xy = series.drop_vars(["lon", "lat"]).assign_coords(
        x=("location", np.tile(images.x.values, 16)), y=("location", np.repeat(images.y.values, 16)),
        spatial_ref=images.spatial_ref,
    )  # fmt: skip
    np.testing.assert_allclose(gx.embed(xy, card("series")).values, da.embedding.values, atol=1e-5)


def test_each_chip_has_its_own_dates(images):
    chips = xr.concat([images, images.isel(time=slice(None, None, -1))], "location", join="override")
    dates = np.array([["2020-01-05", "2020-02-05", "2020-03-05", "2020-12-05"], ["2021-07-01"] * 4], "M8[ns]")
    chips = chips.isel(y=slice(8), x=slice(8)).drop_vars(["time", "x", "y", "spatial_ref"]).assign_coords(
        date=(("location", "time"), dates), lon=("location", [11.0, -70.0]), lat=("location", [47.0, 8.0])
    )  # fmt: skip
    da = gx.embed(chips, card("cube"), output="chips")
    np.testing.assert_allclose(da.values[:, 0], [(0 + 1 + 2 + 11) / 4, 6])
    np.testing.assert_allclose(da.values[:, 1:3], [[11, 47], [-70, 8]])
    np.testing.assert_allclose(da.values[:, 6], 12 / (4 * 64), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda c: c.drop_vars(["lon", "lat"]), "cube", "coordinates 'lon' and 'lat' along 'location'"),
        (lambda c: c.drop_vars("time"), "cube", "must be dates"),
        (lambda c: c.isel(time=0), "cube", r"a stack of chips with the dims \(location, time, band, y, x\)"),
        (lambda c: c, "series", r"series of pixels with the dims \(location, time, band\)"),
        (lambda c: c.isel(x=slice(5)), "cube", r"these have 8 × 5: .*with_chip\(5\)"),
    ],
)
def test_stacks_that_cannot_be_say_why(images, change, kind, message):
    chips = images.isel(y=slice(8), x=slice(8)).expand_dims(location=3).drop_vars(["x", "y", "spatial_ref"])
    chips = chips.assign_coords(lon=("location", [1.0] * 3), lat=("location", [2.0] * 3))
    with pytest.raises(EmbeddingError, match=message):
        gx.embed(change(chips), card(kind))
