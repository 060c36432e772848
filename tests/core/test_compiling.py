"""When loops are compiled: not for the first pixels of a process, where a twin of the same bits is there."""

import importlib

import numpy as np
import pytest

from geoemb_xr.core import compiling, kernels


@pytest.fixture
def sparing(monkeypatch):
    """Makes kernels that say what ran: in a process that has done nothing, where each twin takes 0.25 s."""
    ticks = iter(np.arange(0, 100, 0.25))
    monkeypatch.setattr(compiling, "_seconds_of_thread", lambda: next(ticks))
    monkeypatch.setattr(compiling, "SPARED", 0.7)
    monkeypatch.setattr(compiling, "_compile", lambda function, fastmath: lambda values: "compiled")
    monkeypatch.setattr(kernels.Kernel, "spent_by_all", 0.0)
    monkeypatch.setattr(kernels.Kernel, "is_started", False)

    def made(is_new=False, exact=True):
        kernel = kernels.jit(lambda values: None)
        kernel.is_new = is_new
        (kernel.in_numpy_bitwise if exact else kernel.in_numpy)(lambda values: "twin")
        return kernel

    return made


FEW = np.zeros(4)


def test_the_first_pixels_of_a_process_go_through_a_twin_of_the_same_bits(sparing):
    one, other, sums = sparing(), sparing(), sparing(exact=False)
    assert [one(FEW), other(FEW), one(FEW), one(FEW)] == ["twin", "twin", "twin", "compiled"]
    assert sums(FEW) == "compiled"  # a sum may have other bits
    assert other(FEW) == "compiled"


def test_a_kernel_is_loaded_at_once_where_numba_has_started(sparing):
    sums, known, new = sparing(exact=False), sparing(), sparing(is_new=True)
    assert (known(FEW), sums(FEW)) == ("twin", "compiled")
    assert known(FEW) == "compiled"
    assert [new(FEW) for _ in range(10)] == 9 * ["twin"] + ["compiled"]  # to compile it takes longer


def test_a_large_call_is_not_left_to_a_twin(sparing, monkeypatch):
    monkeypatch.setattr(compiling, "MOST", FEW.nbytes - 1)
    assert sparing(is_new=True)(FEW) == "compiled"


def test_what_numba_keeps_beside_the_source_is_not_new(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(pytest.importorskip("numba").config, "CACHE_DIR", "")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loops_of_a_test.py").write_text("def one_more(number):\n    return number + 1\n")
    function = importlib.import_module("loops_of_a_test").one_more
    kernel = kernels.jit(function)
    assert kernel.is_new
    assert kernel.compiled(1) == 2
    assert not kernels.jit(function).is_new
