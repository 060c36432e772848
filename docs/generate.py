"""Write the pages that come from the package itself: notebooks, the atlas, the API reference.

All of it lies in ``docs/generated/``, which git ignores.
"""

import inspect
import re
import shutil
from pathlib import Path

import geoemb_xr as gx
from geoemb_xr.accessor import EmbAccessor
from geoemb_xr.core.model import registered

#: Module, or the room it stands in → heading, in reading order.
HEADINGS = {
    "core.model": "Products",
    "opening": "Open",
    "examples": "Open",
    "readers": "Images to embeddings",  # cubes of benchmarks
    "embedding": "Images to embeddings",
    "core": "Vectors",
    "readers.health": "Vectors",
    "geo.wrapping": "Vectors",
    "geo.warp": "Grids",
    "geo.aligning": "Several products",
    "geo.points": "Points and areas",
    "geo.zonal": "Zonal statistics",
    "geo.gridding": "Patches on a grid",
    "analysis.temporal": "Time",
    "analysis.changes": "Time",
    "analysis.components": "Looking: components and colours",
    "display.plotting": "Looking: plots",
    "display.scattering": "Looking: the space of vectors",
    "display.app": "Looking: the explorer",
    "analysis.clusters": "Clusters",
    "retrieval": "Similarity and search",
    "compression": "Fewer bytes",
    "probes.labelling": "Labels",
    "probes": "Probes",
    "predicting": "Maps",
    "analysis.class_maps": "Class maps",
    "analysis.outlines": "Class maps",
    "comparing": "Products side by side",
    "comparing.areas": "Areas with intervals",
    "comparing.two_maps": "Areas with intervals",
    "comparing.neucobench": "Benchmarks of the field",
    "comparing.embed2scale": "Benchmarks of the field",
    "loading": "Fitted models",
    "writing": "Writing",
    "interop": "Other libraries",
    "core.citing": "Citing",
    "core.errors": "Errors",
    "execution": "Plans and loading",
    "versions": "Versions",
    "testing": "Testing",
    "accessor": "The accessor",
}
#: Facts of a product as rows of its section in the atlas.
FACTS = {
    "kind": "A vector for each",
    "dims": "Dimensions",
    "dtype": "Stored as",
    "unit_norm": "Unit length",
    "resolution": "Resolution [m]",
    "context_m": "Context [m]",
    "extent": "Extent",
    "period": "Period",
    "cadence": "Cadence",
    "model": "Model",
    "encoder": "Encoder",
    "inputs": "Inputs",
    "trained_on": "Trained on labels of",
    "access": "Access",
    "containers": "Containers",
    "versions": "Versions",
    "variants": "Variants",
    "matryoshka": "Prefixes that are embeddings",
    "torchgeo": "In torchgeo",
    "aliases": "Also found as",
    "licence": "Licence",
    "licence_notes": "Licence notes",
    "attribution": "Attribution",
    "citation": "Citation",
    "doi": "DOI",
}
CALLED = re.compile(r"(?<=\bgx\.)\w+|(?<=\.emb\.)\w+|\b(probe|ridge)(?=\.)")
OVERVIEW = ("title", "kind", "dims", "dtype", "resolution", "period", "unit_norm", "licence")


def everything(docs: Path) -> None:
    """Write all generated pages under ``docs/generated/``."""
    target = docs / "generated"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    shutil.copytree(docs.parent / "notebooks", target / "notebooks")
    for notebook in (target / "notebooks").glob("*.ipynb"):
        notebook.write_text(notebook.read_text().replace("](../docs/images/", "](../../images/"))
    (target / "atlas.md").write_text(atlas())
    (target / "api.md").write_text(api())
    results = docs.parent / "benchmarks" / "RESULTS.md"
    text = results.read_text() if results.exists() else "No results are recorded yet.\n"
    (target / "results.md").write_text(re.sub(r"\A# .*\n", "", text))  # the page has a title of its own


def atlas() -> str:
    """The page of all products."""
    table = gx.products()
    head = ["product", *(column.replace("_", " ") for column in OVERVIEW)]
    rows = [[f"[{name}](#{_anchor(name)})", *map(_cell, row)] for name, row in _rows(table)]
    parts = [
        "# Atlas",
        "Every product that this version knows, generated from its registry: what `gx.products()` shows. "
        "An empty cell is a fact that nobody published; it is left empty on purpose.",
        _table(head, rows),
        *(_section(each) for each in registered()),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(table):
    return zip(table.index, table[list(OVERVIEW)].itertuples(index=False), strict=True)


def _section(product: gx.Product) -> str:
    facts = [[label, _cell(getattr(product, name))] for name, label in FACTS.items()]
    opens = "yes" if product.open is not None else "not yet: known by its facts; `gx.wrap` takes its vectors"
    rows = [["Opens here", opens], *([label, value] for label, value in facts if value)]
    quirks = [f"* {_cell(quirk)}" for quirk in product.quirks]
    title = f"({_anchor(product.name)})=\n## {product.name}\n\n{_cell(product.title)}"
    return "\n\n".join(
        [title, _table(["fact", ""], rows), *(["**What surprises**", "\n".join(quirks)] if quirks else [])]
    )


def _anchor(name: str) -> str:
    return "product-" + name.replace(".", "-")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None or value != value or value == ():  # NaN is not itself
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).replace("|", "\\|").replace("\n", " ")


def names_by_heading() -> dict[str, list[str]]:
    """Public names under the heading of the module that defines them, or of its room."""
    found: dict[str, list[str]] = {}
    for name in gx.__all__:
        value = getattr(gx, name)
        module = value.__name__ if isinstance(value, type(gx)) else inspect.unwrap(value).__module__
        path = module.split(".", 1)[1]
        room = path.split(".")[0]
        found.setdefault(HEADINGS.get(path) or HEADINGS.get(room, room), []).append(name)
    order = {heading: i for i, heading in enumerate(dict.fromkeys(HEADINGS.values()))}
    return {h: sorted(found[h], key=str.lower) for h in sorted(found, key=lambda h: (order.get(h, 999), h))}


def public_names(code: str) -> list[tuple[str, slice]]:
    """Public names that a call says, and where in it: what has a page of its own."""
    said = [("Probe" if name[1] else name[0], slice(*name.span())) for name in CALLED.finditer(code)]
    return [(name, where) for name, where in said if name in gx.__all__]


def page_of(name: str) -> str:
    """The page that autosummary writes for a public name, from the top of the documentation."""
    return f"generated/api/geoemb_xr.{name}"


def api() -> str:
    """The page that lists every public name; autosummary writes a page for each."""
    parts = [
        "# API reference",
        "Functions take the array first and everything else by keyword. Each is also a method of the "
        "accessor: `gx.crop(da, area)` is `da.emb.crop(area)`. Verbs are lazy unless their first line "
        "says that they compute.",
    ]
    for heading, names in names_by_heading().items():
        listed = "\n".join(f"   {name}" for name in names)
        parts.append(
            f"## {heading}\n\n```{{eval-rst}}\n.. currentmodule:: geoemb_xr\n\n"
            f".. autosummary::\n   :toctree: api\n   :nosignatures:\n\n{listed}\n```"
        )
    parts.append(
        "## Products and encoders in other packages\n\n```{eval-rst}\n.. automodule:: geoemb_xr.extending\n```"
    )
    methods = [n for n in dir(EmbAccessor) if not n.startswith("_")]
    parts.append("## Methods and facts of `.emb`\n\n" + ", ".join(f"`{n}`" for n in methods) + ".")
    return "\n\n".join(parts) + "\n"
