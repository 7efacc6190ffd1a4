"""Train an experiment from a script, as the command line does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import classifies, load_as, set_values, validate

PathLike = Path | str
Experiment = SegmentationConfig | ClassificationConfig


def train(
    experiment: Experiment | PathLike, run_dir: PathLike | None = None, *, overrides: Mapping[str, Any] | None = None
) -> Path:
    """Plan, train and test an experiment in a new run folder, as `segmed train` and `segmed train-cls` do.

        >>> run = segmed.train("phantom", "runs/first", overrides=tiny)
        >>> (run / "report.html").is_file()
        True

    Args:
        experiment: a config, a YAML file, or the name of a shipped one.
        run_dir: the folder; none: a new one below the experiment's `runs`.
        overrides: dotted name -> value, in place of what the experiment says.

    Returns:
        The run's folder.

    Raises:
        ValueError: one line that says what can't be used, where, and what to do.
    """
    run = start(experiment, run_dir, overrides=overrides)
    resume(run)
    return run


def start(
    experiment: Experiment | PathLike, run_dir: PathLike | None = None, *, overrides: Mapping[str, Any] | None = None
) -> Path:
    """Make the run folder of an experiment: files are checked, split and planned, nothing is trained.

        >>> second = segmed.start("phantom", "runs/second", overrides=tiny)
        >>> (second / "plan.json").is_file(), (second / "weights").exists()
        (True, False)

    Arguments, result and errors are those of `train`.
    """
    config = experiment_of(experiment, overrides)
    folder = None if run_dir is None else Path(run_dir)
    if isinstance(config, ClassificationConfig):
        from segmed.classify.prepare import start as start_classification

        return start_classification(config, folder).path
    from segmed.compose.run import start as start_segmentation

    return start_segmentation(config, folder).path


def resume(run: PathLike) -> None:
    """Resume a run until it is trained and tested; the result is the same as without the stop.

        >>> segmed.resume(run)  # a finished run: nothing is left to do

    Args:
        run: a folder that `start`, `train` or a command line has made.

    Raises:
        RunError: no run.
    """
    folder = Path(run)
    if classifies(folder / "config.yaml"):
        from segmed.classify.run import resume as resume_classification

        resume_classification(folder)
    else:
        from segmed.compose.run import resume as resume_segmentation

        resume_segmentation(folder)


def plan(experiment: Experiment | PathLike, *, overrides: Mapping[str, Any] | None = None) -> None:
    """Print what would be trained on what, every value with its reason; nothing is written.

        >>> segmed.plan("phantom", overrides=tiny)

    Arguments and errors are those of `train`.
    """
    config = experiment_of(experiment, overrides)
    if isinstance(config, ClassificationConfig):
        from segmed.classify.run import show_plan as show_classification

        show_classification(config)
    else:
        from segmed.compose.run import show_plan as show_segmentation

        show_segmentation(config)


def experiment_of(experiment: Experiment | PathLike, overrides: Mapping[str, Any] | None) -> Experiment:
    """A config, or what a file or the name of a shipped one says, with some values in place of its own."""
    if isinstance(experiment, (str, Path)):
        if classifies(Path(experiment)):
            return load_as(ClassificationConfig, experiment, dict(overrides or {}))
        return load_as(SegmentationConfig, experiment, dict(overrides or {}))
    if not overrides:
        return experiment
    data = experiment.model_dump()
    set_values(data, overrides, type(experiment))
    return validate(type(experiment), data, where="overrides")
