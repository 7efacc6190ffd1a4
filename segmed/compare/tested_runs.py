"""A finished run, or a cross-validation: its parts, and the label map of every case that it tested."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from segmed.data.splits import Split
from segmed.errors import RunError, UnfinishedError
from segmed.evaluate.results import Result, first_few, read_result
from segmed.runs import Run, is_run, runs_of
from segmed.volumes import is_volume_file, strip_suffix


@dataclass(frozen=True)
class TestedRun:
    """Label maps of test cases, each by a network that never saw the case.

    Attributes:
        path: of the run or of the cross-validation.
        result: its own figures, and what they cost.
    """

    __test__ = False  # no test of pytest's
    path: Path
    result: Result

    @classmethod
    def open(cls, path: Path) -> TestedRun:
        """A run whose test is complete.

        Raises:
            UnfinishedError: it is not, or label maps are missing.
        """
        run = cls(path, read_result(path))
        if missing := sorted(run.cases - set(run.label_maps)):
            raise UnfinishedError(
                f"run {path} has figures but no label maps of {len(missing)} cases, {first_few(missing)}: "
                f"go on with segmed train --resume {path}"
            )
        return run

    @property
    def cases(self) -> set[str]:
        """Ids of the cases that were tested."""
        return {row["case"] for row in self.result.rows}

    @cached_property
    def label_maps(self) -> dict[str, Path]:
        """Case -> its label map: of the fold in which it was tested."""
        label_maps: dict[str, Path] = {}
        for part in parts_of(self.path):
            tested = set(Split.load(part.split).test)
            files = sorted(part.predictions.iterdir()) if part.predictions.is_dir() else []
            maps = {strip_suffix(file): file for file in files if is_volume_file(file.name)}
            label_maps |= {case: maps[case] for case in tested if case in maps}
        return label_maps


def parts_of(path: Path) -> list[Run]:
    """The run itself, or the folds of a cross-validation in their order, as far as they were begun."""
    return [run for run in runs_of(path) if run.split.is_file()]


def splits_of(path: Path) -> tuple[Split, ...]:
    """The parts of a run, or of every fold.

    Raises:
        RunError: it is no run.
        DatasetError: a split.json can't be read.
    """
    if not is_run(path):
        raise RunError(f"{path} is no run: give the folder of a run or of a cross-validation as split_of")
    return tuple(Split.load(part.split) for part in parts_of(path))


def matching(patterns: Sequence[str]) -> list[Path]:
    """Runs that fit one of several paths or patterns, each once, in order."""
    paths = [Path(match) for pattern in patterns for match in sorted(glob.glob(str(Path(pattern).expanduser())))]
    return [path for path in dict.fromkeys(paths) if is_run(path)]
