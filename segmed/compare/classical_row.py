"""A classical method in its region: the reference's, a run's, or everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.builders.classical import build_method
from segmed.compare.case_by_case import CaseByCaseRow, CaseLabelMap, Record, Segment
from segmed.compare.cleaning_choice import Cleaning, Judged, best_rule, over_folds
from segmed.compare.method_inputs import (
    TrainingScenes,
    label_indices,
    read_with_reference,
    wall_labels,
    whole_wall,
)
from segmed.data.case import Case
from segmed.data.splits import Split
from segmed.errors import SegmenterError
from segmed.evaluate.results import Result
from segmed.metrics.surfaces import bounding_box
from segmed.segmenters.cleaning import Cleaned
from segmed.segmenters.region import Everywhere, Inside, Known, SliceBySlice, TissueMethod
from segmed.volumes import spacing_mm

REFERENCE_WALLS = "reference walls"


@dataclass(frozen=True)
class ClassicalRow(CaseByCaseRow):
    """A classical method in its region; it learns from each fold's training cases alone.

    In a run's walls it learns in that run's walls too, where the run has tested the training cases in other folds: as
    in every test, by networks that did not see the case whose wall it is. (Some of them saw the fold's test cases.)
    """

    @property
    def _learns(self) -> bool:
        return self.row.method is not None and self.row.method.needs_training

    def settings(self, split: Split) -> dict[str, Any]:
        row = self.row.model_dump(mode="json", exclude={"command"}) | {"region": self.row.place}
        chosen = {"candidates": self._candidates, "cases": self._choosing(split)} if self._candidates else {}
        learned = {"train": split.train, "walls": sorted(self._walls(split.train))} if self._learns else {}
        return {"row": row, "cleaning": chosen} | learned

    def files(self, case: Case) -> tuple[Path, ...]:
        region = self.comparison.regions.get(self.name)
        return () if region is None else (region.label_maps[case.id],)

    def wall(self, image: MetaTensor, reference: MetaTensor, case: Case) -> np.ndarray | None:
        if self.row.place == "everywhere":
            return None
        path = self._walls([case.id]).get(case.id)
        if path is None:
            return super().wall(image, reference, case)
        return whole_wall(label_indices(path, self.comparison.dataset.labels, like=image), self.comparison)

    def completed(self, result: Result, records: Sequence[Record]) -> Result:
        remarks = result.remarks
        if self.name in self.comparison.regions:
            path = self.comparison.regions[self.name].path
            remarks = (*remarks, f"{self.name} looks in walls of {path}, whose seconds do not count")
        cleanings = {record["fold"]: record["cleaning"] for record in records if record["cleaning"]}
        result = replace(result, cleaning=over_folds(list(cleanings.values())) if cleanings else None)
        if not self._learns:
            return replace(result, remarks=remarks)
        learned_in = over_folds([self._learned_in(split) for split in self.splits])
        if self.name in self.comparison.regions and REFERENCE_WALLS in learned_in:
            remarks = (*remarks, f"{self.name} learned in {learned_in}: the run has tested none of its training cases")
        fits = {record["fold"]: record["fit_seconds"] for record in records}
        training = tuple(frozenset(self._learned_from(split)) for split in self.comparison.splits)
        minutes = math.fsum(fits.values()) / 60
        return replace(result, remarks=remarks, training_minutes=minutes, training=training, learned_in=learned_in)

    def method(self, split: Split) -> Segment:
        row = self.row
        if row.method is None:
            raise SegmenterError(f"row '{self.name}' has no method: give one")
        slices: SliceBySlice | None = None
        learned = self._learned_from(split)
        scenes = TrainingScenes(self.comparison, learned, self._walls(learned)) if self._learns else None
        try:
            method = build_method(row.method, scenes)
            if row.slices:
                method = slices = SliceBySlice(method)
            if row.smallest_ml or row.fill_obstruction:
                method = Cleaned(
                    method, smallest_ml=row.smallest_ml, fill_obstruction=row.fill_obstruction, cavity=row.cavity
                )
        except SegmenterError as error:
            raise SegmenterError(f"row '{self.name}': {error}") from error
        segment = partial(self._segment, method, slices)
        return partial(self._cleaned, segment, self._chosen(segment, split))

    # ---------------------------------------------------------------- walls of training cases

    def _walls(self, cases: Sequence[str]) -> dict[str, Path]:
        """Those of the run in whose walls the row looks, each by networks that did not see the case."""
        region = self.comparison.regions.get(self.name)
        return {} if region is None else {id: region.label_maps[id] for id in cases if id in region.label_maps}

    def _learned_from(self, split: Split) -> tuple[str, ...]:
        """Training cases; where the run has walls of some of them, these alone."""
        return tuple(self._walls(split.train)) or split.train

    def _learned_in(self, split: Split) -> str:
        count, every = len(self._walls(split.train)), len(split.train)
        if not count:
            return REFERENCE_WALLS
        fewer = f" of {count} of {every} training cases" if count < every else ""
        return f"out-of-fold walls{fewer} of {self.comparison.regions[self.name].path}"

    # ---------------------------------------------------------------- loose pieces

    @property
    def _candidates(self) -> tuple[str | float, ...]:
        """Rules for loose pieces that may be chosen; none where the row has its own."""
        if self.row.smallest_ml:
            return ()
        in_ml = self.comparison.config.data.spacing_known
        return tuple(rule for rule in self.comparison.config.cleaning.known if in_ml or rule == "largest")

    def _choosing(self, split: Split) -> tuple[str, ...]:
        """Cases that decide: of the validation part, or of the training part where there is none."""
        known = self.comparison.cases
        ids = [id for id in split.validation or split.train if id in known and known[id].label is not None]
        return tuple(ids[: self.comparison.config.cleaning.cases])

    def _chosen(self, segment: Segment, split: Split) -> Cleaning:
        """The rule for the test cases of a split; a case in which the method fails does not count."""
        if not self._candidates:
            return Cleaning(self.row.smallest_ml or None, "as configured")
        target = self.comparison.dataset.labels.index(self.comparison.config.target)
        ids = self._choosing(split)
        judged = []
        for case in (self.comparison.cases[id] for id in ids):
            image, reference = read_with_reference(case, self.comparison)
            try:
                indices = segment(image, self.wall(image, reference, case)).indices
            except SegmenterError:
                continue
            judged.append(Judged(indices == target, reference.as_tensor()[0].numpy(), spacing_mm(image.affine)))
        part = "validation" if split.validation else "training"
        in_reference = ", in reference walls" if self.name in self.comparison.regions and not self._walls(ids) else ""
        why = f"on {len(judged)} {part} case{'' if len(judged) == 1 else 's'}{in_reference}"
        return Cleaning(best_rule(self._candidates, judged, target), why)

    def _cleaned(
        self, segment: Segment, cleaning: Cleaning, image: MetaTensor, wall: np.ndarray | None
    ) -> CaseLabelMap:
        """Without loose pieces, which become the rest of the region, or background where no region is known."""
        config, labels = self.comparison.config, self.comparison.dataset.labels
        whole = segment(image, wall)
        dropped = cleaning.dropped(whole.indices == labels.index(config.target), spacing_mm(image.affine))
        rest = 0 if wall is None else labels.index(config.rest)
        indices = np.where(dropped, rest, whole.indices).astype(np.uint8)
        return replace(whole, indices=indices, cleaning=cleaning.text(config.target))

    def _segment(
        self, method: TissueMethod, slices: SliceBySlice | None, image: MetaTensor, wall: np.ndarray | None
    ) -> CaseLabelMap:
        """Label indices; where a wall is known, of the box around all that is known."""
        config, labels = self.comparison.config, self.comparison.dataset.labels
        if wall is None:
            everywhere = Inside(
                method, Everywhere(), within=("volume",), target=config.target, rest=None, labels=labels
            )
            indices = everywhere(image).as_tensor()[0].numpy()
            return CaseLabelMap(indices, () if slices is None else tuple(slices.failed.values()))
        indices = np.zeros(wall.shape, np.uint8)
        if not wall.any():
            return CaseLabelMap(indices)
        box = bounding_box(wall > 0)
        part = MetaTensor(image.as_tensor()[(slice(None), *box)], affine=image.affine)  # its place does not matter
        region = Known(MetaTensor(torch.from_numpy(wall[box])[None], affine=image.affine), wall_labels(self.comparison))
        inside = Inside(method, region, within=(config.region,), target=config.target, rest=config.rest, labels=labels)
        indices[box] = inside(part).as_tensor()[0].numpy()
        has_region = (wall == 1).any()  # else the slices that failed are those of an earlier case
        return CaseLabelMap(indices, tuple(slices.failed.values()) if slices is not None and has_region else ())
