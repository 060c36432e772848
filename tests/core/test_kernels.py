"""Compiled loops against NumPy, for any shape, type and order of memory."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geoemb_xr.core import kernels
from geoemb_xr.geo import placing_kernels, resampling_kernels

blocks = hnp.arrays(
    st.sampled_from([np.int8, np.uint16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=70),
    elements=st.integers(0, 100),
    fill=st.integers(0, 100),
)


@given(block=blocks, data=st.data())
def test_band_last_is_a_transpose_of_any_block(block, data):
    axis = data.draw(st.integers(-block.ndim, block.ndim - 1))
    cut = tuple(
        slice(data.draw(st.integers(0, n - 1)), None, data.draw(st.sampled_from([1, -1, 2])))
        for n in block.shape
    )
    view = data.draw(st.sampled_from([block, block[cut], block.T]))
    got = kernels.band_last(view, axis)
    np.testing.assert_array_equal(got, np.moveaxis(view, axis, -1))
    assert got.flags.c_contiguous
    back = kernels.band_first(got, axis)
    np.testing.assert_array_equal(back, view)
    assert back.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize("shape", [(64, 40, 33), (2, 64, 8, 16), (128, 1, 200), (3, 5, 7)])
def test_a_block_is_written_into_a_window(dtype, shape):
    axis = len(shape) - 3
    block = np.random.default_rng(0).integers(-100, 100, shape).astype(dtype)
    expected = np.moveaxis(block, axis, -1)
    room = np.zeros(
        (*expected.shape[:-3], expected.shape[-3] + 4, expected.shape[-2] + 5, expected.shape[-1]), dtype
    )
    kernels.copy_band_last(block, axis, room[..., 2:-2, 3:-2, :])
    np.testing.assert_array_equal(room[..., 2:-2, 3:-2, :], expected)
    room[..., 2:-2, 3:-2, :] = 0
    assert not room.any()


def test_types_of_one_size_share_a_compiled_loop():
    pytest.importorskip("numba")
    for dtype in ("int32", "float32"):
        block = np.random.default_rng(0).integers(-9, 9, (3, 5, 4)).astype(dtype)
        np.testing.assert_array_equal(kernels.band_last(block, 0), block.transpose(1, 2, 0))
    compiled = {str(source.dtype) for source, _ in kernels._transpose_values.compiled.signatures}
    assert "uint32" in compiled
    assert not compiled & {"int32", "float32"}


def test_what_lies_band_last_is_not_copied():
    block = np.moveaxis(np.zeros((5, 6, 64), np.int8), -1, 0)
    assert np.shares_memory(kernels.band_last(block, 0), block)


def test_kernels_travel_by_name():
    assert pickle.loads(pickle.dumps(placing_kernels.gather)) is placing_kernels.gather


def test_a_kernel_is_compiled_where_no_cache_can_be_written():
    numba = pytest.importorskip("numba")
    typed = {"__name__": "typed"}
    exec("def one_more(number): return number + 1", typed)
    # numba finds no place for a function without a file, as where nothing can be written
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(typed["one_more"])
    assert kernels.jit(typed["one_more"]).compiled(1) == 2


def test_exact_edges_and_outside_of_a_gather():
    window = np.arange(12, dtype=np.uint64).reshape(3, 4, 1)
    at = np.array([[[0, 4095, 4096, 12287, 12288, -1]], [[0, 0, 4096, 16383, 0, 0]]], np.int64)
    out = np.zeros((1, 6, 1), np.uint64)
    placing_kernels.gather(window, at, np.array([99], np.uint64), out)
    assert out.ravel().tolist() == [0, 0, 5, 11, 99, 99]


def test_bilinear_leaves_missing_neighbours_out():
    pytest.importorskip("numba")
    window = np.array([[[1.0], [3.0]], [[5.0], [np.nan]]], np.float32)
    middle = np.array([[[4095]], [[4095]]], np.int64)  # nearest is the first, a hair from the middle of four
    out = np.zeros((1, 1, 1), np.float32)
    factors = (~np.isnan(window[..., 0])).astype(np.float32)
    resampling_kernels.bilinear(window, factors, None, window.reshape(4, 1), middle, False, False, out)
    assert abs(out[0, 0, 0] - 3.0) < 2e-3
    missing = np.array([[[4096]], [[4096]]], np.int64)  # nearest is the missing one
    resampling_kernels.bilinear(window, factors, None, window.reshape(4, 1), missing, False, False, out)
    assert np.isnan(out[0, 0, 0])


@given(
    corners=hnp.arrays(np.int64, (2, 2, 2), elements=st.integers(-3 * 4096, 9 * 4096)),
)
def test_the_area_of_a_footprint_is_shared_out_exactly(corners):
    """Weights of a plane of ones and of its coordinates are the polygon's area and first moments, by shapely."""
    pytest.importorskip("numba")
    import shapely

    ring = corners.reshape(2, 4)[:, [0, 1, 3, 2]].T / 4096
    polygon = shapely.Polygon(ring[:, ::-1])
    if not polygon.is_valid:
        return
    window = np.ones((6, 6, 2), np.float32)
    window[..., 1] = np.arange(6)[None, :] + 1
    sums = np.zeros((1, 1, 4))
    resampling_kernels.add_footprints(window, np.ones((6, 6), np.float32), None, corners, sums)
    cells = shapely.box(
        *np.meshgrid(np.arange(6), np.arange(6)), *np.meshgrid(np.arange(1, 7), np.arange(1, 7))
    )
    weights = shapely.area(shapely.intersection(polygon, cells))
    assert abs(sums[0, 0, 2] - weights.sum()) < 1e-5
    assert abs(sums[0, 0, 1] - (weights * (np.arange(6) + 1)).sum()) < 1e-4
