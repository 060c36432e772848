"""Files into object stores, by way of this machine; and what any writer of objects needs.

What writes a Zarr store of objects is in :mod:`geoemb_xr.writing.zarr_remote`: a GeoTIFF is written without
importing Zarr.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xarray as xr

from geoemb_xr.core.errors import SourceError, check_choice
from geoemb_xr.stores.objects import answer_text, delete_objects, is_remote, object_size, put, store_to_write
from geoemb_xr.stores.storage import Storage, current, using
from geoemb_xr.writing.staging import per_file


def object_target(path: str | os.PathLike[str]) -> str | None:
    """The URL that a writer is given, or a key of the caller's own store; None for a path on this machine.

    Raises
    ------
    SourceError
        If it is a web server, which takes no objects.
    """
    located = current().locate(path)
    name = str(os.fspath(located))
    if not is_remote(name) or name.startswith(("file://", "/vsi")):
        return None
    store_to_write(name)  # an error where it takes nothing
    return name


@contextmanager
def naming_store_errors(url: str, after: str = "") -> Iterator[None]:
    """Turn an error of an object store into one of ours; ``after`` describes the state now."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("obstore"):
            raise
        raise SourceError(
            f"{url} could not be written: {answer_text(error)}. Credentials go into storage= or the "
            f"environment{after}"
        ) from error


def check_free(url: str, mode: str) -> None:
    """Refuse to replace an object unasked."""
    if mode == "w-" and object_size(url) is not None:
        raise FileExistsError(f"{url} exists already; mode='w' replaces it")


# --- files --------------------------------------------------------------------------------------------------------


def put_files(
    array: xr.DataArray, url: str, mode: str, write: Callable[[str], Path | str | list[Path | str]]
) -> str | list[Path | str]:
    """Write a file, or one for each time, on this machine, and put them where they go; none before all are whole.

    Parameters
    ----------
    array : DataArray
        The data to write.
    url : str
        URL of the file, or a template.
    mode : {"w-", "w"}
        Refuse where an object exists, or replace it.
    write : callable
        Writes to a path on this machine, or to a template of one.

    Raises
    ------
    ValueError
        For an unknown mode.
    """
    check_choice("mode", mode, ("w-", "w"))
    urls = [name for name, _ in per_file(array, url)]
    for each in urls:
        check_free(each, mode)
    with tempfile.TemporaryDirectory(prefix="geoemb-") as folder:
        with using(Storage()):  # where the caller's own store is none: paths are paths
            made = write(os.path.join(folder, url.rpartition("/")[2]))
        paths = made if isinstance(made, list) else [made]
        for number, (path, each) in enumerate(zip(paths, urls, strict=True)):
            try:
                with naming_store_errors(each):
                    put(each, Path(path))
            except SourceError:
                if mode == "w-":  # those before it were not there, and would be in the way of the same call
                    with suppress(Exception):
                        delete_objects(*urls[:number])
                raise
    return [*urls] if isinstance(made, list) else urls[0]
