"""What a discriminator gets to see of references and results, so that softness alone does not tell them apart.

A result is soft, a reference is 0 and 1: a discriminator that sees both as they are can tell them apart without
looking at any shape. Maps go through a disguise first. Voxels that nobody annotated are masked after it, in both maps
alike, since a disguise fills them too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from segmed.errors import TrainingError
from segmed.labels import IGNORE
from segmed.targets import Targets


def reference_maps(labels: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Labels as the maps that a perfect and certain network would give.

    Args:
        labels: (B, *spatial), integer, with `IGNORE`.
        targets: what the maps stand for.

    Returns:
        Float32 maps of 0 and 1 (B, channels, *spatial), all 0 where the label is `IGNORE`, and the mask of the voxels
        that count, bool (B, 1, *spatial).
    """
    return targets.maps(labels), (labels != IGNORE)[:, None]


def _one_hot(indices: Tensor, classes: int) -> Tensor:
    """Indices (B, 1, *spatial) -> float32 (B, classes, *spatial); an index that is no class is 0 everywhere."""
    numbers = torch.arange(classes, device=indices.device).view(1, -1, *[1] * (indices.dim() - 2))
    return (indices == numbers).float()


class Disguise(ABC):
    """What is shown in the place of results and of references, in fp32."""

    @abstractmethod
    def fake(self, probabilities: Tensor, progress: float) -> Tensor:
        """Show a result.

        Args:
            probabilities: (B, K, *spatial), after softmax.
            progress: share of the run that is done, in [0, 1].

        Returns:
            Maps of the same shape, with a gradient to `probabilities`.
        """

    @abstractmethod
    def real(self, reference: Tensor, probabilities: Tensor, progress: float) -> Tensor:
        """Show a reference.

        Args:
            reference: (B, K, *spatial), one-hot, as `reference_maps` gives it.
            probabilities: (B, K, *spatial), the result for the same images.
            progress: share of the run that is done, in [0, 1].

        Returns:
            Maps of the same shape, with no gradient.
        """


class Undisguised(Disguise):
    """Both unchanged: softness alone tells a result from a reference, however good its shapes."""

    def fake(self, probabilities: Tensor, progress: float) -> Tensor:
        return probabilities.float()

    def real(self, reference: Tensor, probabilities: Tensor, progress: float) -> Tensor:
        return reference.detach().float()


class Softened(Disguise):
    """The reference takes the softness of the result.

    Its true class gets the result's probability, at least `confidence`; the others share the rest as they do in the
    result. Where the result is right and that sure, both are the same to the bit. Where it is right but less sure, as
    at borders, a discriminator still tells them apart.

    Args:
        confidence: the least probability of a true class, above 0.5 and below 1.

    Raises:
        TrainingError: a confidence outside of that.

    Source: Luc et al. 2016, arXiv 1611.08408, "scale", with 0.9.
    """

    def __init__(self, confidence: float = 0.9) -> None:
        if not 0.5 < confidence < 1:
            raise TrainingError(f"disguise 'soften' with confidence {confidence}: give more than 0.5 and less than 1")
        self.confidence = confidence

    def fake(self, probabilities: Tensor, progress: float) -> Tensor:
        return probabilities.float()

    def real(self, reference: Tensor, probabilities: Tensor, progress: float) -> Tensor:
        reference, soft = reference.detach().float(), probabilities.detach().float()
        sure = (soft * reference).sum(1, keepdim=True) >= self.confidence
        others = soft * (1 - reference)
        # where the division matters the others have at least 1 - confidence; where it does not they may have 0
        shares = others / others.sum(1, keepdim=True).clamp(min=torch.finfo(soft.dtype).tiny)
        raised = self.confidence * reference + (1 - self.confidence) * shares
        return torch.where(sure, soft, raised)


class StraightThrough(Disguise):
    """The result is shown as 0 and 1 too, its likeliest class; its gradient is that of the probabilities.

    A result whose labels are those of the reference is the reference to the bit, so only shapes are left to judge.

    Source: Bengio et al. 2013, arXiv 1308.3432, on the argmax of the classes.
    """

    def fake(self, probabilities: Tensor, progress: float) -> Tensor:
        soft = probabilities.float()
        sharp = _one_hot(soft.detach().argmax(1, keepdim=True), soft.shape[1])
        return sharp + (soft - soft.detach())  # the bracket is 0 to the bit, and all of the gradient

    def real(self, reference: Tensor, probabilities: Tensor, progress: float) -> Tensor:
        return reference.detach().float()


class EachRegion(Disguise):
    """Another disguise on maps that do not exclude each other: each map and its complement are two classes.

    Args:
        disguise: of maps (N, 2, *spatial).
    """

    def __init__(self, disguise: Disguise) -> None:
        self.disguise = disguise

    def fake(self, probabilities: Tensor, progress: float) -> Tensor:
        return _of_inside(self.disguise.fake(_two_classes(probabilities), progress), probabilities)

    def real(self, reference: Tensor, probabilities: Tensor, progress: float) -> Tensor:
        real = self.disguise.real(_two_classes(reference), _two_classes(probabilities), progress)
        return _of_inside(real, reference)


def _two_classes(maps: Tensor) -> Tensor:
    """Maps (B, R, *spatial) -> outside and inside of each, (B * R, 2, *spatial)."""
    each = maps.float().flatten(0, 1)
    return torch.stack([1 - each, each], dim=1)


def _of_inside(shown: Tensor, maps: Tensor) -> Tensor:
    """The inside of (B * R, 2, *spatial) in the shape of `maps` (B, R, *spatial)."""
    return shown[:, 1].reshape(maps.shape)


class InstanceNoise(Disguise):
    """Gaussian noise on both, from the global generator of the device; it fades, and with it the disguise.

    The weakest of the three. Nobody tells a map from its reference at a distance d (L2 over all voxels that a decision
    sees) more often than Φ(d / 2 sd), but d grows with the root of the number of voxels, so what hides the softness
    of a patch does not hide that of a volume, and the noise hides small faults before it hides softness.

    Args:
        sd: standard deviation of the noise at the start, in units of probability. With 3 a small discriminator of
            perfect maps of 32² pixels is right 58 times in 100, with 1 about 65, with 0.3 about 90.
        until: progress at which it has fallen to 0, on a straight line.

    Raises:
        TrainingError: `sd` is not above 0, or `until` not in (0, 1].

    Source: Sønderby et al. 2016, arXiv 1610.04490; Roth et al. 2017, arXiv 1705.09367.
    """

    def __init__(self, sd: float = 3.0, until: float = 1.0) -> None:
        if not 0 < sd < float("inf"):
            raise TrainingError(f"disguise 'noise' with sd {sd}: give a number above 0")
        if not 0 < until <= 1:
            raise TrainingError(f"disguise 'noise' until {until}: give a share of the run, above 0 and at most 1")
        self.sd = sd
        self.until = until

    def sd_at(self, progress: float) -> float:
        """Standard deviation of the noise at a share of the run."""
        return self.sd * max(0.0, 1 - progress / self.until)

    def fake(self, probabilities: Tensor, progress: float) -> Tensor:
        return self._noisy(probabilities, progress)

    def real(self, reference: Tensor, probabilities: Tensor, progress: float) -> Tensor:
        return self._noisy(reference.detach(), progress)

    def _noisy(self, maps: Tensor, progress: float) -> Tensor:
        maps, sd = maps.float(), self.sd_at(progress)
        return maps + sd * torch.randn_like(maps) if sd else maps


def disguise(name: str, **options: Any) -> Disguise:
    """A disguise by its name in a config.

    Args:
        name: none, soften, straight_through or noise.
        options: of that disguise: confidence, or sd and until.

    Raises:
        TrainingError: a name or an option is not known, or out of its range.
    """
    if name not in DISGUISES:
        raise TrainingError(f"no disguise '{name}': choose {', '.join(DISGUISES)}")
    try:
        return DISGUISES[name](**options)
    except TypeError as error:
        raise TrainingError(f"disguise '{name}': {str(error).split('() ')[-1]}") from error


DISGUISES: dict[str, Callable[..., Disguise]] = {
    "none": Undisguised,
    "soften": Softened,
    "straight_through": StraightThrough,
    "noise": InstanceNoise,
}
