"""Every notebook runs: offline, on one core, within its memory, without a warning, and as stripped as it was.

Most of the time of a notebook is taken by what it imports. So they run one after the other in one kernel, each in a
namespace and a folder of its own; in the complete profile each also runs in a kernel of its own, as on Binder,
with GeoCLIP as a control of its comparisons.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Binder has 2,000 MB. The CUDA build of torch, which Binder does not have, takes 165 MB more than the CPU build.
MEGABYTES_PLAIN, MEGABYTES_WITH_TORCH = 1000, 1400
#: What a notebook may take beyond what the kernel held before it; what it imports takes 300 MB without torch.
MEGABYTES_BEYOND = 1000
SECONDS = 60

# The kernel itself refuses the network: sockets of Python, and through a dead proxy curl, Rust and the rest.
GUARD = """
import socket as _socket, warnings as _warnings
# its names are its own, since the namespace is emptied between notebooks
def _only_here(self, address, connect=_socket.socket.connect, stream=_socket.SOCK_STREAM):
    host = address[0] if isinstance(address, tuple) else "localhost"
    # a datagram socket sends nothing when it connects: dask finds its own address that way
    if self.type == stream and host not in ("localhost", "127.0.0.1", "::1"):
        raise OSError(f"a notebook asked for the network: {address}")
    return connect(self, address)
_socket.socket.connect = _only_here
_warnings.filterwarnings("error", module=r"geoemb_xr(\\.|$)")
_warnings.filterwarnings("ignore", message="Use `@` matmul", category=PendingDeprecationWarning)
"""
# Nothing is left of the notebook before but what was imported; the peak of memory begins anew.
FRESH = """
get_ipython().reset(new_session=False)
import os as _os, gc as _gc, sys as _sys
if "matplotlib.pyplot" in _sys.modules:
    _sys.modules["matplotlib.pyplot"].close("all")
_os.chdir({folder!r})
_sys.modules.pop("geoclip", None)
if not {geoclip}:
    _sys.modules["geoclip"] = None  # as where it is not installed
_gc.collect()
open("/proc/self/clear_refs", "w").write("5")
"""
STATE = """
import sys, time
peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
print(time.process_time(), peak.split()[1], 'torch' in sys.modules)
"""
NO_NETWORK = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1"),
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


@dataclass(frozen=True)
class Run:
    """What came of a notebook: its cells with outputs, seconds of its one core, memory before and at its peak.

    Whether torch is there in the end, and whether it came with this notebook.
    """

    notebook: Any
    seconds: float
    before: float
    megabytes: float
    torch: bool
    brought_torch: bool


@contextmanager
def one_core() -> Iterator[None]:
    """Processes started here run on one core, as on Binder."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def kernel() -> Iterator[Any]:
    """A kernel on one core that has no network."""
    from jupyter_client.manager import start_new_kernel

    with one_core():
        manager, client = start_new_kernel(env={**os.environ, **NO_NETWORK})
    client.stop_channels()
    try:
        run_cells(manager, [GUARD])
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


def run_cells(manager: Any, cells: list[Any]) -> Any:
    """Execute cells of a notebook, or code, in a kernel."""
    import nbformat
    from nbclient import NotebookClient

    code = [nbformat.v4.new_code_cell(each) if isinstance(each, str) else each for each in cells]
    notebook = nbformat.v4.new_notebook(cells=code)
    NotebookClient(notebook, km=manager, timeout=4 * SECONDS, store_widget_state=False).execute()
    return notebook


def state(cell: Any) -> tuple[float, float, bool]:
    """Seconds of CPU, peak of memory in MB and whether torch is there, as a cell of ``STATE`` wrote them."""
    said = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    # what is late of a cell before comes here too, and a line may come in parts
    seconds, kilobytes, torch = said.split()[-3:]
    return float(seconds), int(kilobytes) / 1024, torch == "True"


def execute(path: Path, manager: Any, folder: Path, geoclip: bool = True) -> Run:
    """Run a notebook in a folder of its own, with or without GeoCLIP."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    ran = run_cells(
        manager, [FRESH.format(folder=str(folder), geoclip=geoclip), STATE, *notebook.cells, STATE]
    )
    (began, before, had_torch), (ended, peak, torch) = state(ran.cells[1]), state(ran.cells[-1])
    ran.cells = ran.cells[2:-1]
    return Run(ran, ended - began, before, peak, torch, torch and not had_torch)


def texts(notebook: Any, name: str) -> str:
    """All that the cells wrote to a stream."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == name)


def pictures(notebook: Any) -> list[str]:
    """PNG pictures that the cells drew, in base64."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]


def assert_ran_well(run: Run) -> None:
    print(f"{run.seconds:.0f} s, {run.megabytes:.0f} MB, {run.before:.0f} MB before, torch: {run.torch}")
    assert "Warning" not in texts(run.notebook, "stderr"), texts(run.notebook, "stderr")
    assert pictures(run.notebook), "a notebook without a picture"


@pytest.fixture(scope="module")
def shared():
    with kernel() as manager:
        yield manager


@pytest.mark.pages
@pytest.mark.timeout(6 * SECONDS)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs_offline_on_one_core(path, shared, tmp_path):
    # a location encoder as a control, where no notebook asks for one, is half the time of a comparison
    run = execute(path, shared, tmp_path, geoclip='gx.open(\\"geoclip' in path.read_text())
    assert_ran_well(run)
    of_torch = MEGABYTES_WITH_TORCH - MEGABYTES_PLAIN if run.brought_torch else 0
    assert run.megabytes - run.before < MEGABYTES_BEYOND + of_torch


@pytest.mark.complete
@pytest.mark.timeout(6 * SECONDS)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs_in_a_kernel_of_its_own_in_its_memory(path, tmp_path):
    with kernel() as manager:
        run = execute(path, manager, tmp_path)
    assert_ran_well(run)
    assert run.megabytes < (MEGABYTES_WITH_TORCH if run.torch else MEGABYTES_PLAIN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stripped(path):
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert "version" not in notebook["metadata"].get("language_info", {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_says_that_its_data_are_synthetic_and_how_to_use_the_published(path):
    cells = json.loads(path.read_text())["cells"]
    assert "".join(cells[0]["source"]).startswith("# ")
    assert "synthetic" in "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    swaps = ["".join(c["source"]) for c in cells if "published-store" in c["metadata"].get("tags", [])]
    assert swaps, "no cell that swaps in the published store"
    for source in swaps:  # JupyterLab runs every cell: a flag, not a tag, keeps it off the network
        assert source.startswith("PUBLISHED = False")
        assert "\nif PUBLISHED:\n" in source


def test_torch_is_imported_by_no_notebook_before_the_third():
    for path in NOTEBOOKS:
        if path.stem < "03":
            cells = json.loads(path.read_text())["cells"]
            code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
            assert not re.search(r"^\s*(import|from) torch", code, flags=re.MULTILINE)
