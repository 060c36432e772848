"""Moving points by PROJ: in one thread for all, until a thread has enough of them."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyproj
import pytest

import geoemb_xr as gx
from geoemb_xr.core import geometry, projecting

ENDS = pyproj.CRS(32632), pyproj.CRS(3035)


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    return rng.uniform(4e5, 6e5, 50), rng.uniform(5e6, 5.2e6, 50)


@pytest.fixture
def asked(monkeypatch):
    """A transformer that notes which thread asks PROJ."""
    names = []
    made = projecting.Transformer._transformer
    monkeypatch.setattr(
        projecting.Transformer,
        "_transformer",
        lambda self: names.append(threading.current_thread().name) or made(self),
    )
    return projecting.Transformer(*ENDS), names


def test_threads_share_a_transformer_until_they_have_moved_many_points(asked, points, monkeypatch):
    monkeypatch.setattr(projecting, "LENT", 120)
    transformer, names = asked
    expected = pyproj.Transformer.from_crs(*ENDS, always_xy=True).transform(*points)

    def often():
        found = [transformer.transform(*points) for _ in range(3)]
        assert all(np.array_equal(each, expected) for each in found)
        return threading.current_thread().name

    with ThreadPoolExecutor(1, "mine") as pool:
        mine = pool.submit(often).result()
    with ThreadPoolExecutor(1, "yours") as pool:
        yours = pool.submit(often).result()
    assert names[2] == mine
    assert names[5] == yours
    assert all(name.startswith("geoemb-proj") for name in names[:2] + names[3:5])


def test_boxes_move_as_by_pyproj(asked):
    box = (4e5, 5e6, 6e5, 5.2e6)
    theirs = pyproj.Transformer.from_crs(*ENDS, always_xy=True)
    transformer, names = asked
    for densify in (2, 50):
        assert transformer.transform_bounds(*box, densify_pts=densify) == theirs.transform_bounds(
            *box, densify_pts=densify
        )
    assert len(names) == 2


def test_what_is_nowhere_is_infinite_or_an_error():
    transformer = geometry.transformer(pyproj.CRS(4326), pyproj.CRS(3857))
    assert not np.isfinite(transformer.transform(0.0, 95.0)).any()
    with pytest.raises(pyproj.exceptions.ProjError):
        transformer.transform(0.0, 95.0, errcheck=True)


def test_it_goes_without_threads(asked, points, monkeypatch):
    class Nowhere:
        def submit(self, what):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(projecting, "_lender", Nowhere())
    transformer, names = asked
    assert np.isfinite(transformer.transform(*points)).all()
    assert names == [threading.current_thread().name]


def _moved(points):
    return geometry.transformer(*ENDS).transform(*points)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_forked_has_a_thread_of_its_own(points):
    here = _moved(points)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply_async(_moved, (points,)).get(timeout=60)
    assert np.array_equal(here, there)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_forked_while_a_thread_looks_for_a_way_does_not_wait_for_it(points, monkeypatch):
    looking, go_on = threading.Event(), threading.Event()
    from_crs = pyproj.Transformer.from_crs

    def slowly(*args, **options):
        looking.set()
        go_on.wait(60)
        return from_crs(*args, **options)

    transformer = projecting.Transformer(*ENDS)
    thread = threading.Thread(target=transformer.transform, args=points)
    with monkeypatch.context() as patch:
        patch.setattr(pyproj.Transformer, "from_crs", slowly)
        thread.start()
        looking.wait(60)
    child = multiprocessing.get_context("fork").Process(target=transformer.transform, args=points)
    child.start()
    child.join(20)
    alive = child.is_alive()
    child.kill()
    go_on.set()
    thread.join()
    assert not alive
    assert child.exitcode == 0


def test_a_way_goes_back_as_another_one_would(asked, points):
    there, _ = asked
    other = pyproj.Transformer.from_crs(*ENDS[::-1], always_xy=True)
    moved = there.transform(*points)
    np.testing.assert_allclose(there.transform(*moved, back=True), other.transform(*moved), atol=1e-6)
    box = (4.4e6, 2.6e6, 4.5e6, 2.7e6)
    np.testing.assert_allclose(
        there.transform_bounds(*box, back=True), other.transform_bounds(*box), atol=1e-6
    )


def test_a_warp_to_a_crs_finds_one_way_alone(monkeypatch):
    array = gx.testing.synthetic("alphaearth", shape=(16, 16)).isel(time=0)
    made, from_crs = [], pyproj.Transformer.from_crs

    def noted(*ends, **options):
        made.append(ends)
        return from_crs(*ends, **options)

    monkeypatch.setattr(pyproj.Transformer, "from_crs", noted)
    gx.reproject(array, "EPSG:31468", resolution=10).compute()
    assert len(made) == 1
