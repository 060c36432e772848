"""Every lazy function gives on a worker what it gives here, by the same kernels."""

import importlib.util
import pickle
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest

import geoemb_xr as gx

#: Computes pickled arrays in a process of its own, and tells the kernels that each went through.
WORKER = """
import pickle, sys
from tests_elsewhere_recording import computed
pickle.dump(computed(pickle.load(open(sys.argv[1], "rb"))), open(sys.argv[2], "wb"))
"""

RECORDING = '''
import dask
from geoemb_xr.core.kernels import Kernel

def computed(arrays):
    """Values of arrays by name, and the names of the kernels that were called for each."""
    call, seen, found = Kernel.__call__, set(), {}
    def recording(self, *args, **kwargs):
        seen.add(f"{self.__module__}.{self.__qualname__}")
        return call(self, *args, **kwargs)
    Kernel.__call__ = recording
    try:
        for name, array in arrays.items():
            seen.clear()
            with dask.config.set(scheduler="synchronous"):
                found[name] = array.compute().values, sorted(seen)
    finally:
        Kernel.__call__ = call
    return found
'''


def lazy_arrays():
    codes = gx.testing.synthetic("alphaearth", shape=(48, 40), years=[2018, 2024], chunks=24, decode=False)
    # a window of a larger array lies in another way here than after a pickle, and other loops take it
    codes = codes.copy(data=codes.data.map_blocks(np.ascontiguousarray))
    year = codes.emb.year(2018)
    held = year.compute()
    labels = gx.testing.scene().points(60, radius=180)
    probe = held.emb.fit_probe(labels, target="land_cover", method="ridge", cv=0)
    knn = held.emb.fit_probe(labels, target="land_cover", method="knn", cv=0)
    pca, kmeans = held.emb.fit_pca(3), held.emb.fit_clusters(3)
    tessera = gx.testing.synthetic("tessera", shape=(24, 24), chunks=12, decode=False)
    point = (gx.testing.scene().lon, gx.testing.scene().lat)
    finer = {"resolution": 15}
    own = {}
    if importlib.util.find_spec("torch"):
        own["embed"] = gx.embed(gx.testing.images((64, 64), chunks=32), "rcf")
    return own | {
        "decode": codes.emb.decode(),
        "decode scaled": tessera.emb.decode(),
        "encode": gx.encode(codes.emb.decode()),
        "normalize": codes.emb.normalize(),
        "nearest": codes.emb.reproject("EPSG:3035", **finer),
        "bilinear": codes.emb.reproject("EPSG:3035", **finer, resampling="bilinear"),
        "average": tessera.emb.reproject("EPSG:3035", resolution=40),
        "coarsen": codes.emb.coarsen(4),
        "crop": codes.emb.crop((11.3685, 47.249, 11.3715, 47.251)),
        "sample": codes.emb.sample(labels),
        "aggregate": codes.emb.aggregate("mean"),
        "change": codes.emb.change(2018, 2024),
        "pca": year.emb.pca(pca),
        "rgb": year.emb.rgb(pca),
        "predict": year.emb.predict(probe),
        "probabilities": year.emb.predict(probe, output="proba"),
        "predict knn": year.emb.predict(knn),
        "predict kmeans": year.emb.predict(kmeans),
        "similarity": year.emb.similarity(held.emb.sample([point]).emb.decode().values[0]),
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "tests_elsewhere_recording.py").write_text(RECORDING)
    arrays = lazy_arrays()
    assert all(each.chunks is not None for each in arrays.values())
    (folder / "arrays").write_bytes(cloudpickle.dumps(arrays))
    scope = {}
    exec(compile(RECORDING, "recording", "exec"), scope)
    here = scope["computed"](arrays)
    command = [sys.executable, "-c", WORKER, str(folder / "arrays"), str(folder / "results")]
    subprocess.run(command, check=True, cwd=folder, timeout=300)
    return here, pickle.loads((folder / "results").read_bytes())


NAMES = (
    "decode", "decode scaled", "encode", "normalize", "nearest", "bilinear", "average", "coarsen", "crop", "sample",
    "aggregate", "change", "pca", "rgb", "predict", "probabilities", "predict knn", "predict kmeans", "similarity",
    "embed",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_worker_gives_the_same_by_the_same_kernels(both, name):
    if name == "embed":
        pytest.importorskip("torch")
    (here, kernels), (there, others) = both[0][name], both[1][name]
    assert others == kernels
    assert there.dtype == here.dtype
    np.testing.assert_array_equal(there, here)


def test_labels_from_codes_go_through_the_fused_kernel_there(both):
    assert both[1]["predict"][1] == ["geoemb_xr.execution.linear.label_squares"]
    assert "geoemb_xr.core.coding._decode_square_first" in both[1]["decode"][1]
