"""A run's folder, or a table of segmed evaluate -> the figures of its test cases, and what they cost."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmed.config import SegmentationConfig, TrainConfig
from segmed.config.classification import ClassTrainConfig
from segmed.config.reading import load_written
from segmed.data.splits import Split
from segmed.data.subjects import UNKNOWN
from segmed.errors import RunError, UnfinishedError
from segmed.evaluate.answers import LEAKING
from segmed.evaluate.case_rows import LEARNED, SEEN, Row
from segmed.files import from_cell
from segmed.metrics.mask_metrics import OF_CASES
from segmed.runs import Run, is_run, read_history, runs_of

NAMED = 5  # cases in a message


@dataclass(frozen=True)
class Result:
    """The test figures of one run, one seed of a method.

    Attributes:
        rows: of `evaluate_case`, all cases.
        source: whose they are, for messages.
        subjects: case -> subject; a case that is not in it is its own.
        training_minutes: of a cross-validation: of all folds and networks together; None: not known, or not trained.
        inference_seconds: mean of the cases; None: not known.
        budget: how long it may train, in words.
        seed: of weights and patches.
        training: case ids of the training part, a set for each fold; empty where they are not known.
        missed: policy for the distance of a miss, `diagonal` or `skip`.
        device: on what the seconds were measured.
        remarks: what a reader of its figures must know.
        cleaning: which loose pieces were dropped before scoring, and on what that was chosen; None: not known.
        learned_in: region in which it learned, where it looks in a given one.
    """

    rows: Sequence[Row]
    source: str
    subjects: Mapping[str, str] = field(default_factory=dict)
    training_minutes: float | None = None
    inference_seconds: float | None = None
    budget: str | None = None
    seed: int | None = None
    training: tuple[frozenset[str], ...] = ()
    missed: str | None = None
    device: str | None = None
    remarks: tuple[str, ...] = ()
    cleaning: str | None = None
    learned_in: str | None = None


@dataclass(frozen=True)
class Method:
    """What is compared, with the results of its seeds.

    Attributes:
        name: in tables.
        results: one a seed, all on the same test cases.
        constant: a prediction that sees no image, of which some metrics do not exist.
    """

    name: str
    results: tuple[Result, ...]
    constant: bool = False

    @property
    def training_minutes(self) -> float | None:
        """Mean over the seeds; None where one does not know."""
        return _mean_known([result.training_minutes for result in self.results])

    @property
    def inference_seconds(self) -> float | None:
        """Mean over the seeds of the mean a case; None where one does not know."""
        return _mean_known([result.inference_seconds for result in self.results])

    @property
    def cleaning(self) -> str | None:
        """What differs between seeds, one after the other; None where none is known."""
        return "; ".join(dict.fromkeys(result.cleaning for result in self.results if result.cleaning)) or None

    @property
    def learned_in(self) -> str | None:
        """As `cleaning`."""
        return "; ".join(dict.fromkeys(result.learned_in for result in self.results if result.learned_in)) or None


def has_table(path: Path) -> bool:
    """Whether it is a table of figures, or a folder of segmed evaluate that holds one."""
    return (path.is_file() and path.suffix == ".csv") or (path / "cases.csv").is_file()


def read_result(path: Path) -> Result:
    """The figures of a run, of a cross-validation, or of an evaluation.

    Args:
        path: a run's folder, a folder of folds, a folder that `segmed evaluate` filled, or its cases.csv.

    Raises:
        RunError: none of these, or a damaged table; UnfinishedError: no finished test.
        ConfigError: the run's config can't be read.
    """
    if is_run(path):
        return _of_run(path)
    if not has_table(path):
        raise RunError(f"{path} is neither a run nor an evaluation: it holds no config.yaml and no cases.csv")
    table = path if path.is_file() else path / "cases.csv"
    rows, subjects = read_cases(table)
    summary = json_facts(table.parent / "summary.json")
    return Result(rows, str(path), subjects, missed=summary.get("missed"), remarks=_remarks(summary))


def first_few(names: Sequence[str]) -> str:
    """The first few of them."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


# ---------------------------------------------------------------- runs


def _of_run(path: Path) -> Result:
    parts = _parts(path)
    table, go_on = path / "test" / "cases.csv", f"go on with segmed train --resume {path}"
    if not parts or not table.is_file() or not (table.parent / "summary.json").is_file():
        raise UnfinishedError(f"run {path} has no finished test: {go_on}")
    rows, subjects = read_cases(table)
    tested = {row["case"] for row in rows}
    splits = [Split.load(part.split) for part in parts]
    if missing := sorted({case for split in splits for case in split.test} - tested):
        raise UnfinishedError(
            f"the test of run {path} lacks {len(missing)} of its cases, {first_few(missing)}: {go_on}"
        )
    config, summary = run_config(path), json_facts(table.parent / "summary.json")
    timings = [json_facts(part.timing) for part in parts]
    return Result(
        rows,
        str(path),
        subjects,
        training_minutes=minutes_of(parts),
        inference_seconds=_mean_seconds(timings),
        budget=_budget_of_all(parts[0].path, config),
        seed=config.seed,
        training=tuple(frozenset(split.train) for split in splits),
        missed=summary.get("missed"),
        remarks=_remarks(summary),
        device=json_facts(parts[0].environment).get("device"),
    )


def notes_of_run(run: Run) -> tuple[str, ...]:
    """What was known before training and must stand in every table, such as a split that leaks.

    Unknown subjects are left out: summaries say themselves whether they are known.
    """
    notes = json_facts(run.plan).get("notes")
    lines = map(str, notes) if isinstance(notes, list) else ()
    return tuple(note for note in lines if not note.startswith(UNKNOWN))


def _remarks(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What a table that compares these figures must repeat."""
    notes = [str(note) for note in summary.get("notes") or () if LEAKING in str(note)]
    notes += [SEEN] if summary.get("scope") == SEEN else []
    return (*notes, *([] if summary.get("subjects_known", True) else [UNKNOWN]))


def run_config(path: Path) -> SegmentationConfig:
    """The resolved config of a run, or of the first fold of a cross-validation.

    Raises:
        ConfigError: it can't be read.
    """
    return load_written(SegmentationConfig, runs_of(path)[0].config)


def _parts(path: Path) -> tuple[Run, ...]:
    """The run itself, or the folds of a cross-validation; empty where a fold was not begun."""
    parts = runs_of(path)
    return parts if all(part.split.is_file() for part in parts) else ()


def minutes_of(parts: Sequence[Run]) -> float | None:
    """Of training and validation of a run or of all folds together; None where one does not know."""
    return _sum([_minutes(part.path) for part in parts])


def _minutes(part: Path) -> float | None:
    """Of training and validation of all its networks, as the history.csv of each counts them."""
    histories = [read_history(path).get("minutes") for path in sorted(part.rglob("history.csv"))]
    return _sum([max(value for _, value in minutes) if minutes else None for minutes in histories]) or None


def _mean_seconds(timings: Sequence[Mapping[str, Any]]) -> float | None:
    """Over all cases of all folds."""
    if not all(isinstance(timing.get("seconds"), dict) for timing in timings):
        return None
    seconds = [float(value) for timing in timings for value in timing["seconds"].values()]
    return math.fsum(seconds) / len(seconds) if seconds else None


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def predicting_seconds(folder: Path) -> float | None:
    """Mean a case of what segmed predict did in a folder, reading and writing included; None where it did not."""
    cases = json_facts(folder / "prediction.json").get("cases")
    seconds = [case.get("seconds") for case in cases if isinstance(case, dict)] if isinstance(cases, list) else []
    return _mean_known([value for value in seconds if value])


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def _budget_of_all(part: Path, config: SegmentationConfig) -> str:
    """How long training may take; of a run of several networks, what each may."""
    if config.ensemble is None and config.cascade is None:
        return _budget(config)
    members = [
        load_written(SegmentationConfig, path.with_name("config.yaml")) for path in sorted(part.rglob("history.csv"))
    ]
    budgets = sorted({_budget(member) for member in members})
    if not budgets:
        return _budget(config)
    each = " or ".join(budgets)
    return each if len(members) == 1 else f"{len(members)} networks, each {each}"


def _budget(config: SegmentationConfig) -> str:
    train, batch = config.train, config.train.batch_size
    return budget_text(train, f"{batch * train.accumulate} patches" if isinstance(batch, int) else "")


def budget_text(train: TrainConfig | ClassTrainConfig, batch: str) -> str:
    """How long training may take, and how large its steps are: `250 steps of 4 patches`.

    Args:
        train: of a config.
        batch: what one step takes, such as `4 patches`; empty: not known.
    """
    steps = f"steps of {batch}" if batch else "steps"
    if train.budget_minutes is None and isinstance(train.steps_per_epoch, int):
        return f"{train.epochs * train.steps_per_epoch} {steps}"
    budget = f"{train.epochs} epochs" if train.budget_minutes is None else f"{train.budget_minutes:g} minutes"
    return f"{budget}, {steps}" if batch else budget


def json_facts(path: Path) -> dict[str, Any]:
    """Empty where the file is missing or damaged: what it says is of use, but nothing depends on it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


# ---------------------------------------------------------------- cases.csv


def read_cases(path: Path) -> tuple[list[Row], dict[str, str]]:
    """The rows of cases.csv, and the subjects where it names them.

    Cases that trained or selected the run are left out where the table says so and has others.

    Args:
        path: as `write_evaluation` writes it; an empty cell is NaN, and None in a column without any figure.

    Raises:
        RunError: not such a table, a figure that is no number, a case and label that stand twice, no rows.
        OSError: it can't be read.
    """
    hint = "give a cases.csv of segmed evaluate or of a run"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # Excel's mark, and its semicolons in some countries
            head = file.readline()
            file.seek(0)
            lines = list(csv.DictReader(file, delimiter=max(",;\t", key=head.count)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} is no table of figures: {hint}") from error
    if not lines or not {"case", "label", "dice"} <= set(lines[0]):
        raise RunError(f"{path} is no table with case, label and dice, or is empty: {hint}")
    has_figures = {metric: any(line.get(metric) for line in lines) for metric in OF_CASES}
    rows: list[Row] = []
    unseen = [line for line in lines if line.get("part") not in LEARNED]
    for number, line in enumerate(lines, 2):
        if unseen and line.get("part") in LEARNED:
            continue
        if None in line.values():
            raise RunError(f"{path} is cut off in line {number}: write it again")
        try:
            figures = {metric: _figure(line.get(metric)) if has_figures[metric] else None for metric in OF_CASES}
            missed = float(line.get("missed") or 0)
        except ValueError:
            raise RunError(f"{path} has a figure in line {number} that is no number: {hint}") from None
        if wrong := next((name for name, value in figures.items() if _out_of_range(name, value)), None):
            raise RunError(f"{path} has {wrong} {figures[wrong]:g} in line {number}, which can't be: {hint}")
        kind = line.get("kind") or "label"
        case, label = from_cell(line["case"]), from_cell(line["label"])
        rows.append({"case": case, "label": label, "kind": kind, **figures, "missed": missed})
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if (row["case"], row["label"]) in seen:
            raise RunError(f"{path} has two rows for '{row['label']}' of case {row['case']}: leave one out")
        seen.add((row["case"], row["label"]))
    return rows, {from_cell(line["case"]): from_cell(line["subject"]) for line in lines if line.get("subject")}


def _out_of_range(metric: str, value: float | None) -> bool:
    """Whether a figure lies outside of what its metric can be."""
    if value is None or OF_CASES[metric].bounds[0] != 0:
        return False
    return value < 0 or math.isinf(value) or (metric == "dice" and value > 1)


def _figure(cell: str | None) -> float:
    return float(cell) if cell else math.nan
