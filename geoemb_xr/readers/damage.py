"""What libraries raise over damaged files, as errors of ours that name the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from geoemb_xr.core.errors import EmbeddingError, SourceError


@contextmanager
def naming_damage(name: str) -> Iterator[None]:
    """What zarr, GDAL, NumPy or xarray raise over damaged metadata, as an error of ours that names the file."""
    try:
        yield
    except (EmbeddingError, ImportError, OSError, MemoryError, NameError):  # a NameError is a fault of code
        raise
    except UnicodeEncodeError as error:
        text = os.fsencode(name).decode(errors="replace")
        raise SourceError(
            f"the path {text} is no text in UTF-8, as GDAL needs it; give it another name"
        ) from error
    except Exception as error:  # what damaged bytes raise has no class in common
        raise SourceError(
            f"{name} could not be opened: its metadata are damaged, or not what it says "
            f"({type(error).__name__}: {error})"
        ) from error
