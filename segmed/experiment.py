"""One experiment: from a config to a run folder with weights, test figures and label maps."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from monai.data import MetaTensor

from segmed.build import build_dataset, build_loss, build_network, label_set, load_run, plane_axis
from segmed.config import ExperimentConfig, known
from segmed.data.audit import Audit, audit_dataset
from segmed.data.augment import Augmentation
from segmed.data.cache import VolumeCache
from segmed.data.cases import Case, Dataset, DatasetError
from segmed.data.patches import PatchDataset, patch_loader
from segmed.data.preprocess import read_case
from segmed.data.splits import Split, make_split
from segmed.files import write_json
from segmed.machine import this_machine
from segmed.plan import Plan, resolve
from segmed.reports.evaluation import evaluate_case, summarise_cases, table_text, write_evaluation
from segmed.reports.html import write_report
from segmed.runs import Run, environment, new_run, open_run, read_config, write_config
from segmed.segmenters.base import Segmenter
from segmed.training.checkpoint import Checkpoints
from segmed.training.loop import FitSettings, FitState, fit
from segmed.training.precision import choose_precision
from segmed.training.ranks import Ranks
from segmed.training.schedule import StepBudget, TimeBudget
from segmed.training.steps import SupervisedStep
from segmed.training.tracking import Tracker
from segmed.training.validation import Validator
from segmed.volumes import strip_suffix, write_volume


def run(config: ExperimentConfig, folder: Path | None) -> int:
    """Plan, train and test one experiment in a new run folder."""
    fabric, ranks = _launch(config)
    made = Run(ranks.lead(lambda: start(config, folder).path))
    _train_and_test(made, fabric, ranks, resume=False)
    return 0


def resume(folder: Path) -> int:
    """Go on with a run that was stopped; the result is that of a run never stopped."""
    made = open_run(folder)
    fabric, ranks = _launch(read_config(made))
    _train_and_test(made, fabric, ranks, resume=True)
    return 0


def show_plan(config: ExperimentConfig) -> int:
    """Print the plan of an experiment with its reasons."""
    *_, plan = prepare(config)
    print(plan)
    return 0


def cross_validate(config: ExperimentConfig, folder: Path | None) -> int:
    """Train and test every fold, and sum up over all cases: each was tested once, by a model that never saw it."""
    fabric, ranks = _launch(config)
    if ranks.world > 1:
        raise DatasetError("folds run one after the other on one process: start each with --fold under torchrun")
    parent = new_run(folder, runs=config.runs, name=f"{config.name}-folds")
    rows: list[dict[str, Any]] = []
    for fold in range(config.split.folds):
        print(f"fold {fold + 1} of {config.split.folds}")
        split = config.split.model_copy(update={"fold": fold})
        part = start(config.model_copy(update={"split": split}), parent.path / f"fold_{fold}")
        rows += _train_and_test(part, fabric, ranks, resume=False)
    summary = write_evaluation(
        rows, parent.test, title=f"{config.name}, {config.split.folds} folds", config=config.evaluate
    )
    print(table_text(summary))
    print(f"folds: {parent.path}")
    return 0


# ---------------------------------------------------------------- before training


def start(config: ExperimentConfig, folder: Path | None) -> Run:
    """Make the run folder: everything that training needs is decided and written here, before it begins."""
    dataset, audit, split, plan = prepare(config)
    print(plan)
    made = new_run(folder, runs=config.runs, name=config.name)
    write_config(made, plan.config, plan.reasons)
    write_json(made.plan, {"reasons": plan.reasons, "memory_bytes": plan.memory_bytes, "network": str(plan.summary)})
    split.save(made.split)
    write_json(made.environment, {**environment(), "device": plan.machine.name, "cases": len(dataset.cases)})
    audit.save_json(made.path / "audit.json")
    return made


def prepare(config: ExperimentConfig) -> tuple[Dataset, Audit, Split, Plan]:
    """Read and check the data, draw the parts, plan.

    Raises:
        DatasetError: the data hold errors; the first is named.
        PlanError: the experiment does not fit.
    """
    machine = this_machine()
    dataset = build_dataset(config, progress=True)
    audit = audit_dataset(dataset, workers=machine.cores, progress=True)
    if audit.errors:
        first = audit.errors[0]
        raise DatasetError(
            f"{dataset.root} has {len(audit.errors)} errors, first: case {first.case}: {first.what}; {first.fix} "
            f"(all of them: python tools/audit_data.py {dataset.root})"
        )
    unlabelled = [case.id for case in dataset.cases if case.label is None]
    if unlabelled:
        raise DatasetError(
            f"{len(unlabelled)} cases have no label map, first {unlabelled[0]}: leave them out of the layout"
        )
    strata = {fact.id: "+".join(name for name, ml in fact.label_voxels.items() if ml) for fact in audit.facts}
    split = make_split(dataset.cases, config.split, strata=strata)
    data = config.data.model_copy(
        update={
            "images": dataset.modalities,
            "labels": {n: list(v) for n, v in zip(dataset.labels.names, dataset.labels.values, strict=True)},
        }
    )
    seen = [fact for fact in audit.facts if fact.id not in set(split.test)]
    config = config.model_copy(update={"data": data})
    plan = resolve(config, seen, channels=len(dataset.modalities), machine=machine)
    return dataset, audit, split, plan


def _launch(config: ExperimentConfig) -> tuple[Fabric, Ranks]:
    """Processes and device; under torchrun they are there already."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.set_float32_matmul_precision("high")  # TF32
    accelerator = "cuda" if cuda else "cpu"
    if dist.is_torchelastic_launched():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // local
        fabric = Fabric(accelerator=accelerator, strategy="ddp", devices=local, num_nodes=nodes)
    else:
        devices = config.train.devices
        if devices == "auto":
            devices = torch.cuda.device_count() if cuda else 1
        fabric = Fabric(accelerator=accelerator, strategy="ddp" if devices > 1 else "auto", devices=devices)
    fabric.launch()
    return fabric, Ranks()


# ---------------------------------------------------------------- training and test


def _train_and_test(made: Run, fabric: Fabric, ranks: Ranks, *, resume: bool) -> list[Row]:
    """Train from what the run folder says, then test once; the rows of the test."""
    config, split = read_config(made), Split.load(made.split)
    dataset = build_dataset(config)
    checkpoints = Checkpoints(
        made.path, ranks=ranks, metadata={"network": config.network.name, "labels": ",".join(dataset.labels.names)}
    )
    step = checkpoints.last_step() if resume else 0
    with RunTracker(made.path, step=step) if ranks.leads else Tracker() as tracker:
        tracker.line(f"run: {made.path}")
        session = _Session(made, config, dataset, split, fabric=fabric, checkpoints=checkpoints)
        state = session.train(tracker, resume=step > 0)
        if not ranks.leads:
            return []
        rows, summary = test(made, session.config, dataset, split, device=str(fabric.device))
        tracker.line(table_text(summary))
        tracker.hyper_parameters(session.config.model_dump(mode="json"), {**state.best_metrics, **_final(summary)})
        page = write_report(made.path)
        tracker.line(f"run:     {made.path}")
        tracker.line(f"look:    tensorboard --logdir {made.path.parent}    or open {page}")
        tracker.line(f"predict: python tools/predict.py --run {made.path} --input FILE_OR_FOLDER --output FOLDER")
    return rows


class _Session:
    """One run's objects, built from its resolved config."""

    def __init__(
        self,
        made: Run,
        config: ExperimentConfig,
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
        )
        self.loss = build_loss(config.loss, self.network, class_weights=config.train.class_weights)

    def train(self, tracker: Tracker, *, resume: bool) -> FitState:
        """Cache, choose the precision, fit, and keep what validation taught for inference."""
        volumes = self._volumes(self.split.train, tracker)
        choice = self._precision()
        config, train = self.config, self.config.train
        tracker.text("config", self.run.config.read_text(encoding="utf-8"))
        patches = PatchDataset(
            volumes,
            patches=config.patches,
            plane_axis=plane_axis(config),
            augmentation=Augmentation(
                config.augment,
                dims=known(config.patches.dims),
                labels=self.dataset.labels,
                mirror_pairs=config.data.mirror_pairs,
            ),
            seed=config.seed,
        )
        steps = None if train.budget_minutes else train.epochs * known(train.steps_per_epoch)
        budget = TimeBudget(train.budget_minutes) if train.budget_minutes else StepBudget(int(steps or 1))
        batches = partial(
            patch_loader,
            patches,
            batch_size=known(config.patches.batch_size) * train.accumulate,
            total_steps=steps,
            workers=known(train.workers),
            rank=self.ranks.rank,
            world=self.ranks.world,
            pin_memory=self.fabric.device.type == "cuda",
        )
        validator = self._validator()
        state = fit(
            SupervisedStep(self.network, self.loss, train, fabric=self.fabric, choice=choice),
            lambda start: batches(start_step=start),
            budget,
            settings=FitSettings(
                validations=train.validations,
                patience=train.patience,
                checkpoint_minutes=train.checkpoint_minutes,
                seed=config.seed,
                resume=resume,
                resume_command=f"python tools/train_seg.py --resume {self.run.path}",
            ),
            checkpoints=self.checkpoints,
            tracker=tracker,
            validate=validator,
        )
        if config.inference.largest_component == "auto":
            self._keep_largest(validator)
        return state

    def _volumes(self, ids: Sequence[str], tracker: Tracker) -> list[CachedVolume]:
        """Preprocessed volumes of cases; the leading process prepares what is not in the cache."""
        config = self.config
        cache = VolumeCache(config.cache or config.runs / "cache")
        cases = _cases(self.dataset, ids)
        workers = this_machine().cores
        self.ranks.lead(
            lambda: cache.build(cases, self.dataset, config.preprocess, workers=workers, progress=True) and None
        )
        return [cache.get(case, self.dataset, config.preprocess) for case in cases]

    def _precision(self) -> Choice:
        """Measure what is `auto`, and write the choice into the run's config with its figures."""
        train = self.config.train
        shape = (known(self.config.patches.batch_size), len(self.dataset.modalities), *known(self.config.patches.size))
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


def test(
    made: Run, config: ExperimentConfig, dataset: Dataset, split: Split, *, device: str
) -> tuple[list[Row], dict[str, Any]]:
    """Segment the test part with the best weights, write label maps and figures; used once, at the end."""
    segmenter = load_run(made.path, device=device)
    rows: list[Row] = []
    cases = {case.id: case for case in _cases(dataset, split.test)}
    for case in cases.values():
        image, reference = read_case(case, dataset)
        if reference is None:
            raise DatasetError(f"test case {case.id} has no label map: leave it out of the layout")
        found = segmenter(image)
        _write_prediction(made, case, found, dataset)
        rows += evaluate_case(
            found.numpy()[0],
            reference.numpy()[0],
            dataset.labels,
            case=case.id,
            spacing_mm=spacing_mm(image.affine),
            config=config.evaluate,
            spacing_known=config.data.spacing_known,
        )
    summary = write_evaluation(
        rows,
        made.test,
        title=f"{config.name}: {len(cases)} test cases",
        config=config.evaluate,
        subjects={case.id: case.subject for case in cases.values()},
        load=lambda name: _shown(made, cases[name], dataset),
    )
    return rows, summary


def _write_prediction(made: Run, case: Case, found: MetaTensor, dataset: Dataset) -> None:
    """The label map on the image's grid, with its header and the data set's values."""
    like = next(iter(case.images.values())).path
    values = torch.from_numpy(dataset.labels.decode(found.numpy()))
    write_volume(_prediction(made, case), MetaTensor(values, affine=found.affine), like=like)


def _prediction(made: Run, case: Case) -> Path:
    like = next(iter(case.images.values())).path
    suffix = like.name[len(strip_suffix(like)) :] if like.is_file() else ".nii.gz"
    return made.predictions / f"{case.id}{suffix}"


def _shown(made: Run, case: Case, dataset: Dataset) -> CaseVolumes:
    """A test case for the montage, in canonical axes."""
    image, reference = read_case(case, dataset)
    values = read_label_volume(_prediction(made, case))
    found = dataset.labels.encode(values.numpy(), where=str(_prediction(made, case)))
    maps = [image[:1], reference, MetaTensor(torch.from_numpy(found), affine=image.affine)]
    shown = [None if m is None else to_canonical(m) for m in maps]
    arrays = [None if m is None else m.numpy()[0] for m in shown]
    return CaseVolumes(*arrays, spacing_mm=spacing_mm(shown[0].affine))


def _cases(dataset: Dataset, ids: Sequence[str]) -> list[Case]:
    """Cases by id, in the order of ids.

    Raises:
        DatasetError: one is not there any more.
    """
    known = {case.id: case for case in dataset.cases}
    missing = [name for name in ids if name not in known]
    if missing:
        raise DatasetError(f"case {missing[0]} of the split is not in {dataset.root} any more ({len(missing)} missing)")
    return [known[name] for name in ids]


def _final(summary: Mapping[str, Any]) -> dict[str, float]:
    """Test figures by name, for TensorBoard's table of runs."""
    shown = ("dice", "hd95_mm", "avd_ml")
    return {
        f"test/{metric}/{label}": metrics[metric]["mean"]
        for label, metrics in summary["labels"].items()
        for metric in shown
        if metrics.get(metric, {}).get("mean") is not None
    }
