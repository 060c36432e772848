"""The example source of a product: written where asked, or once into a cache."""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from geoemb_xr import testing
from geoemb_xr._version import __version__
from geoemb_xr.core.errors import SourceError, check_choice
from geoemb_xr.core.model import Product
from geoemb_xr.core.model import product as find_product
from geoemb_xr.examples import patches
from geoemb_xr.stores.paths import cache_dir


def example(
    product: str | Product,
    *,
    container: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    scene: Literal["clear", "lifelike"] = "lifelike",
) -> Any:
    """Write a small synthetic source in a product's true format, and return it.

    Parameters
    ----------
    product : str or Product
        The product, or its name.
    container : str, optional
        One of ``product.containers``; the first by default.
    directory : path, optional
        Folder to write to; by default a cache, where it is written once.
    scene : {"lifelike", "clear"}
        Scene that it shows: a landscape with noise, mixed pixels, variety within classes and holes of clouds, as
        real vectors have them, or the same without any, whose classes are told apart without a mistake.

    Returns
    -------
    path or list of paths
        Path or paths that :func:`geoemb_xr.open` takes as ``source``.

    Raises
    ------
    ValueError
        If the product has no such container, or there is no such scene.
    SourceError
        If the product has no example.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> gx.open("alphaearth", gx.example("alphaearth")).attrs["version"]
    'synthetic'
    """
    found = find_product(product)
    if found.example is None:
        raise SourceError(f"{found.name!r} has no example source")
    container = check_choice("container", container or found.containers[0], found.containers)
    if directory is not None:
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        with testing.showing(scene):
            return found.example(folder, container)
    with testing.showing(scene):
        return _cached_example(found, container if scene == "clear" else f"{container}-{scene}", container)


def _cached_example(found: Product, name: str, container: str) -> Any:
    """The example in the user's cache: written beside it, then moved there whole."""
    state = hashlib.sha1(f"{__version__}{_code_of(found)}".encode()).hexdigest()[:10]
    home = cache_dir() / "examples" / f"{found.name}-{name}-{state}"
    assert found.example is not None
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            source = found.example(made, container)
            relative = _relative(source, made)
            (made / ".source").write_text("\n".join(relative))
            try:
                os.replace(made, home)
            except OSError:  # another process was first
                if not home.exists():
                    raise
    lines = (home / ".source").read_text().splitlines()
    sources = [home / line for line in lines]
    return sources[0] if len(sources) == 1 else sources


def _relative(source: Any, root: Path) -> list[str]:
    many = list(source) if isinstance(source, (list, tuple)) else [source]
    return [str(Path(each).relative_to(root)) for each in many]


def _code_of(found: Product) -> str:
    """The source code that writes an example, so that a changed one is written anew."""
    assert found.example is not None
    writer = inspect.getsourcefile(found.example)
    scene = sorted(Path(testing.__file__).parent.glob("*.py"))
    return "".join(Path(file).read_text() for file in (writer, patches.__file__, *scene) if file is not None)
