"""A small source of each container in one folder, to be served: what remote reads are tried on."""

from __future__ import annotations

import shutil
from pathlib import Path

import icechunk
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import geoemb_xr as gx

#: A product, None for a file of ours, and its paths.
Source = tuple[str | None, list[Path]]
#: How the containers of others are called, of which product they are, and which files are given of an example.
_EXAMPLES = {
    "cog": ("alphaearth", "cog", "*.tif*"),
    "zarr": ("alphaearth", "zarr", "*.zarr"),
    "tessera zarr": ("tessera", "zarr", "*.zarr"),
    "npy": ("tessera", "npy", "grid*[0-9].npy"),
    "parquet": ("earth_index", "geoparquet", "*.parquet"),
}
OTHERS = [*_EXAMPLES, "zipped zarr", "icechunk"]
OWN = ["own zarr", "own cog", "own parquet"]


def write_sources(root: Path, *, size: int = 128) -> dict[str, Source]:
    """Write a source of each container below a folder."""
    found: dict[str, Source] = {}
    for name, (product, container, files) in _EXAMPLES.items():
        options = {} if container == "geoparquet" else {"size": size, "years": (2020, 2021)}
        path = gx.product(product).example(root / name.replace(" ", "-"), container, **options)
        held = [path] if path.match(files) else sorted(path.rglob(files))
        found[name] = product, [p for p in held if not p.stem.endswith("_scales")][:1]
    tessera = found["tessera zarr"][1][0]
    found["zipped zarr"] = "tessera", [_zipped(tessera, root / "tessera.zarr.zip")]
    found["icechunk"] = "tessera", [commit(tessera, root / "tessera.icechunk")]
    array = gx.testing.synthetic("alphaearth", shape=(48, 48), chunks=24, decode=False)
    vectors = gx.testing.synthetic("tessera", shape=(48, 48), years=[2020]).isel(time=0)
    sampled = vectors.emb.sample(gx.testing.scene().points(400, radius=200))
    found["own zarr"] = None, [gx.to_zarr(array, root / "own.zarr", chunks=24)]
    found["own cog"] = None, [gx.to_cog(array.isel(time=0), root / "own.tif")]
    found["own parquet"] = None, [gx.to_geoparquet(sampled, root / "own.parquet")]
    return found


def _zipped(store: Path, path: Path) -> Path:
    return Path(shutil.make_archive(str(path.with_suffix("")), "zip", store))


def commit(store: Path, path: Path) -> Path:
    """A store as a repository of Icechunk, which is what Tessera is published in; returns its path."""
    made = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = made.writable_session("main")
    documents_first = sorted(store.rglob("*"), key=lambda p: (p.name != "zarr.json", len(p.parts)))
    for file in documents_first:
        if file.is_file():
            body = default_buffer_prototype().buffer.from_bytes(file.read_bytes())
            sync(session.store.set(file.relative_to(store).as_posix(), body))
    session.commit("written")
    return path
