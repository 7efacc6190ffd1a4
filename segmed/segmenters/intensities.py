"""What an intensity costs in each tissue: negative log likelihoods of a mixture in the region, or of histograms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.mixture import GaussianMixture

from segmed.errors import SegmenterError
from segmed.files import atomic_path
from segmed.segmenters.region import Scene

SAMPLE_VOXELS = 50_000  # of a large region are enough for two Gaussians
LEAST_VOXELS = 8
RANGE_PERCENT = (5.0, 95.0)  # of the region's intensities: neither noise nor one bright vessel moves them much
EXTENT = (-1.5, 2.5)  # of the histograms, in units of that range; what lies beyond counts to the outer bins
BACKGROUND = "background"
SMOOTHNESS = 4.0  # nats mm: within 0.02 of the best mean Dice of scar in 25 stacks of 0.7 × 0.7 × 12 mm, from 4 to 8


class TissueCosts(ABC):
    """How badly an intensity fits what is left of a region, and the tissue sought."""

    @abstractmethod
    def costs(self, scene: Scene) -> np.ndarray:
        """Negative log likelihoods, up to a constant of each voxel.

        Args:
            scene: whose region holds the voxels.

        Returns:
            (2, N) float32 of the region's voxels, the rest first.

        Raises:
            SegmenterError: the intensities make it meaningless.
        """


@dataclass(frozen=True, kw_only=True)
class Mixture(TissueCosts):
    """Two Gaussians fitted to the region's intensities, the brighter one being the tissue sought.

    What is brighter never fits the tissue less: where the wider Gaussian would claim the far end too, the costs stay
    what they are where their difference is largest. A region of one tissue is split too, somewhere: it has to hold
    both.

    Attributes:
        shares: whether the tissue that is rarer in the region costs the logarithm of its rarity too.
        seed: of the first guess, and of the sample in a large region.
    """

    shares: bool = True
    seed: int = 0

    def costs(self, scene: Scene) -> np.ndarray:
        values = standardised(scene)
        generator = np.random.default_rng(self.seed)
        sample = values if values.size <= SAMPLE_VOXELS else generator.choice(values, SAMPLE_VOXELS, replace=False)
        mixture = GaussianMixture(2, random_state=self.seed, reg_covar=1e-4).fit(sample[:, None])
        order = np.argsort(mixture.means_[:, 0])
        means, variances = mixture.means_[order, 0], mixture.covariances_[order, 0, 0]
        inner = np.clip(values, *_monotone_range(means, variances))
        costs = (inner - means[:, None]) ** 2 / (2 * variances[:, None]) + np.log(variances)[:, None] / 2
        if self.shares:
            costs -= np.log(mixture.weights_[order])[:, None]
        return costs.astype(np.float32)


def _monotone_range(means: np.ndarray, variances: np.ndarray) -> tuple[float, float]:
    """From where to where the ratio of two Gaussians' likelihoods rises; both means, in order, lie within."""
    weights = 1 / variances
    if np.isclose(*weights):
        return -np.inf, np.inf
    turn = float((means[1] * weights[1] - means[0] * weights[0]) / (weights[1] - weights[0]))
    return (-np.inf, turn) if weights[1] > weights[0] else (turn, np.inf)


def standardised(scene: Scene) -> np.ndarray:
    """The region's intensities with mean 0 and SD 1, (N,) float64.

    Raises:
        SegmenterError: too few voxels, or all the same.
    """
    values = scene.values.astype(np.float64)
    if values.size < LEAST_VOXELS:
        raise SegmenterError(f"the region has {values.size} voxels: two tissues need {LEAST_VOXELS} or more")
    spread = values.std()
    if not spread > 1e-6 * max(1.0, np.abs(values).max()):
        raise SegmenterError(f"the region is {values.mean():g} throughout: two tissues need intensities that differ")
    return (values - values.mean()) / spread


@dataclass(frozen=True)
class Histograms:
    """How often each label has an intensity, from cases whose labels are known.

    Intensities count from the region's median, in units of the range between its 5th and 95th percentile, so that
    any gain and offset of the scanner drop out; the regions of training and of use must be of one kind.

    Attributes:
        names: of the labels.
        probability: (L, bins) float64, each row summing to one.
    """

    names: tuple[str, ...]
    probability: np.ndarray

    @classmethod
    def fit(
        cls, scenes: Sequence[Scene], names: Sequence[str], *, bins: int = 128, blur_bins: float = 2.0
    ) -> Histograms:
        """From the voxels of each label in the region, every case weighing the same.

        Args:
            scenes: cases, with a mask of each label in `masks`; `background` may be left out, being what is left.
            names: of the labels.
            bins: over four times the range of percentiles.
            blur_bins: SD of the smoothing, so that what few voxels leave out is not impossible; 0: none.

        Raises:
            SegmenterError: no case, a label without a mask or without a voxel in all cases, a constant region.
        """
        if not scenes:
            raise SegmenterError("histograms need at least one case whose labels are known")
        counts = np.zeros((len(names), bins))
        for scene in scenes:
            places = _bin_numbers(scene.values, scene, bins)
            for row, mask in zip(counts, masks_of(scene, names), strict=True):
                histogram = np.bincount(places[mask[scene.region]], minlength=bins)
                row += histogram / max(1, histogram.sum())
        for name, row in zip(names, counts, strict=True):
            if row.sum() == 0:
                raise SegmenterError(f"no voxel of '{name}' lies in the region of any case: give cases that hold it")
        smooth = counts / counts.sum(1, keepdims=True)
        if blur_bins > 0:
            smooth = gaussian_filter1d(smooth, blur_bins, axis=1, mode="nearest")
        smooth += 1e-3 / bins  # what was never seen costs about 7 + log(bins)
        return cls(tuple(names), smooth / smooth.sum(1, keepdims=True))

    def costs(self, scene: Scene, names: Sequence[str]) -> np.ndarray:
        """Negative log likelihoods of all the image, compared with the region; (len(names), X, Y, Z) float32.

        Raises:
            SegmenterError: a label that is not there, a constant region.
        """
        return self._look_up(scene.image, scene, names)

    def costs_in_region(self, scene: Scene, names: Sequence[str]) -> np.ndarray:
        """As `costs`, of the region's voxels alone: (len(names), N)."""
        return self._look_up(scene.values, scene, names)

    def _look_up(self, values: np.ndarray, scene: Scene, names: Sequence[str]) -> np.ndarray:
        missing = [name for name in names if name not in self.names]
        if missing:
            raise SegmenterError(f"the histograms have no '{missing[0]}': they are of {', '.join(self.names)}")
        table = -np.log(self.probability[[self.names.index(name) for name in names]]).astype(np.float32)
        return table[:, _bin_numbers(values, scene, self.probability.shape[1])]

    def save(self, path: Path | str) -> None:
        """Write a .npz, which holds no code."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, names=np.array(self.names), probability=self.probability)

    @classmethod
    def load(cls, path: Path | str) -> Histograms:
        """Read what `save` wrote.

        Raises:
            SegmenterError: not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                names, probability = tuple(str(name) for name in stored["names"]), stored["probability"]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise SegmenterError(f"{path} holds no histograms: give a .npz that Histograms.save wrote") from error
        if probability.ndim != 2 or len(names) != len(probability) or not (probability > 0).all():
            raise SegmenterError(f"{path} holds no histograms: names and probabilities do not fit together")
        return cls(names, probability)


@dataclass(frozen=True)
class FromHistograms(TissueCosts):
    """Costs of two labels of histograms that were fitted to cases.

    Attributes:
        histograms: of at least these two.
        rest: name of what is left of the region.
        target: name of the tissue sought.
    """

    histograms: Histograms
    rest: str = "myocardium"
    target: str = "scar"

    def costs(self, scene: Scene) -> np.ndarray:
        return self.histograms.costs_in_region(scene, (self.rest, self.target))


def masks_of(scene: Scene, names: Sequence[str]) -> list[np.ndarray]:
    """Mask of each label within the region; of `background` what no other of them holds, if it has none.

    Raises:
        SegmenterError: a label without a mask.
    """
    known: Mapping[str, np.ndarray] = scene.masks
    missing = [name for name in names if name not in known and name != BACKGROUND]
    if missing:
        raise SegmenterError(f"a case has no mask of '{missing[0]}': it has {', '.join(known) or 'none'}")
    masks = {name: known[name] & scene.region for name in names if name in known}
    if BACKGROUND not in masks:
        masks[BACKGROUND] = scene.region & ~np.any([np.zeros_like(scene.region), *masks.values()], axis=0)
    return [masks[name] for name in names]


def _bin_numbers(values: np.ndarray, scene: Scene, bins: int) -> np.ndarray:
    """Bin of each intensity, of any shape, counted from the region's median in units of its range of percentiles.

    Raises:
        SegmenterError: the region has less than two intensities.
    """
    known = scene.values
    low, middle, high = np.percentile(known, (RANGE_PERCENT[0], 50, RANGE_PERCENT[1])) if known.size else (0, 0, 0)
    if not high - low > 1e-6 * max(1.0, abs(high), abs(low)):
        raise SegmenterError(f"the region of {known.size} voxels has no range of intensities: choose another region")
    position = ((values - middle) / (high - low) - EXTENT[0]) / (EXTENT[1] - EXTENT[0])
    return np.clip(np.floor(position * bins), 0, bins - 1).astype(np.int64)
