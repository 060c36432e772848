"""Binder's image, checked by its parts: the environment, the package in it, what runs at start."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
BINDER = ROOT / "binder"
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "huggingface-hub": "huggingface_hub"}
#: Import names that are not the names of their distributions.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "odc": "odc-geo"}
#: Extras whose packages a notebook may import.
EXTRAS = ("remote", "vector", "torch", "torchgeo", "locations", "viz", "lab", "cluster")


def environment(path: Path = BINDER / "environment.yml") -> dict[str, SpecifierSet]:
    """Package → range, conda-forge's and pip's."""
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    flat = [line for entry in dependencies for line in (entry["pip"] if isinstance(entry, dict) else [entry])]
    parsed = {}
    for line in flat:
        name, bounds = re.fullmatch(r"([\w.-]+)\s*(.*)", line).groups()
        parsed[name] = SpecifierSet(re.sub(r"^=(?!=)(.*)$", r"==\1.*", bounds))
    return parsed


def required() -> dict[str, SpecifierSet]:
    """What pyproject.toml requires, extras that notebooks use included, by conda-forge's names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in extras.get(extra, []))]
    parsed = [Requirement(line) for line in lines]
    return {CONDA_NAMES.get(each.name, each.name): each.specifier for each in parsed}


def lowest(bounds: SpecifierSet) -> str | None:
    return next((each.version for each in bounds if each.operator == ">="), None)


def test_binder_has_the_environment_of_the_root():
    assert (BINDER / "environment.yml").read_text() == (ROOT / "environment.yml").read_text()


def test_python_is_one_version_and_the_package_is_left_to_post_build():
    text = (ROOT / "environment.yml").read_text()
    assert environment()["python"] == SpecifierSet("==3.12.*")
    assert not [line for line in text.splitlines() if line.strip().startswith("- -e")]
    assert (ROOT / ".python-version").read_text().strip() == "3.12"


@pytest.mark.parametrize("name", sorted(required()))
def test_every_requirement_is_in_the_environment_with_the_same_lower_bound(name):
    assert name in environment(), f"{name} is required by pyproject.toml but not in environment.yml"
    assert lowest(environment()[name]) == lowest(required()[name])


@pytest.mark.parametrize("name", sorted(environment()))
def test_what_is_tested_here_lies_within_the_pinned_ranges(name):
    if name in ("python", "pip", "pytorch-cpu"):
        return
    distribution = {conda: pip for pip, conda in CONDA_NAMES.items()}.get(name, name)
    assert importlib.metadata.version(distribution) in environment()[name]


def notebook_imports(path: Path) -> set[str]:
    """Top-level names that a notebook's code imports."""
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    plain = "\n".join(re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE) for source in code)
    names = set()
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_what_a_notebook_imports_is_in_the_environment(path):
    for name in notebook_imports(path) - set(sys.stdlib_module_names) - {"geoemb_xr"}:
        distribution = DISTRIBUTIONS.get(name, name)
        # geopandas brings shapely; clients of gateways and catalogues are imported behind a flag
        known = {*environment(), "shapely", "dask_gateway", "pystac_client"}
        assert CONDA_NAMES.get(distribution, distribution) in known, f"{path.name} imports {name}"


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_scripts_are_bash_that_parses_and_may_be_run(name):
    script = BINDER / name
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", script], check=True)


def test_start_hands_over_and_points_the_dashboard_through_the_proxy():
    script = BINDER / "start"
    assert script.read_text().rstrip().splitlines()[-1] == 'exec "$@"'
    shown = subprocess.run(
        [script, sys.executable, "-c", "import dask; print(dask.config.get('distributed.dashboard.link'))"],
        env={**os.environ, "JUPYTERHUB_SERVICE_PREFIX": "/user/me/"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "/user/me/proxy/{port}/status"


@pytest.mark.complete
@pytest.mark.timeout(300)
def test_post_build_installs_the_package_and_compiles_its_kernels(tmp_path):
    """In a fresh prefix that has the dependencies, a pip of its own, and not this package.

    Of the kernels that this machine has compiled, only those of ``core/kernels.py`` are left to the script.
    """
    clone = tmp_path / "clone"
    clone.mkdir()
    for each in ("geoemb_xr", "binder"):
        ignored = shutil.ignore_patterns("*.pyc", "kernels.*.nb?")
        shutil.copytree(ROOT / each, clone / each, ignore=ignored)
    for each in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / each, clone)
    prefix = tmp_path / "prefix"
    subprocess.run([sys.executable, "-m", "venv", prefix], check=True)
    here = Path(importlib.metadata.distribution("numpy").locate_file(""))
    site = next((prefix / "lib").glob("python*/site-packages"))
    # A plain path: what is installed in place here, this package too, stays out.
    (site / "dependencies.pth").write_text(f"{here}\n")
    env = {
        **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")},
        "PATH": f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's spelling of "no isolation": hatchling is at hand
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "NUMBA_CACHE_DIR": "",
    }
    done = subprocess.run([clone / "binder" / "postBuild"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    where = subprocess.run(
        [prefix / "bin" / "python", "-c", "import geoemb_xr; print(geoemb_xr.__file__)"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(clone)
    assert list((clone / "geoemb_xr" / "core" / "__pycache__").glob("kernels.*.nbi"))
