"""What a browser has: no numba, no obstore, no cluster, and no threads. The quickstart and a field kit run so.

Pyodide itself is not to be had here; its missing packages are blocked, and threads cannot be started.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LACKING = """
import json, sys, threading
from importlib.machinery import PathFinder
class Lacking(PathFinder):
    names = {"numba", "llvmlite", "obstore", "distributed", "torch", "onnxruntime", "icechunk", "pyogrio"}
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in cls.names else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Lacking
def cannot(self):
    raise RuntimeError("can't start new thread")
start, threading.Thread.start = threading.Thread.start, cannot
import dask, matplotlib
matplotlib.use("agg")
"""

#: Zarr-python starts a thread of its own, so what reads or writes Zarr is tried with threads.
BROWSER = """
notebook = json.load(open(sys.argv[1]))
cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
names = {}
with dask.config.set(scheduler="synchronous"):  # as dask does in a browser
    for cell in cells:
        if "gx.example(name)" in cell:
            threading.Thread.start = start
        exec(cell, names)
    threading.Thread.start = cannot
    gx, da = names["gx"], names["da"]
    one = da.emb.year(2018)
    places = gx.testing.scene().points(80, radius=250)
    probe = one.emb.fit_probe(places, target="land_cover", method="ridge", cv=2)
    crops = one.emb.predict(probe).compute()
    one.emb.predict(one.emb.fit_clusters(3)).compute()
    one.emb.zonal_stats((11.368, 47.248, 11.372, 47.252)).compute()
    threading.Thread.start = start
    kit = gx.field_kit(one, probe, "kit.zip")
threading.Thread.start = cannot
import numpy as np
from geoemb_xr.writing.predict_alone import Kit
found, made = Kit(kit), np.zeros(crops.shape, int)
for down, across, part in found.blocks(*found.window(None), found.time(None)):
    made[down, across] = np.array([0, *probe.legend.values])[part]
assert (made == crops.transpose("y", "x").values).all()
assert not Lacking.names & set(sys.modules)
print(sorted(names["opened"]))
"""


@pytest.mark.pages
def test_the_quickstart_and_a_kit_run_with_what_a_browser_has(tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-c", LACKING + BROWSER, str(ROOT / "notebooks" / "01_quickstart.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tessera" in done.stdout
