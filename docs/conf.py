"""Sphinx: pages in MyST, notebooks as pages, the atlas and the API reference generated from the package.

    uv run --all-extras sphinx-build -W docs docs/_build/html

``-t fast`` leaves the notebooks unexecuted, without their pictures.
"""

import sys
from pathlib import Path

from docutils import nodes

sys.path.insert(0, str(Path(__file__).parent))

import generate

import geoemb_xr

project = "geoemb_xr"
author = "The geoemb_xr developers"
release = version = geoemb_xr.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "generated/results.md"]
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "furo"
html_title = f"geoemb_xr {release}"
html_show_copyright = False  # the licence names no year and no holder
html_static_path = ["_static"]
html_css_files = ["wide.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_excludepatterns = ["generated/notebooks/*"] if tags.has("fast") else []  # noqa: F821 - Sphinx's
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars

autodoc_typehints = "none"  # numpydoc's sections say the types, with shapes and units
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False


#: Pages whose tables have calls: each function named there leads to its page.
CALLS = ("how-to", "earth-engine", "if-you-know")


def setup(app):
    """Write what is generated before Sphinx looks for pages."""
    generate.everything(Path(__file__).parent)
    app.connect("doctree-resolved", link_calls)


def link_calls(app, doctree, page):
    """Make the names of our functions in the tables of a page links."""
    if page not in CALLS:
        return
    for cell in doctree.findall(nodes.entry):
        for literal in cell.findall(nodes.literal):
            code = literal.astext()
            parts, end = [], 0
            for public, where in generate.public_names(code):
                address = app.builder.get_relative_uri(page, generate.page_of(public))
                link = nodes.reference("", code[where], refuri=address, internal=True)
                parts += [nodes.Text(code[end : where.start]), link]
                end = where.stop
            literal.children = []
            literal += [*parts, nodes.Text(code[end:])]
