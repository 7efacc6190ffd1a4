"""A row that segments the test cases here, one after the other, each kept when it is done."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.compare.finished_cases import Records, folder_of, rows_of, settings_of
from segmed.compare.method_inputs import read_with_reference, whole_wall
from segmed.compare.prepare import PreparedComparison
from segmed.compare.row_figures import CaseScorer
from segmed.config.compare import RowConfig
from segmed.data.case import Case
from segmed.data.splits import Split
from segmed.data.subjects import UNKNOWN
from segmed.errors import SegmenterError
from segmed.evaluate.results import Result
from segmed.files import remove
from segmed.machine import this_machine
from segmed.volumes import spacing_mm, write_volume

WALL = {"reference": "given", "everywhere": "none"}  # a run's walls are scored in the row of the run
Record = Mapping[str, Any]  # what a file of records holds of a case


@dataclass(frozen=True)
class CaseLabelMap:
    """The result of a row for one case.

    Attributes:
        indices: (X, Y, Z) uint8, of the data set's labels.
        lost: why there is no result in a slice, of each slice that has none.
        cleaning: which loose pieces were dropped, in words; None: not known here.
    """

    indices: np.ndarray
    lost: Sequence[str] = ()
    cleaning: str | None = None


Segment = Callable[[MetaTensor, np.ndarray | None], CaseLabelMap]  # image, and the wall as `whole_wall` has it


@dataclass(frozen=True)
class CaseByCaseRow(ABC):
    """A row on all test cases; those that are done by the same settings are not done again.

    Attributes:
        comparison: whose row it is.
        name: of the row.
        row: its config.
    """

    comparison: PreparedComparison
    name: str
    row: RowConfig

    def run(self) -> Result:
        """Segment and score the cases that are not done.

        Raises:
            SegmenterError: a method can't be built or trained. One that fails on a case has a miss there.
        """
        done = {record["case"]: record for split in self.splits for record in self._part(split)}
        records = [done[id] for id in self.comparison.tested]
        result = Result(
            [row for record in records for row in rows_of(record)],
            f"row '{self.name}'",
            {record["case"]: self.comparison.cases[record["case"]].subject for record in records},
            inference_seconds=math.fsum(record["seconds"] for record in records) / max(1, len(records)),
            missed=self.comparison.config.evaluate.missed,
            device=f"CPU, {this_machine().cores} cores",
            remarks=(*self._failures(records), *([] if self.comparison.dataset.subjects_known else [UNKNOWN])),
        )
        return self.completed(result, records)

    # ---------------------------------------------------------------- what a kind of row decides

    @property
    def splits(self) -> tuple[Split, ...]:
        """Test cases that one method segments, and by what it was trained."""
        return self.comparison.splits

    @property
    def folder(self) -> Path:
        """Of the label maps and figures."""
        return folder_of(self.comparison, self.name)

    @abstractmethod
    def method(self, split: Split) -> Segment:
        """What segments the test cases of a split; it is asked for only where a case is left to do."""

    @abstractmethod
    def settings(self, split: Split) -> dict[str, Any]:
        """What its figures depend on, besides those of every row and the files of the case."""

    def files(self, case: Case) -> tuple[Path, ...]:
        """Files that its figures of a case depend on, besides the case's."""
        return ()

    def wall(self, image: MetaTensor, reference: MetaTensor, case: Case) -> np.ndarray | None:
        """The region in which it looks, see `whole_wall`; None: everywhere."""
        return whole_wall(reference.as_tensor()[0].numpy(), self.comparison)

    @abstractmethod
    def completed(self, result: Result, records: Sequence[Record]) -> Result:
        """The result with what the method cost, and what a reader must know."""

    # ---------------------------------------------------------------- cases

    def _part(self, split: Split) -> list[Record]:
        """Records of the test cases of a split."""
        records = Records(self.folder / "cases", settings_of(self.comparison) | self.settings(split))
        recorded = {id: self._record(self.comparison.cases[id], records) for id in split.test}
        done = {id: record for id, record in recorded.items() if record is not None}
        if len(done) < len(recorded):
            began = time.perf_counter()
            method = self.method(split)
            cost = {"fold": split.fold or 0, "fit_seconds": time.perf_counter() - began}
            for id in (id for id in recorded if id not in done):
                done[id] = self._case(self.comparison.cases[id], method, records, cost)
        return [done[id] for id in recorded]

    def _record(self, case: Case, records: Records) -> Record | None:
        """Of a case that is done, its label map being there."""
        record = records.read(case, *self.files(case))
        whole = record is not None and (record["error"] or self._map_path(case.id).is_file())
        return record if whole else None

    def _case(self, case: Case, method: Segment, records: Records, cost: Mapping[str, float]) -> Record:
        """Segment one case, keep its label map and its figures."""
        image, reference = read_with_reference(case, self.comparison)
        wall = self.wall(image, reference, case)
        prediction: CaseLabelMap | None = None
        error = None
        began = time.perf_counter()
        try:
            prediction = method(image, wall)
        except SegmenterError as failure:
            error = " ".join(str(failure).split())
        seconds = time.perf_counter() - began
        path = self._map_path(case.id)
        remove(path)
        if prediction is not None:
            values = torch.from_numpy(self.comparison.dataset.labels.decode(prediction.indices))[None]
            like = next(iter(case.images.values())).path
            write_volume(path, MetaTensor(values, affine=image.affine), like=like)
        figures = CaseScorer(self.comparison.config, self.comparison.dataset.labels).rows(
            None if prediction is None else prediction.indices,
            reference.as_tensor()[0].numpy(),
            case=case,
            spacing_mm=spacing_mm(image.affine),
            wall=WALL.get(self.row.place, "run"),
        )
        lost = [" ".join(why.split()) for why in prediction.lost] if prediction is not None else []
        cleaning = prediction.cleaning if prediction is not None else None
        data = {"case": case.id, "error": error, "lost": lost, "cleaning": cleaning, "seconds": seconds, **cost,
                "rows": figures}  # fmt: skip
        return records.write(case, data, *self.files(case))

    def _failures(self, records: Sequence[Record]) -> list[str]:
        """Lines on cases, and on slices, without a result."""
        lines = []
        if failed := {record["case"]: record["error"] for record in records if record["error"]}:
            case, why = next(iter(failed.items()))
            lines.append(
                f"{self.name} has no result in {len(failed)} of {len(records)} cases, which count as misses: "
                f"{case} ({why})" + (f", and {', '.join(list(failed)[1:])}" if len(failed) > 1 else "")
            )
        if lost := {record["case"]: record["lost"] for record in records if record["lost"]}:
            case, reasons = next(iter(lost.items()))
            count = sum(map(len, lost.values()))
            lines.append(
                f"{self.name} has no result in {count} slices of {len(lost)} cases, in which nothing counts as found: "
                f"{case} ({reasons[0]})" + (f", and {', '.join(list(lost)[1:])}" if len(lost) > 1 else "")
            )
        return lines

    def _map_path(self, case_id: str) -> Path:
        return self.folder / "predictions" / f"{case_id}.nii.gz"
