"""One run's training: the objects that its resolved config names, and the loop over them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from lightning_fabric import Fabric

from segmed.builders.architectures import build_discriminator, build_network
from segmed.builders.losses import build_case_class_loss, build_loss
from segmed.builders.segmenters import network_segmenter, plane_axis
from segmed.config import SegmentationConfig, known
from segmed.data.augment import Augmentation
from segmed.data.cache import CachedVolume, VolumeCache
from segmed.data.case_classes import class_indices, classes_of, with_targets
from segmed.data.cases import Dataset, cases_of
from segmed.data.content import check_content
from segmed.data.patches import PatchDataset, patch_loader
from segmed.data.splits import Split
from segmed.data.unlabelled import UnlabelledPatches, with_unlabelled
from segmed.files import write_json
from segmed.machine import this_machine
from segmed.runs import Run, write_config
from segmed.segment.validate import ValidationCase, Validator, spread
from segmed.segmenters.case_class import CaseClassifier
from segmed.training.adversarial_step import AdversarialStep
from segmed.training.checkpoint import Checkpoints, load_weights
from segmed.training.encoder_transfer import leak_note, record_transfer, take_encoder
from segmed.training.loop import FitSettings, FitState, Validate, fit
from segmed.training.multitask_step import ClassValidator, MultiTaskStep
from segmed.training.precision import Choice, choose_precision
from segmed.training.schedule import Budget, StepBudget, TimeBudget
from segmed.training.steps import Step, SupervisedStep
from segmed.training.tracking import Tracker


class Session:
    """One run's objects, built from its resolved config."""

    def __init__(
        self,
        made: Run,
        config: SegmentationConfig,
        dataset: Dataset,
        split: Split,
        *,
        fabric: Fabric,
        checkpoints: Checkpoints,
    ) -> None:
        self.run, self.config, self.dataset, self.split = made, config, dataset, split
        self.fabric, self.checkpoints, self.ranks = fabric, checkpoints, checkpoints.ranks
        torch.manual_seed(config.seed)
        self.network = build_network(
            config.network,
            in_channels=len(dataset.modalities),
            out_channels=dataset.labels.classes,
            dims=known(config.patches.dims),
            class_head=config.classification,
        )
        self.loss = build_loss(config.loss, self.network)

    def train(self, tracker: Tracker, *, resume: bool) -> FitState:
        """Take an encoder over, cache, choose the precision, fit, and keep what validation taught for inference."""
        if not resume:
            self._take_encoder(tracker)
        volumes = self._volumes(self.split.train)
        choice = self._precision()
        train = self.config.train
        tracker.text("config", self.run.config.read_text(encoding="utf-8"))
        method = self._method(choice)
        validator = self._validator(tracker)
        steps = None if train.budget_minutes else train.epochs * known(train.steps_per_epoch)
        settings = FitSettings(
            validations=train.validations,
            patience=train.patience,
            checkpoint_minutes=train.checkpoint_minutes,
            seed=self.config.seed,
            resume=resume,
            resume_command=f"segmed train --resume {self.run.path}",
        )
        state = fit(
            method,
            self._batches(volumes, self._unlabelled(tracker), steps),
            self._budget(steps, method, validator),
            settings=settings,
            checkpoints=self.checkpoints,
            tracker=tracker,
            validate=self._with_classes(validator),
        )
        if self.config.inference.largest_component == "auto":
            self._clean_what_gains(validator)
        return state

    def _take_encoder(self, tracker: Tracker) -> None:
        """Begin with the encoder of another run, where the config names one."""
        source = self.config.init_encoder
        if source is None:
            return
        moved = take_encoder(self.network, source)
        note = leak_note(source, self.config.data.root, self.split.test)
        self.ranks.lead(lambda: record_transfer(moved, source=source, folder=self.run.path, tracker=tracker, note=note))

    @cached_property
    def case_classes(self) -> dict[str, int]:
        """Case id -> index of its class, where it is known; empty without a second head."""
        head = self.config.classification
        return {} if head is None else class_indices(classes_of(self.dataset.cases, head.column), known(head.classes))

    def _method(self, choice: Choice) -> Step:
        """Supervised, with a second head, or against the adversary of the config."""
        config = self.config
        if config.classification is not None:
            trained = Counter(self.case_classes[case] for case in self.split.train if case in self.case_classes)
            counts = [trained[index] for index in range(len(known(config.classification.classes)))]
            return MultiTaskStep(
                self.network,
                self.loss,
                build_case_class_loss(config.classification, counts),
                config.train,
                weight=config.classification.weight,
                fabric=self.fabric,
                choice=choice,
            )
        if config.adversary is None:
            return SupervisedStep(self.network, self.loss, config.train, fabric=self.fabric, choice=choice)
        discriminator = build_discriminator(
            config.adversary.discriminator,
            image_channels=len(self.dataset.modalities),
            classes=self.dataset.labels.classes,
            dims=known(config.patches.dims),
        )
        return AdversarialStep(
            self.network,
            self.loss,
            discriminator,
            train=config.train,
            adversary=config.adversary,
            fabric=self.fabric,
            choice=choice,
        )

    def _unlabelled(self, tracker: Tracker) -> list[CachedVolume]:
        """Volumes that train without their labels; none without an adversary, from which alone they can learn."""
        ids = self.split.unlabelled
        if ids and self.config.adversary is None:
            tracker.line(f"{len(ids)} unlabelled cases teach nothing without an adversary section: they are left out")
        if not ids or self.config.adversary is None:
            return []
        tracker.line(f"{len(ids)} unlabelled cases train beside {len(self.split.train)} labelled ones")
        return self._volumes(ids)

    def _batches(
        self, volumes: Sequence[CachedVolume], unlabelled: Sequence[CachedVolume], steps: int | None
    ) -> Callable[[int], Iterable[dict[str, Any]]]:
        """First step -> the training batches from there on; with unlabelled cases each holds as many of them."""
        labelled = self._loader(PatchDataset, volumes, steps)
        if self.config.classification is not None:
            return lambda start: map(partial(with_targets, indices=self.case_classes), labelled(start))
        if not unlabelled:
            return labelled
        others = self._loader(UnlabelledPatches, unlabelled, steps)
        return lambda start: map(with_unlabelled, labelled(start), others(start))

    def _loader(
        self, kind: type[PatchDataset], volumes: Sequence[CachedVolume], steps: int | None
    ) -> Callable[[int], Iterable[dict[str, Any]]]:
        config = self.config
        augmentation = Augmentation(
            config.augment,
            dims=known(config.patches.dims),
            labels=self.dataset.labels,
            mirror_pairs=config.data.mirror_pairs,
        )
        patches = kind(
            volumes,
            patches=config.patches,
            plane_axis=plane_axis(config),
            augmentation=augmentation,
            seed=config.seed,
        )
        return lambda start: patch_loader(
            patches,
            batch_size=known(config.train.batch_size) * config.train.accumulate,
            start_step=start,
            total_steps=steps,
            workers=known(config.train.workers),
            rank=self.ranks.rank,
            world=self.ranks.world,
            pin_memory=self.fabric.device.type == "cuda",
        )

    def _budget(self, steps: int | None, method: Step, validator: Validator | None) -> Budget:
        """In steps, or in minutes of which the time of the last validation is kept free."""
        minutes = self.config.train.budget_minutes
        if minutes is None:
            return StepBudget(steps or 1)
        return TimeBudget(
            minutes, validation_seconds=validator.rehearse(method.evaluation_network) if validator else 0.0
        )

    def _validator(self, tracker: Tracker) -> Validator | None:
        """Scores whole validation volumes; none where the split has no such part."""
        if not self.split.validation:
            tracker.line("no validation cases: the last weights are kept as the best")
            return None
        cases = cases_of(self.dataset, self.split.validation)
        volumes = self._volumes(self.split.validation)
        together = [
            ValidationCase(volume, case.label)
            for volume, case in zip(volumes, cases, strict=True)
            if case.label is not None
        ]
        return Validator(
            spread(together, self.config.train.validation_cases),
            partial(network_segmenter, config=self.config, device=self.fabric.device),
            self.dataset.labels,
            config=self.config.evaluate,
            ranks=self.ranks,
            spacing_known=self.config.data.spacing_known,
        )

    def _with_classes(self, validator: Validator | None) -> Validate | None:
        """The validator, which looks at the second head too where there is one."""
        head, truth = self.config.classification, self.case_classes
        cases = [name for name in self.split.validation if name in truth]
        if validator is None or head is None or not cases:
            return validator
        segmenter = partial(network_segmenter, config=self.config, device=self.fabric.device)
        return ClassValidator(
            validator,
            self._volumes(cases),
            truth=truth,
            classes=known(head.classes),
            classify=lambda network: CaseClassifier(segmenter(network)).prepared,
            ranks=self.ranks,
        )

    def _clean_what_gains(self, validator: Validator | None) -> None:
        """Keep the largest piece of the labels for which validation, with the best weights, says so."""
        names: tuple[str, ...] = ()
        reason = "nothing was validated"
        if validator is not None:
            load_weights(self.run.weights("best"), self.network)
            names = validator.gains_from_cleaning(self.network)
            reason = "validation: the largest piece alone scores better" if names else "validation: no label gains"
        self._resolve("inference", {"largest_component": names}, reason)

    def _volumes(self, ids: Sequence[str]) -> list[CachedVolume]:
        """Preprocessed volumes of cases; the leading process prepares what is not in the cache."""
        config = self.config
        cache = VolumeCache(config.cache or config.runs / "cache")
        cases = cases_of(self.dataset, ids)
        hidden = set(self.split.unlabelled)
        cases = [replace(case, label=None) if case.id in hidden else case for case in cases]
        self.ranks.lead(lambda: check_content(self.run.content, cache.contents(cases, self.dataset)))
        workers = this_machine().cores
        self.ranks.lead(
            lambda: cache.build(cases, self.dataset, config.preprocess, workers=workers, progress=True) and None
        )
        return [cache.get(case, self.dataset, config.preprocess) for case in cases]

    def _precision(self) -> Choice:
        """Measure what is `auto`, and write the choice into the run's config with its figures."""
        train = self.config.train
        shape = (known(self.config.train.batch_size), len(self.dataset.modalities), *known(self.config.patches.size))
        choice = choose_precision(
            self.network,
            self.loss,
            shape,
            ranks=self.ranks,
            device=self.fabric.device,
            fixed=(train.precision, train.memory_format),
        )
        self._resolve("train", {"precision": choice.precision, "memory_format": choice.memory_format}, choice.reason)
        return choice

    def _resolve(self, section: str, values: Mapping[str, Any], reason: str) -> None:
        """Put measured values where the config says `auto`, here and in the run folder."""
        part = getattr(self.config, section)
        values = {field: value for field, value in values.items() if getattr(part, field) == "auto"}
        if not values:
            return
        self.config = self.config.model_copy(update={section: part.model_copy(update=values)})
        if self.ranks.leads:
            plan = json.loads(self.run.plan.read_text(encoding="utf-8"))
            plan["reasons"].update({f"{section}.{field}": reason for field in values})
            write_json(self.run.plan, plan)
            write_config(self.run, self.config, plan["reasons"])
        self.ranks.lead(lambda: None)
