"""Scar grown from seeds: to connected voxels above a threshold, or of the intensity of what has grown so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from segmed.errors import SegmenterError
from segmed.metrics.surfaces import bounding_box
from segmed.segmenters.region import Scene, TissueMethod
from segmed.segmenters.thresholds import Otsu, Threshold

THICK = 2.0  # an axis whose voxels are longer than this many of the shortest has its neighbours far away
CONNECTED = np.ones((3, 3, 3), bool)

Voxel = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class RegionGrowing(TissueMethod):
    """From seeds to the connected voxels of the region that are like them.

    With `lower`, to those above it (ConnectedThreshold of ITK; with `FullWidthHalfMaximum` that of Amado et al.).
    With None, to those within mean ± `deviations` SD of the seeds and their neighbours, then within mean ± SD of what
    was found, and so on until nothing changes (ConfidenceConnected of ITK, whose filter would take statistics from
    outside the region too); where the intensities of tissues overlap, as they do in most clinical stacks, this spreads
    over all of the region. Voxels are connected by faces, edges and corners. The result follows image * a + b, a > 0,
    unless `lower` is a number or a threshold that does not.

    Args:
        lower: an intensity, the method that finds it, or None.
        deviations: half width of the interval, in SD.
        stop_above: whether voxels brighter than the interval stay out, as with ITK; scar can't be too bright.
        iterations: at most so many intervals are tried.
        seeds: voxels (x, y, z) of the volume; or the name of a mask in `scene.masks`, the only one of the two that
            `SliceBySlice` can hand on; None: the brightest voxels of the region.
        brightest: share of the region's voxels that are seeds where none are given, at least one.

    Source: Adams and Bischof 1994, IEEE Trans Pattern Anal 16:641; Ibáñez et al., The ITK Software Guide; Amado et
    al. 2004, J Am Coll Cardiol 44:2383.
    """

    lower: float | Threshold | None = field(default_factory=Otsu)
    deviations: float = 2.5
    stop_above: bool = False
    iterations: int = 25
    seeds: tuple[Voxel, ...] | str | None = None
    brightest: float = 0.01

    def __post_init__(self) -> None:
        if not self.deviations > 0 or self.iterations < 1 or not 0 < self.brightest <= 1:
            raise SegmenterError(
                f"region growing with deviations {self.deviations:g}, iterations {self.iterations} and brightest "
                f"{self.brightest:g}: give numbers above 0, a share up to 1"
            )

    def probability(self, scene: Scene) -> np.ndarray:
        box = bounding_box(scene.region)
        image, region, seeds = scene.image[box], scene.region[box], self._seeds(scene)[box]
        if self.lower is None:
            grown = self._by_likeness(image, region, seeds, _neighbours(scene.spacing_mm))
        else:
            lower = self.lower.threshold(scene) if isinstance(self.lower, Threshold) else self.lower
            grown = connected_to(seeds, (image > lower) & region)
            if self.seeds is not None and not grown.any():
                raise SegmenterError(
                    f"region growing: no seed is above {lower:g}: lower the threshold or move the seeds"
                )
        tissue = np.zeros(scene.region.shape, np.float32)
        tissue[box] = grown
        return tissue

    def _by_likeness(self, image: np.ndarray, region: np.ndarray, seeds: np.ndarray, near: np.ndarray) -> np.ndarray:
        grown = ndimage.binary_dilation(seeds, near) & region
        for _ in range(self.iterations):
            values = image[grown].astype(np.float64)
            half = self.deviations * (values.std(ddof=1) if len(values) > 1 else 0.0)
            alike = (image >= values.mean() - half) & region
            if self.stop_above:
                alike &= image <= values.mean() + half
            before, grown = grown, connected_to(seeds, alike)
            if not grown.any():
                raise SegmenterError(
                    "region growing: the seeds are unlike their own neighbours: move the seeds, or widen `deviations`"
                )
            if np.array_equal(before, grown):
                break
        return grown

    def _seeds(self, scene: Scene) -> np.ndarray:
        """(X, Y, Z) bool, in the region."""
        if self.seeds is None:
            return _brightest(scene, self.brightest)
        if isinstance(self.seeds, str):
            seeds = scene.mask(self.seeds) & scene.region
        else:
            seeds = np.zeros(scene.region.shape, bool)
            for voxel in self.seeds:
                inside = all(0 <= place < size for place, size in zip(voxel, seeds.shape, strict=True))
                if not inside or not scene.region[voxel]:
                    raise SegmenterError(f"region growing: seed {voxel} is outside the region: move it into the region")
                seeds[voxel] = True
        if not seeds.any():
            raise SegmenterError("region growing: no seed in the region: give one, or none for the brightest voxels")
        return seeds


def connected_to(seeds: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The connected pieces of a mask (X, Y, Z) that hold a seed."""
    pieces, count = ndimage.label(mask, structure=CONNECTED)
    wanted = np.zeros(count + 1, bool)
    wanted[pieces[seeds]] = True
    wanted[0] = False
    return wanted[pieces]


def _brightest(scene: Scene, share: float) -> np.ndarray:
    values = scene.values
    if values.min() == values.max():
        raise SegmenterError(
            f"region growing: no voxels of the region ({len(values)} voxels) are brighter than others: give seeds"
        )
    count = max(1, round(share * len(values)))
    return (scene.image >= np.partition(values, -count)[-count]) & scene.region


def _neighbours(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """A voxel and those around it, (3, 3, 3), without those across thick slices."""
    near = CONNECTED.copy()
    for axis, size in enumerate(spacing_mm):
        if size > THICK * min(spacing_mm):
            near[tuple([0, 2] if other == axis else slice(None) for other in range(3))] = False
    return near
