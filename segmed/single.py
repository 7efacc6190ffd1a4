"""One network's run: prepared, trained, tested."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from segmed.build import build_dataset, build_network
from segmed.config import CaseClassConfig, ExperimentConfig, UNetConfig, known
from segmed.data.audit import Audit, CaseFacts, audit_dataset
from segmed.data.case_classes import class_names, classes_of
from segmed.data.cases import Dataset, DatasetError
from segmed.data.splits import PARTS, Split, make_split
from segmed.files import write_json
from segmed.machine import Machine, this_machine
from segmed.memory import PlanError, check_parameters
from segmed.plan import Plan, resolve
from segmed.reports.classification_text import classification_text
from segmed.reports.evaluation import Row
from segmed.reports.html import write_report
from segmed.reports.tables import table_text
from segmed.runs import Run, environment, new_run, read_config, write_config
from segmed.session import Session
from segmed.testing import final_figures, run_test
from segmed.training.checkpoint import Checkpoints
from segmed.training.inherited import leak_note, source_encoder, take_encoder
from segmed.training.loop import FitState
from segmed.training.ranks import Ranks
from segmed.training.tracking import RunTracker, Tracker

# ---------------------------------------------------------------- before training


def start(config: ExperimentConfig, folder: Path | None, *, processes: int = 1) -> Run:
    """Make the run folder: everything that training needs is decided and written here, before it begins."""
    dataset, audit, split, plan = prepare(config, processes=processes)
    print(plan)
    made = new_run(folder, runs=config.runs, name=config.title)
    write_json(made.plan, {"reasons": plan.reasons, "memory_bytes": plan.memory_bytes, "network": str(plan.summary)})
    split.save(made.split)
    write_json(made.environment, {**environment(), "device": plan.machine.name, "cases": len(dataset.cases)})
    audit.save_json(made.path / "audit.json")
    write_config(made, plan.config, plan.reasons)  # last: with it the folder is a run
    return made


def prepare(config: ExperimentConfig, *, processes: int = 1) -> tuple[Dataset, Audit, Split, Plan]:
    """Read and check the data, draw the parts, plan.

    Raises:
        DatasetError: the data hold errors; the first is named.
        PlanError: the experiment does not fit.
        RunError, SourceError: the run that the encoder comes from can't be used.
    """
    machine = this_machine()
    config = with_absolute_paths(config)
    _check_second_head(config)
    if config.init_encoder is not None:
        source_encoder(config.init_encoder)  # before a minute goes by over the data
    dataset = build_dataset(config, progress=True)
    audit = _checked(dataset, machine)
    head = config.classification
    classes = {} if head is None else classes_of(dataset.cases, head.column)
    strata = {fact.id: _stratum(fact, classes.get(fact.id)) for fact in audit.facts}
    split = make_split(dataset.cases, config.split, strata=strata, unlabelled=dataset.unlabelled)
    _check_adversary(config, split)
    reasons: dict[str, str] = {}
    if head is not None:
        config, reasons = _with_classes(config, head, classes, split)
    data = config.data.model_copy(
        update={
            "images": dataset.modalities,
            "labels": {n: list(v) for n, v in zip(dataset.labels.names, dataset.labels.values, strict=True)},
        }
    )
    seen = [fact for fact in audit.facts if fact.id not in set(split.test)]
    config = config.model_copy(update={"data": data})
    plan = resolve(config, seen, channels=len(dataset.modalities), machine=machine, processes=processes)
    reasons |= {**plan.reasons, **_first_weights(plan.config, dataset, split)}
    return dataset, audit, split, replace(plan, reasons=reasons)


def _checked(dataset: Dataset, machine: Machine) -> Audit:
    """The audit of a data set that can be trained on.

    Raises:
        DatasetError: it can't; the first reason is named.
    """
    audit = audit_dataset(dataset, workers=machine.cores, progress=True)
    if audit.errors:
        first = audit.errors[0]
        raise DatasetError(
            f"{dataset.root} has {len(audit.errors)} errors, first: case {first.case}: {first.what}; {first.fix} "
            f"(all of them: python tools/audit_data.py {dataset.root})"
        )
    unlabelled = [case.id for case in dataset.cases if case.label is None and case.id not in dataset.unlabelled]
    if unlabelled:
        raise DatasetError(
            f"{len(unlabelled)} cases have no label map, first {unlabelled[0]}: leave them out of the layout, or list "
            "them in data.unlabelled"
        )
    return audit


def _check_second_head(config: ExperimentConfig) -> None:
    """Refuse what a second head can't stand beside.

    Raises:
        PlanError: several networks, an adversary, or a network without an encoder of ours.
    """
    if config.classification is None:
        return
    if config.composed or config.adversary is not None:
        other = "ensemble and cascade" if config.composed else "adversary"
        raise PlanError(f"classification trains one network without an opponent: leave {other} out, or classification")
    if not isinstance(config.network, UNetConfig):
        raise PlanError(
            f"classification needs an encoder of ours, {config.network.name} has none: choose --network.name unet"
        )


def _stratum(fact: CaseFacts, of_class: str | None) -> str:
    """What the parts share evenly: the labels that a case holds, and its class where it has one."""
    present = "+".join(name for name, ml in fact.label_voxels.items() if ml)
    return present if of_class is None else f"{present}, {of_class}"


def _with_classes(
    config: ExperimentConfig, head: CaseClassConfig, found: Mapping[str, str], split: Split
) -> tuple[ExperimentConfig, dict[str, str]]:
    """The config with the names of the classes, and why they are these.

    Raises:
        DatasetError: fewer than two classes to learn, or one that training never sees.
    """
    wanted = None if head.classes == "auto" else head.classes
    names = class_names(found, {part: getattr(split, part) for part in PARTS}, wanted)
    config = config.model_copy(update={"classification": head.model_copy(update={"classes": names})})
    why = f"what the column {head.column} says of the training part"
    return config, {"classification.classes": why} if wanted is None else {}


def _first_weights(config: ExperimentConfig, dataset: Dataset, split: Split) -> dict[str, str]:
    """See that the encoder of another run fits, before anything is made; what is to be known of it.

    Raises:
        SourceError: it does not.
    """
    if config.init_encoder is None or config.composed:  # the networks of a composed run are planned one by one
        return {}
    network = build_network(
        config.network,
        in_channels=len(dataset.modalities),
        out_channels=dataset.labels.classes,
        dims=known(config.patches.dims),
        device="meta",
    )
    moved = take_encoder(network, config.init_encoder, section="network")
    note = leak_note(config.init_encoder, config.data.root, split.test)
    fits = f"{len(moved.taken)} of {len(moved.taken) + len(moved.left)} weights of the encoder come from there"
    return {"init_encoder": f"{fits}; NOTE: {note}" if note else fits}


def _check_adversary(config: ExperimentConfig, split: Split) -> None:
    """Refuse unlabelled cases that the adversary can't judge.

    Raises:
        DatasetError: there are some, and the adversary compares with a reference or gives no probability.
    """
    adversary = config.adversary
    if adversary is not None and split.unlabelled and not adversary.gives_confidence:
        raise DatasetError(
            f"{len(split.unlabelled)} unlabelled cases can't join with adversary.loss {adversary.loss_name}, which "
            "gives no confidence: choose the discriminator pixel, patch or image, and another loss than wasserstein"
        )


def with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """The run's config works from whichever folder the run is gone on with."""
    data = config.data.model_copy(update={"root": config.data.root.absolute()})
    cache = (config.cache or config.runs / "cache").absolute()
    source = None if config.init_encoder is None else config.init_encoder.absolute()
    paths = {"runs": config.runs.absolute(), "cache": cache, "init_encoder": source}
    return config.model_copy(update={"data": data, **paths})


def launch(config: ExperimentConfig) -> tuple[Fabric, Ranks]:
    """Processes and device; under torchrun they are there already."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.set_float32_matmul_precision("high")  # TF32
        torch.backends.cudnn.deterministic = True
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


def train(made: Run, fabric: Fabric, ranks: Ranks, tracker: Tracker, *, step: int) -> tuple[Session, FitState]:
    """Train from what the run folder says, on from a step of its checkpoint.

    Args:
        made: a run folder.
        fabric, ranks: device and processes.
        tracker: of this process.
        step: of the checkpoint; 0: from the beginning.
    """
    config, split = read_config(made), Split.load(made.split)
    dataset = build_dataset(config)
    check_parameters(config, len(dataset.modalities), dataset.labels.classes, this_machine())
    metadata = {"network": config.network.name, "labels": ",".join(dataset.labels.names)}
    checkpoints = Checkpoints(made.path, ranks=ranks, metadata=metadata)
    tracker.line(f"run: {made.path}")
    session = Session(made, config, dataset, split, fabric=fabric, checkpoints=checkpoints)
    return session, session.train(tracker, resume=step > 0)


def tracking(made: Run, ranks: Ranks, *, resume: bool) -> tuple[Tracker, int]:
    """What one looks at, and the step to go on from."""
    step = Checkpoints(made.path, ranks=ranks).last_step() if resume else 0
    return RunTracker(made.path, step=step) if ranks.leads else Tracker(), step


def train_and_test(made: Run, fabric: Fabric, ranks: Ranks, *, resume: bool) -> list[Row]:
    """Train from what the run folder says, then test once; the rows of the test."""
    tracker, step = tracking(made, ranks, resume=resume)
    with tracker:
        session, state = train(made, fabric, ranks, tracker, step=step)
        if not ranks.leads:
            return []
        config = session.config
        rows, figures = tested(made, config, session.dataset, session.split, tracker, device=str(fabric.device))
        tracker.hyper_parameters(config.model_dump(mode="json"), {**state.best_metrics, **figures})
        page = write_report(made.path)
        tracker.line(f"run:     {made.path}")
        tracker.line(f"look:    tensorboard --logdir {made.path.parent}    or open {page}")
        tracker.line(f"predict: python tools/predict.py --run {made.path} --input FILE_OR_FOLDER --output FOLDER")
    return rows


def tested(
    made: Run, config: ExperimentConfig, dataset: Dataset, split: Split, tracker: Tracker, *, device: str
) -> tuple[list[Row], dict[str, float]]:
    """The rows of the test and its figures by name; none of both where the split has no test part."""
    if not split.test:
        tracker.line("no test part: nothing is tested")
        return [], {}
    rows, summary = run_test(made, config, dataset, split, device=device)
    tracker.line(table_text(summary))
    if "classification" in summary:
        tracker.line(classification_text(summary["classification"]))
    return rows, final_figures(summary)
