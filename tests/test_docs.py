"""The documentation builds without a warning, and every public name is in it.

The site is built in CI, and where ``-m pages`` asks for it.
"""

import importlib.metadata
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import geoemb_xr as gx

ROOT = Path(__file__).parent.parent
MODULES = {"testing", "embed2scale", "neucobench"}  # public names that are modules


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, notebooks not executed (test_notebooks.py does), built apart from docs/generated."""
    pytest.importorskip("sphinx")
    root = tmp_path_factory.mktemp("site")
    for name in ("docs", "notebooks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("_build", "generated"))
    for page in ROOT.glob("*.md"):
        shutil.copy(page, root)
    (root / "benchmarks").mkdir()
    if (ROOT / "benchmarks" / "RESULTS.md").exists():
        shutil.copy(ROOT / "benchmarks" / "RESULTS.md", root / "benchmarks")
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-t", "fast"]
    done = subprocess.run([*sphinx, root / "docs", root / "html"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return root / "html"


@pytest.mark.pages
@pytest.mark.timeout(300)
def test_every_public_name_has_a_page(site):
    for name in set(gx.__all__):
        assert (site / "generated" / "api" / f"geoemb_xr.{name}.html").exists(), name


@pytest.mark.pages
def test_the_atlas_has_every_product(site, catalog_products):
    page = (site / "generated" / "atlas.html").read_text()
    for product in catalog_products:
        assert f'id="product-{product.name.replace(".", "-")}"' in page


@pytest.mark.pages
def test_figures_of_the_correctness_page_are_as_it_says(site):
    page = (site / "correctness.html").read_text()
    assert "codes survive decode and encode: True" in page
    assert page.count("50 pixels: True") == 4


@pytest.mark.pages
def test_links_of_the_how_to_are_in_the_site(site):
    page = (site / "how-to.html").read_text()
    rows = re.findall(r"<tr.*?</tr>", page, flags=re.DOTALL)
    calls = [row for row in rows if re.search(r"\bgx\.|\.emb\.", re.sub(r"<.*?>", "", row))]
    links = [re.findall(r'href="(generated/api/[^"#]+)"', row) for row in calls]
    assert len(calls) > 75
    assert all((site / link).exists() for row in links for link in row)
    assert all(links), [row for row, found in zip(calls, links, strict=True) if not found]


@pytest.mark.pages
def test_every_link_inside_the_site_leads_to_a_page(site):
    """Targets of figures are not resolved by Sphinx, and no warning tells of one that leads nowhere."""
    pages = [*site.glob("*.html"), *(site / "generated").glob("*.html")]
    links = [(page, link) for page in pages for link in re.findall(r'href="([^"#?]+)', page.read_text())]
    inside = [(page, link) for page, link in links if not re.match(r"\w+:", link)]
    assert len(inside) > 500
    assert [f"{page.name}: {link}" for page, link in inside if not (page.parent / link).exists()] == []


@pytest.mark.pages
@pytest.mark.timeout(300)
def test_no_page_scrolls_sideways(site):
    """At the width of a screen, a tablet and a telephone; what is too wide scrolls in a box of its own."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no Chromium: apt-get install chromium")
    pages = [
        *site.glob("*.html"),
        *(site / "generated").glob("*.html"),
        *site.glob("generated/notebooks/*.html"),
    ]
    assert {"how-to.html", "atlas.html", "01_quickstart.html"} <= {page.name for page in pages}
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        for page in pages:
            is_drawn = "docs_json" in page.read_text()  # by scripts, as wide as they like at the first width
            for width in (1440, 1024, 390):
                tab.set_viewport_size({"width": width, "height": 900})
                if width == 1440 or is_drawn:
                    tab.goto(page.as_uri(), wait_until="domcontentloaded")
                if is_drawn:
                    tab.wait_for_selector("canvas", state="attached", timeout=60_000)
                wide = tab.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{page.name} is {wide} pixels wide on a screen of {width}"
        browser.close()


@pytest.mark.parametrize("name", sorted(set(gx.__all__) - MODULES))
def test_public_names_are_documented_in_full(name):
    """A summary, an example that runs, and each parameter by its name."""
    value = getattr(gx, name)
    text = inspect.getdoc(value) or ""
    assert text.splitlines()[0].endswith("."), f"{name} has no summary"
    assert ">>> " in text or inspect.isclass(value), f"{name} has no example"
    if inspect.isfunction(value):
        parameters = [p for p in inspect.signature(value).parameters if not p.startswith("_")]
        section = text.partition("Parameters\n----------")[2]
        missing = [p for p in parameters if p not in section]
        assert not missing, f"{name} does not document {missing}"


def test_the_page_on_laziness_lists_all_that_computes():
    page = (ROOT / "docs" / "data-model.md").read_text().partition("## What is lazy")[2]
    named = set(re.findall(r"`(\w+)`", page))
    computing = {
        name
        for name in set(gx.__all__) - MODULES
        if "Computes" in (inspect.getdoc(getattr(gx, name)) or "").partition("\n")[0]
        and not name.startswith(("fit_", "to_"))
    }
    assert {"evaluate", "search"} <= computing <= named


@pytest.fixture(scope="module")
def generate():
    """The module that writes the generated pages."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


def test_each_call_of_the_how_to_leads_to_its_function(generate):
    """What is made a link: that the site has it is asserted where the site is built."""
    rows = [row for row in (ROOT / "docs" / "how-to.md").read_text().splitlines() if row.startswith("| ")]
    calls = [row for row in rows if re.search(r"\bgx\.|\.emb\.", row)]
    assert len(calls) > 75
    listed = set(re.findall(r"^   (\w+)$", generate.api(), flags=re.MULTILINE))
    for row in calls:
        codes = re.findall(r"`([^`]+)`", row)
        found = [(code[where], name) for code in codes for name, where in generate.public_names(code)]
        assert found, row
        assert all(said == name or (name == "Probe" and said in ("probe", "ridge")) for said, name in found)
        assert {name for _, name in found} <= listed, row


def test_every_module_with_public_names_has_a_heading(generate):
    assert set(generate.names_by_heading()) <= set(generate.HEADINGS.values())
    assert len(gx.__all__) == len(set(gx.__all__))  # a name is listed once


def test_readme_has_the_commands_that_ci_and_contributors_run():
    text = (ROOT / "README.md").read_text()
    for command in ("pip install uv", "uv run --all-extras pytest", "uv run --extra viz python -m geoemb_xr"):
        assert command in text


def test_readme_shows_small_pictures_that_are_there():
    text = (ROOT / "README.md").read_text()
    images = sorted((ROOT / "docs" / "images").glob("*.png"))
    assert images
    for image in images:
        assert image.stat().st_size < 200_000, f"{image.name} is too large"
    assert any(f"docs/images/{image.name}" in text for image in images)


def test_the_changelog_has_each_heading_and_entry_once():
    text = (ROOT / "CHANGELOG.md").read_text()
    for release in text.split("\n## ")[1:]:
        headings = re.findall(r"^### .*", release, re.MULTILINE)
        assert len(headings) == len(set(headings)), headings
    entries = re.findall(r"^\* .*", text, re.MULTILINE)
    assert sorted(entries) == sorted(set(entries))


def test_the_version_is_one():
    assert importlib.metadata.version("geoemb-xr") == gx.__version__
    assert f"version: {gx.__version__}\n" in (ROOT / "CITATION.cff").read_text()
