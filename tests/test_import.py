"""``import geoemb_xr`` is light, and imports inside the package point one way."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import geoemb_xr

HEAVY = (
    "torch",
    "numba",
    "rasterio",
    "geopandas",
    "matplotlib",
    "hvplot",
    "sklearn",
    "pyarrow",
    "zarr",
    "panel",
)
PACKAGE = Path(geoemb_xr.__file__).parent


#: What each step of one process may not have loaded, beyond what xarray and dask.array load themselves.
STEPS = f"""
import json, sys, xarray, dask.array
before = set(sys.modules)
def say(*heavy):
    print(json.dumps([name for name in heavy if name in sys.modules and name not in before]))
import geoemb_xr as gx
say(*{HEAVY!r})
import geoemb_xr.extending
say("torch", "numba", "rasterio", "geopandas", "pyarrow", "zarr")
gx.open("alphaearth", sys.argv[1])
say("zarr", "numba", "sklearn", "geopandas", "matplotlib", "torch")
scene = gx.testing.synthetic("alphaearth", shape=(96, 96)).emb.year(2018)
labels = gx.testing.scene("lifelike").points(80, year=2018, radius=400).drop(columns="year")
probe = scene.emb.fit_probe(labels, target="land_cover")
assert {{"blocked", "random"}} <= set(probe.scores), probe.scores
scene.emb.predict(probe).compute()
say("sklearn", "scipy.stats", "matplotlib", "zarr")
"""


def test_each_step_of_a_session_loads_nothing_that_it_does_not_need():
    source = geoemb_xr.example("alphaearth")  # made here: writing it needs more
    done = subprocess.run([sys.executable, "-c", STEPS, source], capture_output=True, text=True, check=True)
    steps = ("import geoemb_xr", "the names for other packages", "open a GeoTIFF", "fit and apply a probe")
    said = map(json.loads, done.stdout.splitlines())
    assert dict(zip(steps, said, strict=True)) == {step: [] for step in steps}


def test_completion_shows_what_matters_and_every_name_resolves():
    names = dir(geoemb_xr)
    assert not [n for n in names if n.startswith("_")]
    for name in names:
        assert getattr(geoemb_xr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        geoemb_xr.opne  # noqa: B018 - the access is the test


# --- the order of the rooms ---------------------------------------------------------------------------------

GROUND = ["_version", "core", "execution", "geo", "stores"]
#: Each room of a row may import from the ground and from the rooms before it in its row.
ROWS = [
    [*GROUND, "testing", "readers", "embedding", "examples", "catalog", "opening"],
    [*GROUND, "analysis", "retrieval", "probes", "predicting", "comparing", "compression", "display"],
    [*GROUND, "analysis", "retrieval", "probes", "writing"],
    [*GROUND, "analysis", "retrieval", "probes", "interop"],
]
#: These see everything.
TOP = {"__init__", "__main__", "accessor", "command", "extending", "loading", "versions"}
#: Arrows against the order, each with its reason.
ALLOWED: dict[tuple[str, str], str] = {
    ("core/model.py", "catalog"): "the registry finds products by walking the folder",
}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def below(room: str) -> set[str]:
    """Rooms that a room may import from."""
    return {room}.union(*(row[: row.index(room)] for row in ROWS if room in row))


@cache
def imported(source: str) -> list[tuple[int, str]]:
    """``(line, dotted name)`` of everything that code imports from the package, also inside functions or by string.

    What stands under ``if TYPE_CHECKING`` is never run and left out.
    """
    return list(_imports(source))


def _imports(source: str) -> Iterator[tuple[int, str]]:
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and _last_name(node.func).endswith(("import_module", "__import__")):
            # `import_module(f"geoemb_xr.{…}")` is read up to its first gap
            first = node.args[0] if node.args else None
            if isinstance(first, ast.JoinedStr):
                first = first.values[0]
            if isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def _last_name(function: ast.expr) -> str:
    """``c`` of ``a.b.c`` and of ``c``: to write the whole of each call takes a second."""
    return getattr(function, "attr", None) or getattr(function, "id", "")


def offences(path: Path, source: str) -> list[str]:
    """Lines of a module that import against the order of the rooms."""
    room = room_of(path)
    if room in TOP:
        return []
    found = []
    for line, name in imported(source):
        package, _, rest = name.partition(".")
        if package != "geoemb_xr":
            continue
        other = rest.split(".")[0] or "anything"
        is_module = (PACKAGE / other).is_dir() or (PACKAGE / f"{other}.py").exists() or other == "anything"
        target = other if is_module else "__init__"
        if target not in below(room) and (path.relative_to(PACKAGE).as_posix(), target) not in ALLOWED:
            code = source.splitlines()[line - 1].strip()
            found.append(f"{path.relative_to(PACKAGE)}:{line}: {room} may not import from {target}: {code}")
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


def test_imports_point_one_way():
    wrong = [line for path in MODULES for line in offences(path, path.read_text())]
    assert not wrong, "\n".join(wrong)


def test_every_room_has_its_place_in_the_order():
    assert {room_of(path) for path in MODULES} <= TOP.union(*ROWS)
    # an arrow that is no longer needed is no longer allowed
    for (module, target), reason in ALLOWED.items():
        names = [name for _, name in imported((PACKAGE / module).read_text())]
        assert reason
        assert any(name.startswith(f"geoemb_xr.{target}") for name in names), (
            f"{module} no longer imports {target}"
        )


@pytest.mark.parametrize(
    "planted",
    [
        "from geoemb_xr.display import plotting",
        "def late():\n    from geoemb_xr.display.plotting import plot",
        "import importlib\nimportlib.import_module('geoemb_xr.display.plotting')",
        "import importlib\nimportlib.import_module(f'geoemb_xr.display.{name}')",
        "import importlib\nimportlib.import_module(f'geoemb_xr.{name}')",
        "import geoemb_xr.display.plotting",
        "from geoemb_xr import __version__",
    ],
)
def test_an_arrow_against_the_order_is_found(planted):
    (offence,) = offences(PACKAGE / "core" / "planted.py", planted)
    assert offence.startswith(f"core/planted.py:{len(planted.splitlines())}: core may not import from ")
    assert planted.splitlines()[-1].strip() in offence


def test_what_only_type_checkers_read_is_no_arrow():
    planted = "if TYPE_CHECKING:\n    from geoemb_xr.display import plotting"
    assert not offences(PACKAGE / "core" / "planted.py", planted)


def test_contributors_are_shown_the_rooms_as_they_are():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    tree, order = (part.partition("```")[0] for part in text.split("```text\n")[1:3])
    shown = set(re.findall(r"^  (\w+)(?:\.py|/) ", tree, flags=re.MULTILINE))
    there = {room_of(path) for path in MODULES} - {"_version"}
    assert there <= shown, f"CONTRIBUTING.md does not show {sorted(there - shown)}"
    assert shown <= {room for row in ROWS for room in row} | TOP
    for line in order.splitlines():
        before = set()
        for part in line.split("←"):
            rooms = {name.strip() for name in part.split(",")}
            for room in rooms:
                assert before <= below(room), f"{room} may not import from {before - below(room)}"
            before |= rooms


def test_no_module_imports_itself_through_others():
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in MODULES}
    arrows = {
        name: {
            found
            for _, whole in imported(path.read_text())
            for found in (whole, whole.rpartition(".")[0])
            if found in modules
            and (path.relative_to(PACKAGE).as_posix(), room_of(modules[found])) not in ALLOWED
        }
        for name, path in modules.items()
        if room_of(path) not in TOP
    }
    # take away, again and again, what imports nothing that is left: circles remain
    while free := {name for name, others in arrows.items() if not others & arrows.keys()}:
        arrows = {name: others for name, others in arrows.items() if name not in free}
    assert not arrows, f"modules that import each other: {sorted(arrows)}"
