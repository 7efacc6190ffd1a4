"""A cine report -> its figures: the volume curves over the beat, and the slices of end-diastole and end-systole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from monai.data import MetaTensor

from segmed.cardiac.cine_labels import CineValues
from segmed.cardiac.function import CineReport
from segmed.evaluate.case_volumes import CaseVolumes, shown_case
from segmed.metrics.surfaces import bounding_box
from segmed.reports.drawing.one_slice import draw_slice, name_ends
from segmed.reports.drawing.panels import add_legend, plain
from segmed.reports.drawing.slices import INK, stack_axis

TISSUES = {"pool": "LV cavity", "wall": "LV wall", "rv": "RV cavity"}
PAINTED = ("pool", "myocardium", "rv")  # as `label_colours` knows them
COLOURS = dict(zip(TISSUES.values(), ("#009E73", "#56B4E9", "#CC79A7"), strict=True))  # its colours of these
CURVES = {"lv": "LV cavity", "wall": "LV wall", "rv": "RV cavity"}
COLUMNS = 6  # slices in a row
TILE_INCHES = 1.35
AROUND = 0.25  # margin around the heart, of its size


def curve_figure(report: CineReport) -> Figure:
    """Volumes over the beat, in ml and ms where these are known, with both phases marked."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    axes = figure.subplots()
    places = np.array(range(1, report.phases + 1) if report.times_ms is None else report.times_ms, float)
    for curve, name in CURVES.items():
        volumes = getattr(report, curve)
        if volumes is not None:
            axes.plot(
                places, _values(volumes), color=COLOURS[name], marker="o", markersize=3, linewidth=1.2, label=name
            )
    left = _values(report.lv)
    for phase in report.left_out:
        axes.plot(places[phase], left[phase], marker="o", markersize=8, fillstyle="none", color=INK, linestyle="none")
    for phase, text in ((report.diastole, "end-diastole"), (report.systole, "end-systole")):
        axes.axvline(places[phase], color="#999999", linewidth=0.8, linestyle="--", zorder=0)
        _mark(axes, text, float(places[phase]))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("phase" if report.times_ms is None else "time after the first phase, ms", fontsize=8, color=INK)
    axes.set_ylabel(f"volume, {report.curve_unit}", fontsize=8, color=INK)
    plain(axes)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _values(volumes: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in volumes])


def _mark(axes: Axes, text: str, place: float) -> None:
    """A text above the axes, kept within them at both ends."""
    left, right = axes.get_xlim()
    share = (place - left) / (right - left)
    side = "left" if share < 0.15 else "right" if share > 0.85 else "center"
    axes.annotate(text, (place, 1.01), xycoords=("data", "axes fraction"), fontsize=7, color=INK, ha=side, va="bottom")


def ends_montage(
    phases: np.ndarray, values: np.ndarray, affine: np.ndarray, meaning: CineValues, ends: Sequence[int]
) -> Figure:
    """The same slices of end-diastole and, below, of end-systole, with the contours of the tissues.

    Args:
        phases: (T, X, Y, Z) intensities.
        values: (T, X, Y, Z) whole numbers, on the same grid.
        affine: (4, 4), to RAS+ mm.
        meaning: of the values.
        ends: both phases, from 0.
    """
    cases = [_shown(phases[phase], values[phase], affine, meaning) for phase in ends]
    axis = stack_axis(cases[0].shape, cases[0].spacing_mm)
    box, numbers = _view(cases, axis)
    width_mm, height_mm = ((box[i].stop - box[i].start) * cases[0].spacing_mm[i] for i in range(3) if i != axis)
    tall = TILE_INCHES * min(max(height_mm / width_mm, 0.5), 1.6)
    figure = Figure(figsize=(TILE_INCHES * max(len(numbers), 2), 2 * tall + 0.9), layout="constrained")
    grid = figure.subplots(len(cases), len(numbers), squeeze=False)
    for row, case, phase, text in zip(grid, cases, ends, ("end-diastole", "end-systole"), strict=True):
        for axes, number in zip(row, numbers, strict=True):
            draw_slice(axes, case, axis, number, box, names=PAINTED)
            axes.set_title(f"slice {case.slice_number(axis, number)}", fontsize=7, color=INK, pad=2)
        name_ends(row[0], axis)
        row[0].set_ylabel(f"{text}\nphase {phase + 1}", fontsize=8, color=INK)
    painted = [index for case in cases if case.reference is not None for index in np.unique(case.reference)]
    drawn = {name for index, name in enumerate(TISSUES.values(), 1) if index in painted}
    add_legend(figure, {name: colour for name, colour in COLOURS.items() if name in drawn})
    return figure


def _shown(image: np.ndarray, values: np.ndarray, affine: np.ndarray, meaning: CineValues) -> CaseVolumes:
    indices = np.zeros(values.shape, np.uint8)
    for index, tissue in enumerate(TISSUES, 1):
        indices[np.isin(values, getattr(meaning, tissue))] = index
    grid = torch.from_numpy(affine)
    labels = MetaTensor(torch.from_numpy(indices[None]), affine=grid)
    return shown_case(MetaTensor(torch.from_numpy(image[None].copy()), affine=grid), reference=labels)


def _view(cases: Sequence[CaseVolumes], axis: int) -> tuple[tuple[slice, ...], list[int]]:
    """The box around the heart at all phases that are shown, and the slices, in the order of the file."""
    every = np.logical_or.reduce([case.reference > 0 for case in cases if case.reference is not None])
    heart = bounding_box(every)
    margins = [max(2, round(AROUND * (side.stop - side.start))) for side in heart]
    box = tuple(
        slice(max(0, side.start - margin), min(size, side.stop + margin))
        for side, margin, size in zip(heart, margins, every.shape, strict=True)
    )
    count = min(COLUMNS, heart[axis].stop - heart[axis].start)
    middles = heart[axis].start + (np.arange(count) + 0.5) * (heart[axis].stop - heart[axis].start) / count - 0.5
    numbers: list[int] = middles.round().astype(int).tolist()
    return box, sorted(numbers, key=lambda number: cases[0].slice_number(axis, number))
