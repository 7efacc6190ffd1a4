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
from segmed.compare.method_inputs import TrainingScenes, label_indices, wall_labels, whole_wall
from segmed.data.case import Case
from segmed.data.splits import Split
from segmed.errors import SegmenterError
from segmed.evaluate.results import Result
from segmed.metrics.surfaces import bounding_box
from segmed.segmenters.cleaning import Cleaned
from segmed.segmenters.region import Everywhere, Inside, Known, SliceBySlice, TissueMethod


@dataclass(frozen=True)
class ClassicalRow(CaseByCaseRow):
    """A classical method in its region; it learns from each fold's training cases alone."""

    @property
    def _learns(self) -> bool:
        return self.row.method is not None and self.row.method.needs_training

    def settings(self, split: Split) -> dict[str, Any]:
        row = self.row.model_dump(mode="json", exclude={"command"}) | {"region": self.row.place}
        return {"row": row} | ({"train": split.train} if self._learns else {})

    def files(self, case: Case) -> tuple[Path, ...]:
        region = self.comparison.regions.get(self.name)
        return () if region is None else (region.label_maps[case.id],)

    def wall(self, image: MetaTensor, reference: MetaTensor, case: Case) -> np.ndarray | None:
        if self.row.place == "everywhere":
            return None
        if self.name not in self.comparison.regions:
            return super().wall(image, reference, case)
        path = self.comparison.regions[self.name].label_maps[case.id]
        return whole_wall(label_indices(path, self.comparison.dataset.labels, like=image), self.comparison)

    def completed(self, result: Result, records: Sequence[Record]) -> Result:
        remarks = result.remarks
        if self.name in self.comparison.regions:
            path = self.comparison.regions[self.name].path
            remarks = (*remarks, f"{self.name} looks in walls of {path}, whose seconds do not count")
        if not self._learns:
            return replace(result, remarks=remarks)
        fits = {record["fold"]: record["fit_seconds"] for record in records}
        training = tuple(frozenset(split.train) for split in self.comparison.splits)
        return replace(result, remarks=remarks, training_minutes=math.fsum(fits.values()) / 60, training=training)

    def method(self, split: Split) -> Segment:
        row = self.row
        if row.method is None:
            raise SegmenterError(f"row '{self.name}' has no method: give one")
        slices: SliceBySlice | None = None
        try:
            method = build_method(row.method, TrainingScenes(self.comparison, split.train) if self._learns else None)
            if row.slices:
                method = slices = SliceBySlice(method)
            if row.smallest_ml or row.fill_obstruction:
                method = Cleaned(
                    method, smallest_ml=row.smallest_ml, fill_obstruction=row.fill_obstruction, cavity=row.cavity
                )
        except SegmenterError as error:
            raise SegmenterError(f"row '{self.name}': {error}") from error
        return partial(self._segment, method, slices)

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
