"""Training of several networks: the views of a stage, and cascades whose second stage learns from the first."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.data import MetaTensor

from segmed.builders.datasets import build_dataset
from segmed.builders.segmenters import load_stage
from segmed.builders.trained import load_run
from segmed.compose.composition import Composition, Part
from segmed.compose.prepare import later_config, member_config
from segmed.config import CascadeConfig, DataConfig, PatternLayout, SegmentationConfig, SplitConfig, StageConfig, known
from segmed.data.cases import Case, Dataset, cases_of
from segmed.data.preprocess import read_case
from segmed.data.splits import Split, make_split
from segmed.errors import DatasetError, RunError
from segmed.files import bounds, write_json
from segmed.runs import Run, holding, read_config
from segmed.segment.prepare import start
from segmed.segment.train import Training
from segmed.segmenters.cascade import restrict
from segmed.segmenters.segmenter import Segmenter
from segmed.training.launch import open_tracker, require_one_process
from segmed.training.ranks import Ranks
from segmed.training.time_left import TimeLeft
from segmed.volumes import write_volume

REGIONS = "regions.json"  # written last: the fine stage's data are complete
TRAINED = "trained.json"  # written last: a network is trained, and what is cleaned of its label maps is chosen
FIND_REGIONS = "fine/regions"  # name of the part between two stages


def train_networks(run: Run, fabric: Fabric, ranks: Ranks) -> None:
    """Train the networks of a composed run that are not trained yet, one after the other.

    Raises:
        TrainingError: several processes.
    """
    require_one_process(ranks, "several networks train one after the other on one process: start without torchrun")
    config, split = read_config(run), Split.load(run.split)
    _train(run, config, split, fabric, ranks)


def train_part(run: Run, name: str, fabric: Fabric, ranks: Ranks) -> None:
    """Train one network of a composed run, or find the regions between its stages; what that needs is trained before.

    Args:
        run: the whole.
        name: place of the network in the run, as `coarse/without_fold_0/axial`, or `fine/regions`.
        fabric, ranks: device and processes.

    Raises:
        RunError: the run has no such part, or weights that it needs are not there.
    """
    require_one_process(ranks, "each of several networks trains on one process: start without torchrun")
    config, split = read_config(run), Split.load(run.split)
    try:
        with bounds(run.path):
            _train(run, config, split, fabric, ranks, only=name)
    except _PartReached:
        return
    raise RunError(f"run {run.path} has no part '{name}': segmed train --resume {run.path} --plan-only lists them")


def _train(
    run: Run, config: SegmentationConfig, split: Split, fabric: Fabric, ranks: Ranks, *, only: str | None = None
) -> None:
    """Train all parts, or that one alone."""
    if config.ensemble is not None:
        _Networks(run, config, split, fabric, ranks, only=only).stage(run.path, config.ensemble, config.data, run.split)
    if config.cascade is not None:
        _CascadeNetworks(run, config, split, fabric, ranks, config.cascade, only=only).train()


class _PartReached(Exception):
    """The one part that was asked for is done."""


@dataclass(frozen=True)
class _Networks:
    """Trains the networks of a composed run, and counts them."""

    run: Run
    config: SegmentationConfig
    split: Split
    fabric: Fabric
    ranks: Ranks
    numbers: Iterator[int] = field(default_factory=lambda: count(1), kw_only=True)
    only: str | None = field(default=None, kw_only=True)  # part that alone is trained

    def stage(self, folder: Path, stage: StageConfig, data: DataConfig, split: Path) -> Callable[[], Segmenter]:
        """Train the networks of all views on one split; what gives the stage as a segmenter."""
        first, *others = known(stage.views)
        self.member(folder / first, member_config(self.config, stage, first, data=data, split=split))
        for view in others:
            config = member_config(self.config, stage, view, data=data, split=split)
            self.member(folder / view, later_config(config, stage, folder / first))
        return cache(lambda: load_stage(folder, stage, partial(load_run, device=str(self.fabric.device))))

    def member(self, folder: Path, config: SegmentationConfig) -> None:
        """Train one network, or resume its training; one that is trained is left as it is."""
        place = Composition(self.config, {}, "", ()).part(next(self.numbers))
        name = folder.relative_to(self.run.path).as_posix()
        if self.only in (None, name) and not (folder / TRAINED).is_file():
            self._train_member(folder, config, place)
        self.reached(name)

    def reached(self, name: str) -> None:
        """Stop where the one part that was asked for is done."""
        if self.only == name:
            raise _PartReached

    def _train_member(self, folder: Path, config: SegmentationConfig, place: Part) -> None:
        part = Run(folder)
        begun = part.config.is_file()
        if not begun:
            shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
            part = start(config, folder)
        left = TimeLeft(f"network {place.number} of {place.of}", before=place.before, share=place.share)
        with holding(folder):
            services = config.train.trackers
            tracker, step = open_tracker(part, self.ranks, resume=begun, time_left=left, services=services)
            with tracker:
                state = Training(part, self.fabric, self.ranks).fit(tracker, resume=step > 0)
        write_json(folder / TRAINED, {"steps": state.step, "seconds": round(state.seconds, 3)})


@dataclass(frozen=True)
class _CascadeNetworks(_Networks):
    """Trains the networks of two stages; the second learns inside the regions that the first one finds."""

    cascade: CascadeConfig

    def train(self) -> None:
        """Train the coarse stage, write the regions that it finds, train the fine stage inside them."""
        coarse = self.stage(self.run.path / "coarse", self.cascade.coarse, self.config.data, self.run.split)
        data = self.run.path / "fine" / "data"
        dataset = build_dataset(self.config)
        finders = self._train_finders(dataset)
        if self.only in (None, FIND_REGIONS) and not (data / REGIONS).is_file():
            shutil.rmtree(data, ignore_errors=True)
            self._write_regions(data, dataset, coarse, finders)
        self.reached(FIND_REGIONS)
        names = {name: f"{{case}}/{{case}}_{name}.nii.gz" for name in known(self.config.data.images)}
        layout = PatternLayout(images=names, label="{case}/{case}_label.nii.gz", subject=".+")
        ignored = tuple(dict.fromkeys((*self.config.data.ignore, dataset.labels.ignored_value)))
        files = {"root": data, "layout": layout, "components": {}, "colours": "grey", "ignore": ignored}
        given = self.config.data.model_copy(update=files)
        self.stage(self.run.path / "fine", self.cascade.fine, given, data.parent / "split.json")

    def _write_regions(
        self,
        data: Path,
        dataset: Dataset,
        coarse: Callable[[], Segmenter],
        finders: Mapping[str, Callable[[], Segmenter]],
    ) -> None:
        """What the fine stage learns and validates on: volumes and label maps restricted to the regions."""
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

    def _train_finders(self, dataset: Dataset) -> Mapping[str, Callable[[], Segmenter]]:
        """Training case -> a coarse stage that never saw it; validation cases are new to the one that is used."""
        cascade = self.cascade
        if cascade.learn_from == "reference":
            return {}
        finders: dict[str, Callable[[], Segmenter]] = {}
        cases = cases_of(dataset, self.split.train)
        drawing = SplitConfig(folds=cascade.folds, validation=0.0, seed=self.split.seed)
        for fold in range(cascade.folds):
            drawn = make_split(cases, drawing.model_copy(update={"fold": fold}))
            folder = self.run.path / "coarse" / f"without_fold_{fold}"
            others = (*drawn.test, *self.split.test)
            parts = replace(drawn, validation=self.split.validation, test=others, unlabelled=self.split.unlabelled)
            parts.save(folder / "split.json")
            finder = self.stage(folder, cascade.coarse, self.config.data, folder / "split.json")
            finders |= dict.fromkeys(drawn.test, finder)
        return finders

    def _write_region(self, data: Path, case: Case, dataset: Dataset, finder: Callable[[], Segmenter]) -> bool:
        """Write one case, restricted to its region; False where there is no region."""
        cascade = self.cascade
        image, label = read_case(case, dataset)
        if label is None:
            return False
        indices = label.as_tensor()[0].numpy()
        if cascade.learn_from == "reference":
            merged = known(cascade.coarse.labels)
            coarse = [name for region in cascade.region for name in cascade.coarse.regions.get(region, (region,))]
            members = [dataset.labels.index(name) for label in coarse for name in merged[label]]
            mask = np.isin(indices, members)
        else:
            segmenter = finder()
            prediction = segmenter(image).as_tensor()[0].numpy()
            mask = np.isin(prediction, [index for name in cascade.region for index in segmenter.labels.members(name)])
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
        values = dataset.labels.decode(kept, ignored=dataset.labels.ignored_value)
        write_volume(
            data / case.id / f"{case.id}_label.nii.gz", MetaTensor(torch.from_numpy(values)[None], affine=seen.affine)
        )
        return True
