"""The fine stage of a cascaded run inside the reference's region, each case by the fold that tested it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.builders.segmenters import label_set
from segmed.compare.case_by_case import CaseByCaseRow, CaseLabelMap, Record, Segment
from segmed.compare.cleaning_choice import cleaning_of_stage, over_folds
from segmed.compare.fine_stage import FineStage, fine_stages
from segmed.compare.method_inputs import beside_wall, wall_labels
from segmed.compare.tested_runs import TestedRun
from segmed.data.case import Case
from segmed.data.splits import Split
from segmed.evaluate.results import Result
from segmed.geometry import as_affine, spacing_mm
from segmed.machine import this_machine
from segmed.segmenters.cleaning import small_pieces
from segmed.segmenters.region import Known
from segmed.segmenters.segmenter import Segmenter


@dataclass(frozen=True)
class ReferenceRegionRow(CaseByCaseRow):
    """A run's fine stage where the region is given, so that nothing but the tissue can go wrong.

    Attributes:
        tested: a cascade, or a cross-validation of one.
        seed: its number among the runs of the row.
    """

    tested: TestedRun
    seed: int

    @cached_property
    def _stages(self) -> tuple[FineStage, ...]:
        comparison = self.comparison
        return fine_stages(self.tested, labels=comparison.dataset.labels, within=comparison.config.within)

    @property
    def splits(self) -> tuple[Split, ...]:
        return tuple(stage.split for stage in self._stages)

    @property
    def folder(self) -> Path:
        return super().folder / f"run_{self.seed}"

    def settings(self, split: Split) -> dict[str, Any]:
        return {"fine_stage_of": str(self.tested.path.resolve()), "place": self.row.place, "small_pieces": "at the end"}

    def files(self, case: Case) -> tuple[Path, ...]:
        return next(stage.files for stage in self._stages if case.id in stage.split.test)

    def completed(self, result: Result, records: Sequence[Record]) -> Result:
        own = self.tested.result
        facts = {name: getattr(own, name) for name in ("training_minutes", "budget", "seed", "training")}
        source = f"row '{self.name}', {self.tested.path}"
        cleaning = over_folds([cleaning_of_stage(stage.part, "fine", stage.cascade.fine) for stage in self._stages])
        return replace(result, source=source, device=this_machine().name, cleaning=cleaning, **facts)

    def method(self, split: Split) -> Segment:
        stage = next(stage for stage in self._stages if stage.split == split)
        return partial(self._segment, stage, stage.load())

    def _segment(self, stage: FineStage, fine: Segmenter, image: MetaTensor, wall: np.ndarray | None) -> CaseLabelMap:
        """Label indices; the network gets the whole volume, as in its training."""
        if wall is None:
            raise ValueError("a fine stage looks in a region: give one")
        labels, within = self.comparison.dataset.labels, self.comparison.config.within
        numbers, coarse = stage.given(wall, wall_labels(self.comparison).names, within)
        region = MetaTensor(torch.from_numpy(numbers)[None], affine=image.affine)
        probabilities = stage.inside(Known(region, coarse), fine).probabilities(image).as_tensor().numpy(force=True)
        # in the wall that is given nothing but its labels can be; beyond it, the reference has ruled the tissue out
        own, names = label_set(stage.config), sorted(within, key=lambda name: name != self.comparison.config.rest)
        likeliest = probabilities[[own.index(name) for name in names]].argmax(axis=0)
        likeliest[wall != 1] = 0
        for number in range(1, len(names)):  # pieces that the stage drops, and that come back where it saw blood
            small = small_pieces(
                likeliest == number, spacing_mm(as_affine(image.affine)), stage.cascade.fine.smallest_ml
            )
            likeliest[small] = 0
        indices = np.array([labels.index(name) for name in names])[likeliest]
        return CaseLabelMap(np.where(wall == 1, indices, beside_wall(wall, self.comparison)))
