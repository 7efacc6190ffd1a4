"""A heart cut into slices, and what the ring of the wall is like in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmed.cardiac.heart import HeartLabels
from segmed.geometry import as_affine, spacing_mm

CAVITY_MM2 = 10.0  # a smaller one has no centre to speak of: the slice counts as one without a cavity
RING_SHARE = (
    0.9  # of the directions from the centre in which a full ring has wall; a gap of a voxel is no outflow tract
)
DIRECTIONS = 120  # in which the ring test looks


@dataclass(frozen=True)
class Cut:
    """A heart on a grid whose last axis runs across the slices.

    Angles are in radians from the grid's first axis, right-handed about the third: seen from the end of the last
    slice they run counter-clockwise.

    Attributes:
        wall, pool: (R, C, S) bool.
        rv: the same; None where it is not labelled.
        affine: (4, 4), of this grid, to RAS+ mm.
    """

    wall: np.ndarray
    pool: np.ndarray
    rv: np.ndarray | None
    affine: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return spacing_mm(self.affine)

    @property
    def axes(self) -> np.ndarray:
        """(3, 3), columns are unit vectors in RAS: angle 0, angle pi / 2, and from the first slice to the last."""
        units = self.affine[:3, :3] / np.array(self.spacing_mm)
        return np.stack([units[:, 0], self._turn * units[:, 1], units[:, 2]], axis=1)

    @property
    def _turn(self) -> int:
        return 1 if np.linalg.det(self.affine[:3, :3]) > 0 else -1

    def bring(self, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """A mask (X, Y, Z) of another grid on this one: interpolated linearly and cut at one half."""
        return bring(mask, affine, self.affine, self.wall.shape)

    def angle_rad(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Direction of offsets from a centre, in voxels along the first two axes."""
        return np.arctan2(self._turn * y * self.spacing_mm[1], x * self.spacing_mm[0])

    def along_rays(self, mask: np.ndarray, centre: tuple[float, float], angles_rad: np.ndarray) -> np.ndarray:
        """The voxels of a slice that rays from a centre meet, in steps of `step_mm`.

        Args:
            mask: (R, C) bool.
            centre: in voxels.
            angles_rad: (N,).

        Returns:
            (N, steps) bool, False outside the grid.
        """
        corners = [(x - centre[0], y - centre[1]) for x in (0, mask.shape[0]) for y in (0, mask.shape[1])]
        reach_mm = max(float(np.hypot(x * self.spacing_mm[0], y * self.spacing_mm[1])) for x, y in corners)
        radii_mm = (np.arange(int(reach_mm / self.step_mm) + 1) + 0.5) * self.step_mm
        x = centre[0] + np.cos(angles_rad)[:, None] * radii_mm / self.spacing_mm[0]
        y = centre[1] + self._turn * np.sin(angles_rad)[:, None] * radii_mm / self.spacing_mm[1]
        rows, columns = np.floor(x + 0.5).astype(int), np.floor(y + 0.5).astype(int)
        inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
        return inside & mask[rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)]

    @property
    def step_mm(self) -> float:
        return min(self.spacing_mm[:2]) / 5


@dataclass(frozen=True)
class Ring:
    """What the wall of one slice is like.

    Attributes:
        centre: of the cavity, in voxels along the first two axes; None without a cavity.
        cavity_mm2, wall_mm2: areas.
        share: of the directions from the centre in which there is wall; 0 without a cavity.
        compact: area of a wall without a cavity, as a share of the disc around it: about 1 for a cap of the apex.
    """

    centre: tuple[float, float] | None
    cavity_mm2: float
    wall_mm2: float
    share: float
    compact: float

    @property
    def is_full(self) -> bool:
        return self.share >= RING_SHARE


def bring(mask: np.ndarray, affine: np.ndarray, target: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask on another grid; what lies outside of its own is False."""
    to_source = np.linalg.inv(as_affine(affine)) @ target
    # "grid-constant": a position that float noise puts 1e-14 outside of the grid is not lost
    values = ndimage.affine_transform(
        mask.astype(np.float32),
        to_source[:3, :3],
        offset=to_source[:3, 3],
        output_shape=shape,
        order=1,
        mode="grid-constant",
    )
    return values > 0.5 - 1e-4


def cut(heart: HeartLabels, affine: np.ndarray, shape: tuple[int, int, int]) -> Cut:
    """A heart on a grid of slices; without a label of the blood pool, it is what the wall encloses in a slice."""
    wall = bring(heart.wall, heart.affine, affine, shape)
    rv = bring(heart.rv, heart.affine, affine, shape) if heart.rv is not None and heart.rv.any() else None
    pool = enclosed(wall) if heart.pool is None else bring(heart.pool, heart.affine, affine, shape) & ~wall
    return Cut(wall, pool, rv, affine)


def enclosed(wall: np.ndarray) -> np.ndarray:
    """What a wall encloses in each slice along the last axis: (R, C, S) bool."""
    filled = [ndimage.binary_fill_holes(wall[..., number]) for number in range(wall.shape[-1])]
    return np.stack(filled, axis=-1) & ~wall


def rings(heart: Cut) -> list[Ring]:
    """The ring of each slice, first to last."""
    return [_ring(heart, number) for number in range(heart.wall.shape[2])]


def _ring(heart: Cut, number: int) -> Ring:
    wall, pool = heart.wall[..., number], heart.pool[..., number]
    pixel_mm2 = heart.spacing_mm[0] * heart.spacing_mm[1]
    wall_mm2 = float(wall.sum()) * pixel_mm2
    cavity = _largest(pool)
    cavity_mm2 = float(cavity.sum()) * pixel_mm2
    if cavity_mm2 < CAVITY_MM2:
        return Ring(None, cavity_mm2, wall_mm2, 0.0, _compactness(heart, wall, wall_mm2))
    x, y = (float(at.mean()) for at in np.nonzero(cavity))
    angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
    share = float(heart.along_rays(wall, (x, y), angles).any(axis=1).mean()) if wall.any() else 0.0
    return Ring((x, y), cavity_mm2, wall_mm2, share, 0.0)


def _largest(mask: np.ndarray) -> np.ndarray:
    labelled, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labelled == np.bincount(labelled.ravel())[1:].argmax() + 1


def _compactness(heart: Cut, wall: np.ndarray, wall_mm2: float) -> float:
    if not wall.any():
        return 0.0
    x, y = np.nonzero(wall)
    away_mm = np.hypot((x - x.mean()) * heart.spacing_mm[0], (y - y.mean()) * heart.spacing_mm[1])
    return wall_mm2 / (np.pi * (float(away_mm.max()) + 0.5 * heart.spacing_mm[0]) ** 2)
