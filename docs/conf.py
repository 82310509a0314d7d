"""The guide as a site: ``sphinx-build -W docs site``, with the `docs` extra installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sphinx.application import Sphinx

import fastnn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # or Jupyter warns of its folders
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # or each kernel warns of frozen modules

project = "fastnn"
author = "The fastnn developers"
copyright = author
version = release = fastnn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # MathJax in the site: formulas render without a connection
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "repository_links",
    "signatures",
]
root_doc = "index"
exclude_patterns = [
    "gallery/*.ipynb",
    "gallery/*.py",
    "**sg_execution_times.rst",
    "sg_execution_times.rst",
]
templates_path = ["_templates"]
default_role = "py:obj"  # what stands in `backticks` is linked where it has a page

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
suppress_warnings = ["config.cache"]  # of the gallery's functions, which can't be pickled

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
python_maximum_signature_line_length = 88

html_theme = "pydata_sphinx_theme"
html_title = "fastnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["figures/cache-blocking.html"]  # a page of its own, in a frame of another
html_copy_source = False
html_context = {"default_mode": "auto"}
html_sidebars = {page: [] for page in ("index", "start", "exercises")}
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Those that draw run in their quick form; the others are shown.
PICTURED = "|".join(
    path.stem
    for path in sorted((HERE.parent / "examples").glob("*.py"))
    if "new_figure" in path.read_text() and path.stem != "common"
)
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "within_subsection_order": "gallery_pictures.place",
    "filename_pattern": rf"/({PICTURED})\.py$",
    "ignore_pattern": r"^common\.py$",
    "reset_argv": "gallery_pictures.quick_form",
    "image_scrapers": ("gallery_pictures.scrape",),
    "reset_modules": ("matplotlib", "gallery_pictures.be_strict"),
    "reset_modules_order": "both",
    "parallel": True,  # as many as `sphinx -j` says, by the joblib that scikit-learn brings
    "min_reported_time": 1e9,
    "download_all_examples": False,
    "notebook_extensions": set(),  # a script's page in a notebook would be one cell
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "abort_on_example_error": True,
    "default_thumb_file": str(HERE / "_static" / "example.svg"),
}


def setup(app: Sphinx) -> None:
    """Have pages read side by side by `sphinx -j 2`."""
    # It copies files when all is done, but says nothing of it, and Sphinx takes that for a no.
    app.extensions["sphinx-mathjax-offline"].parallel_read_safe = True
