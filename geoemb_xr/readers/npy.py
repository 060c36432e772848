"""NumPy files as tiles: the header is checked before memory is taken, windows come from a memory map.

Nothing in a file is trusted: no pickles, and a size that the header promises but the file does not have is an
error, not a short read.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from geoemb_xr.core import buffers, kernels
from geoemb_xr.core.codecs import decode_per_pixel_scale
from geoemb_xr.core.errors import MissingFileError, SourceError
from geoemb_xr.readers.tile_arrays import Transfers
from geoemb_xr.readers.tiles import Reader
from geoemb_xr.stores.files import FIRST_BYTES, forget, remote_object
from geoemb_xr.stores.http import ObjectChangedError
from geoemb_xr.stores.objects import is_remote
from geoemb_xr.stores.storage import Storage, current

#: NumPy writes headers of 128 bytes; a remote one is read in one request of this size.
_HEADER_BYTES = 4096


@dataclass(frozen=True)
class NpyInfo:
    """The facts in the header of a .npy file.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    dtype : str
        Data type of its values, byte order included.
    offset : int
        Where its first value lies, in bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    offset: int


def read_header(path: str | os.PathLike[str]) -> NpyInfo:
    """Read and check the header of a .npy file.

    Raises
    ------
    FileNotFoundError
        If a local file is not there.
    SourceError
        If it is no .npy file, holds objects, is stored column by column, or is shorter than it says.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.zeros((2, 3), "int8"))
    ...     read_header(f"{folder}/a.npy")
    NpyInfo(shape=(2, 3), dtype='|i1', offset=128)
    """
    name = os.fspath(path)
    if is_remote(name):
        return _parse_header(remote_object(name, "").read(0, _HEADER_BYTES), name)
    if not Path(name).exists():
        raise MissingFileError(f"no such file: {name}")
    with open(name, "rb") as file:
        info = _parse_header(file.read(_HEADER_BYTES), name)
    wanted = info.offset + int(np.prod(info.shape, dtype=np.int64)) * np.dtype(info.dtype).itemsize
    size = os.path.getsize(name)
    if size < wanted:
        raise SourceError(f"{name} is truncated: its header promises {wanted} bytes, it has {size}")
    return info


def _parse_header(head: bytes, name: str) -> NpyInfo:
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    except Exception as error:  # NumPy parses headers as Python: what is none fails in the tokeniser, too
        raise SourceError(f"{name} is not a .npy file: {error}") from error
    if dtype.hasobject:
        raise SourceError(f"{name} holds pickled objects, which are not read")
    if fortran and len(shape) > 1:
        raise SourceError(f"{name} is stored column by column (fortran_order); save it in C order")
    return NpyInfo(tuple(int(n) for n in shape), dtype.str, stream.tell())


@lru_cache(maxsize=4096)
def _header_once(path: str, token: str, storage: Storage) -> NpyInfo:
    if not is_remote(path):
        return read_header(path)
    return _parse_header(remote_object(path, token).read(0, _HEADER_BYTES), path)


@dataclass(frozen=True)
class NpyReader:
    """Reads windows of a .npy file of shape (y, x, band) or (y, x).

    Parameters
    ----------
    path : str
        File or URL.
    shape : tuple of int
        The shape that the file must have.
    dtype : str
        The data type that the file must have.
    token : str
        Token of the file's state.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    token: str = ""

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (band, y, x), or (y, x) of a plane."""
        info = _header_once(self.path, self.token, current())
        check_array(info, self.path, self.shape, self.dtype)
        values = (
            _rows_of_object(self.path, self.token, info, rows)
            if is_remote(self.path)
            else _map(self.path, info)[rows]
        )
        window = np.ascontiguousarray(values[:, cols])
        return kernels.band_first(window, 0) if window.ndim == 3 else window

    def transfer(self, spans: Sequence[tuple[int, slice, slice]]) -> tuple[int, int]:
        """Requests and bytes of windows: whole rows for each, and the header."""
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize
        return len(spans) + 1, sum((rows.stop - rows.start) * row for _, rows, _ in spans) + FIRST_BYTES


@dataclass(frozen=True)
class DecodedReader:
    """Reads codes and their scales as vectors."""

    codes: Reader
    scales: Reader

    def transfer(self, spans: Sequence[tuple[int, slice, slice]]) -> tuple[int, int]:
        """Requests and bytes of windows."""
        both = [each.transfer(spans) for each in (self.codes, self.scales) if isinstance(each, Transfers)]
        return sum(n for n, _ in both), sum(size for _, size in both)

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (band, y, x)."""
        scales = self.scales.read(time, rows, cols)
        return decode_per_pixel_scale(self.codes.read(time, rows, cols), scales, 0)


def check_array(info: NpyInfo, name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Raise unless a file has a shape and a dtype.

    Raises
    ------
    SourceError
        Naming the file and what is wrong.
    """
    if info.shape != shape:
        raise SourceError(f"{name} has shape {info.shape} instead of {shape}")
    if np.dtype(info.dtype) != np.dtype(dtype):
        raise SourceError(f"{name} holds {np.dtype(info.dtype)} instead of {np.dtype(dtype)}")


def _map(path: str, info: NpyInfo) -> Any:
    """A memory map; opened for each window, since a map costs microseconds and an open file is a resource."""
    return np.memmap(path, dtype=info.dtype, mode="r", offset=info.offset, shape=info.shape)


# --- archives -----------------------------------------------------------------------------------------------


def read_npz_header(path: str | os.PathLike[str], array: str) -> NpyInfo:
    """Header of an array in a .npz archive.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    SourceError
        If it is not an archive, lacks the array, or the array holds objects.
    """
    name = os.fspath(path)
    with _member(name, array) as file:
        info = _parse_header(file.read(_HEADER_BYTES), f"{name}[{array}]")
    return info


def _member(name: str, array: str) -> Any:
    if not Path(name).exists():
        raise MissingFileError(f"no such file: {name}")
    try:
        archive = zipfile.ZipFile(name)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{name} is not a .npz archive, or is truncated: {error}") from error
    with archive:  # an open member keeps the file it needs
        if f"{array}.npy" not in archive.namelist():
            raise SourceError(f"{name} has no array {array!r}; it has {archive.namelist()[:5]}")
        try:
            return archive.open(f"{array}.npy")
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
            raise SourceError(f"{name} is damaged in {array!r}: {error}") from error


@dataclass(frozen=True)
class NpzReader:
    """Reads windows of an array (y, x, band) in a .npz archive, whether or not it is compressed.

    A compressed array is read from its start to the window's last row, in pieces: memory stays that of the
    window.

    Parameters
    ----------
    path : str
        The archive.
    array : str
        Its name in it.
    info : NpyInfo
        Header, as read by :func:`read_npz_header`.
    token : str
        Token of the file's state.
    """

    path: str
    array: str
    info: NpyInfo
    token: str = ""

    def read(self, time: int, rows: slice, cols: slice) -> np.ndarray:
        """A window (band, y, x)."""
        shape = self.info.shape
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(self.info.dtype).itemsize
        out = buffers.empty((rows.stop - rows.start, cols.stop - cols.start, *shape[2:]), self.info.dtype)
        with _member(self.path, self.array) as file:
            file.seek(self.info.offset + rows.start * row_bytes)
            for i in range(len(out)):
                row = file.read(row_bytes)
                if len(row) != row_bytes:
                    raise SourceError(f"{self.path} is truncated in row {rows.start + i} of {self.array!r}")
                out[i] = np.frombuffer(row, self.info.dtype).reshape(shape[1:])[cols]
        return kernels.band_first(out, 0)


def _rows_of_object(path: str, token: str, info: NpyInfo, rows: slice) -> np.ndarray:
    """Whole rows of a remote file, which are one range of bytes."""
    row_bytes = int(np.prod(info.shape[1:], dtype=np.int64)) * np.dtype(info.dtype).itemsize
    start, length = info.offset + rows.start * row_bytes, (rows.stop - rows.start) * row_bytes
    try:
        data = remote_object(path, token).read(start, start + length)
    except ObjectChangedError:
        forget()
        raise
    if len(data) != length:
        raise SourceError(f"{path} is truncated: {len(data)} of {length} bytes at {start}")
    return np.frombuffer(data, info.dtype).reshape(rows.stop - rows.start, *info.shape[1:])
