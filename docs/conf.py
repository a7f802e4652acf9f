"""Sphinx settings; the reference pages are made from the code's own registries first."""

import os
import sys
import tempfile
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
    "myst_nb",
    "sphinx.ext.autodoc",
    "math_without_network",
    "numpydoc",
]
html_math_renderer = "mathml"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
# Options and quotes are there to be copied: -- and ' stay what they are.
smartquotes = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

myst_substitutions = {"version": version}

templates_path: list[str] = []
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store"]

# The tutorial runs, in this folder, whenever the pages are built. A cell that fails, or that says
# anything on stderr, ends the build.
# Its kernel knows no settings of whoever builds them, and reports errors only.
_kernel = tempfile.TemporaryDirectory()
_profile = Path(_kernel.name, "profile_default")
_profile.mkdir()
(_profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 'ERROR'\n")
os.environ["IPYTHONDIR"] = _kernel.name
nb_execution_mode = "force"
nb_execution_in_temp = False
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_output_stderr = "warn"
nb_merge_streams = False

html_theme = "pydata_sphinx_theme"
html_title = f"stemdisp {release}"
html_static_path = ["_static"]
html_css_files = ["own.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "**": ["globaltoc.html"]}
html_theme_options = {
    "navbar_center": [],
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
}


def setup(app):
    """Run the tutorial in every build: the code may have changed though its page has not."""
    app.connect("env-get-outdated", lambda *_: ["tutorial"])
