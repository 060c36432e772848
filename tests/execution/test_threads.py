"""BLAS is held to one thread while blocks are worked, and as it was after them, whatever overlaps."""

import ast
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.execution import threads


def blas_threads():
    """Of libraries whose number of threads is the process's: one that is built upon OpenMP has one per thread."""
    return {
        each["num_threads"]
        for each in threadpool_info()
        if each["user_api"] == "blas" and each.get("threading_layer") != "openmp"
    }


@pytest.fixture
def two_threads():
    """A limit that one thread is told from, also on a machine with one processor."""
    with threadpool_limits(2):
        assert blas_threads() == {2}
        yield


def test_the_first_sets_the_limit_and_the_last_lifts_it(two_threads):
    seen, entered, leave = [], threading.Event(), threading.Event()

    def other():
        with threads.one_blas_thread():
            entered.set()
            leave.wait(5)

    worker = threading.Thread(target=other)
    worker.start()
    assert entered.wait(5)
    with threads.one_blas_thread():
        seen.append(blas_threads())
    seen.append(blas_threads())  # the other still holds it
    leave.set()
    worker.join()
    assert seen == [{1}, {1}]
    assert blas_threads() == {2}


def test_the_limit_is_lifted_after_an_error(two_threads):
    with pytest.raises(ZeroDivisionError), threads.one_thread():
        1 / 0  # noqa: B018 - raises
    assert blas_threads() == {2}


def test_openmp_is_held_in_the_thread_that_works_and_restored_there():
    import sklearn.cluster  # noqa: F401 - brings a library of OpenMP

    def counts():
        found = ThreadpoolController().select(user_api="openmp").info()
        return {each["num_threads"] for each in found}

    def work(meet):
        with threadpool_limits(2):
            with threads.one_thread():
                meet.wait(5)
                inside = counts()
                meet.wait(5)
            return inside, counts()

    meet = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, [meet, meet]))
    assert found == [({1}, {2})] * 2


def test_a_library_that_comes_later_is_held_too():
    code = """
from threadpoolctl import threadpool_info, threadpool_limits
from geoemb_xr.execution import threads

def blas():
    return {e["filepath"]: e["num_threads"] for e in threadpool_info() if e["user_api"] == "blas"}

import numpy
threadpool_limits(2)
at_first = blas()
with threads.one_blas_thread():
    import scipy.linalg.blas
    later = {path: n for path, n in blas().items() if path not in at_first}
    with threads.one_blas_thread():
        inside = blas()
print(len(later), set(inside.values()), blas() == {**at_first, **later})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 {1} True\n"


def test_fits_in_several_threads_leave_threads_and_warnings_as_they_were(two_threads):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype("f4"), np.arange(60) % 2
    filters = list(warnings.filters)

    def fit(i):
        try:
            gx.fit_probe(x, y, cv=0, max_iter=2 if i % 3 == 0 else 100, C=1.0)
        except EmbeddingError as error:
            return "did not converge in max_iter=2" in str(error)
        return i % 3 > 0

    with warnings.catch_warnings(record=True), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("always")
        own = list(warnings.filters)
        assert all(pool.map(fit, range(60)))
        assert warnings.filters == own
    assert warnings.filters == filters
    assert blas_threads() == {2}


STATE = {"catch_warnings", "simplefilter", "filterwarnings", "threadpool_limits", "seterr", "set_num_threads"}


def test_no_module_sets_what_belongs_to_the_process():
    wrong = []
    for path in sorted(Path(gx.__file__).parent.rglob("*.py")):
        if not any(name in (text := path.read_text()) for name in STATE):  # to parse them all takes a second
            continue
        for node in ast.walk(ast.parse(text)):
            name = getattr(node, "attr", None) or getattr(node, "id", None)
            if name in STATE:
                wrong.append(f"{path}:{node.lineno} sets {name} for the whole process: use execution.threads")
    assert not wrong, "\n".join(wrong)


def test_where_no_thread_can_be_started_the_caller_does_the_work(monkeypatch):
    def cannot(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", cannot)
    threads._can_start.cache_clear()
    try:
        assert threads.side_by_side(lambda i: (i, threading.get_ident()), [1, 2]) == [
            (1, threading.get_ident()),
            (2, threading.get_ident()),
        ]
        with pytest.raises(ZeroDivisionError):
            threads.side_by_side(lambda i: 1 // i, [1, 0])
    finally:
        threads._can_start.cache_clear()
    monkeypatch.undo()
    assert threading.get_ident() not in threads.side_by_side(lambda i: threading.get_ident(), [1, 2])
