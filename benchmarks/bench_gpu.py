"""Maps on a GPU, from codes in host memory and from codes that are there already.

What runs is what ``predict`` runs on a block, without dask's graph around it. Peers: the same scikit-learn
classifier on the host's processors, and a plain PyTorch DataLoader loop over decoded vectors, as its tutorial has
it (workers, pinned memory, asynchronous copies), once vector by vector and once in whole batches. The limits are
measured in the same run: a copy over the bus from page-locked memory, and a copy within the device's memory.
Without a GPU nothing is measured, unless ``--small``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import harness
import numpy as np

import geoemb_xr as gx
from geoemb_xr.core import codecs
from geoemb_xr.execution import lanes
from geoemb_xr.execution.blocks import Block
from geoemb_xr.predicting import networks

BANDS, CLASSES = 64, 10
LABEL = np.dtype([("label", "u1")])


def seconds_of(call: Callable[[], Any], repeat: int, device: str) -> float:
    """Median of wall times, all work on the device done, after one that does not count."""
    import torch

    found = []
    for turn in range(repeat + 1):
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        if turn:
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def training(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors and classes."""
    x = np.random.default_rng(0).standard_normal((n, BANDS)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, x[:, :CLASSES].argmax(axis=1) + 1


def probes(n: int) -> dict[str, gx.Probe]:
    """A linear probe, neighbours, k = 5, and a perceptron of one layer of 128."""
    x, y = training(n)
    return {
        "linear": gx.fit_probe(x, y, cv=0),
        "kNN": gx.fit_probe(x, y, method="knn", n_neighbors=5, cv=0),
        "MLP": gx.fit_probe(x, y, method="mlp", cv=0, max_iter=5),
    }


def locked(shape: tuple[int, ...], device: str) -> np.ndarray:
    """Codes in page-locked memory."""
    import torch

    codes = torch.empty(shape, dtype=torch.int8, pin_memory=device != "cpu").random_(-127, 128)
    return codes.numpy()


def resident(codes: np.ndarray, probe: gx.Probe, device: str, batch: int) -> Callable[[], None]:
    """Labels of codes that lie on the device, which stay there, in batches."""
    import torch

    there = torch.from_numpy(codes).to(device)
    model = networks.on_device(probe, str(id(probe)), device)
    out = torch.empty(codes.shape[1], dtype=torch.uint8, device=device)

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, codes.shape[1], batch):
                part = slice(start, start + batch)
                some = there[:, part]
                out[part] = networks.outputs(
                    some,
                    None,
                    codec=codecs.SIGNED_SQUARE,
                    unit=True,
                    model=model,
                    names=["label"],
                    missing={"label": 0},
                )["label"]

    return run


def from_host(
    codes: np.ndarray, probe: gx.Probe, device: str, threads: int, pixels: int
) -> Callable[[], None]:
    """Labels of blocks of host memory, a block a dask thread, as ``predict`` does it."""
    block = Block(codes, 0, None, codecs.SIGNED_SQUARE)
    count = max(pixels // block.pixels, 1)

    def one(_: int) -> None:
        out = np.empty(block.pixels, LABEL)
        work = networks.work_of(probe, block.codec, True, ["label"], str(id(probe)), device)
        lanes.fill_in_batches(block, work, out, device)

    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(one, range(count)))


def data_loader(codes: np.ndarray, device: str, *, whole: bool) -> Callable[[], None]:
    """Decoded vectors through a DataLoader into a linear layer, the label of the largest score back."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    vectors = torch.from_numpy(codecs.decode_signed_square(codes, None, 0).T.copy())
    layer = torch.nn.Linear(BANDS, CLASSES).to(device)
    own: dict[str, Any] = {"batch_size": 16_384}
    if device != "cpu":  # a forked worker would take the CUDA context with it
        context = {"multiprocessing_context": "spawn", "persistent_workers": True}
        own |= {"num_workers": 4, "pin_memory": True, **context}
    if whole:  # automatic batching switched off, as its documentation says for data that come in batches
        own |= {"batch_size": None}
    loader = DataLoader(vectors.split(1 << 16) if whole else TensorDataset(vectors), **own)

    def run() -> None:
        with torch.inference_mode():
            for some in loader:
                layer((some if whole else some[0]).to(device, non_blocking=True)).argmax(1).byte().cpu()

    return run


def scikit(codes: np.ndarray, method: str, n: int) -> Callable[[], None]:
    """The same kind of classifier on the host."""
    import warnings

    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier

    kinds = {
        "linear": LogisticRegression(),
        "kNN": KNeighborsClassifier(5, algorithm="brute"),
        "MLP": MLPClassifier((128,), max_iter=3),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = kinds[method].fit(*training(n))
    vectors = codecs.decode_signed_square(codes, None, 0).T.copy()
    return lambda: estimator.predict(vectors)


def copies(device: str, repeat: int) -> str:
    """What the bus gives, by how pages are locked, and what the device's memory gives."""
    import torch

    size = 1 << 24
    pageable = torch.randint(-127, 128, (size,), dtype=torch.int8)
    pinned = pageable.pin_memory()
    there, other = (torch.empty(size, dtype=torch.int8, device=device) for _ in range(2))
    large = [torch.empty(1 << 30, dtype=torch.int8, device=device) for _ in range(2)]

    def staged() -> None:
        pinned.numpy()[...] = pageable.numpy()
        there.copy_(pinned, non_blocking=True)

    calls = {
        "page-locked, asynchronous": lambda: there.copy_(pinned, non_blocking=True),
        "into a held page-locked buffer, then over": staged,
        "pageable, plain copy": lambda: there.copy_(pageable),
        "pages locked anew (.pin_memory())": lambda: there.copy_(pageable.pin_memory(), non_blocking=True),
        "back, page-locked": lambda: pinned.copy_(other, non_blocking=True),
    }
    rows = [(name, size / 1e9 / seconds_of(call, repeat, device)) for name, call in calls.items()]
    within = seconds_of(lambda: large[0].copy_(large[1]), repeat, device)
    rows.append(("within the device (read and write)", 2 * (1 << 30) / 1e9 / within))
    return harness.table("Copies of 16 MB, one thread (×: see below)", ("way", "GB/s"), rows)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--small", action="store_true", help="the smallest size, on the CPU where there is no GPU"
    )
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args(argv)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.small:
        print("no GPU is there: nothing measured (--small runs on the CPU)")
        return
    name = torch.cuda.get_device_name(0) if device != "cpu" else "the CPU"
    if device != "cpu":
        copies(device, given.repeat)
    block, many, few, known = (
        (1 << 10, 1 << 12, 1 << 8, 200) if given.small else (1 << 18, 1 << 24, 1 << 15, 10_000)
    )
    codes = locked((BANDS, many), device)
    pageable = np.array(codes[:, :block])
    rows = []
    for kind, probe in probes(known).items():
        linear = kind == "linear"
        slow = 16 if kind == "kNN" else 1
        part = np.ascontiguousarray(codes[:, : many // slow])
        calls: dict[str, tuple[Callable[[], Any], int]] = {
            "codes on the device": (resident(part, probe, device, many if linear else block), many // slow),
            "codes in page-locked memory, 1 thread": (
                from_host(codes if slow == 1 else locked(part.shape, device), probe, device, 1, many // slow),
                many // slow,
            ),
        }
        for threads in (1, 2, 4, 8):
            blocks = threads * max(16 // slow, 1)
            calls[f"blocks of 512², pageable, {threads} threads"] = (
                from_host(pageable, probe, device, threads, blocks * block),
                blocks * block,
            )
        host = codes[:, : few if kind == "kNN" else block]
        calls["scikit-learn on the host"] = scikit(host, kind, known), host.shape[1]
        if linear:
            for loop, whole in (("DataLoader loop", False), ("DataLoader loop, whole batches", True)):
                calls[loop] = data_loader(codes[:, : block * 4], device, whole=whole), block * 4
        rates = {what: n / seconds_of(call, given.repeat, device) for what, (call, n) in calls.items()}
        base = rates["scikit-learn on the host"]
        rows += [
            (kind, what, rate / 1e6, f"{rate / base:,.3g} ×", rate * BANDS / 1e9)
            for what, rate in rates.items()
        ]
    columns = ("probe", "what", "Mpx/s", "scikit-learn", "GB/s of codes")
    harness.table(f"Labels of 64-band codes, 10 classes, on {name}", columns, rows)


if __name__ == "__main__":
    main()
