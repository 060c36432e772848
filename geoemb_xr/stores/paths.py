"""From sources to lists of files; years in paths; paths that must stay in a folder."""

from __future__ import annotations

import glob
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np

from geoemb_xr.core.errors import MissingFileError, SourceError
from geoemb_xr.core.local_paths import local_path, says_local
from geoemb_xr.core.times import TimeLike, time_spans
from geoemb_xr.stores.archives import ROOTS
from geoemb_xr.stores.objects import is_remote, matching


def expand(source: Any, suffixes: Sequence[str]) -> list[str]:
    """The files of a source: a path, a folder, a glob, a URL, or a list of those, in sorted order.

    Parameters
    ----------
    source : path, str or iterable of those
        A folder is searched through.
    suffixes : sequence of str
        Endings of files taken from a folder, in lower case.

    Raises
    ------
    FileNotFoundError
        If a path is not there, or a folder or glob holds none; the message names it.
    SourceError
        If it is not a source, or a Zarr store is among files.
    MissingFileError
        If nothing is there, or no file with these endings.
    """
    if not isinstance(source, (str, os.PathLike)):
        # an open file would give its lines
        if not isinstance(source, Iterable) or isinstance(source, bytes) or hasattr(source, "read"):
            raise SourceError(
                f"a source is a path, a folder, a glob, a URL or a list of those; got {source!r}"
            )
        return list(dict.fromkeys(name for each in source for name in expand(each, suffixes)))
    name = os.fspath(source)
    if says_local(name):
        name = str(local_path(name))
    if is_remote(name):
        return _remote_files(name, suffixes)
    path = Path(name)
    if path.is_dir() and path.suffix.lower() not in suffixes:
        # as a glob does, without hidden files: macOS lays a "._a.tif" beside each file on a foreign disk
        found = sorted(
            str(p)
            for p in path.rglob("*")
            if p.suffix.lower() in suffixes
            and not p.name.startswith(".")
            and (p.is_file() or p.is_dir() or not p.exists())  # lost links are told of later
        )
        if not found:
            refuse_store(name)
            raise MissingFileError(f"no {' or '.join(suffixes)} file in {name}")
        return found
    if path.exists():
        return [str(path)]  # a file with a slash behind it is that file
    found = sorted(glob.glob(_pattern(name), recursive=True))
    if not found:
        raise MissingFileError(f"no such file, folder or match of a glob: {name}")
    return found


def refuse_store(folder: str) -> None:
    """Raise if a folder is a Zarr store.

    Raises
    ------
    SourceError
        Saying how stores are opened.
    """
    if any((Path(folder) / each).exists() for each in ROOTS):
        raise SourceError(
            f"{folder} is a Zarr store among files; open each store by itself, and join them with gx.mosaic or "
            "gx.concat"
        )


def _remote_files(name: str, suffixes: Sequence[str]) -> list[str]:
    """A URL of a file as it is, a folder's or a glob as what its store lists."""
    web = name.startswith(("http://", "https://"))
    signs = "*" if web else "*?["  # a web address may have a query
    if name.startswith("/vsi") or not any(sign in name for sign in signs):
        file = (
            name.partition("?")[0].lower().endswith(tuple(suffixes))
            if web
            else name.lower().endswith(tuple(suffixes))
        )
        if file or name.startswith("/vsi") or (web and not name.endswith("/")):
            return [name]
    return [each.url for each in matching(name, suffixes)]


def _pattern(name: str) -> str:
    """A glob of which the folders that are there under their own names are not patterns: ``run[1]/*.tif``."""
    literal = Path(name)
    while not literal.exists() and literal != literal.parent:
        literal = literal.parent
    rest = os.path.relpath(name, literal)
    return os.path.join(glob.escape(str(literal)), rest) if literal.parts else name


def year_of_file(path: str, period: str = "", time: TimeLike = None) -> int:
    """The year of a file: its own name tells, else its folders, else what was asked for.

    Parameters
    ----------
    path : str
        The file. A year is four digits that no digit, letter or version mark touches: ``2048px`` is none.
    period : str
        Period of the product, such as ``"2017–2025"``: numbers before it, or still to come, are not years.
    time : year, date, list or slice, optional
        The years that the user asked for. One year decides where the name has none, or several.

    Raises
    ------
    SourceError
        If there is none, or the name has several; the message says how to name the year.

    Examples
    --------
    >>> year_of_file("annual/2024/10N/x086q72fv2f9q1x4a-0000000000-0000000000.tiff")
    2024
    >>> year_of_file("downloaded/2025/aef_2023_2048px.tif", "2017–2025")
    2023
    >>> year_of_file("area.tif", time=2024)
    2024
    """
    *folders, name = PurePosixPath(path.replace("\\", "/")).parts
    plausible = _plausible(period)
    own = _years_in(name, plausible)
    around = [int(found[1]) for part in folders if (found := _YEAR_FOLDER.fullmatch(part))]
    around = [year for year in around if year in plausible][-1:]
    asked = _single_year(time)
    if len(own) > 1:
        own = own & {*around, *asked} or own
    found_years = own or set(around) or asked
    if len(found_years) == 1:
        return found_years.pop()
    if found_years:
        raise SourceError(
            f"{path} names several years, {' and '.join(map(str, sorted(found_years)))}; say which is its own: "
            f"time={min(found_years)}"
        )
    offer = "" if time is None else ", one year only"
    raise SourceError(
        f"{path} does not say its year (of {plausible.start} to {plausible.stop - 1}); say it: time=2024{offer}, "
        "or put it in a folder named by the year (2024/…), or name it …_2024.tif"
    )


#: Four digits by themselves: not a part of a number, a size (2048px) or a version (v2025_06_19).
_YEAR = re.compile(r"(?<!\d)(?<!\d\.)(?<![vV])((?:19|20)\d\d)(?![0-9A-Za-z])")
_YEAR_FOLDER = re.compile(r"(?:year=)?((?:19|20)\d\d)")
#: Satellites that embeddings are made from do not look back further (Landsat 1).
_FIRST_YEAR = 1972


def _plausible(period: str) -> range:
    start = re.search(r"\d{4}", period)
    return range(int(start[0]) if start else _FIRST_YEAR, datetime.now(UTC).year + 1)


def _years_in(name: str, plausible: range) -> set[int]:
    return {int(year) for year in _YEAR.findall(name) if int(year) in plausible}


def _single_year(time: TimeLike) -> set[int]:
    """The one year that ``time=`` asks for; nothing where it asks for several, or for all."""
    spans = time_spans(time) or []
    years = {int(str(edge)[:4]) for start, stop in spans for edge in (start, stop - np.timedelta64(1, "ns"))}
    return years if len(years) == 1 else set()


def inside(root: str | os.PathLike[str], relative: str) -> Path:
    """A path that an index names, inside its folder: nothing in a file is trusted.

    Raises
    ------
    SourceError
        If it is absolute, or leaves the folder.
    """
    base = Path(root).resolve()
    path = (base / relative.replace("\0", "")).resolve()
    if "\0" in relative or PurePosixPath(relative).is_absolute() or not path.is_relative_to(base):
        raise SourceError(f"an index in {base} names a path outside it: {relative!r}")
    return path


def below(root: str, url: object) -> str:
    """A URL that an index names, below the root of its store: nothing in a file is trusted.

    Raises
    ------
    SourceError
        If it names anything else: another host, bucket or folder, or a file of this machine.

    Examples
    --------
    >>> below("s3://bucket/tiles", "s3://bucket/tiles/2024/a.tif")
    's3://bucket/tiles/2024/a.tif'
    """
    folder = root.rstrip("/") + "/"
    text = url if isinstance(url, str) else ""
    rest = text.removeprefix(folder) if text.startswith(folder) else ""
    parts = unquote(rest).replace("\\", "/").split("/")
    if not rest or any(part in ("", ".", "..") for part in parts) or any(c in rest for c in "\0?#"):
        raise SourceError(f"an index of {root} names what is not below it: {url!r}")
    return text


def must_be_fetched(product: str, what: str, where: str) -> SourceError:
    """The error for a product that is not read from its publisher: which file to fetch, and how to pass it."""
    return SourceError(
        f"{product!r} is not read from its publisher. Fetch {what} from {where}, then give the file or its "
        f"folder: gx.open({product!r}, path)"
    )


def sidecar_version(path: str | os.PathLike[str]) -> str:
    """The version in the JSON file beside one that has no metadata of its own; empty where there is none."""
    file = Path(path).with_suffix(".json")
    if not file.exists():
        return ""
    try:
        return str(json.loads(file.read_text())["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{file} does not say 'version': {error!r}") from error


def write_sidecar(path: str | os.PathLike[str], version: str) -> None:
    """Write what :func:`sidecar_version` reads."""
    Path(path).with_suffix(".json").write_text(json.dumps({"version": version}))


def cache_dir() -> Path:
    """Where examples and indexes are kept: ``GEOEMB_CACHE``, else the user's cache, else a temporary folder."""
    given = os.environ.get("GEOEMB_CACHE")
    base = (
        Path(given)
        if given
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geoemb_xr"
    )
    try:
        base.mkdir(parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return base
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / "geoemb_xr"
