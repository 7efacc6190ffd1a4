"""A volume -> its detail on a small grid, by which copies of a scan are recognised on any grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from segmed.geometry import to_canonical

SIZE = 24  # cells an axis of a miniature
BROAD = 2.0  # cells: what is broader is common to all hearts, or all brains
BLUR = 0.6  # cells: what is finer gets lost when a scan is resampled
MOST_USUAL = 2.0  # times the usual size of detail at most, so that bright edges don't dominate


def miniature(volume: MetaTensor) -> np.ndarray:
    """The detail of a volume in SIZE cells an axis, float16; shape and sense as in `detail`."""
    return detail(volume, (SIZE,) * 3).astype(np.float16)


def detail(volume: MetaTensor, grid: Sequence[int]) -> np.ndarray:
    """The detail of a volume on a grid over all of it.

    Args:
        volume: (1, X, Y, Z), finite.
        grid: cells along right, anterior and superior.

    Returns:
        (X, Y, Z) float32 of the grid, canonical axes, of mean 0 and length 1, so that products of two are
        correlations; zeros where the volume is flat.
    """
    voxels = to_canonical(volume).as_tensor()[None].float()
    x, y, z = (min(cells, size) for cells, size in zip(grid, voxels.shape[2:], strict=True))
    cells = functional.adaptive_avg_pool3d(voxels, (x, y, z))
    if (x, y, z) != tuple(grid):
        cells = functional.interpolate(cells, tuple(grid), mode="trilinear")
    whole = cells[0, 0].numpy(force=True)
    fine = gaussian_filter(whole, BLUR, mode="nearest") - gaussian_filter(whole, BROAD, mode="nearest")
    size = np.abs(fine)
    usual = np.median(size[size > 1e-6 * size.max()]) if size.any() else 0.0
    fine = fine.clip(-MOST_USUAL * usual, MOST_USUAL * usual)
    fine -= fine.mean()
    length = float(np.linalg.norm(fine))
    if length <= 1e-6 * float(np.abs(whole).max()) * fine.size**0.5:
        return np.zeros_like(fine)
    return fine / np.float32(length)
