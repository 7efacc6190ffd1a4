"""The labels of a heart on a grid, and what a user knows of how it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmed.errors import CardiacError
from segmed.geometry import as_affine, check_affine, spacing_mm

Level = Literal["basal", "mid", "apical", "apex"]
Point = tuple[float, float, float]

# Directions in a chest, RAS: the apex points to the left, forward and down; the anterior wall faces forward and up.
BODY_APEX = np.array([-0.60, 0.65, -0.45]) / np.linalg.norm([-0.60, 0.65, -0.45])
BODY_ANTERIOR = np.array([0.0, 1.0, 1.0]) / np.sqrt(2)


@dataclass(frozen=True)
class HeartLabels:
    """The left ventricle, and what is labelled beside it.

    Attributes:
        wall: (X, Y, Z) bool, all of the LV myocardium, scar included.
        affine: (4, 4), voxel indices to RAS+ mm.
        pool: (X, Y, Z) bool, blood pool of the LV; None: what the wall encloses in a slice.
        rv: (X, Y, Z) bool, right ventricle; None or empty: not labelled.

    Raises:
        CardiacError: no myocardium, a mask that is not bool, not three-dimensional, or on another grid.
        VolumeError: an affine that is not a grid with right angles.
    """

    wall: np.ndarray
    affine: np.ndarray
    pool: np.ndarray | None = None
    rv: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_affine(self.affine, "heart labels")
        if self.wall.ndim != 3:
            raise CardiacError(f"the LV wall has shape {self.wall.shape}: give three dimensions, (X, Y, Z)")
        for name, mask in (("LV wall", self.wall), ("LV pool", self.pool), ("RV", self.rv)):
            if mask is not None:
                check_mask(mask, self.wall.shape, name)
        if not self.wall.any():
            raise CardiacError("no LV myocardium in the label map: check which label values are the wall")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return spacing_mm(self.affine)

    @property
    def voxel_ml(self) -> float:
        return abs(float(np.linalg.det(as_affine(self.affine)[:3, :3]))) / 1000

    @property
    def slice_axis(self) -> int:
        """The axis of the thickest voxels; of equal ones the last."""
        return max(range(3), key=lambda axis: (round(self.spacing_mm[axis], 3), axis))


@dataclass(frozen=True)
class HeartPosition:
    """What is known of how a heart lies in its image; what is not given is estimated.

    Attributes:
        long_axis: `slices`: across the stored slices; `found`: from the shape of the LV, whose short-axis slices are
            then interpolated; `auto`: `slices` for stacks of thick slices, else `found`.
        apex_mm: a point nearer to the apex than to the base, RAS mm.
        anterior_mm, inferior_mm: where the RV's free wall meets the LV in front and below, RAS mm; in any slice.
        level: of a stack of one slice.
        oriented: False for images whose affine does not say where left, front and above are.
    """

    long_axis: Literal["auto", "slices", "found"] = "auto"
    apex_mm: Point | None = None
    anterior_mm: Point | None = None
    inferior_mm: Point | None = None
    level: Literal["basal", "mid", "apical"] | None = None
    oriented: bool = True


def check_mask(mask: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """Refuse what is not a bool mask of a shape.

    Raises:
        CardiacError: another type or shape.
    """
    if mask.dtype != bool:
        raise CardiacError(f"the mask of the {name} is of type {mask.dtype}: give a bool array, such as labels == 1")
    if mask.shape != shape:
        raise CardiacError(f"the {name} has shape {mask.shape}, the LV wall {shape}: bring both onto one grid")


def point_mm(affine: np.ndarray, voxel: Sequence[float]) -> Point:
    """Where a voxel's centre lies.

    Args:
        affine: (4, 4), voxel indices to RAS+ mm.
        voxel: indices along X, Y, Z from 0, fractions allowed.

    Returns:
        RAS mm.
    """
    x, y, z, _ = as_affine(affine) @ np.array([*voxel, 1.0])
    return float(x), float(y), float(z)
