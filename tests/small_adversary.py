"""Adversarial steps over networks of a few channels: what the tests of the game share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from small_discriminators import CLASSES, make, make_critic
from small_networks import image_of, make_net
from tiny_run import single, tiny_train
from torch import Tensor, nn

from segmed.config import AdversaryConfig, TrainConfig
from segmed.labels import IGNORE
from segmed.losses.segmentation import DeepSupervisionLoss, segmentation_loss
from segmed.networks.discriminators import Judgement
from segmed.training.adversarial_step import AdversarialStep
from segmed.training.learner import Learner
from segmed.training.precision import Choice

KINDS = ["pixel", "patch", "image", "segan"]
DECIDERS = KINDS[:3]
LOSSES = ["non_saturating", "least_squares", "hinge", "wasserstein"]
DISGUISES = ["none", "soften", "straight_through", "noise"]
HALFWAY = 0.5  # of the run: rates are above 0, and the game is on

every_kind = pytest.mark.parametrize("kind", KINDS)
every_decider = pytest.mark.parametrize("kind", DECIDERS)
every_dims = pytest.mark.parametrize("dims", [2, 3])


def make_discriminator(kind: str, dims: int, **options: Any) -> nn.Module:
    return make_critic(dims, **options) if kind == "segan" else make(kind, dims, **options)


def make_loss(levels: int) -> nn.Module:
    return DeepSupervisionLoss(segmentation_loss("dice_ce"), levels)


def game(
    kind: str = "patch",
    dims: int = 2,
    *,
    network: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    segmentation: nn.Module | None = None,
    train: TrainConfig | None = None,
    choice: Choice | None = None,
    **adversary: Any,
) -> AdversarialStep:
    """A step that plays from the start, weights of a fixed seed."""
    network = make_net(dims=dims) if network is None else network
    if segmentation is None:
        segmentation = make_loss(network.supervised_levels)
    settings = {"discriminator": {"name": kind}, "warmup": 0, **adversary}
    if isinstance(settings.get("disguise"), str):
        settings["disguise"] = {"name": settings["disguise"]}
    return AdversarialStep(
        network,
        segmentation,
        make_discriminator(kind, dims) if discriminator is None else discriminator,
        train=train or tiny_train(),
        adversary=AdversaryConfig(**settings),
        fabric=single(),
        choice=choice or Choice(),
    )


def batch_of(
    dims: int = 2, *, batch: int = 2, unlabelled: int = 0, channels: int = 2, size: int = 8, seed: int = 0
) -> dict[str, Any]:
    """Noise with labels of all classes, a row of each not annotated."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, CLASSES, (batch, *[size] * dims), generator=generator, dtype=torch.uint8)
    label[:, 3] = IGNORE
    found = {"image": image_of(dims, batch=batch, channels=channels, size=size, seed=seed), "label": label}
    if unlabelled:
        found["unlabelled"] = image_of(dims, batch=unlabelled, channels=channels, size=size, seed=seed + 100)
    return found


def at_advance(learner: Learner, look: Callable[[], None]) -> None:
    """Call `look` whenever a side has its gradients together, before it steps."""
    advance = learner.advance

    def watched(progress: float) -> Tensor:
        look()
        return advance(progress)

    learner.advance = watched  # type: ignore[method-assign]


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """Copies of those that there are."""
    return {name: w.grad.clone() for name, w in network.named_parameters() if w.grad is not None}


def gradients_in(step: AdversarialStep, side: str, batch: Mapping[str, Any], progress: float = HALFWAY) -> dict:
    """The gradients of one side, `generator` or `discriminator`, in one step."""
    learner = step.generator if side == "generator" else step.opponent.learner
    seen: list[dict[str, Tensor]] = []
    at_advance(learner, lambda: seen.append(gradients(learner.network)))
    step.step(batch, progress)
    return seen[0]


def distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Between two sets of gradients, relative to the second."""
    assert ours.keys() == theirs.keys()
    apart = sum((ours[name] - theirs[name]).double().square().sum() for name in ours)
    return float((apart / sum(value.double().square().sum() for value in theirs.values())).sqrt())


def copy_of(state: Any) -> Any:
    """A tree of tensors as it is now."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, Mapping):
        return {key: copy_of(value) for key, value in state.items()}
    return [copy_of(value) for value in state] if isinstance(state, (list, tuple)) else state


def same(ours: Any, theirs: Any) -> bool:
    """Whether two trees are equal to the bit."""
    if isinstance(ours, Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, Mapping):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


class Voxelwise(nn.Module):
    """Logits of each voxel from this voxel alone."""

    out_channels = CLASSES
    supervised_levels = 1

    def __init__(self, dims: int = 2, channels: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = {2: nn.Conv2d, 3: nn.Conv3d}[dims](channels, CLASSES, 1)

    def all_logits(self, image: Tensor) -> list[Tensor]:
        return [self.head(image)]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image)


class Certain(Voxelwise):
    """Knows the label from the image's first channel; its weights change nothing."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height

    def all_logits(self, image: Tensor) -> list[Tensor]:
        right = nn.functional.one_hot(image[:, 0].long(), CLASSES).movedim(-1, 1)
        return [self.height * right + 0 * self.head(image)]


class Formula(nn.Module):
    """Decides by a formula of image and maps; its one weight is added."""

    def __init__(self, formula: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.formula = formula
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor, maps: Tensor) -> Judgement:
        return Judgement(self.formula(image, maps) + self.weight, [])
