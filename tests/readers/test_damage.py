"""Files with flipped bits or a lost end: right data, or an error of ours that names the file."""

import collections
import json
import re
import shutil

import geopandas as gpd
import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.readers.damage import naming_damage

#: Where checksums are written, so that no flip may go unseen.
CHECKED = {"own.zarr", "own.parquet", "own.tif"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with each container, and each file of ours, and how it is read."""
    folder = tmp_path_factory.mktemp("whole")
    codes = gx.testing.synthetic("alphaearth", shape=(16, 16), years=[2018], decode=False, missing=True)
    one = codes.emb.year(2018)
    at = gx.testing.scene().points(12, radius=60)
    codes.emb.to_zarr(folder / "own.zarr")
    codes.to_zarr(folder / "v2.zarr", zarr_format=2)
    codes.to_netcdf(folder / "plain.nc")
    one.emb.to_cog(folder / "own.tif")
    one.emb.decode().emb.sample(at).emb.to_geoparquet(folder / "own.parquet")
    one.emb.fit_pca(3).save(folder / "pca.npz")
    one.emb.fit_clusters(2).save(folder / "clusters.npz")
    two = at.assign(half=np.arange(len(at)) % 2)
    one.emb.fit_probe(two, target="half", cv=0).save(folder / "probe.npz")
    one.emb.fit_compressor(dims=8).save(folder / "compressor.npz")
    gx.product("tessera").example(folder / "pair", "npy", years=(2018,), size=24)
    shutil.make_archive(str(folder / "own.zarr"), "zip", folder / "own.zarr")
    at.to_csv(folder / "labels.csv", index=False)
    shapes = gpd.GeoDataFrame(at[["land_cover"]], geometry=gpd.points_from_xy(at.lon, at.lat), crs=4326)
    shapes.to_parquet(folder / "labels.parquet")
    shapes.to_file(folder / "labels.geojson")

    def read(path):
        if path.suffix == ".npz":
            return gx.load_model(path)
        if path.name == "pair":
            return gx.open("tessera", path, decode=False).compute()
        return one.emb.sample(path) if path.stem == "labels" else gx.open(path, decode=False).compute()

    return folder, read


def damaged(path, rng):
    """Cut a file short, or flip a bit: anywhere, in its head or in its tail."""
    held = sorted(each for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())
    file = held[rng.integers(len(held))]
    raw = bytearray(file.read_bytes())
    where = rng.integers(4)
    if where == 0:
        raw = raw[: rng.integers(len(raw))]
    else:
        at = rng.integers(len(raw)) if where == 1 else rng.integers(min(len(raw), 300))
        raw[at if where < 3 else -1 - at] ^= 1 << rng.integers(8)
    file.write_bytes(raw)
    return file.name


NAMES = ["own.zarr", "own.tif", "own.parquet", "v2.zarr", "plain.nc", "pca.npz", "clusters.npz",
         "labels.csv", "labels.parquet", "labels.geojson", "probe.npz", "compressor.npz", "pair",
         "own.zarr.zip"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("times", [8, pytest.param(200, marks=pytest.mark.complete)])
def test_damage_is_an_error_that_names_the_file(files, name, times, tmp_path):
    folder, read = files
    whole = read(folder / name)
    rng = np.random.default_rng(NAMES.index(name))
    seen = collections.Counter()
    for _ in range(times):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        path = tmp_path / name
        copy(folder / name, path)
        part = damaged(path, rng)
        found, said = None, ""
        try:
            found = read(path)
        except EmbeddingError as error:
            said = str(error)
        if found is None:
            seen["raised"] += 1
            # a table may have lost its rows, and be whole otherwise
            assert name in said or part in said or "rows of the table" in said
            continue
        # members of a model's zip file have checksums of their own, and models cannot be compared
        is_right = name.endswith(".npz") or found.equals(whole)
        seen["right" if is_right else "other"] += 1
        assert is_right or name not in CHECKED
    print(name, dict(seen))


@pytest.mark.parametrize("at", [10, 16, 42])  # method of compression, checksum, place of a member
def test_a_damaged_directory_of_a_model_is_an_error_that_names_it(files, at, tmp_path):
    raw = bytearray((files[0] / "pca.npz").read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + at + 3 * (at > 10)] ^= 0x80
    (tmp_path / "pca.npz").write_bytes(raw)
    with pytest.raises(EmbeddingError, match=r"pca\.npz"):
        gx.load_model(tmp_path / "pca.npz")


@pytest.mark.parametrize("at", [1e12, float("nan"), float("inf")])
def test_a_store_that_lies_nowhere_on_the_earth_is_refused(at, tmp_path):
    path = next(gx.product("tessera").example(tmp_path, "zarr", years=(2020,)).parent.rglob("*.zarr"))
    for file in path.rglob("zarr.json"):
        document = file.read_text()
        file.write_text(
            re.sub(r'("spatial:transform": \[\s*[^,]+,[^,]+,)[^,]+', rf"\g<1> {json.dumps(at)}", document)
        )
    with pytest.raises(SourceError, match="that is no raster of the Earth"):
        gx.open("tessera", path)


def test_a_fault_of_code_is_not_called_a_damaged_file():
    with (
        pytest.raises(SourceError, match=r"a\.zarr could not be opened: its metadata are damaged"),
        naming_damage("a.zarr"),
    ):
        raise KeyError("shape")
    with pytest.raises(NameError, match="shap"), naming_damage("a.zarr"):
        raise NameError("name 'shap' is not defined")
