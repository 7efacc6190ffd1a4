"""A patch and the strides of a network's levels that fit a volume; rules of nnU-Net (Isensee et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

SMALLEST_MAP = 4  # voxels per axis of the coarsest feature map


def pooling(size: Sequence[int], spacing: Sequence[float], *, levels: int | None = None) -> tuple[tuple[int, ...], ...]:
    """Strides of each level, finest first.

    An axis is halved while at least 4 voxels remain and its spacing is less than twice the finest one's.

    Args:
        size: patch, in voxels.
        spacing: in mm, an entry per axis.
        levels: at most so many; none: 6.
    """
    now, gaps = [float(n) for n in size], list(spacing)
    strides: list[tuple[int, ...]] = [(1,) * len(now)]
    while len(strides) < (levels or 6):
        able = [a for a in range(len(now)) if now[a] >= 2 * SMALLEST_MAP]
        if not able:
            break
        finest = min(gaps[a] for a in able)
        step = tuple(2 if a in able and gaps[a] < 2 * finest else 1 for a in range(len(now)))
        now = [n / s for n, s in zip(now, step, strict=True)]
        gaps = [g * s for g, s in zip(gaps, step, strict=True)]
        strides.append(step)
    return tuple(strides)


def patch_within(shape: Sequence[int], spacing: Sequence[float], voxels: int) -> list[int]:
    """The largest cube in mm, clipped to the volume, of at most `voxels` voxels."""
    low, high = 0.0, max(n * s for n, s in zip(shape, spacing, strict=True))
    if math.prod(shape) <= voxels:
        return list(shape)
    for _ in range(50):
        edge = (low + high) / 2
        size = [min(n, edge / s) for n, s in zip(shape, spacing, strict=True)]
        low, high = (edge, high) if math.prod(size) <= voxels else (low, edge)
    return [max(1, min(n, round(low / s))) for n, s in zip(shape, spacing, strict=True)]


def round_up(size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[int]:
    """The next size, in voxels, that all strides divide."""
    divisor = [math.prod(level[a] for level in strides) for a in range(len(size))]
    return [math.ceil(n / d) * d for n, d in zip(size, divisor, strict=True)]
