"""Checksums of the pieces of a file, behind all that its readers look at: a bit that flipped is an error.

A GeoTIFF has none of its own for its header, nor for blocks of zstd. It is read by offsets, so that what follows
its last block is nobody's: there lie the CRC-32 of each piece of 64 KB, how long the header is, and how long the
file was. A file that another program has made longer since ends otherwise, and is read unchecked.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from geoemb_xr.core.errors import SourceError

_PIECE = 1 << 16
_MAGIC = b"geoemb_xr CRC-32"
#: Bytes of the file, and of its header; the checksum of what is said here; and what tells that it is said.
_END = struct.Struct("<QQI16s")


def append_checksums(path: Path, header: int) -> None:
    """Write the checksums of a file behind it.

    Parameters
    ----------
    path : Path
        The file, which nobody else reads yet.
    header : int
        Number of bytes at its start that are read whenever it is opened.
    """
    with path.open("r+b") as file:
        sums = np.fromiter(_sums_of(file), "<u4").tobytes()
        size = file.tell()
        file.write(sums + _END.pack(size, header, zlib.crc32(sums, (size ^ header) & 0xFFFFFFFF), _MAGIC))


def _sums_of(file: BinaryIO) -> Iterator[int]:
    while piece := file.read(_PIECE):
        yield zlib.crc32(piece)


class Checksums:
    """The checksums of a file, and which of its pieces were looked at.

    Parameters
    ----------
    path : str
        The file.
    size, header : int
        Bytes that have checksums, and those of the header.
    sums : ndarray of uint32
        The checksum of each piece.
    """

    def __init__(self, path: str, size: int, header: int, sums: np.ndarray) -> None:
        self.path, self.size, self.header, self.sums = path, size, header, sums
        self._seen = np.zeros(sums.size, bool)

    @property
    def left(self) -> bool:
        """Whether there is a piece that nobody has looked at."""
        return not self._seen.all()

    def check(self, spans: Iterable[tuple[int, int]]) -> None:
        """Look at the pieces that hold some bytes (first, and the one after the last), each once.

        Raises
        ------
        SourceError
            If one is not what was written.
        """
        held = {n for start, stop in spans for n in range(start // _PIECE, -(-stop // _PIECE))}
        wanted = [n for n in sorted(held) if n < self.sums.size and not self._seen[n]]
        if not wanted:
            return
        with open(self.path, "rb") as file:
            for n in wanted:
                file.seek(n * _PIECE)
                piece = file.read(min(_PIECE, self.size - n * _PIECE))
                if zlib.crc32(piece) != self.sums[n]:
                    raise SourceError(
                        f"{self.path} is damaged: bytes {n * _PIECE}–{n * _PIECE + len(piece)} are not those that "
                        "were written. Write or fetch it again; where another program meant to change it, a copy "
                        "by gdal_translate is read as it is"
                    )
                self._seen[n] = True


@lru_cache(maxsize=1024)
def checksums_of(path: str, token: str) -> Checksums | None:
    """The checksums of a local file in the state that a token names; None where it does not end with any."""
    with open(path, "rb") as file:
        whole = file.seek(0, os.SEEK_END)
        if whole < _END.size:
            return None
        file.seek(whole - _END.size)
        size, header, own, magic = _END.unpack(file.read(_END.size))
        pieces = -(-size // _PIECE)
        if magic != _MAGIC or whole != size + 4 * pieces + _END.size:
            return None
        file.seek(size)
        sums = file.read(4 * pieces)
    if own != zlib.crc32(sums, (size ^ header) & 0xFFFFFFFF):
        return None
    return Checksums(path, size, header, np.frombuffer(sums, "<u4"))
