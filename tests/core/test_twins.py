"""Compiled loops and their twins in NumPy: the same results, and a package that works with the twins alone."""

import importlib
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from twin_inputs import (
    FACTOR,
    PAIRS,
    QUERY,
    RUNS,
    WEIGHTS,
    at,
    beside,
    cells,
    codes,
    corners,
    decoded,
    empty,
    lying,
    outlined,
    parts,
    planes,
    result,
    rng,
    scales,
    side_by_side,
    squares,
    turned,
    vectors,
    window,
    windowed,
    without_square,
    years_apart,
)

import geoemb_xr as gx
from geoemb_xr.analysis.year_kernels import exchanges
from geoemb_xr.core import compiling, kernels
from geoemb_xr.core.errors import MissingExtraError

PACKAGE = Path(gx.__file__).parent
ROOT = PACKAGE.parent
#: Parts of other loops, which only these call.
WITHOUT_TWIN = {
    "core.coding": {"_find_least", "_find_lost"},
    "execution.linear": {"_sum_piece"},
    "analysis.year_kernels": {"_exact", "keep_or_nan", "put_beyond", "degrees_of"},
    "analysis.code_kernels": {"_squared", "_short", "_signed", "_sum_of", "_known", "_take_over"},
    "geo.resampling_kernels": {
        "decoded_value", "_mixed", "_cover", "_add_footprint", "_finish_mean", "_weight", "_area", "_footprint",
    },
    "geo.placing_kernels": {"_find_runs"},
    "geo.covering": {"_add_span", "_add_edge"},
    "geo.pooling_kernels": {
        "_add_weights", "_side_by_side", "_sorted_out", "_leave_out_missing", "_add_group", "_add_columns",
    },  # fmt: skip,
}  # fmt: skip


def found():
    """Every kernel of the package, by module and name."""
    known = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if "kernels.jit" not in (text := path.read_text()) and "\n@jit" not in text:
            continue
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for each in vars(importlib.import_module(f"geoemb_xr.{name}")).values():
            if isinstance(each, kernels.Kernel) and each.__module__ == f"geoemb_xr.{name}":
                known[name, each.__name__] = each
    return known


KERNELS = found()

#: Arguments of each kernel, which writes to some of them; and how far its twin may be off: 0 where it only gathers.
CASES = {
    ("core.kernels", "_transpose_bytes"): (
        lambda: (codes(16, 3, 24).view(np.uint64), empty(3, 24, 2, dtype=np.uint64)), 0
    ),
    ("core.kernels", "_transpose_values"): (
        lambda: (codes(7, 3, 10).view(np.uint8), empty(3, 10, 7, dtype=np.uint8)), 0
    ),
    ("core.coding", "_decode_square_first"): (lambda: (codes(2, 12, 30), -128, FACTOR, empty(2, 12, 30)), 0),
    ("core.coding", "_decode_square_last"): (
        lambda: (np.ascontiguousarray(codes(12, 30).T), -128, FACTOR, empty(30, 12)), 0
    ),
    ("core.coding", "decode_square_less"): (
        lambda: (codes(12, 30), -128, FACTOR, QUERY, empty(12, 30), empty(30, dtype=np.bool_)), 1e-6
    ),
    ("core.coding", "_scale_planes"): (lambda: (codes(2, 12, 30), scales(2, 30), empty(2, 12, 30)), 0),
    ("core.coding", "_scale_rows"): (
        lambda: (np.ascontiguousarray(codes(12, 30).T), scales(1, 30)[0], empty(30, 12)), 0
    ),
    ("core.coding", "encode_square"): (lambda: (planes(), empty(2, 12, 30, dtype=np.int8)), 0),
    ("core.coding", "encode_scaled"): (
        lambda: (planes(), empty(2, 12, 30, dtype=np.int8), empty(2, 1, 30)), 0
    ),
    ("core.coding", "unit_square"): (lambda: (codes(2, 12, 1030), -128, FACTOR, empty(2, 12, 1030)), 0),
    ("core.coding", "_divide_planes_by_length"): (lambda: (planes(), empty(2, 12, 30)), 0),
    ("core.coding", "_divide_rows_by_length"): (
        lambda: (vectors(30, 12, missing=True), empty(30, 12)), 0
    ),
    ("geo.placing_kernels", "fill_cells"): (
        lambda: (
            np.array([[-3, 0], [5, 4], [12, 12]]), 8, corners(), np.int64(-(2**62)),
            empty(2, 15, 14, dtype=np.int64),
        ),
        0,
    ),
    ("geo.cell_kernels", "cell_means"): (lambda: cells(), 1e-6),
    ("geo.cell_kernels", "cell_means", "floats"): (lambda: cells(np.float32, size=2, unit=False), 1e-6),
    **{
        ("geo.cell_kernels", "square_cell_means", str(size)): (
            lambda size=size, x=x: (
                codes(12, 13, x), -128, size, size > 2, float(FACTOR), empty(12, -(-13 // size), -(-x // size)),
            ),
            1e-6,
        )
        for size, x in ((2, 15), (3, 15), (40, 4200))
    },
    ("geo.placing_kernels", "gather"): (
        lambda: (
            rng().integers(0, 2**60, (14, 11, 3)).astype(np.uint64), at(), np.arange(3, dtype=np.uint64),
            empty(13, 17, 3, dtype=np.uint64),
        ),
        0,
    ),
    **{
        ("geo.placing_kernels", "gather_planes", name): (
            lambda dtype=dtype, at=at, turned=turned: (
                rng().integers(0, 200, (5, 12, 16)).astype(dtype), at(), 2, -1, *turned,
                empty(5, 13, 17, dtype=dtype),
            ),
            0,
        )
        for name, dtype, at, turned in (
            ("bytes", np.uint8, beside, (False, False)), ("words", np.uint32, beside, (True, False)),
            ("anywhere", np.uint8, at, (True, True)),
        )
    },
    ("geo.resampling_kernels", "square_factors"): (
        lambda: (np.ascontiguousarray(codes(12, 30).T), -128, FACTOR, empty(30)), 0
    ),
    **{
        ("geo.resampling_kernels", "bilinear", f"{np.dtype(dtype)}{first}"): (
            lambda dtype=dtype, first=first: (
                *window(dtype), decoded(dtype), at(), first, first,
                empty(*((6, 13, 17) if first else (13, 17, 6)), dtype=np.result_type(dtype, "f4")),
            ),
            1e-6,
        )
        for dtype in (np.int8, np.float32, np.float64) for first in (True, False)
    },
    **{
        ("geo.resampling_kernels", "average", f"{np.dtype(dtype)}{size}{unit}"): (
            lambda dtype=dtype, size=size, unit=unit: (
                *window(dtype), turned(size), not unit or size > 1, unit, 0.7,
                empty(8, 9, 6, dtype=np.result_type(dtype, "f4")), empty(8, 9, 2),
            ),
            1e-6,
        )
        for dtype in (np.int8, np.float32, np.float64) for size, unit in ((0.7, True), (2.6, False))
    },
    ("geo.resampling_kernels", "add_footprints"): (
        lambda: (*window(), turned(2.6), np.ones((8, 9, 8))), 1e-6
    ),
    ("geo.resampling_kernels", "finish_means"): (
        lambda: (
            np.where(rng().random((8, 9, 1)) < 0.2, 0, rng().random((8, 9, 8))), turned(2.6), False, 0.7,
            empty(8, 9, 6), empty(8, 9, 2),
        ),
        1e-6,
    ),
    **{
        ("geo.resampling_kernels", "mode", name): (
            lambda corners=corners, nodata=nodata: (
                rng().integers(0, 4, (14, 11), np.uint8), corners(), nodata, np.zeros(256, np.int64),
                empty(8, 8, dtype=np.uint8),
            ),
            0,
        )
        for name, corners, nodata in (("turned", lambda: turned(2.6)[:, :, :9].copy(), 0), ("ties", squares, 3))
    },
    **{("geo.covering", "cover", str(touched)): (partial(outlined, touched), 1e-12) for touched in (True, False)},
    **{
        ("geo.pooling_kernels", "gather_planes", order): (
            lambda order=order: (np.asarray(codes(6, 8, 10), order=order), RUNS, empty(6, 10, dtype="i1")), 0
        )
        for order in "CF"
    },
    ("geo.pooling_kernels", "gather_rows"): (
        lambda: (codes(8, 10, 12), RUNS, empty(10, 12, dtype=np.int8)), 0
    ),
    ("geo.pooling_kernels", "settle"): (
        lambda: (np.ascontiguousarray(vectors(30, 12, missing=True).T), *parts(), np.ones(4)), 1e-12
    ),
    **{
        ("geo.pooling_kernels", "add_powers", str(power)): (
            lambda power=power: (vectors(30, 12).T.copy(), power, *parts(), np.ones((4, 12))), 1e-12
        )
        for power in (1, 2)
    },
    ("geo.pooling_kernels", "add_squares"): (
        lambda: (codes(12, 8, 10), float(FACTOR), *windowed(), np.ones(4), np.ones((4, 12))), 1e-12
    ),
    ("geo.pooling_kernels", "widen"): (
        lambda: (vectors(30, 12).T.copy(), *parts(), np.full((4, 2, 12), -np.inf)), 0
    ),
    ("retrieval.scores", "_squares_band_first"): (lambda: (codes(12, 5000), QUERY, empty(5000)), 1e-6),
    ("retrieval.scores", "_squares_band_last"): (
        lambda: (np.ascontiguousarray(codes(12, 30).T), QUERY, empty(30)), 1e-6
    ),
    ("retrieval.scores", "_products_band_first"): (
        lambda: (np.ascontiguousarray(vectors(30, 12, missing=True).T), QUERY, *np.zeros((2, 30), "f4")), 1e-5
    ),
    ("retrieval.scores", "_products_band_last"): (
        lambda: (vectors(30, 12, missing=True), QUERY, *np.zeros((2, 30), "f4")), 1e-5
    ),
    ("retrieval.sketches", "_levels"): (
        lambda: (
            rng().integers(0, 2**63, 100).astype(np.uint64),
            rng().integers(0, 256, 13).astype(np.uint8),
            rng().integers(0, 8191, (8, 256)).astype(np.uint16),
            empty(100, dtype=np.uint16),
            np.zeros(1 << 16, np.int64),
        ),
        0,
    ),
    ("analysis.changes", "_largest_of"): (
        lambda: (
            np.where(rng().random((4, 30)) < 0.4, np.nan, rng().integers(0, 5, (4, 30))).astype("f4"),
            np.array([0, 2019, 2020, 2021, 2022], "f4"), exchanges(4), empty(3, 30),
        ),
        0,
    ),
    ("analysis.pieces", "load_codes"): (
        lambda: (
            codes(12, 90), 3, 30, -128, FACTOR, 1,
            empty(12, 2, 64, dtype=np.int8), empty(2, 64), np.zeros((2, 64), bool),
        ),
        0,
    ),
    ("analysis.pieces", "load_vectors"): (
        lambda: (vectors(12, 90, missing=True), 3, 30, 1, empty(12, 2, 64), np.zeros((2, 64), bool)), 0
    ),
    **{
        ("analysis.year_kernels", name, f"{how}{kind}"): (
            lambda kind=kind, given=given, out=out: (side_by_side(kind), *given, *out()), off
        )
        for kind in ("squares", "scaled", "vectors")
        for name, how, given, out, off in (
            ("mean_of", "unit ", (WEIGHTS, True, 2), result, 1e-6),
            ("mean_of", "", (WEIGHTS, False, 1), result, 1e-6),
            ("deviations_of", "", (WEIGHTS, 2), result, 1e-6),
            ("extremes_of", "max ", (True, 2), result, 0),
            ("extremes_of", "min ", (False, 1), result, 0),
            ("median_of", "unit ", (exchanges(4), True, 2), result, 0),
            ("median_of", "", (exchanges(4), False, 1), result, 0),
            ("lengths_of", "", (PAIRS,), lambda: (empty(3, 128),), 1e-6),
        )
    },
    **{
        ("analysis.code_kernels", f"{name}_codes", how): (
            lambda given=given: (lying(), *given, *result()), 0
        )
        for name, how, given in (
            ("mean_of", "unit", (FACTOR, True, 2)),
            ("mean_of", "", (FACTOR, False, 1)),
            ("deviations_of", "", (FACTOR, 2)),
            ("extremes_of", "max", (True, FACTOR, 2)),
            ("extremes_of", "min", (False, FACTOR, 1)),
            ("median_of", "unit", (exchanges(4), FACTOR, True, 2)),
            ("median_of", "", (exchanges(4), FACTOR, False, 1)),
        )
    },
    **{
        (f"analysis.{module}", name, f"{how} of {kind}"): (
            lambda kind=kind, how=how: (side_by_side(kind), PAIRS, how == "angles", empty(3, 128)), 1e-6
        )
        for module, name, kind in (
            ("year_kernels", "cosines_of", "vectors"),
            ("code_kernels", "cosines_of_codes", "squares"),
            ("code_kernels", "cosines_of_codes", "scaled"),
        )
        for how in ("angles", "cosines")
    },
    **{
        ("analysis.code_kernels", f"products_of_{number}"): (
            lambda count=count: (
                *years_apart(count), 64, 256, empty((2 * count - 1) * 256, dtype=np.int32),
                empty((2 * count - 1) * 256, dtype=np.float64), empty(count * 256, dtype=np.int8),
            ),
            0,
        )
        for number, count in (("two", 2), ("four", 4))
    },
    **{
        ("analysis.code_kernels", "cosines_from", how): (
            lambda how=how: (
                rng().choice([0, 0.2, 0.9], 5 * 256), rng().integers(-128, -125, 3 * 256, np.int8),
                -128, how == "angle", 128, 256, np.zeros((3, 512), bool), empty(2, 512),
            ),
            1e-6,
        )
        for how in ("angle", "cosine")
    },
    **{
        ("analysis.steps", f"_angles_of_{number}"): (
            lambda count=count: (
                *years_apart(count), -128, True, np.zeros((count, 256), bool), empty(count - 1, 256)
            ),
            1e-5,
        )
        for number, count in (("two", 2), ("four", 4))
    },
    **{
        ("analysis.year_kernels", "cosines_of_two", how): (
            lambda how=how: (*planes(), how == "angles", 3, 25, empty(30)), 1e-6
        )
        for how in ("angles", "cosines")
    },
    ("analysis.year_kernels", "carry_on"): (lambda: without_square(*side_by_side("scaled")), 0),
    ("analysis.clusters", "_gather"): (
        lambda: (
            vectors(30, 5), np.zeros(5, "f4"), vectors(30, 12), empty(30, dtype=np.int32), np.zeros((5, 12)),
            np.zeros(5, np.int64),
        ),
        1e-6,
    ),
    ("execution.hashes", "_mix"): (lambda: (rng().integers(0, 2**63, 50).astype(np.uint64),), 0),
    ("execution.neighbours", "exact_distance"): (
        lambda: (
            vectors(30, 12), vectors(40, 12), rng().integers(0, 40, (30, 3)).astype(np.int32), empty(30, 3),
        ),
        1e-6,
    ),
    ("execution.neighbours", "keep_best"): (
        lambda: (
            np.round(vectors(30, 128), 1), 64, np.sort(np.round(vectors(30, 4), 1) + 1)[:, ::-1].copy(),
            empty(30, 4, dtype=np.int32),
        ),
        0,
    ),
    ("execution.linear", "sum_squares"): (
        lambda: (codes(14, 700), 3, vectors(5, 14) * FACTOR, QUERY[:5].copy(), empty(5, 600)), 1e-5
    ),
    ("execution.linear", "label_squares"): (
        lambda: (
            codes(12, 700), vectors(5, 12) * FACTOR, np.zeros(5, "f4"), np.array([3, 1, 9, 4, 7], np.uint8), True,
            empty(700, dtype=np.uint8),
        ),
        0,
    ),
    ("probes.scores", "_best_class"): (
        lambda: (
            np.where(rng().random((5, 300)) < 0.1, np.float32(np.nan), np.round(vectors(5, 300), 1)),
            np.array([3, 1, 9, 4, 7], np.uint8), empty(300, dtype=np.uint8),
        ),
        0,
    ),
}  # fmt: skip
#: Arguments that are room to work in, whatever is left there.
ROOM = {("geo.resampling_kernels", "bilinear"): 3}


@pytest.mark.parametrize("which", CASES, ids=".".join)
def test_a_twin_gives_what_its_kernel_gives(which):
    pytest.importorskip("numba")
    kernel, (make, off) = KERNELS[which[:2]], CASES[which]
    ours, theirs, before = make(), make(), make()
    results = [kernel.compiled(*ours), kernel.twin(*theirs)]
    changed = 0
    for n, (a, b, start) in enumerate(
        zip([*ours, results[0]], [*theirs, results[1]], [*before, None], strict=True)
    ):
        if isinstance(a, tuple) or n == ROOM.get(which[:2]):  # a tuple is a piece of years, which is read
            continue
        if off:
            np.testing.assert_allclose(b, a, rtol=off, atol=off) if a is not None else None
        else:
            np.testing.assert_array_equal(b, a)
        changed += start is not None and not np.array_equal(
            a, start, equal_nan=np.asarray(a).dtype.kind == "f"
        )
    assert changed


def test_every_kernel_has_a_twin_or_is_known_to_have_none():
    without = {(module, name) for module, names in WITHOUT_TWIN.items() for name in names}
    assert {key for key, kernel in KERNELS.items() if kernel.twin is None} == without
    assert {key for key, kernel in KERNELS.items() if kernel.twin is not None} == {key[:2] for key in CASES}


def test_a_loop_without_a_twin_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    kernel = kernels.Kernel(lambda: None)
    with pytest.raises(MissingExtraError, match="needs the package 'numba'"):
        kernel()
    assert kernel.in_numpy(lambda: 5) is kernel.twin
    assert kernel() == 5


def test_only_twins_without_a_tolerance_stand_in_where_there_is_numba():
    exact = {key for key, kernel in KERNELS.items() if kernel.has_exact_twin}
    assert exact
    assert all(off == 0 for key, (_, off) in CASES.items() if key[:2] in exact)


def test_a_session_compiles_only_what_it_calls(monkeypatch):
    pytest.importorskip("matplotlib").use("agg")
    source = gx.example("alphaearth")  # made first: writing one encodes more than a few pixels
    compiled, compile_it = [], compiling._compile

    def noting(function, fastmath):
        compiled.append(function.__module__.removeprefix("geoemb_xr."))
        return compile_it(function, fastmath)

    monkeypatch.setattr(compiling, "_compile", noting)
    monkeypatch.setattr(compiling, "SPARED", 60)  # however slow the machine is
    monkeypatch.setattr(kernels.Kernel, "is_started", False)
    for kernel in KERNELS.values():
        monkeypatch.setattr(kernel, "_compiled", None)
    da = gx.open("alphaearth", source, time=2024)
    da.emb.plot()
    da.emb.reproject("EPSG:3035", resolution=10).emb.load()
    assert not compiled
    da.emb.reproject("EPSG:3035", resolution=10, resampling="bilinear").emb.load()
    assert "geo.resampling_kernels" in compiled  # sums of a twin have other bits
    assert {name.split(".")[0] for name in compiled} <= {"geo", "core"}


# --- the whole way ------------------------------------------------------------------------------------------------

WAY = """
import sys
if sys.argv[1] == "blocked":
    sys.modules["numba"] = None
import numpy as np, shapely
import geoemb_xr as gx
from geoemb_xr.testing import scene
codes = gx.testing.synthetic("alphaearth", shape=(60, 50), years=(2018, 2024), missing=True, decode=False)
codes.emb.to_zarr("codes.zarr")
da = gx.open("codes.zarr", decode=False)
one = da.emb.year(2018)
three = gx.testing.synthetic("alphaearth", shape=(30, 30), years=(2018, 2019, 2020))
labels = scene().points(60, radius=200)
found = {
    "decoded": da.emb.decode(),
    "cropped": da.emb.crop((11.3685, 47.2487, 11.3712, 47.2515)).emb.decode(),
    "reprojected": one.emb.reproject("EPSG:3035", resolution=10),
    "bilinear": one.emb.reproject("EPSG:3035", resolution=10, resampling="bilinear"),
    "average": one.emb.reproject("EPSG:3035", resolution=35),
    "coarsened": one.emb.coarsen(4),
    "classes": scene().truth(one.emb.geobox, 2018).emb.reproject("EPSG:3035", resolution=30, resampling="mode"),
    "zonal": da.emb.zonal_stats(shapely.Polygon([(11.3685, 47.2489), (11.3712, 47.2491), (11.3700, 47.2515)])),
    "change": da.emb.change(2018, 2024),
    "unusual": three.emb.change(2018, 2020, null="years").percentile,
    "similar": one.emb.similarity((11.37, 47.25)),
    "scores": one.emb.search((11.37, 47.25), 5).similarity.values,
    "pca": one.emb.pca(one.emb.fit_pca(3, n_samples="all")),
    "mean": da.emb.aggregate("mean"),
}
for method in ("ridge", "logistic", "centroid", "knn"):
    probe = one.emb.fit_probe(labels, target="land_cover", method=method, cv=2)
    found[method] = one.emb.predict(probe)
    found["distance"] = one.emb.predict(probe, output="distance")
found["clusters"] = one.emb.predict(one.emb.fit_clusters(3))
import matplotlib
matplotlib.use("agg")
one.emb.rgb(["A01", "A16", "A09"], limits=(-0.3, 0.3)).emb.plot()
found["ridge"].emb.to_cog("map.tif")
found["reprojected"].emb.to_zarr("vectors.zarr", encode=True)
found["read again"] = gx.open("vectors.zarr")
assert ("numba" in sys.modules and sys.modules["numba"] is not None) == (sys.argv[1] != "blocked")
np.savez(sys.argv[2], **{name: np.asarray(each) for name, each in found.items()})
"""

#: What only gathers, and gives the same bits.
MOVED = ("decoded", "cropped", "reprojected", "classes", "read again")


@pytest.mark.complete  # CI runs it with the twins' other tests, in a step of its own
def test_the_whole_way_goes_without_numba(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    pytest.importorskip("matplotlib")
    made = {how: tmp_path / f"{how}.npz" for how in ("blocked", "compiled")}
    command = [sys.executable, "-c", WAY, "blocked", str(made["blocked"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "again").mkdir()
    monkeypatch.chdir(tmp_path / "again")
    monkeypatch.setattr(sys, "argv", ["", "compiled", str(made["compiled"])])
    exec(WAY, {})
    made = {how: dict(np.load(path)) for how, path in made.items()}
    for name, ours in made["compiled"].items():
        theirs = made["blocked"][name]
        if name in MOVED:
            np.testing.assert_array_equal(theirs, ours, err_msg=name)
        elif ours.dtype.kind == "f" and name != "unusual":
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=2e-5, err_msg=name)
        else:
            assert (theirs != ours).mean() < 0.005, name  # ties
