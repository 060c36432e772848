"""OlmoEarth's store by UTM zones: codec, width and family as its attributes say, never assumed."""

import numpy as np
import pytest
import zarr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core.errors import CoverageError, SourceError

QUANTIZATION = {"method": "PowerQuantizeValueTransform", "quantized_dtype": "int8", "nodata": -128}


def write(path, **attrs):
    """A zone of 128-d codes as the plan of their makers has it."""
    grid = testing.geobox((48, 40))
    codes = testing.synthetic("alphaearth", grid=grid, years=[2023, 2024], decode=False).values
    codes = np.concatenate([codes, codes[:, ::-1]], axis=1)
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update(
        {"geoemb:model": "allenai/OlmoEarth-v1_2-Nano", "geoemb:quantization": QUANTIZATION, **attrs}
    )
    zone = root.create_group(f"utm{grid.crs.epsg % 100:02d}")
    zone.attrs.update({"proj:code": f"EPSG:{grid.crs.epsg}", "spatial:transform": list(grid.affine)[:6]})
    array = zone.create_array(
        "embeddings",
        shape=(2, 128, 48, 40),
        chunks=(1, 64, 16, 40),
        shards=(1, 128, 48, 40),
        dtype="int8",
        fill_value=-128,
        dimension_names=("time", "band", "y", "x"),
    )
    array[:] = codes
    zone.create_array("time", shape=(2,), dtype="int32", dimension_names=("time",))[:] = [2023, 2024]
    return path, codes, grid


def test_a_zone_is_opened_by_its_attributes(tmp_path):
    path, codes, grid = write(tmp_path / "olmoearth.zarr")
    opened = gx.open("olmoearth", path, decode=False)
    np.testing.assert_array_equal(opened.values, codes)
    assert opened.attrs["version"] == "v1.2-128"
    assert opened.attrs["codec"] == "signed-square"
    assert opened.sizes["band"] == 128
    assert opened.emb.geobox.crs == grid.crs
    decoded = np.sign(codes) * (np.abs(codes.astype(float)) / 127.5) ** 2
    np.testing.assert_allclose(gx.open("olmoearth", path, time=2024).values, decoded[1:], atol=1e-6)
    with pytest.raises(CoverageError):
        gx.open("olmoearth", path, bbox=(100, 10, 101, 11))


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"geoemb:quantization": None}, "says nothing of how"),
        ({"geoemb:quantization": {"method": "magic"}}, "magic"),
        ({"geoemb:quantization": {"scale": {"type": "scalar", "scale": 0.01}}}, "linear"),
        ({"geoemb:model": "other"}, "of which family"),
    ],
)
def test_what_is_not_said_is_not_assumed(attrs, message, tmp_path):
    path, *_ = write(tmp_path / "olmoearth.zarr", **attrs)
    with pytest.raises(SourceError, match=message):
        gx.open("olmoearth", path)


def test_unit_length_is_said_where_the_store_says_it(tmp_path, caplog):
    path, *_ = write(tmp_path / "olmoearth.zarr", **{"geoemb:unit_norm": True})
    with caplog.at_level("INFO", "geoemb_xr"):
        gx.open("olmoearth", path)
    assert "have unit length" in caplog.text
