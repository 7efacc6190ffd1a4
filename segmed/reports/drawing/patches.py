"""Training patches side by side, as the network sees them, and what the method makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from segmed.evaluate.case_volumes import CaseVolumes
from segmed.reports.drawing.one_slice import INK, add_label_legend, draw_slice, is_labelled, name_ends
from segmed.reports.drawing.slices import stack_axis

PATCHES = 8  # in a figure
TILE_INCHES = 1.5
LONGEST_NAME = 20


@dataclass(frozen=True)
class PatchGrid:
    """How the axes of training patches lie.

    Attributes:
        spacing_mm: of the volume that patches are cut from, along X, Y and Z.
        plane_axis: of 2D patches, the axis across them; None: patches are 3D.
        pictures: they are 2D pictures: nobody knows their sides, and Y runs downwards.
        rows_first: 2D patches are (rows, columns).
        names: of the labels.
    """

    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    plane_axis: int | None = None
    pictures: bool = False
    rows_first: bool = False
    names: tuple[str, ...] = ()

    def case(
        self, image: np.ndarray, *, reference: np.ndarray | None = None, prediction: np.ndarray | None = None
    ) -> CaseVolumes:
        """A patch (*spatial) with its labels, as a case of one or more slices."""
        true, answer = (None if labels is None else self._volume(labels) for labels in (reference, prediction))
        return CaseVolumes(self._volume(image.astype(np.float32)), true, answer, self.spacing_mm, picture=self.pictures)

    def _volume(self, array: np.ndarray) -> np.ndarray:
        """A patch (*spatial) as (X, Y, Z)."""
        if self.rows_first and array.ndim == 2:
            return np.asarray(array.T[..., None])
        return array if array.ndim == 3 else np.expand_dims(array, 2 if self.plane_axis is None else self.plane_axis)


def patches_figure(batch: Mapping[str, Any], views: Mapping[str, Any], *, grid: PatchGrid) -> Figure:
    """A column a patch: its first channel with the reference, below it each view; the slice has most of the labels.

    Letters name the sides of the volume; a patch that augmentation flipped lies the other way round.

    Args:
        batch: image (B, C, *spatial), label (B, *spatial) where there is one, case (B) where it has names.
        views: maps (N, *spatial) of the first N patches, by name: label indices as integers, drawn over the image, or
            probabilities, drawn from black (0) to white (1).
        grid: how they lie.
    """
    images = np.asarray(batch["image"])
    labels = np.asarray(batch["label"]) if "label" in batch else None
    count = min(len(images), PATCHES, *(len(view) for view in views.values()))
    first = [grid.case(images[n, 0], reference=None if labels is None else labels[n]) for n in range(count)]
    rows: dict[str, list[CaseVolumes]] = {"patch": first}
    for name, view in views.items():
        maps = [np.asarray(view[n]) for n in range(count)]
        of_labels = maps[0].dtype.kind in "iu"
        rows[name] = [
            replace(first[n], prediction=grid.case(maps[n], prediction=maps[n]).prediction)
            if of_labels
            else grid.case(maps[n])
            for n in range(count)
        ]
    shape = first[0].shape
    axis = stack_axis(shape, first[0].spacing_mm)
    width, height = (shape[i] * first[0].spacing_mm[i] for i in range(3) if i != axis)
    tall = TILE_INCHES * min(max(height / width, 0.5), 2.0)
    figure = Figure(figsize=(TILE_INCHES * count + 0.3, (tall + 0.2) * len(rows) + 0.5), layout="constrained")
    cells = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, cases) in zip(cells, rows.items(), strict=True):
        for axes, case, shown in zip(line, cases, first, strict=True):
            box = tuple(slice(0, size) for size in shape)
            window = (0.0, 1.0) if case.reference is None and case.prediction is None and name != "patch" else None
            draw_slice(axes, case, axis, _fullest(shown, axis), box, names=grid.names, window=window)
        line[0].set_ylabel(name, fontsize=8, color=INK)
    for axes, name in zip(cells[0], batch.get("case", ()), strict=False):
        axes.set_title(str(name)[-LONGEST_NAME:], fontsize=7, color=INK)
    if not first[0].is_picture:
        name_ends(cells[0, 0], axis)
    add_label_legend(figure, [case for cases in rows.values() for case in cases], grid.names)
    return figure


def _fullest(case: CaseVolumes, axis: int) -> int:
    """The slice with most of the reference, or the middle one."""
    if case.reference is not None:
        counts = np.count_nonzero(is_labelled(case.reference), axis=tuple(i for i in range(3) if i != axis))
        if counts.any():
            return int(counts.argmax())
    return case.shape[axis] // 2
