"""Chan and Vese's two tissues of constant brightness with a short border, inside a region and in mm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from skimage.filters import threshold_otsu

from segmed.segmenters.region import Scene, TissueMethod
from segmed.segmenters.window import Window, check_options, mask_of, neighbours, window_of

NAME = "Chan-Vese"
ROUND = 10  # steps between two updates of the means


@dataclass(frozen=True, kw_only=True)
class ChanVese(TissueMethod):
    """Active contour without edges: two means, and a border as short as `smoothness_mm` asks.

    It starts from the mask `start` of `scene.masks`; without one from Otsu's threshold of the region. For given means
    the global minimum is found, so the start decides the first means and nothing else.

    Minimised over u in [0, 1] is the sum over the region of smoothness_mm * |gradient of u| + r u, where
    r = ((I - mean of the tissue)^2 - (I - mean of the rest)^2) / (difference of the means)^2 is -1 in the tissue and 1
    in the rest; means and u are updated in turn. As r has no unit, a linear change of the image changes nothing, and
    smoothness_mm means the same everywhere: a disc of the tissue is kept if its radius is above 2 * smoothness_mm, a
    ball above 3 * smoothness_mm. Differences are taken between voxels of the region alone and divided by their
    distance, which neither skimage's morphological_chan_vese (no mask, no spacing) nor ITK's ScalarChanAndVese (no
    mask) can do. Where one tissue is left, nothing is found. The result is 0 or 1.

    Source: Chan and Vese 2001, IEEE TIP 10:266, eq. 9; convex in u: Chan, Esedoglu and Nikolova 2006, SIAM J Appl
    Math 66:1632, theorem 2; its minimum: Chambolle and Pock 2011, JMIV 40:120, algorithm 1.

    Attributes:
        start: name of the mask that gives the first means; None: Otsu's threshold.
        smoothness_mm: weight of the border's length, or area.
        tissue: whether the tissue sought is the brighter or the darker of the two.
        iterations: at most; each costs a few additions a voxel of the region's box.
        tolerance: mean change of u over the region in one step at which it stops.

    Raises:
        SegmenterError: an option without meaning; on a volume: a region of one intensity, no such mask.
    """

    start: str | None = None
    smoothness_mm: float = 0.5
    tissue: Literal["bright", "dark"] = "bright"
    iterations: int = 500
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_options(
            NAME,
            positive={"iterations": self.iterations, "tolerance": self.tolerance},
            not_negative={"smoothness_mm": self.smoothness_mm},
        )

    def probability(self, scene: Scene) -> np.ndarray:
        window = window_of(scene, NAME)
        sign = 1.0 if self.tissue == "bright" else -1.0
        image = sign * window.image
        if self.start is None:
            first = window.region & (image > threshold_otsu(image[window.region]))
        else:
            first = window.cut(mask_of(scene, self.start, NAME))
        return window.volume(self._tissue(image, first, window))

    def _tissue(self, image: np.ndarray, first: np.ndarray, window: Window) -> np.ndarray:
        """Where the tissue is, (*box) bool."""
        flow = _PrimalDual(window.region, window.spacing_mm, self.smoothness_mm)
        flow.u[...] = first
        for number in range(self.iterations):
            if number % ROUND == 0:
                means = _means(image, flow.u, window.region)
                if means is None:
                    return np.zeros_like(window.region)
                bright, dark = means
                pull = ((image - bright) ** 2 - (image - dark) ** 2) / (bright - dark) ** 2
            if flow.step(pull) < self.tolerance and number % ROUND:
                break
        tissue = (flow.u > 0.5) & window.region
        return tissue if (tissue != window.region).any() else np.zeros_like(tissue)


def _means(image: np.ndarray, u: np.ndarray, region: np.ndarray) -> tuple[float, float] | None:
    """Means of the tissue and of the rest; None where one of them is gone or they are no longer told apart."""
    inside, total = float(u.sum(dtype=np.float64)), float(region.sum())
    if not 0.5 <= inside <= total - 0.5:  # half a voxel has no mean
        return None
    sum_inside = float((image * u).sum(dtype=np.float64))
    bright = sum_inside / inside
    dark = (float(image.sum(dtype=np.float64, where=region)) - sum_inside) / (total - inside)
    return (bright, dark) if bright - dark > 1e-3 else None


class _PrimalDual:
    """Steps towards the minimum over u in [0, 1] of smoothness_mm * total variation + pull * u, in a region.

    Attributes:
        u: (*box) float32, 0 outside the region.
    """

    def __init__(self, region: np.ndarray, spacing_mm: tuple[float, ...], smoothness_mm: float) -> None:
        self.u = np.zeros(region.shape, np.float32)
        self.region = region
        self.smoothness_mm = smoothness_mm
        # 1 / mm between a voxel and the next along an axis, 0 where one of them is outside
        self._pairs = []
        for axis, length in enumerate(spacing_mm):
            here, following = neighbours(region, axis)
            self._pairs.append((here & following).astype(np.float32) / np.float32(length))
        self._dual = [np.zeros_like(pairs) for pairs in self._pairs]
        self._ahead = self.u
        self._pace = np.float32(1 / np.sqrt(sum(4 / length**2 for length in spacing_mm)))

    def step(self, pull: np.ndarray) -> float:
        """One step; the mean change of u over the region."""
        before = self.u.copy()
        norm = np.full(self.u.shape, 1e-12, np.float32)
        for axis, (dual, pairs) in enumerate(zip(self._dual, self._pairs, strict=True)):
            here, following = neighbours(self._ahead, axis)
            dual += self._pace * pairs * (following - here)
            neighbours(norm, axis)[0][...] += dual**2
        shrink = np.minimum(1, self.smoothness_mm / np.sqrt(norm))
        slope = np.where(self.region, pull, 0).astype(np.float32)
        for axis, (dual, pairs) in enumerate(zip(self._dual, self._pairs, strict=True)):
            dual *= neighbours(shrink, axis)[0]
            here, following = neighbours(slope, axis)
            here -= pairs * dual
            following += pairs * dual
        np.clip(self.u - self._pace * slope, 0, 1, out=self.u)
        self.u *= self.region
        self._ahead = 2 * self.u - before
        return float(np.abs(self.u - before).sum(dtype=np.float64) / self.region.sum())
