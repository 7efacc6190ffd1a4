"""An image -> the box around the patient."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CropForeground
from scipy import ndimage
from skimage.filters import threshold_otsu

from segmed.volumes import spacing_mm

BODY_MARGIN_MM = 10.0
BODY_GRID = 96  # voxels an axis of the coarse copy in which the body is segmented


def crop_box(image: MetaTensor, crop: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The box that is kept of an image.

    Args:
        image: (C, X, Y, Z).
        crop: `nonzero`: what is not zero in any channel; `body`: what is brighter than the background, with a
            margin of 10 mm; `none`.

    Returns:
        First voxel and the voxel after the last, an entry an axis; None: everything is kept.
    """
    if crop == "none":
        return None
    filled = [channel for channel in image.as_tensor() if channel.any()]
    if 0 < len(filled) < len(image):  # a case that lacks an image says nothing there
        image = MetaTensor(torch.stack(filled), affine=image.affine)
    if crop == "nonzero":
        finder = CropForeground(select_fn=lambda volume: volume != 0, margin=0, allow_smaller=True)
    else:
        margin = [max(1, round(BODY_MARGIN_MM / spacing)) for spacing in spacing_mm(np.asarray(image.affine))]
        finder = CropForeground(select_fn=body_mask, margin=margin, allow_smaller=True)
    start, end = finder.compute_bounding_box(image.as_tensor())
    first, after = tuple(int(n) for n in start), tuple(int(n) for n in end)
    empty = any(stop <= begin for begin, stop in zip(first, after, strict=True))
    whole = not any(first) and after == tuple(image.shape[1:])
    return None if empty or whole else (first, after)


def body_mask(image: torch.Tensor) -> torch.Tensor:
    """Mask what is brighter than the background, coarsely: Otsu's threshold of a smoothed copy, without specks.

    The square root of the clipped intensities is thresholded: dark tissue then stands with the body even where
    fat is very bright.

    Args:
        image: (C, X, Y, Z), background darker than the body.

    Returns:
        (C, X, Y, Z) bool, blocks of voxels.
    """
    return torch.stack([_channel_body(channel) for channel in image.float()])


def _channel_body(channel: torch.Tensor) -> torch.Tensor:
    block = [max(1, size // BODY_GRID) for size in channel.shape]
    means = torch.nn.functional.avg_pool3d(channel[None], block, block, ceil_mode=True, count_include_pad=False)[0]
    low, high = np.percentile(means.numpy(), (0.5, 99.5))
    if high <= low:
        return torch.ones_like(channel, dtype=torch.bool)
    smooth = ndimage.gaussian_filter(np.sqrt(np.clip(means.numpy() - low, 0, high - low)), 1.0, mode="nearest")
    pieces, count = ndimage.label(smooth > threshold_otsu(smooth.ravel()))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    mask = torch.from_numpy((sizes >= 0.05 * sizes.max())[pieces] & (pieces > 0))
    for axis, size in enumerate(block):
        mask = mask.repeat_interleave(size, dim=axis)
    return mask[tuple(slice(size) for size in channel.shape)]
