"""The bullseye: a value of each of the 17 segments, base outside, apex in the middle, front above."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm, Colormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Wedge

from segmed.cardiac.chords import CLASSES
from segmed.cardiac.report import ScarReport
from segmed.errors import CardiacError

INK = "#333333"
NOTHING = "#dddddd"
COLOURS = "YlOrRd"
INCHES = 3.4

# (first segment, how many, inner and outer radius, where segment `first` begins in degrees counter-clockwise)
RINGS = ((1, 6, 0.75, 1.0, 60.0), (7, 6, 0.5, 0.75, 60.0), (13, 4, 0.25, 0.5, 45.0), (17, 1, 0.0, 0.25, 0.0))
SIDES = ((0, 1.09, "anterior", 0), (-1.09, 0, "septal", 90), (0, -1.09, "inferior", 0), (1.09, 0, "lateral", 270))


def bullseye(
    values: Mapping[int, float | None],
    *,
    title: str = "",
    label: str = "",
    limits: tuple[float, float] = (0.0, 100.0),
    colours: str = COLOURS,
) -> Figure:
    """A bullseye of any value, as a figure of its own.

    Args:
        values: by segment, 1 to 17 (1 to 16: the middle stays empty); None or absent: hatched in grey.
        title: above it.
        label: beside the scale, with the unit.
        limits: of the scale.
        colours: name of a matplotlib colour map.

    Raises:
        CardiacError: a segment that there is not; limits that are no range.
    """
    figure = Figure(figsize=(INCHES + 0.9, INCHES + 0.3), layout=_layout())
    axes = figure.subplots()
    scale = draw_bullseye(axes, values, title=title, limits=limits, colours=colours)
    _colourbar(figure, scale, axes, label)
    return figure


def scar_bullseyes(report: ScarReport, *, title: str = "") -> Figure:
    """Extent (scar as a share of each segment's wall) and mean transmurality, beside each other.

    Args:
        report: whose segments are known.
        title: above both.

    Raises:
        CardiacError: segments that could not be known.
    """
    if report.segments is None:
        raise CardiacError(f"no bullseye without segments: {report.unknown.get('segments', 'they were not computed')}")
    extent = {one.number: one.scar_percent for one in report.segments}
    depth = {one.number: one.transmurality_mean_percent for one in report.segments}
    figure = Figure(figsize=(2 * (INCHES + 0.9), INCHES + 0.5), layout=_layout())
    left, right = figure.subplots(1, 2)
    scale = draw_bullseye(left, extent, title="extent of scar")
    _colourbar(figure, scale, left, "% of the segment's wall")
    scale = draw_bullseye(right, depth, title="transmurality, mean", classes=True)
    bar = _colourbar(figure, scale, right, "% of the wall's thickness")
    bar.set_ticks([0.25, 13, 38, 63, 88], labels=list(CLASSES))
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    return figure


def draw_bullseye(
    axes: Axes,
    values: Mapping[int, float | None],
    *,
    title: str = "",
    limits: tuple[float, float] = (0.0, 100.0),
    colours: str = COLOURS,
    classes: bool = False,
) -> ScalarMappable:
    """Draw a bullseye into given axes.

    Args:
        axes: emptied of ticks and frame.
        values, title, limits, colours: as of `bullseye`.
        classes: colour the classes of transmurality (0, 1-25, 26-50, 51-75, 76-100 %) in place of a smooth scale.

    Returns:
        The scale, for a colour bar.

    Raises:
        CardiacError: a segment that there is not; limits that are no range.
    """
    strange = sorted(set(values) - set(range(1, 18)))
    if strange:
        raise CardiacError(f"segment {strange[0]} is unknown: segments are 1 to 17")
    if not limits[0] < limits[1]:
        raise CardiacError(f"limits {limits} of a bullseye are no range: give the smaller one first")
    palette = colormaps[colours]
    scale = ScalarMappable(_class_norm(palette) if classes else Normalize(*limits, clip=True), palette)
    for first, count, inner, outer, begin in RINGS:
        for place in range(count):
            turn = begin + place * 360 / count
            wedge = (inner, outer, turn, turn + 360 / count)
            _draw_segment(axes, first + place, values.get(first + place), wedge, scale)
    for x, y, side, rotation in SIDES:
        axes.text(x, y, side, ha="center", va="center", rotation=rotation, fontsize=8, color=INK)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", xticks=[], yticks=[])
    axes.set_frame_on(False)
    if title:
        axes.set_title(title, fontsize=9, color=INK)
    return scale


def _draw_segment(
    axes: Axes,
    number: int,
    value: float | None,
    wedge: tuple[float, float, float, float],
    scale: ScalarMappable,
) -> None:
    inner, outer, begin, end = wedge
    known = value is not None and bool(np.isfinite(value))
    colour = to_rgb(scale.to_rgba(np.array([value]))[0]) if known else None
    width = outer - inner
    patch = Wedge((0, 0), outer, begin, end, width=width, facecolor=colour or NOTHING, edgecolor="white", linewidth=1.2)
    if not known:
        patch.set(hatch="////", edgecolor="#999999", linewidth=0.6)
    patch.set_gid(f"segment {number}")
    axes.add_patch(patch)
    middle, radius = np.radians((begin + end) / 2), (inner + outer) / 2 if inner > 0 else 0.0
    ink = "white" if colour and _lightness(colour) < 0.5 else INK
    text = f"{value:.0f}" if known else "–"
    at = (radius * np.cos(middle), radius * np.sin(middle))
    axes.text(*at, text, ha="center", va="center", fontsize=8, color=ink, gid=f"value {number}")


def _lightness(colour: tuple[float, float, float]) -> float:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _class_norm(palette: Colormap) -> BoundaryNorm:
    return BoundaryNorm([0, 0.5, 25.5, 50.5, 75.5, 100.5], palette.N)


def _colourbar(figure: Figure, scale: ScalarMappable, axes: Axes, label: str) -> Colorbar:
    bar = figure.colorbar(scale, ax=axes, shrink=0.75, pad=0.01)
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK, width=0.6)
    bar.ax.spines[:].set_visible(False)
    return bar


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05)
