"""A training command whose folds or networks are jobs: shown as a plan, or carried out by an engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from segmed.commands.training import Experiment, Kind, TrainingOptions, carry_out
from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.jobs import EngineName
from segmed.config.reading import classifies, load_written
from segmed.errors import ConfigError
from segmed.files import atomic_write_text
from segmed.jobs.carriers import run_plan, with_given_needs
from segmed.jobs.fold_jobs import plan_of_folds
from segmed.jobs.job import Job, Needs, Plan
from segmed.jobs.job_table import plan_text
from segmed.machine import this_machine
from segmed.runs import Folds, Run, is_run, open_run, read_config

CONFIG = "experiment.yaml"


def train_or_plan(arguments: TrainingOptions, config: Experiment, kind: Kind[Experiment]) -> int:
    """Train in this process, show the plan of an experiment, or carry out its jobs; exit code 1 where one failed."""
    check_submit(arguments.on, submit=arguments.submit)
    if arguments.untested and (arguments.on != "here" or arguments.plan_only):
        raise ConfigError("--untested trains in this process: leave out --on and --plan-only")
    if arguments.on == "here" and not arguments.plan_only:
        carry_out(arguments, config, kind)
        return 0
    if arguments.resume is not None:
        plan = plan_again(arguments.resume)
    else:
        text, decided, memory = kind.look_ahead(_first_fold(config) if arguments.every_fold else config)
        print(text)
        if arguments.plan_only and arguments.on == "here" and not arguments.every_fold and not _composed(decided):
            return 0  # one run, which is one job
        plan = _new_plan(arguments, config, kind, decided=decided, needs=Needs(None, memory, gpus_of_one()))
    if arguments.plan_only:
        print(plan_text(with_given_needs(plan, arguments.jobs)))
        return 0
    return run_plan(plan, arguments.on, arguments.jobs, submit=arguments.submit)


def check_submit(on: EngineName, *, submit: bool) -> None:
    """Refuse `--submit` where nothing is submitted."""
    if submit and on != "slurm":
        raise ConfigError("--submit goes with --on slurm: add it")


def plan_ahead(
    config: Experiment, kind: Kind[Experiment], *, every_fold: bool
) -> Callable[[TrainingOptions, Experiment], Plan]:
    """Look at what an experiment needs, once: what makes the plan of each of its runs, which differ by their seeds."""
    _, decided, memory = kind.look_ahead(_first_fold(config) if every_fold else config)
    return partial(_new_plan, kind=kind, decided=decided, needs=Needs(None, memory, gpus_of_one()))


def plan_again(folder: Path) -> Plan:
    """The jobs of a cross-validation or of a run that was begun; what is done is not done again."""
    if (folder / "jobs" / "plan.json").is_file():
        return Plan.load(folder)
    if (folds := Folds(folder)).begun:
        needs = Needs(gpus=gpus_of_one())
        if classifies(folds.config):
            return plan_of_folds(load_written(ClassificationConfig, folds.config), folds, needs)
        return plan_of_folds(load_written(SegmentationConfig, folds.config), folds, needs)
    run = open_run(folder)
    if classifies(run.config) or not read_config(run).composed:
        raise ConfigError(f"run {folder} is one network, which is one job: leave out --on")
    from segmed.compose.network_jobs import plan_of_networks

    return plan_of_networks(run, read_config(run), Needs(gpus=gpus_of_one()))


def gpus_of_one() -> int:
    """GPUs that a job takes where nothing is said: one, where this machine has any."""
    return 1 if this_machine().device == "cuda" else 0


def _first_fold(config: Experiment) -> Experiment:
    return config.model_copy(update={"split": config.split.model_copy(update={"fold": 0})})


def _composed(config: SegmentationConfig | ClassificationConfig) -> bool:
    return isinstance(config, SegmentationConfig) and config.composed


def _new_plan(
    arguments: TrainingOptions, config: Experiment, kind: Kind[Experiment], *, decided: Experiment, needs: Needs
) -> Plan:
    """The jobs of an experiment; its folder is made, unless the plan is only to be looked at."""
    config = kind.with_absolute_paths(config)  # its jobs run in any folder
    folder = arguments.run_dir
    if arguments.plan_only and folder is None:
        folder = config.runs / (f"{config.title}-folds" if arguments.every_fold else config.title)
    begun = folder is not None and is_run(folder) and (arguments.go_on or arguments.plan_only)
    if arguments.every_fold:
        folds = (
            Folds(folder) if folder is not None and (begun or arguments.plan_only) else kind.begin_folds(config, folder)
        )
        return plan_of_folds(config, folds, needs)
    if isinstance(decided, SegmentationConfig) and decided.composed:
        from segmed.compose.network_jobs import plan_of_networks

        run = Run(folder) if folder is not None and (begun or arguments.plan_only) else kind.start(config, folder)
        return plan_of_networks(run, decided, needs)
    if folder is None:
        raise ConfigError(f"--on {arguments.on} needs --run-dir: name the folder of the run")
    plan = _plan_of_one(config, folder.absolute(), needs)
    if not arguments.plan_only:
        described = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        atomic_write_text(plan.folder / CONFIG, described)
    return plan


def _plan_of_one(config: SegmentationConfig | ClassificationConfig, folder: Path, needs: Needs) -> Plan:
    """One run as a job: its plan lies beside it, for where it is made by the machine that trains."""
    beside = folder.with_name(f"{folder.name}-job")
    command = "train-cls" if isinstance(config, ClassificationConfig) else "train"
    words = ("segmed", command, "--config", str(beside / CONFIG), "--run-dir", str(folder), "--go-on")
    job = Job(folder.name, words, folder=folder, proof=folder / "report.html", needs=needs)
    return Plan(config.title, beside, (job,), words)
