"""How loops are compiled: by numba when they are first called for more than a few pixels, or not at all.

Every kernel goes through :func:`jit`: without the GIL, serial (the threads are dask's), cached on disk where that
can be written. Where there is no numba (a browser, 32-bit ARM), its twin in NumPy runs under the same name, slower;
``docs/small-machines.md`` says by how much.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, cast

import numpy as np

from geoemb_xr.core.errors import MissingExtraError

#: ``True`` would add "nnan" and "ninf", with which LLVM deletes tests for NaN.
FASTMATH = frozenset({"reassoc", "contract", "nsz", "arcp"})
#: Bytes that twins of the same bits take over in a process before anything is compiled, 0.1 s of work: to load the
#: first kernel from the disk's cache takes 0.5 s, of which a picture or a window of a few pixels need not know.
SPARED = 128 << 20
#: What a call counts at least, so that many small ones come to an end too.
_LEAST = 1 << 18

_compiling = threading.RLock()
_spared = 0


class Kernel[**P, R]:
    """A function that numba compiles when it is first called (importing numba takes 0.4 s).

    Where numba is not installed the function that :meth:`in_numpy` was given takes its place, and where it gives
    the same bits also for the first few pixels of a process: see :data:`SPARED`.
    """

    def __init__(self, function: Callable[P, R], fastmath: frozenset[str] = FASTMATH) -> None:
        self.function = function
        self.fastmath = fastmath
        self.twin: Callable[P, R] | None = None
        self.has_exact_twin = False
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
        if self._compiled is None and self.has_exact_twin and self.twin is not None and _is_spared(args):
            return self.twin(*args, **kwargs)
        return self.compiled(*args, **kwargs)

    def __reduce__(self) -> str:  # by name: a worker compiles, or loads, its own
        return self.function.__qualname__


def _is_spared(args: tuple[Any, ...]) -> bool:
    """Count the bytes of a call; whether they are still few enough for a twin."""
    global _spared
    _spared += max(sum(getattr(each, "nbytes", 0) for each in args), _LEAST)
    return _spared <= SPARED


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
    options = {"nogil": True, "fastmath": set(fastmath), "error_model": "numpy"}
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
