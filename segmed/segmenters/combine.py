"""Segmenters made of segmenters: the mean or the vote of several; label maps without loose pieces and gaps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from segmed.geometry import as_affine, spacing_mm
from segmed.labels import LabelSet
from segmed.segmenters.segmenter import Segmenter, decide, on_grid_of


class Ensemble(Segmenter):
    """Several segmenters of the same labels.

    Raises:
        ValueError: none, or labels that differ.
    """

    def __init__(self, segmenters: Sequence[Segmenter]) -> None:
        if not segmenters:
            raise ValueError("an ensemble has no segmenter: give at least one")
        self.segmenters = tuple(segmenters)
        self.labels = self.segmenters[0].labels
        for number, other in enumerate(self.segmenters[1:], 2):
            if _named_values(other.labels) != _named_values(self.labels):
                raise ValueError(
                    f"an ensemble needs the same labels in all: the first has {_shown(self.labels)}, "
                    f"number {number} has {_shown(other.labels)}"
                )


class Mean(Ensemble):
    """Mean of the probabilities of several segmenters.

        >>> segmed.Mean([segmenter, segmenter]).probabilities(volume).shape[0]  # background and four labels
        5

    Args:
        segmenters: one or more, of the same labels.
    """

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        total = self.segmenters[0].probabilities(volume).as_tensor()
        for other in self.segmenters[1:]:
            total += other.probabilities(volume).as_tensor()
        return on_grid_of(volume, total.div_(len(self.segmenters)))

    @property
    def class_probabilities(self) -> np.ndarray | None:
        """The mean over the segmenters; none where one of them has no class."""
        by_segmenter = [each for segmenter in self.segmenters if (each := segmenter.class_probabilities) is not None]
        return np.mean(by_segmenter, axis=0) if len(by_segmenter) == len(self.segmenters) else None

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        return self.segmenters[0](volume) if len(self.segmenters) == 1 else super().__call__(volume)


class Vote(Ensemble):
    """A voxel gets the label that enough of several label maps give it: two of three planes, say.

    The probability of a label is its share of the votes; that of a label with too few goes to background. Where two
    labels have enough, and as many, the first is taken.

        >>> segmed.Vote([segmenter, segmenter, segmenter]).at_least
        2

    Args:
        segmenters: one or more, of the same labels.
        at_least: votes that a label needs; None: more than half.

    Raises:
        ValueError: more votes are needed than there are segmenters, or none.

    Source: Zabihollahy et al. 2020, Med Phys 47:1645: at least two of three planes.
    """

    def __init__(self, segmenters: Sequence[Segmenter], at_least: int | None = None) -> None:
        super().__init__(segmenters)
        self.labels = self.labels.with_targets("labels")  # votes are for labels, whatever the networks learned
        self.at_least = len(self.segmenters) // 2 + 1 if at_least is None else at_least
        if not 1 <= self.at_least <= len(self.segmenters):
            raise ValueError(
                f"a vote of {len(self.segmenters)} segmenters can't need {self.at_least} votes: give 1 to "
                f"{len(self.segmenters)}"
            )

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        votes = torch.zeros((self.labels.classes, *volume.shape[1:]))
        for segmenter in self.segmenters:
            chosen = segmenter(volume).as_tensor().long().to(votes.device)
            votes.scatter_add_(0, chosen, torch.ones(chosen.shape))
        elected = votes[1:] >= self.at_least
        votes[1:] *= elected
        rest, most = len(self.segmenters) - votes[1:].sum(dim=0), votes[1:].amax(dim=0)
        # a label that has enough wins, however many votes background has
        votes[0] = torch.where(elected.any(dim=0) & (rest >= most), most - 0.5, rest)
        return on_grid_of(volume, votes / votes.sum(dim=0))


class LargestComponent(Segmenter):
    """Keeps the largest connected piece of some labels and regions; the probability of what goes is background's.

    Voxels that touch at a corner are connected. Of two pieces of one size the first in the volume stays. "all labels"
    together come first, then regions: of the LV wall with its scar, scar apart from the wall is no piece of it.

        >>> cleaned = segmed.LargestComponent(segmenter, ["blood_pool"])

    Args:
        segmenter: whose result is cleaned.
        labels: names of labels and regions that have one piece, or "all labels"; the others are left alone.

    Raises:
        VolumeError: an unknown name.
    """

    def __init__(self, segmenter: Segmenter, labels: Sequence[str]) -> None:
        self.segmenter = segmenter
        self.labels: LabelSet = segmenter.labels
        self.cleaned = tuple(labels)
        for name in self.cleaned:
            self.labels.members(name)

    @property
    def class_probabilities(self) -> np.ndarray | None:
        """Those of the segmenter inside."""
        return self.segmenter.class_probabilities

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        probabilities = self.segmenter.probabilities(volume)
        if not self.cleaned:
            return probabilities
        data = probabilities.as_tensor()
        winner = decide(data, self.labels)[None].long()
        before = winner[0].numpy(force=True)
        gone = torch.from_numpy(before != largest_pieces(before, self.labels, self.cleaned)).to(data.device)
        share = data.gather(0, winner)
        data.scatter_(0, winner, share * ~gone)
        data[0] += share[0] * gone
        if self.labels.targets:  # what is left may still be enough for an outer region
            kept = gone & (decide(data, self.labels) != 0)
            data[:, kept] = 0.0
            data[0, kept] = 1.0
        return on_grid_of(volume, data)

    def __call__(self, volume: MetaTensor) -> MetaTensor:
        labels = self.segmenter(volume).as_tensor()
        indices = largest_pieces(labels[0].numpy(force=True), self.labels, self.cleaned)
        return on_grid_of(volume, torch.from_numpy(indices)[None].to(labels.device))


class Tidied(Segmenter):
    """Removes small pieces of every label and closes gaps; what is removed goes to background, gaps are filled from it.

        >>> tidied = segmed.Tidied(segmenter, smallest_ml=0.1)

    Args:
        segmenter: whose result is tidied.
        smallest_ml: connected pieces smaller than this are removed; of all labels, or label -> ml of some.
        closing_mm: radius of the ball by which each label is then dilated and eroded again.

    Raises:
        ValueError: a negative volume or radius, an unknown label.
    """

    def __init__(
        self, segmenter: Segmenter, *, smallest_ml: float | Mapping[str, float] = 0.0, closing_mm: float = 0.0
    ) -> None:
        self.segmenter = segmenter
        self.labels: LabelSet = segmenter.labels
        given = smallest_ml if isinstance(smallest_ml, Mapping) else dict.fromkeys(self.labels.names, smallest_ml)
        least = min(given.values(), default=0.0)
        if least < 0 or closing_mm < 0:
            raise ValueError(f"tidying by {least:g} ml and {closing_mm:g} mm: give 0 or more")
        self.smallest_ml = {self.labels.index(name): volume_ml for name, volume_ml in given.items()}
        self.closing_mm = closing_mm

    @property
    def class_probabilities(self) -> np.ndarray | None:
        """Those of the segmenter inside."""
        return self.segmenter.class_probabilities

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        probabilities = self.segmenter.probabilities(volume).as_tensor()
        spacing = spacing_mm(as_affine(volume.affine))
        indices = decide(probabilities, self.labels).numpy(force=True)
        for index in range(1, self.labels.classes):
            mask = indices == index
            smallest = self.smallest_ml.get(index, 0.0) * 1000 / math.prod(spacing)
            kept = mask & ~_smaller_pieces(mask, smallest)
            closed = _closed(kept, spacing, self.closing_mm)
            self._move(probabilities, torch.from_numpy(mask & ~kept), index, 0)
            self._move(probabilities, torch.from_numpy(closed & (indices == 0)), 0, index)
        return on_grid_of(volume, probabilities)

    def _move(self, probabilities: torch.Tensor, where: torch.Tensor, source: int, target: int) -> None:
        """Give one class what another has there, and so much that it is the most probable."""
        where = where.to(probabilities.device)
        if not where.any():
            return
        part = probabilities[:, where]
        part[target] += part[source]
        part[source] = 0.0
        short = decide(part, self.labels) != target
        part[:, short] = 0.0
        part[target, short] = 1.0
        probabilities[:, where] = part


def _smaller_pieces(mask: np.ndarray, smallest: float) -> np.ndarray:
    """Pieces of fewer voxels than `smallest`; voxels that touch at a corner are connected."""
    if smallest <= 1 or not mask.any():
        return np.zeros_like(mask)
    pieces, _ = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    small = np.bincount(pieces.ravel()) < smallest - 1e-6
    small[0] = False
    return small[pieces]


def _closed(mask: np.ndarray, spacing: Sequence[float], radius_mm: float) -> np.ndarray:
    """Dilated and eroded by a ball, in the box that this can change."""
    extents = ndimage.find_objects(mask.astype(np.uint8))
    if radius_mm < min(spacing) or not extents:
        return mask
    reach = [math.ceil(radius_mm / step) + 1 for step in spacing]
    box = tuple(
        slice(max(0, extent.start - step), extent.stop + step) for extent, step in zip(extents[0], reach, strict=True)
    )
    part = np.pad(mask[box], [(step, step) for step in reach])
    near = ndimage.distance_transform_edt(~part, sampling=spacing) <= radius_mm
    inside = ndimage.distance_transform_edt(near, sampling=spacing) > radius_mm
    closed = mask.copy()
    core = tuple(slice(step, size - step) for step, size in zip(reach, part.shape, strict=True))
    closed[box] |= inside[core]
    return closed


def largest_pieces(indices: np.ndarray, labels: LabelSet, names: Sequence[str]) -> np.ndarray:
    """Label indices (X, Y, Z) with only the largest piece of some labels and regions, outer ones first; a copy."""
    kept = indices.copy()
    for name in labels.outer_first(names):
        kept[loose_pieces(np.isin(kept, labels.members(name)))] = 0
    return kept


def loose_pieces(mask: np.ndarray) -> np.ndarray:
    """What of a bool mask (X, Y, Z) is not its largest connected piece."""
    loose = np.zeros_like(mask)
    extents = ndimage.find_objects(mask.astype(np.uint8))
    if not extents:
        return loose
    box = extents[0]
    pieces, count = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        loose[box] = mask[box] & (pieces != sizes.argmax())
    return loose


def _named_values(labels: LabelSet) -> tuple[object, ...]:
    return labels.names, labels.values, labels.targets


def _shown(labels: LabelSet) -> str:
    named = ", ".join(f"{name} {list(values)}" for name, values in zip(labels.names, labels.values, strict=True))
    return named + (f" by the targets {', '.join(labels.targets)}" if labels.targets else "")
