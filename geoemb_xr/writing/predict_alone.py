"""Map, ask and learn in the field, with Python and NumPy alone.

    python predict.py kit.zip about
    python predict.py kit.zip point 11.37 47.25
    python predict.py kit.zip map crops.png --bbox 11.36 47.24 11.38 47.26
    python predict.py kit.zip learn here.csv from-another-device.csv

``python kit.zip about`` does the same without unpacking. Coordinates are longitude and latitude. A map is a PNG
with a world file and a legend (or a NumPy file of values). Labels are CSV files with the columns lon, lat, label,
and year if there are several. What is learnt is kept beside the kit, as kit.learned.npz, and used from then on.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: Pixels that are decoded at a time: 64 bands of them are 4 MB.
PIECE = 16_384


class ZippedArray:
    """An array of a Zarr store in a zip, with or without shards: windows of it, chunk by chunk."""

    def __init__(self, kit: zipfile.ZipFile, name: str) -> None:
        self.kit, self.name = kit, name
        facts = json.loads(kit.read(f"{name}/zarr.json"))
        self.shape: list[int] = facts["shape"]
        self.dtype = np.dtype(facts["data_type"]).newbyteorder("<")
        fill = facts["fill_value"]
        self.fill = float("nan") if fill == "NaN" else fill
        self.outer = facts["chunk_grid"]["configuration"]["chunk_shape"]
        shard = next((c for c in facts["codecs"] if c["name"] == "sharding_indexed"), None)
        self.chunk = self.outer if shard is None else shard["configuration"]["chunk_shape"]
        self.sharded = shard is not None
        self._known: dict[str, np.ndarray] = {}

    def read(self, window: tuple[slice, ...]) -> np.ndarray:
        """The values of a window."""
        out = np.full([s.stop - s.start for s in window], self.fill, self.dtype)
        spans = [range(s.start // c, -(-s.stop // c)) for s, c in zip(window, self.chunk, strict=True)]
        for place in np.ndindex(*map(len, spans)):
            number = [span[i] for span, i in zip(spans, place, strict=True)]
            data = self._bytes(number)
            if data is None:
                continue
            values = np.frombuffer(data, self.dtype).reshape(self.chunk)
            source, target = [], []
            for n, size, s in zip(number, self.chunk, window, strict=True):
                start, stop = max(n * size, s.start), min((n + 1) * size, s.stop)
                source.append(slice(start - n * size, stop - n * size))
                target.append(slice(start - s.start, stop - s.start))
            out[tuple(target)] = values[tuple(source)]
        return out

    def _bytes(self, number: list[int]) -> bytes | None:
        inside = [o // c for o, c in zip(self.outer, self.chunk, strict=True)]
        key = "/".join([self.name, "c", *(str(n // i) for n, i in zip(number, inside, strict=True))])
        try:
            if not self.sharded:
                return gzip.decompress(self.kit.read(key))
            with self.kit.open(key) as file:
                index = self._index(key, file, inside)
                start, size = index[tuple(n % i for n, i in zip(number, inside, strict=True))].tolist()
                if start == 2**64 - 1:  # a chunk that holds nothing but the fill value
                    return None
                file.seek(start)
                return gzip.decompress(file.read(size))
        except KeyError:
            return None

    def _index(self, key: str, file: Any, inside: list[int]) -> np.ndarray:
        """Where a shard's chunks begin and how long they are: at its end, before four bytes of a checksum."""
        if key not in self._known:
            length = int(np.prod(inside)) * 16
            file.seek(-length - 4, io.SEEK_END)
            self._known = {key: np.frombuffer(file.read(length), "<u8").reshape(*inside, 2)}
        return self._known[key]


class Kit:
    """A kit: vectors, a probe, and what they mean."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zip = zipfile.ZipFile(path)
        self.facts = json.loads(self.zip.read("kit.json"))
        with np.load(io.BytesIO(self.zip.read("probe.npz")), allow_pickle=False) as held:
            self.probe = json.loads(str(held["header"]))
            self.arrays = {name: held[name] for name in held.files if name != "header"}
        self.vectors = ZippedArray(self.zip, self.facts["variable"])
        self.scale = ZippedArray(self.zip, self.facts["scale"]) if self.facts["scale"] else None
        legend = self.probe["legend"]
        self.legend = None if legend is None else legend["legend"]
        self.parameters = {
            name.partition("/")[2]: array
            for name, array in self.arrays.items()
            if name.startswith("parameters/")
        }
        self.learned = path.with_suffix(".learned.npz")
        self.added = 0
        if self.learned.exists():
            with np.load(self.learned, allow_pickle=False) as held:
                if str(held["kit"]) != self.facts["id"]:
                    raise SystemExit(f"{self.learned} was learnt for another kit; move it away")
                self.parameters = {"weights": held["weights"], "bias": held["bias"]}
                self.added = int(held["count"])

    # --- places -------------------------------------------------------------------------------------------------

    def pixel(self, lon: float, lat: float) -> tuple[float, float]:
        """Row and column of a place, from the upper left corner."""
        own = self.facts["to_grid"]
        u, v = ((a - b) / c for a, b, c in zip((lon, lat), own["centre"], own["half"], strict=True))
        terms = [u**i * v**j for i in range(own["degree"] + 1) for j in range(own["degree"] + 1 - i)]
        return float(np.dot(terms, own["row"])), float(np.dot(terms, own["col"]))

    def window(self, bbox: Iterable[float] | None) -> tuple[slice, slice]:
        """Rows and columns of a box, cut to the kit; all of it without a box."""
        height, width = self.vectors.shape[-2:]
        if bbox is None:
            return slice(0, height), slice(0, width)
        west, south, east, north = bbox
        edge = [(x, y) for x in np.linspace(west, east, 9) for y in np.linspace(south, north, 9)]
        rows, cols = zip(*(self.pixel(x, y) for x, y in edge), strict=True)
        low = max(int(np.floor(min(rows))), 0), max(int(np.floor(min(cols))), 0)
        high = min(int(np.ceil(max(rows))), height), min(int(np.ceil(max(cols))), width)
        if low[0] >= high[0] or low[1] >= high[1]:
            raise SystemExit(
                f"the box lies outside of the kit, which covers {self.facts['bounds']} (lon, lat)"
            )
        return slice(low[0], high[0]), slice(low[1], high[1])

    def time(self, year: int | None) -> int:
        """Position of a year; the last one by default."""
        times = self.facts["times"]
        if year is None or not times:
            return len(times) - 1
        found = [i for i, each in enumerate(times) if each.startswith(str(year))]
        if not found:
            raise SystemExit(f"the kit has no vectors of {year}; it has {', '.join(t[:4] for t in times)}")
        return found[0]

    # --- vectors and what is made of them -----------------------------------------------------------------------

    def decoded(self, rows: slice, cols: slice, time: int) -> Iterator[np.ndarray]:
        """Vectors ``(n, band)`` of a window in pieces, NaN where there is no data."""
        first = () if len(self.vectors.shape) == 3 else (slice(time, time + 1),)
        bands = slice(0, self.vectors.shape[-3])
        codes = self.vectors.read((*first, bands, rows, cols)).reshape(bands.stop, -1)
        scale = None if self.scale is None else self.scale.read((*first, rows, cols)).reshape(-1)
        for start in range(0, codes.shape[1], PIECE):
            where = slice(start, start + PIECE)
            yield self._decoded(codes[:, where], None if scale is None else scale[where]).T

    def _decoded(self, codes: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
        name, x = self.facts["codec"], codes.astype(np.float32)
        if name == "signed-square":
            missing = (codes == -128).any(axis=0)
            x = x * np.abs(x) * np.float32(1 / 127.5**2)
        elif name == "per-pixel-scale":
            assert scale is not None
            missing = ~np.isfinite(scale) | (scale == 0)
            x *= np.where(missing, 0, scale)
        elif name == "sign":
            missing = (codes == 0).any(axis=0)
            x *= np.float32(len(codes) ** -0.5)
        else:  # unscaled, offset-16
            missing = (codes == 0).all(axis=0)
            x = x if name == "unscaled" else x * np.float32(1 / 8192) - np.float32(1)
        if self.facts["unit_norm"]:
            missing = missing | ~x.any(axis=0)
        x[:, missing] = np.nan
        return x

    def scores(self, x: np.ndarray) -> np.ndarray:
        """A score for each class ``(n, class)``, or values ``(n, 1)``."""
        own = self.parameters
        if "centres" in own:
            length = np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
            return np.asarray((x / np.where(length > 0, length, 1)) @ own["centres"].T)
        if "weights" in own:
            return np.asarray(x @ own["weights"].T + own["bias"])
        layers = len(own) // 2
        for i in range(layers):
            x = x @ own[f"weights{i}"].T + own[f"bias{i}"]
            x = np.maximum(x, 0) if i < layers - 1 else x
        return x

    def blocks(self, rows: slice, cols: slice, time: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """A window chunk by chunk: rows and columns in it, and classes (from 1; 0 is no data) or values."""
        step_y, step_x = self.vectors.chunk[-2:]
        for top in range(rows.start // step_y * step_y, rows.stop, step_y):
            down = slice(max(top, rows.start), min(top + step_y, rows.stop))
            for left in range(cols.start // step_x * step_x, cols.stop, step_x):
                across = slice(max(left, cols.start), min(left + step_x, cols.stop))
                parts = [self._classes_or_values(x) for x in self.decoded(down, across, time)]
                shape = down.stop - down.start, across.stop - across.start
                yield down, across, np.concatenate(parts).reshape(shape)

    def _classes_or_values(self, x: np.ndarray) -> np.ndarray:
        there = np.isfinite(x).all(axis=1)
        scores = self.scores(np.where(there[:, None], x, 0))
        if self.legend is None:
            return np.where(there, scores[:, 0], np.nan).astype(np.float32)
        return np.where(there, scores.argmax(axis=1) + 1, 0).astype(np.uint16)

    # --- learning -----------------------------------------------------------------------------------------------

    def learn(self, tables: list[Path]) -> str:
        """Add labels to a ridge probe: as if it had been fitted on old and new at once."""
        if self.probe["method"] != "ridge" or "memory/sums_x" not in self.arrays:
            raise SystemExit(
                "only a ridge probe with its memory learns on; this kit's is not one: take the labels home"
            )
        held = {
            name.partition("sums_")[2]: a
            for name, a in self.arrays.items()
            if name.startswith("memory/sums_")
        }
        bands = held["x"].shape[1]
        half = np.zeros((bands, bands))
        half[np.triu_indices(bands)] = held["xx"].sum(axis=0)
        sums: dict[str, Any] = {name: held[name].sum(axis=0) for name in ("count", "weight", "x", "y", "xy")}
        sums["xx"] = half + np.triu(half, 1).T
        rows, places = self._labels(tables)
        vectors, targets, skipped = [], [], 0
        for (lon, lat, time), target in zip(rows, places, strict=True):
            row, col = map(int, map(np.floor, self.pixel(lon, lat)))
            inside = 0 <= row < self.vectors.shape[-2] and 0 <= col < self.vectors.shape[-1]
            (x,) = (
                next(self.decoded(slice(row, row + 1), slice(col, col + 1), time))
                if inside
                else (np.array([np.nan]),)
            )
            if not np.isfinite(x).all():
                skipped += 1
                continue
            vectors.append(x)
            targets.append(target)
        if not vectors:
            raise SystemExit(f"none of {len(rows)} labels lies on a pixel with data")
        x, y = np.array(vectors, np.float64), np.array(targets, np.float64)
        sums["count"] += len(x)
        sums["weight"] += len(x)
        for name, more in {"x": x.sum(0), "y": y.sum(0), "xx": x.T @ x, "xy": x.T @ y}.items():
            sums[name] = sums[name] + more
        weights, bias = self._solved(sums)
        np.savez(
            self.learned, weights=weights, bias=bias, kit=np.array(self.facts["id"]), count=np.array(len(x))
        )
        self.parameters, self.added = {"weights": weights, "bias": bias}, len(x)
        left = f"; {skipped} lie outside, or where there is no data" if skipped else ""
        return f"learnt {len(x)} labels beside the kit's own{left}: {self.learned}"

    def _solved(self, sums: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Ridge from sums, as geoemb_xr solves it."""
        alpha, n = self.probe["options"]["alpha"], float(sums["count"])
        alpha = n * (0.03 if self.legend is None else 1.0) if alpha is None else float(alpha)
        mean, target = sums["x"] / sums["weight"], sums["y"] / sums["weight"]
        xx = sums["xx"] / sums["weight"] - np.outer(mean, mean)
        xy = sums["xy"] / sums["weight"] - np.outer(mean, target)
        variance = max(float(np.trace(xx)) / len(mean), 0.0) or 1.0
        solution = np.linalg.lstsq(xx + variance * alpha / n * np.eye(len(mean)), xy, rcond=None)[0].T
        return solution.astype(np.float32), (target - solution @ mean).astype(np.float32)

    def _labels(self, tables: list[Path]) -> tuple[list[tuple[float, float, int]], list[list[float]]]:
        """Places and targets of CSV files; a row that stands in two files counts once."""
        seen: dict[tuple[str, ...], None] = {}
        for path in tables:
            with open(path, newline="", encoding="utf-8-sig") as file:
                table = csv.DictReader(file)
                lacking = {"lon", "lat", "label"} - set(table.fieldnames or ())
                if lacking:
                    raise SystemExit(f"{path} lacks the columns {sorted(lacking)}; it has {table.fieldnames}")
                for row in table:
                    seen[row["lon"], row["lat"], row["label"], row.get("year") or ""] = None
        places, targets = [], []
        for lon, lat, label, year in seen:
            places.append((float(lon), float(lat), self.time(int(year) if year else None)))
            if self.legend is None:
                targets.append([float(label)])
                continue
            if label not in self.legend["names"]:
                raise SystemExit(f"{label!r} is not a class of this probe: {', '.join(self.legend['names'])}")
            targets.append([float(name == label) for name in self.legend["names"]])
        return places, targets

    # --- what is written ----------------------------------------------------------------------------------------

    def map(self, path: Path, bbox: list[float] | None, year: int | None) -> str:
        """Write a map of a box."""
        rows, cols = self.window(bbox)
        time = self.time(year)
        height, width = rows.stop - rows.start, cols.stop - cols.start
        if self.legend is None:
            path = path.with_suffix(".npy")
            values = np.lib.format.open_memmap(path, "w+", np.float32, (height, width))
            for down, across, made in self.blocks(rows, cols, time):
                own = slice(down.start - rows.start, down.stop - rows.start)
                values[own, across.start - cols.start : across.stop - cols.start] = made
            values.flush()
        else:
            path = path.with_suffix(".png")
            self._png(path, rows, cols, time)
            with open(path.with_suffix(".legend.csv"), "w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(["pixel", "code", "name", "colour"])
                own = self.legend
                table.writerows(zip(range(1, 256), own["values"], own["names"], own["colours"], strict=False))
        a, _, c, _, e, f = self.facts["affine"]
        world = [a, 0, 0, e, c + a * (cols.start + 0.5), f + e * (rows.start + 0.5)]
        path.with_suffix(".pgw" if path.suffix == ".png" else ".npw").write_text(
            "\n".join(map(repr, world)) + "\n"
        )
        path.with_suffix(".prj").write_text(self.facts["crs_wkt"])
        return f"{path}: {height} x {width} pixels. {self.facts['attribution']}"

    def _png(self, path: Path, rows: slice, cols: slice, time: int) -> None:
        """A picture with a palette, a strip of chunks at a time."""
        assert self.legend is not None
        colours = [(0, 0, 0), *(tuple(bytes.fromhex(c[1:])) for c in self.legend["colours"][:255])]
        width = cols.stop - cols.start
        packer = zlib.compressobj(6)
        with open(path, "wb") as file:

            def part(kind: bytes, data: bytes) -> None:
                file.write(struct.pack(">I", len(data)) + kind + data)
                file.write(struct.pack(">I", zlib.crc32(kind + data)))

            file.write(b"\x89PNG\r\n\x1a\n")
            part(b"IHDR", struct.pack(">IIBBBBB", width, rows.stop - rows.start, 8, 3, 0, 0, 0))
            part(b"PLTE", bytes(value for colour in colours for value in colour))
            part(b"tRNS", b"\x00")
            strip, at = np.zeros((0, 0), np.uint8), rows.start
            for down, across, made in self.blocks(rows, cols, time):
                if across.start == cols.start:
                    strip = np.zeros(
                        (down.stop - down.start, width + 1), np.uint8
                    )  # a filter before each row: none
                strip[:, 1 + across.start - cols.start : 1 + across.stop - cols.start] = made
                if across.stop == cols.stop:
                    part(b"IDAT", packer.compress(strip.tobytes()))
                    at = down.stop
            assert at == rows.stop
            part(b"IDAT", packer.flush())
            part(b"IEND", b"")

    def point(self, lon: float, lat: float, year: int | None) -> str:
        """Print the probe's result at a place."""
        row, col = map(int, map(np.floor, self.pixel(lon, lat)))
        if not (0 <= row < self.vectors.shape[-2] and 0 <= col < self.vectors.shape[-1]):
            raise SystemExit(
                f"the place lies outside of the kit, which covers {self.facts['bounds']} (lon, lat)"
            )
        x = next(self.decoded(slice(row, row + 1), slice(col, col + 1), self.time(year)))
        if not np.isfinite(x).all():
            return "no data"
        (scores,) = self.scores(x)
        if self.legend is None:
            return f"{scores[0]:g}"
        odds = np.exp((scores - scores.max()) / self.probe["temperature"])
        order = np.argsort(-odds)[:3]
        share = odds / odds.sum()
        return ", ".join(f"{self.legend['names'][i]} {share[i]:.3f}" for i in order)

    def about(self) -> str:
        """Describe the kit."""
        facts = self.facts
        lines = [
            f"{facts['title']} ({facts['version']}), {' x '.join(map(str, self.vectors.shape[-2:]))} pixels",
            f"lon, lat {facts['bounds']}; years {', '.join(t[:4] for t in facts['times']) or 'not said'}",
            f"{self.probe['target']}: {self.probe['method']}, {sum(self.probe['counts'].values())} labels"
            + (f" and {self.added} learnt here" if self.added else ""),
            "classes: " + ", ".join(self.legend["names"]) if self.legend else "values",
            f"{facts['attribution']} Licence: {facts['licence']}",
        ]
        return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Do what the command line says."""
    given = list(sys.argv[1:] if argv is None else argv)
    own = Path(sys.argv[0])
    if own.suffix == ".zip":  # python kit.zip …
        given.insert(0, str(own))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kit", type=Path)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("about")
    point = what.add_parser("point")
    point.add_argument("lon", type=float)
    point.add_argument("lat", type=float)
    picture = what.add_parser("map")
    picture.add_argument("path", type=Path)
    picture.add_argument("--bbox", nargs=4, type=float, metavar=("WEST", "SOUTH", "EAST", "NORTH"))
    for each in (point, picture):
        each.add_argument("--year", type=int)
    what.add_parser("learn").add_argument("tables", nargs="+", type=Path)
    chosen = parser.parse_args(given)
    kit = Kit(chosen.kit)
    if chosen.what == "about":
        print(kit.about())
    elif chosen.what == "point":
        print(kit.point(chosen.lon, chosen.lat, chosen.year))
    elif chosen.what == "map":
        print(kit.map(chosen.path, chosen.bbox, chosen.year))
    else:
        print(kit.learn(chosen.tables))


if __name__ == "__main__":
    main()
