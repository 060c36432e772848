"""Npz files without pickles: a text header and arrays, written whole or not at all, and checked when read."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from geoemb_xr.core.whole_files import replacing

#: A file unpacks to so many times its own size, and so many bytes more, or it is refused.
_MOST_UNPACKED, _LEAST = 16, 1 << 24


def write(target: Path, header: str, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write a header and arrays; a file that was there before is replaced once all is written.

    Parameters
    ----------
    target : Path
        The file.
    header : str
        Text, read back first.
    arrays : mapping
        Arrays by name; none may be called "header".
    """
    with replacing(target) as file:
        dump(file, header, arrays)
    return target


def dump(file: BinaryIO, header: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a header and arrays to an open file."""
    np.savez(file, allow_pickle=False, header=np.array(header), **arrays)


@contextmanager
def opened(
    source: str | os.PathLike[str] | BinaryIO,
) -> Iterator[tuple[str, dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]]:
    """The header of a file, by its path or open, the shapes of its arrays, and what reads one.

    What the headers in the file claim is checked against its size before any array is read.

    Raises
    ------
    ValueError, KeyError, zipfile.BadZipFile
        If it is no such file.
    """
    with zipfile.ZipFile(source) as archive:
        if "header.npy" not in archive.namelist():
            raise ValueError("it has no header")
        members = {name.removesuffix(".npy"): _member(archive, name) for name in archive.namelist()}
        _check_size(members, _size_of(source))
        header = str(_read(archive, members.pop("header")))
        shapes = {name: each.shape for name, each in members.items()}
        yield header, shapes, lambda name: _read(archive, members[name])


@contextmanager
def _as_damage(name: str) -> Iterator[None]:
    """What zipfile, zlib and NumPy raise over a member that is damaged."""
    try:
        yield
    except (zipfile.BadZipFile, KeyError, ValueError, MemoryError):
        raise
    except Exception as error:  # a seek before the start, an unknown method, a cut stream: no class in common
        raise ValueError(f"its {name} is damaged ({type(error).__name__}: {error})") from error


def _size_of(source: str | os.PathLike[str] | BinaryIO) -> int:
    return os.path.getsize(source) if isinstance(source, str | os.PathLike) else source.seek(0, os.SEEK_END)


@dataclass(frozen=True)
class _Member:
    """An array in an npz file, as its headers claim it."""

    name: str
    shape: tuple[int, ...]
    nbytes: int


def _member(archive: zipfile.ZipFile, name: str) -> _Member:
    """Read the header of an array; raise unless the file holds as many bytes as it claims."""
    with _as_damage(name), archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        held = archive.getinfo(name).file_size - file.tell()
    nbytes = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or nbytes != held:
        raise ValueError(f"its {name} claims {shape} of {dtype}, {nbytes} bytes, and has {held}")
    return _Member(name, shape, nbytes)


def _check_size(members: Mapping[str, _Member], size: int) -> None:
    total = sum(each.nbytes for each in members.values())
    if total > _LEAST + _MOST_UNPACKED * size:
        raise ValueError(f"its {size} bytes would unpack to {total}")


def _read(archive: zipfile.ZipFile, member: _Member) -> np.ndarray:
    with _as_damage(member.name), archive.open(member.name) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
