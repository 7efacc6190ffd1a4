"""Scenes of discs, balls and a heart's wall whose tissues are known to the voxel."""

import numpy as np

from segmed.segmenters.region import Scene


def distances_mm(shape, spacing_mm, centre_mm=None) -> np.ndarray:
    """Distance of every voxel (X, Y, Z) from a point, by default the middle."""
    places = [np.arange(n) * length for n, length in zip(shape, spacing_mm, strict=True)]
    centre = [axis[-1] / 2 for axis in places] if centre_mm is None else centre_mm
    squares = [(axis - middle) ** 2 for axis, middle in zip(places, centre, strict=True)]
    return np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])


def ball(shape, spacing_mm, radius_mm, *, noise=0.0, seed=0, found=None) -> Scene:
    """A bright ball, or a disc where the last axis has one voxel, with partial volume; the region is all of it."""
    distance = distances_mm(shape, spacing_mm)
    width = min(length for length, n in zip(spacing_mm, shape, strict=True) if n > 1)
    share = np.clip((radius_mm - distance) / width + 0.5, 0, 1)
    image = 100 + 200 * share + noise * np.random.default_rng(seed).normal(size=shape)
    return Scene(image.astype(np.float32), np.ones(shape, bool), spacing_mm, found or {})


def wall(*, noise=20.0, seed=0, slices=3) -> tuple[Scene, np.ndarray]:
    """A ring of 20 to 30 mm with a scar of a quarter of it, around a bright pool; the scene and the scar."""
    shape, spacing_mm = (48, 48, slices), (1.5, 1.5, 8.0)
    middle = 47 * 1.5 / 2
    across = distances_mm((48, 48, 1), spacing_mm)
    region = np.broadcast_to((across >= 20) & (across <= 30), shape).copy()
    pool = np.broadcast_to(across < 20, shape).copy()
    x, y = np.meshgrid(np.arange(48) * 1.5 - middle, np.arange(48) * 1.5 - middle, indexing="ij")
    scar = region & ((x > 0) & (y > 0))[..., None]
    image = np.where(scar, 300.0, 100.0) + 150 * pool + noise * np.random.default_rng(seed).normal(size=shape)
    return Scene(image.astype(np.float32), region, spacing_mm, {"pool": pool}), scar


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def radius_mm(mask: np.ndarray, spacing_mm) -> float:
    """Radius of the disc (one slice) or the ball that is as large."""
    flat = mask.shape[2] == 1
    size = mask.sum() * np.prod(spacing_mm[: 2 if flat else 3])
    return float(np.sqrt(size / np.pi) if flat else np.cbrt(0.75 * size / np.pi))
