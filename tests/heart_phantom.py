"""An analytic left ventricle between two half ellipsoids, with scars whose place and depth are known."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from segmed.cardiac.heart import HeartLabels

EPI_MM, ENDO_MM = (32.0, 78.0), (22.0, 70.0)  # radius at the base, length
INSERTIONS_DEG = (30.0, 150.0)  # of the RV, from the middle of the anterior wall through the septum

APEX = np.array([-0.60, 0.65, -0.45]) / np.linalg.norm([-0.60, 0.65, -0.45])
UP = np.array([0.0, 0.3, 0.95]) - (np.array([0.0, 0.3, 0.95]) @ APEX) * APEX
ANTERIOR = UP / np.linalg.norm(UP)
USUAL = np.stack([ANTERIOR, np.cross(APEX, ANTERIOR), APEX], axis=1)  # columns: anterior, septal, apex; RAS


@dataclass(frozen=True)
class Sector:
    """A scar: from and to in degrees and as shares of the length, and its depth as shares of the wall."""

    angles_deg: tuple[float, float]
    levels: tuple[float, float]
    depth: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Phantom:
    heart: HeartLabels
    scar: np.ndarray


def make(
    spacing_mm=(1.0, 1.0, 1.0),
    *,
    turn=None,
    frame=USUAL,
    sectors=(),
    taper=True,
    base_gap_deg=0.0,
    samples=None,
    span_mm=(-6.0, 84.0),
) -> Phantom:
    """Sample the ventricle on a grid.

    Args:
        spacing_mm: of the grid; its last axis runs along the long axis, unless turned.
        turn: Rotation of the grid against the heart; None: slices are the short axis.
        frame: (3, 3), the heart's axes (anterior, septal, apex) in RAS.
        sectors: scars.
        taper: half ellipsoids; False: tubes that are the same from end to end.
        base_gap_deg: of the wall above a tenth of the length, opposite the septum, that the outflow tract takes.
        samples: points a voxel along each axis, the majority decides.
        span_mm: of the grid along the long axis.
    """
    spacing = np.array(spacing_mm)
    turn = np.eye(3) if turn is None else turn.as_matrix()
    half = np.array([46.0, 46.0, (span_mm[1] - span_mm[0]) / 2])
    half = half if np.allclose(turn, np.eye(3)) else np.full(3, 56.0)
    shape = tuple(int(n) for n in np.ceil(2 * half / spacing))
    centre = np.array([0.0, 8.0, (span_mm[0] + span_mm[1]) / 2])
    samples = samples or (1, 1, max(1, round(spacing_mm[2] / 2)))
    votes = np.zeros((5, *shape), np.uint8)
    for offset in np.ndindex(*samples):
        shift = (np.array(offset) + 0.5) / samples - 0.5
        index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1) + shift
        at = ((index + 0.5) * spacing - half) @ turn.T + centre
        tissue = tissue_at(at, sectors, taper, base_gap_deg)
        for value in range(5):
            votes[value] += tissue == value
    healthy, scar = votes[1].astype(int), votes[4].astype(int)
    votes[1] = healthy + scar  # the wall is one tissue before it is healthy or scar
    votes[4] = 0
    labels = votes.argmax(axis=0)
    wall = labels == 1
    affine = np.eye(4)
    affine[:3, :3] = frame @ turn * spacing
    affine[:3, 3] = (-20.0, 15.0, 30.0) - affine[:3, :3] @ (np.array(shape) / 2)
    return Phantom(HeartLabels(wall, affine, labels == 2, labels == 3), wall & (scar >= healthy) & (scar > 0))


def tissue_at(at, sectors=(), taper=True, base_gap_deg=0.0):
    """0 nothing, 1 healthy wall, 2 pool, 3 RV, 4 scar, at points (..., 3) in mm along anterior, septal, apex."""
    a, s, w = at[..., 0], at[..., 1], at[..., 2]
    radius, angle_deg = np.hypot(a, s), np.mod(np.degrees(np.arctan2(s, a)), 360)
    epi, endo = (size[0] * np.sqrt(np.clip(1 - (w / size[1]) ** 2 * taper, 0, None)) for size in (EPI_MM, ENDO_MM))
    inside = (w >= 0) & (w < EPI_MM[1])
    wall = inside & (radius < epi) & (radius >= endo)
    wall &= ~((w < 0.1 * EPI_MM[1]) & (np.abs(angle_deg - 270) < base_gap_deg / 2))
    tissue = np.where(wall, 1, np.where(inside & (radius < endo), 2, 0))
    septal = (angle_deg > INSERTIONS_DEG[0]) & (angle_deg < INSERTIONS_DEG[1])
    rv_end = 0.85 if taper else 1.0
    tissue[inside & (radius >= epi) & (radius < epi + 12) & septal & (w < rv_end * EPI_MM[1])] = 3
    depth = (radius - endo) / np.maximum(epi - endo, 1e-6)
    for sector in sectors:
        first, last = sector.angles_deg
        around = np.mod(angle_deg - first, 360) < last - first
        along = (w >= sector.levels[0] * EPI_MM[1]) & (w < sector.levels[1] * EPI_MM[1])
        through = (depth >= sector.depth[0]) & (depth < sector.depth[1])
        tissue[wall & around & along & through] = 4
    return tissue


WALL_ML = 2 / 3 * np.pi * (EPI_MM[0] ** 2 * EPI_MM[1] - ENDO_MM[0] ** 2 * ENDO_MM[1]) / 1000


def scar_ml(sectors, step_mm=0.5):
    """Volume of the scars, from points so close that the grid does not matter."""
    axis = np.arange(-33, 33, step_mm) + step_mm / 2
    total = 0
    for height in np.arange(0, EPI_MM[1], step_mm) + step_mm / 2:
        a, s = np.meshgrid(axis, axis, indexing="ij")
        total += (tissue_at(np.stack([a, s, np.full_like(a, height)], axis=-1), sectors) == 4).sum()
    return total * step_mm**3 / 1000


def stored(phantom: Phantom, order, flips) -> Phantom:
    """The same heart with the axes of its grid in another order and direction."""
    affine = np.array(phantom.heart.affine)[:, [*order, 3]]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (phantom.heart.wall.shape[order[axis]] - 1)
        affine[:3, axis] *= -1
    masks = [
        np.flip(mask.transpose(order), flips)
        for mask in (phantom.heart.wall, phantom.heart.pool, phantom.heart.rv, phantom.scar)
    ]
    return Phantom(HeartLabels(masks[0], affine, masks[1], masks[2]), masks[3])


def oblique(seed):
    """Rotation in a direction of its own."""
    return Rotation.random(random_state=seed)
