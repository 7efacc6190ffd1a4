"""Post-processing of a method's tissue: fills dark cores that scar encloses, drops small pieces."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segmed.errors import SegmenterError
from segmed.metrics.surfaces import bounding_box
from segmed.segmenters.region import Scene, TissueMethod

ROUNDING = 1e-6  # of a piece's volume


class Cleaned(TissueMethod):
    """Another method's tissue with its dark cores filled, then without small pieces.

    Around `SliceBySlice` it works on the volume, inside of it on each slice.

    Args:
        method: whose tissue it is; a voxel is of it above a probability of 0.5.
        smallest_ml: connected pieces smaller than this (0.001 ml = 1 mm3) are dropped; voxels are connected by faces,
            edges and corners.
        fill_obstruction: whether dark cores enclosed by scar (microvascular obstruction, no-reflow) are scar: see
            `obstruction`.
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
            tissue[obstruction(tissue > 0.5, scene.region, axis=scene.slice_axis, cavity=cavity)] = 1.0
        tissue[small_pieces(tissue > 0.5, scene.spacing_mm, self.smallest_ml)] = 0.0
        return tissue


def obstruction(scar: np.ndarray, region: np.ndarray, *, axis: int, cavity: np.ndarray | None = None) -> np.ndarray:
    """Pieces of the region that are no scar but enclosed by it within their slice.

    Microvascular obstruction mostly lies under the endocardium, where the blood pool closes what scar leaves open: give
    it as `cavity`. Healthy muscle between the cavity and a scar that runs all round the outside is then filled too.

    Args:
        scar: (X, Y, Z) bool.
        region: (X, Y, Z) bool, the wall.
        axis: across the slices.
        cavity: (X, Y, Z) bool, what encloses beside scar.

    Returns:
        (X, Y, Z) bool.
    """
    result = np.zeros(region.shape, bool)
    box = bounding_box(region if cavity is None else region | cavity)
    inside = region[box] if cavity is None else region[box] | cavity[box]
    dark = region[box] & ~scar[box]
    neighbours = _in_slice(axis)
    pieces, _ = ndimage.label(dark, structure=neighbours)
    # beyond the array lies the outside, but not across slices, where the cross has no neighbours
    beside_outside = ndimage.binary_dilation(~inside, neighbours, border_value=1)
    beside_scar = ndimage.binary_dilation(scar[box], neighbours)
    enclosed = np.setdiff1d(pieces[beside_scar & dark], pieces[beside_outside & dark])
    result[box] = dark & np.isin(pieces, enclosed)
    return result


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


def _in_slice(axis: int) -> np.ndarray:
    """A voxel and its four neighbours in the slice, (3, 3, 3)."""
    cross = ndimage.generate_binary_structure(3, 1)
    for end in (0, 2):
        cross[tuple(end if other == axis else slice(None) for other in range(3))] = False
    return cross
