"""One run's training: images, model, loss and loop, built from its resolved config."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from segmed.classes.arrays import ImageArrays, ImageCache
from segmed.classes.batches import ImageSamples, ordered_batches, training_batches
from segmed.classes.dataset import ClassDataset
from segmed.classes.splitting import ClassSplit
from segmed.classify.building import build_class_loss, build_classifier, start_weights
from segmed.classify.preparing import TOOL, known_cache
from segmed.config import known
from segmed.config.classification import ClassificationConfig
from segmed.data.content import check_content
from segmed.files import write_json
from segmed.machine import this_machine
from segmed.metrics.classification import figures
from segmed.reports.classified import Tested
from segmed.runs import Run, write_config
from segmed.training.checkpoint import Checkpoints
from segmed.training.classification import ClassificationStep
from segmed.training.inherited import leak_note, record_transfer
from segmed.training.loop import FitSettings, FitState, ValidationResult, fit
from segmed.training.precision import Choice, choose_precision
from segmed.training.schedule import Budget, StepBudget, TimeBudget
from segmed.training.tracking import Tracker

SHOWN = ("accuracy", "balanced_accuracy", "auc", "log_loss")  # of a validation


class ClassSession:
    """One run's objects.

    Args:
        made: its folder.
        config: resolved.
        dataset: the images.
        split: their parts.
        fabric: device, one process.
        checkpoints: of the run.
    """

    def __init__(
        self,
        made: Run,
        config: ClassificationConfig,
        dataset: ClassDataset,
        split: ClassSplit,
        *,
        fabric: Fabric,
        checkpoints: Checkpoints,
    ) -> None:
        self.run, self.config, self.dataset, self.split = made, config, dataset, split
        self.fabric, self.checkpoints = fabric, checkpoints
        torch.manual_seed(config.seed)
        self.network = build_classifier(
            config.model,
            in_channels=config.image.channels,
            classes=len(dataset.classes),
            size=config.image.size,
        )
        self.loss = build_class_loss(config.loss, counts=dataset.counts(split.train))

    @cached_property
    def arrays(self) -> ImageArrays:
        """All images, prepared."""
        cache = ImageCache(known_cache(self.config))
        arrays = cache.get(self.dataset.items, self.config.image, workers=this_machine().cores, progress=True)
        learned = {*self.split.train, *self.split.validation}
        found = {name: str(check) for name, check in zip(arrays.ids, arrays.checksums, strict=True) if name in learned}
        check_content(self.run.content, found)
        return arrays

    def train(self, tracker: Tracker, *, resume: bool) -> FitState:
        """Start from other weights where the config says so, choose the precision, fit."""
        moved = None if resume else start_weights(self.network, self.config)
        if moved is not None:
            source = self.config.init_encoder
            note = "" if source is None else leak_note(source, self.config.data.root, self.split.test)
            shown = source or "published weights"
            record_transfer(moved, source=shown, folder=self.run.path, tracker=tracker, note=note)
        arrays, train = self.arrays, self.config.train
        choice = self._precision()
        tracker.text("config", self.run.config.read_text(encoding="utf-8"))
        method = ClassificationStep(
            self.network, self.loss, train, fabric=self.fabric, choice=choice, mixup=train.mixup
        )
        validate = self._validate(tracker)
        steps = None if train.budget_minutes else train.epochs * known(train.steps_per_epoch)
        settings = FitSettings(
            validations=train.validations,
            patience=train.patience,
            checkpoint_minutes=train.checkpoint_minutes,
            seed=self.config.seed,
            resume=resume,
            resume_command=f"python tools/{TOOL}.py --resume {self.run.path}",
        )
        return fit(
            method,
            self._batches(arrays, steps),
            self._budget(steps),
            settings=settings,
            checkpoints=self.checkpoints,
            tracker=tracker,
            validate=validate,
        )

    def tested(self, network: nn.Module, part: str) -> Tested:
        """Classify a part of the data set.

        Args:
            network: on the device of the run.
            part: `train`, `validation` or `test`.
        """
        items = self.dataset.of(getattr(self.split, part))
        logits = self._logits(network, getattr(self.split, part))
        return Tested(
            classes=self.dataset.classes,
            ids=tuple(item.id for item in items),
            subjects=tuple(item.subject for item in items),
            truth=np.array([item.label for item in items]),
            logits=logits,
        )

    def image(self, name: str) -> np.ndarray:
        """One prepared image (C, *spatial) float32, by id."""
        return self.arrays.images[self.arrays.rows([name])[0]].astype(np.float32)

    # ------------------------------------------------------------ parts of the training

    def _batches(self, arrays: ImageArrays, steps: int | None) -> Callable[[int], Iterable[dict[str, Any]]]:
        config = self.config
        samples = ImageSamples(
            arrays,
            self.dataset.of(self.split.train),
            augment=config.augment,
            balanced=config.train.balanced,
            seed=config.seed,
        )
        return lambda start: training_batches(
            samples,
            batch_size=config.train.batch_size,
            start_step=start,
            total_steps=steps,
            workers=known(config.train.workers),
            pin_memory=self.fabric.device.type == "cuda",
        )

    def _budget(self, steps: int | None) -> Budget:
        minutes = self.config.train.budget_minutes
        return StepBudget(steps or 1) if minutes is None else TimeBudget(minutes)

    def _validate(self, tracker: Tracker) -> Callable[[nn.Module], ValidationResult] | None:
        if not self.split.validation:
            tracker.line("no validation images: the last weights are kept as the best")
            return None
        return self._validated

    def _validated(self, network: nn.Module) -> ValidationResult:
        found = self.tested(network, "validation")
        overall = figures(found.truth, found.probabilities, found.classes).overall
        select = self.config.train.select
        score = -overall[select] if select == "log_loss" else overall[select]
        return ValidationResult(score, {f"validation/{name}": overall[name] for name in SHOWN})

    @torch.no_grad()
    def _logits(self, network: nn.Module, ids: Sequence[str]) -> np.ndarray:
        """(N, K) float64 in full precision, the network in evaluation mode."""
        training = network.training
        network.eval()
        batches = ordered_batches(self.arrays, self.dataset.of(ids), batch_size=self.config.train.batch_size)
        found = [network(batch["image"].to(self.fabric.device)).double().cpu().numpy() for batch in batches]
        network.train(training)
        return np.concatenate(found)

    def _precision(self) -> Choice:
        """Measure what is `auto`, and write the choice into the run's config with its figures."""
        train, image = self.config.train, self.config.image
        choice = choose_precision(
            self.network,
            self.loss,
            (train.batch_size, image.channels, *image.size),
            ranks=self.checkpoints.ranks,
            device=self.fabric.device,
            fixed=(train.precision, train.memory_format),
            forward=lambda network, images: network(images),
            target=torch.arange(train.batch_size) % len(self.dataset.classes),
        )
        values = {"precision": choice.precision, "memory_format": choice.memory_format}
        values = {field: value for field, value in values.items() if getattr(train, field) == "auto"}
        if values:
            self._resolve(values, choice.reason)
        return choice

    def _resolve(self, values: Mapping[str, Any], reason: str) -> None:
        self.config = self.config.model_copy(update={"train": self.config.train.model_copy(update=dict(values))})
        plan = json.loads(self.run.plan.read_text(encoding="utf-8"))
        plan["reasons"].update({f"train.{field}": reason for field in values})
        write_json(self.run.plan, plan)
        write_config(self.run, self.config, plan["reasons"], tool=TOOL)
