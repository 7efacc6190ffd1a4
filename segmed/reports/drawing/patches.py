"""Training patches side by side, as the network sees them, and what the method makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from segmed.evaluate.case_volumes import CaseVolumes
from segmed.reports.drawing.one_slice import INK, add_label_legend, draw_slice, is_labelled, name_ends
from segmed.reports.drawing.slices import stack_axis
from segmed.reports.names import ending

PATCHES = 8  # in a figure
COLUMNS = 4  # TensorBoard shows a figure 350 pixels wide
TILE_INCHES = 1.5
SMALLEST_INCHES = 4.0  # for the legend
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
    """Patches with their reference, four in a row; where there are views, one row of patches and a row a view below.

    Shown are the first channel and the slice with most of the labels.

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
    if views:
        count = min(count, COLUMNS)
    first = [grid.case(images[n, 0], reference=None if labels is None else labels[n]) for n in range(count)]
    names = [ending(str(name), LONGEST_NAME) for name in batch.get("case", ())] or [""] * count
    rows = [("patch", first[n : n + COLUMNS], names[n : n + COLUMNS]) for n in range(0, count, COLUMNS)]
    rows += [(name, _viewed(grid, first, np.asarray(view)), [""] * count) for name, view in views.items()]
    axis = stack_axis(first[0].shape, first[0].spacing_mm)
    width, height = (first[0].shape[i] * first[0].spacing_mm[i] for i in range(3) if i != axis)
    columns, tall = min(count, COLUMNS), TILE_INCHES * min(max(height / width, 0.5), 2.0)
    size = max(TILE_INCHES * columns, SMALLEST_INCHES) + 0.3, (tall + 0.25) * len(rows) + 0.7
    figure = Figure(figsize=size, layout="constrained")
    cells = figure.subplots(len(rows), columns, squeeze=False)
    for axes in cells.ravel():
        axes.set_axis_off()
    for line, (name, cases, above) in zip(cells, rows, strict=True):
        for axes, case, shown, text in zip(line, cases, first, above, strict=False):
            axes.set_axis_on()
            of_image = name == "patch" or case.prediction is not None
            number = _fullest(case if name == "patch" else shown, axis)
            box = tuple(slice(0, n) for n in case.shape)
            draw_slice(axes, case, axis, number, box, names=grid.names, window=None if of_image else (0.0, 1.0))
            axes.set_title(text, fontsize=7, color=INK, pad=2)
        line[0].set_ylabel(name, fontsize=8, color=INK)
    if not first[0].is_picture:
        name_ends(cells[0, 0], axis)
    add_label_legend(figure, [case for _, cases, _ in rows for case in cases], grid.names)
    return figure


def _viewed(grid: PatchGrid, patches: Sequence[CaseVolumes], view: np.ndarray) -> list[CaseVolumes]:
    """Label maps over the images of the patches, or maps of probabilities as images."""
    if view.dtype.kind in "iu":
        maps = [grid.case(one, prediction=one).prediction for one in view]
        return [replace(patch, prediction=labels) for patch, labels in zip(patches, maps, strict=False)]
    return [grid.case(one) for one in view[: len(patches)]]


def _fullest(case: CaseVolumes, axis: int) -> int:
    """The slice with most of the reference, or the middle one."""
    if case.reference is not None:
        counts = np.count_nonzero(is_labelled(case.reference), axis=tuple(i for i in range(3) if i != axis))
        if counts.any():
            return int(counts.argmax())
    return case.shape[axis] // 2
