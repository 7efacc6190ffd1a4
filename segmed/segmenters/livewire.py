"""Live wire: the cheapest path along edges between given points, closed to a contour and filled to a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.draw import polygon2mask
from skimage.graph import MCP_Geometric

from segmed.errors import SegmenterError
from segmed.segmenters.region import Scene, TissueMethod
from segmed.segmenters.window import check_options

NAME = "live wire"
GRADIENT_WEIGHT, CROSSING_WEIGHT = 0.5, 0.5  # equal in Mortensen and Barrett too: 0.43 each beside 0.14 of direction
FLAT_COST = 0.01  # of the best edge, so that of two equal ways the shorter is taken


def edge_cost(image: np.ndarray, spacing_mm: Sequence[float], *, sigma_mm: float = 1.0) -> np.ndarray:
    """How little a voxel looks like an edge: low on steep gradients and on zero crossings of the Laplacian.

    Independent of the image's scale and sign. The third term of the source, the gradient's direction, is left out: it
    belongs to pairs of voxels.

    Args:
        image: (X, Y), one slice.
        spacing_mm: of its two axes.
        sigma_mm: of the Gaussian before the derivatives.

    Returns:
        (X, Y) float64 in (0, 1.01], per mm of path.

    Raises:
        SegmenterError: an image that is no single slice, or that has one intensity.

    Source: Mortensen and Barrett 1995, SIGGRAPH, section 3.1.
    """
    check_options(NAME, positive={f"spacing_mm[{i}]": h for i, h in enumerate(spacing_mm)}, not_negative={})
    check_options(NAME, positive={"sigma_mm": sigma_mm}, not_negative={})
    if image.ndim != 2 or len(spacing_mm) != 2 or min(image.shape) < 2:
        raise SegmenterError(f"{NAME}: an image of shape {image.shape} is no slice: give (X, Y) and two spacings")
    values = image.astype(np.float64)
    if not np.isfinite(values).all() or values.min() == values.max():
        raise SegmenterError(f"{NAME}: the slice has one intensity or such as are no numbers: choose another slice")
    smooth = ndimage.gaussian_filter((values - values.mean()) / values.std(), [sigma_mm / h for h in spacing_mm])
    along_x, along_y = np.gradient(smooth, *spacing_mm)
    steepness = np.hypot(along_x, along_y)
    laplacian = np.gradient(along_x, spacing_mm[0], axis=0) + np.gradient(along_y, spacing_mm[1], axis=1)
    flatness = 1 - steepness / steepness.max()
    return FLAT_COST + GRADIENT_WEIGHT * flatness + CROSSING_WEIGHT * ~_zero_crossings(laplacian)


def trace(
    image: np.ndarray,
    points_voxels: Sequence[Sequence[float]] | np.ndarray,
    spacing_mm: Sequence[float],
    *,
    closed: bool = True,
    sigma_mm: float = 1.0,
) -> np.ndarray:
    """The contour of least cost through given points, in their order.

    Args:
        image: (X, Y), one slice, of any scale.
        points_voxels: (N, 2) places in voxels, N >= 3 for a closed contour, else N >= 2; rounded to whole voxels.
        spacing_mm: of the two axes.
        closed: go back from the last point to the first.
        sigma_mm: of the Gaussian before edges are sought.

    Returns:
        (M, 2) int64 voxels of the contour in order, each a neighbour of the next; the first is not repeated.

    Raises:
        SegmenterError: too few points, points outside the slice, a slice of one intensity.

    Source: Mortensen and Barrett 1995, SIGGRAPH; its path by Dijkstra's method in skimage, lengths in mm.
    """
    cost = edge_cost(image, spacing_mm, sigma_mm=sigma_mm)
    points = _checked_points(points_voxels, cost.shape, closed)
    ends = [*points[1:], points[0]] if closed else points[1:]
    contour: list[tuple[int, ...]] = [points[0]]
    for start, end in zip(points, ends, strict=False):
        paths = MCP_Geometric(cost, sampling=tuple(spacing_mm))
        paths.find_costs([start], [end])
        contour += paths.traceback(end)[1:]
    if closed:
        contour.pop()
    return np.array(contour, dtype=np.int64)


def contour_mask(contour: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The voxels on a closed contour and inside it, so half a voxel more all around than its curve encloses.

    Args:
        contour: (M, 2) voxels in order, as from `trace`.
        shape: (X, Y) of the slice.

    Returns:
        (X, Y) bool.
    """
    mask = polygon2mask(tuple(shape), contour)
    mask[tuple(np.asarray(contour).T)] = True
    return mask


@dataclass(frozen=True, kw_only=True)
class LiveWire(TissueMethod):
    """What a closed live wire through given points encloses in each slice: semi-automatic.

    It starts from the points alone, and finds nothing in slices without any. The wire sees the whole slice; what it
    encloses outside the region is left out. A slice's number is that in the scene, so don't wrap it in SliceBySlice.
    A linear change of the image changes nothing. The result is 0 or 1.

    Attributes:
        points_voxels: number of the slice -> (N, 2) places in voxels along the two other axes, in order along the
            contour, N >= 3.
        axis: across the slices; None: the axis of the thickest voxels.
        sigma_mm: of the Gaussian before edges are sought.

    Raises:
        SegmenterError: no points; on a volume: a slice that is not there, points outside it, a slice of one intensity.
    """

    points_voxels: Mapping[int, Sequence[Sequence[float]] | np.ndarray]
    axis: int | None = None
    sigma_mm: float = 1.0

    def __post_init__(self) -> None:
        if not self.points_voxels:
            raise SegmenterError(f"{NAME}: no points are given: give at least three in a slice")

    def probability(self, scene: Scene) -> np.ndarray:
        axis = scene.slice_axis if self.axis is None else self.axis
        slices = np.moveaxis(scene.image, axis, 0)
        spacing_mm = [length for other, length in enumerate(scene.spacing_mm) if other != axis]
        tissue = np.zeros(scene.image.shape, np.float32)
        for number, points in self.points_voxels.items():
            if not 0 <= number < len(slices):
                raise SegmenterError(f"{NAME}: there is no slice {number}: they are 0 to {len(slices) - 1}")
            contour = trace(slices[number], points, spacing_mm, sigma_mm=self.sigma_mm)
            np.moveaxis(tissue, axis, 0)[number] = contour_mask(contour, slices[number].shape)
        return tissue * scene.region


def _checked_points(points_voxels: object, shape: tuple[int, ...], closed: bool) -> list[tuple[int, ...]]:
    points = np.asarray(points_voxels, dtype=np.float64)
    least = 3 if closed else 2
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < least:
        raise SegmenterError(f"{NAME}: points of shape {points.shape}: give at least {least} places (x, y)")
    rounded = np.rint(points).astype(np.int64)
    outside = [point for point in rounded.tolist() if not all(0 <= p < n for p, n in zip(point, shape, strict=True))]
    if outside:
        raise SegmenterError(
            f"{NAME}: point {tuple(outside[0])} is outside the slice of {shape}: give places in voxels"
        )
    return [tuple(point) for point in rounded.tolist()]


def _zero_crossings(laplacian: np.ndarray) -> np.ndarray:
    """Voxels where the Laplacian changes its sign towards a neighbour and which are the nearer of the two to zero."""
    crossings = np.zeros(laplacian.shape, bool)
    for axis in range(laplacian.ndim):
        values, marks = np.moveaxis(laplacian, axis, 0), np.moveaxis(crossings, axis, 0)
        here, following = values[:-1], values[1:]
        changes = here * following < 0
        nearer = np.abs(here) <= np.abs(following)
        marks[:-1] |= changes & nearer
        marks[1:] |= changes & ~nearer
    return crossings
