"""Every notebook runs: offline, on one core, within its memory, without a warning, and as stripped as it was."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Binder has 2,000 MB. The CUDA build of torch, which Binder does not have, takes about 700 MB by itself.
MEGABYTES_PLAIN, MEGABYTES_WITH_TORCH = 1300, 1700
SECONDS = 60

# The kernel itself refuses the network: sockets of Python, and through a dead proxy curl, Rust and the rest.
GUARD = """
import socket as _socket, warnings as _warnings
_connect = _socket.socket.connect
def _only_here(self, address):
    host = address[0] if isinstance(address, tuple) else "localhost"
    # a datagram socket sends nothing when it connects: dask finds its own address that way
    if self.type == _socket.SOCK_STREAM and host not in ("localhost", "127.0.0.1", "::1"):
        raise OSError(f"a notebook asked for the network: {address}")
    return _connect(self, address)
_socket.socket.connect = _only_here
_warnings.filterwarnings("error", module=r"geoemb_xr(\\.|$)")
_warnings.filterwarnings("ignore", message="Use `@` matmul", category=PendingDeprecationWarning)
"""
SPENT = """
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
    """What came of a notebook: its cells with outputs, seconds of its one core, and peak memory."""

    notebook: nbformat.NotebookNode
    seconds: float
    megabytes: float
    torch: bool


@contextmanager
def one_core() -> Iterator[None]:
    """Processes started here run on one core, as on Binder."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def execute(path: Path, folder: Path) -> Run:
    """Run a notebook in a folder of its own."""
    notebook = nbformat.read(path, as_version=4)
    guard, spent = (nbformat.v4.new_code_cell(source) for source in (GUARD, SPENT))
    notebook.cells = [guard, *notebook.cells, spent]
    client = NotebookClient(
        notebook,
        timeout=4 * SECONDS,
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
    )
    with one_core():
        client.create_kernel_manager()
        client.execute(env={**os.environ, **NO_NETWORK})
    said = [output.text for output in spent.outputs if output.get("name") == "stdout"]
    seconds, kilobytes, torch = said[-1].split()[-3:]  # what is late of a cell before comes here too
    notebook.cells = notebook.cells[1:-1]
    return Run(notebook, float(seconds), int(kilobytes) / 1024, torch == "True")


def texts(notebook: nbformat.NotebookNode, name: str) -> str:
    """All that the cells wrote to a stream."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == name)


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    """PNG pictures that the cells drew, in base64."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]


@pytest.mark.slow
@pytest.mark.timeout(6 * SECONDS)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs_offline_on_one_core_in_its_memory(path, tmp_path):
    run = execute(path, tmp_path)
    print(f"\n{path.stem}: {run.seconds:.0f} s, {run.megabytes:.0f} MB, torch: {run.torch}")
    assert "Warning" not in texts(run.notebook, "stderr"), texts(run.notebook, "stderr")
    assert run.megabytes < (MEGABYTES_WITH_TORCH if run.torch else MEGABYTES_PLAIN)
    assert pictures(run.notebook), "a notebook without a picture"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stripped_and_valid(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.get("language_info", {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_says_that_its_data_are_synthetic_and_how_to_use_the_published(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.startswith("# ")
    prose = " ".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert "synthetic" in prose
    swaps = [c for c in notebook.cells if "published-store" in c.metadata.get("tags", [])]
    assert swaps, "no cell that swaps in the published store"
    for cell in swaps:  # JupyterLab runs every cell: a flag, not a tag, keeps it off the network
        assert cell.source.startswith("PUBLISHED = False")
        assert "\nif PUBLISHED:\n" in cell.source


def test_torch_is_imported_by_no_notebook_before_the_third():
    for path in NOTEBOOKS:
        if path.stem < "03":
            cells = json.loads(path.read_text())["cells"]
            code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
            assert not re.search(r"^\s*(import|from) torch", code, flags=re.MULTILINE)
