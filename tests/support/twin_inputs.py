"""Arrays of all kinds for compiled loops and their twins: codes, vectors, years, windows, cells and polygons."""

import numpy as np
import shapely
from affine import Affine

from geoemb_xr.analysis import code_kernels
from geoemb_xr.geo.covering import Outlines


def rng():
    return np.random.default_rng(3)


def codes(*shape):
    """int8 codes with a few missing vectors, and one of zeros, bands first but for one dimension before."""
    made = rng().integers(-127, 128, shape, np.int8)
    made[..., :3, 5] = -128
    made[..., :, 9] = 0
    return made


def scales(*shape):
    """Scales of vectors; those of missing ones are NaN, infinite or 0."""
    return np.where(
        rng().random(shape) < 0.2, rng().choice([np.nan, np.inf, 0], shape), rng().random(shape)
    ).astype("f4")


def vectors(n, bands, *, missing=False):
    made = rng().normal(size=(n, bands)).astype(np.float32)
    made[4] = 0
    if missing:
        made[7, 2] = np.nan
    return made


def planes():
    """Vectors as blocks have them, band-first: some of zeros, some with NaN or infinities."""
    made = rng().normal(size=(2, 12, 30)).astype(np.float32)
    made[0, :, 3], made[1, 4, 5], made[1, 2, 7] = 0, np.nan, -np.inf
    return made


WEIGHTS = np.array([0.5, 1, 2, 0.1])
PAIRS = np.array([[0, 1], [1, 2], [3, 0]])


def side_by_side(kind):
    """Four years of 128 pixels, some of them missing, one in all years, as a piece holds them."""
    values, scale = codes(12, 4, 128), np.ones((4, 128), np.float32)
    if kind == "vectors":
        values = rng().normal(size=values.shape).astype(np.float32)
    if kind == "scaled":
        scale = rng().random(scale.shape).astype(np.float32)
        scale[1] = -scale[1]
    if kind == "squares":
        scale *= FACTOR
    values[:, 1, 11] = 0
    there = (rng().random(scale.shape) > np.linspace(0, 0.9, 128)) & (values != -128).all(axis=0)
    there[:, 7], there[:, 8] = False, True
    return values * there, kind == "squares", scale * there, there


def years_apart(count):
    """Codes of years, each where it lies."""
    made = [rng().permutation(np.where(codes(12, 400) == -128, 1, codes(12, 400)), 1) for _ in range(count)]
    return [np.ascontiguousarray(each) for each in made]  # as blocks lie


def lying():
    """Codes of four years where they lie, from the third pixel on: a year is missing, or all, or one band."""
    planes = [rng().permutation(codes(12, 50), 1) for _ in range(4)]
    planes = [np.ascontiguousarray(np.roll(each, 3 * t, axis=1)) for t, each in enumerate(planes)]
    for t, each in enumerate(planes):
        each[:, 20], each[t, 21 + t], each[:, 30:40:2] = -128, -128, -128 if t % 2 else 100
    return code_kernels.together(planes, 3, -128)


def without_square(values, _, scale, there):
    return values, scale, there


def result():
    """Where 30 pixels of a piece are written."""
    return empty(12, 100), 5, 30


def at():
    """Where pixels of a target lie in a window, some outside."""
    return rng().integers(-5000, 60_000, (2, 13, 17)).astype(np.int64)


def beside():
    """Where pixels of a target lie that has the window's own pixels, but for one column."""
    made = np.mgrid[-3:10, -3:14].astype(np.int64) * 4096 + 2048
    made[1, :, 9:] += 4096
    return made


def empty(*shape, dtype=np.float32):
    return np.full(shape, 7, dtype)


def corners():
    made = rng().normal(size=(3, 2, 2, 2)) * 50
    made[1, 0, 1, 0] = np.nan
    return made


NOWHERE = -(2**62)
FACTOR = np.float32(1 / 127.5**2)


def window(dtype=np.int8):
    """Vectors of a window (row, column, band), and the factor of each, 0 where it is missing."""
    factors = np.where(rng().random((14, 11)) < 0.2, 0, rng().random((14, 11))).astype(np.float32)
    if dtype == np.int8:
        return rng().integers(-127, 128, (14, 11, 6), np.int8), factors * FACTOR, 2
    return (
        np.where(factors[..., None] == 0, np.nan, rng().normal(size=(14, 11, 6))).astype(dtype),
        factors.astype(dtype),
        None,
    )


def decoded(dtype):
    """Room for few decoded pixels; of floats all of the window's."""
    return empty(8, 6) if dtype == np.int8 else window(dtype)[0].reshape(-1, 6)


def cells(dtype=np.int8, size=3, unit=True):
    """Band-first pixels of cells, the last of which are not whole, one without any valid pixel."""
    values, factors, power = window(dtype)
    factors[3:6, 3:6] = 0
    out = empty(6, -(-14 // size), -(-11 // size))
    return np.ascontiguousarray(values.transpose(2, 0, 1)), factors, power, size, unit, out


def turned(size):
    """Corners of target pixels of a turned grid, ``size`` source pixels wide: some outside, some nowhere."""
    i, j = np.mgrid[:9, :10] * size * 4096
    made = np.rint([i * 0.97 + j * 0.23 - 5000, j * 0.97 - i * 0.23 + 3000]).astype(np.int64)
    made[:, 2, 3] = NOWHERE
    return made


def squares():
    """Corners of target pixels that lie in twos along the edges of source pixels."""
    return np.ascontiguousarray(np.mgrid[-2:16:2, -4:14:2]) * 4096


def outlined(touched):
    """Two polygons on 8 × 10 pixels, a slanted one with a hole and a square; and room for what they cover."""
    outer = [(-2.5, 1.2), (3, -1), (11.7, 4), (8, 9.25), (8, 5), (1, 12.5)]
    shapes = np.array([shapely.Polygon(outer, [[(3, 3), (5, 3.5), (4, 5)]]), shapely.box(2, 3, 5, 6.5)])
    found = Outlines.of(shapes, Affine.identity(), (8, 10))
    windows = np.array([[0, 0, 8, 0, 10], [1, 3, 7, 2, 5], [1, 3, 7, 5, 7]])
    return (
        found.edges,
        found.first,
        windows,
        touched,
        empty(99, 3, dtype=np.int64),
        empty(99, dtype=np.float64),
        np.zeros((4, 2), np.int64),
    )


def parts():
    """Weights of 30 pixels in three parts, one of them empty, and their rows of sums."""
    return rng().random(30), np.array([0, 12, 12, 30]), np.array([3, 0, 1])


def windowed():
    """Windows beside, below and over others; runs of pixels, most of which count whole; and their rows."""
    windows = np.array(
        [[0, 3, 0, 4], [1, 4, 4, 6], [1, 2, 7, 10], [2, 4, 5, 10], [4, 8, 0, 10], [5, 6, 5, 10]]
    )
    runs = [
        [0, 1, 3],
        [1, 0, 2],
        [2, 2, 2],
        [1, 4, 2],
        [3, 5, 1],
        [1, 7, 3],
        [2, 5, 5],
        [3, 9, 1],
        [4, 0, 10],
    ]
    runs = np.array([*runs, [5, 8, 2], [7, 0, 1], [5, 5, 5]])
    ends = np.append(0, np.cumsum(runs[:, 2])[[2, 4, 5, 7, 10, 11]])
    weights = rng().choice([0.0, 0.3, 1.0, 1.0], ends[-1])
    return windows, runs, ends, weights, np.array([3, 0, 1, 3, 0, 2])


RUNS = np.array([[3, 5, 1], [1, 0, 6], [3, 3, 3]])


QUERY = np.random.default_rng(0).normal(size=12).astype(np.float32)
