"""Scar as what is brighter than one number: Otsu, full width at half maximum, n SD above remote myocardium."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_multiotsu

from segmed.errors import SegmenterError
from segmed.metrics.surfaces import bounding_box
from segmed.segmenters.region import Scene, TissueMethod
from segmed.segmenters.remote import RemoteRegion, RemoteSector

Baseline = Literal["zero", "minimum", "remote"]


class Threshold(TissueMethod):
    """A method that decides by one number for all of the region."""

    @abstractmethod
    def threshold(self, scene: Scene) -> float:
        """The intensity above which a voxel of the region is of the tissue; infinite where nothing is.

        Raises:
            SegmenterError: the intensities make the method meaningless.
        """

    def probability(self, scene: Scene) -> np.ndarray:
        return ((scene.image > self.threshold(scene)) & scene.region).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Otsu(Threshold):
    """The threshold between the classes that differ most from each other; the brightest class is scar.

    Finds as many classes as it is told to, in a healthy heart too. The result follows image * a + b, a > 0.

    Args:
        classes: of intensity; 3 leaves a class for grey zone or oedema.
        bins: of the histogram, from the lowest to the highest intensity of the region.

    Source: Otsu 1979, IEEE Trans Syst Man Cybern 9:62; for more than two classes Liao et al. 2001; in late
    enhancement Vermes et al. 2013, J Magn Reson Imaging 37:382.
    """

    classes: int = 2
    bins: int = 256

    def __post_init__(self) -> None:
        if self.classes < 2 or self.bins < self.classes:
            raise SegmenterError(
                f"Otsu with {self.classes} classes of {self.bins} bins: give 2 classes or more, more bins"
            )

    def threshold(self, scene: Scene) -> float:
        values = _varied(scene, "Otsu's threshold")
        low, high = float(values.min()), float(values.max())
        share = (values.astype(np.float64) - low) / (high - low)  # bins then hold the same voxels at any scale
        try:
            thresholds = threshold_multiotsu(share, classes=self.classes, nbins=self.bins)
        except ValueError as error:
            raise SegmenterError(
                f"{self.classes} classes of Otsu are more than the different intensities of the region: ask for fewer"
            ) from error
        end = float(thresholds[-1]) + 0.5 / self.bins  # of the last bin below scar, whose middle scikit-image gives
        return low + end * (high - low)


@dataclass(frozen=True, kw_only=True)
class StandardDeviations(Threshold):
    """Signal threshold to reference mean (STRM): n standard deviations above remote myocardium.

    The result follows image * a + b, a > 0.

    Args:
        n: 2 to 6; 5 is usual for infarcts, 2 counts about twice as much as scar (Flett et al. 2011).
        remote: where remote myocardium is.

    Source: Kim et al. 1999, Circulation 100:1992 (n = 2, remote); Bondarenko et al. 2005, J Cardiovasc Magn Reson
    7:481 (n = 5); Schulz-Menger et al. 2020, J Cardiovasc Magn Reson 22:19 (consensus).
    """

    n: float = 5.0
    remote: RemoteRegion = field(default_factory=RemoteSector)

    def __post_init__(self) -> None:
        if not self.n > 0:
            raise SegmenterError(
                f"a threshold {self.n:g} SD above remote myocardium: give more than 0, 2 to 6 are usual"
            )

    def threshold(self, scene: Scene) -> float:
        return self.remote.find(scene).above(self.n)


@dataclass(frozen=True, kw_only=True)
class FullWidthHalfMaximum(Threshold):
    """Half of the maximum of the scar's core (FWHM).

    Papers on late enhancement mostly take half of the maximum signal as it is (`baseline="zero"`), which means
    something in magnitude images alone: the result then follows image * a, a > 0, but not image + b. Where intensities
    have an offset (phase-sensitive or z-scored images) half is taken between a baseline and the maximum, as the name
    has it; "minimum" and "remote" follow image * a + b (both are compared in Engblom et al. 2016, J Cardiovasc Magn
    Reson 18:27).

    Args:
        reference: what the maximum is that of: "core", the largest connected piece of the region above `core_sd` SD of
            remote myocardium, in whose absence there is no scar; or "maximum", all of the region, which needs no
            remote myocardium, but finds scar in a healthy heart too.
        fraction: of the way from baseline to maximum.
        percentile: of the reference's intensities that counts as its maximum; below 100, such as 95, against single
            bright voxels, of which small voxels have many.
        baseline: "zero", "minimum" of the region, or "remote", the mean of remote myocardium.
        core_sd: see `reference`.
        remote: where remote myocardium is; it is looked for where "core" or "remote" ask for it.

    Source: Amado et al. 2004, J Am Coll Cardiol 44:2383; Flett et al. 2011, JACC Cardiovasc Imaging 4:150.
    """

    reference: Literal["core", "maximum"] = "core"
    fraction: float = 0.5
    percentile: float = 100.0
    baseline: Baseline = "zero"
    core_sd: float = 5.0
    remote: RemoteRegion = field(default_factory=RemoteSector)

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1 or not 0 < self.percentile <= 100:
            raise SegmenterError(
                f"FWHM with fraction {self.fraction:g} and percentile {self.percentile:g}: "
                "give a fraction between 0 and 1, a percentile above 0 and up to 100"
            )
        if self.reference not in ("core", "maximum") or self.baseline not in ("zero", "minimum", "remote"):
            raise SegmenterError(
                f"FWHM of reference '{self.reference}' from baseline '{self.baseline}': "
                "choose core or maximum; zero, minimum or remote"
            )

    def threshold(self, scene: Scene) -> float:
        values = _varied(scene, "half of the maximum")
        baseline = float(values.min()) if self.baseline == "minimum" else 0.0
        if self.reference == "core" or self.baseline == "remote":
            remote = self.remote.find(scene)
            if self.baseline == "remote":
                baseline = remote.mean
            if self.reference == "core":
                values = _core(scene, remote.above(self.core_sd))
        if not len(values):
            return math.inf
        maximum = float(np.percentile(values, self.percentile))
        if maximum <= baseline:
            raise SegmenterError(
                f"half of the maximum: the maximum {maximum:g} is not above the baseline {baseline:g}: "
                "choose another baseline, such as minimum"
            )
        return baseline + self.fraction * (maximum - baseline)


def _varied(scene: Scene, what: str) -> np.ndarray:
    """Intensities of the region (N,), which differ."""
    values = scene.values
    if not len(values) or values.min() == values.max():
        raise SegmenterError(
            f"{what}: the region ({len(values)} voxels) has one intensity only: check region and image"
        )
    return values


def _core(scene: Scene, threshold: float) -> np.ndarray:
    """Intensities (N,) of the largest connected piece of the region above a threshold; none: no voxel is."""
    box = bounding_box(scene.region)
    image = scene.image[box]
    pieces, count = ndimage.label((image > threshold) & scene.region[box], structure=np.ones((3, 3, 3)))
    if count == 0:
        return image[:0].ravel()
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return image[pieces == sizes.argmax()]
