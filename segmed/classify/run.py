"""A classification experiment: run, resume, plan, cross-validate."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightning_fabric import Fabric

from segmed.classify.calibrate import calibrate_folds
from segmed.classify.prepare import describe, prepare, start, with_absolute_paths
from segmed.classify.test import final_figures, run_test, sum_up
from segmed.classify.train import Training
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import load_written
from segmed.evaluate.answers import Answers
from segmed.metrics.class_figures import VALIDATED
from segmed.reports.classification.page import write_classification_page
from segmed.reports.classification.text import classification_text
from segmed.reports.segmentation.page import write_report
from segmed.runs import (
    Folds,
    Run,
    check_data_there,
    holding,
    is_run,
    kept_if_begun,
    new_folds,
    open_run,
    read_class_config,
)
from segmed.training.fit_state import FitState
from segmed.training.folds import run_folds
from segmed.training.hyper_parameters import telling_settings
from segmed.training.launch import launch, open_tracker, require_one_process
from segmed.training.ranks import Ranks
from segmed.training.tracking import Tracker


def run(config: ClassificationConfig, folder: Path | None) -> None:
    """Plan, train and test one experiment in a new run folder."""
    fabric, ranks = _launch()
    train_and_test(start(config, folder), fabric, ranks, resume=False)


def resume(folder: Path) -> None:
    """Resume a run or a cross-validation that was stopped; the result is the same as without the stop."""
    if (folds := Folds(folder)).begun:
        _run_folds(load_written(ClassificationConfig, folds.config), folds)
        return
    run = open_run(folder)
    if run.finished:
        print(f"run {folder} is finished, nothing is left to do: {run.page}")
        return
    data = read_class_config(run).data
    if data.layout.name != "phantom":  # which is made where it is not there
        check_data_there(run, data.root)
    train_and_test(run, *_launch(), resume=True)


def train_untested(config: ClassificationConfig, folder: Path | None, *, go_on: bool, every_fold: bool = False) -> None:
    """Train in a new run folder, or go on with it, and test nothing: `resume` does that, once.

    Args:
        config: of the experiment.
        folder: of the run.
        go_on: with what was begun there.
        every_fold: train one network for each fold.
    """
    begun = go_on and folder is not None and is_run(folder)
    fabric, ranks = _launch()
    work = partial(_train_alone, fabric=fabric, ranks=ranks)
    if every_fold:
        folds = Folds(folder) if begun and folder is not None else begin_folds(config, folder)
        with holding(folds.path):
            run_folds(load_written(ClassificationConfig, folds.config), folds, start=start, train_and_test=work)
        return
    run = open_run(folder) if begun and folder is not None else start(config, folder)
    work(run, resume=begun)


def _train_alone(run: Run, fabric: Fabric, ranks: Ranks, *, resume: bool) -> None:
    """Train what the run folder says, and test nothing."""
    with holding(run.path):
        tracker, step = open_tracker(run, ranks, resume=resume)
        with tracker:
            Training(run, fabric, ranks).fit(tracker, resume=step > 0)
            tracker.line(f"trained, not tested: segmed train-cls --resume {run.path} tests it")


def show_plan(config: ClassificationConfig) -> None:
    """Print what would be trained on what, and why."""
    print(look_ahead(config)[0])


def look_ahead(config: ClassificationConfig) -> tuple[str, ClassificationConfig, int | None]:
    """What would be trained on what, and why; the config; the memory that it needs is not known."""
    return "\n".join(describe(prepare(config))), config, None


def begin_folds(config: ClassificationConfig, folder: Path | None) -> Folds:
    """Make the folder of a cross-validation."""
    return new_folds(with_absolute_paths(config), folder)


def cross_validate(config: ClassificationConfig, folder: Path | None) -> None:
    """Train and test every fold, and sum up over all images: each is tested once, by a model that never saw it."""
    folds = begin_folds(config, folder)
    with kept_if_begun(folds):
        _run_folds(load_written(ClassificationConfig, folds.config), folds)


def train_and_test(run: Run, fabric: Fabric, ranks: Ranks, *, resume: bool) -> Answers | None:
    """Train what the run folder says, then test it once; None where the split has no test part."""
    with holding(run.path):
        tracker, step = open_tracker(run, ranks, resume=resume, services=read_class_config(run).train.trackers)
        with tracker:
            training = Training(run, fabric, ranks)
            return _test(training, tracker, training.fit(tracker, resume=step > 0))


def _test(training: Training, tracker: Tracker, state: FitState) -> Answers | None:
    """Test the trained network where there is a test part, and print where the results are."""
    run, config, images = training.run, training.config, training.images
    test = None
    metrics = {} if state.best_score is None else {f"validation/best_{config.train.select}": abs(state.best_score)}
    if images.split.test:
        test, summary, pictures = run_test(run, config, images, device=str(training.fabric.device))
        tracker.line(classification_text(summary))
        tracker.pictures(state.step, pictures)
        figures = final_figures(summary)
        tracker.test(state.step, {name: value for name, value in figures.items() if name not in VALIDATED})
        metrics |= {f"test/{name}": figures[name] for name in VALIDATED if name in figures}
    else:
        tracker.line("no test part: nothing is tested")
    tracker.hyper_parameters(state.step, telling_settings(config), metrics)
    page = write_report(run.path) if test is None else write_classification_page(run.path)
    tracker.line(f"run:      {run.path}")
    tracker.line(f"look:     tensorboard --logdir {run.path.parent}    or open {page}")
    tracker.line(f"classify: segmed classify --run {run.path} --input FILE_OR_FOLDER --output FILE.csv")
    return test


def _run_folds(config: ClassificationConfig, folds: Folds) -> None:
    """Train and test the folds that are not done, and sum up."""
    fabric, ranks = _launch()
    work = partial(train_and_test, fabric=fabric, ranks=ranks)
    with holding(folds.path):
        tests = run_folds(config, folds, start=start, train_and_test=work)
        sum_up(config, folds, [test for test in tests if test is not None])
        calibrate_folds(folds)
    print(f"folds: {folds.path}")


def _launch() -> tuple[Fabric, Ranks]:
    """The one process that a classifier trains on.

    Raises:
        TrainingError: there are several.
    """
    fabric, ranks = launch(1)
    require_one_process(ranks, "classifiers train on one process: start without torchrun")
    return fabric, ranks
