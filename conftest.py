"""What pytest must know before it collects: what cannot be imported here, and how many processes to use."""

import gc
import importlib.util
import os
import sys

import pytest

# Where bytecode is not kept, each worker and subprocess compiles all that it imports: a third of the suite's time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

#: Triton exists for Linux only; modules of other names must import, or their errors show.
collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["geoemb_xr/predicting/*_cuda.py"]
#: It has no examples, and imports torchgeo, which takes seconds in each process.
collect_ignore = ["geoemb_xr/interop/datasets.py"]


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


def pytest_collection_finish() -> None:
    """Keep what all imports made, a million objects, out of each collection of garbage."""
    gc.collect()
    gc.freeze()
