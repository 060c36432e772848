"""Footers of files alike: of many, one is parsed, and those of far files are compared with it.

The files of a source differ in their rows and bounds alone, mostly. Arrow takes 0.2 ms to parse a footer, most of
it for statistics of row groups, and of a file that lies far off nobody asks for those. A footer begins with the
schema and ends with the keys: where these are as in a footer that was parsed before, so is what they say.

The format is that of Apache Parquet, ``parquet.thrift`` (FileMetaData), in Thrift's compact protocol.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from geoemb_xr.core.areas import Bounds
from geoemb_xr.execution.threads import side_by_side
from geoemb_xr.readers.footers import (
    OWN_KEY,
    FileFacts,
    RowGroup,
    Touches,
    declared_length,
    file_bounds,
    read_footer,
)
from geoemb_xr.readers.layouts import PatchLayout
from geoemb_xr.stores.listing import File, open_file
from geoemb_xr.stores.objects import is_remote

_MAGIC, _ARROW, _GEO = b"PAR1", b"ARROW:schema", b"geo"
#: Bytes that are read of the end of a file: most footers are within.
_TAIL = 1 << 14
#: Local files that one thread looks at: to hand one over takes as long as to look.
_AT_ONCE = 32
#: Kinds of files that are known at once: those of any other are parsed.
_KINDS = 8


def read_footers(files: Sequence[File], layout: PatchLayout, touches: Touches | None) -> list[FileFacts]:
    """Read the footers of files, as :func:`geoemb_xr.readers.footers.read_footer` does, in their order.

    Parameters
    ----------
    files : sequence of File
        The files.
    layout : PatchLayout
        Layout of the product's files.
    touches : callable, optional
        Files whose bounds it turns down stand as one group of all rows.
    """
    if touches is None or any(is_remote(file.url) for file in files):
        return side_by_side(lambda file: read_footer(file, layout, touches), files)
    kinds: list[Kind] = []

    def read(some: Sequence[File]) -> list[FileFacts]:
        return [_read(file, layout, touches, kinds) for file in some]

    first = read(files[:1])  # those beside each other would all be parsed
    rest = side_by_side(read, [files[i : i + _AT_ONCE] for i in range(1, len(files), _AT_ONCE)])
    return [facts for some in (first, *rest) for facts in some]


def _read(file: File, layout: PatchLayout, touches: Touches, kinds: list[Kind]) -> FileFacts:
    footer = _footer_of(file.url)
    for kind in kinds:
        if (said := kind.facts_in(footer)) is None:
            continue
        rows, bounds = said
        if touches(bounds, kind.facts.crs):
            return read_footer(file, layout, touches)
        return replace(kind.facts, file=file, groups=(RowGroup(0, rows, 0, 0, 0, bounds, None),))
    facts = read_footer(file, layout, touches)
    if len(kinds) < _KINDS and (new := _kind_of(file, footer, facts)) is not None:
        kinds.append(new)
    return facts


def _footer_of(path: str) -> bytes:
    """The bytes of a file's footer; none where it does not end as Parquet does."""
    with open(path, "rb", buffering=0) as stream:
        size = stream.seek(0, 2)
        stream.seek(max(size - _TAIL, 0))
        tail = stream.read()
        if tail[-4:] != _MAGIC:
            return b""
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if len(tail) < length <= size:
            stream.seek(size - length)
            tail = stream.read()
    return tail[-length:-8]


@dataclass(frozen=True)
class Kind:
    """Files whose footers say the same, but for rows and bounds.

    Parameters
    ----------
    facts : FileFacts
        What is said of any of them, but for its groups.
    head : bytes
        The footer before the number of rows: version and schema.
    names : tuple of bytes
        Names of the keys, in their order.
    end : bytes
        What stands after the keys.
    stated : list
        What the keys say, see :func:`_stated`.
    """

    facts: FileFacts
    head: bytes
    names: tuple[bytes, ...]
    end: bytes
    stated: list[Any]

    def facts_in(self, footer: bytes) -> tuple[int, tuple[Bounds, ...]] | None:
        """Rows and bounds that a footer of this kind states; None for one of another, or without bounds."""
        if not (footer.startswith(self.head) and footer.endswith(self.end)):
            return None
        try:
            rows, after = _number(footer, len(self.head) + 1)
            keys, stop = _keys_of(footer, self.names)
            bounds, *stated = _stated(keys, self.facts)
        except (LookupError, ValueError):  # laid out in another way
            return None
        around = footer[len(self.head)], footer[after]
        is_alike = (
            around == (_ROWS, _GROUPS) and stop + len(self.end) == len(footer) and stated == self.stated
        )
        return (rows >> 1, bounds) if is_alike else None


def _kind_of(file: File, footer: bytes, facts: FileFacts) -> Kind | None:
    """What files like this one have in common; None where its footer is laid out in another way.

    The schema has to tell the length of vectors: else each file's statistics do.
    """
    if declared_length(facts.schema.field(facts.vectors).type) is None:
        return None
    meta = open_file(file).metadata
    written = meta.metadata or {}
    # Arrow gives them in any order
    names = tuple(sorted(written, key=lambda name: footer.rfind(_pair(name))))
    head, rows, _ = footer.partition(bytes((_ROWS, *_written(meta.num_rows << 1), _GROUPS)))
    try:
        keys, stop = _keys_of(footer, names)
        _, *stated = _stated(keys, facts)
    except (LookupError, ValueError):
        return None
    is_found = rows and keys == written
    far = replace(facts, groups=(), bbox=(), gappy=frozenset())
    return Kind(far, head, names, footer[stop:], stated) if is_found else None


def _stated(keys: Mapping[bytes, bytes], facts: FileFacts) -> tuple[Any, ...]:
    """Bounds, then all else that keys say of vectors and places.

    Raises
    ------
    LookupError, ValueError
        If they say it in another way than the reader expects.
    """
    geo = json.loads(keys[_GEO])
    bounds = file_bounds(geo, facts.geometry, facts.crs) if isinstance(geo, dict) else ()
    if not bounds or facts.geometry is None:
        raise LookupError("bounds")
    del geo["columns"][facts.geometry.name]["bbox"]
    schema = base64.b64decode(keys.get(_ARROW, b""))
    blank = schema.replace(keys[_GEO], bytes(len(keys[_GEO])))  # it has a copy of all keys, bounds too
    return bounds, geo, _fields_in(blank), keys.get(b"emb"), keys.get(OWN_KEY.encode())


@lru_cache(maxsize=64)
def _fields_in(schema: bytes) -> tuple[Any, ...]:
    """Fields of a schema as Arrow writes it; none of no schema.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    import pyarrow as pa

    try:
        fields = pa.ipc.read_schema(pa.py_buffer(schema)) if schema else ()
    except (pa.ArrowException, OSError) as error:  # not all of Arrow's are ValueErrors
        raise ValueError(str(error)) from error
    return tuple((each.name, each.type, each.nullable, each.metadata) for each in fields)


# --- Thrift's compact protocol, as far as it is needed --------------------------------------------------------

#: Headers of fields of FileMetaData: number 3, an i64; number 4 and number 5, lists. And of a text in a pair.
_ROWS, _GROUPS, _KEYS, _TEXT, _STOP = 0x16, 0x19, 0x19, 0x18, 0x00
_STRUCT = 0x0C


def _keys_of(footer: bytes, names: Sequence[bytes]) -> tuple[dict[bytes, bytes], int]:
    """Values of the keys that a footer ends with, which have these names in this order, and where they end."""
    count = len(names)
    counted = [count << 4 | _STRUCT] if count < 15 else [0xF0 | _STRUCT, *_written(count)]
    begin = bytes([_KEYS, *counted])
    at = footer.rindex(begin + _pair(names[0])) + len(begin)
    found = {}
    for name in names:
        start = _pair(name)
        if not footer.startswith(start, at):
            raise ValueError(f"no {name!r}")
        length, at = _number(footer, at + len(start))
        found[name] = footer[at : at + length]
        if footer[at + length] != _STOP:
            raise ValueError(f"{name!r} has more than a value")
        at += length + 1
    return found, at


def _pair(name: bytes) -> bytes:
    """What stands before the length of a key's value."""
    return bytes([_TEXT, *_written(len(name)), *name, _TEXT])


def _written(number: int) -> list[int]:
    """A number as it is written: seven bits a byte, the lowest first."""
    out = []
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return [*out, number]


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number that is written so, and where it ends."""
    value = shift = 0
    while data[at] > 127:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1
