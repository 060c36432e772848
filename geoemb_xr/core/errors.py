"""The errors of this package. Each message says what was wrong, what was got, and what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class EmbeddingError(ValueError):
    """Base of the errors that this package raises about arrays, sources and requests.

    The errors below say more; raised by itself, an array is not what the called function works on.
    """


class ComparabilityError(EmbeddingError):
    """Two arrays, or an array and a model, come from spaces that cannot be compared."""


class CoverageError(EmbeddingError):
    """What was asked for is not in the source; the message says what the source covers."""


class SourceError(EmbeddingError):
    """A file or store is not what its product says; the message names it and what is wrong."""


class MissingFileError(SourceError, FileNotFoundError):
    """A file, folder or store is not where it was said to be."""


class MissingExtraError(ImportError):
    """An optional package is missing; the message says which line installs it."""


def require(module: str, extra: str = "", *, package: str = "") -> ModuleType:
    """Import an optional module, or raise with the line that installs it.

    Parameters
    ----------
    module : str
        Dotted name of the module.
    extra : str
        The extra of this package that brings it.
    package : str
        Name of the package where packages are installed from, if no extra brings it.

    Raises
    ------
    MissingExtraError
        If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != root:
            raise  # the module is there, but something it needs is broken: that is another message
        raise missing(package or root, extra) from error


def missing(package: str, extra: str = "") -> MissingExtraError:
    """Return the error for a package that is not installed, with the line that installs it.

    Until there is a release, that line works in a clone.
    """
    line = f"in a clone of geoemb_xr: pip install '.[{extra}]'" if extra else f"pip install {package}"
    return MissingExtraError(f"this needs the package {package!r}, which is not installed; {line}")


def check_choice[Choice: str](what: str, value: Choice, valid: Iterable[str]) -> Choice:
    """Return ``value`` if it is one of ``valid``; else raise a ValueError that lists them."""
    options = tuple(valid)
    if str(value) not in options:  # a table is not compared with words
        begun = [each for each in options if str(value) and each.startswith(str(value))]
        close = begun or difflib.get_close_matches(str(value), options, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        listed = f"valid are {', '.join(map(repr, options))}" if options else "there are none here"
        raise ValueError(f"{what}={value!r} is not known; {listed}.{hint}")
    return value
