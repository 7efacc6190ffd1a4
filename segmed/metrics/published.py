"""How a paper scored, where that is not how segmed scores: never in one table with the other."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segmed.metrics.surfaces import bounding_box

SMALLEST_PIXELS = 100
PREDICTION_DILATIONS, REFERENCE_DILATIONS = 1, 3


def zabihollahy2020_dice(prediction: np.ndarray, reference: np.ndarray, *, axis: int = 2) -> float:
    """Dice as the released code of the cascaded multi-planar U-Nets computes it, far above the Dice of a volume.

    In every slice, pieces of the prediction under 100 pixels are removed, what is left is dilated once and the
    reference three times, by a pixel to four sides each time. Then the Dice of the foreground and that of the
    background, which is near 1, are averaged; in a slice where neither holds foreground, the background's alone, 1,
    counts. The mean over all slices of the volume, the empty ones too, is the figure of a case.

    Args:
        prediction, reference: (X, Y, Z) bool, on one grid.
        axis: across the slices.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: masks of different shapes or that are not bool.

    Source: the code that accompanies Zabihollahy et al. 2020, Med Phys 47:1645
    (github.com/Fatemeh-Zabihollahy/3DLGE_Scar_XYZ).
    """
    if prediction.shape != reference.shape or prediction.dtype != bool or reference.dtype != bool:
        raise ValueError(
            f"masks of {prediction.shape} {prediction.dtype} and {reference.shape} {reference.dtype}: "
            "give two of bool on one grid"
        )
    pairs = zip(np.moveaxis(prediction, axis, 0), np.moveaxis(reference, axis, 0), strict=True)
    return float(np.mean([_slice_figure(*pair) for pair in pairs]))


def _slice_figure(predicted: np.ndarray, true: np.ndarray) -> float:
    if not predicted.any() and not true.any():
        return 1.0
    pixels = predicted.size
    box = tuple(
        slice(max(0, side.start - REFERENCE_DILATIONS), side.stop + REFERENCE_DILATIONS)
        for side in bounding_box(predicted | true)
    )
    pieces, _ = ndimage.label(predicted[box])
    large = np.bincount(pieces.ravel()) >= SMALLEST_PIXELS
    large[0] = False
    predicted = _dilated(large[pieces], PREDICTION_DILATIONS)
    true = _dilated(true[box], REFERENCE_DILATIONS)
    one, other, both = (int(np.count_nonzero(mask)) for mask in (predicted, true, predicted & true))
    outside = pixels - one - other + both
    sizes = [(2 * both, one + other), (2 * outside, 2 * pixels - one - other)]
    return float(np.mean([shared / size for shared, size in sizes if size]))


def _dilated(mask: np.ndarray, steps: int) -> np.ndarray:
    return ndimage.binary_dilation(mask, iterations=steps) if mask.any() else mask
