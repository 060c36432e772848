"""What the package imports is declared, and what is declared is imported."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from functools import lru_cache
from pathlib import Path

import geoemb_xr

PACKAGE = Path(geoemb_xr.__file__).parent
PROJECT = PACKAGE.parent / "pyproject.toml"
#: Functions that take a module's name.
BY_NAME = {"require", "import_module", "find_spec"}
#: Triton comes with torch where there is one for it, and is asked for first. The others draw what is behind or
#: beside a map where they are installed, and a message names the package where they are not.
OPTIONAL = {"triton", "cartopy", "contextily", "umap"}
#: Installed for the libraries that look for them, or to be run, and not imported here.
NOT_IMPORTED = {
    "distributed",  # found by dask
    "jupyterlab",
    "ipywidgets",
    "jupyter-server-proxy",
}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def last_name(function):
    """``c`` of ``a.b.c`` and of ``c``."""
    return getattr(function, "attr", None) or getattr(function, "id", None)


@lru_cache(maxsize=1)
def imported():
    """Third-party top-level modules, and where each is imported."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            elif isinstance(node, ast.Call) and last_name(node.func) in BY_NAME:
                names = [each.value for each in node.args[:1] if isinstance(each, ast.Constant)]
            for name in (str(each).partition(".")[0] for each in names):
                if name != "geoemb_xr" and name not in sys.stdlib_module_names:
                    found.setdefault(name, path.relative_to(PACKAGE).as_posix())
    return found


def declared(*parts):
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for part in parts or extras for line in extras[part])]
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in lines} - {"geoemb-xr"}


@lru_cache(maxsize=1)
def installed():
    return importlib.metadata.packages_distributions()


def distributions(module):
    return {normal(each) for each in installed().get(module, ())}


def test_what_is_imported_is_declared():
    wrong = {
        m: where for m, where in imported().items() if m not in OPTIONAL and not distributions(m) & declared()
    }
    assert not wrong, f"imported and not declared: {wrong}"


def test_what_is_declared_for_users_is_imported():
    used = set().union(*map(distributions, imported()))
    users = declared(
        "remote", "vector", "torch", "torchgeo", "locations", "viz", "lab", "cluster", "encoders"
    )
    assert users - used == NOT_IMPORTED


def test_every_requirement_says_its_oldest_version():
    project = tomllib.loads(PROJECT.read_text())["project"]
    assert all(">=" in line for line in project["dependencies"])
