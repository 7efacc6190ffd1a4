"""A measured heart -> the viewer of its page: the image, and wall, scar and obstruction in the page's colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segmed.cardiac.heart import HeartLabels
from segmed.cardiac.report import ScarReport
from segmed.reports.scar.figures import COLOURS
from segmed.reports.viewer.layers import Layers
from segmed.reports.viewer.viewer import Viewer, ViewerCase
from segmed.volumes.slice_stack import SliceStack


def scar_layers(image: np.ndarray, heart: HeartLabels, report: ScarReport, *, oriented: bool = True) -> Layers:
    """What is shown of a heart.

    Args:
        image: (X, Y, Z) intensities.
        heart: on the grid of the image.
        report: of this heart.
        oriented: whether the header says where left, front and above are.
    """
    indices = np.zeros(heart.wall.shape, np.uint8)
    masks = {"LV wall": heart.wall, "scar": report.maps.scar, "obstruction": report.maps.obstruction}
    for index, name in enumerate(COLOURS, start=1):
        indices[masks[name]] = index
    result = SliceStack.of(indices, heart.affine)
    layers = Layers(SliceStack.of(image, heart.affine), result=result)
    unknown = "The header does not say where left, front and above are: the letters are those of its axes."
    return layers if oriented else replace(layers, remarks=(unknown,))


def scar_viewer(name: str, report: ScarReport, layers: Layers | None) -> Viewer | None:
    """The viewer of one heart.

    Args:
        name: of the case.
        report: of it.
        layers: of `scar_layers`; None: no viewer.
    """
    if layers is None:
        return None
    shown = [label for label in COLOURS if label != "obstruction" or report.maps.obstruction.any()]
    colours = tuple(COLOURS[label] for label in shown)
    return Viewer(tuple(shown), lambda _: layers, (ViewerCase(name),), colours=colours)
