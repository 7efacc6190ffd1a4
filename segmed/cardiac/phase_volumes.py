"""Label maps of the phases of a beat -> volumes of both ventricles and of the wall, and what is odd about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from skimage.morphology import convex_hull_image

from segmed.cardiac.cine_labels import CineValues
from segmed.cardiac.rings import CAVITY_MM2, Cut, enclosed, rings
from segmed.errors import CardiacError
from segmed.geometry import as_affine, check_affine, spacing_mm

CUT_OFF = 0.4  # area of the cavity in an outermost slice, of the largest, from which the stack may end too soon
SOLID = 0.75  # share of its convex hull that a wall without a cavity fills at the apex; an open ring fills less


@dataclass(frozen=True)
class PhaseVolumes:
    """Volumes phase by phase, NaN where a phase has none.

    Attributes:
        pool_ml: (T,) of the LV's blood pool.
        wall_ml: (T,) of its wall; None: not labelled.
        rv_ml: (T,) of the right ventricle; None: not labelled.
    """

    pool_ml: np.ndarray
    wall_ml: np.ndarray | None
    rv_ml: np.ndarray | None


@dataclass(frozen=True)
class StackDoubts:
    """What may be wrong with the stack of slices of one phase.

    Attributes:
        slices: how many hold LV cavity.
        open: numbers, from 0 as stored, of slices whose ring of wall is open around the cavity.
        cut_off: whether the cavity is still wide in the first or the last slice of the stack.
    """

    slices: int
    open: tuple[int, ...]
    cut_off: bool


def phase_volumes(values: np.ndarray, affine: np.ndarray, meaning: CineValues) -> PhaseVolumes:
    """Measure every phase on its own grid.

    Args:
        values: (T, X, Y, Z) whole numbers.
        affine: (4, 4), to RAS+ mm.
        meaning: of the values.

    Raises:
        CardiacError: fewer than two phases.
        VolumeError: an affine that is not a grid with right angles.
    """
    if values.ndim != 4 or len(values) < 2:
        raise CardiacError(f"{values.shape[0] if values.ndim == 4 else 1} phase shows no beat: give two or more phases")
    check_affine(affine, "label maps")
    voxel_ml = abs(float(np.linalg.det(as_affine(affine)[:3, :3]))) / 1000
    axis = slice_axis(affine)

    def volumes(masks: Sequence[np.ndarray]) -> np.ndarray:
        counts = np.array([float(mask.sum()) for mask in masks])
        return np.where(counts > 0, counts * voxel_ml, np.nan)

    pool = volumes([_pool(phase, axis, meaning) for phase in values])
    wall = volumes([np.isin(phase, meaning.wall) for phase in values]) if meaning.wall else None
    rv = volumes([np.isin(phase, meaning.rv) for phase in values]) if meaning.rv else None
    return PhaseVolumes(pool, wall, None if rv is None or np.isnan(rv).all() else rv)


def stack_doubts(phase: np.ndarray, affine: np.ndarray, meaning: CineValues) -> StackDoubts:
    """Look at the slices of one phase.

    Args:
        phase: (X, Y, Z) whole numbers, with some LV cavity.
        affine: (4, 4), to RAS+ mm.
        meaning: of the values.
    """
    axis = slice_axis(affine)
    pool = np.moveaxis(_pool(phase, axis, meaning), axis, 2)
    wall = np.moveaxis(np.isin(phase, meaning.wall), axis, 2)
    across = [i for i in range(3) if i != axis]
    areas = pool.sum(axis=(0, 1)) * spacing_mm(affine)[across[0]] * spacing_mm(affine)[across[1]]
    outermost = max(float(areas[0]), float(areas[-1]))
    open_slices: tuple[int, ...] = ()
    if wall.any():
        cut = Cut(wall, pool, None, as_affine(affine)[:, [*across, axis, 3]])
        open_slices = tuple(
            number
            for number, ring in enumerate(rings(cut))
            if (ring.cavity_mm2 >= CAVITY_MM2 and not ring.is_full)
            or (ring.centre is None and ring.wall_mm2 >= CAVITY_MM2 and _solidity(wall[..., number]) < SOLID)
        )
    return StackDoubts(
        slices=int((areas >= CAVITY_MM2).sum()),
        open=open_slices,
        cut_off=len(areas) > 1 and outermost > CUT_OFF * float(areas.max()),
    )


def _solidity(mask: np.ndarray) -> float:
    return float(mask.sum()) / float(convex_hull_image(mask).sum())


def slice_axis(affine: np.ndarray) -> int:
    """The axis of the thickest voxels; of equal ones the last."""
    return max(range(3), key=lambda axis: (round(spacing_mm(affine)[axis], 3), axis))


def _pool(phase: np.ndarray, axis: int, meaning: CineValues) -> np.ndarray:
    """The LV's blood pool (X, Y, Z); where it is not labelled, what the wall encloses in a slice."""
    if meaning.pool:
        return np.isin(phase, meaning.pool)
    wall = np.moveaxis(np.isin(phase, meaning.wall), axis, 2)
    return np.moveaxis(enclosed(wall), 2, axis)
