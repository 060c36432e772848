"""The demo: ``python -m geoemb_xr`` opens a product, puts it on a grid, looks at it, probes it and maps it.

Without arguments it runs on a synthetic AlphaEarth-like sample made on the spot, without a network. With
``--product`` and ``--source`` it does the same on your own data.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time as clock
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

import geoemb_xr as gx
from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import EmbeddingError, MissingExtraError, SourceError, require
from geoemb_xr.core.legend import legend_of
from geoemb_xr.execution import progress
from geoemb_xr.execution.computing import computed, persisted
from geoemb_xr.geo import places

if TYPE_CHECKING:
    from geoemb_xr.probes.probe import Probe

#: Where no CRS is given, the map is in the equal-area CRS of Europe inside this box, else in the source's own.
_EUROPE = (-25.0, 34.0, 45.0, 72.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _parse(argv)
    try:
        require("matplotlib", "viz")
        _run(options)
    except (EmbeddingError, MissingExtraError, FileNotFoundError) as error:
        print(f"geoemb_xr: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m geoemb_xr", description=__doc__)
    parser.add_argument("--product", help="product name (default: alphaearth)", default="alphaearth")
    parser.add_argument("--source", help="file, folder, glob or URL (default: a synthetic sample made here)")
    parser.add_argument("--bbox", nargs=4, type=float, metavar=("W", "S", "E", "N"), help="degrees")
    parser.add_argument("--time", nargs="+", type=int, help="years; the first and the last are compared")
    parser.add_argument("--labels", help="CSV with lon, lat and a column of labels")
    parser.add_argument("--target", help="the column of labels (default: the last one whose values repeat)")
    parser.add_argument("--crs", help="target CRS (default: EPSG:3035 in Europe, else the source's own)")
    parser.add_argument("--out", default="geoemb-demo", help="folder for the results (default: %(default)s)")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace) -> None:
    begun = clock.perf_counter()
    out = Path(options.out)
    synthetic = options.source is None
    crs, labels = _crs(options.crs), _labels(options)  # what is wrong with them is said before the work
    opened = _open(options)
    if not isinstance(opened, xr.DataArray) or "y" not in opened.dims:
        raise SourceError(f"the demo needs a raster; {options.product!r} gave {type(opened).__name__}")
    print(f"\n{opened.emb!r}\n")

    gridded = opened.emb.reproject(_target_crs(opened, crs), resolution=_resolution(opened))
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {
        "product": opened.attrs["product"],
        "version": opened.attrs["version"],
        "source": opened.attrs["source"],
        "attribution": gx.product(opened.attrs["product"]).attribution,
        "synthetic scene": synthetic,
        "grid": {
            "crs": geometry.crs_name(gridded.emb.crs),
            "shape": [gridded.sizes["y"], gridded.sizes["x"]],
        },
        "years": [int(y) for y in pd.DatetimeIndex(gridded["time"].values).year],
    }
    gridded = _shown("put on the grid", lambda: persisted(gridded))
    latest = gridded.isel(time=-1)
    _pictures_of_vectors(gridded, out, summary, synthetic)
    if synthetic and labels is None:
        points = gx.testing.scene("lifelike").points(120, year=int(latest["time"].dt.year))
        labels = points.drop(columns="year"), "land_cover"
    _map(latest, labels, out, summary, synthetic)
    summary["seconds"] = round(clock.perf_counter() - begun, 1)
    (out / "summary.json").write_text(
        json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(f"\nwrote {out}/: {', '.join(sorted(p.name for p in out.iterdir()))} in {summary['seconds']} s")


def _open(options: argparse.Namespace) -> Any:
    try:
        source = gx.example(options.product) if options.source is None else options.source
        return gx.open(options.product, source, bbox=options.bbox, time=options.time)
    except ValueError as error:  # what the user typed: a box, a year, a name
        raise SourceError(str(error)) from error


def _shown[T](what: str, action: Callable[[], T]) -> T:
    """Run something that computes: a bar while it runs, a line when it is done."""
    begun = clock.perf_counter()
    with progress.shown(what, patience=1.0 if sys.stderr.isatty() else math.inf):
        found = action()
    print(f"{what}: {clock.perf_counter() - begun:.1f} s")
    return found


def _target_crs(array: xr.DataArray, given: Any) -> Any:
    if given is not None:
        return given
    west, south, east, north = areas.union_bounds(areas.area_of(array.emb.geobox).lonlat())
    inside = west >= _EUROPE[0] and south >= _EUROPE[1] and east <= _EUROPE[2] and north <= _EUROPE[3]
    return "EPSG:3035" if inside else array.emb.crs


def _resolution(array: xr.DataArray) -> float | None:
    return gx.product(array.attrs["product"]).resolution


# --- pictures -------------------------------------------------------------------------------------------------


def _pictures_of_vectors(gridded: xr.DataArray, out: Path, summary: dict[str, Any], synthetic: bool) -> None:
    """The PCA picture of the mean over time, and the change from the first year to the last."""
    mean = gridded.emb.aggregate("mean") if gridded.sizes["time"] > 1 else gridded.isel(time=0)
    pca = _shown("fit a PCA", lambda: gridded.emb.fit_pca(3))
    summary["pca"] = {"explained_variance_ratio": [round(float(v), 4) for v in pca.explained_variance_ratio]}
    _save(mean.emb.rgb(pca), out / "pca.png", "PCA of the mean vector", synthetic)
    if gridded.sizes["time"] < 2:
        return
    first, last = summary["years"][0], summary["years"][-1]
    change = computed(gridded.emb.change(first, last))
    _save(change, out / "change.png", f"Change {first} to {last}", synthetic)
    summary["change"] = {
        "from": first,
        "to": last,
        "median degrees": round(float(change.median()), 2),
        # of the pixels that have data in both years
        "share above 20 degrees": round(float((change > 20).where(change.notnull()).mean()), 4),
    }
    if synthetic:
        truth = gx.testing.scene("lifelike").truth(gridded.emb.geobox, [first, last])
        changed = (truth[0] != truth[1]).values & change.notnull().values
        found = (change > 20).values
        summary["change"]["true changes found"] = round(float((found & changed).sum() / changed.sum()), 4)
        summary["change"]["false alarms"] = round(float((found & ~changed).sum() / max(found.sum(), 1)), 4)


def _save(array: xr.DataArray, path: Path, title: str, synthetic: bool) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    array.emb.plot(title=f"{title} (synthetic scene)" if synthetic else title)
    figure = plt.gcf()
    # plot has laid it out: once is enough, and a place holder would draw twice
    figure.set_layout_engine(None)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# --- a map ----------------------------------------------------------------------------------------------------


def _map(
    latest: xr.DataArray,
    labels: tuple[pd.DataFrame, str] | None,
    out: Path,
    summary: dict[str, Any],
    synthetic: bool,
) -> None:
    """Train a probe on labelled points, map with it, score the map where the truth is known."""
    if labels is None:
        print("no labels: give --labels points.csv (lon, lat and a label) for a map")
        return
    table, target = labels
    probe = _fit(latest, table, target)
    outputs = ["label", "aoa"] if "aoa" in probe.outputs() else ["label"]
    maps = _shown("map", lambda: computed(latest.emb.predict(probe, output=outputs)))
    classes = maps["label"]
    used = sum(probe.counts.values())  # those with data
    _save(classes, out / "map.png", f"{target} from {used} points", synthetic)
    if "aoa" in maps:
        _save(maps["aoa"], out / "aoa.png", "Area of applicability: where the labels apply", synthetic)
    classes.emb.to_cog(out / "map.tif", mode="w")
    probe.save(out / "probe.npz")
    legend = legend_of(classes)
    named = dict(zip(legend.values, legend.names, strict=True))
    counts = dict(zip(*np.unique(classes.values, return_counts=True), strict=True))
    mapped = max(int((classes.values > 0).sum()), 1)
    summary["map"] = {
        "target": target,
        "labelled points": len(table),
        "points used": used,
        "share": {name: round(counts.get(v, 0) / mapped, 4) for v, name in named.items()},
        "held out": {kind: dict(each) for kind, each in probe.scores.items() if kind != "coverage"},
    }
    for kind, each in summary["map"]["held out"].items():
        scores = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in each.items())
        print(f"held out, {kind}: {scores}")
    if "aoa" in maps:
        valid = maps["aoa"].values > 0
        inside = float((maps["aoa"].values == 1)[valid].mean())
        summary["map"]["share inside the area of applicability"] = round(inside, 4)
        print(f"inside the area of applicability: {inside:.1%}")
    if synthetic:
        truth = gx.testing.scene("lifelike").truth(latest.emb.geobox, int(latest["time"].dt.year))
        names = np.array(["", *gx.testing.scene("lifelike").names])
        given = np.array([named.get(v, "") for v in range(max(named) + 1)])[classes.values]
        valid = classes.values > 0
        agreement = float((given == names[truth.values])[valid].mean())
        summary["map"]["agreement with the scene's truth"] = round(agreement, 4)
        print(f"agreement with the scene's truth: {agreement:.1%}")


def _fit(latest: xr.DataArray, table: pd.DataFrame, target: str) -> Probe:
    """Train on the map's own vectors at the points, or on the vectors that the table brings along."""
    product = gx.product(latest.attrs["product"])
    bands = list(product.decoded_bands)
    if not set(bands) <= set(map(str, table.columns)):
        probe: Probe = gx.fit_probe(latest, table, target=target)
        return probe
    lon, lat = places.points_xy(table, geometry.LONLAT)
    points = gx.wrap(table[bands].to_numpy(), product, x=lon, y=lat)
    points = points.assign_coords({target: ("location", table[target].to_numpy())})
    probe = gx.fit_probe(points, target=target)
    return probe


def _crs(given: str | None) -> Any:
    try:
        return None if given is None else geometry.as_crs(given)
    except ValueError as error:
        raise SourceError(f"--crs: {error}") from error


def _labels(options: argparse.Namespace) -> tuple[pd.DataFrame, str] | None:
    """The table of labels, and its column of them; None where none was given."""
    if options.labels is not None:
        table = pd.read_csv(options.labels)
        if options.target is not None and options.target not in table.columns:
            raise SourceError(
                f"--target {options.target!r} is not a column of {options.labels}: {list(table.columns)}"
            )
        return table, options.target or _likely_target(table)
    return None


def _likely_target(table: pd.DataFrame) -> str:
    """The last column whose values repeat, as classes do, and that is neither a place nor a time."""
    other = {"lon", "lat", "longitude", "latitude", "x", "y", "time", "date", "year"}
    likely = [
        str(name)
        for name, column in table.items()
        if str(name).lower() not in other
        and column.dtype.kind != "f"
        and 1 < column.nunique() <= len(column) / 2
    ]
    if not likely:
        raise SourceError(
            f"no column of the labels repeats, as classes do: name one of {list(table.columns)} (--target)"
        )
    return likely[-1]


if __name__ == "__main__":
    raise SystemExit(main())
