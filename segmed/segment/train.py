"""One network's training: the objects that its run's resolved config names, and the loop over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from lightning_fabric import Fabric

from segmed.builders.architectures import build_discriminator, build_network
from segmed.builders.datasets import build_dataset
from segmed.builders.first_weights import first_weights
from segmed.builders.losses import build_case_class_loss, build_loss
from segmed.builders.segmenters import network_segmenter, plane_axis
from segmed.config import AugmentConfig, known
from segmed.data.augment import Augmentation
from segmed.data.cache import CachedVolume, VolumeCache
from segmed.data.cache_entries import keep_below
from segmed.data.cases import Case, cases_of
from segmed.data.class_column import KnownClasses, with_targets
from segmed.data.content import check_content
from segmed.data.splits import Split
from segmed.data.training_patches import PatchDataset, patch_loader
from segmed.data.unlabelled import UnlabelledPatches, with_unlabelled
from segmed.machine import this_machine
from segmed.reports.drawing.patches import PatchGrid, patches_figure
from segmed.runs import Run, read_config
from segmed.segment.memory import check_parameters
from segmed.segment.one_piece import in_one_piece
from segmed.segment.peak_rate import usual_peak
from segmed.segment.settings_choice import Pieces
from segmed.segment.validate import ValidationCase, Validator, spread
from segmed.targets import targets_of
from segmed.training.adversarial_step import AdversarialStep
from segmed.training.checkpoint import Checkpoints, load_weights
from segmed.training.compilation import choose_compilation
from segmed.training.fit_settings import FitSettings, budget_of, run_seconds, total_steps
from segmed.training.fit_state import FitState
from segmed.training.loop import fit
from segmed.training.measured import keep_measured
from segmed.training.multitask_step import MultiTaskStep
from segmed.training.optimisation import freeze
from segmed.training.precision import Choice, choose_precision
from segmed.training.ranks import Ranks
from segmed.training.rate_search import find_rate
from segmed.training.steps import AllLogits, Step, SupervisedStep
from segmed.training.tracking import Tracker
from segmed.training.transfer_record import leak_note, record_transfer

MOST_REFERENCES = 50  # cases whose label maps are asked for what is one piece


class Training:
    """One network's training: the objects that a run's resolved config names, and the loop over them.

    Args:
        run: its folder.
        fabric, ranks: device and processes.
    """

    def __init__(self, run: Run, fabric: Fabric, ranks: Ranks) -> None:
        self.run, self.fabric, self.ranks = run, fabric, ranks
        self.config, self.split = read_config(run), Split.load(run.split)
        self.dataset = build_dataset(self.config)
        self.targets = targets_of(self.dataset.labels)
        check_parameters(self.config, len(self.dataset.modalities), self.targets.channels, this_machine())
        torch.manual_seed(self.config.seed)
        self.network = build_network(
            self.config.network,
            in_channels=len(self.dataset.modalities),
            out_channels=self.targets.channels,
            dims=known(self.config.patches.dims),
            class_head=self.config.classification,
        )
        freeze(self.network, self.config.train.frozen_levels)
        self.loss = build_loss(self.config.loss, self.network, labels=self.dataset.labels)

    def fit(self, tracker: Tracker, *, resume: bool) -> FitState:
        """Load given weights, fill the cache, choose the precision, train, and choose which labels are cleaned."""
        tracker.line(f"run: {self.run.path}")
        if not resume:
            self._take_weights(tracker)
        self.ranks.lead(self._limit_cache)
        volumes = self._volumes(self.split.train)
        choice = self._precision()
        spent = self._compilation(choice, tracker) + self._rate(choice, volumes, tracker)
        method = self._method(choice)
        tracker.text("config", self.run.config.read_text(encoding="utf-8"))
        validator, train = self._validator(tracker), self.config.train
        command = f"segmed train --resume {self.run.whole}"
        network, labels = self.config.network.name, ",".join(self.dataset.labels.names)
        first, *broader = self._streams(volumes, self._unlabelled(tracker))
        state = fit(
            method,
            first,
            budget_of(train, lambda: validator.rehearse(method.evaluation_network) if validator else 0.0, spent=spent),
            settings=FitSettings.of(train, seed=self.config.seed, resume=resume, resume_command=command),
            checkpoints=Checkpoints(self.run.path, ranks=self.ranks, metadata={"network": network, "labels": labels}),
            tracker=tracker,
            validate=validator,
            draw=partial(patches_figure, grid=self._patch_grid(volumes[0])),
            broader=broader,
        )
        self._clean_what_gains(validator)
        return state

    def _patch_grid(self, volume: CachedVolume) -> PatchGrid:
        """How the axes of training patches lie, for pictures."""
        flat = volume.image.shape[3] == 1 and volume.spacing_mm == (1.0, 1.0, 1.0)
        return PatchGrid(volume.spacing_mm, plane_axis(self.config), pictures=flat, names=self.dataset.labels.names)

    def _take_weights(self, tracker: Tracker) -> None:
        """Begin with the weights of another run, where the config names one."""
        source = self.config.init_run
        if source is None:
            return
        moved = first_weights(self.network, self.config)
        note = leak_note(source, self.config.data.root, self.split.test)
        self.ranks.lead(lambda: record_transfer(moved, source=source, folder=self.run.path, tracker=tracker, note=note))

    @cached_property
    def known_classes(self) -> KnownClasses | None:
        """Classes of the cases, where the network has a second head."""
        head = self.config.classification
        return None if head is None else KnownClasses.of(self.dataset.cases, head.column, known(head.classes))

    def _method(self, choice: Choice) -> Step:
        """Supervised, with a second head, or against the adversary of the config."""
        config = self.config
        place: dict[str, Any] = {"fabric": self.fabric, "choice": choice}
        if config.classification is not None and self.known_classes is not None:
            counts = self.known_classes.counts(self.split.train)
            class_loss, weight = build_case_class_loss(config.classification, counts), config.classification.weight
            return MultiTaskStep(self.network, self.loss, class_loss, config.train, weight=weight, **place)
        if config.adversary is None:
            return SupervisedStep(self.network, self.loss, config.train, **place)
        discriminator = build_discriminator(
            config.adversary.discriminator,
            image_channels=len(self.dataset.modalities),
            classes=self.targets.channels,
            dims=known(config.patches.dims),
        )
        return AdversarialStep(
            self.network,
            self.loss,
            discriminator,
            train=config.train,
            adversary=config.adversary,
            targets=self.targets,
            **place,
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

    def _streams(
        self, volumes: Sequence[CachedVolume], unlabelled: Sequence[CachedVolume]
    ) -> list[Callable[[int], Iterable[dict[str, Any]]]]:
        """The training batches as the config augments them, then those with which overfitting is answered."""
        augment = self.config.augment
        return [self._batches(volumes, unlabelled, each) for each in (augment, *augment.broader())]

    def _batches(
        self, volumes: Sequence[CachedVolume], unlabelled: Sequence[CachedVolume], augment: AugmentConfig
    ) -> Callable[[int], Iterable[dict[str, Any]]]:
        """First step -> the training batches from there on; with unlabelled cases each holds as many of them."""
        labelled = self._loader(PatchDataset, volumes, augment)
        if self.known_classes is not None:
            with_classes = partial(with_targets, indices=self.known_classes.indices)
            return lambda start: map(with_classes, labelled(start))
        if not unlabelled:
            return labelled
        others = self._loader(UnlabelledPatches, unlabelled, augment)
        return lambda start: map(with_unlabelled, labelled(start), others(start))

    def _loader(
        self, kind: type[PatchDataset], volumes: Sequence[CachedVolume], augment: AugmentConfig
    ) -> Callable[[int], Iterable[dict[str, Any]]]:
        config = self.config
        augmentation = Augmentation(
            augment,
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
            total_steps=total_steps(config.train),
            workers=known(config.train.workers),
            rank=self.ranks.rank,
            world=self.ranks.world,
            pin_memory=self.fabric.device.type == "cuda",
        )

    def _validator(self, tracker: Tracker) -> Validator | None:
        """Scores whole validation volumes; none where the split has no such part."""
        if not self.split.validation:
            tracker.line("no validation cases: the last weights are kept as the best")
            return None
        cases = cases_of(self.dataset, self.split.validation)
        together = [
            ValidationCase(volume, case.label, case.field_of_view)
            for volume, case in zip(self._volumes(self.split.validation), cases, strict=True)
            if case.label is not None
        ]
        return Validator(
            spread(together, self.config.train.validation_cases),
            partial(network_segmenter, config=self.config, device=self.fabric.device),
            self.dataset.labels,
            config=self.config.evaluate,
            ranks=self.ranks,
            spacing_known=self.config.data.spacing_known,
            classes=self.known_classes,
            loss=self.loss.loss,
            pieces=Pieces.named_in(self.config.inference),
        )

    def _clean_what_gains(self, validator: Validator | None) -> None:
        """Choose by the references and by validation, with the best weights, of what only the largest piece is kept."""
        if self.config.inference.largest_component != "auto":
            return
        names: tuple[str, ...] = ()
        reason = "nothing was validated"
        if validator is not None:
            load_weights(self.run.weights("best"), self.network)
            references = spread(self._volumes((*self.split.train, *self.split.validation)), MOST_REFERENCES)
            whole = in_one_piece((each.label for each in references if each.label is not None), self.dataset.labels)
            names = validator.worth_cleaning(self.network, whole)
            reason = "validation: one piece in the references and no loss, or a gain beyond chance"
            if not names:
                reason = "validation: no label is one piece in the references without loss, or gains beyond chance"
        self._keep("inference", {"largest_component": names}, reason)

    def _volumes(self, ids: Sequence[str]) -> list[CachedVolume]:
        """Preprocessed volumes of cases; the leading process prepares what is not in the cache."""
        config, cache, cases = self.config, self._cache, self._cases(ids)
        self.ranks.lead(lambda: check_content(self.run.content, cache.contents(cases, self.dataset)))
        workers = this_machine().cores
        return self.ranks.lead(
            lambda: cache.build(cases, self.dataset, config.preprocess, workers=workers, progress=True)
        )

    def _cases(self, ids: Sequence[str]) -> list[Case]:
        """Cases as this run learns from them: some without their labels."""
        hidden = set(self.split.unlabelled)
        return [replace(case, label=None) if case.id in hidden else case for case in cases_of(self.dataset, ids)]

    @cached_property
    def _cache(self) -> VolumeCache:
        return VolumeCache(self.config.cache or self.config.runs / "cache")

    def _limit_cache(self) -> None:
        """Make the cache as small as the config says, without what this run will use."""
        split, limit_gb = self.split, self.config.cache_limit_gb
        if limit_gb is not None:
            cases = self._cases([*split.train, *split.validation, *split.unlabelled])
            self._cache.hold(cases, self.dataset, self.config.preprocess)
            keep_below(self._cache.folder, limit_gb)

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
        )
        self._keep("train", {"precision": choice.precision, "memory_format": choice.memory_format}, choice.reason)
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
            call=AllLogits,
            given=train.compile,
            seconds=partial(run_seconds, train),
            device=self.fabric.device,
        )
        if compilation.seconds:
            tracker.line(f"torch.compile {compilation.value}: {compilation.reason}")
        self._keep("train", {"compile": compilation.value}, compilation.reason)
        return compilation.seconds

    def _rate(self, choice: Choice, volumes: Sequence[CachedVolume], tracker: Tracker) -> float:
        """Find the peak learning rate where the config says so, write it down, and tell the seconds that it took."""
        if self.config.train.learning_rate != "find":
            return 0.0
        peak = find_rate(
            self.network,
            self.loss,
            self._loader(PatchDataset, volumes, self.config.augment)(0),
            self.config.train,
            usual=usual_peak(self.config)[0],
            choice=choice,
            ranks=self.ranks,
            call=AllLogits,
            device=self.fabric.device,
        )
        tracker.line(f"learning rate {peak.rate:g}: {peak.reason}")
        self._keep("train", {"learning_rate": peak.rate}, peak.reason)
        return peak.seconds

    @property
    def _batch_shape(self) -> tuple[int, ...]:
        """Of a training batch, (B, C, *spatial)."""
        return (known(self.config.train.batch_size), len(self.dataset.modalities), *known(self.config.patches.size))

    def _keep(self, section: str, values: Mapping[str, Any], reason: str) -> None:
        """Write measured values in place of `auto`, here and into the run folder."""
        self.config = keep_measured(self.run, self.config, section, values, reason, ranks=self.ranks)
