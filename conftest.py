"""What pytest must know before it collects: what cannot be imported here, and how many processes to use."""

import importlib.util

import pytest

#: Triton exists for Linux only; every other module must import, or its error shows.
collect_ignore = [] if importlib.util.find_spec("triton") else ["geoemb_xr/predicting/fused_cuda.py"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run files that are named in this process: they take less time than the start of workers."""
    return 0 if config.args_source is pytest.Config.ArgsSource.ARGS else None
