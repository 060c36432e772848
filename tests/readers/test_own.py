"""Opening by a path alone: what we wrote, and stores in the convention that others wrote."""

import json
import os
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
import zarr

import geoemb_xr as gx
from geoemb_xr.core import conventions
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.readers import own, zarr_nodes


def foreign(
    path, vectors, *, labels=None, dims=("time", "band", "y", "x"), root=True, name="embeddings", **attrs
):
    """A store as another program writes it: attributes, no x and y arrays, years as integers."""
    group = zarr.create_group(path, zarr_format=3)
    sizes = dict(zip(dims, vectors.shape, strict=True))
    placed = {
        "zarr_conventions": [{"uuid": conventions.GEOEMB_UUID}],
        "proj:code": "EPSG:32632",
        "spatial:transform": [10.0, 0.0, 679000.0, 0.0, -10.0, 5236000.0],
        "geoemb:type": "pixel",
        "geoemb:dimensions": sizes.get("band", sizes.get("embedding")),
        "geoemb:model": "https://example.org/models/some-model",
        "geoemb:source_data": [],
        "geoemb:data_type": str(vectors.dtype),
        **attrs,
    }
    array = group.create_array(name, data=vectors, dimension_names=dims)
    (group if root else array).update_attributes(placed)
    if "time" in sizes:
        group.create_array(
            "time", data=np.arange(2020, 2020 + sizes["time"], dtype="i4"), dimension_names=("time",)
        )
    if labels is not None:
        group.create_array("band", data=labels, dimension_names=("band",))
    return group


@pytest.fixture
def codes():
    return gx.testing.synthetic("alphaearth", shape=(60, 50), years=[2018, 2020], missing=True, decode=False)


# --- ours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
@pytest.mark.parametrize("decode", [True, False])
def test_a_zarr_round_trip_is_identical_and_lazy(product, decode, tmp_path):
    array = gx.testing.synthetic(product, shape=(60, 50), years=[2018, 2020], missing=True, decode=decode)
    path = array.emb.to_zarr(tmp_path / "a.zarr")
    with gx.testing.raise_if_dask_computes():
        back = gx.open(path, decode=False)
    assert back.chunks is not None
    xr.testing.assert_identical(back.compute(), array)
    assert gx.open(path).identical(array.emb.decode())
    assert gx.open(str(path)).identical(array.emb.decode())


def own_files(codes, folder):
    """Our array in each container that tells its product, and as plain xarray writes it."""
    at = [(float(codes.x[3]), float(codes.y[5]))]
    codes.emb.to_zarr(folder / "own.zarr")
    codes.to_zarr(folder / "plain.zarr")
    codes.to_netcdf(folder / "plain.nc")
    codes.emb.year(2020).emb.to_cog(folder / "own.tif")
    codes.emb.sample(at, crs=codes.emb.crs).emb.year(2020).emb.to_geoparquet(folder / "own.parquet")
    return sorted(folder.iterdir())


def test_a_store_that_tells_its_product_may_be_given_with_it_and_with_no_other(codes, tmp_path):
    files = own_files(codes, tmp_path)
    assert len(files) == 5
    for file in files:
        named = gx.open("aef", file, decode=False)
        xr.testing.assert_identical(named, gx.open(file, decode=False))
        with pytest.raises(SourceError, match=rf"{file.name} holds 'alphaearth', not 'tessera'"):
            gx.open("tessera", str(file))
    gx.to_zarr(codes.emb.change(2018, 2020), tmp_path / "map.zarr")
    with pytest.raises(SourceError, match=r"map\.zarr holds a map, and no vectors, not 'alphaearth'"):
        gx.open("alphaearth", tmp_path / "map.zarr")


def test_a_geotiff_round_trip_is_identical(codes, tmp_path):
    path = codes.emb.year(2020).emb.to_cog(tmp_path / "a.tif")
    assert gx.open(path, decode=False).identical(codes.emb.year(2020))
    assert own.product_of_store(path) is gx.product("alphaearth")
    cover = gx.testing.scene().truth(gx.testing.geobox((60, 50)), 2018)
    assert gx.open(cover.emb.to_cog(tmp_path / "cover.tif")).identical(cover)
    pca = codes.emb.decode().emb.year(2018).emb.fit_pca(3)
    scores = codes.emb.decode().emb.year(2018).emb.pca(pca)
    back = gx.open(scores.emb.to_cog(tmp_path / "pca.tif"))
    assert back.dims == scores.dims
    np.testing.assert_array_equal(back.values, scores.values)


def test_a_product_made_on_the_spot_is_made_again_elsewhere(tmp_path):
    import subprocess
    import sys

    mine = gx.Product(
        "own-spot", dims=8, unit_norm=True, licence="CC0-1.0", resolution=30.0, bands=tuple("abcdefgh")
    )
    grid = gx.testing.geobox((6, 5))
    array = gx.wrap(
        np.random.default_rng(0).normal(size=(8, 6, 5)).astype("f4"), mine, geobox=grid, time=2021
    )
    paths = [array.emb.to_zarr(tmp_path / "a.zarr"), array.emb.year(2021).emb.to_cog(tmp_path / "a.tif")]
    code = (
        "import sys, geoemb_xr as gx\n"
        "for path in sys.argv[1:]:\n"
        "    p = gx.open(path).emb.product\n"
        "    print(p.name, p.dims, p.unit_norm, p.licence, p.resolution, ''.join(p.bands), p.codec)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == ["own-spot 8 True CC0-1.0 30.0 abcdefgh None"] * 2


def test_two_products_of_one_name_are_an_error(tmp_path):
    array = gx.testing.synthetic("alphaearth", shape=(6, 5))
    path = array.emb.to_zarr(tmp_path / "a.zarr")
    group = zarr.open_group(path, mode="r+")
    facts = {"name": "alphaearth", "dims": 3}
    group.update_attributes({conventions.FACTS: facts})
    with pytest.raises(SourceError, match="two things of one name"):
        gx.open(path)
    group.update_attributes({conventions.FACTS: {"name": "own-new", "dims": 64, "codec": "secret"}})
    with pytest.raises(SourceError, match="'secret', which is not a codec of this package"):
        gx.open(path)
    group.update_attributes({conventions.FACTS: {"dims": 64}})
    with pytest.raises(SourceError, match="without a name and dims"):
        gx.open(path)
    group.update_attributes({conventions.FACTS: {"name": "own-bad", "dims": 64, "kind": "dream"}})
    with pytest.raises(SourceError, match="cannot be made"):
        gx.open(path)


def test_selectors_cut_before_anything_is_chunked(codes, tmp_path):
    path = codes.emb.to_zarr(tmp_path / "a.zarr")
    west, south, east, north = 11.365, 47.2475, 11.368, 47.249
    part = gx.open(path, bbox=(west, south, east, north), time=2020, decode=False, chunks=16)
    expected = codes.emb.crop((west, south, east, north)).isel(time=[1])
    assert part.identical(expected)
    assert max(part.chunksizes["x"]) <= 16
    whole = gx.open(path)
    np.testing.assert_allclose(  # sums of codes are exact, and those of vectors rounded
        gx.open(path, crs="EPSG:3035", resolution=20).values,
        whole.emb.reproject("EPSG:3035", resolution=20).values,
        rtol=0, atol=1e-7,
    )  # fmt: skip
    assert gx.open(path, like=part, time=2020).identical(part.emb.decode())
    points = gx.testing.scene().points(10, radius=200)
    np.testing.assert_array_equal(gx.open(path, points=points).values, whole.emb.sample(points).values)
    with pytest.raises(CoverageError, match="does not cover"):
        gx.open(path, bbox=(0, 0, 1, 1))
    with pytest.raises(CoverageError, match="2018, 2020"):
        gx.open(path, time=2019)
    with pytest.raises(CoverageError, match="this store holds 'synthetic'"):
        gx.open(path, version="v1")


def test_a_rewritten_store_is_another_array(codes, tmp_path):
    path = codes.emb.to_zarr(tmp_path / "a.zarr")
    first = gx.open(path, decode=False)
    assert first.data.name == gx.open(path, decode=False).data.name
    codes.isel(time=[0]).copy(data=np.zeros_like(codes.values[:1])).emb.to_zarr(path, mode="r+")
    again = gx.open(path, decode=False)
    assert again.data.name != first.data.name
    assert (again.values[0] == 0).all()


@pytest.mark.parametrize("ending", ["zarr", "tif", "parquet"])
def test_what_is_replaced_on_disk_after_it_was_opened_is_an_error(ending, tmp_path):
    array = gx.testing.synthetic("alphaearth", shape=(9, 8), chunks=4)
    if ending == "parquet":
        array = array.emb.sample(pd.DataFrame({"x": array.x[:4], "y": array.y[:4]}), crs=array.emb.crs)
    write = {"zarr": gx.to_zarr, "tif": gx.to_cog, "parquet": gx.to_geoparquet}[ending]
    path = write(array, tmp_path / f"a.{ending}")
    opened = gx.open(path)
    read = opened.copy()
    read.load()
    write((-array).assign_attrs(array.attrs), path, mode="w")
    for each in (opened, pickle.loads(pickle.dumps(opened))):
        with pytest.raises(
            SourceError, match=rf"a\.{ending} was replaced since it was opened; open it again"
        ):
            each.compute()
    np.testing.assert_array_equal(gx.open(path), -read)


@pytest.mark.parametrize("name", ["a.nc", "a.zarr.zip"])
def test_netcdf_and_packed_stores_that_are_replaced_are_an_error(codes, name, tmp_path):
    codes.to_netcdf(tmp_path / "a.nc")
    shutil.make_archive(str(tmp_path / "a.zarr"), "zip", codes.emb.to_zarr(tmp_path / "b.zarr"))
    opened = gx.open(tmp_path / name, decode=False)
    os.utime(tmp_path / name, ns=(0, 0))
    with pytest.raises(SourceError, match=f"{name} was replaced since it was opened"):
        opened.compute()


def test_a_store_that_others_write_into_meanwhile_is_the_same_store(tmp_path):
    years = gx.testing.synthetic("alphaearth", shape=(9, 8), years=(2019, 2020, 2021))
    path = gx.to_zarr(years.isel(time=[0, 1]), tmp_path / "a.zarr")
    opened = gx.open(path)
    gx.to_zarr(years.isel(time=[2]), path, mode="a")
    gx.to_zarr((-years).assign_attrs(years.attrs).isel(time=[1]), path, mode="r+")
    np.testing.assert_array_equal(opened[0], years[0])
    np.testing.assert_array_equal(opened[1], -years[1])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_copy_that_xarray_wrote_of_a_store_of_ours_opens(codes, zarr_format, tmp_path):
    own = xr.open_zarr(codes.emb.to_zarr(tmp_path / "own.zarr"), mask_and_scale=False).drop_encoding()
    own.to_zarr(tmp_path / "copy.zarr", zarr_format=zarr_format)
    opened = gx.open(tmp_path / "copy.zarr", decode=False)
    np.testing.assert_array_equal(opened, codes)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)), codes)


@pytest.mark.parametrize("named", [True, False])
def test_chunks_of_a_store_are_walked_through_once_an_opening(codes, tmp_path, named, monkeypatch):
    path = codes.emb.to_zarr(tmp_path / "a.zarr")
    walked = []
    token = zarr_nodes.store_token
    monkeypatch.setattr(zarr_nodes, "store_token", lambda url: walked.append(url) or token(url))
    gx.open("alphaearth", path) if named else gx.open(path)
    assert walked == [str(path)]


def test_a_geotiff_warped_since_keeps_its_new_place(codes, tmp_path):
    from rasterio.warp import Resampling, calculate_default_transform, reproject

    path = codes.emb.year(2018).emb.to_cog(tmp_path / "a.tif")
    with rasterio.open(path) as file:
        transform, width, height = calculate_default_transform(
            file.crs, "EPSG:3035", file.width, file.height, *file.bounds
        )
        profile = {**file.profile, "driver": "GTiff", "crs": "EPSG:3035", "transform": transform}
        profile |= {"width": width, "height": height, "interleave": "band"}
        with rasterio.open(tmp_path / "warped.tif", "w", **profile) as out:
            out.update_tags(**file.tags())
            out.descriptions = file.descriptions
            reproject(
                rasterio.band(file, file.indexes),
                rasterio.band(out, file.indexes),
                resampling=Resampling.nearest,
            )
    back = gx.open(tmp_path / "warped.tif", decode=False)
    assert back.emb.crs.to_epsg() == 3035
    assert back.attrs["product"] == "alphaearth"


# --- others' --------------------------------------------------------------------------------------------------


def test_a_store_by_others_opens_with_the_product_its_model_names(tmp_path):
    codes = gx.testing.synthetic("alphaearth", shape=(12, 10), years=[2020, 2021], decode=False)
    quantization = {"method": "signed_square", "original_dtype": "float32", "nodata": -128}
    foreign(
        tmp_path / "aef.zarr",
        codes.values,
        root=False,  # the older mosaic has its attributes on the array
        **{"geoemb:quantization": quantization, "geoemb:model": "https://example.org/AlphaEarth/v1"},
    )
    back = gx.open(tmp_path / "aef.zarr", decode=False)
    np.testing.assert_array_equal(back.values, codes.values)
    assert back.attrs["product"] == "alphaearth"
    assert list(back["time"].dt.year) == [2020, 2021]
    assert back["band"].values[0] == "A00"
    assert back["x"].values[0] == 679005.0
    assert back.emb.crs.to_epsg() == 32632
    assert gx.open(tmp_path / "aef.zarr").identical(back.emb.decode())


def test_labels_of_bands_name_a_product_too(tmp_path):
    codes = gx.testing.synthetic("alphaearth", shape=(12, 10), decode=False)
    foreign(
        tmp_path / "a.zarr",
        codes.values,
        labels=np.array([f"A{i:02d}" for i in range(64)]),
        **{"geoemb:quantization": {"method": "signed_square", "original_dtype": "float32"}},
    )
    assert gx.open(tmp_path / "a.zarr").attrs["product"] == "alphaearth"


def test_dimensions_in_another_order_and_under_other_names(tmp_path):
    codes = gx.testing.synthetic("alphaearth", shape=(12, 10), decode=False).isel(time=0)
    turned = codes.transpose("y", "x", "band").values
    foreign(
        tmp_path / "a.zarr",
        turned,
        dims=("northing", "easting", "embedding"),
        **{
            "geoemb:quantization": {"method": "signed_square", "original_dtype": "float32"},
            "geoemb:model": "alphaearth",
        },
    )
    back = gx.open(tmp_path / "a.zarr", decode=False)
    np.testing.assert_array_equal(back.transpose("band", "y", "x").values, codes.values)


def test_scales_beside_codes(tmp_path):
    codes = gx.testing.synthetic("tessera", shape=(12, 10), decode=False)
    scale = {"type": "array", "array_name": "scales", "nodata": "+inf"}
    group = foreign(
        tmp_path / "t.zarr",
        codes.values,
        **{
            "geoemb:quantization": {"method": "per_pixel_scale", "original_dtype": "float32", "scale": scale},
            "geoemb:model": "https://geotessera.org/model/v1.1",
        },
    )
    with pytest.raises(SourceError, match="no array 'scales'"):
        own.read_store(tmp_path / "t.zarr")
    group.create_array("scales", data=codes["scale"].values, dimension_names=("time", "y", "x"))
    back = gx.open(tmp_path / "t.zarr")
    assert back.attrs["product"] == "tessera"
    np.testing.assert_array_equal(back.values, codes.emb.decode().values)


def test_a_linear_scale_makes_a_codec(tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (1, 12, 6, 5), dtype="i1")
    codes[0, :, 0] = -128
    scale = {"type": "scalar", "scale": 0.5, "offset": 1.0}
    foreign(
        tmp_path / "l.zarr",
        codes,
        **{
            "geoemb:quantization": {
                "method": "linear", "original_dtype": "float32", "quantized_dtype": "int8", "scale": scale,
            },
        },
    )  # fmt: skip
    back = gx.open(tmp_path / "l.zarr")
    assert back.attrs["product"] == "example.org-models-some-model"
    np.testing.assert_array_equal(back.values[:, :, 1:], codes[:, :, 1:].astype("f4") * 0.5 + 1)
    assert np.isnan(back.values[:, :, 0]).all()
    np.testing.assert_array_equal(gx.encode(back).values, codes)
    torch = pytest.importorskip("torch", reason="torch is not installed")
    codec = back.emb.product.codec
    tensor = codec.decode_torch(torch.from_numpy(codes), None, 1)
    np.testing.assert_array_equal(tensor.numpy(), codec.decode(codes, None, 1))
    assert gx.open(tmp_path / "l.zarr").identical(back)  # opened again: the same product


def test_floats_of_an_unknown_model_make_a_product(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(1, 7, 6, 5)).astype("f4")
    foreign(tmp_path / "f.zarr", vectors, **{"geoemb:model": "https://example.org/own-float"})
    back = gx.open(tmp_path / "f.zarr")
    assert back.emb.product.dims == 7
    np.testing.assert_array_equal(back.values, vectors)


def test_ambiguity_and_gaps_are_errors(tmp_path):
    vectors = np.zeros((1, 7, 6, 5), "f4")
    for name in ("own-twin-a", "own-twin-b"):
        gx.register(
            gx.Product(name, dims=7, aliases=(f"{name}-alias",), bands=tuple(f"tw{i}" for i in range(7)))
        )
    labels = np.array([f"tw{i}" for i in range(7)])
    foreign(tmp_path / "two.zarr", vectors, labels=labels)
    with pytest.raises(SourceError, match=r"more than one product \(own-twin-a, own-twin-b\).*say which"):
        gx.open(tmp_path / "two.zarr")
    foreign(tmp_path / "method.zarr", vectors.astype("i1"), **{"geoemb:quantization": {"method": "magic"}})
    with pytest.raises(SourceError, match="quantised by 'magic', which is not known"):
        gx.open(tmp_path / "method.zarr")
    foreign(tmp_path / "dims.zarr", vectors, **{"geoemb:dimensions": None})
    with pytest.raises(SourceError, match="lacks 'geoemb:dimensions'"):
        gx.open(tmp_path / "dims.zarr")
    foreign(tmp_path / "model.zarr", vectors, **{"geoemb:model": ""})
    with pytest.raises(SourceError, match="lacks 'geoemb:model'"):
        gx.open(tmp_path / "model.zarr")
    foreign(tmp_path / "place.zarr", vectors, **{"spatial:transform": None})
    with pytest.raises(SourceError, match="spatial:transform missing"):
        gx.open(tmp_path / "place.zarr")
    xr.Dataset({"t2m": (("y", "x"), np.zeros((3, 3)))}).to_zarr(tmp_path / "era.zarr", consolidated=False)
    with pytest.raises(SourceError, match="does not say which product it holds"):
        gx.open(tmp_path / "era.zarr")
    zarr.create_array(tmp_path / "single.zarr", data=vectors)
    with pytest.raises(SourceError, match="a single Zarr array"):
        gx.open(tmp_path / "single.zarr")


@pytest.mark.parametrize("key", ["_FillValue", "missing_value", "nodata"])
@pytest.mark.parametrize("write", [gx.to_zarr, gx.to_cog])
def test_the_nodata_of_a_map_of_whole_numbers_is_kept(tmp_path, key, write):
    coords = gx.testing.synthetic("alphaearth", shape=(2, 3)).isel(time=0, band=0, drop=True).coords
    attrs = {"derived_from": "somewhere", key: 255}
    counts = xr.DataArray(np.array([[7, 255, 9]] * 2, "u1"), coords, ("y", "x"), "counts", attrs)
    path = write(counts, tmp_path / ("a.zarr" if write is gx.to_zarr else "a.tif"))
    found = gx.open(path)
    assert found.attrs == attrs
    np.testing.assert_array_equal(found, counts)


def test_what_is_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or store"):
        gx.open(tmp_path / "none.zarr")
    (tmp_path / "folder.x").mkdir()
    with pytest.raises(SourceError, match="neither a Zarr store, a GeoTIFF"):
        gx.open(tmp_path / "folder.x")
    profile = {"driver": "GTiff", "width": 2, "height": 2, "count": 1, "dtype": "uint8"}
    profile["transform"] = rasterio.Affine(1, 0, 0, 0, -1, 0)
    with rasterio.open(tmp_path / "plain.tif", "w", crs="EPSG:4326", **profile) as file:
        file.write(np.zeros((1, 2, 2), "u1"))
    with pytest.raises(SourceError, match="does not say which product"):
        gx.open(tmp_path / "plain.tif")
    with pytest.raises(SourceError, match="not written by to_cog"):
        own.read_store(tmp_path / "plain.tif")
    with rasterio.open(tmp_path / "plain.tif", "r+") as file:
        file.update_tags(geoemb_xr="{no json")
    with pytest.raises(SourceError, match="is not JSON"):
        gx.open(tmp_path / "plain.tif")
    import pandas as pd

    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(SourceError, match="not written by to_geoparquet"):
        own.read_store(tmp_path / "plain.parquet")
    with pytest.raises(SourceError, match="does not say which product"):
        gx.open(tmp_path / "plain.parquet")


# --- locations ------------------------------------------------------------------------------------------------


def test_a_parquet_round_trip_with_a_box(tmp_path, monkeypatch):
    from geoemb_xr.writing import geoparquet

    monkeypatch.setattr(geoparquet, "ROW_GROUP", 128 * 20)
    codes = gx.testing.synthetic("tessera", shape=(130, 110), decode=False).isel(time=0)
    one = codes.emb.sample(gx.testing.scene().points(80, radius=500))
    path = one.emb.to_geoparquet(tmp_path / "a.parquet")
    with gx.testing.raise_if_dask_computes():
        back = gx.open(path, decode=False)
    assert len(back.chunks[0]) > 2  # a block a row group
    assert back.sortby("location").sel(location=one["location"]).identical(one)
    lon, lat = one["lon"].values, one["lat"].values
    box = (lon.min() - 1e-3, lat.min() - 1e-3, float(np.median(lon)), lat.max() + 1e-3)
    part = gx.open(path, bbox=box, decode=False)
    assert 30 <= part.sizes["location"] <= 50
    assert part.identical(back.sel(location=part["location"]))
    stored = one.emb.to_zarr(tmp_path / "a.zarr")
    xr.testing.assert_identical(gx.open(stored, decode=False).compute(), one.compute())
    assert gx.open(stored, bbox=box, decode=False).sizes == part.sizes
    for source in (path, stored):
        with pytest.raises(CoverageError, match="no location in"):
            gx.open(source, bbox=(0, 0, 1, 1))


def test_the_tag_is_plain_json(codes, tmp_path):
    path = codes.emb.year(2018).emb.to_cog(tmp_path / "a.tif")
    with rasterio.open(path) as file:
        facts = json.loads(file.tags()["geoemb_xr"])
    assert facts["attrs"] == codes.attrs
    assert facts["product"]["name"] == "alphaearth"
    assert facts["dim"] == "band"


@pytest.mark.parametrize("axis", ["time", "x", "y"])
def test_an_axis_that_lost_its_values_is_an_error(tmp_path, axis):
    path = gx.testing.synthetic("alphaearth", shape=(4, 5), years=[2018, 2024]).emb.to_zarr(
        tmp_path / "a.zarr"
    )
    shutil.rmtree(path / axis / "c")
    with pytest.raises(SourceError, match=f"lost values of {axis}.*data were lost; fetch the store"):
        gx.open(path)
