"""The 17 (or 16) segments of the left ventricle, voxel by voxel."""

from __future__ import annotations

from typing import Literal

import numpy as np

from segmed.cardiac.heart import HeartLabels
from segmed.cardiac.septum import Septum
from segmed.cardiac.short_axis import TOO_FEW, ShortAxis
from segmed.errors import CardiacError
from segmed.geometry import as_affine

Model = Literal[16, 17]
Anchor = Literal["septum", "anterior"]

NAMES = {
    1: "basal anterior",
    2: "basal anteroseptal",
    3: "basal inferoseptal",
    4: "basal inferior",
    5: "basal inferolateral",
    6: "basal anterolateral",
    7: "mid anterior",
    8: "mid anteroseptal",
    9: "mid inferoseptal",
    10: "mid inferior",
    11: "mid inferolateral",
    12: "mid anterolateral",
    13: "apical anterior",
    14: "apical septal",
    15: "apical inferior",
    16: "apical lateral",
    17: "apex",
}
SIXTHS = np.array([2, 3, 4, 5, 6, 1])  # from the anterior insertion through the septum
QUARTERS = np.array([14, 15, 16, 13])


def segment_numbers(
    view: ShortAxis,
    septum: Septum,
    slices: np.ndarray,
    angles_rad: np.ndarray,
    *,
    model: Model = 17,
    anchor: Anchor = "septum",
) -> np.ndarray:
    """The segment of points, given by their slice and their direction from its centre.

    Sectors are equal: 60 degrees in the basal and the mid third, 90 in the apical one, whose septal segment has the
    middle of the septum as its middle. Source: Cerqueira et al. 2002, Circulation 105:539.

    Args:
        view: whose levels are known.
        septum: where the sectors begin.
        slices: (N,) indices of the view's slices.
        angles_rad: (N,) angles of the view.
        model: 17 segments, or 16, where the cap of the apex belongs to the four apical ones.
        anchor: `septum`: segments 2 and 3 lie on both sides of the middle of the septum; `anterior`: segment 2
            begins at the anterior insertion.

    Returns:
        (N,) uint8.

    Raises:
        CardiacError: levels that can't be known.
    """
    if any(one.level is None for one in view.slices):
        if len(view.slices) == 1:
            raise CardiacError("segments of one slice can't be known: give its level")
        if view.apex_from is not None:
            raise CardiacError(f"segments can't be known: {TOO_FEW}; give a stack with more slices")
        raise CardiacError("segments without a known apex can't be known: give a point near the apex (apex_mm)")
    begin = septum.anterior_rad if anchor == "anterior" else septum.middle_rad - septum.turn * np.pi / 3
    along_deg = np.degrees(np.mod(septum.turn * (angles_rad - begin), 2 * np.pi))
    sixths = SIXTHS[np.minimum(along_deg // 60, 5).astype(int)]
    quarters = QUARTERS[np.minimum(np.mod(along_deg - 15, 360) // 90, 3).astype(int)]
    levels = np.array([one.level for one in view.slices])[slices]
    numbers = np.where(levels == "basal", sixths, np.where(levels == "mid", sixths + 6, quarters))
    if model == 17:
        numbers = np.where(levels == "apex", 17, numbers)
    return numbers.astype(np.uint8)


def segment_map(
    heart: HeartLabels,
    view: ShortAxis,
    septum: Septum,
    *,
    model: Model = 17,
    anchor: Anchor = "septum",
) -> np.ndarray:
    """The segment of every voxel of the wall, on the grid of its labels.

    Args:
        heart: that the view is of.
        view, septum, model, anchor: as of `segment_numbers`.

    Returns:
        (X, Y, Z) uint8: 1 to 17, 0 outside the wall.

    Raises:
        CardiacError: levels that can't be known.
    """
    affine = as_affine(heart.affine)
    slices, angles_rad = view.locate(np.argwhere(heart.wall) @ affine[:3, :3].T + affine[:3, 3])
    numbers = np.zeros(heart.wall.shape, np.uint8)
    numbers[heart.wall] = segment_numbers(view, septum, slices, angles_rad, model=model, anchor=anchor)
    return numbers
