"""The adversarial method: a segmentation network against a discriminator that judges its maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segmed.config import AdversaryConfig, TrainConfig
from segmed.errors import RunError
from segmed.labels import IGNORE
from segmed.losses.region_loss import region_loss
from segmed.losses.segmentation_loss import CrossEntropy
from segmed.targets import LabelTargets, Targets
from segmed.training.balance import Balance
from segmed.training.disguise import EachRegion, InstanceNoise, disguise, reference_maps
from segmed.training.learner import Learner
from segmed.training.opponents import Critic, Decider, Exhibit
from segmed.training.precision import Choice
from segmed.training.steps import AllLogits, Step

AT_LOGITS = "gradient_norm/"  # norms of the two parts at the generator's last layer, its logits
BETAS = (0.5, 0.999)  # of the discriminator's AdamW; Source: Radford et al. 2016, arXiv 1511.06434
VIEWED = 4  # patches of a batch that are shown


@dataclass(frozen=True)
class _Piece:
    """A part of a batch, on the device."""

    image: Tensor
    label: Tensor
    unlabelled: Tensor | None
    share: float  # of the labelled images of the batch
    unlabelled_share: float


class _Figures(dict[str, Tensor]):
    """Means over the pieces of a batch, by name."""

    def add(self, name: str, value: Tensor, share: float = 1.0) -> None:
        value = value.detach() * share
        self[name] = self[name] + value if name in self else value


class AdversarialStep(Step):
    """Segmentation from labelled patches, and from a discriminator that has to take the maps for references.

    Each step computes the generator once. Its gradient at the logits is the weighted sum of what the segmentation
    loss and the discriminator, its weights frozen, ask for. Then the discriminator learns from the same maps. Before
    `adversary.warmup` the generator trains alone.

    Args:
        network: the generator; gives `all_logits(image)`, a list, finest first, of at least two classes.
        loss: of that list and the labels (B, *spatial).
        discriminator: of `segmed.networks.discriminators`; SegAN's critic where the loss is `segan_l1`.
        train: optimiser, schedule, EMA, clipping, accumulation.
        targets: what the network's channels are; none: background and labels.
        adversary: losses and their weights, whose turn it is, the discriminator's optimiser.
        fabric: device and processes, in full precision: autocast is done here.
        choice: precision and memory format, of both.

    Raises:
        ValueError: the network has no multi-class output.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        discriminator: nn.Module,
        *,
        train: TrainConfig,
        adversary: AdversaryConfig,
        fabric: Fabric,
        choice: Choice,
        targets: Targets | None = None,
    ) -> None:
        classes = int(cast(Any, getattr(network, "out_channels", 1)))
        self.targets = targets or LabelTargets([str(index) for index in range(1, classes)])
        if classes != self.targets.channels or (classes < 2 and isinstance(self.targets, LabelTargets)):
            raise ValueError(
                f"an adversary needs a network with a multi-class output, {type(network).__name__} gives "
                f"{classes}: use a segmentation network, or take the adversary section away"
            )
        self.train, self.adversary, self.fabric, self.choice = train, adversary, fabric, choice
        self.generator = Learner(network, train, fabric=fabric, choice=choice, call=AllLogits)
        self.network = self.generator.network
        self.loss = loss.to(fabric.device)
        other = {"optimiser": adversary.optimiser, "learning_rate": adversary.learning_rate, "weight_decay": 0.0}
        theirs = train.model_copy(update={**other, "ema": 0.0, "compile": "off"})
        learner = Learner(discriminator, theirs, fabric=fabric, choice=choice, betas=BETAS)
        critic = adversary.loss_name == "segan_l1"
        self.opponent = Critic(learner) if critic else Decider(learner, adversary)
        options = adversary.disguise.model_dump()
        self.disguise = disguise(options.pop("name"), **options)
        self.own_labels: nn.Module = CrossEntropy()  # of unlabelled voxels with what the generator itself found
        if not isinstance(self.targets, LabelTargets):
            self.own_labels = region_loss("topk_ce", self.targets, fraction=1.0)
            if not isinstance(self.disguise, InstanceNoise):
                self.disguise = EachRegion(self.disguise)
        self.balance = Balance(adversary.watch_steps, speaks=fabric.global_rank == 0)
        self._turns = 0

    def step(self, batch: Mapping[str, Any], progress: float) -> dict[str, Tensor]:
        """The generator's step, then the discriminator's on the same maps, where it is its turn.

        Args:
            batch: image (B, C, *spatial), label (B, *spatial); unlabelled (U, C, *spatial) where there are such cases.
            progress: in [0, 1].
        """
        playing = progress >= self.adversary.warmup
        figures = _Figures()
        exhibits = []
        for piece, last in self._pieces(batch):
            with self.generator.unsynchronised(not last):
                exhibits.append(self._generator_pass(piece, progress, playing, figures))
        for name in [name for name in figures if name.startswith(AT_LOGITS)]:
            figures[name] = figures[name].sqrt()
        figures["gradient_norm"] = self.generator.advance(progress)
        if playing:
            for _ in range(self._steps_of_the_discriminator()):
                figures.update(self._discriminator_pass([shown for shown in exhibits if shown], progress))
            if "discriminator/accuracy" in figures:
                self.balance.add(figures["discriminator/accuracy"])
            if isinstance(self.disguise, InstanceNoise):
                sd = self.disguise.sd_at(progress)
                figures["discriminator/noise_sd"] = torch.full((), sd, device=self.fabric.device)
        return dict(figures)

    def _pieces(self, batch: Mapping[str, Any]) -> Iterator[tuple[_Piece, bool]]:
        """The parts whose gradients are added up, each with whether it is the last."""
        device, number = self.fabric.device, self.train.accumulate
        images, labels = batch["image"].chunk(number), batch["label"].chunk(number)
        others = batch.get("unlabelled", batch["image"][:0])
        # there may be another number of them, and none in some pieces
        for place, (image, label, extra) in enumerate(
            zip(images, labels, others.tensor_split(len(images)), strict=True), start=1
        ):
            yield (
                _Piece(
                    self._placed(image),
                    label.to(device, non_blocking=True),
                    self._placed(extra) if len(extra) else None,
                    len(image) / len(batch["image"]),
                    len(extra) / max(len(others), 1),
                ),
                place == len(images),
            )

    def _placed(self, image: Tensor) -> Tensor:
        return self.choice.arrange(image.to(self.fabric.device, non_blocking=True))

    def _steps_of_the_discriminator(self) -> int:
        """From the ratio: several on each batch, or one every few batches."""
        self._turns += 1
        if self.adversary.ratio >= 1:
            return round(self.adversary.ratio)
        return int(self._turns % round(1 / self.adversary.ratio) == 0)

    # ------------------------------------------------------------ the generator's side

    def _generator_pass(self, piece: _Piece, progress: float, playing: bool, figures: _Figures) -> Exhibit | None:
        """Add up the generator's gradients; returns what the discriminator will learn from, if it plays.

        The graph is cut at the logits, where the two losses' gradients are known apart before they are summed, and
        where the generator's one backward pass begins.
        """
        extra = piece.unlabelled if playing else None
        image = piece.image if extra is None else self.choice.arrange(torch.cat([piece.image, extra]))
        with self.choice.autocast(self.fabric.device):
            logits = self.generator.module(image)
        leaves = [level.detach().requires_grad_() for level in logits]
        labelled = [level[: len(piece.image)] for level in leaves]
        loss = self.loss(labelled, piece.label)
        figures.add("loss/segmentation", loss, piece.share)
        total = self.adversary.segmentation_weight * piece.share * loss
        slopes = list(torch.autograd.grad(total, leaves))
        figures.add(AT_LOGITS + "segmentation", slopes[0].float().square().sum())
        exhibit = None
        if playing:
            exhibit, deceived = self._deceive(piece, labelled[0], progress, figures)
            deceived = deceived * piece.share
            if extra is not None:
                others, share = leaves[0][len(piece.image) :], piece.unlabelled_share
                deceived = deceived + share * self._deceive_unlabelled(extra, others, share, progress, figures)
            (slope,) = torch.autograd.grad(deceived, leaves[0])
            figures.add(AT_LOGITS + "adversarial", slope.float().square().sum())
            slopes[0] = slopes[0] + slope
            total = total + deceived
        torch.autograd.backward(logits, slopes)
        figures.add("loss", total)
        return exhibit

    def _deceive(self, piece: _Piece, logits: Tensor, progress: float, figures: _Figures) -> tuple[Exhibit, Tensor]:
        """What is shown of the labelled images, and the weighted sum of the losses on it."""
        probabilities = self.targets.activated(logits.float())
        reference, counted = reference_maps(piece.label, self.targets)
        exhibit = Exhibit(
            piece.image,
            self.choice.arrange(self.disguise.fake(probabilities, progress) * counted),
            self.choice.arrange(self.disguise.real(reference, probabilities, progress) * counted),
        )
        with self.choice.autocast(self.fabric.device):
            losses = self.opponent.generator_losses(exhibit)
        weights = {"adversarial": self.adversary.weight, "feature_matching": self.adversary.feature_matching}
        total = torch.zeros((), device=logits.device)
        for name, loss in losses.items():
            figures.add(f"loss/{name}", loss, piece.share)
            total = total + weights[name] * loss
        return exhibit.detached(), total

    def _deceive_unlabelled(
        self, image: Tensor, logits: Tensor, share: float, progress: float, figures: _Figures
    ) -> Tensor:
        """The weighted losses on images without labels.

        Source: Hung et al. 2018, arXiv 1802.07934, eq. 4 and 5.
        """
        settings = self.adversary.unlabelled
        probabilities = self.targets.activated(logits.float())
        with self.choice.autocast(self.fabric.device):
            fake = self.choice.arrange(self.disguise.fake(probabilities, progress))
            loss, confidence = self.opponent.unlabelled_losses(image, fake)
        figures.add("loss/adversarial_unlabelled", loss, share)
        total = settings.weight * loss
        if progress >= settings.start:
            trusted = confidence >= settings.confidence
            own = torch.where(trusted, self.targets.decided(logits.detach().float()), IGNORE)
            loss = self.own_labels(logits, own)
            figures.add("loss/own_labels", loss, share)
            figures.add("unlabelled/trusted", trusted.float().mean(), share)
            total = total + settings.pseudo_weight * loss
        return total

    # ------------------------------------------------------------ the discriminator's side

    def _discriminator_pass(self, exhibits: list[Exhibit], progress: float) -> _Figures:
        """One step of the discriminator on the maps that the generator has just made."""
        learner, figures = self.opponent.learner, _Figures()
        images = sum(len(exhibit.image) for exhibit in exhibits)
        for place, exhibit in enumerate(exhibits, start=1):
            share = len(exhibit.image) / images
            with learner.unsynchronised(place < len(exhibits)):
                with self.choice.autocast(self.fabric.device):
                    loss, values = self.opponent.discriminator_losses(exhibit)
                self.fabric.backward(loss * share)
            for name, value in values.items():
                figures.add(name, value, share)
        figures["discriminator/gradient_norm"] = learner.advance(progress)
        return figures

    @torch.no_grad()
    def views(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The result of a batch, and where the discriminator takes reference and result for a reference."""
        generator, opponent = self.evaluation_network, self.opponent
        batch = {name: batch[name][:VIEWED] for name in ("image", "label")}
        modes = (generator.training, opponent.learner.network.training)
        generator.eval()
        opponent.learner.network.eval()
        try:
            image, label = self._placed(batch["image"]), batch["label"].to(self.fabric.device)
            with self.choice.autocast(self.fabric.device):
                logits = generator(image).float()
            probabilities = self.targets.activated(logits)
            views = {"result": self.targets.decided(logits).to(torch.uint8)}
            if isinstance(opponent, Decider) and opponent.loss.name != "wasserstein":
                reference, counted = reference_maps(label, self.targets)
                shown = {
                    "reference": self.disguise.real(reference, probabilities, 1.0) * counted,
                    "result": self.disguise.fake(probabilities, 1.0) * counted,
                }
                for name, maps in shown.items():
                    with self.choice.autocast(self.fabric.device):
                        decision = opponent.learner.network(image, maps).decision
                    views[f"D({name})"] = opponent.confidence(decision, image.shape[2:])
            return {name: view.cpu() for name, view in views.items()}
        finally:
            generator.train(modes[0])
            opponent.learner.network.train(modes[1])

    # ------------------------------------------------------------ state

    @property
    def evaluation_network(self) -> nn.Module:
        """The averaged generator, or the trained one where no average is kept."""
        return self.generator.evaluation_network

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates of both sides."""
        return {"learning_rate": self.generator.rate, "discriminator/learning_rate": self.opponent.learner.rate}

    def state_dict(self) -> dict[str, Any]:
        """Both networks with their optimisers, the average, and whose turn it is."""
        return {
            "method": "adversarial",
            **self.generator.state_dict(),
            "discriminator": self.opponent.learner.state_dict(),
            "turns": self._turns,
            "balance": self.balance.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        if state.get("method") != "adversarial" or "discriminator" not in state:
            raise RunError(
                f"the checkpoint is of {state.get('method')} training and holds no discriminator: start a new run, or "
                "go on without the adversary section"
            )
        self.generator.load_state_dict(state, where="the checkpoint")
        self.opponent.learner.load_state_dict(state["discriminator"], where="the checkpoint's discriminator")
        self._turns = int(state["turns"])
        self.balance.load_state_dict(state["balance"])
