"""The two kinds of adversaries, behind one call each for the generator's and for the discriminator's side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.config import AdversaryConfig
from segmed.losses.adversarial import (
    adversarial_loss,
    feature_matching_loss,
    gradient_penalty,
    r1_penalty,
    segan_critic_loss,
    segan_generator_loss,
)
from segmed.training.learner import Learner

LINEAR = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Exhibit:
    """One example for a discriminator: an image, the generator's maps and the reference's.

    Attributes:
        image: (B, C, *spatial).
        fake: the generator's maps (B, K, *spatial).
        real: the reference's maps, alike.
    """

    image: Tensor
    fake: Tensor
    real: Tensor

    def detached(self) -> Exhibit:
        """The same maps, detached: no gradient reaches the generator."""
        return Exhibit(self.image, self.fake.detach(), self.real.detach())


class Opponent(ABC):
    """A discriminator with its losses; each loss comes by name, not yet weighted.

    Args:
        learner: the discriminator with its optimiser.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    @abstractmethod
    def generator_losses(self, exhibit: Exhibit) -> dict[str, Tensor]:
        """Losses whose gradient reaches `exhibit.fake` and leaves the discriminator alone."""

    @abstractmethod
    def discriminator_losses(self, exhibit: Exhibit) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum that the discriminator minimises, and figures by name, detached.

        Args:
            exhibit: detached from the generator.
        """

    @abstractmethod
    def unlabelled_losses(self, image: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """For maps that have no reference: the adversarial loss, and the confidence (B, *spatial) in [0, 1].

        Raises:
            ValueError: this adversary compares with a reference, or gives no probability.
        """

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """The bare network, whose weights get no gradient meanwhile."""
        weights = [weight for weight in self.learner.network.parameters() if weight.requires_grad]
        for weight in weights:
            weight.requires_grad_(False)
        try:
            yield self.learner.network
        finally:
            for weight in weights:
                weight.requires_grad_(True)


class Decider(Opponent):
    """A discriminator that decides between reference and result: pixel, patch or image."""

    def __init__(self, learner: Learner, adversary: AdversaryConfig) -> None:
        super().__init__(learner)
        self.loss = adversarial_loss(adversary.loss_name, smoothing=adversary.smoothing)
        self.feature_matching = adversary.feature_matching
        self.penalty_weights = {"r1": adversary.r1, "gradient_penalty": adversary.gradient_penalty_weight}

    def generator_losses(self, exhibit: Exhibit) -> dict[str, Tensor]:
        """The adversarial loss, and that of matching features where it has a weight."""
        with self.frozen() as network:
            judgement = network(exhibit.image, exhibit.fake)
            losses = {"adversarial": self.loss.generator(judgement.decision)}
            if self.feature_matching:
                with torch.no_grad():
                    reference = network(exhibit.image, exhibit.real)
                losses["feature_matching"] = feature_matching_loss(reference.features, judgement.features)
        return losses

    def discriminator_losses(self, exhibit: Exhibit) -> tuple[Tensor, dict[str, Tensor]]:
        """Its loss with penalties; D(real), D(fake) and the accuracy."""
        images = torch.cat([exhibit.image, exhibit.image])
        decisions = self.learner.module(images, torch.cat([exhibit.real, exhibit.fake])).decision
        real, fake = decisions.float().chunk(2)
        loss = self.loss.discriminator(real, fake)
        figures = {"loss/discriminator": loss.detach(), **self._figures(real.detach(), fake.detach())}
        for name, weight in self.penalty_weights.items():
            if weight:
                penalty = self._penalty(name, exhibit)
                figures[f"loss/{name}"] = penalty.detach()
                loss = loss + weight * penalty
        return loss, figures

    def _figures(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        scale = torch.Tensor.float if self.loss.name == "wasserstein" else self.loss.probability
        return {
            "discriminator/real": scale(real).mean(),
            "discriminator/fake": scale(fake).mean(),
            "discriminator/accuracy": self.loss.accuracy(real, fake),
        }

    def _penalty(self, name: str, exhibit: Exhibit) -> Tensor:
        """In fp32, through the bare network: its gradients join those of the module's one backward pass."""

        def decide(maps: Tensor) -> Tensor:
            return self.learner.network(exhibit.image.float(), maps).decision

        return (
            r1_penalty(decide, exhibit.real) if name == "r1" else gradient_penalty(decide, exhibit.real, exhibit.fake)
        )

    def unlabelled_losses(self, image: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The adversarial loss, and where the discriminator takes the map for a reference."""
        with self.frozen() as network:
            decision = network(image, fake).decision
        return self.loss.generator(decision), self.confidence(decision.detach(), image.shape[2:])

    @torch.no_grad()
    def confidence(self, decision: Tensor, size: torch.Size) -> Tensor:
        """Decisions (B, 1, *any) -> probability of a reference (B, *size)."""
        probability = self.loss.probability(decision)
        if probability.shape[2:] != size:
            probability = F.interpolate(probability, size=size, mode=LINEAR[len(size)])
        return probability[:, 0]


class Critic(Opponent):
    """SegAN's critic, whose features of image x map drive reference and result apart.

    Source: Xue et al. 2017, arXiv 1706.01805.
    """

    def generator_losses(self, exhibit: Exhibit) -> dict[str, Tensor]:
        """The multi-scale L1."""
        with self.frozen() as network:
            with torch.no_grad():
                reference = network(exhibit.image, exhibit.real)
            return {"adversarial": segan_generator_loss(reference, network(exhibit.image, exhibit.fake))}

    def discriminator_losses(self, exhibit: Exhibit) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative of the multi-scale L1."""
        images = torch.cat([exhibit.image, exhibit.image])
        features = self.learner.module(images, torch.cat([exhibit.real, exhibit.fake]))
        real, fake = zip(*(level.chunk(2) for level in features), strict=True)
        loss = segan_critic_loss(real, fake)
        return loss, {"loss/discriminator": loss.detach(), "discriminator/distance": -loss.detach()}

    def unlabelled_losses(self, image: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Refuse: a critic needs a reference."""
        raise ValueError("SegAN's critic compares with a reference: unlabelled cases need pixel, patch or image")
