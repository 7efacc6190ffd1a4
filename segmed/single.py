"""One network's run: prepared, trained, tested."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from segmed.build import build_dataset
from segmed.config import ExperimentConfig
from segmed.data.audit import Audit, audit_dataset
from segmed.data.cases import Dataset, DatasetError
from segmed.data.splits import Split, make_split
from segmed.files import write_json
from segmed.machine import this_machine
from segmed.plan import Plan, resolve
from segmed.reports.evaluation import Row
from segmed.reports.html import write_report
from segmed.reports.tables import table_text
from segmed.runs import Run, environment, new_run, read_config, write_config
from segmed.session import Session
from segmed.testing import final_figures, run_test
from segmed.training.checkpoint import Checkpoints
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
    """
    machine = this_machine()
    config = with_absolute_paths(config)
    dataset = build_dataset(config, progress=True)
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
    strata = {fact.id: "+".join(name for name, ml in fact.label_voxels.items() if ml) for fact in audit.facts}
    split = make_split(dataset.cases, config.split, strata=strata, unlabelled=dataset.unlabelled)
    _check_adversary(config, split)
    data = config.data.model_copy(
        update={
            "images": dataset.modalities,
            "labels": {n: list(v) for n, v in zip(dataset.labels.names, dataset.labels.values, strict=True)},
        }
    )
    seen = [fact for fact in audit.facts if fact.id not in set(split.test)]
    config = config.model_copy(update={"data": data})
    plan = resolve(config, seen, channels=len(dataset.modalities), machine=machine, processes=processes)
    return dataset, audit, split, plan


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
    return config.model_copy(update={"data": data, "runs": config.runs.absolute(), "cache": cache})


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
        rows, summary = run_test(made, config, session.dataset, session.split, device=str(fabric.device))
        tracker.line(table_text(summary))
        tracker.hyper_parameters(config.model_dump(mode="json"), {**state.best_metrics, **final_figures(summary)})
        page = write_report(made.path)
        tracker.line(f"run:     {made.path}")
        tracker.line(f"look:    tensorboard --logdir {made.path.parent}    or open {page}")
        tracker.line(f"predict: python tools/predict.py --run {made.path} --input FILE_OR_FOLDER --output FOLDER")
    return rows
