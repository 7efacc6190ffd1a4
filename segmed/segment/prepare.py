"""Before training: data, checks, parts, plan, and the run folder that holds them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from segmed.builders.architectures import build_network
from segmed.builders.datasets import build_dataset
from segmed.builders.first_weights import first_weights
from segmed.config import CaseClassConfig, SegmentationConfig, known
from segmed.data.audit import Audit, CaseFacts
from segmed.data.cases import Dataset
from segmed.data.class_column import class_names, classes_of
from segmed.data.split_file import PARTS
from segmed.data.splits import Split, make_split
from segmed.machine import this_machine
from segmed.runs import Run, begin_run, check_new_run
from segmed.segment.plan import resolve
from segmed.segment.refusals import (
    absent_label_notes,
    check_adversary,
    check_cleaned,
    check_second_head,
    checked_audit,
    missing_notes,
    split_notes,
    start_notes,
)
from segmed.segment.resolved import Plan
from segmed.targets import targets_of
from segmed.training.encoder_transfer import source_encoder
from segmed.training.optimisation import freeze
from segmed.training.services import check_services


@dataclass(frozen=True)
class Prepared:
    """The data, checks and parts of a run, before it is planned.

    Attributes:
        config: with absolute paths, modalities, labels and classes; the plan resolves what else is `auto`.
        reasons: of the classes, where they were `auto`.
        dataset: the cases.
        audit: their facts.
        split: their parts.
        notes: what every table of the run must say.
    """

    config: SegmentationConfig
    reasons: Mapping[str, str]
    dataset: Dataset
    audit: Audit
    split: Split
    notes: tuple[str, ...]

    @property
    def facts(self) -> list[CaseFacts]:
        """Of the cases that a plan may look at: all but the test part."""
        tested = set(self.split.test)
        return [fact for fact in self.audit.facts if fact.id not in tested]

    @property
    def records(self) -> dict[str, object]:
        """What the run folder keeps of it, by file."""
        return {"split.json": asdict(self.split), "audit.json": self.audit.to_dict()}


def start(config: SegmentationConfig, folder: Path | None, *, processes: int = 1) -> Run:
    """Make the run folder: everything that training needs is decided and written here, before it begins."""
    check_new_run(folder, runs=config.runs)
    check_services(config.train.trackers)
    ready = prepare(config, memory=cache_of(config))
    plan = planned(ready, processes=processes)
    print(plan)
    record = {
        "reasons": plan.reasons,
        "memory_bytes": plan.memory_bytes,
        "network": str(plan.summary),
        "notes": list(ready.notes),
    }
    return begin_run(
        folder,
        plan.config,
        plan.reasons,
        text=str(plan),
        records={"plan.json": record, **ready.records},
        device=plan.machine.name,
        cases=len(ready.dataset.cases),
    )


def cache_of(config: SegmentationConfig) -> Path:
    """The folder in which runs share what need not be done twice."""
    return (config.cache or config.runs / "cache").absolute()


def prepare(config: SegmentationConfig, *, memory: Path | None = None) -> Prepared:
    """Read and check the data, draw the parts.

    Args:
        config: of the experiment.
        memory: folder of the cache, where the audit is kept; none: only if that folder is there, as a plan that is
            only looked at makes none.

    Raises:
        DatasetError: the data hold errors, of which the first is named; or volumes on two sides of the split show the
            same, and `leaks.allow_leakage` is not set.
        RunError: the run that the encoder comes from can't be used.
    """
    config = with_absolute_paths(config)
    check_second_head(config)
    if config.init_run is not None:
        source_encoder(config.init_run)  # before a minute goes by over the data
    dataset = build_dataset(config, progress=True)
    check_cleaned(config, dataset)
    targets = targets_of(dataset.labels)
    if memory is None and cache_of(config).is_dir():
        memory = cache_of(config)
    audit = checked_audit(dataset, memory)
    head = config.classification
    classes = {} if head is None else classes_of(dataset.cases, head.column)
    strata = {fact.id: _stratum(fact, classes.get(fact.id)) for fact in audit.facts}
    split = make_split(dataset.cases, config.split, strata=strata, unlabelled=dataset.unlabelled)
    notes = (
        *start_notes(config, split),
        *split_notes(config, dataset, audit, split, memory),
        *missing_notes(config, dataset),
        *absent_label_notes(dataset, audit, split),
        *targets.notes,
    )
    check_adversary(config, split)
    labels = {n: list(v) for n, v in zip(dataset.labels.names, dataset.labels.values, strict=True)}
    resolved = {
        "images": dataset.modalities,
        "labels": labels,
        "ignore": dataset.labels.ignore,
        "regions": {name: list(members) for name, members in dataset.labels.regions.items()},
        "targets": dataset.labels.targets or "labels",
        "spacing_known": config.data.spacing_known and not dataset.are_pictures,
    }
    config = config.model_copy(update={"data": config.data.model_copy(update=resolved)})
    reasons: dict[str, str] = {}
    if head is not None:
        config, reasons = _with_classes(config, head, classes, split)
    return Prepared(config, reasons, dataset, audit, split, notes)


def planned(ready: Prepared, *, processes: int = 1) -> Plan:
    """The plan of one network's run.

    Args:
        ready: its data.
        processes: that train together.

    Raises:
        ConfigError: the experiment does not fit.
        RunError: the encoder of another run does not fit.
    """
    channels = len(ready.dataset.modalities)
    train = set(ready.split.train)
    training = sum(fact.id in train for fact in ready.facts)
    plan = resolve(
        ready.config,
        ready.facts,
        channels=channels,
        machine=this_machine(),
        processes=processes,
        training=training,
    )
    reasons = {**ready.reasons, **plan.reasons, **_first_weights(plan.config, ready.dataset)}
    return replace(plan, reasons=reasons, parts=parts_text(ready.dataset, ready.split), notes=ready.notes)


def parts_text(dataset: Dataset, split: Split) -> str:
    """How many cases, and of how many subjects, train, select and test."""
    subject = {case.id: case.subject for case in dataset.cases}
    parts = {part: getattr(split, part) for part in (*PARTS, "unlabelled")}
    counts = ", ".join(f"{part} {len(ids)}" for part, ids in parts.items() if ids or part != "unlabelled")
    people = ", ".join(f"{len({subject[name] for name in ids})}" for part, ids in parts.items() if ids)
    return f"{len(dataset.cases)} cases: {counts}" + (f" (of {people} subjects)" if dataset.subjects_known else "")


def _stratum(fact: CaseFacts, of_class: str | None) -> str:
    """The stratum of a case, shared evenly among the parts: the labels that it holds, and its class if it has one."""
    present = "+".join(name for name, ml in fact.label_voxels.items() if ml)
    return present if of_class is None else f"{present}, {of_class}"


def _with_classes(
    config: SegmentationConfig, head: CaseClassConfig, classes: Mapping[str, str], split: Split
) -> tuple[SegmentationConfig, dict[str, str]]:
    """The config with the names of the classes, and why they are these.

    Raises:
        DatasetError: fewer than two classes to learn, or one that training never sees.
    """
    wanted = None if head.classes == "auto" else head.classes
    names = class_names(classes, {part: getattr(split, part) for part in PARTS}, wanted)
    config = config.model_copy(update={"classification": head.model_copy(update={"classes": names})})
    why = f"what the column {head.column} says of the training part"
    return config, {"classification.classes": why} if wanted is None else {}


def _first_weights(config: SegmentationConfig, dataset: Dataset) -> dict[str, str]:
    """See that the weights of another run fit, before any folder is made; how many, for the run folder.

    Raises:
        RunError: it does not.
    """
    if config.init_run is None or config.composed:  # the networks of a composed run are planned one by one
        return {}
    network = build_network(
        config.network,
        in_channels=len(dataset.modalities),
        out_channels=targets_of(dataset.labels).channels,
        dims=known(config.patches.dims),
        class_head=config.classification,
        device="meta",
    )
    moved = first_weights(network, config)
    freeze(network, config.train.frozen_levels)  # more levels than there are: said before any folder is made
    part = "encoder" if config.init_network is None else "network"
    every = len(moved.taken) + len(moved.left)
    return {f"init_{part}": f"{len(moved.taken)} of {every} weights of the {part} come from there"}


def with_absolute_paths(config: SegmentationConfig) -> SegmentationConfig:
    """The config with absolute paths: the run can be resumed from any folder."""
    data = config.data.model_copy(update={"root": config.data.root.absolute()})
    cache = cache_of(config)
    sources = {name: path.absolute() for name in ("init_encoder", "init_network") if (path := getattr(config, name))}
    paths = {"runs": config.runs.absolute(), "cache": cache, **sources}
    return config.model_copy(update={"data": data, **paths})
