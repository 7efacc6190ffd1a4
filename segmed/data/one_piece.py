"""Reference label maps -> the labels and regions that are one connected piece in all of them, as organs are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from segmed.labels import TOGETHER, LabelSet
from segmed.metrics.surfaces import bounding_box

FEWEST_REFERENCES = 5  # that hold a label; of fewer, one piece in each may be chance
WHOLE = 0.95  # of a label's voxels: stray voxels of a reader's mask, or of its resampling, are no second piece


def in_one_piece(label_maps: Iterable[np.ndarray], labels: LabelSet) -> tuple[str, ...]:
    """All labels together, regions and labels whose largest piece holds all but a twentieth of them wherever they are.

    A label map without them says nothing, and at least five must hold them. Voxels are connected by faces, edges and
    corners.

    Args:
        label_maps: label indices (X, Y, Z), of one case each.
        labels: what the indices mean.
    """
    names = ((TOGETHER,) if len(labels.names) > 1 else ()) + (*labels.regions, *labels.names)
    shares: dict[str, list[float]] = {name: [] for name in names}
    for indices in label_maps:
        for name in names:
            mask = np.isin(indices, labels.members(name))
            if mask.any():
                shares[name].append(_share_of_largest(mask))
    return tuple(name for name in names if len(shares[name]) >= FEWEST_REFERENCES and min(shares[name]) >= WHOLE)


def _share_of_largest(mask: np.ndarray) -> float:
    pieces, _ = ndimage.label(mask[bounding_box(mask)], structure=np.ones((3,) * mask.ndim))
    sizes = np.bincount(pieces.ravel())[1:]
    return float(sizes.max() / sizes.sum())
