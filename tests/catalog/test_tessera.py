"""Tessera in all its containers, against geotessera; what was never written, and versions that never mix."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.catalog import tessera
from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import ComparabilityError, CoverageError, EmbeddingError, SourceError
from geoemb_xr.examples import tessera as examples
from geoemb_xr.geo import places
from geoemb_xr.readers import geotiff
from geoemb_xr.readers import zarr as readers

NAME = "grid_11.35_47.25"


@pytest.fixture(scope="module")
def make():
    """Example sources by container, in the cache that all processes share; a test that changes one copies it."""
    return lambda container: Path(gx.example("tessera", container=container, scene="clear"))


@pytest.fixture
def copied(make, tmp_path):
    def copy(container):
        return Path(shutil.copytree(make(container), tmp_path / make(container).name))

    return copy


@pytest.fixture
def notes(caplog):
    caplog.set_level(logging.INFO, "geoemb_xr")
    return caplog


def zone_store(path, zones, years=(2020,), size=64):
    """A store with a group for each zone: name → (grid, years written)."""
    for i, (name, (grid, written)) in enumerate(zones.items()):
        codes = testing.synthetic("tessera", grid=grid, years=years, decode=False)
        part = path if i == 0 else path.with_name(f"{name}.zarr")
        examples.write_store(part, grid, codes.values, codes.scale.values, years)
        (group,) = (p for p in part.iterdir() if p.is_dir())
        if group.name != name:
            group.rename(part / name)
        if part != path:
            (part / name).rename(path / name)
        _without_unwritten(path / name, years, written)
    meta = json.loads((path / "zarr.json").read_text())
    meta.pop("consolidated_metadata", None)
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(path)
    return path


def _without_unwritten(group, years, written):
    for step, year in enumerate(years):
        for array in ("embeddings", "scales"):
            if year not in written:
                shutil.rmtree(group / array / "c" / str(step))


# --- containers agree, and geotessera agrees ----------------------------------------------------------------


@pytest.mark.parametrize("container", ["npy", "legacy", "geotiff"])
def test_containers_hold_the_same(make, container):
    store = gx.open("tessera", make("zarr"), time=[2018, 2024]).compute()
    other = gx.open("tessera", make(container), time=[2018, 2024]).compute()
    np.testing.assert_array_equal(other.values, store.values)
    xr.testing.assert_equal(other.coords.to_dataset(), store.coords.to_dataset())


def test_geotessera_reads_the_same_region(make):
    store = pytest.importorskip("geotessera.store")
    bbox = (11.3655, 47.2465, 11.3735, 47.2525)
    theirs, transform, crs = store.GeoTesseraZarr(str(make("zarr"))).read_region(bbox, 2020)
    ours = gx.open("tessera", make("zarr"), time=2020).isel(time=0)
    height, width = theirs.shape[:2]
    window = ours.sel(
        x=slice(transform.c, transform.c + 10 * width), y=slice(transform.f, transform.f - 10 * height)
    )
    assert crs == "EPSG:32632"
    np.testing.assert_array_equal(window.transpose("y", "x", "band").values, theirs)
    cut = gx.open("tessera", make("zarr"), bbox=bbox, time=2020).isel(time=0)
    assert cut.sizes["x"] - width in (
        0,
        1,
        2,
    )  # ours is rounded outwards, theirs takes pixels by their centres


def test_geotessera_samples_the_same_points(make):
    store = pytest.importorskip("geotessera.store")
    points = testing.scene().points(60, year=2020, radius=550)
    pairs = list(zip(points.lon, points.lat, strict=True))
    theirs = store.GeoTesseraZarr(str(make("zarr"))).sample_points(pairs, 2020, cross_zone=False, search_px=0)
    ours = gx.open("tessera", make("zarr"), points=points[["lon", "lat"]], time=2020).isel(time=0)
    np.testing.assert_array_equal(ours.values, theirs)


@pytest.mark.parametrize("container", ["npy", "geotiff"])
def test_geotessera_reads_the_same_tiles(make, container):
    tiles = pytest.importorskip("geotessera.tiles")
    folder = make(container)
    ours = gx.open("tessera", folder, time=2018).isel(time=0).transpose("y", "x", "band").values
    if container == "npy":
        theirs = tiles.Tile.from_npy(
            folder / "global_0.1_degree_representation/2018" / NAME / f"{NAME}.npy", folder
        )
    else:
        theirs = tiles.Tile.from_geotiff(folder / "2018" / NAME / f"{NAME}_2018.tiff")
    np.testing.assert_array_equal(ours, theirs.load_embedding())


@pytest.mark.parametrize("lat", [51.25, 0.05, -0.05, -33.85, 67.35])
def test_tiles_lie_where_geotessera_puts_them(lat):
    """Its Zarr stores take the pixels' true corner, not the one that landmasks state."""
    theirs = pytest.importorskip("geotessera.zarr")
    zone = theirs.tile_zone(16.15)
    grid = theirs.UnifiedZoneGrid(zone, [2020], 32600 + zone, 100_000.0, 9_000_000.0, 10, 10)
    for lon in np.arange(15.05, 17.95, 0.1):
        info = theirs.project_tile(round(float(lon), 2), lat)
        row, col = theirs._tile_pixel_offset(info, grid)
        box = geometry.make_geobox((info.height, info.width), info.transform, f"EPSG:{info.epsg}")
        snapped = tessera._on_lattice(box).affine
        north = snapped.f - (10_000_000 if theirs.epsg_is_south(info.epsg) else 0)
        assert (snapped.c, north) == (100_000 + 10 * col, 9_000_000 - 10 * row)


def test_a_landmask_off_the_lattice_moves_nothing(make):
    mask = geotiff.read_info(make("npy") / "global_0.1_degree_tiff_all" / f"{NAME}.tiff")
    assert mask.geobox.affine.c % 10 != 0
    opened = gx.open("tessera", make("npy"))
    assert geometry.same_grid(geometry.geobox_of(opened), testing.geobox((128, 128)))


# --- zones --------------------------------------------------------------------------------------------------


def test_southern_zones_have_negative_northings(tmp_path):
    store = pytest.importorskip("geotessera.store")
    grid = geometry.make_geobox((64, 64), Affine(10, 0, 499_680, 0, -10, -1_000_000), "EPSG:32633")
    path = zone_store(tmp_path / "south.zarr", {"utm33": (grid, (2020,))})
    opened = gx.open("tessera", path)
    assert opened.emb.crs.to_epsg() == 32633
    assert float(opened.y.max()) < 0
    west, south, east, north = areas.area_of(grid).lonlat()[0]
    assert -10 < south < north < -8.5
    inner = (west + 0.001, south + 0.001, east - 0.001, north - 0.001)
    theirs, transform, _ = store.GeoTesseraZarr(str(path)).read_region(inner, 2020)
    ours = opened.isel(time=0).sel(
        x=slice(transform.c, transform.c + 10 * theirs.shape[1]),
        y=slice(transform.f, transform.f - 10 * theirs.shape[0]),
    )
    np.testing.assert_array_equal(ours.transpose("y", "x", "band").values, theirs)


@pytest.fixture
def seam(tmp_path):
    """Zones 32 and 33, which meet at 12° east; zone 33 was never written in 2021."""
    zones = {}
    for zone, edge, written in ((32, 12.0 - 0.006, (2020, 2021)), (33, 12.0 + 0.006, (2020,))):
        crs = f"EPSG:{32600 + zone}"
        x, y = geometry.transformer(geometry.as_crs("EPSG:4326"), geometry.as_crs(crs)).transform(edge, 47.0)
        affine = Affine(10, 0, round(x / 10) * 10 - 320, 0, -10, round(y / 10) * 10 + 320)
        zones[f"utm{zone}"] = (geometry.make_geobox((64, 64), affine, crs), written)
    return zone_store(tmp_path / "seam.zarr", zones, years=(2020, 2021))


def test_zones_are_merged_or_kept_apart(seam, notes):
    parts = gx.open("tessera", seam, zones="separate", time=2020)
    assert sorted(parts) == ["EPSG:32632", "EPSG:32633"]
    merged = gx.open("tessera", seam, time=2020)
    assert merged.emb.crs.to_epsg() in (32632, 32633)
    assert "brought to" in notes.text
    values = merged.values
    assert np.isnan(values).any(axis=1).sum() == np.isnan(values).all(axis=1).sum()
    alone = parts[f"EPSG:{merged.emb.crs.to_epsg()}"]
    own = merged.sel(x=alone.x, y=alone.y).values
    held = np.isfinite(alone.values)
    np.testing.assert_array_equal(own[held], alone.values[held])


def test_points_come_from_their_own_zone(seam):
    parts = gx.open("tessera", seam, zones="separate", time=2020)
    table = [(11.994, 47.0), (12.006, 47.0), (11.9935, 47.0003)]
    taken = gx.open("tessera", seam, points=table, time=2020).isel(time=0)
    for i, (lon, lat) in enumerate(table):
        zone = parts["EPSG:32632" if lon < 12 else "EPSG:32633"].isel(time=0)
        x, y = places.points_xy([(lon, lat)], zone.emb.crs)
        expected = zone.sel(x=x[0], y=y[0], method="nearest")
        np.testing.assert_array_equal(taken.isel(location=i).values, expected.values)


def test_points_read_their_own_chunks_alone_and_find_what_was_lost(copied, monkeypatch):
    path = copied("zarr")
    whole = gx.open("tessera", path, time=2020).isel(time=0)
    rows, cols = np.array([3, 70, 70, 100]), np.array([5, 9, 10, 12])
    lon, lat = geometry.transformer(whole.emb.crs, geometry.as_crs("EPSG:4326")).transform(
        whole.x.values[cols], whole.y.values[rows]
    )
    points = np.stack([lon, lat], 1)
    windows = []
    read = readers.ZarrReader.read
    monkeypatch.setattr(readers.ZarrReader, "read", lambda *a: windows.append(a) or read(*a))
    taken = gx.open("tessera", path, points=points, time=2020).isel(time=0)
    expected = whole.values[:, rows, cols].T
    windows.clear()
    np.testing.assert_array_equal(taken.values, expected)
    assert np.isfinite(expected).all()
    assert windows == []  # which are read to see whether a vector is missing or lost
    for shard in path.glob("utm*/embeddings/c/1/*/*/*"):
        shard.unlink()
    lost = gx.open("tessera", path, points=points, time=2020)
    with pytest.raises(SourceError, match="codes were lost"):
        lost.compute()
    assert windows


def test_only_zones_near_the_area_are_opened(seam, monkeypatch):
    opened = []
    whole = tessera._zone_tile
    monkeypatch.setattr(
        tessera, "_zone_tile", lambda url, name, *rest: opened.append(name) or whole(url, name, *rest)
    )
    gx.open("tessera", seam, bbox=(11.992, 46.999, 11.995, 47.001), time=2020)
    assert opened == ["utm32", "utm33"]  # a tile reaches 0.05° over the seam
    opened.clear()
    with pytest.raises(CoverageError, match=r"does not cover .*no such UTM zone there"):
        gx.open("tessera", seam, bbox=(-60.0, -20.0, -59.9, -19.9))
    assert opened == []


# --- what was never written ---------------------------------------------------------------------------------


def test_a_year_never_written_is_said_and_never_filled(seam, notes):
    parts = gx.open("tessera", seam, zones="separate")
    assert "utm33 was never written for 2021" in notes.text
    assert list(parts["EPSG:32632"].time.dt.year.values) == [2020, 2021]
    second = parts["EPSG:32633"].sel(time="2021")
    assert np.isnan(second.values).all()
    codes = gx.open("tessera", seam, zones="separate", decode=False)["EPSG:32633"].sel(time="2021")
    assert codes.dtype == np.int8
    assert not np.isfinite(codes.scale.values).any()


def test_a_year_that_no_zone_has_is_an_error_naming_the_zones(seam, tmp_path):
    with pytest.raises(CoverageError, match=r"2022.*utm32, utm33 as written, which has 2020"):
        gx.open("tessera", seam, time=2022)
    grid = testing.geobox((64, 64))
    path = zone_store(tmp_path / "some.zarr", {"utm32": (grid, (2020,))}, years=(2020, 2021))
    with pytest.raises(CoverageError, match=r"2021.*utm32 as written, which has 2020"):
        gx.open("tessera", path, time=2021)
    assert list(gx.open("tessera", path).time.dt.year.values) == [2020]
    never = zone_store(tmp_path / "never.zarr", {"utm32": (grid, ())}, years=(2020, 2021))
    with pytest.raises(CoverageError, match="utm32 of this store were never written for any year"):
        gx.open("tessera", never)


def test_years_that_a_group_calls_complete_are_believed(tmp_path):
    path = zone_store(
        tmp_path / "c.zarr", {"utm32": (testing.geobox((64, 64)), (2020, 2021))}, years=(2020, 2021)
    )
    group = zarr.open_group(path, mode="r+", path="utm32", use_consolidated=False)
    group.attrs["years_complete"] = [2021]
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(path)
    assert list(gx.open("tessera", path).time.dt.year.values) == [2021]


def test_sentinels_of_scales_are_missing(make):
    opened = gx.open("tessera", make("zarr"), time=2018, decode=False)
    scale = opened.scale.values
    assert np.isnan(scale).any()
    assert np.isposinf(scale).any()
    missing = np.isnan(opened.emb.decode().values)
    np.testing.assert_array_equal(missing.all(axis=1), ~np.isfinite(scale))
    np.testing.assert_array_equal(missing.any(axis=1), ~np.isfinite(scale))


# --- versions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "model_url", "asked", "expected"),
    [
        ("v1.1-dclimate", "https://geotessera.org/model/1.1", None, "v1.1-dclimate"),
        ("v1.1", "https://geotessera.org/model/1.1", None, "v1.1-cambridge"),
        ("v1", "https://geotessera.org/model/1.0", None, "v1"),
        ("v2-2B-L~beta2", "https://geotessera.org/model/2.0", None, "v2-2B-L~beta2"),
        ("mine.zarr", "https://geotessera.org/model/1.0", None, "v1"),
        ("mine.zarr", "https://geotessera.org/model/1.1", None, "v1.1"),
        ("mine.zarr", "https://geotessera.org/model/1.1", "v1.1-dclimate", "v1.1-dclimate"),
        ("mine.zarr", "", None, "unknown"),
        ("mine.zarr", "", "v1", "v1"),
    ],
)
def test_a_store_tells_its_version(make, tmp_path, folder, model_url, asked, expected, notes):
    path = Path(shutil.copytree(make("zarr"), tmp_path / folder))
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"] |= {"geoemb:build_version": "0.11.0", "geoemb:model": model_url}
    (path / "zarr.json").write_text(json.dumps(meta))
    assert gx.open("tessera", path, version=asked).attrs["version"] == expected
    assert f"tessera: version {expected}" in notes.text
    if expected == "v1.1-cambridge":
        with pytest.raises(
            CoverageError, match=r"version='v1' was asked for, but this source holds 'v1\.1-cambridge'"
        ):
            gx.open("tessera", path, version="v1")


@pytest.mark.parametrize(
    ("sidecar", "expected"),
    [
        ({"dataset_version": "1.1", "dataset_variant": "cambridge"}, "v1.1-cambridge"),
        ({"dataset_version": "1.0", "dataset_variant": "vultr"}, "v1"),
        ({"dataset_version": "2.0", "dataset_variant": "2B-L~beta1"}, "v2-2B-L~beta1"),
        (None, "unknown"),
    ],
)
def test_npy_tiles_tell_their_version(copied, sidecar, expected):
    folder = copied("npy")
    (folder / "tessera_metadata.json").unlink()
    if sidecar is not None:
        (folder / "tessera_metadata.json").write_text(json.dumps(sidecar))
    tessera._sidecar.cache_clear()
    assert gx.open("tessera", folder).attrs["version"] == expected


def test_the_published_layout_of_npy_tells_its_version(make, tmp_path):
    root = tmp_path / "mirror"
    shutil.copytree(make("npy") / "global_0.1_degree_representation", root / "npy" / "v1.1-cam")
    shutil.copytree(make("npy") / "global_0.1_degree_tiff_all", root / "landmasks" / "v1.1")
    opened = gx.open("tessera", root / "npy" / "v1.1-cam", time=2018)
    assert opened.attrs["version"] == "v1.1-cambridge"
    np.testing.assert_array_equal(opened.values, gx.open("tessera", make("zarr"), time=2018).values)


def test_versions_never_mix(make, tmp_path):
    for name, version in (("a", "1.0"), ("b", "1.1")):
        folder = Path(shutil.copytree(make("npy"), tmp_path / name))
        year = "2018" if name == "a" else "2020"
        for other in (folder / "global_0.1_degree_representation").iterdir():
            if other.name != year:
                shutil.rmtree(other)
        variant = {"1.0": "vultr", "1.1": "cambridge"}[version]
        sidecar = {"dataset_version": version, "dataset_variant": variant}
        (folder / "tessera_metadata.json").write_text(json.dumps(sidecar))
    tessera._sidecar.cache_clear()
    with pytest.raises(SourceError, match=r"mixes versions \['v1', 'v1\.1-cambridge'\].*a.* is 'v1' and .*b"):
        gx.open("tessera", [tmp_path / "a", tmp_path / "b"])
    a, b = (gx.open("tessera", tmp_path / name) for name in "ab")
    with pytest.raises(ComparabilityError, match=r"tessera v1 and tessera v1\.1-cambridge"):
        gx.concat([a, b], "time")


def test_exports_tell_their_version(copied):
    import rasterio

    folder = copied("geotiff")
    for file in folder.rglob("*.tiff"):
        with rasterio.open(file, "r+") as dataset:
            dataset.update_tags(
                GEOEMB_VERSION="", TESSERA_DATASET_VERSION="1.1", TESSERA_DATASET_VARIANT="cambridge"
            )
    assert gx.open("tessera", folder).attrs["version"] == "v1.1-cambridge"


def test_an_unknown_version_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"version='v3' is not known; valid are 'v1\.1-dclimate'"):
        gx.open("tessera", "anything.zarr", version="v3")


def test_prefixes_are_embeddings_only_of_nested_versions(make):
    codes = gx.open("tessera", make("zarr"), time=2018, decode=False).isel(y=slice(0, 4), x=slice(0, 4))
    nested = codes.assign_attrs(version="v2-2B-L~beta2")
    short = nested.emb.truncate(16)
    assert short.sizes["band"] == 16
    np.testing.assert_array_equal(short.emb.decode().values, nested.emb.decode().values[:, :16])
    with pytest.raises(EmbeddingError, match=r"v1\.1-dclimate has no prefix of 16 bands"):
        codes.assign_attrs(version="v1.1-dclimate").emb.truncate(16)


# --- files that are not what they should be -----------------------------------------------------------------


def _tile(folder, year=2018):
    return folder / "global_0.1_degree_representation" / str(year) / NAME / f"{NAME}.npy"


def test_scales_of_every_band_are_opened_as_vectors(copied):
    folder = copied("npy")
    scales = _tile(folder).with_name(f"{NAME}_scales.npy")
    plane = np.load(scales)
    each = np.repeat(plane[..., None], 128, axis=2) * np.linspace(0.5, 1, 128, dtype=np.float32)
    np.save(scales, each.astype(np.float32))
    opened = gx.open("tessera", folder, decode=False)  # one year by bands, three by pixels: all as vectors
    assert opened.dtype == np.float32
    assert "codec" not in opened.attrs
    core = pytest.importorskip("geotessera.core")
    expected = core.dequantize_embedding(np.load(_tile(folder)), np.load(scales))
    got = opened.sel(time="2018").isel(time=0).transpose("y", "x", "band").values
    np.testing.assert_array_equal(got, expected)
    whole = gx.open("tessera", folder, time=2020).values
    np.testing.assert_array_equal(opened.sel(time="2020").values, whole)


def test_files_that_are_missing_are_named(copied):
    folder = copied("npy")
    scales = _tile(folder, 2020).with_name(f"{NAME}_scales.npy")
    moved = scales.rename(scales.with_name("kept.bin"))
    with pytest.raises(SourceError, match=rf"{NAME}\.npy has no scales: .*{NAME}_scales\.npy is missing"):
        gx.open("tessera", folder)
    moved.rename(scales)
    (folder / "global_0.1_degree_tiff_all" / f"{NAME}.tiff").unlink()
    with pytest.raises(
        SourceError, match=rf"has no landmask, .*looked for .*global_0\.1_degree_tiff_all/{NAME}\.tiff"
    ):
        gx.open("tessera", folder)


def test_files_that_are_wrong_are_named(copied):
    folder = copied("npy")
    tile = _tile(folder)
    whole = tile.read_bytes()
    tile.write_bytes(whole[:-1])
    with pytest.raises(SourceError, match=rf"{NAME}\.npy is truncated"):
        gx.open("tessera", folder)
    np.save(tile, np.zeros((128, 127, 128), np.int8))
    with pytest.raises(SourceError, match=r"has shape \(128, 127, 128\) instead of \(128, 128, 128\)"):
        gx.open("tessera", folder)
    np.save(tile, np.zeros((128, 128, 128), np.float32))
    with pytest.raises(SourceError, match=rf"{NAME}\.npy holds float32 instead of int8"):
        gx.open("tessera", folder)
    np.save(tile, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match="pickled objects"):
        gx.open("tessera", folder)


def test_a_file_cut_after_opening_raises_when_computed(copied):
    folder = copied("npy")
    opened = gx.open("tessera", folder, time=2018)
    with open(_tile(folder), "r+b") as file:
        file.truncate(10_000)
    with pytest.raises(SourceError, match=rf"{NAME}\.npy"):
        opened.compute()


def test_sources_that_are_something_else(tmp_path, make):
    (tmp_path / "x.npy").touch()
    with pytest.raises(SourceError, match=r"are not tiles of 'tessera', which are named"):
        gx.open("tessera", tmp_path)
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_group("other")
    with pytest.raises(SourceError, match=r"has no groups utm01 … utm60; it has \['other'\]"):
        gx.open("tessera", tmp_path / "a.zarr")
    shutil.copytree(make("zarr"), tmp_path / "b.zarr")
    shutil.rmtree(tmp_path / "b.zarr" / "utm32" / "scales")
    with pytest.raises(SourceError, match=r"has no array 'scales'|has no 'utm32/scales'"):
        gx.open("tessera", tmp_path / "b.zarr")
    with pytest.raises(SourceError, match="open them apart"):
        gx.open("tessera", [make("npy"), make("geotiff")])
    with pytest.raises(CoverageError, match=r"tiles lie in \(11\.30, 47\.20, 11\.40, 47\.30\)"):
        gx.open("tessera", make("npy"), bbox=(20, 40, 20.1, 40.1))


def test_two_tiles_are_one_array_without_resampling(tmp_path):
    grid = testing.geobox((40, 60))
    codes = testing.synthetic("tessera", grid=grid, years=[2020], decode=False)
    values, scales = codes.values[0], codes.scale.values[0]
    for name, part in (("grid_11.35_47.25", slice(0, 32)), ("grid_11.45_47.25", slice(28, 60))):
        folder = tmp_path / "global_0.1_degree_representation" / "2020" / name
        folder.mkdir(parents=True)
        np.save(folder / f"{name}.npy", np.ascontiguousarray(np.moveaxis(values[:, :, part], 0, -1)))
        np.save(folder / f"{name}_scales.npy", scales[:, part])
        off = (
            Affine.translation(part.start, 0)
            if part.start == 0
            else Affine.translation(part.start + 0.83, 0.41)
        )
        box = geometry.make_geobox((40, 32), grid.affine * off, grid.crs)
        mask = np.ones((1, 40, 32), np.uint8)
        geotiff.write_geotiff(tmp_path / "global_0.1_degree_tiff_all" / f"{name}.tiff", mask, box)
    opened = gx.open("tessera", tmp_path, decode=False)
    assert geometry.same_grid(geometry.geobox_of(opened), grid)
    np.testing.assert_array_equal(opened.values[0], values)
    np.testing.assert_array_equal(opened.scale.values[0], scales)


# --- scale --------------------------------------------------------------------------------------------------


def test_a_store_of_published_size_opens_by_its_metadata(tmp_path):
    """A zone of 9 × 128 × 1.8 million × 65,536 pixels, chunks of 32² in shards of 4096²: blocks fit memory."""
    root = zarr.open_group(tmp_path / "big.zarr", mode="w", zarr_format=3)
    root.attrs.update({"geoemb:model": "https://geotessera.org/model/1.0"})
    group = root.create_group("utm32")
    size = (450 * 4096, 16 * 4096)
    top = 9_400_000
    group.attrs.update({"proj:code": "EPSG:32632", "spatial:transform": [10, 0, 160_000, 0, -10, top]})
    group.create_array(
        "embeddings", shape=(9, 128, *size), chunks=(1, 128, 32, 32), shards=(1, 128, 4096, 4096), dtype="int8",
        fill_value=0, dimension_names=("time", "band", "y", "x"),
    )  # fmt: skip
    group.create_array(
        "scales", shape=(9, *size), chunks=(1, 32, 32), shards=(1, 4096, 4096), dtype="float32",
        fill_value=np.inf, dimension_names=("time", "y", "x"),
    )  # fmt: skip
    times = group.create_array("time", shape=(9,), dtype="int32", dimension_names=("time",))
    times[:] = np.arange(2017, 2026)
    for array in ("embeddings", "scales"):
        (tmp_path / "big.zarr" / "utm32" / array / "c" / "3").mkdir(parents=True)
    with testing.raise_if_dask_computes():
        opened = gx.open("tessera", tmp_path / "big.zarr", bbox=(11.30, 47.20, 11.45, 47.30))
    assert list(opened.time.dt.year.values) == [2020]
    assert max(opened.chunksizes["y"]) == max(opened.chunksizes["x"]) == 512
    assert all(edge % 32 == 0 for edge in opened.chunksizes["x"][1:-1])
    assert len(opened.__dask_graph__()) < 1_000
    assert np.isnan(opened[:, :, :2, :2].values).all()
    codes = gx.open("tessera", tmp_path / "big.zarr", decode=False)  # all of it: graph only when asked
    assert codes.shape == (1, 128, *size)


def test_coverage_of_a_source(make, seam):
    table = gx.coverage("tessera", seam)
    assert list(table.columns[:2]) == ["url", "year"]
    assert sorted(zip(table.crs, table.year, strict=True)) == [
        ("EPSG:32632", 2020), ("EPSG:32632", 2021), ("EPSG:32633", 2020)
    ]  # fmt: skip
    assert list(gx.coverage("tessera", make("npy"), time=[2018, 2020]).year) == [2018, 2020]


# --- real ---------------------------------------------------------------------------------------------------


def test_real_points(real_data):
    pd = pytest.importorskip("pandas")
    folder = real_data / "tessera-points"
    table = pd.read_csv(folder / "tessera_ukbms_10sites.csv")
    codes, scale = np.load(folder / "int8_embeddings.npy"), np.load(folder / "scales.npy")
    wrapped = gx.wrap(codes, "tessera", x=table.lon, y=table.lat, scale=scale, version="v1")
    decoded = wrapped.emb.decode()
    published = table[[c for c in table.columns if c.startswith("emb_")]].to_numpy()
    np.testing.assert_allclose(decoded.values, published, atol=4e-7, rtol=1e-6)
    check = decoded.emb.check()
    assert 27 < check["norm_min"] < check["norm_max"] < 33
    assert check["ok"]


def test_half_a_version_is_completed():
    with pytest.raises(ValueError, match=r"version='v1.1' is not known.*Did you mean 'v1.1-dclimate'"):
        gx.open("tessera", bbox=(11.3, 47.2, 11.4, 47.3), version="v1.1")
