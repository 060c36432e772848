"""The command ``geoemb``: what the package does, from a shell. Each part is a thin call of a Python function.

``geoemb --help`` lists the parts, ``geoemb PART --help`` says what a part takes, with examples to copy.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import __main__ as demo
from geoemb_xr.core import geometry, html
from geoemb_xr.core.conventions import UNREAD
from geoemb_xr.core.errors import EmbeddingError, MissingExtraError, MissingFileError, SourceError
from geoemb_xr.core.legend import legend_of
from geoemb_xr.core.model import attribution_of
from geoemb_xr.execution.computing import computed

#: What a fetched store says about itself, beside its arrays.
MANIFEST = "geoemb-manifest.json"
_OVERVIEW = ["kind", "dims", "resolution", "period", "licence"]
_FACTS = (
    "title", "kind", "dims", "dtype", "unit_norm", "resolution", "extent", "period", "cadence", "versions",
    "variants", "model", "encoder", "inputs", "trained_on", "access", "licence", "attribution", "citation", "doi",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 where a check found something, 2 for what cannot be done."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["demo"]:
        return demo.main(given[1:])
    if not given:
        _parser().print_help()
        return 2
    options = _parser().parse_args(given)
    try:
        status: int = options.run(options)
    except (EmbeddingError, MissingExtraError, OSError, ValueError) as error:
        print(f"geoemb {options.part}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "; run the same command again to continue" if options.run is fetch else ""
        print(f"\nstopped{again}", file=sys.stderr)
        return 130
    return status


# --- what it takes -----------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geoemb",
        description="Published Earth embeddings: list, look up, fetch, map and check.",
        epilog="Start with `geoemb demo`, which needs no network, or `geoemb products`.",
    )
    parser.add_argument("--version", action="version", version=f"geoemb_xr {gx.__version__}")
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")

    part = _part(
        parts, "products", products, "list what is published", "geoemb products\ngeoemb products --opens"
    )
    part.add_argument("--opens", action="store_true", help="only products that this version opens")

    part = _part(parts, "card", card, "show the facts of a product", "geoemb card tessera")
    part.add_argument("name", metavar="NAME", help="a product or one of its aliases")

    example = "geoemb coverage alphaearth --bbox 11.30 47.20 11.45 47.30 --time 2024"
    part = _part(parts, "coverage", coverage, "list which tiles of a place exist", example)
    _where(part)

    example = "geoemb fetch alphaearth --bbox 11.30 47.20 11.45 47.30 --time 2018 2024 --to innsbruck.zarr"
    part = _part(
        parts, "fetch", fetch, "copy a box of a product to a Zarr store", example,
        "The store holds the published codes. Run an interrupted command again, and it continues where it was. "
        f"The file {MANIFEST} in the store lists what is there and what is missing.",
    )  # fmt: skip
    _where(part)
    part.add_argument("--to", required=True, metavar="PATH", help="the store, such as aoi.zarr")
    part.add_argument("--crs", help="target CRS, such as EPSG:3035 (default: the product's own)")
    part.add_argument("--resolution", type=float, help="pixel size in units of the CRS")
    part.add_argument("--overwrite", action="store_true", help="replace a store that exists")
    part.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="go on where a block cannot be read, and list it as missing",
    )

    example = (
        "geoemb map innsbruck.zarr --labels fields.gpkg --target crop --to crops.tif\n"
        "geoemb map innsbruck.zarr --probe crops.npz --to again.tif"
    )
    part = _part(parts, "map", make_map, "make a map from labels, as a GeoTIFF", example)
    part.add_argument("source", metavar="SOURCE", help="a store that fetch wrote, or files with --product")
    part.add_argument("--product", help="product of the files, where they do not say it")
    part.add_argument("--time", type=int, help="year to map (default: the last)")
    part.add_argument(
        "--labels", metavar="FILE", help="points or polygons: CSV with lon and lat, GeoPackage, …"
    )
    part.add_argument("--target", metavar="COLUMN", help="the column of labels")
    part.add_argument("--method", default="logistic", help="kind of probe (default: %(default)s)")
    part.add_argument("--probe", metavar="FILE", help="a saved probe instead of labels")
    part.add_argument("--save-probe", metavar="FILE", help="write the fitted probe to this file")
    part.add_argument("--to", required=True, metavar="FILE", help="the map, such as crops.tif")
    part.add_argument("--overwrite", action="store_true", help="replace a map that exists")

    example = "geoemb check innsbruck.zarr\ngeoemb check tiles/ --product alphaearth"
    part = _part(parts, "check", check, "look at the values of a store: gaps, lengths, codes", example)
    part.add_argument("path", metavar="PATH", help="a store or files")
    part.add_argument("--product", help="product of the files, where they do not say it")

    example = "geoemb explore innsbruck.zarr\ngeoemb explore tiles/ --product alphaearth --port 5006"
    part = _part(parts, "explore", explore, "look at a store or files in a browser, click and label", example)
    part.add_argument("path", metavar="PATH", help="a store, a file or a folder of files")
    part.add_argument("--product", help="product of the files, where they do not say it")
    part.add_argument(
        "--labels", metavar="FILE", help="labels to start with: GeoPackage, CSV with lon and lat, …"
    )
    part.add_argument("--target", metavar="COLUMN", help="the column of their classes")
    part.add_argument("--port", type=int, default=0, help="port of the page (default: a free one)")
    part.add_argument(
        "--width", type=int, default=1180, help="greatest width of the app in pixels (default: %(default)s)"
    )
    part.add_argument("--no-browser", action="store_true", help="print the address and open no browser")

    parts.add_parser("demo", help="run the offline demo, as python -m geoemb_xr", add_help=False)
    return parser


def _part(
    parts: Any, name: str, run: Callable[[argparse.Namespace], int], what: str, examples: str, more: str = ""
) -> argparse.ArgumentParser:
    part: argparse.ArgumentParser = parts.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.\n{textwrap.fill(more, 100)}",
        epilog=f"examples:\n{textwrap.indent(examples, '  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    part.set_defaults(run=run)
    return part


def _where(part: argparse.ArgumentParser) -> None:
    part.add_argument("name", metavar="NAME", help="a product, see `geoemb products`")
    part.add_argument("--source", help="your own files (default: the published store)")
    part.add_argument(
        "--bbox",
        nargs=4,
        type=float,
        metavar=("W", "S", "E", "N"),
        help="west, south, east and north in degrees",
    )
    part.add_argument("--time", nargs="+", type=int, metavar="YEAR", help="these years (default: all)")


# --- what it does ------------------------------------------------------------------------------------------------


def products(options: argparse.Namespace) -> int:
    """Print the table of products."""
    table = gx.products()
    if options.opens:
        table = table[[gx.product(name).open is not None for name in table.index]]
    shown = table[_OVERVIEW].rename(columns={"resolution": "resolution [m]"})
    _print_table(shown.reset_index(names="product"))
    print("\n`geoemb card NAME` shows the facts of one product")
    return 0


def card(options: argparse.Namespace) -> int:
    """Print the facts of a product."""
    found = gx.product(options.name)
    rows = [("name", found.name), *((name.replace("_", " "), _text(getattr(found, name))) for name in _FACTS)]
    rows += [("note", quirk) for quirk in found.quirks]
    _print_rows([(name, value) for name, value in rows if value])
    return 0


def coverage(options: argparse.Namespace) -> int:
    """Print which tiles exist."""
    table = gx.coverage(options.name, options.source, bbox=options.bbox, time=options.time)
    _print_table(table.drop(columns="geometry", errors="ignore"))
    size = f", {html.human_bytes(table['bytes'].sum())}" if "bytes" in table else ""
    print(f"\n{len(table):,} tiles{size}")
    return 0 if len(table) else 1


def fetch(options: argparse.Namespace) -> int:
    """Copy a box to a Zarr store of codes, with a manifest."""
    to = Path(options.to)
    if to.exists() and not options.overwrite:
        raise FileExistsError(
            f"{to} exists and is complete (an interrupted copy is {to}.part); pass --overwrite to replace it"
        )
    array = _open(options.name, options.source, bbox=options.bbox, time=options.time, decode=False,
                  crs=options.crs, resolution=options.resolution)  # fmt: skip
    print(repr(array.emb))
    errors: Literal["raise", "missing"] = "missing" if options.skip_unreadable else "raise"
    gx.to_zarr(array, to, mode="w" if options.overwrite else "w-", encode=True, errors=errors)
    manifest = _manifest(gx.open(to, decode=False), options)
    (to / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for period, share in manifest["share with data"].items():
        print(f"{period}: {share:.1%} of the pixels have data")
    print(f"wrote {to}, {html.human_bytes(manifest['bytes'])}: gx.open({str(to)!r}) opens it")
    return 0


def make_map(options: argparse.Namespace) -> int:
    """Fit a probe to labels, or load one, and map with it."""
    if (options.labels is None) == (options.probe is None):
        raise ValueError("a map is made from --labels with --target, or from --probe")
    if options.labels is not None and options.target is None:
        raise ValueError("--labels needs --target, the column of labels")
    array = _open_own(options)
    if "time" in array.dims:
        array = array.isel(time=-1) if options.time is None else array.emb.year(options.time)
    if options.probe is not None:
        model = gx.load_model(options.probe)
    else:
        model = gx.fit_probe(array, options.labels, target=options.target, method=options.method)
        for kind, scores in model.scores.items():
            if kind != "coverage":
                said = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in scores.items())
                print(f"held out, {kind}: {said}")
    if options.save_probe is not None:
        model.save(options.save_probe)
    found = gx.predict(array, model)
    gx.to_cog(found, options.to, mode="w" if options.overwrite else "w-")
    if "legend" in found.attrs:
        print("classes:", ", ".join(legend_of(found).names))
    print(f"wrote {options.to}")
    return 0


def explore(options: argparse.Namespace) -> int:
    """Serve the app to this machine until it is stopped."""
    app = gx.explore(_open_own(options), labels=options.labels, target=options.target, width=options.width)
    print("stop with Ctrl+C", flush=True)
    app.show(address="localhost", port=options.port, show=not options.no_browser)
    return 0


def check(options: argparse.Namespace) -> int:
    """Print what is wrong with the values of a store; the status is 1 where something is."""
    array = _open_own(options)
    print(repr(array.emb))
    found = gx.check(array)
    _print_rows(
        [
            ("missing", f"{found['missing']:.1%} of the pixels"),
            *([("absent", f"{found['absent']:.1%} of the stored blocks")] if found["absent"] else []),
            (
                "length",
                f"{found['norm_min']:.4f} to {found['norm_max']:.4f}, {found['norm_mean']:.4f} on average",
            ),
            *(("problem", problem) for problem in found["problems"]),
        ]
    )
    print("ok" if found["ok"] else "not ok")
    return 0 if found["ok"] else 1


# --- help for these ----------------------------------------------------------------------------------------------


def _open(name: str, source: str | None, **options: Any) -> xr.DataArray:
    array = gx.open(name, source, **options)
    if not isinstance(array, xr.DataArray):
        raise SourceError(
            f"{name} gives {type(array).__name__}, several grids; pass --crs to put them on one"
        )
    return array


def _open_own(options: argparse.Namespace) -> xr.DataArray:
    path = options.source if options.part == "map" else options.path
    if options.product is None and not Path(path).exists():
        raise MissingFileError(f"no such store: {path}")
    found = (
        gx.open(path, decode=False)
        if options.product is None
        else gx.open(options.product, path, decode=False)
    )
    if not isinstance(found, xr.DataArray):
        raise SourceError(f"{path} holds {list(found)}; open one of them in Python")
    return found


def _manifest(array: xr.DataArray, options: argparse.Namespace) -> dict[str, Any]:
    """What a fetched store holds: the request, the grid, and the share of pixels with data in each period."""
    decoded = gx.decode(array)
    there = decoded.isel(band=0).notnull()
    rest = [d for d in there.dims if d != "time"]
    shares = computed(there.mean(rest))
    periods = pd.DatetimeIndex(array["time"].values).year.astype(str) if "time" in array.coords else ["all"]
    crs = geometry.crs_of(array)
    return {
        "product": array.attrs["product"],
        "version": array.attrs.get("version", ""),
        "source": options.source or "the published store",
        "bbox": options.bbox,
        "years": options.time,
        "crs": None if crs is None else geometry.crs_name(crs),
        "shape": {str(d): n for d, n in array.sizes.items()},
        "share with data": dict(
            zip(periods, [round(float(v), 6) for v in shares.values.reshape(-1)], strict=True)
        ),
        "bytes": sum(f.stat().st_size for f in Path(options.to).rglob("*") if f.is_file()),
        "could not be read": json.loads((Path(options.to) / "zarr.json").read_text())["attributes"].get(
            UNREAD, []
        ),
        "attribution": attribution_of(array),
        "licence": gx.product(array.attrs["product"]).licence,
        "geoemb_xr": gx.__version__,
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return "" if value != value else f"{value:g}"
    return "" if value is None else str(value)


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
    wide = max(len(name) for name, _ in rows)
    room = max(shutil.get_terminal_size((100, 24)).columns - wide - 2, 30)
    for name, value in rows:
        lines = textwrap.wrap(value, room) or [""]
        print("\n".join([f"{name:<{wide}}  {lines[0]}", *(f"{'':<{wide}}  {line}" for line in lines[1:])]))


def _print_table(table: pd.DataFrame) -> None:
    columns = [[str(name), *map(_text, table[name])] for name in table.columns]
    wide = [min(max(map(len, column)), 60) for column in columns]
    for row in zip(*columns, strict=True):
        print("  ".join(f"{cell:<{n}}" for cell, n in zip(row, wide, strict=True)).rstrip())


if __name__ == "__main__":
    raise SystemExit(main())
