"""The rows of a contest -> results of each; what is done already, by the same settings, is not done again."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.config.compare import RowConfig
from segmed.contest.opening import Contest
from segmed.contest.records import Records, rows_of
from segmed.contest.scenes import TrainingScenes, label_indices, read_with_reference, wall_labels, whole_wall
from segmed.contest.scores import Judge
from segmed.contest.tested import TestedRun
from segmed.data.case import Case
from segmed.data.splits import Split
from segmed.machine import this_machine
from segmed.methods import build_method
from segmed.metrics.surfaces import bounding_box
from segmed.reports.evaluation import Row
from segmed.reports.results import Method, Result
from segmed.segmenters.cleaning import Cleaned
from segmed.segmenters.region import Everywhere, Inside, Known, MethodError, SliceBySlice, TissueMethod
from segmed.volumes import spacing_mm, write_volume

WALL = {"reference": "given", "everywhere": "none"}  # a run's walls are scored in the row of the run


def run_contest(contest: Contest, *, say: Callable[[str], None] = print) -> list[Method]:
    """Run what is not done, score all of it.

    Args:
        contest: of `open_contest`.
        say: takes a line of progress.

    Returns:
        A method a row, in the order of the config, for `compare_methods`.

    Raises:
        MethodError: a method can't be built or trained. One that fails on a test case has a miss there.
    """
    methods = []
    for name in (name for name in contest.config.rows if name not in contest.missing):
        began = time.perf_counter()
        if name in contest.runs:
            results = tuple(_scored_run(contest, name, run, n) for n, run in enumerate(contest.runs[name]))
        else:
            results = (ClassicalRow(contest, name, contest.methods[name]).run(),)
        methods.append(Method(name, results))
        say(f"{name}: {len(contest.tested)} cases, {time.perf_counter() - began:.1f} s")
    return methods


def folder_of(contest: Contest, name: str) -> Path:
    """Where the label maps and figures of a row are kept."""
    plain = re.sub(r"[^\w.+-]+", "_", name).strip("_.")
    return contest.config.output / "rows" / f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


# ---------------------------------------------------------------- what is done


def _settings(contest: Contest) -> dict[str, Any]:
    """What the figures of any row depend on."""
    config = contest.config
    data = config.data.model_dump(
        mode="json", include={"images", "components", "ignore", "background", "spacing_known"}
    )
    labels = contest.dataset.labels.to_dict()
    evaluate = config.evaluate.model_dump(mode="json", exclude={"bootstrap"})
    return {"data": data, "labels": labels, "target": config.target, "rest": config.rest,
            "region": [config.region, *config.within], "evaluate": evaluate}  # fmt: skip


# ---------------------------------------------------------------- finished runs


def _scored_run(contest: Contest, name: str, run: TestedRun, seed: int) -> Result:
    """The label maps of a run's own test, scored as those of the other rows are."""
    judge = Judge(contest.config, contest.dataset.labels)
    records = Records(folder_of(contest, name) / f"run_{seed}", _settings(contest) | {"run": str(run.path.resolve())})
    rows: list[Row] = []
    for case in (contest.cases[id] for id in contest.tested):
        path = run.label_maps[case.id]
        record = records.read(case, path)
        if record is None:
            image, reference = read_with_reference(case, contest)
            found = label_indices(path, contest.dataset.labels, like=image)
            figures = judge.rows(
                found, reference.as_tensor()[0].numpy(), case=case, spacing_mm=spacing_mm(image.affine)
            )
            record = records.write(case, {"rows": figures}, path)
        rows += rows_of(record)
    subjects = {id: contest.cases[id].subject for id in contest.tested}
    return replace(run.result, rows=rows, subjects=subjects, missed=contest.config.evaluate.missed)


# ---------------------------------------------------------------- classical methods


@dataclass(frozen=True)
class ClassicalRow:
    """A classical method in its region, on all test cases.

    Attributes:
        contest: whose row it is.
        name: of the row.
        row: its config.
    """

    contest: Contest
    name: str
    row: RowConfig

    def run(self) -> Result:
        """Segment and score the cases that are not done; the method learns from each fold's training cases alone."""
        records = [record for split in self.contest.splits for record in self._fold(split)]
        failed = {record["case"]: record["error"] for record in records if record["error"]}
        remarks = []
        if failed:
            case, why = next(iter(failed.items()))
            remarks.append(
                f"{self.name} has no result in {len(failed)} of {len(records)} cases, which count as misses: "
                f"{case} ({why})" + (f", and {', '.join(list(failed)[1:])}" if len(failed) > 1 else "")
            )
        if self.name in self.contest.regions:
            remarks.append(
                f"{self.name} looks in walls of {self.contest.regions[self.name].path}, whose seconds do not count"
            )
        fits = {record["fold"]: record["fit_seconds"] for record in records}
        learns = self._learns
        return Result(
            [row for record in records for row in rows_of(record)],
            f"row '{self.name}'",
            {record["case"]: self.contest.cases[record["case"]].subject for record in records},
            training_minutes=math.fsum(fits.values()) / 60 if learns else None,
            inference_seconds=math.fsum(record["seconds"] for record in records) / max(1, len(records)),
            training=tuple(frozenset(split.train) for split in self.contest.splits) if learns else (),
            missed=self.contest.config.evaluate.missed,
            device=f"CPU, {this_machine().cores} cores",
            remarks=tuple(remarks),
        )

    @property
    def _learns(self) -> bool:
        return self.row.method is not None and self.row.method.needs_training

    def _fold(self, split: Split) -> list[dict[str, Any]]:
        settings = _settings(self.contest) | {"row": self.row.model_dump(mode="json", exclude={"command"})}
        if self._learns:
            settings |= {"train": split.train}
        records = Records(folder_of(self.contest, self.name) / "cases", settings)
        known = {id: self._record(self.contest.cases[id], records) for id in split.test}
        done = {id: record for id, record in known.items() if record is not None}
        if len(done) < len(known):
            began = time.perf_counter()
            method = self._method(split)
            cost = {"fold": split.fold or 0, "fit_seconds": time.perf_counter() - began}
            for id in (id for id in known if id not in done):
                done[id] = self._case(self.contest.cases[id], method, records, cost)
        return [done[id] for id in known]

    def _record(self, case: Case, records: Records) -> dict[str, Any] | None:
        """Of a case that is done, its label map being there."""
        record = records.read(case, *self._walls(case))
        whole = record is not None and (record["error"] or self._map_path(case.id).is_file())
        return record if whole else None

    def _method(self, split: Split) -> TissueMethod:
        config = self.row.method
        if config is None:
            raise MethodError(f"row '{self.name}' has no method: give one")
        try:
            method = build_method(config, TrainingScenes(self.contest, split.train) if self._learns else None)
            if self.row.slices:
                method = SliceBySlice(method)
            row = self.row
            if row.smallest_ml or row.fill_obstruction:
                method = Cleaned(
                    method, smallest_ml=row.smallest_ml, fill_obstruction=row.fill_obstruction, cavity=row.cavity
                )
        except MethodError as error:
            raise MethodError(f"row '{self.name}': {error}") from error
        return method

    def _case(self, case: Case, method: TissueMethod, records: Records, cost: Mapping[str, float]) -> dict[str, Any]:
        """Segment one case, keep its label map and its figures."""
        image, reference = read_with_reference(case, self.contest)
        wall = self._wall(image, reference, case)
        found: np.ndarray | None = None
        error = None
        began = time.perf_counter()
        try:
            found = self._found(method, image, wall)
        except MethodError as failure:
            error = " ".join(str(failure).split())
        seconds = time.perf_counter() - began
        path = self._map_path(case.id)
        path.unlink(missing_ok=True)
        if found is not None:
            values = torch.from_numpy(self.contest.dataset.labels.decode(found))[None]
            like = next(iter(case.images.values())).path
            write_volume(path, MetaTensor(values, affine=image.affine), like=like)
        figures = Judge(self.contest.config, self.contest.dataset.labels).rows(
            found,
            reference.as_tensor()[0].numpy(),
            case=case,
            spacing_mm=spacing_mm(image.affine),
            wall=WALL.get(self.row.region, "run"),
        )
        data = {"case": case.id, "error": error, "seconds": seconds, **cost, "rows": figures}
        return records.write(case, data, *self._walls(case))

    def _found(self, method: TissueMethod, image: MetaTensor, wall: np.ndarray | None) -> np.ndarray:
        """Label indices (X, Y, Z); where a wall is known, of the box around all that is known."""
        config, labels = self.contest.config, self.contest.dataset.labels
        if wall is None:
            everywhere = Inside(
                method, Everywhere(), within=("volume",), target=config.target, rest=None, labels=labels
            )
            return everywhere(image).as_tensor()[0].numpy()
        found = np.zeros(wall.shape, np.uint8)
        box = bounding_box(wall > 0)
        if not wall.any():
            return found
        part = MetaTensor(image.as_tensor()[(slice(None), *box)], affine=image.affine)  # its place does not matter
        known = Known(MetaTensor(torch.from_numpy(wall[box])[None], affine=image.affine), wall_labels(self.contest))
        inside = Inside(method, known, within=(config.region,), target=config.target, rest=config.rest, labels=labels)
        found[box] = inside(part).as_tensor()[0].numpy()
        return found

    def _wall(self, image: MetaTensor, reference: MetaTensor, case: Case) -> np.ndarray | None:
        """The region's label map, see `whole_wall`; None: the method looks everywhere."""
        if self.row.region == "everywhere":
            return None
        indices = reference.as_tensor()[0].numpy()
        if self.name in self.contest.regions:
            path = self.contest.regions[self.name].label_maps[case.id]
            indices = label_indices(path, self.contest.dataset.labels, like=image)
        return whole_wall(indices, self.contest)

    def _walls(self, case: Case) -> tuple[Path, ...]:
        region = self.contest.regions.get(self.name)
        return () if region is None else (region.label_maps[case.id],)

    def _map_path(self, case_id: str) -> Path:
        return folder_of(self.contest, self.name) / "predictions" / f"{case_id}.nii.gz"
