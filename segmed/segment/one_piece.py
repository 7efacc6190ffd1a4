"""Reference label maps -> the labels and regions that are one connected piece in all of them, as organs are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from segmed.labels import LabelSet
from segmed.segmenters.combine import loose_pieces

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
    shares: dict[str, list[float]] = {name: [] for name in labels.groups}
    for indices in label_maps:
        for name, of_group in shares.items():
            mask = np.isin(indices, labels.members(name))
            if mask.any():
                of_group.append(1 - np.count_nonzero(loose_pieces(mask)) / np.count_nonzero(mask))
    return tuple(name for name, each in shares.items() if len(each) >= FEWEST_REFERENCES and min(each) >= WHOLE)
