"""Post-processing of a method's tissue: fills dark cores that scar encloses, drops small pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from segmed.errors import SegmenterError
from segmed.metrics.statistics import paired_wilcoxon
from segmed.metrics.surfaces import bounding_box
from segmed.segmenters.obstruction import dark_cores
from segmed.segmenters.region import Scene, TissueMethod

ROUNDING = 1e-6  # of a piece's volume
LEAST_GAIN = 5e-4  # of the mean Dice, for cleaning to be worth it
CHANCE = 0.05


class Cleaned(TissueMethod):
    """Another method's tissue with its dark cores filled, then without small pieces.

    Around `SliceBySlice` it works on the volume, inside of it on each slice.

    Args:
        method: whose tissue it is; a voxel is of it above a probability of 0.5.
        smallest_ml: connected pieces smaller than this (0.001 ml = 1 mm3) are dropped; voxels are connected by faces,
            edges and corners.
        fill_obstruction: whether dark cores enclosed by scar (microvascular obstruction, no-reflow) are scar: see
            `dark_cores`.
        cavity: name of a mask that encloses dark cores together with scar, such as the blood pool.

    Raises:
        SegmenterError: a negative volume.
    """

    def __init__(
        self,
        method: TissueMethod,
        *,
        smallest_ml: float = 0.0,
        fill_obstruction: bool = False,
        cavity: str | None = None,
    ) -> None:
        if smallest_ml < 0:
            raise SegmenterError(f"pieces smaller than {smallest_ml:g} ml can't be dropped: give 0 or more")
        self.method = method
        self.smallest_ml = smallest_ml
        self.fill_obstruction = fill_obstruction
        self.cavity = cavity

    def probability(self, scene: Scene) -> np.ndarray:
        tissue = self.method.probability(scene)
        if self.fill_obstruction:
            cavity = None if self.cavity is None else scene.mask(self.cavity)
            tissue[dark_cores(tissue > 0.5, scene.region, axis=scene.slice_axis, cavity=cavity)] = 1.0
        tissue[small_pieces(tissue > 0.5, scene.spacing_mm, self.smallest_ml)] = 0.0
        return tissue


def small_pieces(mask: np.ndarray, spacing_mm: tuple[float, float, float], smallest_ml: float) -> np.ndarray:
    """The connected pieces of a mask (X, Y, Z) that are smaller than a volume, as a mask."""
    small = np.zeros_like(mask)
    box = bounding_box(mask)
    pieces, count = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    if count:
        volumes_ml = np.bincount(pieces.ravel()) * float(np.prod(spacing_mm)) / 1000
        too_small = volumes_ml < smallest_ml * (1 - ROUNDING)
        too_small[0] = False
        small[box] = too_small[pieces]
    return small


def is_gain(differences: Sequence[float]) -> bool:
    """Whether cleaning is worth it: more cases gain than lose, and the mean Dice rises.

    Args:
        differences: of Dice, one a case, cleaned less not cleaned.
    """
    better, worse = (sum(sign * difference > 0 for difference in differences) for sign in (1, -1))
    return better > worse and math.fsum(differences) / len(differences) >= LEAST_GAIN


def is_gain_beyond_chance(differences: Sequence[float]) -> bool:
    """Whether the mean Dice rises by more than chance; never with fewer than six cases.

    Args:
        differences: as in `is_gain`.
    """
    p = paired_wilcoxon(differences, [0.0] * len(differences))
    return p < CHANCE and math.fsum(differences) / len(differences) >= LEAST_GAIN


def no_loss(differences: Sequence[float]) -> bool:
    """Whether the mean Dice does not fall.

    Args:
        differences: as in `is_gain`.
    """
    return math.fsum(differences) > -LEAST_GAIN * max(len(differences), 1)
