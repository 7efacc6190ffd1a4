"""Volume in, probabilities and label map out, on the volume's own grid, whatever is inside."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.geometry import as_affine
from segmed.labels import LabelSet
from segmed.targets import LabelTargets, targets_of


class Segmenter(ABC):
    """What a trained network, a threshold, an ensemble and a cascade have in common, so that they nest.

        >>> isinstance(segmenter, segmed.Segmenter)
        True
        >>> segmenter.probabilities(volume).sum(0).round(decimals=4).unique()
        metatensor([1.])

    Attributes:
        labels: what the classes after background are.
    """

    labels: LabelSet

    @abstractmethod
    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        """Probability of background and of each label.

        Args:
            volume: (C, X, Y, Z), in any orientation, raw intensities.

        Returns:
            (L + 1, X, Y, Z) float32 on the volume's own grid, background first, summing to one; a new tensor, which
            the caller may change.
        """

    @property
    def class_probabilities(self) -> np.ndarray | None:
        """Of the class of the volume that was segmented last, (K,) float64; none where no network tells one."""
        return None

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        """The most probable label; of regions, what each is painted as where it is more probable than not.

        Args:
            volume: (C, X, Y, Z), in any orientation, raw intensities.

        Returns:
            (1, X, Y, Z) uint8 label indices on the volume's own grid, 0 for background.
        """
        return on_grid_of(volume, decide(self.probabilities(volume).as_tensor(), self.labels)[None])


def decide(probabilities: torch.Tensor, labels: LabelSet) -> torch.Tensor:
    """The label map of probabilities: (L + 1, *spatial) -> (*spatial) uint8."""
    return targets_of(labels).decide(probabilities)


def most_probable(probabilities: torch.Tensor) -> torch.Tensor:
    """Index of the largest of each voxel, the first of equal ones: (L + 1, *spatial) -> (*spatial) uint8."""
    return LabelTargets([str(index) for index in range(1, len(probabilities))]).decide(probabilities)


def on_grid_of(volume: MetaTensor, data: torch.Tensor) -> MetaTensor:
    """New voxels (C, X, Y, Z) on the grid of `volume`, which may have other channels."""
    return MetaTensor(data, affine=torch.from_numpy(as_affine(volume.affine).copy()))
