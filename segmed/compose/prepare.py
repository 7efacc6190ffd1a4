"""Before the networks of a composed run train: views, checks, the run folder, and the experiment of each network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from segmed.builders.segmenters import label_set, stages_of
from segmed.compose.composition import Composition
from segmed.config import DataConfig, InferenceConfig, SegmentationConfig, SplitConfig, StageConfig, View, known
from segmed.data.audit import CaseFacts
from segmed.errors import ConfigError, DatasetError
from segmed.machine import this_machine
from segmed.runs import Run, begin_run, check_new_run
from segmed.segment.grid_plan import THICK, GridPlanner
from segmed.segment.prepare import Prepared, cache_of, parts_text, prepare
from segmed.targets import targets_of
from segmed.training.encoder_transfer import check_start
from segmed.training.services import check_services


def start(config: SegmentationConfig, folder: Path | None) -> Run:
    """Make the folder of a composed run; its views are decided here, each network's plan when it begins.

    Raises:
        DatasetError: as for one network, or names of labels that are not there.
    """
    check_new_run(folder, runs=config.runs)
    check_services(config.train.trackers)
    ready = prepare(config, memory=cache_of(config))
    whole = composed(ready)
    print(whole)
    record = {"reasons": whole.reasons, "notes": list(whole.notes)}
    return begin_run(
        folder,
        whole.config,
        whole.reasons,
        text=str(whole),
        records={"plan.json": record, **ready.records},
        device=this_machine().name,
        cases=len(ready.dataset.cases),
    )


def composed(ready: Prepared) -> Composition:
    """What an experiment of several networks consists of, with its views decided.

    Raises:
        DatasetError: the stages name labels that are not there.
        RunError: a network can't begin with the run that is named.
        ConfigError: a network has members beside what asks for a single one.
    """
    views, reason = useful_views(ready.facts, _plane_of_slices(ready.config, ready.facts))
    config, reasons = ready.config, {}
    for name, stage in stages_of(config):
        if stage.views == "auto":
            networks = {view: network for view, network in stage.networks.items() if view in views}
            config = _with_stage(config, name, stage.model_copy(update={"views": views, "networks": networks}))
            reasons[f"cascade.{name}.views" if name else "ensemble.views"] = reason
    _check_labels(config)
    for name, stage in stages_of(config):
        first, *_ = known(stage.views)
        for view in known(stage.views):
            network = member_config(config, stage, view, data=config.data, split=Path())
            network = network.model_copy(update={"name": f"network {name}/{view}" if name else f"network {view}"})
            check_start(network)
            try:
                (network if view == first else later_config(network, stage, Path(first))).check_members()
            except ValueError as error:
                raise ConfigError(f"{network.name}: {error}") from None
        (stage.augment or config.augment).answers(stage.train or config.train, chosen=False)  # or refuse, before hours
        targets_of(label_set(config.model_copy(update={"data": _merged(config.data, stage)})))
    return Composition(config, reasons, parts_text(ready.dataset, ready.split), ready.notes)


def _plane_of_slices(config: SegmentationConfig, facts: Sequence[CaseFacts]) -> str:
    """The plane in which a 2D network would see the cases."""
    flat = config.model_copy(update={"patches": config.patches.model_copy(update={"dims": 2})})
    planner = GridPlanner(flat, facts)
    planner.preprocessing()
    return planner.config.patches.plane


def useful_views(facts: Sequence[CaseFacts], in_plane: str) -> tuple[tuple[View, ...], str]:
    """The planes whose slices are worth a network each, and why.

    Args:
        facts: fingerprint of the cases.
        in_plane: what the planner took as the plane of the slices: axial, coronal, sagittal or slices.
    """
    spacings = np.array([fact.spacing_mm for fact in facts], float)
    thick = spacings.max(axis=1) / spacings.min(axis=1) > THICK
    if thick.mean() > 0.5:
        gap = float(np.median(spacings.max(axis=1)))
        return (cast(View, in_plane),), f"slices {gap:.3g} mm apart show nothing across them: the in-plane slices alone"
    spacing = " × ".join(f"{value:.3g}" for value in np.median(spacings, axis=0))
    return ("axial", "coronal", "sagittal"), f"spacing {spacing} mm: every plane shows shapes"


def _with_stage(config: SegmentationConfig, name: str, stage: StageConfig) -> SegmentationConfig:
    if config.cascade is None:
        return config.model_copy(update={"ensemble": stage})
    return config.model_copy(update={"cascade": config.cascade.model_copy(update={name: stage})})


def _check_labels(config: SegmentationConfig) -> None:
    """Every name of the stages is one of the data's labels, or of the stage's own."""
    names = known(config.data.labels)
    wanted = [
        member
        for _, stage in stages_of(config)
        if stage.labels != "auto"
        for m in stage.labels.values()
        for member in m
    ]
    if config.cascade is not None:
        wanted += [*known(config.cascade.fine.labels), *([config.cascade.rest] if config.cascade.rest else [])]
    for name in wanted:
        if name not in names:
            raise DatasetError(f"the stages name a label '{name}' that data.labels lacks: it has {', '.join(names)}")


def member_config(
    config: SegmentationConfig, stage: StageConfig, view: View, *, data: DataConfig, split: Path
) -> SegmentationConfig:
    """The experiment of one network of a stage; its small pieces go in validation as they go in the stage.

    Args:
        config: of the whole.
        stage: whose network it is; its sections come before those of the whole.
        view: that the network sees.
        data: its cases.
        split: file of its parts.
    """
    sections = {
        name: getattr(stage, name) or getattr(config, name) for name in ("preprocess", "augment", "loss", "train")
    }
    merged = _merged(data, stage)
    inference = _inference(config.inference, stage, merged)
    patches = stage.patches or config.patches
    shape: dict[str, Any] = {"dims": 3} if view == "volume" else {"dims": 2, "plane": view}
    if len(patches.size) != shape["dims"]:
        shape["size"] = "auto"  # the size that is given is that of the other views
    return config.model_copy(
        update={
            **sections,
            "name": f"{config.name}-{view}",
            "data": merged,
            "inference": inference,
            "leaks": config.leaks.model_copy(update={"check": False}),  # the whole was looked at
            "split": SplitConfig(file=split, by=config.split.by),
            "patches": patches.model_copy(update=shape),
            "network": stage.networks.get(view, stage.network or config.network),
            "ensemble": None,
            "cascade": None,
        }
    )


def later_config(config: SegmentationConfig, stage: StageConfig, first: Path) -> SegmentationConfig:
    """The experiment of a view after the first, which begins with the first one's weights where the stage says so.

    Args:
        config: as of `member_config`.
        stage: whose network it is.
        first: folder of the first view's run.
    """
    if stage.later is None:
        return config
    return config.model_copy(update={"train": stage.later, "init_network": first})


def _inference(whole: InferenceConfig, stage: StageConfig, data: DataConfig) -> InferenceConfig:
    """How a network of a stage predicts: pieces that the whole names are cleaned once, from its result."""
    small = dict.fromkeys(known(data.labels), stage.smallest_ml) if stage.smallest_ml else {}
    largest = "auto" if whole.largest_component else ()  # none is wanted anywhere where none is asked for
    return whole.model_copy(update={"smallest_ml": small, "largest_component": largest})


def _merged(data: DataConfig, stage: StageConfig) -> DataConfig:
    """The data with the labels of a stage: merges of the data's own, all others being background."""
    if stage.labels == "auto":
        return data if stage.targets is None else data.model_copy(update={"targets": stage.targets})
    given = {name: _values(value) for name, value in known(data.labels).items()}
    labels = {name: [value for member in members for value in given[member]] for name, members in stage.labels.items()}
    used = {value for values in labels.values() for value in values}
    others = tuple(value for values in given.values() for value in values if value not in used)
    pairs = tuple(pair for pair in data.mirror_pairs if all(name in labels for name in pair))
    return data.model_copy(
        update={
            "labels": labels,
            "background": (*data.background, *others),
            "regions": {name: list(members) for name, members in stage.regions.items()},
            "targets": stage.targets or "labels",
            "mirror_pairs": pairs,
        }
    )


def _values(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
