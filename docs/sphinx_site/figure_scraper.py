"""A block of the gallery -> the pictures that it leaves in `figure` or `pictures`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

DOTS_PER_INCH = 130


def scrape(block: tuple[Any, ...], block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the figure of a block, or copy its pictures; reST that shows them.

    Args:
        block: its kind, text and line.
        block_vars: `example_globals` and `image_path_iterator`.
        gallery_conf: of the gallery.
    """
    known = block_vars["example_globals"]
    kept = known.setdefault("_shown", [])
    paths = []
    figure = known.get("figure")
    if isinstance(figure, Figure) and not any(figure is shown for shown in kept):
        kept.append(figure)
        paths.append(next(block_vars["image_path_iterator"]))
        figure.savefig(paths[-1], dpi=DOTS_PER_INCH, facecolor="white")
    for picture in known.pop("pictures", ()):
        paths.append(next(block_vars["image_path_iterator"]))
        shutil.copyfile(Path(picture), paths[-1])
    return figure_rst(paths, gallery_conf["src_dir"]) if paths else ""
