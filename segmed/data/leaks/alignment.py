"""Pairs of small pictures -> their likeness after shift, rotation, scaling and a change of brightness."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional

FINE, BROAD = 1.0, 2.0  # pixels of the Gaussians between which detail counts: above noise and blocks of JPEG
LEVELS = ((16, 6), (32, 8))  # pixels a side on which pictures are brought together, and steps
FINISH = 5  # steps at full size
PROMISING = (0.93, 0.995)  # likeness between which pairs are aligned at full size, too
FEWEST = 0.6  # of the frame that both pictures must cover while they are brought together
SHARED = 0.3  # of the frame that must be inside both when their likeness is measured
RIDGE = 1e-6  # of the fit of grey values: flat pictures have nothing to fit
DEGREE = 3  # of the polynomial from one picture's grey values to the other's


def likeness(
    a: torch.Tensor, b: torch.Tensor, inside_a: torch.Tensor | None = None, inside_b: torch.Tensor | None = None
) -> torch.Tensor:
    """Correlation of the detail of two pictures, the higher of: as they are, and after b is laid on a.

    Detail is the difference of two Gaussians: broader structure is common to all heads, finer is compression noise.
    Grey values are first mapped by a polynomial, so that brightness, contrast and gamma do not matter.

    Args:
        a, b: (N, S, S), grey.
        inside_a, inside_b: (N, S, S), 1 where they show something, else 0; None: everywhere.

    Returns:
        (N,) from -1 to 1; 0 for pictures without detail, or that share too little.
    """
    whole = torch.ones_like(a)
    two = _Pair(a, b, whole if inside_a is None else inside_a, whole if inside_b is None else inside_b)
    best, maps = two.under(None), _still(len(a))
    for size, steps in LEVELS:
        small = [functional.interpolate(pictures[:, None], (size, size), mode="area")[:, 0] for pictures in (a, b)]
        still, moving = (pictures - _smooth(pictures, BROAD) for pictures in small)
        maps = _align(still, moving, maps, steps)
    best = torch.maximum(best, two.under(maps))
    promising = (best > PROMISING[0]) & (best < PROMISING[1])
    if promising.any():
        some = _Pair(*(pictures[promising] for pictures in two))
        maps = _align(_detail(some.a), _detail(some.b), maps[promising], FINISH)
        best[promising] = torch.maximum(best[promising], some.under(maps))
    return best


class _Pair(NamedTuple):
    """Pictures a and b, and where they show something, each (N, S, S)."""

    a: torch.Tensor
    b: torch.Tensor
    inside_a: torch.Tensor
    inside_b: torch.Tensor

    def under(self, maps: torch.Tensor | None) -> torch.Tensor:
        """(N,) correlation of detail with b laid on a; None: as they are.

        In both directions, since a clipped picture follows from the whole one but not the reverse.
        """
        a, b, both = self.a, self.b, self.inside_a * self.inside_b
        if maps is not None:
            laid, covered = _laid(torch.stack([b, self.inside_b], 1), maps, mode="bicubic")
            b, both = laid[:, 0], covered * self.inside_a * (laid[:, 1] > 0.99)
        there = _correlation(_detail(a), _detail(_mapped(b, a, both)), both)
        back = _correlation(_detail(b), _detail(_mapped(a, b, both)), both)
        return torch.where(both.mean((1, 2)) > SHARED, torch.maximum(there, back), torch.zeros(()))


def _mapped(source: torch.Tensor, target: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
    """Grey values of the source, brought to those of the target by a polynomial, fitted by least squares."""
    top = source.flatten(1).amax(1, keepdim=True).clamp_min(1e-6)
    powers = torch.stack([(source.flatten(1) / top) ** power for power in range(DEGREE + 1)], 1)
    weighted = powers * covered.flatten(1)[:, None]
    count = covered.sum((1, 2)).clamp_min(1)[:, None, None]
    normal = weighted @ powers.transpose(1, 2) / count + RIDGE * torch.eye(DEGREE + 1)
    factors = torch.linalg.solve(normal, weighted @ target.flatten(1)[..., None] / count)
    return (powers * factors).sum(1).reshape(source.shape)


def _correlation(a: torch.Tensor, b: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
    count = covered.sum((1, 2), keepdim=True).clamp_min(1)
    a = (a - (a * covered).sum((1, 2), keepdim=True) / count) * covered
    b = (b - (b * covered).sum((1, 2), keepdim=True) / count) * covered
    size = ((a * a).sum((1, 2)) * (b * b).sum((1, 2))).sqrt()
    return (a * b).sum((1, 2)) / size.clamp_min(1e-3)  # the rounding of flat pictures is no detail


@lru_cache(maxsize=8)
def _smoothing(size: int, sigma: float) -> torch.Tensor:
    """(S, S) matrix that smooths the columns of a picture."""
    return torch.from_numpy(gaussian_filter1d(np.eye(size), sigma, axis=0, mode="nearest")).float()


def _smooth(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    matrix = _smoothing(pictures.shape[-1], sigma)
    return matrix @ pictures @ matrix.T


def _detail(pictures: torch.Tensor) -> torch.Tensor:
    return _smooth(pictures, FINE) - _smooth(pictures, BROAD)


# ---------------------------------------------------------------- one laid on the other


def _still(count: int) -> torch.Tensor:
    """(N, 2, 3) identity maps."""
    return torch.eye(2, 3).repeat(count, 1, 1)


@lru_cache(maxsize=8)
def _places(size: int) -> torch.Tensor:
    """(S * S, 3): x and y from -1 to 1, and 1."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="xy")
    return torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 3)


def _laid(pictures: torch.Tensor, maps: torch.Tensor, *, mode: str = "bilinear") -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (N, C, S, S) sampled at mapped places, and where these (N, S, S) lie inside the frame, as 0 and 1."""
    size = pictures.shape[-1]
    grid = (_places(size) @ maps.transpose(1, 2)).reshape(len(pictures), size, size, 2)
    sampled = functional.grid_sample(pictures, grid, mode=mode, padding_mode="border", align_corners=True)
    return sampled, (grid.abs().amax(-1) <= 1 + 1e-4).float()


def _align(still: torch.Tensor, moving: torch.Tensor, maps: torch.Tensor, steps: int) -> torch.Tensor:
    """Affine maps (N, 2, 3) of the frame of one picture into that of the other, from maps to begin with.

    Inverse compositional Gauss-Newton on detail (N, S, S); the best step counts, so that a pair which doesn't converge
    is no worse than at its start. Source: Baker and Matthews 2004, section 3.
    """
    slopes = _slopes(still)
    curvature = slopes @ slopes.transpose(1, 2)
    ridge = 1e-3 * torch.diagonal(curvature, dim1=1, dim2=2) + 1e-9
    inverse = torch.linalg.inv(curvature + torch.diag_embed(ridge))
    best, chosen = torch.full((len(still),), -2.0), maps.clone()
    for step in range(steps + 1):
        laid, covered = _laid(moving[:, None], maps)
        laid = laid[:, 0]
        correlation = torch.where(covered.mean((1, 2)) > FEWEST, _correlation(still, laid, covered), -1.0)
        better = correlation > best
        best, chosen[better] = torch.where(better, correlation, best), maps[better]
        if step == steps:
            break
        gain = (still * laid * covered).sum((1, 2)) / (laid * laid * covered).sum((1, 2)).clamp_min(1e-9)
        error = (gain.clamp(0.2, 5)[:, None, None] * laid - still) * covered
        change = (inverse @ (slopes @ error.flatten(1)[..., None])).reshape(-1, 2, 3)
        maps = _composed(maps, change)
    return chosen


def _slopes(pictures: torch.Tensor) -> torch.Tensor:
    """(N, 6, S * S): how each pixel changes with each number of an affine map."""
    size = pictures.shape[-1]
    down, right = torch.gradient(pictures, dim=(1, 2))
    places = _places(size).T.reshape(3, size, size)
    scale = (size - 1) / 2
    return torch.cat([right[:, None] * places * scale, down[:, None] * places * scale], 1).flatten(2)


def _composed(maps: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """The maps after the inverse of a change; a change that can't be inverted is left out."""
    last = torch.tensor([0.0, 0.0, 1.0]).expand(len(maps), 1, 3)
    changed = torch.cat([torch.eye(2, 3) + change.clamp(-0.5, 0.5), last], 1)
    inverse, failed = torch.linalg.inv_ex(changed)
    inverse[failed > 0] = torch.eye(3)
    return (torch.cat([maps, last], 1) @ inverse)[:, :2]
