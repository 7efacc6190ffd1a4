"""A scar report -> its figures: every short-axis slice with contours, and the two bullseyes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from scipy import ndimage

from segmed.cardiac.bullseye import draw_bullseye
from segmed.cardiac.chords import CLASSES
from segmed.cardiac.heart import BODY_ANTERIOR, BODY_APEX, HeartLabels, HeartPosition
from segmed.cardiac.report import ScarReport
from segmed.cardiac.rings import bring
from segmed.cardiac.septum import Septum, find_septum
from segmed.cardiac.short_axis import ShortAxis, short_axis_view
from segmed.errors import CardiacError
from segmed.geometry import as_affine
from segmed.reports.drawing.one_slice import name_sides, side_letters
from segmed.reports.drawing.panels import bare, grey_range
from segmed.reports.drawing.slices import INK

# Okabe and Ito 2008: apart for every kind of colour vision, and on grey.
COLOURS = {"LV wall": "#56B4E9", "scar": "#E69F00", "obstruction": "#CC79A7"}
MOST_SLICES = 24  # of a stack; more would be stamps
MOST_CUTS = 12  # of slices that are interpolated anyway
WIDTH_INCHES = 8.2
AROUND = 1.35  # a tile is wider than the heart by this factor
NUMBERED = "; numbered from 1, as in the file"
LEVELS = {"basal": "base", "mid": "mid", "apical": "apical", "apex": "apex"}


@dataclass(frozen=True)
class Tiles:
    """Slices ready to be drawn: rows run downwards, columns to the right.

    Attributes:
        image: (S, R, C).
        masks: (S, R, C) bool each, by name.
        titles: one a slice.
        marks: insertions of the RV as (row, column) of both ends of a short line, a list a slice.
        told: how the slices are seen, for a caption.
        ends: the patient's sides at the left, right, top and bottom of a slice, by letter.
        aspect: height over width of a pixel.
    """

    image: np.ndarray
    masks: Mapping[str, np.ndarray]
    titles: tuple[str, ...]
    marks: tuple[tuple[np.ndarray, ...], ...]
    told: str
    aspect: float
    ends: tuple[str, str, str, str]


def scar_montage(tiles: Tiles) -> Figure:
    """All slices from base to apex with the contours of wall, scar and microvascular obstruction.

    Args:
        tiles: of `montage_tiles`.
    """
    count = len(tiles.image)
    columns = count if count <= 6 else min(math.ceil(count / 2), 8)
    rows = math.ceil(count / columns)
    side = min(WIDTH_INCHES / columns, 2.4)
    height = side * tiles.aspect * tiles.image.shape[1] / tiles.image.shape[2]
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(side * columns, (height + 0.2) * rows + 0.25), layout=layout)
    window = grey_range(tiles.image)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, axes in enumerate(grid):
        if number >= count:
            axes.set_axis_off()
            continue
        axes.imshow(tiles.image[number], cmap="gray", vmin=window[0], vmax=window[1], aspect=tiles.aspect)
        bare(axes)
        if number == 0:
            name_sides(axes, tiles.ends)
        axes.set_title(tiles.titles[number], fontsize=7, color=INK, pad=2)
        for name, colour in COLOURS.items():
            _outline(axes, tiles.masks[name][number], colour)
        for ends in tiles.marks[number]:
            axes.plot(ends[:, 1], ends[:, 0], color="white", linewidth=1.4, solid_capstyle="round")
    shown = [name for name in COLOURS if name == "LV wall" or tiles.masks[name].any()]
    handles = [Line2D([], [], color=COLOURS[name], linewidth=2, label=name) for name in shown]
    if any(tiles.marks):
        handles.append(Line2D([], [], color="#999999", linewidth=2, label="insertions of the RV"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    return figure


def extent_bullseye(report: ScarReport) -> Figure:
    """Scar as a share of each segment's wall.

    Raises:
        CardiacError: segments that could not be known.
    """
    figure, axes = _bullseye_figure(report)
    values = {one.number: one.scar_percent for one in report.segments or ()}
    scale = draw_bullseye(axes, values, title="extent: scar, % of the segment's wall")
    _style(figure.colorbar(scale, ax=axes, shrink=0.7, pad=0.01))
    return figure


def transmurality_bullseye(report: ScarReport) -> Figure:
    """Mean transmurality of each segment, in its classes.

    Raises:
        CardiacError: segments that could not be known.
    """
    figure, axes = _bullseye_figure(report)
    values = {one.number: one.transmurality_mean_percent for one in report.segments or ()}
    scale = draw_bullseye(axes, values, title="transmurality: mean, % of the wall's thickness", classes=True)
    bar = figure.colorbar(scale, ax=axes, shrink=0.7, pad=0.01)
    bar.set_ticks([0.25, 13, 38, 63, 88], labels=[name.replace("-", "–") for name in CLASSES])
    bar.minorticks_off()
    _style(bar)
    return figure


def _bullseye_figure(report: ScarReport) -> tuple[Figure, Axes]:
    if report.segments is None:
        raise CardiacError(f"no bullseye without segments: {report.unknown.get('segments', 'they were not computed')}")
    figure = Figure(figsize=(4.2, 3.5), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    return figure, figure.subplots()


def _style(bar: Colorbar) -> None:
    bar.ax.tick_params(labelsize=7, colors=INK, width=0.6)
    bar.ax.spines[:].set_visible(False)


def _outline(axes: Axes, mask: np.ndarray, colour: str) -> None:
    if mask.any():
        rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
        limits = axes.get_xlim(), axes.get_ylim()
        axes.contour(columns, rows, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=0.9)
        axes.set(xlim=limits[0], ylim=limits[1])


# ---------------------------------------------------------------- slices of a heart


def montage_tiles(
    image: np.ndarray, heart: HeartLabels, report: ScarReport, *, position: HeartPosition | None = None
) -> Tiles:
    """The short-axis slices of a heart, from base to apex, as cardiologists look at them.

    Seen from the apex with the anterior wall above and the septum on the left, turned by quarters only, so that the
    pixels of a stored slice stay what they are. Where the septum can't be known, the body's front is above; where the
    labels are no short axis, the stored slices are shown as they are.

    Args:
        image: (X, Y, Z) intensities, on the grid of the labels.
        heart: that the report is of.
        report: its masks are drawn.
        position: as given to `scar_report`.
    """
    position = position or HeartPosition()
    masks = {
        "LV wall": heart.wall,
        "scar": report.maps.scar & ~report.maps.obstruction,
        "obstruction": report.maps.obstruction,
    }
    try:
        view = short_axis_view(heart, position)
    except CardiacError:
        return _stored_tiles(image, heart, masks)
    try:
        septum = find_septum(view, position)
    except CardiacError:
        septum = None
    affine, shape = _window(view)
    affine, shape, told = _turned(affine, shape, view, septum)
    chosen = _chosen(len(view.slices), MOST_CUTS if view.interpolated else MOST_SLICES)
    to_grid = np.linalg.inv(as_affine(heart.affine)) @ affine
    pixels = ndimage.affine_transform(
        image, to_grid[:3, :3], offset=to_grid[:3, 3], output_shape=shape, order=1, mode="grid-constant"
    )
    marks = [() if septum is None else _insertions(view, septum, affine, number) for number in chosen]
    return Tiles(
        np.moveaxis(pixels, 2, 0)[chosen],
        {name: np.moveaxis(bring(mask, heart.affine, affine, shape), 2, 0)[chosen] for name, mask in masks.items()},
        tuple(_title(view, number) for number in chosen),
        tuple(marks),
        told + _some(len(chosen), len(view.slices)) + ("" if view.interpolated else NUMBERED),
        float(np.linalg.norm(affine[:3, 0]) / np.linalg.norm(affine[:3, 1])),
        _ends(affine[:3, 0], affine[:3, 1]),
    )


def _ends(down: np.ndarray, right: np.ndarray) -> tuple[str, str, str, str]:
    """Letters of the sides at the left, right, top and bottom, of the directions of rows and columns in RAS mm."""
    return side_letters(-right), side_letters(right), side_letters(-down), side_letters(down)


def _chosen(count: int, most: int) -> list[int]:
    shown = min(count, most)
    return ((np.arange(shown) + 0.5) * count / shown - 0.5).round().astype(int).tolist()


def _some(shown: int, count: int) -> str:
    return "" if shown == count else f"; {shown} of {count} slices"


def _title(view: ShortAxis, number: int) -> str:
    one = view.slices[number]
    place = f"{one.position_mm:.0f} mm" if one.stored_index is None else f"slice {one.stored_index + 1}"
    return place if one.level is None else f"{place}, {LEVELS[one.level]}"


def _window(view: ShortAxis) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A square around the heart, on the pixels of the view's slices."""
    spacing, wall = view.cut.spacing_mm, view.cut.wall
    hit = np.argwhere(wall.any(axis=2))
    low, high = hit.min(axis=0), hit.max(axis=0) + 1
    side_mm = AROUND * max((high[axis] - low[axis]) * spacing[axis] for axis in (0, 1))
    sizes = [math.ceil(side_mm / spacing[axis]) for axis in (0, 1)]
    starts = [round((low[axis] + high[axis] - sizes[axis]) / 2) for axis in (0, 1)]
    affine = view.cut.affine.copy()
    affine[:3, 3] += affine[:3, :2] @ np.array(starts)
    return affine, (sizes[0], sizes[1], wall.shape[2])


def _turned(
    affine: np.ndarray, shape: tuple[int, int, int], view: ShortAxis, septum: Septum | None
) -> tuple[np.ndarray, tuple[int, int, int], str]:
    """The grid with rows that run away from the anterior wall and columns that run away from the septum."""
    axes = view.cut.axes

    def direction(angle_rad: float) -> np.ndarray:
        return np.asarray(axes[:, 0] * np.cos(angle_rad) + axes[:, 1] * np.sin(angle_rad))

    if septum is not None:
        up = direction(septum.middle_rad - septum.turn * np.pi / 2)
        left = direction(septum.middle_rad)
        told = "from base to apex, seen from the apex; anterior wall above, septum on the left"
    elif view.oriented:
        up = BODY_ANTERIOR
        away = axes[:, 2] if view.apex_from is not None or axes[:, 2] @ BODY_APEX > 0 else -axes[:, 2]
        left = np.cross(away, up)  # seen from the apex
        told = "seen from the apex, the body's front above"
    else:
        return affine, shape, "as stored: where front and septum lie is not known"
    units = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    order = [0, 1] if abs(up @ units[:, 0]) >= abs(up @ units[:, 1]) else [1, 0]
    turned = affine[:, [*order, 2, 3]]
    sizes = (shape[order[0]], shape[order[1]], shape[2])
    for axis, toward in ((0, up), (1, left)):
        if toward @ turned[:3, axis] > 0:
            turned[:3, 3] += turned[:3, axis] * (sizes[axis] - 1)
            turned[:3, axis] *= -1
    return turned, sizes, told


def _insertions(view: ShortAxis, septum: Septum, affine: np.ndarray, number: int) -> tuple[np.ndarray, ...]:
    """Short lines across the epicardium at the insertions of the RV; none at the apex, where there is no RV."""
    one = view.slices[number]
    if one.kind == "cap" or one.level in ("apical", "apex"):
        return ()
    lines = []
    for angle in (septum.anterior_rad, septum.inferior_rad):
        if angle is None:
            continue
        wall = view.cut.along_rays(view.cut.wall[..., one.index], one.centre, np.array([angle]))[0]
        if not wall.any():
            continue
        radius_mm = (int(np.flatnonzero(wall)[-1]) + 1) * view.cut.step_mm
        middle = view.cut.affine @ np.array([*one.centre, one.index, 1.0])
        axis = view.cut.axes[:, 0] * np.cos(angle) + view.cut.axes[:, 1] * np.sin(angle)
        ends = np.stack([middle[:3] + axis * (radius_mm + beyond) for beyond in (1.0, 5.0)])
        at = np.linalg.inv(affine) @ np.column_stack([ends, np.ones(2)]).T
        lines.append(at[:2].T)
    return tuple(lines)


def _stored_tiles(image: np.ndarray, heart: HeartLabels, masks: Mapping[str, np.ndarray]) -> Tiles:
    """The stored slices that hold some of the wall, as they are."""
    axis = heart.slice_axis
    spacing = [size for other, size in enumerate(heart.spacing_mm) if other != axis]
    stack = {name: np.moveaxis(mask, axis, 0) for name, mask in masks.items()}
    every = np.flatnonzero(stack["LV wall"].any(axis=(1, 2)))
    chosen = every[_chosen(len(every), MOST_SLICES)]
    hit = np.argwhere(stack["LV wall"].any(axis=0))
    margin = np.ceil(0.2 * np.ptp(hit, axis=0)).astype(int) + 5
    low, high = np.maximum(hit.min(axis=0) - margin, 0), hit.max(axis=0) + margin + 1
    part = (chosen[:, None, None], np.arange(low[0], min(high[0], stack["LV wall"].shape[1]))[None, :, None])
    box = (*part, np.arange(low[1], min(high[1], stack["LV wall"].shape[2]))[None, None, :])
    return Tiles(
        np.moveaxis(image, axis, 0)[box],
        {name: mask[box] for name, mask in stack.items()},
        tuple(f"slice {number + 1}" for number in chosen),
        ((),) * len(chosen),
        "as stored: no short axis was found" + _some(len(chosen), len(every)) + NUMBERED,
        spacing[0] / spacing[1],
        _ends(*(column for i, column in enumerate(as_affine(heart.affine)[:3, :3].T) if i != axis)),
    )
