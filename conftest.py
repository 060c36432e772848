"""What pytest must know before it collects: what cannot be imported here, and how many processes to use."""

import functools
import gc
import os
import re
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from _pytest.doctest import DoctestModule

# Where bytecode is not kept, each worker and subprocess compiles all that it imports: a third of the suite's time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Tests run beside one another already: threads of BLAS and OpenMP would wait for each other, which takes CPU too.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

# What is imported while tests are collected lives on: looking through it for garbage is a quarter of the time.
gc.disable()

#: They have no examples, and import torch, Triton or torchgeo, which take seconds in each process.
collect_ignore_glob = ["geoemb_xr/predicting/*_cuda.py", "geoemb_xr/interop/datasets.py"]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Use all cores, unless files are named: they take less time than the start of workers does.

    A file stays with one worker: what its tests share is made once, and notebooks run in one kernel.

    This is no option in pyproject.toml, so that ``-p no:xdist`` still works.
    """
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    a_worker = hasattr(config, "workerinput")
    if (
        config.pluginmanager.hasplugin("xdist")
        and config.option.numprocesses is None
        and not (named or a_worker)
    ):
        config.option.numprocesses, config.option.dist = "auto", "loadfile"
    config.option.loadscopereorder = False  # see pytest_collection_modifyitems


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers begin with files that take long, then with those of many tests: else one is alone at the end."""
    if hasattr(config, "workerinput"):
        number = Counter(item.path for item in items)
        is_long = {item.path for item in items if {"slow", "pages"} & {m.name for m in item.iter_markers()}}
        items.sort(key=lambda item: (item.path not in is_long, -number[item.path]))


def pytest_collection_finish() -> None:
    """Keep what all imports made, a million objects, out of each collection of garbage, and collect seldom."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(200_000, 50, 100)  # graphs are many small objects that live on: a tenth of the time


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[object], list[object]]:
    """Tests have no examples in their docstrings: to look for them is a tenth of what collection takes."""
    found = yield
    is_test = file_path.is_relative_to(parent.config.rootpath / "tests")
    return [each for each in found if not (is_test and isinstance(each, DoctestModule))]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A file stays with one worker; so do all that import torchvision, which takes ten seconds in each process."""
    from xdist.scheduler import LoadFileScheduling

    class ByImports(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "torchvision" if _imports_torchvision(config.rootpath / file) else file

    return ByImports(config, log) if config.option.dist == "loadfile" else None


@functools.cache
def _imports_torchvision(path: Path) -> bool:
    bring_it = re.compile(r"""importorskip\("(geoclip|timm|torchgeo|torchvision)""")
    return path.name == "test_prose.py" or (path.suffix == ".py" and bool(bring_it.search(path.read_text())))
