"""Every benchmark is read, and runs small in the complete profile: none rots. Speed is never asserted."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
#: One that takes little time; each of the others takes 5 to 60 s of CPU, most of it for peers and compilation.
QUICK = "bench_decode"


def read(path, monkeypatch):
    """The module of a benchmark."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


FILES = [*sorted(FOLDER.glob("bench_*.py")), FOLDER / "scaling.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_benchmark_imports_and_explains_its_options(path, monkeypatch, capsys):
    module = read(path, monkeypatch)
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    assert "--small" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == QUICK else pytest.mark.complete)
        for path in FILES
    ],
)
def test_benchmark_runs_small(path, monkeypatch, capsys):
    read(path, monkeypatch).main(["--small", "--repeat", "1"])
    assert "×" in capsys.readouterr().out
