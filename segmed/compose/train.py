"""Runs of several networks: the views of one stage, and cascades whose second stage learns from the first."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.data import MetaTensor

from segmed.builders.datasets import build_dataset
from segmed.builders.segmenters import load_stage, stages_of
from segmed.builders.trained import load_run
from segmed.config import (
    DataConfig,
    PatternLayout,
    SegmentationConfig,
    SplitConfig,
    StageConfig,
    UNetConfig,
    View,
    known,
)
from segmed.data.audit import CaseFacts
from segmed.data.cases import Case, Dataset, cases_of
from segmed.data.preprocess import read_case
from segmed.data.splits import Split, make_split
from segmed.errors import DatasetError
from segmed.evaluate.case_rows import Row
from segmed.files import write_json
from segmed.labels import IGNORE
from segmed.reports.segmentation.page import write_report
from segmed.runs import Run, environment, new_run, read_config, write_config
from segmed.segment.plan import THICK, resolve
from segmed.segment.prepare import prepare, start, tested, tracking, train
from segmed.segmenters.base import Segmenter
from segmed.segmenters.cascade import restrict
from segmed.training.ranks import Ranks
from segmed.volumes import write_volume

REGIONS = "regions.json"  # written last: the fine stage's data are complete


def start_composite(config: SegmentationConfig, folder: Path | None) -> Run:
    """Make the folder of a composed run; its views are decided here, the rest of each network's plan when it begins.

    Raises:
        DatasetError: as for one network, or names of labels that are not there.
    """
    dataset, audit, split, plan = prepare(config)
    seen = [fact for fact in audit.facts if fact.id not in set(split.test)]
    slices = config.patches.model_copy(update={"dims": 2, "size": "auto"})
    flat = config.model_copy(
        update={"patches": slices, "network": UNetConfig(), "adversary": None, "data": plan.config.data}
    )  # whose plane is all that is asked for: neither patch nor network are those that will be trained
    in_plane = resolve(flat, seen, channels=len(dataset.modalities), machine=plan.machine).config.patches.plane
    views, reason = useful_views(seen, in_plane)
    config = plan.config.model_copy(
        update={section: getattr(config, section) for section in ("preprocess", "patches", "network", "train")}
    )
    reasons: dict[str, str] = {}
    for name, stage in stages_of(config):
        if stage.views == "auto":
            networks = {view: network for view, network in stage.networks.items() if view in views}
            config = _with_stage(config, name, stage.model_copy(update={"views": views, "networks": networks}))
            reasons[f"cascade.{name}.views" if name else "ensemble.views"] = reason
    _check_labels(config)
    for name, stage in stages_of(config):
        print(f"{name or 'ensemble'}: {', '.join(known(stage.views))}" + (f" ({reason})" if reasons else ""))
    made = new_run(folder, runs=config.runs, name=config.title)
    split.save(made.split)
    write_json(made.plan, {"reasons": reasons})
    write_json(made.environment, {**environment(), "device": plan.machine.name, "cases": len(dataset.cases)})
    audit.save_json(made.path / "audit.json")
    write_config(made, config, reasons)
    return made


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


def train_composite(made: Run, fabric: Fabric, ranks: Ranks, *, resume: bool) -> list[Row]:
    """Train what is not trained yet, one network after the other, then test the whole once.

    Raises:
        DatasetError: several processes.
    """
    if ranks.world > 1:
        raise DatasetError("several networks train one after the other on one process: start without torchrun")
    config, split = read_config(made), Split.load(made.split)
    builder = _Builder(made, config, split, fabric, ranks)
    if config.cascade is None:
        builder.stage(made.path, known_stage(config.ensemble), config.data, made.split)
    else:
        builder.cascade()
    tracker, _ = tracking(made, ranks, resume=resume)
    with tracker:
        dataset = build_dataset(config)
        rows, _ = tested(made, config, dataset, split, tracker, device=str(fabric.device))
        page = write_report(made.path)
        tracker.line(f"run:     {made.path}")
        tracker.line(f"look:    tensorboard --logdir {made.path}    or open {page}")
        tracker.line(f"predict: segmed predict --run {made.path} --input FILE_OR_FOLDER --output FOLDER")
    return rows


def known_stage(stage: StageConfig | None) -> StageConfig:
    """A stage that is there.

    Raises:
        ValueError: it is not.
    """
    if stage is None:
        raise ValueError("the experiment is not composed of several networks")
    return stage


@dataclass(frozen=True)
class _Builder:
    """Trains the networks of a composed run."""

    made: Run
    config: SegmentationConfig
    split: Split
    fabric: Fabric
    ranks: Ranks

    def stage(self, folder: Path, stage: StageConfig, data: DataConfig, split: Path) -> Segmenter:
        """Train the networks of all views on one split; the stage as a segmenter."""
        for view in known(stage.views):
            self.member(folder / view, member_config(self.config, stage, view, data=data, split=split))
        return load_stage(folder, stage, partial(load_run, device=str(self.fabric.device)))

    def member(self, folder: Path, config: SegmentationConfig) -> None:
        """Train one network, or go on with it."""
        part = Run(folder)
        begun = part.config.is_file()
        if not begun:
            shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
            part = start(config, folder)
        tracker, step = tracking(part, self.ranks, resume=begun)
        with tracker:
            train(part, self.fabric, self.ranks, tracker, step=step)

    def cascade(self) -> None:
        """The coarse stage, the regions that it leaves for the fine one, the fine stage."""
        cascade = self.config.cascade
        if cascade is None:
            raise ValueError("the experiment has no cascade")
        coarse = self.stage(self.made.path / "coarse", cascade.coarse, self.config.data, self.made.split)
        data = self.made.path / "fine" / "data"
        if not (data / REGIONS).is_file():
            shutil.rmtree(data, ignore_errors=True)
            self._write_regions(data, coarse)
        names = {name: f"{{case}}/{{case}}_{name}.nii.gz" for name in known(self.config.data.images)}
        layout = PatternLayout(images=names, label="{case}/{case}_label.nii.gz")
        given = self.config.data.model_copy(update={"root": data, "layout": layout, "components": {}})
        self.stage(self.made.path / "fine", cascade.fine, given, data.parent / "split.json")

    def _write_regions(self, data: Path, coarse: Segmenter) -> None:
        """What the fine stage learns and validates on: volumes and label maps restricted to the regions."""
        dataset = build_dataset(self.config)
        finders = self._finders(dataset, coarse)
        kept: dict[str, list[str]] = {"train": [], "validation": []}
        for part, cases in ((part, cases_of(dataset, getattr(self.split, part))) for part in kept):
            for case in cases:
                if self._write_region(data, case, dataset, finders.get(case.id, coarse)):
                    kept[part].append(case.id)
        if not kept["train"]:
            raise DatasetError("the coarse stage found no region in any training case: train it longer")
        parts = Split(tuple(kept["train"]), tuple(kept["validation"]), (), self.split.seed, self.split.by)
        parts.save(data.parent / "split.json")
        write_json(data / REGIONS, kept)

    def _finders(self, dataset: Dataset, coarse: Segmenter) -> Mapping[str, Segmenter]:
        """Training case -> a coarse stage that never saw it; validation cases are new to the one that is used."""
        cascade = self.config.cascade
        if cascade is None or cascade.learn_from == "reference":
            return {}
        finders: dict[str, Segmenter] = {}
        cases = cases_of(dataset, self.split.train)
        drawing = SplitConfig(folds=cascade.folds, validation=0.0, seed=self.split.seed)
        for fold in range(cascade.folds):
            drawn = make_split(cases, drawing.model_copy(update={"fold": fold}))
            folder = self.made.path / "coarse" / f"without_fold_{fold}"
            others = (*drawn.test, *self.split.test)
            parts = replace(drawn, validation=self.split.validation, test=others, unlabelled=self.split.unlabelled)
            parts.save(folder / "split.json")
            finder = self.stage(folder, cascade.coarse, self.config.data, folder / "split.json")
            finders |= dict.fromkeys(drawn.test, finder)
        return finders

    def _write_region(self, data: Path, case: Case, dataset: Dataset, finder: Segmenter) -> bool:
        """Write one case; whether there was a region to write."""
        cascade = self.config.cascade
        image, label = read_case(case, dataset)
        if cascade is None or label is None:
            return False
        indices = label.as_tensor()[0].numpy()
        if cascade.learn_from == "reference":
            merged = known(cascade.coarse.labels)
            members = [dataset.labels.index(name) for region in cascade.region for name in merged[region]]
            mask = np.isin(indices, members)
        else:
            found = finder(image).as_tensor()[0].numpy()
            mask = np.isin(found, [finder.labels.index(name) for name in cascade.region])
        if not mask.any():
            print(f"case {case.id}: the coarse stage found no region; the fine stage learns without it")
            return False
        seen, place, inside = restrict(image, mask, margin_mm=cascade.margin_mm, roi=cascade.roi)
        kept = np.where(inside, indices[place], 0)
        for channel, name in enumerate(dataset.modalities):
            write_volume(
                data / case.id / f"{case.id}_{name}.nii.gz",
                MetaTensor(seen.as_tensor()[channel : channel + 1], affine=seen.affine),
            )
        values = dataset.labels.decode(np.where(kept == IGNORE, 0, kept))
        write_volume(
            data / case.id / f"{case.id}_label.nii.gz", MetaTensor(torch.from_numpy(values)[None], affine=seen.affine)
        )
        return True


def member_config(
    config: SegmentationConfig, stage: StageConfig, view: View, *, data: DataConfig, split: Path
) -> SegmentationConfig:
    """The experiment of one network of a stage.

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
    patches = stage.patches or config.patches
    shape: dict[str, Any] = {"dims": 3} if view == "volume" else {"dims": 2, "plane": view}
    if len(patches.size) != shape["dims"]:
        shape["size"] = "auto"  # the size that is given is that of the other views
    return config.model_copy(
        update={
            **sections,
            "name": f"{config.name}-{view}",
            "data": _merged(data, stage),
            "split": SplitConfig(file=split, by=config.split.by),
            "patches": patches.model_copy(update=shape),
            "network": stage.networks.get(view, stage.network or config.network),
            "ensemble": None,
            "cascade": None,
        }
    )


def _merged(data: DataConfig, stage: StageConfig) -> DataConfig:
    """The data with the labels of a stage: merges of the data's own, all others being background."""
    if stage.labels == "auto":
        return data
    given = {name: _values(value) for name, value in known(data.labels).items()}
    labels = {name: [value for member in members for value in given[member]] for name, members in stage.labels.items()}
    used = {value for values in labels.values() for value in values}
    others = tuple(value for values in given.values() for value in values if value not in used)
    pairs = tuple(pair for pair in data.mirror_pairs if all(name in labels for name in pair))
    return data.model_copy(
        update={"labels": labels, "background": (*data.background, *others), "regions": {}, "mirror_pairs": pairs}
    )


def _values(value: int | Sequence[int]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
