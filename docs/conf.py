"""Sphinx settings; the reference pages are made from the code's own registries first."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

import make_reference  # noqa: E402

import stemdisp  # noqa: E402

make_reference.write_all(HERE / "_generated")

project = "stemdisp"
author = "The stemdisp developers"
copyright = "2026, the stemdisp developers"
release = version = stemdisp.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

templates_path: list[str] = []
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store"]

html_theme = "pydata_sphinx_theme"
html_title = f"stemdisp {release}"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"secondary_sidebar_items": ["page-toc"], "navigation_with_keys": False}
