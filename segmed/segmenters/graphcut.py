"""Graph cut: the labelling of two tissues of least cost and surface, exactly, as a minimum cut."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.spatial import SphericalVoronoi

from segmed.errors import SegmenterError
from segmed.segmenters.intensities import SMOOTHNESS, Mixture, TissueCosts
from segmed.segmenters.region import Scene, TissueMethod

LARGEST_CAPACITY = 1 << 20  # what the largest weight becomes: a whole number far below 2^31, as two of them are added


@dataclass(frozen=True, kw_only=True)
class GraphCut(TissueMethod):
    """Least of the sum of the costs and of `smoothness` times surface, over all ways to part the region in two.

    The minimum is the global one of the weights after rounding: each is a whole multiple of 2^-20 of the largest, so
    that the energy found is above the least by at most (voxels + pairs) 2^-20 of the largest weight. The surface
    towards what is outside the region costs nothing. It gives 0 and 1, no doubt in between.

    Attributes:
        model: what intensities cost in the two tissues.
        smoothness: costs (nats per voxel) times mm, of a surface between equal intensities.
        contrast: where intensities differ by d, a surface costs exp(-contrast d² / (2 mean d²)) of that, the mean
            being over all neighbours in the region; 0: the same everywhere.
        neighbours: 6 or 26 in 3D (4 or 8 in a region of one slice). With 26 the surface is nearly the Euclidean one
            in any direction; with 6 that of boxes, in the mean over all directions the same.

    Source: Boykov, Funka-Lea 2006, IJCV 70:109; surface in mm: Boykov, Kolmogorov 2003, ICCV, Computing geodesics and
    minimal surfaces via graph cuts; the mean contrast as the scale: Rother et al. 2004, GrabCut.
    """

    model: TissueCosts = field(default_factory=Mixture)
    smoothness: float = SMOOTHNESS
    contrast: float = 1.0
    neighbours: Literal[6, 26] = 26

    def __post_init__(self) -> None:
        if not (0 <= self.smoothness < math.inf and 0 <= self.contrast < math.inf and self.neighbours in (6, 26)):
            raise SegmenterError("a graph cut needs smoothness and contrast of zero or more, and 6 or 26 neighbours")

    def probability(self, scene: Scene) -> np.ndarray:
        costs = self.model.costs(scene)
        pairs, weights = neighbour_pairs(scene, neighbours=self.neighbours, contrast=self.contrast)
        result = np.zeros(scene.image.shape, np.float32)
        result[scene.region] = minimum_cut(costs, pairs, self.smoothness * weights)
        return result


def minimum_cut(costs: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Labels of least sum of costs, and of weights of the pairs that they part.

    Args:
        costs: (2, N) of label 0 and 1, finite.
        pairs: (M, 2) whole numbers below N, each pair once.
        weights: (M,) zero or more.

    Returns:
        (N,) bool; of several best ones that with the fewest of label 1.

    Raises:
        SegmenterError: costs that are not finite.
    """
    if not np.isfinite(costs).all():
        raise SegmenterError("a graph cut needs finite costs: give a large number in place of infinity")
    count = costs.shape[1]
    excess = costs[0].astype(np.float64) - costs[1]  # what label 1 saves
    largest = max(np.abs(excess).max(initial=0.0), weights.max(initial=0.0))
    if largest == 0:
        return np.zeros(count, bool)
    scale = LARGEST_CAPACITY / largest
    to_voxel, from_voxel = np.rint(np.maximum(excess, 0) * scale), np.rint(np.maximum(-excess, 0) * scale)
    between = np.rint(weights * scale)
    kept = between > 0
    pairs, between = pairs[kept], between[kept]
    source, sink, voxels = count, count + 1, np.arange(count)
    rows = np.concatenate((pairs[:, 0], pairs[:, 1], np.full(count, source), voxels))
    columns = np.concatenate((pairs[:, 1], pairs[:, 0], voxels, np.full(count, sink)))
    values = np.concatenate((between, between, to_voxel, from_voxel)).astype(np.int32)
    used = values > 0
    graph = csr_array((values[used], (rows[used], columns[used])), shape=(count + 2, count + 2))
    left = graph - maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    labels = np.zeros(count + 2, bool)
    labels[reached] = True
    return labels[:count]


def neighbour_pairs(
    scene: Scene, *, neighbours: Literal[6, 26] = 26, contrast: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of the region that are neighbours, and what surface between them weighs.

    Returns:
        Pairs (M, 2) of places among the region's voxels, and weights (M,) in 1 / mm: the sum over the pairs that a
        surface parts, times the volume of a voxel, is its area.
    """
    shape: tuple[int, ...] = scene.region.shape
    places = np.full(shape, -1, np.int64)
    places[scene.region] = np.arange(np.count_nonzero(scene.region))
    pairs, weights, squares = [np.zeros((0, 2), np.int64)], [np.zeros(0)], [np.zeros(0)]
    for step, per_mm in step_weights(scene, neighbours):
        first = tuple(slice(max(0, -s), size - max(0, s)) for s, size in zip(step, shape, strict=True))
        second = tuple(slice(max(0, s), size + min(0, s)) for s, size in zip(step, shape, strict=True))
        both = (places[first] >= 0) & (places[second] >= 0)
        pairs.append(np.stack((places[first][both], places[second][both]), axis=1))
        difference = scene.image[first][both].astype(np.float64) - scene.image[second][both]
        squares.append(difference**2)
        weights.append(np.full(len(difference), per_mm))
    square = np.concatenate(squares)
    mean = square.mean() if square.size else 0.0
    factor = np.exp(-contrast * square / (2 * mean)) if mean > 0 else 1.0
    return np.concatenate(pairs), np.concatenate(weights) * factor


def step_weights(scene: Scene, neighbours: int) -> list[tuple[tuple[int, ...], float]]:
    """Steps to neighbours, one of each opposite two, and the weight of each in 1 / mm, after Cauchy and Crofton.

    A direction stands for all that are nearer to it than to the others: for a solid angle in 3D, where surface is
    (1 / pi) times the integral over lines of how often they cross it; for an angle in a slice, where length is half.
    """
    spans = np.ptp(np.argwhere(scene.region), axis=0) if scene.region.any() else np.zeros(3, int)
    axes = [axis for axis in range(3) if spans[axis] > 0]
    sizes = [range(-1, 2) if axis in axes else range(1) for axis in range(3)]
    every = [step for step in product(*sizes) if any(step) and (neighbours == 26 or sum(map(abs, step)) == 1)]
    if not every:
        return []
    vectors = np.array(every) * np.array(scene.spacing_mm)
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / lengths[:, None]
    if len(axes) == 3:
        weights = SphericalVoronoi(unit).calculate_areas() / (math.pi * lengths)
    elif len(axes) == 2:
        weights = _angles(unit[:, axes]) / (2 * lengths)
    else:
        weights = 1 / lengths
    return [(step, float(weight)) for step, weight in zip(every, weights, strict=True) if step > (0, 0, 0)]


def _angles(directions: np.ndarray) -> np.ndarray:
    """Angle of the directions nearest to each, (N,) of (N, 2)."""
    angles = np.arctan2(directions[:, 1], directions[:, 0])
    order = np.argsort(angles)
    gaps = np.diff(angles[order], append=angles[order[0]] + 2 * math.pi)
    result = np.empty(len(angles))
    result[order] = (gaps + np.roll(gaps, 1)) / 2
    return result
