"""Fingerprint + machine -> the values that a config left `auto`, each with its reason.

The rules follow nnU-Net's published ones (Isensee et al. 2021, Nat Methods 18:203, supplement) where they
speak of geometry, and measurements where they speak of machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segmed.builders.losses import level_loss
from segmed.builders.segmenters import PLANE_AXES, label_set
from segmed.config import (
    EncoderConfig,
    ImageDiscriminatorConfig,
    PatchDiscriminatorConfig,
    PixelDiscriminatorConfig,
    SeganCriticConfig,
    SegmentationConfig,
    UNetConfig,
    known,
)
from segmed.data.audit import CaseFacts
from segmed.errors import ConfigError, NetworkError
from segmed.machine import Machine
from segmed.networks.blocks import check_strides
from segmed.networks.discriminators import check_depth
from segmed.networks.levels import patch_within, pooling
from segmed.segment.breadth import fitting_preset
from segmed.segment.depth import borne, check_padding, levels_of, rounded_up
from segmed.segment.grid_plan import GridPlanner, joined
from segmed.segment.memory import batch_reason, fit_batch
from segmed.segment.peak_rate import usual_peak
from segmed.segment.resolved import Plan
from segmed.targets import Targets, targets_of
from segmed.training.encoder_transfer import shaped_like

VOXELS = {("cpu", 2): 192**2, ("cpu", 3): 64**3, ("cuda", 2): 512**2, ("cuda", 3): 128**3}
WIDTH = {("cpu", 2): 16, ("cpu", 3): 16, ("cuda", 2): 32, ("cuda", 3): 32}
WIDEST = {2: 512, 3: 320}
MOST = 90  # per cent of the cases whose labels fit into a patch on a CPU
ROOM = 1.3  # times the box of the labels: what a patch should hold
WORTH = 0.7  # of a patch's voxels: less than that makes a smaller one worth it
GROWTH = 8  # steps in which a patch grows that bears too few levels
PATCH_LEVELS = 4  # of the patch discriminator: each decision sees 31 voxels
DISCRIMINATOR_WIDTH = {"cpu": 16, "cuda": 32}


def resolve(
    config: SegmentationConfig,
    facts: Sequence[CaseFacts],
    *,
    channels: int,
    machine: Machine,
    processes: int = 1,
    training: int | None = None,
) -> Plan:
    """Resolve every `auto` of a config.

    Args:
        config: as the user gave it; `data.images`, `data.labels` and `data.targets` are resolved already.
        facts: fingerprint of the training and validation cases.
        channels: number of modalities.
        machine: what the run may use.
        processes: that train together; on a CPU they share its memory.
        training: how many of the cases train, the others validating; None: all, and other cases may validate.

    Raises:
        ConfigError: the data hold nothing to plan from, or the plan does not fit in memory.
    """
    if not facts:
        raise ConfigError("no case to plan from: the training part is empty")
    if machine.device == "cpu":
        machine = replace(machine, memory_bytes=machine.memory_bytes // processes)
    planner = Planner(config, facts, machine)
    planner.preprocessing()
    planner.source_encoder()
    planner.patches()
    planner.network()
    planner.adversary()
    planner.training()
    config = planner.config
    targets = targets_of(label_set(config))
    planner.targets(targets)
    batch, summary, need = fit_batch(config, channels, targets.channels, machine)
    if config.train.batch_size == "auto":
        planner.set("train.batch_size", batch, batch_reason(batch, config, machine))
        config = planner.config
    patches = known(config.train.batch_size) * config.train.accumulate * processes
    cases = len(facts) if training is None else training
    if config.train.steps_per_epoch == "auto":
        why = f"{cases} training cases, each drawn about twice, {patches} a step"
        planner.set("train.steps_per_epoch", max(1, math.ceil(2 * cases / patches)), why)
    planner.augmentation(cases, patches, validated=training is None or training < len(facts))
    return Plan(planner.config, planner.reasons, summary, need, machine)


class Planner(GridPlanner):
    """Works through a config from geometry to training."""

    def __init__(self, config: SegmentationConfig, facts: Sequence[CaseFacts], machine: Machine) -> None:
        super().__init__(config, facts)
        self.machine = machine

    # -- patches and network

    def _working_grid(self) -> tuple[list[int], list[float]]:
        """Median shape in voxels and spacing in mm of what the network sees, without the slice axis in 2D."""
        shapes = self.shapes if self.config.preprocess.crop == "none" else self.bodies
        shape = np.median(self._seen(shapes), axis=0)
        spacing = np.median(np.broadcast_to(self._target_spacing, self.spacings.shape), axis=0)
        return [max(1, round(float(shape[a]))) for a in self._axes], [float(spacing[a]) for a in self._axes]

    @property
    def _target_spacing(self) -> np.ndarray:
        """Of what the network sees, (3) or (cases, 3)."""
        given = self.config.preprocess.spacing_mm
        return self.spacings if isinstance(given, str) else np.where(np.array(given) > 0, given, self.spacings)

    def _seen(self, shapes: np.ndarray) -> np.ndarray:
        """Shapes (cases, 3) of files in voxels of what the network sees."""
        return np.asarray(shapes * self.spacings / self._target_spacing)

    @property
    def _axes(self) -> list[int]:
        """Those of the volume that a patch has."""
        across = PLANE_AXES[self.config.patches.plane] if self.config.patches.dims == 2 else None
        return [axis for axis in range(3) if axis != across]

    def _around_labels(self) -> list[int] | None:
        """A patch that holds all labels of most cases with room around them; None where nothing is labelled."""
        known_boxes = self._seen(self.labelled)[~np.isnan(self.labelled).any(axis=1)]
        if not len(known_boxes):
            return None
        box = np.percentile(known_boxes, MOST, axis=0) * ROOM
        return [math.ceil(float(box[axis])) for axis in self._axes]

    def source_encoder(self) -> None:
        """Where the run starts from another run, take over its shape unless the config gives one."""
        dims = known(self.config.patches.dims)
        if not isinstance(self.config.network, UNetConfig):
            return
        encoder, reasons = shaped_like(self.config.network.encoder, self.config.init_run, dims=dims)
        for field, reason in reasons.items():
            self.set(f"network.encoder.{field}", getattr(encoder, field), reason)

    def patches(self) -> None:
        dims = known(self.config.patches.dims)
        shape, spacing = self._working_grid()
        if self.config.patches.size == "auto":
            size, why = self._patch(shape, spacing, VOXELS[self.machine.device, dims])
            shapes = self.shapes if self.config.preprocess.crop == "none" else self.bodies
            check_padding(self.config, size, np.ceil(self._seen(shapes).max(axis=0)[self._axes]))
            self.set("patches.size", tuple(size), f"{why}, rounded up for the network's strides")
        elif len(self.config.patches.size) != dims:
            raise ConfigError(
                f"patches.size {self.config.patches.size} has {len(self.config.patches.size)} numbers, "
                f"patches.dims is {dims}: give {dims}"
            )
        self.spacing = spacing

    def _patch(self, shape: list[int], spacing: list[float], limit: int) -> tuple[list[int], str]:
        """As much of the volume as the device bears; on a CPU no more than labels and levels need. With the reason."""
        most = patch_within(shape, spacing, limit)
        around = self._around_labels() if self.machine.device == "cpu" else None
        if around is not None:
            small = [min(n, max(n // 2, room)) for n, room in zip(most, around, strict=True)]
            enough, deeper = self._deep_enough(small, most, spacing)
            if math.prod(enough) < WORTH * math.prod(most):
                more = "; enlarged for the levels that it has to bear" if deeper else ""
                why = f"holds all labels of {MOST} % of the cases and some room: a CPU sees more patches{more}"
                return self._rounded(enough, spacing), why
        why = f"median volume {joined(shape)} voxels, at most about {limit} on this device"
        return self._rounded(most, spacing), why

    def _deep_enough(self, small: list[int], most: list[int], spacing: list[float]) -> tuple[list[int], bool]:
        """The smallest size on the way from one to the other that bears as much as the other, and if it is larger."""
        wanted = borne(self.config, self._rounded(most, spacing), spacing)
        for number in range(GROWTH):
            size = [n + math.ceil((end - n) * number / GROWTH) for n, end in zip(small, most, strict=True)]
            bears = borne(self.config, self._rounded(size, spacing), spacing)
            if all(mine >= theirs for mine, theirs in zip(bears, wanted, strict=True)):
                return size, number > 0
        return most, True

    def _rounded(self, size: list[int], spacing: list[float]) -> list[int]:
        """The next size that the network's strides divide."""
        return rounded_up(self.config, size, spacing)

    def network(self) -> None:
        section = levels_of(self.config)
        if section is None:
            return
        key = "network.encoder" if isinstance(section, EncoderConfig) else "network"
        dims, strides, channels = known(self.config.patches.dims), section.strides, section.channels
        if strides == "auto":
            levels = None if channels == "auto" else len(channels)
            strides = pooling(known(self.config.patches.size), self.spacing, levels=levels)
            why = "halve an axis while 4 voxels remain and its spacing is not yet that of the coarsest"
            self.set(f"{key}.strides", strides, why)
        if channels == "auto":
            width = WIDTH[self.machine.device, dims]
            channels = tuple(min(width * 2**level, WIDEST[dims]) for level in range(len(strides)))
            self.set(f"{key}.channels", channels, f"{width} maps on a {self.machine.device.upper()}, doubled a level")
        if len(channels) > len(strides) and f"{key}.channels" in self.reasons:  # of an encoder of other dimensions
            channels = channels[: len(strides)]
            self.set(f"{key}.channels", channels, self.reasons[f"{key}.channels"])
        if len(channels) != len(strides):
            reasons = (self.reasons.get(f"{key}.{name}") for name in ("channels", "strides"))
            of_channels, of_strides = (f" ({reason})" if reason else "" for reason in reasons)
            raise ConfigError(
                f"{key}.channels has {len(channels)} levels{of_channels}, {key}.strides {len(strides)}{of_strides}: "
                "give as many of each, or leave one `auto`"
            )

    def adversary(self) -> None:
        """Levels of the discriminator from the patch, as for the network."""
        adversary = self.config.adversary
        if adversary is None:
            return
        if adversary.loss == "auto":
            self.set(
                "adversary.loss", adversary.loss_name, f"usual with the discriminator {adversary.discriminator.name}"
            )
        if adversary.gradient_penalty == "auto":
            why = "keeps a Wasserstein critic Lipschitz" if adversary.gradient_penalty_weight else "not needed"
            self.set("adversary.gradient_penalty", adversary.gradient_penalty_weight, why)
        if not isinstance(adversary.discriminator, PixelDiscriminatorConfig):
            self._levels_of_discriminator(adversary.discriminator)

    def _levels_of_discriminator(
        self, discriminator: PatchDiscriminatorConfig | ImageDiscriminatorConfig | SeganCriticConfig
    ) -> None:
        key, encoder = "adversary.discriminator.encoder", discriminator.encoder
        strides, channels = encoder.strides, encoder.channels
        dims, size = known(self.config.patches.dims), known(self.config.patches.size)
        patch = " x ".join(map(str, size))
        if strides == "auto":
            most = PATCH_LEVELS if discriminator.name == "patch" else None
            levels = most if channels == "auto" else len(channels)
            strides = pooling(size, self.spacing, levels=None if levels is None else levels + 1)[1:]
            if not strides:
                raise ConfigError(
                    f"patch {patch} is too small for the discriminator {discriminator.name}: use the discriminator "
                    "pixel, or larger patches"
                )
            self.set(f"{key}.strides", strides, "each level halves what still has 8 voxels, thick slices last")
        if channels == "auto":
            width = DISCRIMINATOR_WIDTH[self.machine.device]
            channels = tuple(min(width * 2**level, WIDEST[dims]) for level in range(len(strides)))
            self.set(f"{key}.channels", channels, f"{width} maps on a {self.machine.device.upper()}, doubled a level")
        if len(channels) != len(strides):
            fit, number = ("1 fits", 1) if len(strides) == 1 else (f"{len(strides)} fit", len(strides))
            raise ConfigError(
                f"{key}.channels has {len(channels)} levels, {fit} a patch of {patch}: give {number}, or strides of "
                "your own"
            )
        try:
            check_strides(channels, strides, dims)
        except NetworkError as error:
            raise ConfigError(f"{key}: {error}") from None
        check_depth(size, strides, where=key)

    # -- training

    def targets(self, targets: Targets) -> None:
        """See that loss and mirrored pairs have a meaning for regions, and say what the channels are."""
        labels = label_set(self.config)
        if not labels.targets:
            return
        level_loss(self.config.loss, labels)
        targets.swapped([(labels.index(a), labels.index(b)) for a, b in self.config.data.mirror_pairs])
        why = "a sigmoid each, painted in this order; probabilities of labels are what is left of each"
        self.set("data.targets", targets.names, why)

    def training(self) -> None:
        train = self.config.train
        if train.learning_rate == "auto":
            self.set("train.learning_rate", *usual_peak(self.config))
        if train.workers == "auto":
            workers = (
                min(self.machine.cores - 1, 12) if self.machine.device == "cuda" else min(self.machine.cores - 1, 2)
            )
            self.set("train.workers", workers, f"{self.machine.cores} cores, one left to the training itself")
        if train.devices == "auto":
            self.set("train.devices", self.machine.devices, "all that are there")

    def augmentation(self, cases: int, patches: int, *, validated: bool) -> None:
        """Fill in the preset that fits so many training cases, and so many patches a step; answer overfitting."""
        augment, chosen = self.config.augment, self.config.augment.name == "auto"
        if augment.name == "auto":
            preset, why = fitting_preset(
                self.config.train, cases=cases, patches=patches, spacing_known=self.config.data.spacing_known
            )
            self.config = self.config.model_copy(update={"augment": augment.filled(preset)})
            self.reasons["augment.name"] = why
        broaden, why = self.config.augment.answers(self.config.train, chosen=chosen, validated=validated)
        if broaden != augment.broaden:
            self.set("augment.broaden", broaden, why)
