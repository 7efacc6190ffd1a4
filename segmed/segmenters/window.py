"""The box around a region, in two or three dimensions: what contours and walkers work on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmed.errors import SegmenterError
from segmed.metrics.surfaces import bounding_box
from segmed.segmenters.region import Scene


@dataclass(frozen=True)
class Window:
    """The box around a scene's region, without the axes along which the region is one voxel thick.

    Attributes:
        image: (*box) float32, mean 0 and SD 1 over the region, 0 outside it: free of the arbitrary scale of MR.
        region: (*box) bool.
        spacing_mm: of the box's axes, of which there are two or three.
        place: where the box lies in the volume.
        shape: (X, Y, Z) of the volume.
        dropped: axes of the volume that the box lacks.
        margin: voxels around the region on every side, which may lie outside the volume.
    """

    image: np.ndarray
    region: np.ndarray
    spacing_mm: tuple[float, ...]
    place: tuple[slice, ...]
    shape: tuple[int, ...]
    dropped: tuple[int, ...]
    margin: int

    def cut(self, mask: np.ndarray) -> np.ndarray:
        """What of a mask (X, Y, Z) lies in the region, (*box) bool."""
        return _cut(mask, self.place, self.dropped, self.margin) & self.region

    def volume(self, values: np.ndarray) -> np.ndarray:
        """Values (*box) as (X, Y, Z) float32, 0 outside the region."""
        inner = tuple(slice(self.margin, n - self.margin) for n in self.region.shape)
        volume = np.zeros(self.shape, np.float32)
        volume[self.place] = np.expand_dims(np.where(self.region, values, 0)[inner], self.dropped)
        return volume

    def smoothed(self, sigma_mm: float) -> np.ndarray:
        """The image after a Gaussian that sees the region alone (*box), float32.

        Source: normalised convolution, Knutsson and Westin 1993.
        """
        if sigma_mm == 0:
            return self.image
        sigmas = [sigma_mm / length for length in self.spacing_mm]
        total = ndimage.gaussian_filter(self.image, sigmas, mode="constant")
        weight = ndimage.gaussian_filter(self.region.astype(np.float32), sigmas, mode="constant")
        return np.where(self.region, total / np.maximum(weight, 1e-6), 0).astype(np.float32)

    def extended(self, values: np.ndarray) -> np.ndarray:
        """Values (*box) with those of the nearest voxel of the region outside it, so that its border is no edge."""
        nearest = ndimage.distance_transform_edt(
            ~self.region, sampling=self.spacing_mm, return_distances=False, return_indices=True
        )
        return values[tuple(nearest)]


def window_of(scene: Scene, method: str, *, margin: int = 0) -> Window:
    """The box around the region of a scene.

    Args:
        scene: any.
        method: its name, for the error.
        margin: voxels around the region on every side.

    Raises:
        SegmenterError: an empty region, a region of one intensity, intensities that are no numbers.
    """
    if not scene.region.any():
        raise SegmenterError(f"{method}: the region is empty: give one with voxels")
    values = scene.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise SegmenterError(f"{method}: intensities of the region are NaN or infinite: repair the image")
    if values.min() == values.max():
        raise SegmenterError(
            f"{method}: all {values.size} voxels of the region have the intensity {values[0]:g}: "
            "check the image and the region"
        )
    place = bounding_box(scene.region)
    dropped = _dropped([part.stop - part.start for part in place], scene.spacing_mm)
    region = _cut(scene.region, place, dropped, margin)
    raw = _cut(scene.image, place, dropped, margin).astype(np.float64)
    image = np.where(region, (raw - values.mean()) / values.std(), 0).astype(np.float32)
    spacing = tuple(length for axis, length in enumerate(scene.spacing_mm) if axis not in dropped)
    return Window(image, region, spacing, place, scene.image.shape, dropped, margin)


def mask_of(scene: Scene, name: str, method: str) -> np.ndarray:
    """What else is known of a scene, by name: (X, Y, Z) bool.

    Raises:
        SegmenterError: there is no such mask, or none of it lies in the region.
    """
    mask = scene.mask(name)
    if not (mask & scene.region).any():
        raise SegmenterError(
            f"{method}: the mask '{name}' has no voxel in the region: widen the region or leave it out"
        )
    return mask


def neighbours(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of all voxels but the last along an axis, and of those that follow them."""
    along = np.moveaxis(values, axis, 0)
    return np.moveaxis(along[:-1], 0, axis), np.moveaxis(along[1:], 0, axis)


def check_options(method: str, *, positive: dict[str, float], not_negative: dict[str, float]) -> None:
    """Refuse lengths and weights that have no meaning.

    Raises:
        SegmenterError: one of the first is not above 0, or one of the second is below.
    """
    for name, value in positive.items():
        if not value > 0:
            raise SegmenterError(f"{method}: {name} is {value:g}: give a number above 0")
    for name, value in not_negative.items():
        if not value >= 0:
            raise SegmenterError(f"{method}: {name} is {value:g}: give 0 or more")


def _dropped(extents: list[int], spacing_mm: tuple[float, ...]) -> tuple[int, ...]:
    """The axis one voxel thick; of several that of the thickest voxels, so that two axes are left."""
    flat = [axis for axis in range(3) if extents[axis] == 1]
    return (max(flat, key=lambda axis: spacing_mm[axis]),) if flat else ()


def _cut(values: np.ndarray, place: tuple[slice, ...], dropped: tuple[int, ...], margin: int) -> np.ndarray:
    return np.pad(values[place].squeeze(dropped), margin)
