"""Geodesic active contours: a contour that grows or shrinks until it lies on edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from scipy import ndimage
from skimage.filters import threshold_otsu

from segmed.errors import SegmenterError
from segmed.geometry import as_affine, spacing_mm
from segmed.labels import LabelSet
from segmed.segmenters.region import Scene, TissueMethod
from segmed.segmenters.segmenter import Segmenter, on_grid_of
from segmed.segmenters.window import Window, check_options, mask_of, window_of

NAME = "geodesic active contour"
MARGIN = 2  # voxels around the region, so that the narrow band of the level set has room


@dataclass(frozen=True, kw_only=True)
class GeodesicActiveContour(TissueMethod):
    """A contour moved by a balloon force, its own curvature and the pull of edges (SimpleITK's level set).

    It starts from the mask `start` of `scene.masks`, such as a rough blood pool or a rough wall, of which the part
    inside the region counts; without one from the brightest `seed_share` of the region's voxels, as far as Otsu's
    threshold calls them bright. It sees edges inside the region alone: the region's border is none, and what leaves
    the region is cut off. Pieces one voxel wide have no contour and vanish. To let a rough mask of a network or of a
    reader grow or shrink, give a region around it (`Around`).

    The speed is g = 1 / (1 + (|gradient| / edge)^2), the gradient that of the image after a Gaussian; intensities
    count in standard deviations of the region, so a linear change of the image changes nothing. The contour moves by
    g (balloon - smoothness_mm * curvature) - attraction_mm * (gradient of g) along its outward normal, in mm per unit
    of time. The result is 0 or 1.

    Source: Caselles, Kimmel and Sapiro 1997, IJCV 22:61, eq. 18; as a level set in ITK, which counts in mm.

    Attributes:
        start: name of the mask that it starts from; None: the brightest voxels.
        start_margin_mm: the start is widened by this, or narrowed if negative.
        seed_share: of the region's voxels, the brightest of which make the start where no mask is named.
        sigma_mm: of the Gaussian before the gradient.
        edge_sd_per_mm: gradient at which the contour moves at half its speed, in SD of the region's intensities.
        balloon: above 0 the contour grows, below 0 it shrinks, with 0 edges and curvature alone move it.
        smoothness_mm: weight of the curvature; against a balloon of 1 a contour of smaller radius shrinks away.
        attraction_mm: weight of the pull towards edges.
        reach_mm: no part of the contour moves further; 2 * dimensions steps a voxel.

    Raises:
        SegmenterError: an option without meaning; on a volume: a region of one intensity, no such mask, a start that is
            empty or fills the region.
    """

    start: str | None = None
    start_margin_mm: float = 0.0
    seed_share: float = 0.1
    sigma_mm: float = 1.0
    edge_sd_per_mm: float = 0.2
    balloon: float = 1.0
    smoothness_mm: float = 0.5
    attraction_mm: float = 3.0
    reach_mm: float = 40.0

    def __post_init__(self) -> None:
        check_options(
            NAME,
            positive={"edge_sd_per_mm": self.edge_sd_per_mm, "reach_mm": self.reach_mm},
            not_negative={
                "sigma_mm": self.sigma_mm,
                "smoothness_mm": self.smoothness_mm,
                "attraction_mm": self.attraction_mm,
            },
        )
        if not 0 < self.seed_share < 1:
            raise SegmenterError(f"{NAME}: seed_share is {self.seed_share:g}: give a number between 0 and 1")

    def probability(self, scene: Scene) -> np.ndarray:
        window = window_of(scene, NAME, margin=MARGIN)
        smooth = window.smoothed(self.sigma_mm)
        start = self._start(scene, window, smooth)
        gradients = np.gradient(window.extended(smooth), *window.spacing_mm)
        steepness = np.sqrt(sum(part**2 for part in gradients))
        speed = 1 / (1 + (steepness / self.edge_sd_per_mm) ** 2)
        return window.volume(self._moved(start, speed.astype(np.float32), window.spacing_mm))

    def _start(self, scene: Scene, window: Window, smooth: np.ndarray) -> np.ndarray:
        if self.start is None:
            inside = smooth[window.region]
            # Where the tissue is smaller than the share, Otsu's threshold keeps the start out of the rest.
            start = window.region & (smooth > threshold_otsu(inside))
            start &= smooth >= np.quantile(inside, 1 - self.seed_share)
        else:
            start = window.cut(mask_of(scene, self.start, NAME))
        if self.start_margin_mm:
            start = (_signed_distance_mm(start, window.spacing_mm) < self.start_margin_mm) & window.region
        if not start.any():
            raise SegmenterError(
                f"{NAME}: nothing is left of the start: raise start_margin_mm ({self.start_margin_mm:g})"
            )
        if (start == window.region).all():
            raise SegmenterError(f"{NAME}: the start fills the region: widen the region (Around) or narrow the start")
        return start

    def _moved(self, start: np.ndarray, speed: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
        """Where the contour ends, (*box) bool."""
        level = sitk.GeodesicActiveContourLevelSetImageFilter()
        level.SetPropagationScaling(self.balloon)
        level.SetCurvatureScaling(self.smoothness_mm)
        level.SetAdvectionScaling(self.attraction_mm)
        level.SetNumberOfIterations(math.ceil(self.reach_mm * 2 * start.ndim / min(spacing_mm)))
        # The change of a step never falls below that of a contour swinging about its edge: it can't tell the end.
        level.SetMaximumRMSError(0.0)
        distance = _signed_distance_mm(start, spacing_mm)
        moved = level.Execute(_as_itk(distance, spacing_mm), _as_itk(speed, spacing_mm))
        return sitk.GetArrayFromImage(moved).T < 0


class Around(Segmenter):
    """What another segmenter finds, and the voxels around it as a label of their own: room to move a contour in.

    The label's own voxels are still to be found under its name, as the start of a contour:
    `Inside(GeodesicActiveContour(start="pool", balloon=0), Around(network, "pool", margin_mm=5), within=("pool",
    "around"), target="pool", rest=None, labels=...)`.

    Args:
        segmenter: finds the label.
        name: of the label that is to get surroundings.
        margin_mm: background up to this distance becomes `around`; other labels stay. Below the distance of two
            slices, no slice joins that holds nothing of the label.
        others: names of other labels whose voxels become `around` too where they are near enough.

    Raises:
        VolumeError: an unknown name.
        SegmenterError: a margin that is not above 0.
    """

    def __init__(self, segmenter: Segmenter, name: str, *, margin_mm: float, others: tuple[str, ...] = ()) -> None:
        check_options(f"surroundings of '{name}'", positive={"margin_mm": margin_mm}, not_negative={})
        self.segmenter = segmenter
        self.margin_mm = margin_mm
        known = segmenter.labels
        self._index = known.index(name)
        self._gives_way = (0, *(known.index(other) for other in others))
        unused = 1 + max((value for values in known.values for value in values), default=0)
        self.labels = LabelSet((*known.names, "around"), (*known.values, (unused,)))

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        """One-hot: the most probable label, or `around`."""
        indices = self.segmenter(volume).as_tensor()[0].long().cpu()
        mask = (indices == self._index).numpy()
        if mask.any():
            distance = ndimage.distance_transform_edt(~mask, sampling=spacing_mm(as_affine(volume.affine)))
            near = torch.from_numpy(distance <= self.margin_mm) & torch.isin(indices, torch.tensor(self._gives_way))
            indices[near] = len(self.labels)
        return on_grid_of(volume, torch.nn.functional.one_hot(indices, self.labels.classes).movedim(-1, 0).float())


def _signed_distance_mm(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Distance from the border of a mask, which lies halfway between voxels: below 0 inside."""
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    half = min(spacing_mm) / 2
    return np.where(mask, half - inside, outside - half).astype(np.float32)


def _as_itk(values: np.ndarray, spacing_mm: tuple[float, ...]) -> sitk.Image:
    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing(spacing_mm)
    return image
