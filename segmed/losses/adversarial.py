"""Decisions of a discriminator, or its features -> one number for each of the two sides.

A decision is what a discriminator gives before any sigmoid, (B, 1, *spatial) or (B, 1), high for a reference. All
is computed in fp32, and is the mean over all elements where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.errors import NetworkError


def non_saturating_discriminator_loss(real: Tensor, fake: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy of the references plus that of the results: the sum, not the mean of the two.

    Args:
        real, fake: decisions on references and on results.
        smoothing: the target of a reference is 1 - smoothing; that of a result stays 0.

    Source: Goodfellow et al. 2014, arXiv 1406.2661, eq. 1; smoothing: Salimans et al. 2016, arXiv 1606.03498, 3.4.
    """
    real, fake = real.float(), fake.float()
    references = (1 - smoothing) * F.softplus(-real).mean() + smoothing * F.softplus(real).mean()
    return references + F.softplus(fake).mean()


def non_saturating_generator_loss(fake: Tensor) -> Tensor:
    """-log D(result): its slope stays where the discriminator is sure.

    Source: Goodfellow et al. 2014, arXiv 1406.2661, section 3.
    """
    return F.softplus(-fake.float()).mean()


def least_squares_discriminator_loss(real: Tensor, fake: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Half the squared distance of references from 1 - smoothing, plus half that of results from 0.

    Source: Mao et al. 2017, arXiv 1611.04076, eq. 2 with a = 0, b = 1.
    """
    return ((real.float() - (1 - smoothing)).square().mean() + fake.float().square().mean()) / 2


def least_squares_generator_loss(fake: Tensor) -> Tensor:
    """Half the squared distance of results from 1.

    Source: Mao et al. 2017, arXiv 1611.04076, eq. 2 with c = 1.
    """
    return (fake.float() - 1).square().mean() / 2


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What references lack to a decision of 1, plus what results have above -1.

    Source: Lim & Ye 2017, arXiv 1705.02894.
    """
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """The negative of the mean decision.

    Source: Lim & Ye 2017, arXiv 1705.02894.
    """
    return -fake.float().mean()


def wasserstein_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Mean decision on results minus that on references; the critic has to be Lipschitz (`gradient_penalty`).

    Source: Arjovsky et al. 2017, arXiv 1701.07875, eq. 2.
    """
    return fake.float().mean() - real.float().mean()


def wasserstein_generator_loss(fake: Tensor) -> Tensor:
    """The negative of the mean decision.

    Source: Arjovsky et al. 2017, arXiv 1701.07875, eq. 2.
    """
    return -fake.float().mean()


def gradient_penalty(decide: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """How far the decision's slope is from 1 between references and results, squared.

    Args:
        decide: maps (B, K, *spatial) -> decisions; a sample's decision is the mean over its positions. It runs
            without autocast, and without batch normalisation, which would tie the samples together.
        real, fake: maps (B, K, *spatial) of references and of results; neither gets a gradient.

    Returns:
        The mean over samples of (norm of the gradient - 1) ** 2, whose gradients reach the discriminator. One random
        mix a sample, drawn from the global generator of the device.

    Raises:
        NetworkError: the maps have different shapes.

    Source: Gulrajani et al. 2017, arXiv 1704.00028, eq. 3, without the factor 10.
    """
    if real.shape != fake.shape:
        raise NetworkError(
            f"gradient penalty between maps {tuple(real.shape)} and {tuple(fake.shape)}: give both in one shape"
        )
    share = torch.rand((len(real), *[1] * (real.dim() - 1)), device=real.device)
    mixed = torch.lerp(fake.detach().float(), real.detach().float(), share)
    # the norm's slope at a gradient of 0 is 0 here, not NaN
    norms = torch.linalg.vector_norm(_gradients(decide, mixed).flatten(1), dim=1)
    return (norms - 1).square().mean()


def r1_penalty(decide: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Half the squared norm of the decision's gradient at the references, the mean over samples.

    Args:
        decide: maps (B, K, *spatial) -> decisions, as for `gradient_penalty`.
        real: maps (B, K, *spatial) of references; they get no gradient.

    Source: Mescheder et al. 2018, arXiv 1801.04406, eq. 9, with gamma 1.
    """
    gradients = _gradients(decide, real.detach().float())
    return gradients.flatten(1).square().sum(1).mean() / 2


def _gradients(decide: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """Gradient of each sample's mean decision to its map, itself differentiable to the discriminator's weights."""
    maps = maps.clone().requires_grad_()
    with torch.autocast(maps.device.type, enabled=False):
        decisions = decide(maps).float().reshape(len(maps), -1).mean(1)
    return torch.autograd.grad(decisions.sum(), maps, create_graph=True)[0]


def feature_l1(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of two stacks of features, the mean over levels: each level weighs the same.

    Args:
        real, fake: features (B, C_i, *spatial_i) of image × reference and of image × result, sample by sample.

    Raises:
        NetworkError: no level, or levels that do not fit.

    Source: Xue et al. 2017, arXiv 1706.01805, eq. 2.
    """
    _check_levels(real, fake)
    parts = [(ours.float() - theirs.float()).abs().mean() for ours, theirs in zip(real, fake, strict=True)]
    return torch.stack(parts).mean()


def segan_critic_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """The negative of `feature_l1`: the critic drives reference and result apart.

    Source: Xue et al. 2017, arXiv 1706.01805, eq. 1.
    """
    return -feature_l1(real, fake)


def segan_generator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """`feature_l1`, with no gradient through the references' features.

    Source: Xue et al. 2017, arXiv 1706.01805, eq. 1.
    """
    return feature_l1([level.detach() for level in real], fake)


def feature_matching_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of the batch means of features, the mean over levels; no gradient through `real`.

    Args:
        real, fake: features (B, C_i, *spatial_i), of unpaired samples if need be.

    Raises:
        NetworkError: no level, or levels that do not fit.

    Source: Salimans et al. 2016, arXiv 1606.03498, 3.1, with L1 in place of its squared L2.
    """
    return feature_l1(
        [level.detach().float().mean(0, keepdim=True) for level in real],
        [level.float().mean(0, keepdim=True) for level in fake],
    )


def _check_levels(real: Sequence[Tensor], fake: Sequence[Tensor]) -> None:
    shapes = [[tuple(level.shape) for level in side] for side in (real, fake)]
    if not shapes[0] or shapes[0] != shapes[1]:
        raise NetworkError(f"features {shapes[0]} and {shapes[1]} do not fit: give as many levels, alike in shape")


@dataclass(frozen=True)
class AdversarialLoss:
    """The two sides of one game.

    Attributes:
        name: as in a config.
        discriminator: decisions on references and on results -> loss.
        generator: decisions on results -> loss.
    """

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]

    def probability(self, decision: Tensor) -> Tensor:
        """Confidence in [0, 1] that a map is a reference, of the decision's shape.

        Raises:
            NetworkError: the critic of wasserstein has no scale.
        """
        if self.name == "wasserstein":
            raise NetworkError("the critic of wasserstein gives no probability: choose non_saturating or least_squares")
        return decision.float().clamp(0, 1) if self.name == "least_squares" else decision.float().sigmoid()

    @torch.no_grad()
    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        """Share of right decisions, both sides weighing the same; one on the boundary counts half.

        The boundary is 0, 0.5 for least_squares, and midway between the two means for wasserstein.
        """
        real, fake = real.float(), fake.float()
        boundary: Tensor | float = 0.5 if self.name == "least_squares" else 0.0
        if self.name == "wasserstein":
            boundary = (real.mean() + fake.mean()) / 2
        return 0.5 + ((real - boundary).sign().mean() - (fake - boundary).sign().mean()) / 4


def adversarial_loss(name: str, *, smoothing: float = 0.0) -> AdversarialLoss:
    """The two sides by their name in a config.

    Args:
        name: non_saturating, least_squares, hinge or wasserstein.
        smoothing: the target of a reference is 1 - smoothing, where the loss has targets.

    Raises:
        NetworkError: a name that is not known, or a smoothing that the loss can't have.
    """
    if name not in ADVERSARIAL:
        raise NetworkError(f"no adversarial loss '{name}': choose {', '.join(ADVERSARIAL)}")
    if not 0 <= smoothing < 0.5:
        raise NetworkError(f"smoothing {smoothing}: give a number from 0 to below 0.5")
    discriminator, generator = ADVERSARIAL[name]
    if smoothing:
        if name not in WITH_TARGETS:
            raise NetworkError(f"smoothing with {name}, which has no targets: choose {', '.join(WITH_TARGETS)}")
        discriminator = partial(discriminator, smoothing=smoothing)
    return AdversarialLoss(name, discriminator, generator)


ADVERSARIAL: dict[str, tuple[Any, Any]] = {
    "non_saturating": (non_saturating_discriminator_loss, non_saturating_generator_loss),
    "least_squares": (least_squares_discriminator_loss, least_squares_generator_loss),
    "hinge": (hinge_discriminator_loss, hinge_generator_loss),
    "wasserstein": (wasserstein_discriminator_loss, wasserstein_generator_loss),
}
WITH_TARGETS = ("non_saturating", "least_squares")
