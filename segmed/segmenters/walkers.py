"""Random walker: how likely a walk from a voxel meets certain scar before certain remote tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg
from skimage.filters import threshold_otsu

from segmed.errors import SegmenterError
from segmed.segmenters.region import Scene, TissueMethod
from segmed.segmenters.window import Window, check_options, mask_of, neighbours, window_of

NAME = "random walker"
OUTSIDE, OPEN, TISSUE, REST = -1, 0, 1, 2
FLOOR = 1e-4  # weight of a step over the highest edge


@dataclass(frozen=True, kw_only=True)
class RandomWalker(TissueMethod):
    """Probability that a random walk from a voxel meets a seed of the tissue first.

    It starts from seeds: the masks `tissue_seeds` and `rest_seeds` of `scene.masks`; where one is not named, from
    intensities: Otsu's threshold parts the region (after a Gaussian) into bright and dark, and the brightest
    `certain` of the bright and the darkest `certain` of the dark are seeds. Walks stay in the region. A piece of the
    region that holds no seed has probability 0, one with seeds of a single kind is of that kind.

    A step between neighbours has the weight (exp(-beta d^2) + 0.0001) (shortest spacing / spacing)^2, where d is the
    difference of their intensities in SD of the region, so that a linear change of the image changes nothing. The
    last factor is that of diffusion on a grid of unequal sides. On a whole box of cubic voxels this is skimage's
    random_walker. That one divides d by the spacing in place of the last factor, which lets walks run freely between
    thick slices; takes a seed without neighbours in a masked region for another voxel (0.26); and has no floor under
    the weights, which leaves outlying voxels unsolved. Hence the linear system is set up here, over the voxels of the
    region alone, and solved by scipy's conjugate gradients, which needs no optional package.

    Source: Grady 2006, IEEE TPAMI 28:1768, eq. 1 and 15.

    Attributes:
        tissue_seeds: name of the mask of certain tissue, such as scar; None: from intensities.
        rest_seeds: name of the mask of certain rest; None: from intensities.
        certain: share of the bright and of the dark voxels that are seeds, where intensities give them.
        sigma_mm: of the Gaussian before seeds are taken from intensities; the walk sees the image without it.
        beta: how much a difference of intensity, in SD, hinders a step.
        tolerance: of the linear system, relative.

    Raises:
        SegmenterError: an option without meaning; on a volume: a region of one intensity, no such mask, no seed, seeds
            of both kinds in the same voxels.
    """

    tissue_seeds: str | None = None
    rest_seeds: str | None = None
    certain: float = 0.5
    sigma_mm: float = 1.0
    beta: float = 10.0
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        check_options(
            NAME,
            positive={"beta": self.beta, "tolerance": self.tolerance, "certain": self.certain},
            not_negative={"sigma_mm": self.sigma_mm},
        )
        if self.certain > 1:
            raise SegmenterError(f"{NAME}: certain is {self.certain:g}: give a share of at most 1")

    def probability(self, scene: Scene) -> np.ndarray:
        window = window_of(scene, NAME)
        seeds = self._seeds(scene, window)
        return window.volume(self._walked(seeds, window))

    def _seeds(self, scene: Scene, window: Window) -> np.ndarray:
        """OUTSIDE, OPEN, TISSUE or REST, (*box) int32."""
        smooth = window.smoothed(self.sigma_mm)
        values = smooth[window.region]
        threshold = threshold_otsu(values) if values.min() < values.max() else values[0]
        if self.tissue_seeds is None:
            bright = values[values > threshold]
            tissue = window.region & (smooth >= np.quantile(bright, 1 - self.certain)) if bright.size else None
        else:
            tissue = window.cut(mask_of(scene, self.tissue_seeds, NAME))
        if self.rest_seeds is None:
            rest = window.region & (smooth <= np.quantile(values[values <= threshold], self.certain))
        else:
            rest = window.cut(mask_of(scene, self.rest_seeds, NAME))
        if tissue is None or not tissue.any() or not rest.any():
            raise SegmenterError(
                f"{NAME}: no intensity of the region stands out as a seed: lower sigma_mm or give seeds"
            )
        # Given seeds rule over those from intensities.
        if self.tissue_seeds is None:
            tissue &= ~rest
        elif self.rest_seeds is None:
            rest &= ~tissue
        elif (both := int((tissue & rest).sum())) > 0:
            raise SegmenterError(
                f"{NAME}: {both} voxels are seeds of the tissue and of the rest: give seeds of one kind"
            )
        seeds = np.where(window.region, OPEN, OUTSIDE).astype(np.int32)
        seeds[rest] = REST
        seeds[tissue] = TISSUE
        return seeds

    def _walked(self, seeds: np.ndarray, window: Window) -> np.ndarray:
        """Probability of the tissue, (*box)."""
        probability = (seeds == TISSUE).astype(np.float64)
        # Laplace's equation has no answer in a piece without seeds: nothing is found there.
        inside = ndimage.binary_propagation(seeds > OPEN, mask=window.region)
        unknown = (seeds == OPEN) & inside
        if not unknown.any():
            return probability
        weights = self._weights(window, inside)
        free, tissue = unknown[inside], (seeds == TISSUE)[inside]
        # Rows scaled to a diagonal of ones: the tolerance then holds for voxels of weak links too.
        scale = 1 / np.sqrt(np.asarray(weights.sum(axis=1)).ravel()[free])
        links = weights[free]
        scaling = sparse.diags_array(scale)
        system = sparse.eye_array(scale.size) - scaling @ links[:, free] @ scaling
        answer, failed = cg(system, scale * links[:, tissue].sum(axis=1), rtol=self.tolerance, atol=0.0)
        if failed:
            raise SegmenterError(f"{NAME}: the walk did not converge: lower beta ({self.beta:g}) or raise tolerance")
        probability[unknown] = np.clip(scale * answer, 0, 1)
        return probability

    def _weights(self, window: Window, inside: np.ndarray) -> sparse.csr_array:
        """Weight of every step between neighbours among the N voxels of a mask: (N, N), symmetric."""
        number = np.where(inside, np.cumsum(inside).reshape(inside.shape) - 1, -1)
        starts, ends, weights = [], [], []
        for axis, length in enumerate(window.spacing_mm):
            here, following = neighbours(number, axis)
            pairs = (here >= 0) & (following >= 0)
            one, other = (part[pairs].astype(np.float64) for part in neighbours(window.image, axis))
            likeness = FLOOR + np.exp(-self.beta * (one - other) ** 2)
            starts.append(here[pairs])
            ends.append(following[pairs])
            weights.append(likeness * (min(window.spacing_mm) / length) ** 2)
        size = int(inside.sum())
        one_way = sparse.csr_array(
            (np.concatenate(weights), (np.concatenate(starts), np.concatenate(ends))), shape=(size, size)
        )
        return (one_way + one_way.T).tocsr()
