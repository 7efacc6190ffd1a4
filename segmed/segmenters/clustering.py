"""Scar as the brightest cluster of a region: k-means and mixtures of Gaussians, both without training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import softmax
from sklearn import cluster, mixture

from segmed.errors import SegmenterError
from segmed.segmenters.region import Scene, TissueMethod


@dataclass(frozen=True)
class KMeans(TissueMethod):
    """The brightest of k clusters of intensity, as 0 or 1.

    Intensities are scaled by the region's SD, so that image * a + b, a > 0, gives the same clusters. Distances to the
    cluster's mean decide, whatever its size and spread: a small scar in a large noisy wall draws its cluster into the
    wall's bright half. More clusters, of which one is scar, find less scar.

    Source: Lloyd 1982, seeded by k-means++ (Arthur and Vassilvitskii 2007); scikit-learn.

    Attributes:
        clusters: k, 2 or more: 2 for scar and the rest, 3 with a grey zone between them.
        bright: how many of the brightest clusters count as scar, fewer than k.
        neighbourhood_mm: SD of a Gaussian window whose mean over the region's own voxels is a second feature, as long
            as the intensity, against noise; 0: none.
        position_weight: of the place beside the intensity: a distance of one SD of the region's extent counts as much
            as this many SDs of intensity; 0: none.
        restarts: runs from other seeds, of which the tightest counts.
        sample: at most so many voxels are used to find the clusters; all are then assigned.
        seed: of the seeding and of the sample.

    Raises:
        SegmenterError: options that do not fit together.
    """

    clusters: int = 2
    bright: int = 1
    neighbourhood_mm: float = 0.0
    position_weight: float = 0.0
    restarts: int = 10
    sample: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.clusters, self.bright, self.restarts, self.sample)
        if min(self.neighbourhood_mm, self.position_weight) < 0:
            raise SegmenterError(
                f"k-means with a neighbourhood of {self.neighbourhood_mm:g} mm and a position weight of "
                f"{self.position_weight:g}: give numbers from 0"
            )

    def probability(self, scene: Scene) -> np.ndarray:
        values = _standardised(scene, self.clusters)
        columns = [values]
        if self.neighbourhood_mm > 0:
            columns.append(_smoothed(scene, values, self.neighbourhood_mm))
        if self.position_weight > 0:
            places = np.argwhere(scene.region) * np.array(scene.spacing_mm, np.float32)
            spread = np.sqrt(places.var(axis=0).sum())
            columns += list(self.position_weight * (places - places.mean(axis=0)).T / max(spread, 1e-6))
        points = np.stack(columns, axis=1).astype(np.float32)
        model = cluster.KMeans(self.clusters, n_init=self.restarts, random_state=self.seed)
        chosen = model.fit(_drawn(points, self.sample, self.seed)).predict(points)
        sizes = np.bincount(chosen, minlength=self.clusters)
        means = np.bincount(chosen, weights=values, minlength=self.clusters) / np.maximum(sizes, 1)
        brightest = np.argsort(np.where(sizes > 0, means, -np.inf))[-self.bright :]
        return _on_grid(scene, np.isin(chosen, brightest))


@dataclass(frozen=True)
class GaussianMixture(TissueMethod):
    """Posterior of the brightest of several Gaussians of intensity.

    Components are ordered by their mean, never by their width. Where a narrow component meets a wide one, the plain
    posterior rises again in the far tail of the wide one: the darkest voxels would be scar, or the brightest would not.
    Here it never falls as the intensity rises: it stays at its largest above the mean of scar, and at its smallest
    below the mean of the rest; between the two it is the plain posterior. The same for image * a + b, a > 0.

    Source: Dempster, Laird and Rubin 1977; scikit-learn.

    Attributes:
        components: 2 or more.
        bright: how many of those with the highest means count as scar, fewer than there are.
        restarts: runs of expectation-maximisation from other k-means clusters, of which the likeliest counts.
        sample: at most so many voxels are used to fit the components; the posterior is then computed for all.
        seed: of the starts and of the sample.

    Raises:
        SegmenterError: options that do not fit together.
    """

    components: int = 2
    bright: int = 1
    restarts: int = 3
    sample: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.components, self.bright, self.restarts, self.sample)

    def probability(self, scene: Scene) -> np.ndarray:
        values = _standardised(scene, self.components)
        model = mixture.GaussianMixture(
            self.components, n_init=self.restarts, max_iter=500, reg_covar=1e-5, random_state=self.seed
        )
        model.fit(_drawn(values[:, None], self.sample, self.seed))
        order = np.argsort(model.means_[:, 0])
        means = model.means_[order, 0]
        # the posterior in logs: far from all means the densities themselves are 0
        levels, back = np.unique(values, return_inverse=True)
        spread = np.sqrt(model.covariances_[order, 0, 0])
        logs = np.log(model.weights_[order]) - np.log(spread) - ((levels[:, None] - means) / spread) ** 2 / 2
        posterior = softmax(logs, axis=1)[:, -self.bright :].sum(axis=1)
        return _on_grid(scene, _rising(posterior, levels, means[-self.bright - 1], means[-self.bright])[back])


def _rising(posterior: np.ndarray, levels: np.ndarray, rest: float, scar: float) -> np.ndarray:
    """A posterior at rising levels that never falls: between the two means every ratio of two Gaussians rises.

    Args:
        posterior: (N,) of scar.
        levels: (N,) rising intensities.
        rest: highest mean of what is no scar.
        scar: lowest mean of scar.
    """
    low, high = levels < rest, levels > scar
    result = posterior.copy()
    result[low] = np.minimum.accumulate(posterior[low][::-1])[::-1]
    result[high] = np.maximum.accumulate(posterior[high])
    return np.maximum.accumulate(result)  # the two means' own posteriors may lie between levels


def _check(groups: int, bright: int, restarts: int, sample: int) -> None:
    if groups < 2 or not 1 <= bright < groups:
        raise SegmenterError(
            f"the {bright} brightest of {groups} clusters: give at least 2, and 1 to all but one as scar"
        )
    if restarts < 1 or sample < 100:
        raise SegmenterError(f"{restarts} starts on {sample} voxels: give at least 1 start and 100 voxels")


def _standardised(scene: Scene, groups: int) -> np.ndarray:
    """Intensities of the region, of mean 0 and SD 1.

    Raises:
        SegmenterError: fewer intensities than clusters.
    """
    values = scene.values.astype(np.float64)
    distinct = np.unique(values).size
    if distinct < groups:
        raise SegmenterError(
            f"a region of {values.size} voxels with {distinct} intensities can't be parted into {groups} clusters: "
            "check the image and the region"
        )
    return (values - values.mean()) / values.std()


def _smoothed(scene: Scene, values: np.ndarray, sigma_mm: float) -> np.ndarray:
    """Gaussian mean (N,) of the region's own voxels about each, of SD 1 as the intensity is."""
    box = tuple(ndimage.find_objects(scene.region.astype(np.uint8))[0])
    region = scene.region[box]
    image = np.zeros(region.shape)
    image[region] = values
    sigma = [sigma_mm / step for step in scene.spacing_mm]
    weight = ndimage.gaussian_filter(region.astype(float), sigma, mode="constant")[region]
    mean = ndimage.gaussian_filter(image, sigma, mode="constant")[region] / weight
    return (mean - mean.mean()) / max(mean.std(), 1e-6)


def _drawn(points: np.ndarray, sample: int, seed: int) -> np.ndarray:
    if len(points) <= sample:
        return points
    return points[np.random.default_rng(seed).choice(len(points), sample, replace=False)]


def _on_grid(scene: Scene, values: np.ndarray) -> np.ndarray:
    result = np.zeros(scene.image.shape, np.float32)
    result[scene.region] = values
    return result
