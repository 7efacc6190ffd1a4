"""Files of cases -> what methods see and learn from: the region as one label, scenes of training cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from segmed.builders.classical import REST, TISSUE
from segmed.compare.prepare import PreparedComparison
from segmed.data.case import Case
from segmed.data.preprocess import read_case
from segmed.errors import DatasetError
from segmed.labels import IGNORE, LabelSet
from segmed.segmenters.region import Scene
from segmed.volumes import read_label_volume, spacing_mm


def read_with_reference(case: Case, comparison: PreparedComparison) -> tuple[MetaTensor, MetaTensor]:
    image, reference = read_case(case, comparison.dataset)
    if reference is None:
        raise DatasetError(f"case {case.id} has no label map: leave it out of the comparison")
    return image, reference


def label_indices(path: Path, labels: LabelSet, *, like: MetaTensor) -> np.ndarray:
    """Indices (X, Y, Z) of a label map on the grid of an image.

    Raises:
        DatasetError: another grid.
    """
    values = read_label_volume(path)
    if tuple(values.shape[1:]) != tuple(like.shape[1:]):
        raise DatasetError(
            f"{path} has shape {tuple(values.shape[1:])}, its image {tuple(like.shape[1:])}: predict again"
        )
    return labels.encode(values.as_tensor().numpy(), where=str(path))[0]


def wall_labels(comparison: PreparedComparison) -> LabelSet:
    """The region as one label, and the others beside it."""
    config = comparison.config
    names = (config.region, *(name for name in comparison.dataset.labels.names if name not in config.within))
    return LabelSet(names, tuple((number,) for number in range(1, len(names) + 1)))


def whole_wall(indices: np.ndarray, comparison: PreparedComparison) -> np.ndarray:
    """A label map in which the region is one label, so that no method sees where the tissue is in a reference.

    Args:
        indices: (X, Y, Z) of the data set's labels; what is to be ignored becomes background.
        comparison: whose region it is.

    Returns:
        (X, Y, Z) uint8 of `wall_labels`.
    """
    labels, walls = comparison.dataset.labels, wall_labels(comparison)
    table = np.zeros(256, np.uint8)
    for name in labels.names:
        table[labels.index(name)] = 1 if name in comparison.config.within else walls.index(name)
    return table[indices]


def beside_wall(wall: np.ndarray, comparison: PreparedComparison) -> np.ndarray:
    """What is known beside the region, in the data set's labels; the region itself is background.

    Args:
        wall: (X, Y, Z) of `whole_wall`.
        comparison: whose region it is.

    Returns:
        (X, Y, Z) uint8.
    """
    names, labels = wall_labels(comparison).names, comparison.dataset.labels
    table = np.array([0, 0, *(labels.index(name) for name in names[1:])], np.uint8)
    return table[wall]


class TrainingScenes(Sequence[Scene]):
    """Training cases in given walls, or in their references', each read when it is asked for.

    In a given wall the tissue is what the reference has of it there, and the rest is all else, be it outside of the
    reference's wall. Cases whose given wall is empty are left out.

    Args:
        comparison: whose cases they are.
        cases: ids.
        walls: case -> label map that has its wall and what lies beside it; others are in their references' walls.
    """

    def __init__(
        self, comparison: PreparedComparison, cases: Sequence[str], walls: Mapping[str, Path] | None = None
    ) -> None:
        self._comparison, self._walls = comparison, walls or {}
        self._cases = [comparison.cases[id] for id in cases if id not in self._walls or self._has_wall(id)]
        self._last: tuple[int, Scene] | None = None

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self._cases):
            raise IndexError(number)
        if self._last is None or self._last[0] != number:
            self._last = number, self._scene(self._cases[number])
        return self._last[1]

    def _scene(self, case: Case) -> Scene:
        image, reference = read_with_reference(case, self._comparison)
        indices = reference.as_tensor()[0].numpy()
        labels, names = self._comparison.dataset.labels, wall_labels(self._comparison)
        path = self._walls.get(case.id)
        wall = whole_wall(indices if path is None else label_indices(path, labels, like=image), self._comparison)
        region = (wall == 1) & (indices != IGNORE)
        tissue = region & (indices == labels.index(self._comparison.config.target))
        other_masks = {name: wall == number for number, name in enumerate(names.names, 1) if number > 1}
        voxels = image.as_tensor()[0].float().numpy()
        return Scene(voxels, region, spacing_mm(image.affine), {**other_masks, TISSUE: tissue, REST: region & ~tissue})

    def _has_wall(self, id: str) -> bool:
        labels, path = self._comparison.dataset.labels, self._walls[id]
        indices = labels.encode(read_label_volume(path).as_tensor().numpy(), where=str(path))
        return bool(np.isin(indices, [labels.index(name) for name in self._comparison.config.within]).any())
