"""A comparison as jobs: the trainings of its rows, each seed and fold, and the comparison, which waits for them."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segmed.commands.as_jobs import gpus_of_one, plan_ahead
from segmed.commands.training import TrainingOptions, read_training
from segmed.compare.prepare import PLACES, paths_of_rows, refuse_missing
from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.compare import CompareConfig
from segmed.errors import ConfigError
from segmed.files import atomic_write_text, remove
from segmed.jobs.fold_jobs import last_file
from segmed.jobs.job import Job, Needs, Plan, joined
from segmed.runs import Folds, Run, is_run
from segmed.runs.run_state import status_of

TOOLS = {"train_seg.py": "train", "train_cls.py": "train-cls"}
PYTHONS = ("python", "python3")
NOT_IN_A_ROW = (
    "--resume", "--go-on", "--part", "--on", "--submit", "--plan-only", "--untested", "--help", "--help-all", "-h",
)  # fmt: skip
WRITTEN = "comparison.yaml"


def plan_of_comparison(
    config: CompareConfig, *, options: Sequence[str], page: str, skip_missing: bool, look: bool, again: tuple[str, ...]
) -> Plan:
    """The jobs of a comparison; folders of runs are made, unless the plan is only to be looked at.

    Args:
        config: with rows that have commands.
        options: of the comparison itself, beside its config.
        page: name of the file in its output that it writes last.
        skip_missing: leave out rows whose run is not there and which no command makes.
        look: nothing is written.
        again: command line by which what is left is gone on with.

    Raises:
        ConfigError: a command that is no training of segmed's, or makes another run than its row takes.
        RunError: a run is not there, and no command makes it.
    """
    config = _absolute(config)
    trainings = list(_trainings(config))
    _check_there(config, trainings, skip_missing=skip_missing)
    plans = {run: plan for training in trainings for run, plan in _plans(training, look=look).items()}
    written = config.output / "jobs" / WRITTEN
    line = ("segmed", "compare", "--config", str(written), *options)
    last = Job("comparison", line, config.output, config.output / page, Needs(gpus=gpus_of_one()))
    if not look:
        _write(config, written, page=last.proof)
    return joined(_named(plans), last, title=config.name, again=again)


def _write(config: CompareConfig, path: Path, *, page: Path) -> None:
    """Write the comparison as its job reads it; the page of another one goes, which would prove this one done."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        remove(page)
        atomic_write_text(path, text)


def _named(plans: dict[Path, Plan]) -> dict[str, Plan]:
    """The plans by the names of their folders, from where these differ."""
    if len({run.name for run in plans}) == len(plans):
        return {run.name: plan for run, plan in plans.items()}
    return {"/".join(run.parts[1:]): plan for run, plan in plans.items()}


def _absolute(config: CompareConfig) -> CompareConfig:
    """The comparison with absolute paths: its jobs run in any folder."""

    def full(path: Any) -> Any:
        return path if path is None else type(path)(Path(path).expanduser().absolute())

    rows = {}
    for name, row in config.rows.items():
        runs = tuple(map(full, row.patterns))
        region = row.region if row.region in (*PLACES, "auto") else full(row.region)
        rows[name] = row.model_copy(
            update={"run": (runs if len(runs) > 1 else runs[0]) if runs else None, "region": region}
        )
    data = config.data.model_copy(update={"root": full(config.data.root)}) if not config.by_own_tests else config.data
    split = config.split.model_copy(update={"file": full(config.split.file)})
    paths = {"output": full(config.output), "split_of": full(config.split_of)}
    return config.model_copy(update={"rows": rows, "data": data, "split": split, **paths})


# ---------------------------------------------------------------- what commands train


@dataclass(frozen=True)
class _Training:
    """What the command of a row trains, once or with several seeds.

    Attributes:
        row: its name.
        command: of segmed, `train` or `train-cls`.
        arguments, config: what the command line says.
        runs: folder -> seed; None: that of the config.
    """

    row: str
    command: str
    arguments: TrainingOptions
    config: Any
    runs: dict[Path, int | None]


def _trainings(config: CompareConfig) -> Iterator[_Training]:
    """The trainings of all rows that have a command; rows of the same run share it."""
    commands: dict[tuple[str, ...], str] = {}
    for name, row in config.rows.items():
        if row.command is None or row.run is None:
            continue
        runs = config.runs_of(row)
        if runs not in commands:
            commands[runs] = row.command
            if training := _training(name, row.command, config):
                yield training
        elif commands[runs] != row.command:
            raise ConfigError(
                f"row '{name}': an earlier row makes {row.patterns[0]} by another command: name another run"
            )


def _training(name: str, line: str, config: CompareConfig) -> _Training | None:
    """What a row's command trains; None where all of its runs, which it can't make one by one, are there.

    Raises:
        ConfigError: it is no training of segmed's, or that of another run.
    """
    row = config.rows[name]
    run, where = row.patterns[0], f"row '{name}'"
    if len(row.patterns) > 1 or glob.has_magic(run):
        if all(map(_finished, map(Path, config.runs_of(row)))):
            return None
        raise ConfigError(f"{where} names several runs and one command: name one folder, and give seeds: [0, 1, 2]")
    command, words = _command_of(line, where=where)
    if command == "train-cls" and not config.by_own_tests:
        raise ConfigError(f"{where} trains a classifier, which has no label maps to score: leave out data.regions")
    try:
        arguments, experiment = _read(command, words)
    except ConfigError as error:
        raise ConfigError(f"{where}, command: {error}") from None
    if arguments.run_dir is not None and arguments.run_dir.expanduser().absolute() != Path(run):
        raise ConfigError(f"{where}: its command makes {arguments.run_dir}, the row takes {run}: give the same to both")
    seeds = dict(zip(map(Path, config.runs_of(row)), config.seeds or (None,), strict=True))
    if any(os.path.normpath(seed_run) == os.path.normpath(config.output) for seed_run in seeds):
        raise ConfigError(f"{where}: its run and the comparison's output are both {config.output}: give two folders")
    return _Training(name, command, arguments, experiment, seeds)


def _command_of(line: str, *, where: str) -> tuple[str, list[str]]:
    """The command of segmed and the options of a line of a YAML, which is never given to a shell.

    Raises:
        ConfigError: it is no training, or has options that the plan itself gives.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"{where}: its command {line!r} can't be read ({error}): mend its quotes") from None
    first, second = (*words, "", "")[:2]
    command = second if first == "segmed" else TOOLS.get(Path(second).name, "") if first in PYTHONS else ""
    if command not in TOOLS.values():
        raise ConfigError(
            f"{where}: its command begins with '{first} {second}', which --on does not run: write segmed train "
            "OPTIONS, or python tools/train_seg.py OPTIONS"
        )
    given = {word.split("=")[0].replace("_", "-") for word in words[2:]}
    if wrong := sorted(given.intersection(NOT_IN_A_ROW) | {word for word in given if word.startswith("--jobs.")}):
        raise ConfigError(f"{where}: leave {wrong[0]} out of its command: the plan of the comparison says that")
    return command, words[2:]


def _read(command: str, words: Sequence[str]) -> tuple[TrainingOptions, Any]:
    if command == "train-cls":
        from segmed.commands.train_cls import Arguments as Options

        return read_training(ClassificationConfig, Options, words)
    from segmed.commands.train_seg import Arguments

    return read_training(SegmentationConfig, Arguments, words)


def _check_there(config: CompareConfig, trainings: Sequence[_Training], *, skip_missing: bool) -> None:
    """See that every run is there, or made by a command."""
    coming = {str(run) for training in trainings for run in training.runs}
    _, missing = paths_of_rows(config)
    for name, row in config.rows.items():
        if name in missing and coming.issuperset(config.runs_of(row) or (config.walls_of(row),)):
            del missing[name]
    refuse_missing(config, missing, skip_missing=skip_missing)


# ---------------------------------------------------------------- their jobs


def _plans(training: _Training, *, look: bool) -> dict[Path, Plan]:
    """Run -> its jobs; of one that is done, one."""
    left = [run for run in training.runs if not _finished(run)]
    plans = {run: _of_finished(run, training) for run in training.runs if run not in left}
    kind: Any
    if training.command == "train-cls":
        from segmed.classify import run as kind
    else:
        from segmed.compose import run as kind
    for run in left:
        if is_run(run) and Folds(run).begun != training.arguments.every_fold:
            kinds = ("a cross-validation", "a single run")
            has, makes = kinds if Folds(run).begun else kinds[::-1]
            raise ConfigError(f"row '{training.row}': {run} is {has}, its command makes {makes}: name another run")
    if left:
        plan_one = plan_ahead(training.config, kind, every_fold=training.arguments.every_fold)
        plans |= {
            run: plan_one(
                training.arguments.model_copy(update={"run_dir": run, "go_on": True, "plan_only": look}),
                training.config.model_copy(update={} if training.runs[run] is None else {"seed": training.runs[run]}),
            )
            for run in left
        }
    return {run: plans[run] for run in training.runs}


def _last_file(run: Path, training: _Training) -> Path:
    """The file that a run of a training writes last."""
    if not training.arguments.every_fold:
        return Run(run).page
    return last_file(Folds(run), classifies=training.command == "train-cls")


def _finished(run: Path) -> bool:
    return is_run(run) and status_of(run).state == "done"


def _of_finished(run: Path, training: _Training) -> Plan:
    again = ("segmed", training.command, "--resume", str(run))
    return Plan(
        run.name, run, (Job(run.name, again, run, _last_file(run, training), Needs(gpus=gpus_of_one())),), again
    )
