"""GeoTIFFs that others read: bitwise, whole or not at all, resumed without doing anything twice."""

import json
from xml.etree import ElementTree

import dask
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.legend import Legend
from geoemb_xr.writing import cog, overviews, staging


def test_codes_are_bitwise_tile_interleaved_and_say_what_they_are(codes, tmp_path):
    path = codes.isel(time=0).emb.to_cog(tmp_path / "codes.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), codes.isel(time=0).values)
        assert file.crs.to_epsg() == 32632
        assert file.transform == codes.emb.geobox.affine
        assert file.descriptions == tuple(codes["band"].values)
        assert file.nodata == -128
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags(ns="IMAGE_STRUCTURE")["INTERLEAVE"] == "TILE"
        tags = file.tags()
    assert tags["product"] == "alphaearth"
    assert tags["version"] == "synthetic"
    assert tags["time"] == "2018-01-01"
    assert "Google" in tags["attribution"]
    assert tags["licence"] == "CC-BY-4.0"
    assert tags["software"] == f"geoemb_xr {gx.__version__}"
    assert list(tmp_path.iterdir()) == [path]


def test_a_class_map_has_its_colours_and_names(cover, tmp_path):
    legend = Legend.of_names(["water", "dry grass", "a <b> & c", "d", "e", "f"])
    cover = cover.assign_attrs(legend.attrs())
    path = cover.emb.to_cog(tmp_path / "cover.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), cover.values)
        assert file.nodata == 0
        assert {v: file.colormap(1)[v] for v in legend.values} == {
            v: tuple(legend.rgba()[v].tolist()) for v in legend.values
        }
        assert json.loads(file.tags()["legend"])[1]["name"] == "dry grass"
        assert file.descriptions == (cover.name,)
    with rasterio.open(cover.rename(None).emb.to_cog(tmp_path / "unnamed.tiff")) as file:
        assert file.descriptions == ("classes",)
    style = ElementTree.parse(tmp_path / "cover.qml")
    entries = [(e.get("value"), e.get("label"), e.get("color")) for e in style.iter("paletteEntry")]
    assert entries == [
        (str(v), n, c) for v, n, c in zip(legend.values, legend.names, legend.colours, strict=True)
    ]


def test_a_class_map_of_two_bytes_keeps_its_codes(tmp_path):
    legend = Legend.of_names(["a", "b"], values=[11, 4000])
    array = gx.testing.scene().truth(gx.testing.geobox((32, 32)), 2018)
    array = array.copy(data=np.where(array.values == 4, 4000, 11).astype("u2")).assign_attrs(legend.attrs())
    path = array.emb.to_cog(tmp_path / "two.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), array.values)
        assert file.colormap(1)[4000][:3] == tuple(bytes.fromhex(legend.colours[1][1:]))


def test_overviews_of_a_class_map_are_the_mode_of_base_pixels(tmp_path):
    cover = gx.testing.scene().truth(gx.testing.geobox((1100, 700)), 2018)
    path = cover.chunk(y=300, x=300).emb.to_cog(tmp_path / "cover.tif")
    with rasterio.open(path) as file:
        assert file.overviews(1) == [2, 4]
    with rasterio.open(path, overview_level=1) as file:
        got = file.read(1)
    padded = np.pad(cover.values, ((0, 0), (0, 0)))
    cells = padded.reshape(275, 4, 175, 4).swapaxes(1, 2).reshape(275, 175, 16)
    counts = np.stack([(cells == value).sum(-1) for value in range(1, 7)])
    np.testing.assert_array_equal(got, counts.argmax(0) + 1)


def test_overviews_of_codes_are_unit_means_of_decoded_base_pixels(tmp_path):
    codes = gx.testing.synthetic("alphaearth", shape=(600, 40), missing=True, decode=False).isel(time=0)
    path = codes.emb.to_cog(tmp_path / "codes.tif")
    with rasterio.open(path, overview_level=0) as file:
        got = file.read()
    vectors = codes.emb.decode().values.astype(np.float64).reshape(64, 300, 2, 20, 2)
    filled = np.where(np.isnan(vectors), 0, vectors).sum((2, 4))
    missing = np.isnan(vectors).all((0, 2, 4))
    with np.errstate(invalid="ignore"):
        unit = (filled / np.linalg.norm(filled, axis=0)).astype(np.float32)
    expected = np.where(missing, np.nan, unit)
    grid = gx.testing.geobox((300, 20))
    encoded = gx.encode(gx.wrap(expected.astype("f4"), "alphaearth", geobox=grid, version="synthetic"))
    # a code may fall to either side where the quotient lies within float32 of a half
    differ = got != encoded.values
    assert differ.mean() < 1e-5
    np.testing.assert_array_equal(got[:, missing], -128)


def test_overviews_of_numbers_are_means_of_what_is_there(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(601, 530)).astype("f4")
    data[rng.random(data.shape) < 0.3] = np.nan
    array = (
        gx.testing.scene().truth(gx.testing.geobox(data.shape), 2018).copy(data=data).drop_attrs(deep=False)
    )
    path = array.emb.to_cog(tmp_path / "numbers.tif")
    with rasterio.open(path, overview_level=0) as file:
        got = file.read(1)
    padded = np.pad(data.astype("f8"), ((0, 1), (0, 0)), constant_values=np.nan).reshape(301, 2, 265, 2)
    count = np.isfinite(padded).sum((1, 3))
    with np.errstate(invalid="ignore"):
        expected = (np.nansum(padded, axis=(1, 3)) / count).astype("f4")
    np.testing.assert_array_equal(got, expected)


def test_a_picture_has_an_alpha_band_and_nearest_overviews(cover, tmp_path):
    rgba = np.random.default_rng(0).integers(0, 255, (700, 600, 4), dtype="u1")
    array = xr.DataArray(rgba, dims=("y", "x", "rgb"), coords=cover.drop_vars("time").coords)
    path = array.emb.to_cog(tmp_path / "rgb.tif")
    with rasterio.open(path) as file:
        assert [c.name for c in file.colorinterp] == ["red", "green", "blue", "alpha"]
        np.testing.assert_array_equal(file.read(), rgba.transpose(2, 0, 1))
    with rasterio.open(path, overview_level=0) as file:
        np.testing.assert_array_equal(file.read(), rgba.transpose(2, 0, 1)[:, 1::2, 1::2])


def test_south_up_and_transposed_arrays_give_the_same_file(codes, tmp_path):
    one = codes.isel(time=0)
    turned = one.isel(y=slice(None, None, -1)).transpose("x", "y", "band")
    paths = [a.emb.to_cog(tmp_path / f"{i}.tif") for i, a in enumerate((one, turned, one.compute()))]
    for path in paths:
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), one.values)
            assert file.transform == one.emb.geobox.affine


def test_encode_writes_the_products_codes(codes, tmp_path):
    path = codes.emb.decode().isel(time=0).emb.to_cog(tmp_path / "a.tif", encode=True)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), codes.isel(time=0).values)


def test_an_older_gdal_interleaves_by_band(monkeypatch, tmp_path):
    codes = gx.testing.synthetic("alphaearth", shape=(520, 12), decode=False).isel(time=0)
    monkeypatch.setattr(rasterio, "__gdal_version__", "3.10.3")
    path = codes.emb.to_cog(tmp_path / "a.tif")
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["INTERLEAVE"] == "BAND"
        assert file.overviews(1) == [2]
        assert file.block_shapes[0] == (512, 512)
        np.testing.assert_array_equal(file.read(), codes.values)
    assert gx.open(path, decode=False).identical(codes)


def test_several_times_need_a_template(codes, tmp_path):
    with pytest.raises(
        ValueError, match=r"holds one time, the array has 2 \(2018, 2020\).*a_\{time:%Y\}\.tif"
    ):
        codes.emb.to_cog(tmp_path / "a.tif")
    paths = codes.emb.to_cog(tmp_path / "{name}_{time:%Y}.tif")
    assert [p.name for p in paths] == ["embedding_2018.tif", "embedding_2020.tif"]
    with rasterio.open(paths[1]) as file:
        np.testing.assert_array_equal(file.read(), codes.isel(time=1).values)
    with pytest.raises(ValueError, match="for more than one time"):
        codes.emb.to_cog(tmp_path / "{name}.tif")
    with pytest.raises(ValueError, match=r"may use \['name', 'time'\]"):
        codes.emb.to_cog(tmp_path / "{yaer}.tif")


def test_what_is_there_is_kept(cover, tmp_path):
    path = cover.emb.to_cog(tmp_path / "a.tif")
    with pytest.raises(FileExistsError, match="mode='w' replaces it"):
        cover.emb.to_cog(path)
    other = cover.copy(data=np.ones_like(cover.values))
    other.emb.to_cog(path, mode="w")
    with rasterio.open(path) as file:
        assert (file.read(1) == 1).all()
    with pytest.raises(FileNotFoundError, match="make it first"):
        cover.emb.to_cog(tmp_path / "no" / "a.tif")
    with pytest.raises(ValueError, match="mode='a'"):
        cover.emb.to_cog(path, mode="a")


def test_what_cannot_be_a_geotiff_says_so(codes, cover, tmp_path):
    tessera = gx.testing.synthetic("tessera", shape=(8, 8), decode=False)
    with pytest.raises(EmbeddingError, match="need a scale for each pixel"):
        tessera.emb.to_cog(tmp_path / "a.tif")
    with pytest.raises(EmbeddingError, match="encode=True is for embeddings"):
        cover.emb.to_cog(tmp_path / "a.tif", encode=True)
    with pytest.raises(EmbeddingError, match="needs a raster"):
        codes.emb.sample([(11.37, 47.25)]).emb.to_cog(tmp_path / "a.tif")
    with pytest.raises(EmbeddingError, match="one dimension beside time"):
        codes.expand_dims(more=2).emb.to_cog(tmp_path / "a.tif")
    with pytest.raises(EmbeddingError, match="'mean' is for numbers"):
        cover.emb.to_cog(tmp_path / "a.tif", overviews="mean")
    with pytest.raises(
        ValueError, match=r"to_cog writes a GeoTIFF, and '.*a.png' ends in .png: end it in .tif"
    ):
        cover.emb.to_cog(tmp_path / "a.png")
    with pytest.raises(EmbeddingError, match="cannot write complex"):
        cover.astype("c8").drop_attrs(deep=False).emb.to_cog(tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_file_is_not_there_and_the_same_call_goes_on(cover, tmp_path, counting, interrupted):
    lazy = cover.chunk(y=100, x=100)
    failing, state = counting(lazy, fail_at=30)
    # one thread: of two the other may mark its block after the marks were counted here
    with dask.config.set(scheduler="synchronous"), pytest.raises(interrupted):
        failing.emb.to_cog(tmp_path / "a.tif")
    assert not (tmp_path / "a.tif").exists()
    done = int(np.asarray(zarr.open_array(tmp_path / "a.tif.part/blocks.zarr", path="done")[:]).sum())
    assert done >= 20
    again, state = counting(lazy)
    again.emb.to_cog(tmp_path / "a.tif")
    assert state["n"] == 42 - done
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), cover.values)
    assert not (tmp_path / "a.tif.part").exists()


def test_what_is_in_memory_is_not_staged(cover, tmp_path, monkeypatch):
    """There is nothing to compute that an interruption could lose."""
    monkeypatch.setattr(staging, "open_stage", None)
    with rasterio.open(cover.emb.to_cog(tmp_path / "a.tif")) as file:
        np.testing.assert_array_equal(file.read(1), cover.values)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif", "a.qml"}


def test_what_is_in_memory_leaves_nothing_when_it_fails_but_what_was_there(
    cover, tmp_path, monkeypatch, counting, interrupted
):
    def fail(*args):
        raise interrupted

    with monkeypatch.context() as patched:
        patched.setattr(cog, "put_in_place", fail)
        with pytest.raises(interrupted):
            cover.emb.to_cog(tmp_path / "a.tif")
        assert not list(tmp_path.iterdir())
        failing, _ = counting(cover.chunk(y=100, x=100), fail_at=30)
        with dask.config.set(scheduler="synchronous"), pytest.raises(interrupted):
            failing.emb.to_cog(tmp_path / "a.tif")
        with pytest.raises(interrupted):
            cover.emb.to_cog(tmp_path / "a.tif")
    assert (tmp_path / "a.tif.part/blocks.zarr/zarr.json").exists()
    cover.emb.to_cog(tmp_path / "a.tif")
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif", "a.qml"}


@pytest.mark.parametrize("dtype", [">f4", ">f2", ">u2"])
def test_numbers_turned_round_as_netcdf_3_has_them(dtype, cover, tmp_path):
    numbers = cover.drop_attrs(deep=False).astype(np.dtype(dtype).newbyteorder("="))
    turned = numbers.astype(dtype)
    assert turned.dtype == dtype
    for name, array in {"in_memory": turned, "lazy": turned.chunk(y=100)}.items():
        with rasterio.open(array.emb.to_cog(tmp_path / f"{name}.tif")) as file:
            np.testing.assert_array_equal(file.read(1), numbers.values)


def test_ragged_blocks_of_a_window_are_written_as_they_are(cover, tmp_path, counting):
    ragged = cover.chunk(y=(30, 200, 200, 200, 70), x=(50, 200, 200, 150))
    again, state = counting(ragged)
    again.emb.to_cog(tmp_path / "a.tif")
    assert state["n"] == 20
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), cover.values)


def test_another_array_starts_anew(cover, tmp_path, caplog, counting, interrupted):
    failing, _ = counting(cover.chunk(y=100, x=100), fail_at=30)
    with pytest.raises(interrupted):
        failing.emb.to_cog(tmp_path / "a.tif")
    other = (cover.chunk(y=100, x=100) % 2).assign_attrs(cover.attrs)
    with caplog.at_level("INFO", "geoemb_xr"):
        other.emb.to_cog(tmp_path / "a.tif")
    assert "unfinished work on another array" in caplog.text
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), cover.values % 2)


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    levels=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_overviews_do_not_depend_on_how_blocks_are_cut(shape, levels, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(3, *shape)).astype("f4")
    numbers[rng.random(numbers.shape) < 0.2] = np.nan
    classes = rng.integers(0, 4, (1, *shape), dtype="u1")
    side = 2**levels
    for function, block in ((overviews.Mean(), numbers), (overviews.commonest_class, classes)):
        whole = function(block, levels)
        for k in range(1, levels + 1):
            assert whole[k - 1].shape[1:] == tuple(overviews.halved(n, k) for n in shape)
        first = function(block[:, :side], levels)
        for big, small in zip(whole, first, strict=True):
            np.testing.assert_array_equal(big[:, : small.shape[1]], small)


def test_a_file_keeps_the_nodata_that_its_array_declares(tmp_path):
    codes = gx.testing.scene().truth(gx.testing.geobox((600, 600)), 2018)
    classes = codes.copy(
        data=np.where(codes.y.values[:, None] > codes.y.values[301], 255, codes.values - 1).astype("u1")
    )
    declared = classes.drop_attrs(deep=False).assign_attrs(_FillValue=255)  # a class is 0
    numbers = codes.drop_attrs(deep=False).astype("f4").assign_attrs(_FillValue=float(codes[0, 0]))
    with rasterio.open(gx.to_cog(declared, tmp_path / "a.tif", overviews="mode"), overview_level=0) as file:
        assert file.nodata == 255
        assert (file.read(1)[:150] == 255).all()
        assert (file.read(1)[160:] < 255).all()
        assert (file.read(1)[160:] == 0).any()
    with rasterio.open(gx.to_cog(numbers, tmp_path / "b.tif")) as file:
        np.testing.assert_array_equal(np.isnan(file.read(1)), codes == codes[0, 0])


def test_braces_in_the_name_of_a_folder_that_is_there_are_letters(cover, tmp_path):
    (tmp_path / "{x}").mkdir()
    assert cover.emb.to_cog(tmp_path / "{x}" / "a.tif") == tmp_path / "{x}" / "a.tif"
    assert [each.name for each in cover.emb.to_cog(tmp_path / "{x}" / "{name}.tif")] == ["land_cover.tif"]


def test_a_changed_byte_is_an_error_or_does_no_harm(tmp_path):
    codes = gx.testing.synthetic("alphaearth", shape=(300, 280), years=[2020], decode=False).isel(time=0)
    path = codes.emb.to_cog(tmp_path / "a.tif")
    whole, raised = path.read_bytes(), 0
    for at in np.linspace(0, len(whole) - 1, 25).astype(int).tolist():
        damaged = tmp_path / f"b{at}.tif"
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        found = said = None
        try:
            found = gx.open(damaged, decode=False).values
        except SourceError as error:
            said = str(error)
        if found is None:
            raised += 1
            assert f"{damaged} is damaged: bytes" in said or f"{damaged} could not be opened" in said
        else:  # it lies in an overview, or behind the blocks
            np.testing.assert_array_equal(found, codes.values)
    assert raised > 12


def test_what_another_program_has_changed_is_read_once_it_is_copied(tmp_path):
    codes = gx.testing.synthetic("alphaearth", shape=(300, 280), years=[2020], decode=False).isel(time=0)
    path = codes.emb.to_cog(tmp_path / "a.tif")
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.write(np.zeros_like(dataset.read(1)), 1)
    expected = codes.values.copy()
    expected[0] = 0
    with pytest.raises(SourceError, match="a copy by gdal_translate"):
        gx.open(path, decode=False).compute()
    rasterio.shutil.copy(path, tmp_path / "b.tif", driver="GTiff")
    np.testing.assert_array_equal(gx.open(tmp_path / "b.tif", decode=False).values, expected)
