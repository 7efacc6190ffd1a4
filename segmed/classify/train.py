"""One classifier's training: the objects that its run's resolved config names, and the loop over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric

from segmed.builders.architectures import build_classifier
from segmed.builders.first_weights import start_weights
from segmed.builders.losses import build_class_loss
from segmed.classify.validate import Images, Validator
from segmed.config import AugmentConfig, known
from segmed.data.images.batches import ImageSamples, training_batches
from segmed.data.images.image_splits import ClassSplit
from segmed.reports.drawing.patches import PatchGrid, patches_figure
from segmed.runs import Run, read_class_config
from segmed.training.checkpoint import Checkpoints
from segmed.training.classification_step import ClassificationStep
from segmed.training.compilation import choose_compilation
from segmed.training.fit_settings import FitSettings, budget_of, run_seconds, total_steps
from segmed.training.fit_state import FitState
from segmed.training.loop import fit
from segmed.training.measured import keep_measured
from segmed.training.optimisation import PEAK_RATE, freeze
from segmed.training.precision import Choice, choose_precision
from segmed.training.ranks import Ranks
from segmed.training.rate_search import find_rate
from segmed.training.tracking import Tracker
from segmed.training.transfer_record import leak_note, record_transfer


class Training:
    """One classifier's training: the objects that a run's resolved config names, and the loop over them.

    Args:
        run: its folder.
        fabric, ranks: device, and one process.
    """

    def __init__(self, run: Run, fabric: Fabric, ranks: Ranks) -> None:
        self.run, self.fabric, self.ranks = run, fabric, ranks
        self.config = read_class_config(run)
        self.images = Images.of(self.config, ClassSplit.load(run.split), content=run.content)
        image, dataset = self.config.image, self.images.dataset
        torch.manual_seed(self.config.seed)
        self.network = build_classifier(
            self.config.network, in_channels=image.channels, classes=len(dataset.classes), size=image.size
        )
        freeze(self.network, self.config.train.frozen_levels)
        self.loss = build_class_loss(self.config.loss, counts=dataset.counts(self.images.split.train))

    def fit(self, tracker: Tracker, *, resume: bool) -> FitState:
        """Start from other weights where the config says so, choose the precision, train."""
        tracker.line(f"run: {self.run.path}")
        if not resume:
            self._start_weights(tracker)
        choice = self._precision()
        spent = self._compilation(choice, tracker) + self._rate(choice, tracker)
        train = self.config.train
        tracker.text("config", self.run.config.read_text(encoding="utf-8"))
        command = f"segmed train-cls --resume {self.run.whole}"
        network, classes = self.config.network.name, ",".join(self.images.dataset.classes)
        augment = self.config.augment
        first, *broader = [self._batches(each) for each in (augment, *augment.broader())]
        return fit(
            ClassificationStep(self.network, self.loss, train, fabric=self.fabric, choice=choice, mixup=train.mixup),
            first,
            budget_of(train, spent=spent),
            settings=FitSettings.of(train, seed=self.config.seed, resume=resume, resume_command=command),
            checkpoints=Checkpoints(self.run.path, ranks=self.ranks, metadata={"network": network, "classes": classes}),
            tracker=tracker,
            validate=self._validator(tracker),
            draw=partial(patches_figure, grid=PatchGrid(pictures=len(self.config.image.size) == 2, rows_first=True)),
            broader=broader,
        )

    def _start_weights(self, tracker: Tracker) -> None:
        """Load published weights, or the encoder of another run, where the config names them."""
        moved, source = start_weights(self.network, self.config), self.config.init_encoder
        if moved is not None:
            note = "" if source is None else leak_note(source, self.config.data.root, self.images.split.test)
            shown = source or "published weights"
            record_transfer(moved, source=shown, folder=self.run.path, tracker=tracker, note=note)

    def _batches(self, augment: AugmentConfig) -> Callable[[int], Iterable[dict[str, Any]]]:
        """First step -> the training batches from there on."""
        config = self.config
        samples = ImageSamples(
            self.images.arrays,
            self.images.dataset.of(self.images.split.train),
            augment=augment,
            balanced=config.train.balanced,
            seed=config.seed,
        )
        return lambda start: training_batches(
            samples,
            batch_size=config.train.batch_size,
            start_step=start,
            total_steps=total_steps(config.train),
            workers=known(config.train.workers),
            pin_memory=self.fabric.device.type == "cuda",
        )

    def _validator(self, tracker: Tracker) -> Validator | None:
        """Scores the validation images; none where the split has no such part."""
        if not self.images.split.validation:
            tracker.line("no validation images: the last weights are kept as the best")
            return None
        return Validator(self.images, self.config.train.select, self.loss)

    def _precision(self) -> Choice:
        """Measure what is `auto`, and write the choice into the run's config with its figures."""
        train = self.config.train
        choice = choose_precision(
            self.network,
            self.loss,
            self._batch_shape,
            ranks=self.ranks,
            device=self.fabric.device,
            fixed=(train.precision, train.memory_format),
            forward=lambda network, images: network(images),
            target=self._some_classes,
        )
        values = {"precision": choice.precision, "memory_format": choice.memory_format}
        self.config = keep_measured(self.run, self.config, "train", values, choice.reason, ranks=self.ranks)
        return choice

    def _compilation(self, choice: Choice, tracker: Tracker) -> float:
        """Measure whether compiling pays, write it down as `_precision` does, and tell the seconds that it took."""
        train = self.config.train
        compilation = choose_compilation(
            self.network,
            self.loss,
            self._batch_shape,
            choice=choice,
            ranks=self.ranks,
            call=lambda network: network,
            given=train.compile,
            seconds=partial(run_seconds, train),
            device=self.fabric.device,
            target=self._some_classes,
        )
        if compilation.seconds:
            tracker.line(f"torch.compile {compilation.value}: {compilation.reason}")
        values = {"compile": compilation.value}
        self.config = keep_measured(self.run, self.config, "train", values, compilation.reason, ranks=self.ranks)
        return compilation.seconds

    def _rate(self, choice: Choice, tracker: Tracker) -> float:
        """Find the peak learning rate where the config says so, write it down, and tell the seconds that it took."""
        if self.config.train.learning_rate != "find":
            return 0.0
        peak = find_rate(
            self.network,
            self.loss,
            self._batches(self.config.augment)(0),
            self.config.train,
            usual=PEAK_RATE[self.config.train.optimiser],
            choice=choice,
            ranks=self.ranks,
            call=lambda network: network,
            target="target",
            device=self.fabric.device,
        )
        tracker.line(f"learning rate {peak.rate:g}: {peak.reason}")
        rate = {"learning_rate": peak.rate}
        self.config = keep_measured(self.run, self.config, "train", rate, peak.reason, ranks=self.ranks)
        return peak.seconds

    @property
    def _batch_shape(self) -> tuple[int, ...]:
        """Of a training batch, (B, C, *spatial)."""
        return (self.config.train.batch_size, self.config.image.channels, *self.config.image.size)

    @property
    def _some_classes(self) -> torch.Tensor:
        """Classes (B,) to measure with."""
        return torch.arange(self.config.train.batch_size) % len(self.images.dataset.classes)
