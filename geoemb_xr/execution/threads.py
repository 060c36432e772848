"""Threads: ours, where they can be started; and those of BLAS and OpenMP, held to one while others are at work."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import Any

#: Reads that go side by side.
_READS = 16
_lock = threading.Lock()
_inside = 0
#: What restores the numbers of threads that were found, in the order in which they were changed.
_limits: list[Any] = []
_libraries: tuple[Any, Any] = (None, None)
_modules = 0


def side_by_side[In, Out](function: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """Results in order, in threads: reading headers is waiting, not work (504 COGs: 4.5 s, then 1.3 s).

    Examples
    --------
    >>> side_by_side(len, ["one", "four"])
    [3, 4]
    """
    if len(items) < 2:
        return [function(item) for item in items]
    with pool(min(_READS, len(items))) as workers:
        tasks = [workers.submit(copy_context().run, function, item) for item in items]  # storage= goes along
        return [task.result() for task in tasks]


def pool(size: int | None) -> Executor:
    """So many threads; the calling one alone where none can be started, as in a browser."""
    return ThreadPoolExecutor(size) if _can_start() else _AtOnce()


@cache
def _can_start() -> bool:
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True


def _after_fork() -> None:
    global _is_forked
    _is_forked = True


_is_forked = False
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def threads_of_gdal(wanted: int | str) -> int | str:
    """So many threads for GDAL, but one in a forked process: GDAL would wait there for threads of its parent."""
    return 1 if _is_forked else wanted


class _AtOnce(Executor):
    """Does what is submitted before it returns."""

    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # raised by ``result()``, as by a thread's
            future.set_exception(error)
        return future


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread inside; calls may overlap in several threads.

    The limit belongs to the process: the first to come sets it, and the last to go lifts it. Were each to restore
    what it found, one that came second would leave the limit of the first behind.

    Examples
    --------
    >>> import numpy as np
    >>> with one_blas_thread():
    ...     np.ones((2, 2)) @ np.ones((2, 2))
    array([[2., 2.],
           [2., 2.]])
    """
    global _inside
    with _lock:
        shared, _, are_new = _found()
        if _inside == 0 or are_new:
            _take_over(shared)
            _limits.append(shared.limit(limits=1))
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            while _inside == 0 and _limits:
                _take_over(_libraries[0])
                _limits.pop().restore_original_limits()
                _take_over(_libraries[0])


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS to one thread as :func:`one_blas_thread` does, and the OpenMP of the calling thread.

    OpenMP keeps a number for each thread that calls it, and so does a BLAS that is built upon it: each thread holds
    its own.
    """
    with one_blas_thread():
        with _lock:
            _, own, _ = _found()
        with own.limit(limits=1):
            yield


def _found() -> tuple[Any, Any, bool]:
    """Libraries whose number of threads is the process's, those whose it is a thread's, and whether any may be new.

    To look takes 16 ms. A library comes with an import, so they are looked for again only after one.
    """
    global _libraries, _modules
    from threadpoolctl import ThreadpoolController

    are_new = _modules != len(sys.modules)
    if are_new:
        every = ThreadpoolController()
        files: dict[bool, list[str]] = {True: [], False: []}
        for each in every.info():
            is_shared = each["user_api"] == "blas" and each.get("threading_layer") != "openmp"
            files[is_shared].append(each["filepath"])
        _libraries = every.select(filepath=files[True]), every.select(filepath=files[False])
        _modules = len(sys.modules)
    return *_libraries, are_new


def _take_over(libraries: Any) -> None:
    """Let this thread set the limit: threadpoolctl heeds only the first that does, until that thread ends."""
    for each in libraries.lib_controllers:
        if hasattr(each, "clear_controlling_thread"):  # from threadpoolctl 3.8
            each.clear_controlling_thread(force=True)
