"""An image or volume file -> the input of a network: filtered, of one size, with comparable intensities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segmed.config.images import ImageConfig
from segmed.data.image_filters import filtered
from segmed.data.images.picture import PICTURE_SUFFIXES, Picture, grey, read_picture
from segmed.errors import DatasetError, VolumeError
from segmed.volumes import is_dicom_folder, is_volume_file, read_volume, spacing_mm, to_canonical

HALF_MAX = 6e4  # float16 ends at 65504


def prepared(path: Path, config: ImageConfig) -> np.ndarray:
    """Read one file as a config says.

    Args:
        path: an image; or a volume, or a folder of DICOM slices, in 3 dimensions.
        config: size, filters, intensities.

    Returns:
        (C, H, W), or (1, X, Y, Z) in canonical orientation; float32.

    Raises:
        VolumeError: the file can't be read or filtered, or has other dimensions than the config.
    """
    channels, spacing = _volume(path) if config.dims == 3 else (_image(path, config.channels), None)
    try:
        channels = np.stack([filtered(channel, config.filters, spacing_mm=spacing) for channel in channels])
    except DatasetError as error:
        raise VolumeError(f"{path}: {error}") from error
    lowest = float(channels.min()) if config.dims == 3 else 0.0
    fitted = _resized(channels, config, spacing or (1.0, 1.0))
    scale, offset = _intensity(fitted, config)
    if config.intensity == "percentile":
        values = np.clip(fitted * scale + offset, 0, 1)
        black = min(max(lowest * scale + offset, 0), 1)
    else:
        values, black = fitted * scale + offset, lowest * scale + offset
    result = _padded(values, config.size, black)
    return np.clip(result, -HALF_MAX, HALF_MAX).astype(np.float32)


def _image(path: Path, channels: int) -> np.ndarray:
    """(C, H, W) float32 in [0, 1]."""
    if not path.name.lower().endswith(PICTURE_SUFFIXES) and (is_volume_file(path) or path.is_dir()):
        raise VolumeError(f"{path} is a volume: set images.dims to 3")
    picture = read_picture(path)
    return grey(picture)[None] if channels == 1 else _colour(picture)


def _colour(picture: Picture) -> np.ndarray:
    if picture.pixels.ndim == 2:
        return np.repeat(grey(picture)[None], 3, axis=0)
    top = np.float32(np.iinfo(picture.pixels.dtype).max)
    return np.moveaxis(picture.pixels, -1, 0).astype(np.float32) / top


def _volume(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """(1, X, Y, Z) float32 towards right, front and head, and its spacing in mm."""
    if path.name.lower().endswith(PICTURE_SUFFIXES) and not is_dicom_folder(path):
        raise VolumeError(f"{path} is a 2D image: set images.dims to 2")
    volume = to_canonical(read_volume(path))
    if volume.shape[0] != 1:
        raise VolumeError(f"{path} has {volume.shape[0]} channels or time points: save the one that counts")
    return volume.as_tensor().numpy(), spacing_mm(volume.affine)


# ---------------------------------------------------------------- size


def _resized(channels: np.ndarray, config: ImageConfig, spacing: Sequence[float]) -> np.ndarray:
    """(C, *spatial) no larger than the config's size along any axis, and as large along one at least.

    With `pad` and `crop` all axes, in mm, are scaled alike; `crop` first cuts the middle out.
    """
    shape, size = np.array(channels.shape[1:]), np.array(config.size)
    target = size.copy()
    scale = size / (shape * np.array(spacing))
    if config.fit == "pad":
        target = np.clip(np.round(shape * spacing * scale.min()), 1, size).astype(int)
    elif config.fit == "crop":
        window = np.clip(np.round(size / scale.max() / spacing), 1, shape).astype(int)
        start = (shape - window) // 2
        channels = channels[(slice(None), *(slice(a, a + w) for a, w in zip(start, window, strict=True)))]
    for axis, voxels in enumerate(target, start=1):
        if channels.shape[axis] != voxels:
            weights = axis_weights(channels.shape[axis], int(voxels), area=config.resampling == "area")
            channels = np.moveaxis(np.tensordot(channels, weights, axes=(axis, 1)), -1, axis)
    return channels


def axis_weights(before: int, after: int, *, area: bool) -> np.ndarray:
    """Weights of the old pixels of an axis for each new one: (after, before) float32; each row sums to 1.

    Args:
        before, after: numbers of pixels.
        area: when the axis shrinks, a new pixel is the mean of what it covers; else, and when the axis grows, it is
            interpolated linearly between the two old pixels whose centres are nearest.
    """
    ratio = before / after
    if area and ratio > 1:
        edges = np.arange(after + 1)[:, None] * ratio
        covered = np.clip(edges - np.arange(before)[None], 0, 1)  # share of each old pixel left of each edge
        weights = np.diff(covered, axis=0)
    else:
        centre = np.clip((np.arange(after) + 0.5) * ratio - 0.5, 0, before - 1)
        weights = np.clip(1 - np.abs(centre[:, None] - np.arange(before)[None]), 0, 1)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _padded(values: np.ndarray, size: Sequence[int], black: float) -> np.ndarray:
    margins = [(0, 0)]
    for voxels, wanted in zip(values.shape[1:], size, strict=True):
        before = (wanted - voxels) // 2
        margins.append((before, wanted - voxels - before))
    return np.pad(values, margins, constant_values=black) if any(map(any, margins)) else values


# ---------------------------------------------------------------- intensities


def _intensity(values: np.ndarray, config: ImageConfig) -> tuple[float, float]:
    """Scale and offset; a constant image becomes 0."""
    if config.intensity == "unit" and config.dims == 2:
        return 1.0, 0.0
    if config.intensity == "zscore":
        middle, width = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    else:
        clip = config.clip_percentiles if config.intensity == "percentile" else (0, 100)
        low, high = np.percentile(values, clip)
        if low == high:  # nearly all of it is background
            low, high = values.min(), values.max()
        middle, width = float(low), float(high - low)
    if width <= 1e-7 * max(abs(middle), 1e-30):  # rounding, no structure
        return 0.0, 0.0
    return 1 / width, -middle / width
