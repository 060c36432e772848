"""How loops are compiled: by numba when they are first called for more than a few pixels, or not at all.

Every kernel goes through :func:`jit`: without the GIL, serial (the threads are dask's), cached on disk where that
can be written. Where there is no numba (a browser, 32-bit ARM), its twin in NumPy runs under the same name, slower;
``docs/small-machines.md`` says by how much.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from collections.abc import Callable
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import Any, cast

import numpy as np

from geoemb_xr.core.errors import MissingExtraError

#: ``True`` would add "nnan" and "ninf", with which LLVM deletes tests for NaN.
FASTMATH = frozenset({"reassoc", "contract", "nsz", "arcp"})
#: Seconds that twins of the same bits work in a process before numba starts, which takes 0.6 s: a picture or a
#: window of a few pixels needs no numba, and a longer session loses little by it.
SPARED = 0.3
#: How many times as long the twin of a kernel works that this machine has never compiled, which takes 1 to 3 s.
NEW = 3
#: Bytes of the largest call that a twin is given: by itself it would take too long.
MOST = 256 << 20

_compiling = threading.RLock()
_seconds_of_thread = getattr(time, "thread_time", time.perf_counter)  # which a browser does not have


class Kernel[**P, R]:
    """A function that numba compiles when it is first called (importing numba takes 0.4 s).

    Where numba is not installed the function that :meth:`in_numpy` was given takes its place, and where it gives
    the same bits also for the first few pixels of a process: see :data:`SPARED`.
    """

    #: Seconds that twins of all kernels have worked in this process; ``spent`` of a kernel are those of its own.
    spent_by_all = 0.0
    #: Whether one was compiled, or loaded from the disk: the next ones take 0.01 s.
    is_started = False

    def __init__(self, function: Callable[P, R], fastmath: frozenset[str] = FASTMATH) -> None:
        self.function = function
        self.fastmath = fastmath
        self.twin: Callable[P, R] | None = None
        self.has_exact_twin = False
        self.spent = 0.0
        self._compiled: Callable[P, R] | None = None
        update_wrapper(self, function)

    def in_numpy(self, twin: Callable[P, R]) -> Callable[P, R]:
        """Mark a function as this kernel's twin: the same of whole arrays, up to the order of sums."""
        self.twin = twin
        return twin

    def in_numpy_bitwise(self, twin: Callable[P, R]) -> Callable[P, R]:
        """Mark a function as this kernel's twin of the same bits: nothing is summed, each value is rounded once."""
        self.has_exact_twin = True
        return self.in_numpy(twin)

    @property
    def compiled(self) -> Callable[P, R]:
        """The numba dispatcher, or the twin.

        Raises
        ------
        MissingExtraError
            If there is no numba, and no twin.
        """
        if self._compiled is None:
            with _compiling:
                if self._compiled is None:
                    self._compiled = self._ready()
                    Kernel.is_started = True
        return self._compiled

    def _ready(self) -> Callable[P, R]:
        try:
            return cast("Callable[P, R]", _compile(self.function, self.fastmath))
        except ModuleNotFoundError as error:
            if error.name != "numba":
                raise
        if self.twin is None:
            raise MissingExtraError(
                f"{self.function.__name__.strip('_')} is a compiled loop without a twin in NumPy: it needs the "
                "package 'numba', which is not installed, or does not exist for this machine"
            )
        return self.twin

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it: compiled, or for the first few pixels of a process by its twin, if that gives the same bits."""
        if self._compiled is None and self.twin is not None and self._is_spared(args):
            begun = _seconds_of_thread()
            result = self.twin(*args, **kwargs)
            spent = _seconds_of_thread() - begun
            self.spent += spent
            Kernel.spent_by_all += spent
            return result
        return self.compiled(*args, **kwargs)

    def _is_spared(self, args: tuple[Any, ...]) -> bool:
        """Whether the twin has worked for less time than loading, or compiling, the kernel would take."""
        if not self.has_exact_twin or sum(getattr(each, "nbytes", 0) for each in args) > MOST:
            return False
        if self.is_new:
            return self.spent < NEW * SPARED
        return not Kernel.is_started and Kernel.spent_by_all < SPARED

    @cached_property
    def is_new(self) -> bool:
        """Whether numba would compile it: it would keep the result beside the source, and nothing is there."""
        code = self.function.__code__
        kept = Path(code.co_filename).parent / "__pycache__"
        if "NUMBA_CACHE_DIR" in os.environ or not os.access(kept if kept.exists() else kept.parent, os.W_OK):
            return False  # numba knows where it is kept, and is not asked for so little
        name = f"{Path(code.co_filename).stem}.{self.function.__qualname__}-{code.co_firstlineno}"
        version = f"py{sys.version_info.major}{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
        return not (kept / f"{name}.{version}.nbi").exists()

    def __reduce__(self) -> str:  # by name: a worker compiles, or loads, its own
        return self.function.__qualname__


def jit[**P, R](function: Callable[P, R]) -> Kernel[P, R]:
    """Mark a kernel; see :class:`Kernel`. Kernels may call other kernels of the same module."""
    return Kernel(function)


def jit_exact[**P, R](function: Callable[P, R]) -> Kernel[P, R]:
    """Like :func:`jit`, in the order of operations as written: for coordinates and areas."""
    return Kernel(function, frozenset())


def _compile(function: Callable[..., Any], fastmath: frozenset[str]) -> Any:
    import numba

    # A kernel that calls another finds it in its globals, where numba must see the dispatcher.
    scope = {
        name: value.compiled if isinstance(value, Kernel) else value
        for name, value in function.__globals__.items()
        if name in function.__code__.co_names
    }
    plain = types.FunctionType(
        function.__code__, {**function.__globals__, **scope}, function.__name__, function.__defaults__
    )
    plain.__qualname__, plain.__module__ = function.__qualname__, function.__module__
    # without an entry for C code, which nothing calls: an eighth of what compiling takes
    options = {"nogil": True, "fastmath": set(fastmath), "error_model": "numpy", "no_cfunc_wrapper": True}
    try:
        return numba.njit(cache=True, **options)(plain)
    except RuntimeError:  # nowhere to write the cache: compile anew in each process
        return numba.njit(**options)(plain)


def runs(first: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers from each of ``first`` on, ``number`` of each: loops of unlike length as one array, for twins.

    Returns
    -------
    (ndarray, ndarray)
        To which run each belongs, and the numbers.

    Examples
    --------
    >>> import numpy as np
    >>> [each.tolist() for each in runs(np.array([5, 0, 8]), np.array([3, 0, 2]))]
    [[0, 0, 0, 2, 2], [5, 6, 7, 8, 9]]
    """
    owner = np.repeat(np.arange(len(first)), number)
    begun = np.cumsum(number) - number
    return owner, first[owner] + np.arange(len(owner)) - begun[owner]
