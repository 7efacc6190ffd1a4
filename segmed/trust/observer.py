"""Watches the networks of a segmenter at work: what each of them shows of a case, without a second pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from monai.data import MetaTensor

from segmed.labels import LabelSet
from segmed.segmenters.segmenter import Segmenter, decide, on_grid_of
from segmed.trust.signs import Signs, structure_signs
from segmed.volumes import spacing_mm

Predictor = Literal["members", "whole"]


class Observer:
    """Collects the signs of the case that is being segmented.

    Args:
        predictor: `members`: signs of each network by itself, as folds show them of cases that they did not learn
            from; `whole`: of all together, with how far they agree.
        clean: puts the cleaning of pieces that the whole has around one of its networks.
        spacing_known: false: volumes are in voxels.
    """

    def __init__(
        self, predictor: Predictor, *, clean: Callable[[Segmenter], Segmenter], spacing_known: bool = True
    ) -> None:
        self.predictor = predictor
        self._clean = clean
        self._spacing_known = spacing_known
        self._labels: LabelSet | None = None
        self._by_member: dict[int, dict[str, Signs]] = {}
        self._maps: dict[int, np.ndarray] = {}
        self._members = 0

    def watch(self, member: Segmenter) -> Segmenter:
        """The same segmenter, watched."""
        self._members += 1
        return _Watched(member, self, self._members - 1)

    def signs(self, volume: MetaTensor, probabilities: MetaTensor, indices: np.ndarray) -> tuple[dict[str, Signs], ...]:
        """Signs of each predictor, structure by structure, of the case that was segmented last.

        Args:
            volume: (C, X, Y, Z), the case.
            probabilities: (L + 1, X, Y, Z) of all networks together.
            indices: (X, Y, Z), decided from them.
        """
        if self.predictor == "members":
            return tuple(self._by_member[number] for number in range(self._members))
        maps = [self._maps[number] for number in range(self._members)] if self._members > 1 else []
        return (self._of(volume, probabilities, indices, maps),)

    def volumes(self, volume: MetaTensor, indices: np.ndarray) -> dict[str, float]:
        """Volume of each label and region of a label map (X, Y, Z), in ml, or in voxels; see `signs`."""
        masks = {} if self._labels is None else self._labels.masks(indices)
        return {name: float(mask.sum()) * self.unit(volume) for name, mask in masks.items()}

    def unit(self, volume: MetaTensor) -> float:
        """Size of a voxel in ml; 1 where the spacing is not known."""
        return float(np.prod(spacing_mm(volume.affine))) / 1000 if self._spacing_known else 1.0

    def see(self, number: int, volume: MetaTensor, probabilities: MetaTensor, labels: LabelSet) -> None:
        """Take a note of what one network says."""
        self._labels = labels
        if self.predictor == "members":
            own = self._clean(_Given(probabilities, labels)).probabilities(volume)
            indices = decide(own.as_tensor(), labels).numpy(force=True)
            self._by_member[number] = self._of(volume, own, indices, [])
        elif self._members > 1:
            self._maps[number] = decide(probabilities.as_tensor(), labels).numpy(force=True)

    def _of(
        self, volume: MetaTensor, probabilities: MetaTensor, indices: np.ndarray, maps: list[np.ndarray]
    ) -> dict[str, Signs]:
        if self._labels is None:
            raise ValueError("nothing was segmented yet: ask for signs after a case")
        return structure_signs(
            probabilities.numpy(force=True),
            indices,
            volume.numpy(force=True),
            self._labels,
            spacing_mm=spacing_mm(volume.affine),
            voxel_ml=self.unit(volume),
            members=maps,
        )


class _Watched(Segmenter):
    """A segmenter whose probabilities an observer sees."""

    def __init__(self, segmenter: Segmenter, observer: Observer, number: int) -> None:
        self.segmenter, self.labels = segmenter, segmenter.labels
        self._observer, self._number = observer, number

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        probabilities = self.segmenter.probabilities(volume)
        self._observer.see(self._number, volume, probabilities, self.labels)
        return probabilities

    @property
    def class_probabilities(self) -> np.ndarray | None:
        """Those of the segmenter inside."""
        return self.segmenter.class_probabilities


class _Given(Segmenter):
    """Probabilities that are there already."""

    def __init__(self, probabilities: MetaTensor, labels: LabelSet) -> None:
        self._probabilities, self.labels = probabilities, labels

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        return on_grid_of(volume, self._probabilities.as_tensor().clone())
