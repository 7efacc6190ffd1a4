"""Contrast and noise filters of images and volumes: intensities -> intensities of the same shape and range."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, signal
from skimage.exposure import equalize_adapthist
from skimage.filters import threshold_otsu

from segmed.config.image_filters import (
    ClaheConfig,
    Filter,
    GaussianConfig,
    MeanConfig,
    MedianConfig,
    N4Config,
    SigmaConfig,
    WienerConfig,
    Window,
)
from segmed.errors import DatasetError

MAD_OF_A_NORMAL = 0.6745  # median of |x| where x is normal with standard deviation 1
SMALLEST_AXIS = 8  # pixels that N4 leaves of an axis when it shrinks
FEWEST_OF_N4 = 64  # pixels of tissue below which there is no field to estimate


def filtered(image: np.ndarray, filters: Sequence[Filter], *, spacing_mm: Sequence[float] | None = None) -> np.ndarray:
    """Apply filters one after the other.

    Every filter commutes with a change of the intensities' scale and offset (N4: of scale), so any range will do.
    Filters that need [0, 1] (CLAHE, noise as a share of the range) are applied to a scaled copy. A constant image
    stays as it is.

    Args:
        image: (H, W) or (X, Y, Z).
        filters: in their order.
        spacing_mm: of the axes; None where it is not known, as of PNG and JPEG.

    Returns:
        float32 of the same shape.

    Raises:
        DatasetError: not two or three axes, NaN or infinity, a length in mm without spacing, an image too small.
    """
    if image.ndim not in (2, 3) or image.size == 0:
        raise DatasetError(f"image of shape {image.shape} can't be filtered: two or three axes are needed")
    lost = int(image.size - np.isfinite(image).sum())
    if lost:
        raise DatasetError(f"{lost} voxels are NaN or infinite: repair the file before it is filtered")
    image = np.asarray(image, np.float32)
    for each in filters:
        if image.min() == image.max():
            break
        image = _one(image, each, spacing_mm).astype(np.float32)
    return image


def _one(image: np.ndarray, config: Filter, spacing_mm: Sequence[float] | None) -> np.ndarray:
    match config:
        case MeanConfig():
            return ndimage.uniform_filter(image, _window(config, image.ndim, spacing_mm), mode="reflect")
        case MedianConfig():
            return ndimage.median_filter(image, _window(config, image.ndim, spacing_mm), mode="reflect")
        case GaussianConfig():
            return ndimage.gaussian_filter(image, _voxels(config.sd, config, image.ndim, spacing_mm), mode="reflect")
    low, high = float(image.min()), float(image.max())
    unit = (image.astype(np.float64) - low) / (high - low)
    match config:
        case ClaheConfig():
            unit = _clahe(unit, config)
        case N4Config():
            return _n4(image, config)
        case SigmaConfig():
            unit = _sigma(unit, config, _window(config, image.ndim, spacing_mm))
        case WienerConfig():
            unit = _wiener(unit, config, _window(config, image.ndim, spacing_mm))
    return unit * (high - low) + low


def _voxels(
    length: float, config: Window | GaussianConfig, dims: int, spacing_mm: Sequence[float] | None
) -> np.ndarray:
    """A length of the config along every axis, in voxels."""
    if config.unit == "voxels":
        return np.full(dims, length)
    if spacing_mm is None:
        raise DatasetError(f"filter '{config.name}' has lengths in mm, but the spacing is not known: give voxels")  # type: ignore[union-attr]
    return length / np.asarray(spacing_mm, float)


def _window(config: Window, dims: int, spacing_mm: Sequence[float] | None) -> tuple[int, ...]:
    """Odd numbers of voxels, at least 1."""
    voxels = _voxels(config.size, config, dims, spacing_mm)
    return tuple(int(2 * round(max(size - 1, 0) / 2) + 1) for size in voxels)


def noise_sd(image: np.ndarray) -> float:
    """Standard deviation of white noise, from differences that cancel what is smooth.

    Along every axis the second difference (1, -2, 1) is taken; edges are outliers, so the median counts. Voxels at the
    lowest intensity (air that was set to zero) are left out.

    Source: Immerkær 1996 (in 2D the same mask), with the median instead of the mean.
    """
    differences = image.astype(np.float64)
    for axis in range(image.ndim):
        differences = ndimage.correlate1d(differences, [1.0, -2.0, 1.0], axis=axis, mode="reflect")
    looked_at = np.abs(differences[image > image.min()])
    if looked_at.size == 0:
        return 0.0
    return float(np.median(looked_at) / MAD_OF_A_NORMAL / 6 ** (image.ndim / 2))


def _clahe(unit: np.ndarray, config: ClaheConfig) -> np.ndarray:
    tile = [max(2, size // config.tiles) for size in unit.shape]
    return equalize_adapthist(unit, kernel_size=tile, clip_limit=config.clip_limit, nbins=config.levels)


def _n4(image: np.ndarray, config: N4Config) -> np.ndarray:
    """Divide by the field that N4 finds in the tissue (brighter than Otsu's threshold); its mean there is 1."""
    tissue = image > threshold_otsu(image)
    tissue &= image > 0  # the field is a sum in the logarithm
    if tissue.sum() < FEWEST_OF_N4:
        return image
    whole = sitk.GetImageFromArray(np.maximum(image, 0))
    shrink = [max(1, min(config.shrink, size // SMALLEST_AXIS)) for size in reversed(image.shape)]
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(list(config.iterations))
    corrector.SetNumberOfControlPoints([config.control_points] * image.ndim)
    try:
        mask = sitk.GetImageFromArray(tissue.astype(np.uint8))
        corrector.Execute(sitk.Shrink(whole, shrink), sitk.Shrink(mask, shrink))
        logarithm = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(whole))
    except RuntimeError as error:
        raise DatasetError(f"N4 fails on an image of {image.shape} pixels: use n4.shrink 1, or leave it out") from error
    field = np.exp(logarithm.astype(np.float64))
    return image / (field / field[tissue].mean())


def _sigma(unit: np.ndarray, config: SigmaConfig, window: Sequence[int]) -> np.ndarray:
    """Mean of the neighbours within the noise. Source: Lee 1983, eqs 2 to 4."""
    reach = config.width * (noise_sd(unit) if config.noise_sd is None else config.noise_sd)
    half = [size // 2 for size in window]
    padded = np.pad(unit, [(h, h) for h in half], mode="symmetric")
    total, count = np.zeros_like(unit), np.zeros(unit.shape, np.int32)
    for offset in product(*(range(size) for size in window)):
        neighbour = padded[tuple(slice(o, o + size) for o, size in zip(offset, unit.shape, strict=True))]
        near = np.abs(neighbour - unit) <= reach
        total += np.where(near, neighbour, 0)
        count += near
    smooth = total / count  # a voxel is its own neighbour
    around = ndimage.uniform_filter(unit, 3, mode="reflect") * 3**unit.ndim - unit
    spot = count < min(config.fewest, int(np.prod(window)))
    return np.where(spot, around / (3**unit.ndim - 1), smooth)


def _wiener(unit: np.ndarray, config: WienerConfig, window: Sequence[int]) -> np.ndarray:
    """scipy's filter, with mirrored borders, and without 0 / 0 where there is neither noise nor structure."""
    noise = noise_sd(unit) if config.noise_sd is None else config.noise_sd
    if noise == 0:
        return unit
    half = [size // 2 for size in window]
    padded = np.pad(unit, [(h, h) for h in half], mode="symmetric")
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth = signal.wiener(padded, window, noise=noise**2)
    return smooth[tuple(slice(h, h + size) for h, size in zip(half, unit.shape, strict=True))]
