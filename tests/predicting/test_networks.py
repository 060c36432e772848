"""Networks of torch, and probes on tensors: the same numbers as with NumPy, on CPU and GPU."""

import dataclasses
import os
import subprocess
import sys

import dask
import numpy as np
import pytest
from mapped_scene import SCENE, array, points

import geoemb_xr as gx
from geoemb_xr.core import arrays
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import legend_of
from geoemb_xr.execution import devices, lanes
from geoemb_xr.execution.blocks import Block
from geoemb_xr.predicting import networks
from geoemb_xr.probes.scores import quantile
from geoemb_xr.testing import assert_lazy_identical

torch = pytest.importorskip("torch")


def test_networks_give_what_they_give():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(16, 3)
    )
    net.classes_ = ["a", "b c", "d"]
    da = array(decode=False, missing=True)
    out = assert_lazy_identical(lambda a: a.emb.predict(net), da)
    flat = torch.from_numpy(da.emb.decode().isel(time=0).values.reshape(64, -1).T.copy())
    with torch.inference_mode():
        expected = net.eval()(flat).argmax(1).numpy() + 1
    valid = ~np.isnan(flat.numpy()).any(1)
    np.testing.assert_array_equal(out.values[0].ravel()[valid], expected[valid])
    assert legend_of(out).names == ("a", "b c", "d")
    proba = da.emb.predict(net, output="proba")
    np.testing.assert_allclose(proba.sum("category", skipna=False).values[:, -1], 1, atol=1e-6)


def test_networks_of_one_value():
    net = torch.nn.Linear(64, 1)
    out = array().emb.predict(net)
    weight, bias = (p.detach().numpy() for p in net.parameters())
    np.testing.assert_allclose(out, np.einsum("tbyx,b->tyx", array().values, weight[0]) + bias, atol=1e-5)
    with pytest.raises(EmbeddingError, match=r"does not take vectors of shape \(n, 64\)"):
        array().emb.predict(torch.nn.Linear(3, 1))
    with pytest.raises(EmbeddingError, match="must give"):
        array().emb.predict(torch.nn.Unflatten(1, (8, 8)))


def test_networks_are_named_by_content():
    a, b = torch.nn.Linear(64, 2), torch.nn.Linear(64, 2)
    same = torch.nn.Linear(64, 2)
    same.load_state_dict(a.state_dict())
    tokens = [dask.base.tokenize(networks.as_network(each, 64)) for each in (a, same, b)]
    assert tokens[0] == tokens[1] != tokens[2]


def fill_by_torch(da, model, names, device="cpu", batch=700):
    """What a worker with a device computes for a block."""
    codec = arrays.codec_of(da) if da.emb.encoded else None
    scale = None if codec is None else arrays.scale_of(da, codec)
    block = Block(da.values, da.dims.index("band"), None if scale is None else scale.values, codec)
    specs = model.outputs()
    unit = gx.product(da.attrs["product"]).unit_norm
    work = networks.work_of(model, codec, unit, names, dask.base.tokenize(model), device)
    dtype = [
        (n, specs[n].dtype, (len(specs[n].labels),)) if specs[n].dim else (n, specs[n].dtype) for n in names
    ]
    out = np.empty(block.pixels, dtype)
    lanes.fill_in_batches(block, work, out, device, batch)
    return out


NAMES = ["label", "proba", "margin", "entropy", "set", "distance", "aoa"]


def assert_torch_is_numpy(da, probe, device="cpu"):
    """Every output, within what rounding in another order of sums makes of it."""
    found = fill_by_torch(da, probe, NAMES, device)
    expected = da.emb.predict(probe, output=NAMES, device="cpu")
    dims = [d for d in da.dims if d != "band"]
    shape = [da.sizes[d] for d in dims]
    pixel = {name: found[name].reshape(*shape, *found[name].shape[1:]) for name in NAMES}
    wide = {name: expected[name].transpose(*dims, "category").values for name in ("proba", "set")}
    missing = np.isnan(expected.margin.values)
    np.testing.assert_allclose(pixel["proba"], wide["proba"], atol=1e-3)
    np.testing.assert_allclose(pixel["margin"], expected.margin, atol=1e-3)
    np.testing.assert_allclose(pixel["entropy"], expected.entropy, atol=2e-3)
    np.testing.assert_allclose(pixel["distance"], expected.distance, rtol=1e-4, atol=1e-5)
    edge = quantile(probe.conformal, probe.coverage)
    far = (abs(1 - wide["proba"] - edge) > 1e-3) | missing[..., None]
    np.testing.assert_array_equal(pixel["set"][far], wide["set"][far])
    far = (abs(expected.distance.values - probe.applicability["threshold"]) > 1e-4) | missing
    np.testing.assert_array_equal(pixel["aoa"][far], expected.aoa.values[far])
    alone = fill_by_torch(da, probe, ["label"], device)["label"].reshape(shape)
    for labels in (pixel["label"], alone):  # the second may go through a fused kernel
        clear = ~(expected.margin.values < 1e-5)
        np.testing.assert_array_equal(labels[clear], expected.label.values[clear])
        assert (labels[missing] == 0).all()


@pytest.mark.parametrize("method", ["logistic", "ridge", "knn", "centroid", "mlp"])
@pytest.mark.parametrize("order", [("time", "band", "y", "x"), ("y", "x", "time", "band")])
def test_tensors_give_what_numpy_gives(probes, method, order):
    da = array(decode=False, missing=True)
    probe = probes.get(method) or array().emb.year(2018).emb.fit_probe(
        points(), target="land_cover", method="mlp", cv=2, max_iter=20, hidden_layer_sizes=(16,)
    )
    da = da.copy()
    zeros = {"y": 5, "x": slice(20, 40)}
    da[zeros] = 0  # no vector of unit length
    da[{**zeros, "band": 3, "x": slice(30, 40)}] = 1
    assert_torch_is_numpy(da.transpose(*order), probe)
    for each in (da, da.emb.decode()):
        labels = each.emb.predict(probe).isel(zeros).values
        assert (labels[..., :10] == 0).all()
        assert (labels[..., 10:] != 0).all()


def test_a_probe_that_holds_nan_is_refused(probes):
    broken = {k: v.copy() for k, v in probes["logistic"].parameters.items()}
    broken["weights"][1, 2] = np.nan
    probe = dataclasses.replace(probes["logistic"], parameters=broken)
    with pytest.raises(
        EmbeddingError, match=r"predict: parameters\['weights'\] of the Probe has 1 NaN among its"
    ):
        array().emb.predict(probe)


def test_tensors_decode_scales():
    da = gx.testing.synthetic("tessera", shape=(40, 50), decode=False, missing=True)
    probe = da.emb.fit_probe(points(), target="land_cover", cv=2)
    assert_torch_is_numpy(da, probe)


def test_out_of_memory_halves_the_batch(probes, monkeypatch):
    da, seen = array(decode=False), []
    whole = networks.outputs

    def small(codes, scale, **rest):
        seen.append(codes.shape[1])
        if codes.shape[1] > 1100:
            raise torch.cuda.OutOfMemoryError("pretended")
        return whole(codes, scale, **rest)

    monkeypatch.setattr(networks, "outputs", small)
    found = fill_by_torch(da, probes["logistic"], ["label"], batch=4096)
    np.testing.assert_array_equal(found["label"], da.emb.predict(probes["logistic"]).values.ravel())
    assert max(seen[3:]) <= 1024
    monkeypatch.setattr(lanes, "_SMALLEST", 2000)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        fill_by_torch(da, probes["logistic"], ["label"], batch=1500)


def test_copies_on_a_device_are_kept_by_content(probes):
    first = networks.on_device(probes["knn"], "token", "cpu")
    assert networks.on_device(probes["knn"], "token", "cpu") is first
    for i in range(devices._KEPT):
        networks.on_device(probes["ridge"], f"other {i}", "cpu")
    assert networks.on_device(probes["knn"], "token", "cpu") is not first


def test_mlp_is_seeded_and_leaves_the_generator_alone():
    da = array().emb.year(2018)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b = (
        da.emb.fit_probe(points(), target="land_cover", method="mlp", cv=0, max_iter=30) for _ in range(2)
    )
    assert torch.rand(1) == expected
    assert a == b
    assert a != da.emb.fit_probe(points(), target="land_cover", method="mlp", cv=0, max_iter=30, seed=1)
    truth = SCENE.truth(da.emb.geobox, 2018)
    names = np.array(["", *a.legend.names])[da.emb.predict(a).values]
    assert (names == np.array(SCENE.names)[truth.values - 1]).mean() > 0.95


def test_mlp_regresses():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)).astype("f4")
    values = 5000 + 300 * np.abs(x[:, 0]).astype(float)  # in whatever unit
    options = {"hidden_layer_sizes": (16,), "learning_rate_init": 1e-2, "batch_size": 64, "max_iter": 40}
    probe = gx.fit_probe(x, values, method="mlp", cv=2, **options)
    assert probe.scores["random"]["r2"] > 0.9


def test_auto_is_the_cpu_where_there_is_no_gpu(probes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.place_for("auto", True) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.place_for("auto", True) == "cuda:0"
    assert devices.place_for("auto", False) == "cpu"
    assert devices.place_for("cuda:1", True) == "cuda:1"
    with pytest.raises(EmbeddingError, match="device='cuda:2' is not there: torch sees 2 GPUs"):
        devices.place_for("cuda:2", True)


def test_values_and_intervals_on_tensors():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 64)).astype("f4")
    for method in ("ridge", "knn"):
        probe = gx.fit_probe(x, (x[:, 0] + 0.1 * rng.standard_normal(500)).astype(float), method=method, cv=2)
        da = array(missing=True)
        found = fill_by_torch(da, probe, ["value", "lower", "upper"])
        expected = da.emb.predict(probe, output=["value", "lower", "upper"])
        for name in ("value", "lower", "upper"):
            np.testing.assert_allclose(found[name], expected[name].values.ravel(), atol=1e-4)


@pytest.mark.parametrize(("m", "k"), [(40, 40), (1000, 1), (1000, 3), (5000, 20)])
def test_the_best_of_the_best_groups_are_the_best(m, k):
    rng = np.random.default_rng(m)
    references = torch.from_numpy(rng.integers(-3, 4, (m, 4)).astype("f4"))  # many are equally near
    x = torch.from_numpy(rng.standard_normal((4, 300)).astype("f4"))
    ((_, found, index),) = networks._References.of(references).nearest(x, k)
    scores = x.T @ references.T - (references**2).sum(1) / 2
    np.testing.assert_array_equal(found, scores.topk(k, dim=1).values)
    np.testing.assert_array_equal(scores.gather(1, index), found)
    assert all(len(set(row)) == k for row in index.tolist())


TRITON = """
import numpy as np, torch, geoemb_xr as gx
from geoemb_xr.core import kernels
from geoemb_xr.predicting import fused, fused_cuda, nearest_cuda
rng = np.random.default_rng(0)
for bands, classes, n in [(64, 10, 130), (7, 2, 5), (16, 17, 128)]:
    x = rng.standard_normal((20 * classes, bands)).astype("f4")
    y = np.arange(len(x)) % classes * (1 if bands == 64 else 30) + 1
    x[np.arange(len(x)), np.arange(len(x)) % classes % bands] += 3
    probe = gx.fit_probe(x, y, cv=0, method="ridge")
    codes = rng.integers(-128, 128, (bands, n)).astype("i1")
    codes[:, ::3] = np.maximum(codes[:, ::3], -127)
    expected = np.empty((1, n), probe.legend.dtype)
    codes[:, 1::50] = 0
    fused.fill_labels(codes[None], probe, True, expected)
    assert (expected[0, 1::50] == 0).all()
    found = fused_cuda.Labels.of(probe, "cpu")(torch.from_numpy(codes)).numpy()
    scores = probe.parameters["weights"] @ (codes * abs(codes.astype("i4")) / 127.5**2)
    best = np.sort(scores + probe.parameters["bias"][:, None], axis=0)
    clear = (best[-1] - best[-2] > 1e-5) | (expected[0] == 0)
    assert clear.mean() > 0.99 and (found[clear] == expected[0][clear]).all()
    assert 0 < (found == 0).mean() < 1 or bands < 64
    if bands == 7:  # not on a word's edge
        assert (fused_cuda.Labels.of(probe, "cpu")(torch.from_numpy(codes)[:, 1:]).numpy() == found[1:]).all()
for bands, m, k in [(64, 300, 5), (4, 70, 1), (7, 330, 8)]:
    references = torch.from_numpy(rng.standard_normal((m, bands)).astype("f4"))
    x = torch.from_numpy(rng.standard_normal((bands, 5)).astype("f4"))
    offset = -(references**2).sum(1) / 2
    scores, numbers = nearest_cuda.Nearest.of(references, offset)(x, k)
    expected = (x.T @ references.T + offset).topk(k, dim=1)
    torch.testing.assert_close(scores, expected.values, atol=1e-4, rtol=1e-5)
    assert (numbers == expected.indices).all()
print("same")
"""


@pytest.mark.complete  # the interpreter below runs them all
def test_the_kernels_for_gpus_compile_where_there_is_none():
    compiler = pytest.importorskip("triton.compiler")
    from triton.backends.compiler import GPUTarget

    from geoemb_xr.predicting import fused_cuda, nearest_cuda

    numbers = {"n": "i32", "bands": "i32", "count": "i32", "words": "i32", "stride": "i32"}
    pointers = dict.fromkeys(
        ("vectors", "high", "low", "offset", "references", "scores", "weights", "bias"), "*fp32"
    )
    others = {"codes": "*i8", "values": "*i32", "out": "*u8", "groups": "*i32", "numbers": "*i64"}
    labels = {"BANDS": 64, "CLASSES": 10, "GROUPS": 2, "UNIT": True, "SMALL": True, "UNROLL": 8, "WORDS": 64}
    nearest = {"WIDTH": 64, "GROUP": 32, "K": 5}
    for kernel, sizes in [
        (fused_cuda._labels, labels),
        (nearest_cuda._best_groups, nearest | {"VECTORS": 64}),
        (nearest_cuda._best_of_groups, nearest | {"ROWS": 8}),
    ]:
        kinds = numbers | pointers | others | dict.fromkeys(sizes, "constexpr")
        own = {name: kinds[name] for name in kernel.arg_names}
        source = compiler.ASTSource(kernel, own, sizes)
        assert "ptx" in compiler.compile(source, target=GPUTarget("cuda", 90, 32)).asm


@pytest.mark.slow
def test_the_kernels_for_gpus_give_what_those_for_cpus_give():
    """In Triton's interpreter, which runs a kernel with NumPy."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", TRITON],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.stdout.endswith("same\n"), done.stderr


# --- on a GPU ---------------------------------------------------------------------------------------------------

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


class TestOnAGpu:
    pytestmark = on_gpu

    @pytest.mark.parametrize("order", [("time", "band", "y", "x"), ("y", "x", "time", "band")])
    @pytest.mark.parametrize("method", ["logistic", "ridge", "knn", "centroid"])
    def test_it_gives_what_the_cpu_gives(self, probes, method, order):
        da = array(decode=False, missing=True).transpose(*order)
        assert_torch_is_numpy(da, probes[method], "cuda:0")
        chunked = da.chunk(y=16)
        there = chunked.emb.predict(probes[method], device="cuda:0").compute(num_workers=4)
        margin = da.emb.predict(probes[method], output="margin", device="cpu").values
        clear = ~(margin < 1e-5)
        expected = da.emb.predict(probes[method], device="cpu").values
        np.testing.assert_array_equal(there.values[clear], expected[clear])

    def test_scales_are_decoded_there(self):
        da = gx.testing.synthetic("tessera", shape=(40, 50), decode=False, missing=True)
        probe = da.emb.fit_probe(points(), target="land_cover")
        assert_torch_is_numpy(da, probe, "cuda:0")

    def test_linear_labels_go_through_the_kernel(self, probes):
        pytest.importorskip("triton")
        assert networks.on_device(probes["logistic"], "kernel", "cuda:0").kernel is not None

    @pytest.mark.parametrize(
        ("m", "bands", "k"), [(10_000, 64, 5), (900, 7, 1), (5000, 128, 16), (600, 100, 3)]
    )
    def test_neighbours_are_found_by_the_kernel(self, m, bands, k):
        """As exact as float32: scores to its rounding, and the same neighbours but for ties."""
        pytest.importorskip("triton")
        rng = np.random.default_rng(0)
        references = torch.from_numpy(rng.standard_normal((m, bands)).astype("f4")).cuda()
        x = torch.from_numpy(rng.standard_normal((bands, 3001)).astype("f4")).cuda()
        table = networks._References.of(references)
        assert table.kernel is not None
        ((_, found, index),) = table.nearest(x, k)
        exact = x.T.double() @ references.T.double() - (references.double() ** 2).sum(1) / 2
        best = exact.topk(k, dim=1).values
        torch.testing.assert_close(found.double(), best, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(exact.gather(1, index), best, atol=2e-5, rtol=1e-5)
        assert all(len(set(row)) == k for row in index.tolist())

    def test_locked_pages_go_over_as_they_are(self, probes):
        da = array(decode=False, missing=True)
        locked = torch.from_numpy(da.values).pin_memory().numpy()
        found = fill_by_torch(da.copy(data=locked), probes["logistic"], ["label"], "cuda:0")
        expected = da.emb.predict(probes["logistic"], device="cpu").values.ravel()
        assert (found["label"] == expected).mean() > 0.999

    def test_memory_that_is_short_halves_the_batch(self, probes):
        """Of a block of four million pixels as much float32 as a limit on this process does not allow."""
        codes = np.random.default_rng(0).integers(-127, 128, (64, 2048, 2048), dtype=np.int8)
        da = gx.wrap(codes, "alphaearth", geobox=gx.testing.geobox((2048, 2048)), version="synthetic")
        _, total = torch.cuda.mem_get_info()
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1e9 / total)
        try:
            found = fill_by_torch(da, probes["ridge"], ["label", "proba"], "cuda:0", batch=1 << 22)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        expected = fill_by_torch(da, probes["ridge"], ["label", "proba"], "cuda:0")
        np.testing.assert_allclose(found["proba"], expected["proba"], atol=1e-5)

    def test_networks_run_there(self):
        net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        da = array(decode=False, missing=True).chunk(y=16)
        there = da.emb.predict(net, device="cuda:0", output="proba")
        np.testing.assert_allclose(there, da.emb.predict(net, device="cpu", output="proba"), atol=1e-5)
