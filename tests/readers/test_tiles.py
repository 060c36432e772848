"""Tiles of a lattice as one array: ragged sets, overlaps, both orientations, windows, and at scale."""

import pickle
from dataclasses import dataclass, replace

import dask
import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core import areas, arrays, geometry
from geoemb_xr.core.errors import CoverageError, SourceError
from geoemb_xr.readers import sources, tiles
from geoemb_xr.readers.tiles import Request, Tile
from geoemb_xr.testing import raise_if_dask_computes

UTM = "EPSG:32632"
WORLD = np.random.default_rng(0).integers(-127, 128, (3, 2, 120, 160)).astype(np.int8)  # time, band, y, x
LEFT, TOP = 600_000, 5_200_000


@dataclass(frozen=True)
class Crop:
    """Reads a crop of the world; rows as stored."""

    first: tuple[int, int]
    size: tuple[int, int]
    years: tuple[int, ...]
    flipped: bool = False

    def read(self, time, rows, cols):
        r, c = self.first
        stored = WORLD[self.years[time], :, r : r + self.size[0], c : c + self.size[1]]
        stored = stored[:, ::-1] if self.flipped else stored
        return stored[:, rows, cols]


def tile(row, col, height, width, years=(0,), flipped=False, block=(16, 16), **changes):
    affine = Affine(10, 0, LEFT + 10 * col, 0, -10, TOP - 10 * row)
    grid = geometry.make_geobox((height, width), affine, UTM)
    made = Tile(
        name=f"{row}-{col}-{years}-{flipped}",
        geobox=grid.flipy() if flipped else grid,
        times=tuple(f"{2020 + y}-01-01" for y in years),
        reader=Crop((row, col), (height, width), tuple(years), flipped),
        dtype="int8",
        bands=("0", "1"),
        block=block,
        fill=-128,
    )
    return replace(made, **changes)


def assembled(many, years=(0,), **options):
    times = [f"{2020 + y}-01-01" for y in years]
    with raise_if_dask_computes():
        return tiles.assemble(many, times, **options)


def expected(many, years, box):
    """The world where a tile lies, else fill, on the grid of ``box``."""
    out = np.full((len(years), 2, *box.shape), -128, np.int8)
    left, top = round((box.affine.c - LEFT) / 10), round((TOP - box.affine.f) / 10)
    for each in many:
        (r, c), (h, w) = each.reader.first, each.reader.size
        for i, year in enumerate(years):
            if year in each.reader.years:
                out[i, :, r - top : r - top + h, c - left : c - left + w] = WORLD[
                    year, :, r : r + h, c : c + w
                ]
    return out


L_SHAPE = [tile(0, 0, 40, 40), tile(40, 0, 40, 40), tile(40, 40, 40, 40)]
DIAGONAL = [tile(0, 0, 40, 40), tile(40, 40, 40, 40), tile(80, 80, 40, 40)]
YEARS = [tile(0, 0, 40, 40, (0, 1)), tile(0, 40, 40, 40, (1,)), tile(0, 80, 40, 40, (2,))]


@pytest.mark.parametrize("many", [L_SHAPE, DIAGONAL, YEARS], ids=["L", "diagonal", "years"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("chunks", ["auto", 16, 7, {"y": 24, "x": -1}])
def test_ragged_sets_keep_dtype_and_nodata(many, flip, chunks):
    stored = [tile(*t.reader.first, *t.reader.size, t.reader.years, flip) for t in many]
    years = sorted({y for t in many for y in t.reader.years})
    array = assembled(stored, years, chunks=chunks)
    assert array.dtype == np.int8
    box = geometry.geobox_of(array)
    np.testing.assert_array_equal(array.values, expected(many, years, box))
    assert np.all(np.diff(array.y) < 0)
    blocks = [array.data.blocks[i].compute() for i in np.ndindex(array.data.numblocks)]
    assert all(block.flags.c_contiguous and block.dtype == np.int8 for block in blocks)


@given(
    corner=st.tuples(st.integers(0, 70), st.integers(0, 110)),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    shift=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    chunks=st.sampled_from(["auto", 16, 9]),
)
def test_a_window_is_the_pixels_it_touches(corner, size, shift, chunks):
    many = [
        tile(r, c, 40, 40, (0,), flipped=(r + c) % 80 == 0) for r in (0, 40, 80) for c in (0, 40, 80, 120)
    ]
    west, north = LEFT + 10 * (corner[1] + shift[1]), TOP - 10 * (corner[0] + shift[0])
    east, south = west + 10 * size[1], north - 10 * size[0]
    area = areas.parse_bbox((west, south, east, north), UTM)
    array = assembled(many, area=area, chunks=chunks)
    rows = slice(corner[0], int(np.ceil(corner[0] + shift[0] + size[0])))
    cols = slice(corner[1], int(np.ceil(corner[1] + shift[1] + size[1])))
    np.testing.assert_array_equal(array.values, WORLD[:1, :, rows, cols])
    assert float(array.x[0]) == LEFT + 10 * cols.start + 5
    assert float(array.y[0]) == TOP - 10 * rows.start - 5


def test_blocks_end_where_the_stores_blocks_end():
    array = assembled([tile(0, 0, 120, 160, block=(16, 16))], chunks=32)
    assert array.chunksizes["y"] == (32, 32, 32, 24)
    south_up = assembled([tile(0, 0, 120, 160, flipped=True, block=(16, 16))], chunks=32)
    assert south_up.chunksizes["y"] == (24, 32, 32, 32)  # its blocks are counted from the south
    area = areas.parse_bbox((LEFT + 105, TOP - 795, LEFT + 895, TOP - 5), UTM)
    cut = assembled([tile(0, 0, 120, 160, block=(16, 16))], area=area, chunks=32)
    assert cut.chunksizes["x"] == (22, 32, 26)


def test_blocks_of_long_vectors_are_smaller():
    assert tiles.block_sides("auto", 64) == {"y": 512, "x": 512}
    assert tiles.block_sides("auto", 128) == {"y": 512, "x": 512}
    assert tiles.block_sides("auto", 768) == {"y": 256, "x": 256}
    assert tiles.block_sides(1024, 768) == {"y": 1024, "x": 1024}
    assert tiles.block_sides({"y": 100}, 768) == {"y": 100, "x": 256}
    with pytest.raises(ValueError, match="positive numbers of pixels"):
        tiles.block_sides(0)
    with pytest.raises(ValueError, match="chunks is 'auto', a side in pixels"):
        tiles.block_sides("512")


def test_overlaps_fall_midway_whatever_is_read():
    """Two tiles with values of their own: the seam is where their centres are equally far."""

    @dataclass(frozen=True)
    class Constant:
        value: int

        def read(self, time, rows, cols):
            return np.full((2, rows.stop - rows.start, cols.stop - cols.start), self.value, np.int8)

    many = [tile(0, 0, 40, 40, reader=Constant(1)), tile(0, 20, 40, 40, reader=Constant(2))]
    whole = assembled(many).values[0, 0]
    np.testing.assert_array_equal(whole[:, :30], 1)
    np.testing.assert_array_equal(whole[:, 30:], 2)
    np.testing.assert_array_equal(assembled(many, chunks=7).values[0, 0], whole)
    np.testing.assert_array_equal(assembled(many[::-1], chunks=7).values[0, 0], whole)


def test_planes_beside_are_cut_alike():
    plane = Tile(
        "plane", tile(0, 0, 40, 40).geobox, ("2020-01-01",), _Plane(), "float32", (), (16, 16), float("nan")
    )
    many = [
        tile(0, 0, 40, 40, beside={"scale": plane}),
        tile(40, 40, 40, 40, beside={"scale": _moved(plane)}),
    ]
    array = assembled(many, chunks=16)
    scale = array.coords["scale"]
    assert scale.dims == ("time", "y", "x")
    assert scale.chunksizes["x"] == array.chunksizes["x"]
    np.testing.assert_array_equal(np.isnan(scale.values[0]), array.values[0, 0] == -128)
    again = pickle.loads(pickle.dumps(many[0]))
    assert (again.name, again.reader) == (many[0].name, many[0].reader)
    assert again.beside["scale"].reader == _Plane()


@dataclass(frozen=True)
class _Plane:
    def read(self, time, rows, cols):
        return np.ones((rows.stop - rows.start, cols.stop - cols.start), np.float32)


def _moved(plane):
    return replace(plane, geobox=tile(40, 40, 40, 40).geobox)


def test_lattices():
    here, elsewhere = tile(0, 0, 40, 40), tile(0, 40, 40, 40)
    shifted = geometry.make_geobox((40, 40), Affine(10, 0, LEFT + 4, 0, -10, TOP), UTM)
    coarse = geometry.make_geobox((40, 40), Affine(20, 0, LEFT, 0, -20, TOP), UTM)
    north = geometry.make_geobox((40, 40), here.geobox.affine, "EPSG:32633")
    many = [here, elsewhere, *(replace(here, geobox=box) for box in (shifted, coarse, north))]
    assert [len(group) for group in tiles.by_lattice(many)] == [2, 1, 1, 1]
    rounded = geometry.make_geobox((40, 40), Affine(10, 0, LEFT + 1e-4, 0, 10, TOP - 400 - 1e-4), UTM)
    assert len(tiles.by_lattice([here, replace(here, geobox=rounded)])) == 1
    turned = geometry.make_geobox((4, 4), Affine.rotation(30) * Affine.scale(10, -10), UTM)
    with pytest.raises(SourceError, match="rotated raster; warp it"):
        tiles.by_lattice([replace(here, geobox=turned)])


def test_a_read_that_fails_raises_and_names_the_file():
    class Broken:
        def read(self, time, rows, cols):
            raise OSError("connection reset")

    class Short:
        def read(self, time, rows, cols):
            return np.zeros((2, 1, 1), np.int8)

    with pytest.raises(
        SourceError, match=r"bad\.tif could not be read \(rows 0-40, columns 0-40\): connection reset"
    ):
        assembled([tile(0, 0, 40, 40, reader=Broken(), name="bad.tif")]).compute()
    with pytest.raises(
        SourceError, match=r"short\.tif gave a window of shape \(2, 1, 1\) instead of \(2, 40, 40\)"
    ):
        assembled([tile(0, 0, 40, 40, reader=Short(), name="short.tif")]).compute()


def test_across_the_antimeridian():
    box = geometry.make_geobox((18, 36), Affine(10, 0, -180, 0, -10, 90), "EPSG:4326")

    @dataclass(frozen=True)
    class Columns:
        def read(self, time, rows, cols):
            return np.broadcast_to(
                np.arange(cols.start, cols.stop, dtype=np.int8),
                (2, rows.stop - rows.start, cols.stop - cols.start),
            )

    globe = tile(0, 0, 18, 36, geobox=box, reader=Columns())
    area = areas.parse_bbox((161, -9, -161, 9))
    near = tiles.overlapping([globe], area)
    assert len(near) == 2
    array = assembled(near, area=area)
    np.testing.assert_array_equal(array.values[0, 0, 0], [34, 35, 0, 1])
    np.testing.assert_array_equal(array.x, [165, 175, 185, 195])


def test_a_table_of_tiles():
    table = tiles.table_of([*YEARS, tile(80, 0, 40, 40, (2,))])
    assert list(table.year) == [2020, 2021, 2021, 2022, 2022]
    assert set(table.crs) == {UTM}
    assert (table.west < table.east).all()
    assert list(tiles.table_of(YEARS, 2021).year) == [2021, 2021]
    with pytest.raises(CoverageError, match="2030"):
        tiles.table_of(YEARS, 2030)


def test_graph_names_change_with_the_file():
    same = assembled([tile(0, 0, 40, 40)]).data.name
    assert assembled([tile(0, 0, 40, 40)]).data.name == same
    assert assembled([tile(0, 0, 40, 40, token="rewritten")]).data.name != same
    assert assembled([tile(0, 0, 40, 40)], chunks=16).data.name != same


# --- scale --------------------------------------------------------------------------------------------------


def published(side, count, years, zones):
    """Tiles as the index of the published AlphaEarth store describes them."""
    bands = gx.product("alphaearth").bands
    return [
        Tile(
            name=f"s3://b/{year}/{zone}N/{i}.tiff",
            geobox=geometry.make_geobox(
                (side, side),
                Affine(10, 0, 100_000 + i % 8 * side * 10, 0, 10, 4_000_000 + i // 8 * side * 10),
                f"EPSG:{32600 + zone}",
            ),
            times=(f"{year}-01-01",),
            reader=Crop((i, year), (side, side), (0,)),
            dtype="int8",
            bands=bands,
            block=(1024, 1024),
            fill=-128,
        )
        for zone in zones
        for year in years
        for i in range(count)
    ]


def test_500_tiles_in_3_zones_and_3_years():
    many = published(8192, 56, (2022, 2023, 2024), (31, 32, 33))
    with raise_if_dask_computes():
        grids = sources.grids_of(gx.product("alphaearth"), many, Request())
        decoded = [arrays.decode(each) for each in grids]
    assert [each.shape for each in decoded] == [(3, 64, 7 * 8192, 8 * 8192)] * 3
    assert len(pickle.dumps([each.data for each in decoded])) < 1e6


@pytest.mark.slow
@pytest.mark.parametrize("tiles_of_a_zone", [16, pytest.param(392, marks=pytest.mark.complete)])
def test_many_blocks_are_a_small_graph(tiles_of_a_zone):
    """Of 4,096 blocks, and of the 100,000 that the design asks for."""
    many = published(8192, tiles_of_a_zone, (2024,), (32,))
    (grid,) = sources.grids_of(gx.product("alphaearth"), many, Request())
    decoded = arrays.decode(grid)
    assert decoded.data.npartitions == 256 * tiles_of_a_zone
    (optimised,) = dask.optimize(decoded.data)
    assert len(pickle.dumps(optimised)) < 200 * decoded.data.npartitions


def test_a_window_of_many_tiles_reads_few(tmp_path):
    many = published(8192, 392, (2024,), (32,))
    area = areas.parse_bbox((400_000, 4_500_000, 410_000, 4_510_000), UTM)
    near = tiles.overlapping(many, area)
    assert len(near) == 1
    (grid,) = sources.grids_of(gx.product("alphaearth"), many, Request(area=area))
    assert grid.shape == (1, 64, 1000, 1000)
    assert len(grid.__dask_graph__()) < 20


# --- single pixels ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PixelCrop(Crop):
    """Reads single pixels, too; ``asked`` keeps how many of them and how many windows."""

    asked: tuple[list[int], list[tuple[slice, slice]]] = ((), ())

    def read(self, time, rows, cols):
        self.asked[1].append((rows, cols))
        return super().read(time, rows, cols)

    def read_at(self, time, rows, cols):
        self.asked[0].append(rows.size)
        return super().read(time, slice(None), slice(None))[:, rows, cols]


def by_pixels(made, asked):
    crop = made.reader
    return replace(made, reader=PixelCrop(crop.first, crop.size, crop.years, crop.flipped, asked))


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 80), st.booleans(), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 1000),
)
def test_pixels_are_those_of_the_windows_around_them(corners, seed):
    asked = ([], [])
    many = [tile(r, c, 40, 50, flipped=flipped) for r, c, flipped, _ in corners]
    whole = assembled(many).isel(time=0).values
    many = [by_pixels(made, asked) if own else made for made, (*_, own) in zip(many, corners, strict=True)]
    found = tiles.assembly(many, ["2020-01-01"])
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(0, whole.shape[1], 30), rng.integers(0, whole.shape[2], 30)
    with raise_if_dask_computes():
        lazy = found.at(rows, cols)
    assert lazy.dtype == np.int8
    np.testing.assert_array_equal(lazy.isel(time=0).values, whole[:, rows, cols])


def test_few_pixels_are_read_alone_and_many_by_windows():
    asked = ([], [])
    found = tiles.assembly([by_pixels(tile(0, 0, 120, 160, flipped=True), asked)], ["2020-01-01"])
    rows, cols = np.array([3, 110, 3]), np.array([7, 150, 7])
    np.testing.assert_array_equal(found.at(rows, cols).values[0], WORLD[0][:, rows, cols])
    assert asked == ([3], [])
    rows, cols = (each.ravel() for each in np.mgrid[0:40, 0:40])
    np.testing.assert_array_equal(found.at(rows, cols).values[0], WORLD[0][:, rows, cols])
    assert len(asked[0]) == 1
    assert asked[1] == [(slice(80, 120), slice(0, 40))]
    shuffled = pickle.loads(pickle.dumps(found.at(rows[::-1], cols[::-1])))
    np.testing.assert_array_equal(shuffled.values[0], WORLD[0][:, rows[::-1], cols[::-1]])
