"""Every benchmark runs, at its smallest size: none rots. Speed is never asserted here."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FOLDER.glob("bench_*.py")), ids=lambda p: p.stem)
def test_benchmark_runs_small(path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    module.main(["--small", "--repeat", "1"])
    assert "×" in capsys.readouterr().out
