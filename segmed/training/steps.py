"""What one training method does with a batch: it owns its networks, optimisers and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segmed.config import TrainConfig
from segmed.errors import RunError
from segmed.training.learner import Learner
from segmed.training.precision import Choice


class Step(ABC):
    """A training method. `fit` calls it and knows nothing else of it.

    Attributes:
        network: whose weights the run is about.
    """

    network: nn.Module

    @abstractmethod
    def step(self, batch: Mapping[str, Any], progress: float) -> dict[str, Tensor]:
        """Learn from one batch.

        Args:
            batch: as the loader gives it, on the CPU.
            progress: share of the run that is done, in [0, 1]; schedules follow it.

        Returns:
            Named scalars (losses, norms of gradients) as detached tensors on the device: no value is waited for.
        """

    @property
    @abstractmethod
    def evaluation_network(self) -> nn.Module:
        """The network to validate and to keep: averaged, where that is on."""

    @property
    @abstractmethod
    def rates(self) -> dict[str, float]:
        """Learning rates of the last step, by name."""

    def views(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What there is to see of a training batch beside image and labels; nothing here.

        Args:
            batch: as in `step`.

        Returns:
            Maps (B, *spatial) by name, on the CPU: label indices as integers, probabilities as floats in [0, 1].
        """
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that a bit-exact resume needs, of tensors, numbers and text."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            RunError: the state is of another network or method.
        """


class AllLogits(nn.Module):
    """Makes `forward` of a segmentation network's `all_logits`, so that DDP's hooks and torch.compile see the call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> list[Tensor]:
        """Logits of all levels, finest first.

        Args:
            image: (B, C, *spatial).
        """
        return cast(Any, self.network).all_logits(image)


class LearnerStep(Step):
    """What methods of one network share: its `learner` knows rate, averaged weights and state.

    Attributes:
        method: its name in checkpoints.
        does: completes "this run", for the user who goes on with a checkpoint of another method.
        learner: the network with its optimiser.
    """

    method: ClassVar[str]
    does: ClassVar[str]
    learner: Learner

    @property
    def evaluation_network(self) -> nn.Module:
        """The averaged network, or the trained one where no average is kept."""
        return self.learner.evaluation_network

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate."""
        return {"learning_rate": self.learner.rate}

    def state_dict(self) -> dict[str, Any]:
        """Weights, averaged weights, optimiser."""
        return {"method": self.method, **self.learner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        if state.get("method") != self.method:
            raise RunError(
                f"the checkpoint is of {state.get('method')} training, this run {self.does}: go on with the config "
                "that the run began with"
            )
        self.learner.load_state_dict(state, where="the checkpoint")


class SupervisedStep(LearnerStep):
    """Segmentation from labelled patches.

    A batch is cut into `train.accumulate` pieces whose gradients are added up before the one step of the optimiser,
    so between two calls there is never half a step.

    Args:
        network: gives `all_logits(image)`, a list, finest first.
        loss: of that list and the labels (B, *spatial).
        train: optimiser, schedule, EMA, clipping, accumulation.
        fabric: device and processes, in full precision: autocast is done here.
        choice: precision and memory format.
    """

    method = "supervised"
    does = "is supervised"

    def __init__(self, network: nn.Module, loss: nn.Module, train: TrainConfig, *, fabric: Fabric, choice: Choice):
        self.learner = Learner(network, train, fabric=fabric, choice=choice, call=AllLogits)
        self.network = self.learner.network
        self.members = cast(int, getattr(network, "members", 1))
        self.loss = loss.to(fabric.device)
        self.train = train
        self.fabric = fabric
        self.choice = choice

    def step(self, batch: Mapping[str, Any], progress: float) -> dict[str, Tensor]:
        """Forward, backward, clip, step, average.

        Args:
            batch: image (B, C, *spatial), label (B, *spatial).
            progress: in [0, 1].
        """
        total = self._gradients(batch["image"], batch["label"])
        return {"loss": total, "gradient_norm": self.learner.advance(progress)}

    def _gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Add up the gradients of the batch's pieces; the mean loss, detached."""
        device = self.fabric.device
        pieces = list(zip(images.chunk(self.train.accumulate), labels.chunk(self.train.accumulate), strict=True))
        total = torch.zeros((), device=device)
        for number, (image, label) in enumerate(pieces, start=1):
            image = self.choice.arrange(image.to(device, non_blocking=True))
            label = label.to(device, non_blocking=True)
            with self.learner.unsynchronised(number < len(pieces)):
                with self.choice.autocast(device):
                    loss = self.loss(self.learner.module(image), label) * (len(image) / len(images))
                self.fabric.backward(loss * self.members)  # each member learns as it would alone
            total += loss.detach()
        return total
