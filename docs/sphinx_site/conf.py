"""Sphinx's settings; Sphinx reads the names below."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE.parent), str(ROOT / "tests" / "fixtures")]

import segmed  # noqa: E402
from sphinx_site.figure_scraper import scrape  # noqa: E402

project = "segmed"
author = "the authors of segmed"
release = version = segmed.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery"]
root_doc = "index"
exclude_patterns = ["gallery/*.ipynb"]
default_role = "code"  # docstrings have single backticks

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache"]  # the scraper is a function

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True

html_theme = "pydata_sphinx_theme"
html_title = "segmed"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "segmed"},
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "navigation_with_keys": False,
}
html_context = {"default_mode": "auto"}
html_sidebars = {"index": [], "readme": []}
copyright = "the authors of segmed, Apache-2.0"

sphinx_gallery_conf = {
    "ignore_pattern": "small_run",
    "plot_gallery": os.environ.get("SEGMED_RUN_GALLERY", "1") == "1",
    "examples_dirs": str(HERE.parent / "gallery"),
    "gallery_dirs": "gallery",
    "filename_pattern": re.escape(os.sep) + "plot_",
    "image_scrapers": (scrape,),
    "capture_repr": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "min_reported_time": 10_000,  # minutes of this machine say nothing of the reader's
    "write_computation_times": False,
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
}


def setup(app: Any) -> None:
    """Docstrings say (B, C, *spatial): a star before a word is no emphasis."""
    app.connect("autodoc-process-docstring", _plain_stars)


def _plain_stars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [re.sub(r"(?<![*\w])\*(?=\w)", r"\\*", line) for line in lines]
