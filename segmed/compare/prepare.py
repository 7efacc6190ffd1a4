"""The data, parts and finished runs of a comparison, all checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from segmed.builders.datasets import build_dataset
from segmed.compare.fine_stage import fine_stages
from segmed.compare.tested_runs import TestedRun, matching, splits_of
from segmed.config import SegmentationConfig
from segmed.config.compare import CompareConfig, RowConfig
from segmed.data.case import Case
from segmed.data.cases import Dataset
from segmed.data.splits import Split, make_split
from segmed.errors import DatasetError, RunError, UnfinishedError
from segmed.evaluate.results import first_few
from segmed.volumes import read_label_volume

PLACES = ("reference", "everywhere")


@dataclass(frozen=True)
class PreparedComparison:
    """A comparison, ready to be run.

    Attributes:
        config: of the comparison.
        dataset: its cases.
        splits: one, or one a fold.
        runs: row -> its finished runs, one a seed.
        regions: row -> the run whose label maps are its region.
        missing: row that is left out -> the line on it.
    """

    config: CompareConfig
    dataset: Dataset
    splits: tuple[Split, ...]
    runs: Mapping[str, tuple[TestedRun, ...]]
    regions: Mapping[str, TestedRun]
    missing: Mapping[str, str]

    @cached_property
    def cases(self) -> dict[str, Case]:
        """Case id -> case, of all of the data set."""
        return {case.id: case for case in self.dataset.cases}

    @property
    def tested(self) -> tuple[str, ...]:
        """Ids of the test cases, in the order of the folds."""
        return tuple(case for split in self.splits for case in split.test)


def prepare_comparison(config: CompareConfig, *, skip_missing: bool = False) -> PreparedComparison:
    """Read data and parts, find the runs, and see that every row is of the same cases.

    Args:
        config: of the comparison.
        skip_missing: leave out rows whose run is not there or not finished, instead of refusing.

    Raises:
        RunError: a run is not there, not finished, of other cases, or has no fine stage that the row asks for.
        DatasetError: the data or the parts can't be used.
        VolumeError: labels that are not there.
    """
    paths, missing = paths_of_rows(config)
    tested_runs: dict[Path, TestedRun] = {}
    for name, row in config.rows.items():
        if row.method is not None and len(paths[name]) > 1:
            raise RunError(
                f"row '{name}': {len(paths[name])} runs fit the region {row.region}: name the one whose walls it takes"
            )
        try:
            tested_runs |= {path: TestedRun.open(path) for path in paths[name] if path not in tested_runs}
        except UnfinishedError as error:
            missing[name] = f"row '{name}': {error}"
    refuse_missing(config, missing, skip_missing=skip_missing)
    dataset = build_dataset(SegmentationConfig(data=config.data), progress=True)
    for label in config.within:
        dataset.labels.index(label)
    splits = _splits(config, dataset)
    comparison = PreparedComparison(
        config,
        dataset,
        splits,
        {name: tuple(tested_runs[path] for path in paths[name]) for name, row in config.rows.items()
         if row.run is not None and name not in missing},
        {name: tested_runs[paths[name][0]] for name, row in config.rows.items()
         if row.method is not None and paths[name] and name not in missing},
        missing,
    )  # fmt: skip
    _check_cases(comparison)
    _check_fine_stages(comparison)
    return comparison


def paths_of_rows(config: CompareConfig) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Row -> its runs, one a seed, or the run whose walls it takes; row of which one is not there -> the line on it."""
    paths: dict[str, list[Path]] = {}
    missing: dict[str, str] = {}
    for name, row in config.rows.items():
        patterns = config.runs_of(row) or (() if row.place in PLACES else (config.walls_of(row),))
        paths[name] = matching(patterns)
        if absent := [pattern for pattern in patterns if not matching([pattern])]:
            missing[name] = _missing_line(name, row, config, absent)
    return paths, missing


def refuse_missing(config: CompareConfig, missing: Mapping[str, str], *, skip_missing: bool) -> None:
    """See that enough rows are there.

    Raises:
        RunError: one is missing and may not be left out, or fewer than two are left.
    """
    if missing and (not skip_missing or config.reference in missing or len(config.rows) - len(missing) < 2):
        first = missing.get(config.reference, next(iter(missing.values())))
        more = f" ({len(missing) - 1} more rows are missing)" if len(missing) > 1 else ""
        hint = "" if config.reference in missing else "; or leave such rows out with --skip-missing"
        raise RunError(f"{first}{hint}{more}")


def _missing_line(name: str, row: RowConfig, config: CompareConfig, absent: Sequence[str]) -> str:
    """The line on a row of which runs are not there."""
    wanted = row.patterns or (row.region,)
    others = (other.command for other in config.rows.values() if set(other.patterns) & set(wanted) and other.command)
    command = row.command or next(others, None)
    advice = "train it with segmed train"
    if command is not None:
        advice = "--on local trains it for each seed" if config.seeds else f"make it with `{command}`"
    return f"row '{name}': no run fits {', '.join(absent)}: {advice}"


def _splits(config: CompareConfig, dataset: Dataset) -> tuple[Split, ...]:
    if config.split_of is not None:
        return splits_of(config.split_of)
    strata = {case.id: _stratum(case, dataset) for case in dataset.cases}
    single = not config.each_fold or config.split.file is not None or config.split.from_manifest
    drawn = [config.split] if single else [
        config.split.model_copy(update={"fold": fold}) for fold in range(config.split.folds)
    ]  # fmt: skip
    return tuple(make_split(dataset.cases, one, strata=strata, unlabelled=dataset.unlabelled) for one in drawn)


def _stratum(case: Case, dataset: Dataset) -> str:
    """The labels that it holds, as training has it: the same seed then gives the same parts."""
    if case.label is None:
        return ""
    indices = dataset.labels.encode(read_label_volume(case.label).as_tensor().numpy(), where=str(case.label.path))
    present = np.unique(indices)
    return "+".join(name for name in dataset.labels.names if dataset.labels.index(name) in present)


def _check_cases(comparison: PreparedComparison) -> None:
    """Every test case has a reference and is in all runs, and no run was tested on others.

    Raises:
        DatasetError, RunError: it is not so.
    """
    wanted = set(comparison.tested)
    for case in comparison.tested:
        if case not in comparison.cases or comparison.cases[case].label is None:
            raise DatasetError(
                f"test case {case} is not in {comparison.dataset.root}, or has no label map: leave it out"
            )
    used = [(name, run) for name, runs in comparison.runs.items() for run in runs] + list(comparison.regions.items())
    for name, run in used:
        if strange := sorted(run.cases ^ wanted):
            raise RunError(
                f"row '{name}': run {run.path} was tested on {len(run.cases)} cases, the comparison has {len(wanted)}; "
                f"in one alone: {first_few(strange)}; give the same split to both, or split_of {run.path}"
            )


def _check_fine_stages(comparison: PreparedComparison) -> None:
    """Runs that look in a given region can do so.

    Raises:
        RunError: one can't.
    """
    for name, run in ((name, run) for name, runs in comparison.runs.items() for run in runs):
        if comparison.config.rows[name].given:
            try:
                fine_stages(run, labels=comparison.dataset.labels, within=comparison.config.within)
            except RunError as error:
                raise RunError(f"row '{name}': {error}") from error
