"""Headers are believed: bands by their descriptions, missing by what files declare, and a place by itself."""

import json
import pickle
import shutil

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rioxarray
import shapely
import xarray as xr
import zarr
from rasterio.enums import ColorInterp
from rasterio.merge import merge

import geoemb_xr as gx
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.missing import missing_pixels, scaling_in
from geoemb_xr.examples import alphaearth
from geoemb_xr.readers import geotiff, tiles
from geoemb_xr.readers import zarr as zarr_store

NAMES = [f"A{i:02d}" for i in range(64)]
GRID = gx.testing.geobox((8, 9))


def vectors(seed=0, shape=(8, 9)):
    made = np.random.default_rng(seed).normal(size=(64, *shape)).astype("f4")
    return made / np.linalg.norm(made, axis=0)


def codes_of(made):
    return np.clip(np.rint(np.sign(made) * np.sqrt(abs(made)) * 127.5), -127, 127).astype("i1")


def write(path, data, *, names=(), grid=GRID, mask=None, **options):
    profile = {
        "driver": "GTiff",
        "dtype": data.dtype,
        "crs": "EPSG:32632",
        "transform": grid.affine,
        **options,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", count=len(data), height=data.shape[1], width=data.shape[2], **profile
        ) as file,
    ):
        file.write(data)
        for i, name in enumerate(names, 1):
            file.set_band_description(i, name)
        if mask is not None:
            file.write_mask(mask)
    return path


# --- bands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("called", ["{}", "0_{}", "Band {}", "{}_mean"])
def test_bands_lie_where_their_descriptions_say(tmp_path, kind, called):
    made = vectors() if kind == "float32" else codes_of(vectors())
    order = np.random.default_rng(1).permutation(64)
    quality = np.full((1, 8, 9), 7, made.dtype)
    path = write(
        tmp_path / "2024.tif",
        np.concatenate([made[order[:9]], quality, made[order[9:]]]),
        names=[
            *(called.format(NAMES[i]) for i in order[:9]),
            "QUALITY",
            *(called.format(NAMES[i]) for i in order[9:]),
        ],
    )
    with gx.testing.raise_if_dask_computes():
        opened = gx.open("alphaearth", path, decode=False)
    np.testing.assert_array_equal(opened.values[0], made)
    assert opened["band"].values.tolist() == NAMES


def test_descriptions_that_contradict_are_an_error_that_names_both(tmp_path):
    twice = ["A00", "A00", *NAMES[1:]]
    path = write(tmp_path / "2024.tif", np.zeros((65, 8, 9), "i1"), names=twice)
    with pytest.raises(SourceError, match=r"2024\.tif calls both band 1 and band 2 'A00'"):
        gx.open("alphaearth", path)
    path = write(tmp_path / "b" / "2024.tif", np.zeros((64, 8, 9), "i1"), names=["A05", "x"])
    with pytest.raises(SourceError, match=r"calls band 1 'A05', which is band 6 of 'alphaearth'"):
        gx.open("alphaearth", path)


@pytest.mark.parametrize("product", ["alphaearth", "olmoearth"])
def test_a_file_of_codes_that_became_floats_is_refused(tmp_path, product):
    made = codes_of(vectors()).astype("f4")
    made[:, :2] = np.nan
    path = write(tmp_path / "2024.tif", made)
    opened = gx.open(product, path, version="v1" if product == "olmoearth" else None)
    with pytest.raises(SourceError, match=rf"2024\.tif holds whole numbers up to \d+ as floats.*{product!r}"):
        opened.compute()


@pytest.mark.parametrize("called", ["Band {}", "emb_{}", "{}"])
@pytest.mark.parametrize("first", [0, 1])
def test_bands_lie_where_their_numbers_say(tmp_path, called, first):
    made = codes_of(vectors())
    order = np.random.default_rng(2).permutation(64)
    path = write(tmp_path / "2024.tif", made[order], names=[called.format(first + i) for i in order])
    np.testing.assert_array_equal(gx.open("alphaearth", path, decode=False).values[0], made)
    lower = write(tmp_path / "b" / "2024.tif", made[order], names=[NAMES[i].lower() for i in order])
    np.testing.assert_array_equal(gx.open("alphaearth", lower, decode=False).values[0], made)


# --- what is missing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float32", "float64", "int8"])
@pytest.mark.parametrize("how", ["value", "zero", "inf", "mask", "alpha", "both"])
def test_missing_is_what_gdals_mask_says(tmp_path, kind, how):
    made = codes_of(vectors()) if kind == "int8" else vectors().astype(kind)
    if how == "inf" and kind == "int8":
        pytest.skip("codes are never infinite")
    marks = {"zero": 0, "inf": -np.inf, "value": -1.7976931348623157e308 if kind == "float64" else 99}
    value = marks.get(how, -1)
    made[made == value] = 1
    made[:, :2] = value
    made[3, 5, 5] = 0  # a vector may hold a zero
    mask = np.where(np.arange(8)[:, None] < 2, 0, 255).repeat(9, 1).astype("u1")
    options = {"nodata": value} if how in marks else {}
    if how == "both":
        options["nodata"] = 99
        made[:, 7] = 99
    if how == "alpha":
        made = np.concatenate([made, np.minimum(mask, 100)[None].astype(made.dtype)])
    path = write(tmp_path / "2024.tif", made, mask=mask if how in ("mask", "both") else None, **options)
    if how == "alpha":
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [*file.colorinterp[:-1], ColorInterp.alpha]
    with rasterio.open(path) as file:
        expected = file.dataset_mask() == 0
    if how == "both":
        expected[7] = True  # GDAL looks at one of the two only
    if how == "alpha":
        expected |= mask == 0  # GDAL looks at alpha bands of bytes only
    assert expected.any()
    opened = gx.open("alphaearth", path).values[0]
    np.testing.assert_array_equal(np.isnan(opened).all(axis=0), expected)
    assert not np.isnan(opened[:, ~expected]).any()
    assert abs(opened[:, ~expected]).max() <= 1.0
    if kind == "int8":
        assert set(np.unique(gx.open("alphaearth", path, decode=False).values[0][:, expected])) == {-128}


@pytest.mark.parametrize("value", [np.nan, np.inf, -9999.0])
def test_a_vector_of_which_a_part_is_missing_is_missing(value, tmp_path):
    made = vectors()
    made[5, 2, 3] = value
    opened = gx.open("alphaearth", write(tmp_path / "2024.tif", made, nodata=-9999.0)).values[0]
    assert np.isnan(opened).any(axis=0).sum() == np.isnan(opened).all(axis=0).sum() == 1


def test_wrap_believes_what_attributes_declare(tmp_path):
    mine = gx.Product("headers-wrap", dims=64)
    made = vectors()
    made[:, :2], made[3, 4, 4] = -9999.0, np.inf
    path = write(tmp_path / "a.tif", made, nodata=-9999.0)
    expected = np.zeros((8, 9), bool)
    expected[:2], expected[4, 4] = True, True
    for options in ({}, {"chunks": 4}, {"masked": True}):
        wrapped = gx.wrap(rioxarray.open_rasterio(path, **options), mine)
        assert (wrapped.chunks is not None) == ("chunks" in options)
        np.testing.assert_array_equal(wrapped.isnull().all("band"), expected)
        np.testing.assert_array_equal(wrapped.values[:, ~expected], made[:, ~expected])
    codes = xr.DataArray(codes_of(vectors()), dims=("band", "y", "x"), attrs={"_FillValue": 0})
    codes[:, 0] = 0
    wrapped = gx.wrap(codes, "alphaearth", geobox=GRID)
    assert (wrapped[:, 0] == -128).all()
    np.testing.assert_array_equal(wrapped[:, 1:], codes[:, 1:])


# --- place ------------------------------------------------------------------------------------------------------


def test_a_file_that_does_not_say_where_it_lies_is_refused(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(geotiff, "say", said.append)
    path = write(tmp_path / "2024.tif", vectors(), transform=None)
    with pytest.raises(SourceError, match=r"2024\.tif has a CRS but no geotransform"):
        gx.open("alphaearth", path)
    left, top = GRID.affine.c, GRID.affine.f
    (tmp_path / "2024.tfw").write_text(f"10\n0\n0\n-10\n{left + 5}\n{top - 5}\n")
    path.write_bytes(path.read_bytes() + b"\0")  # another state of the file
    opened = gx.open("alphaearth", path)
    assert geometry.same_grid(opened.emb.geobox, GRID)
    assert "placed by 2024.tfw beside it" in "".join(said)


def test_nothing_beside_a_file_moves_it(tmp_path):
    path = write(tmp_path / "2024.tif", vectors())
    (tmp_path / "2024.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>1, 20, 0, 1, 0, -20</GeoTransform></PAMDataset>"
    )
    assert geometry.same_grid(gx.open("alphaearth", path).emb.geobox, GRID)


@pytest.mark.parametrize("ask", [("alphaearth",), ()])
def test_a_vrt_by_another_name_is_refused(tmp_path, ask):
    secret = write(tmp_path / "secret.tif", codes_of(vectors()), names=NAMES)
    vrt = tmp_path / "vrt_2024.tif"
    with rasterio.open(secret) as file:
        rasterio.shutil.copy(file, vrt, driver="VRT")
    with rasterio.open(vrt) as file:
        assert file.driver == "VRT"
    with pytest.raises(SourceError, match=r"vrt_2024\.tif could not be opened as a GeoTIFF"):
        gx.open(*ask, vrt)


def test_a_header_that_claims_more_than_the_earth_is_refused(tmp_path, monkeypatch):
    wide = geometry.make_geobox((8, 2000), rasterio.Affine(1, 0, 0, 0, -1, 0), 4326)
    path = write(tmp_path / "2024.tif", np.zeros((64, 8, 2000), "i1"), grid=wide, crs="EPSG:4326")
    with pytest.raises(SourceError, match=r"claims 8 × 2000 pixels, 2e\+03 degrees across"):
        gx.open("alphaearth", path)
    monkeypatch.setattr(geotiff, "_LARGEST_BLOCK", 64 * 128 * 128 - 1)
    blocks = {"tiled": True, "blockxsize": 128, "blockysize": 128, "interleave": "pixel"}
    with pytest.raises(SourceError, match="claims blocks of 128 × 128 pixels"):
        gx.open("alphaearth", write(tmp_path / "b" / "2024.tif", np.zeros((64, 8, 9), "i1"), **blocks))


@pytest.mark.parametrize(
    "claim",
    [
        ("embeddings", [4, 64, 10**9, 10**9]),
        ("embeddings", [4, 10**9, 64, 64]),
        ("embeddings", [10**9, 64, 64, 64]),
        ("time", [10**9]),
    ],
)
def test_zarr_metadata_that_claim_too_much_are_refused(tmp_path, claim):
    path = alphaearth.example_alphaearth(tmp_path, "zarr", size=64)
    metadata = path / claim[0] / "zarr.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "shape": claim[1]}))
    with pytest.raises(SourceError, match=r"claims a shape|claims 1000000000 along|but 1000000000 times"):
        gx.open("alphaearth", path)
    own = gx.testing.synthetic("alphaearth", shape=(8, 9)).emb.to_zarr(tmp_path / "own.zarr")
    (own / "x" / "zarr.json").write_text(
        json.dumps({**json.loads((own / "x" / "zarr.json").read_text()), "shape": [10**9]})
    )
    whole = json.loads((own / "zarr.json").read_text())
    whole["consolidated_metadata"]["metadata"]["x"]["shape"] = [10**9]
    (own / "zarr.json").write_text(json.dumps(whole))
    with pytest.raises(SourceError, match="claims a shape"):
        gx.open(own)


# --- codes that carry their nodata ------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["alphaearth", "presto"])
def test_rioxarray_fills_codes_with_their_nodata_and_they_come_back(tmp_path, product):
    codes = gx.testing.synthetic(product, shape=(30, 24), decode=False).isel(time=0, drop=True)
    nodata = codes.emb.product.codec.nodata
    middle = shapely.Point(float(codes.x[12]), float(codes.y[15])).buffer(60)
    wider = (float(codes.x[0]) - 50, float(codes.y[-1]) - 50, float(codes.x[-1]) + 50, float(codes.y[0]) + 50)
    turned = {
        "clip": codes.rio.clip([middle]),
        "reproject": codes.rio.reproject("EPSG:32635"),
        "pad": codes.rio.pad_box(*wider),
    }
    for name, each in turned.items():
        assert each.dtype == codes.dtype
        missing = (each == nodata).all("band")
        assert 0 < float(missing.mean()) < 1
        np.testing.assert_array_equal(gx.decode(each).isnull().all("band"), missing)
        assert "nodata" not in gx.decode(each).attrs
        each.to_zarr(tmp_path / f"{name}.zarr", consolidated=False)
        if product == "alphaearth":  # netCDF 3 has no uint16
            each.to_netcdf(tmp_path / f"{name}.nc")
        for ending in ("zarr", "nc") if product == "alphaearth" else ("zarr",):
            path = tmp_path / f"{name}.{ending}"
            back = gx.open(path, decode=False)
            np.testing.assert_array_equal(back.values, each.values)
            assert back.attrs == codes.attrs
            np.testing.assert_array_equal(gx.open(path).values, gx.decode(each).values)
        masked = xr.open_dataset(tmp_path / f"{name}.zarr", engine="zarr")[each.name]
        assert masked.dtype.kind == "f"  # plain xarray masks what rioxarray gave a _FillValue
        masked.drop_encoding().to_zarr(tmp_path / f"{name}-masked.zarr", consolidated=False)
        np.testing.assert_array_equal(
            gx.open(tmp_path / f"{name}-masked.zarr", decode=False).values, each.values
        )


@pytest.mark.parametrize("product", ["alphaearth", "tessera"])
@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("ending", ["zarr", "v2", "nc"])
def test_what_plain_xarray_wrote_of_our_arrays_opens(tmp_path, product, decode, ending):
    array = gx.testing.synthetic(product, shape=(12, 10), years=[2018, 2020], missing=True, decode=decode)
    path = tmp_path / f"a.{ending}" if ending == "nc" else tmp_path / ending
    if ending == "nc":
        array.to_netcdf(path)
    else:
        array.to_zarr(path, zarr_format=2 if ending == "v2" else 3, consolidated=False)
    with gx.testing.raise_if_dask_computes():
        back = gx.open(path, decode=False)
    assert back.chunks is not None
    xr.testing.assert_identical(back.compute(), array)
    assert gx.open(path.as_uri(), time=2020).identical(array.emb.decode().isel(time=[1]))
    with xr.open_dataset(path, engine=None if ending == "nc" else "zarr") as plain:
        assert plain["embedding"].dtype == array.dtype  # plain xarray turns no code into a float


# --- Zarr chunks ------------------------------------------------------------------------------------------------


def zarr_of(path, *, zarr_format=3, shards=None, fill=0, dtype="i1", order=NAMES):
    """A store of codes whose right half was never written, in zarr's default fill value."""
    step = 9e-5
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    root.attrs.update(
        {
            "proj:code": "EPSG:4326",
            "spatial:transform": [step, 0, 11, 0, -step, 47],
            "geoemb:dimensions": 64,
            "geoemb:type": "pixel",
        }
    )
    dims = ("time", "band", "y", "x")
    named = {"dimension_names": dims} if zarr_format == 3 else {}
    array = root.create_array(
        "embeddings",
        shape=(1, 64, 16, 32),
        chunks=(1, 32, 8, 8),
        shards=shards,
        dtype=dtype,
        fill_value=fill,
        **named,
    )
    years = root.create_array(
        "time", shape=(1,), dtype="i4", **({"dimension_names": ("time",)} if named else {})
    )
    if not named:
        array.attrs["_ARRAY_DIMENSIONS"], years.attrs["_ARRAY_DIMENSIONS"] = list(dims), ["time"]
    years[:] = [2024]
    data = codes_of(vectors(shape=(16, 16)))
    data[:, 0, 0] = -128 if dtype == "i1" else 1
    array[0, :, :, :16] = data[[NAMES.index(n) for n in order]]
    if list(order) != NAMES:
        root.create_array("band", data=np.array(order), **({"dimension_names": ("band",)} if named else {}))
    return path, data


@pytest.mark.parametrize(
    ("zarr_format", "shards"), [(2, None), (3, None), (3, (1, 64, 16, 32)), (3, (1, 32, 16, 16))]
)
@pytest.mark.parametrize("where", ["local", "remote"])
@pytest.mark.parametrize("ending", ["m.zarr", "m"])
def test_a_chunk_that_was_never_written_is_missing(tmp_path, zarr_format, shards, where, ending):
    path, data = zarr_of(tmp_path / ending, zarr_format=zarr_format, shards=shards)
    for fill_window in (slice(0, 32), slice(13, 27)):
        reader = zarr_store.ZarrReader(
            str(path) if where == "local" else path.as_uri(), "embeddings", ("time", "band", "y", "x"),
            fill=-128, unwritten=0,
        )  # fmt: skip
        window = pickle.loads(pickle.dumps(reader)).read(0, slice(3, 16), fill_window)
        expected = np.full((64, 16, 32), -128, "i1")
        expected[..., :16] = data
        np.testing.assert_array_equal(window, expected[:, 3:, fill_window])
    opened = gx.open("alphaearth", path, chunks=8)
    assert opened[..., 16:].isnull().all()
    assert int(opened[..., :16].isnull().all("band").sum()) == 1


def test_zeros_that_were_written_stay_zeros(tmp_path):
    path, _ = zarr_of(tmp_path / "m.zarr", fill=0)
    root = zarr.open_group(path, mode="r+")
    root["embeddings"][0, :, :8, :8] = 0
    zarr.open_array(path, path="embeddings", config={"write_empty_chunks": True})[0, :, 8:, 24:] = 0
    opened = gx.open("alphaearth", path, decode=False).values[0]
    assert (opened[:, 8:, 24:] == 0).all()
    assert (opened[:, :8, 16:] == -128).all()


def test_bands_of_a_zarr_lie_where_its_labels_say(tmp_path):
    path, data = zarr_of(tmp_path / "m.zarr", order=NAMES[::-1])
    for ask in (("alphaearth",), ()):
        opened = gx.open(*ask, path, decode=False) if ask else None
        if opened is None:
            root = zarr.open_group(path, mode="r+")
            root.attrs["geoemb:model"] = "https://example.org/alphaearth"
            root.attrs["geoemb:quantization"] = {"method": "signed_square", "original_dtype": "float32"}
            opened = gx.open(path, decode=False)
        np.testing.assert_array_equal(opened.values[0, ..., :16], data)
        assert opened["band"].values.tolist() == NAMES


@pytest.mark.parametrize("lost", ["embeddings", "scales"])
def test_a_lost_shard_of_tessera_is_an_error_and_absent_scales_are_missing(tmp_path, lost):
    path = shutil.copytree(gx.example("tessera", container="zarr"), tmp_path / "tessera.zarr")
    before = gx.open("tessera", path).values
    shards = sorted(p for p in path.glob(f"utm*/{lost}/c/**/*") if p.is_file())
    shards[1].unlink()
    after = gx.open("tessera", path)
    if lost == "embeddings":
        with pytest.raises(
            SourceError, match=r"embeddings/c/1/0/0/0 does not exist.*scales says that \d+ pixels"
        ):
            after.compute()
        np.testing.assert_array_equal(after.isel(time=[0, 2, 3]).values, before[[0, 2, 3]])
        shards = sorted(p for p in path.glob("utm*/scales/c/**/*") if p.is_file())
        shards[1].unlink()  # of neither: never written
        after = gx.open("tessera", path)
    assert np.isnan(after.isel(time=1).values).all()
    np.testing.assert_array_equal(after.isel(time=[0, 2, 3]).values, before[[0, 2, 3]])


# --- overlaps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "float32"])
@pytest.mark.parametrize("chunks", ["auto", 7])
def test_a_missing_pixel_lets_the_other_tile_through(tmp_path, kind, chunks):
    whole = vectors(shape=(20, 40)) if kind == "float32" else codes_of(vectors(shape=(20, 40)))
    rng, fill = np.random.default_rng(3), np.nan if kind == "float32" else -128
    left, right = whole[:, :, :25].copy(), whole[:, :, 10:].copy()
    left[:, rng.random((20, 25)) < 0.4] = fill
    right[:, rng.random((20, 30)) < 0.4] = fill
    grid = gx.testing.geobox((20, 40))
    files = [
        write(tmp_path / "2024" / name, part, grid=grid[:, where], nodata=fill)
        for name, part, where in (("a.tif", left, slice(0, 25)), ("b.tif", right, slice(10, 40)))
    ]
    expected, _ = merge(list(map(str, files)))
    opened = gx.open("alphaearth", tmp_path, decode=False, chunks=chunks)
    np.testing.assert_array_equal(opened.values[0], expected)
    part = gx.open("alphaearth", files[::-1], decode=False, chunks=chunks).isel(
        y=slice(3, 9), x=slice(12, 24)
    )
    np.testing.assert_array_equal(part.values[0], expected[:, 3:9, 12:24])


def test_planes_come_from_the_tile_that_their_vectors_come_from(tmp_path):
    """Tessera's scales decide for their codes, ESD's codes for their quality."""
    rng = np.random.default_rng(0)
    for i, (row, missing) in enumerate(((0, slice(8, 16)), (6, slice(0, 0)))):
        codes = np.full((13, 16, 9), 100 * (i + 1), "u2")
        codes[:12, missing] = 0
        codes[12] = 10 * (i + 1)
        write(tmp_path / f"{i}_2020.tif", codes, grid=gx.testing.geobox((16, 9), offset=(0, -row * 10)))
    opened = gx.open("esd", tmp_path, decode=False)
    first, clear = opened["embedding"].values[0, 0], opened["clear_observations"].values[0]
    np.testing.assert_array_equal(clear * 10, first)
    assert (
        first[8:] == 200
    ).all()  # where the first tile is missing, though its centre is nearer up to row 11
    parts = []
    for i in range(2):
        grid = gx.testing.geobox((16, 9), offset=(0, -60 * i))
        scale = np.full((16, 9), 0.5 + i, "f4")
        scale[rng.random((16, 9)) < 0.5] = [np.nan, np.inf][i]
        made = {"geobox": grid, "times": ("2020-01-01",)}
        plane = tiles.Tile("s", reader=Held(scale), dtype="float32", fill=np.nan, **made)
        codes = Held(np.full((128, 16, 9), i + 1, "i1"))
        parts.append(
            tiles.Tile(
                str(i), reader=codes, dtype="int8", bands=tuple(map(str, range(128))), decider=plane,
                beside={"scale": plane}, **made,
            )
        )  # fmt: skip
    for chunks in ("auto", 5):
        array = tiles.assemble(parts, ["2020-01-01"], chunks=chunks)
        scale, code = array["scale"].values[0], array.values[0, 0]
        known = np.isfinite(scale)
        np.testing.assert_array_equal(scale[known] + 0.5, code[known])
        either = np.zeros((22, 9), bool)
        for i, each in enumerate(parts):
            either[6 * i : 6 * i + 16] |= np.isfinite(each.beside["scale"].reader.values)
        np.testing.assert_array_equal(known, either)


class Held:
    """Reads windows of an array in memory."""

    def __init__(self, values):
        self.values = values

    def read(self, time, rows, cols):
        return self.values[..., rows, cols]


def test_missing_pixels_of_any_layout():
    made = vectors()
    made[2, 0, 0], made[:, 1, 1] = np.nan, 0
    for axis in (0, 1, 2):
        moved = np.moveaxis(made, 0, axis)
        expected = np.zeros((8, 9), bool)
        expected[0, 0] = True
        np.testing.assert_array_equal(missing_pixels(moved, axis), expected)
        expected[1, 1] = True
        np.testing.assert_array_equal(missing_pixels(moved, axis, nodata=0), expected)
    assert not missing_pixels(np.zeros((2, 3), "i1"), 0, nodata=-9999).any()  # no such code can be


def test_numbers_stored_by_a_scale_are_not_taken_as_they_lie(tmp_path, caplog):
    path, data = tmp_path / "a_2024.tif", vectors()
    write(path, (data - 0.5) / np.float32(0.1))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [0.1] * 64, [0.5] * 64
    with pytest.raises(SourceError, match=r"a scale of 0.1 and an offset of 0.5, which are not applied"):
        gx.open("alphaearth", path)
    with pytest.raises(SourceError, match=r"the array declares a scale of 0.1"):
        gx.wrap(rioxarray.open_rasterio(path), "alphaearth")
    scaled = gx.wrap(rioxarray.open_rasterio(path, mask_and_scale=True), "alphaearth")
    np.testing.assert_allclose(scaled.values, data, atol=1e-6)
    codes = write(tmp_path / "b_2024.tif", codes_of(data))
    with rasterio.open(codes, "r+") as file:
        file.scales = [1 / 127.5] * 64
    with caplog.at_level("INFO", "geoemb_xr"):
        np.testing.assert_allclose(gx.open("alphaearth", codes).values[0], data, atol=0.02)
        wrapped = gx.wrap(rioxarray.open_rasterio(codes), "alphaearth").emb.decode()
    np.testing.assert_allclose(wrapped.values, data, atol=0.02)
    assert caplog.text.count("decoded as their product defines them") == 2
    assert scaling_in({"scale_factor": "n/a", "add_offset": np.nan}) is None


@pytest.mark.parametrize(
    ("crs", "affine", "says"),
    [
        ("EPSG:4326", (1e-4, 0, 47.2, 0, -1e-4, 190), "a latitude of 190 degrees"),
        ("EPSG:4978", (10, 0, 6e5, 0, -10, 5.2e6), "has no map"),
    ],
)
def test_a_place_that_is_not_on_a_map_is_refused(tmp_path, crs, affine, says):
    path = write(tmp_path / "a_2024.tif", vectors(), crs=crs, transform=rasterio.Affine(*affine))
    with pytest.raises(SourceError, match=says):
        gx.open("alphaearth", path)


PACKED = [
    {"dtype": "i2", "scale_factor": 1e-4, "add_offset": 0.25, "_FillValue": -32768},
    {"_FillValue": np.float32(-9999)},
    {"missing_value": np.float32(-9999), "_FillValue": np.float32(-9999)},
]


@pytest.mark.parametrize("ending", ["nc", "zarr", "v2"])
@pytest.mark.parametrize("encoding", PACKED)
def test_what_plain_xarray_packed_is_unpacked(tmp_path, ending, encoding):
    made = gx.testing.synthetic("alphaearth", shape=(8, 9)).emb.year(2018)
    made = made.where(made.y > made.y.values[2])
    for array in (
        made,
        made.isel(band=0, drop=True).assign_attrs(derived_from="a test").drop_attrs(deep=False),
    ):
        array.attrs = made.attrs if "band" in array.dims else {"derived_from": "a test"}
        path, stored = tmp_path / f"{array.ndim}.{ending}", array.rename("embedding").to_dataset()
        if ending == "nc":
            stored.to_netcdf(path, encoding={"embedding": encoding})
        else:
            stored.to_zarr(path, encoding={"embedding": encoding}, zarr_format=2 if ending == "v2" else 3)
        back = gx.open(path)
        np.testing.assert_allclose(back.values, array.values, atol=1e-4)
        assert array.ndim == 2 or back.dtype == np.float32


def test_what_is_no_grid_is_refused_by_name():
    source = gx.example("alphaearth")
    with pytest.raises(EmbeddingError, match=r"geobox= is a GeoBox of odc-geo.*got \(1, 2, 3, 4\)"):
        gx.open("alphaearth", source, geobox=(1, 2, 3, 4))
    with pytest.raises(ValueError, match="the CRS EPSG:4978 has no map"):
        gx.open("alphaearth", source, crs="EPSG:4978", resolution=10)


def test_what_is_no_file_or_no_path_is_refused_by_name(tmp_path):
    (tmp_path / "a_2024.tif").mkdir()
    with pytest.raises(SourceError, match="is a folder, not a GeoTIFF"):
        gx.open("alphaearth", tmp_path / "a_2024.tif")
    with pytest.raises(SourceError, match=r"an array of shape .* is not a source; gx.wrap"):
        gx.open("alphaearth", gx.testing.synthetic("alphaearth", shape=(4, 5)))
    stores = [
        gx.testing.synthetic("alphaearth", shape=(4, 5)).emb.to_zarr(tmp_path / f"{i}.zarr") for i in "ab"
    ]
    with pytest.raises(SourceError, match="is a Zarr store among files"):
        gx.open("alphaearth", stores)
