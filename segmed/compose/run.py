"""A segmentation experiment, of one network or of several: run, resume, plan, cross-validate."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightning_fabric import Fabric

from segmed.builders.datasets import build_dataset
from segmed.compose import prepare as several_networks
from segmed.compose.train import train_networks
from segmed.compose.train import train_part as train_one
from segmed.config import SegmentationConfig
from segmed.config.reading import load_written
from segmed.data.splits import Split
from segmed.errors import ConfigError, RunError
from segmed.evaluate.case_rows import Row
from segmed.reports.classification.text import classification_text
from segmed.reports.segmentation.page import write_report
from segmed.reports.segmentation.tables import table_text
from segmed.runs import Folds, Run, check_data_there, holding, is_run, kept_if_begun, new_folds, open_run, read_config
from segmed.segment import prepare as one_network
from segmed.segment.calibrate import calibrate_folds
from segmed.segment.ensemble import choose_together
from segmed.segment.prepare import with_absolute_paths
from segmed.segment.test import final_figures, keep_rows, kept_rows, look_at, run_test, sum_up
from segmed.segment.train import Training
from segmed.training.fit_state import FitState
from segmed.training.folds import run_folds
from segmed.training.hyper_parameters import telling_settings
from segmed.training.launch import launch, open_tracker, require_one_process
from segmed.training.ranks import Ranks
from segmed.training.tracking import Tracker


def run(config: SegmentationConfig, folder: Path | None) -> None:
    """Plan, train and test one experiment in a new run folder."""
    fabric, ranks = launch(config.train.devices)
    run = Run(ranks.lead(lambda: start(config, folder, processes=ranks.world).path))
    train_and_test(run, fabric, ranks, resume=False)


def resume(folder: Path) -> None:
    """Resume a run or a cross-validation that was stopped; the result is the same as without the stop."""
    if (folds := Folds(folder)).begun:
        _run_folds(load_written(SegmentationConfig, folds.config), folds)
        return
    run = open_run(folder)
    if run.finished:
        if not any(run.path.rglob(run.weights().name)):
            raise RunError(
                f"run {folder} is finished, but its weights are gone: copy them back, or train it again in another "
                f"folder: segmed train --config {run.config} --run-dir FOLDER"
            )
        print(f"run {folder} is finished, nothing is left to do: {run.page}")
        return
    data = read_config(run).data
    if data.layout.name != "phantom":  # which is made where it is not there
        check_data_there(run, data.root)
    train_and_test(run, *launch(read_config(run).train.devices), resume=True)


def train_part(folder: Path, name: str) -> None:
    """Train one network of a run of several, as `coarse/axial`; what it needs is trained before, and nothing is tested.

    Raises:
        RunError: no such run, or no such part.
    """
    run = open_run(folder)
    train_one(run, name, *launch(read_config(run).train.devices))


def train_untested(config: SegmentationConfig, folder: Path | None, *, go_on: bool, every_fold: bool = False) -> None:
    """Train one network in a new run folder, or go on with it, and test nothing: `resume` does that, once.

    Args:
        config: of the experiment.
        folder: of the run.
        go_on: with what was begun there.
        every_fold: train one for each fold.

    Raises:
        ConfigError: it is one of several networks.
    """
    if config.composed:
        raise ConfigError("--untested is of one network: use --part for those of a cascade or an ensemble")
    if every_fold:
        _train_folds(config, folder, go_on=go_on)
        return
    begun = go_on and folder is not None and is_run(folder)
    fabric, ranks = launch(config.train.devices)
    if not begun:
        folder = ranks.lead(lambda: start(config, folder, processes=ranks.world).path)
    _train_alone(open_run(Path(str(folder))), fabric, ranks, resume=begun)


def _train_folds(config: SegmentationConfig, folder: Path | None, *, go_on: bool) -> None:
    """Train the folds one after the other, and test nothing."""
    begun = go_on and folder is not None and Folds(folder).begun
    folds = Folds(folder) if begun and folder is not None else begin_folds(config, folder)
    fabric, ranks = launch(config.train.devices)
    require_one_process(ranks, "folds run one after the other on one process: start each with --fold under torchrun")
    with holding(folds.path):
        common = load_written(SegmentationConfig, folds.config)
        run_folds(common, folds, start=start, train_and_test=partial(_train_alone, fabric=fabric, ranks=ranks))


def _train_alone(run: Run, fabric: Fabric, ranks: Ranks, *, resume: bool) -> None:
    """Train what the run folder says, and test nothing."""
    with holding(run.path, leads=ranks.leads):
        tracker, step = open_tracker(run, ranks, resume=resume)
        with tracker:
            Training(run, fabric, ranks).fit(tracker, resume=step > 0)
            tracker.line(f"trained, not tested: segmed train --resume {run.path} tests it")


def show_plan(config: SegmentationConfig) -> None:
    """Print the plan of an experiment with its reasons."""
    print(look_ahead(config)[0])


def look_ahead(config: SegmentationConfig) -> tuple[str, SegmentationConfig, int | None]:
    """The plan of an experiment with its reasons, its config as far as that is decided, and the bytes that it needs.

    Of several networks each is planned when it begins: views are decided, memory is not known.
    """
    ready = one_network.prepare(config)
    if config.composed:
        whole = several_networks.composed(ready)
        return str(whole), whole.config, None
    plan = one_network.planned(ready)
    return str(plan), plan.config, plan.memory_bytes


def begin_folds(config: SegmentationConfig, folder: Path | None) -> Folds:
    """Make the folder of a cross-validation."""
    return new_folds(with_absolute_paths(config), folder)


def cross_validate(config: SegmentationConfig, folder: Path | None) -> None:
    """Train and test every fold, and sum up over all cases: each is tested once, by a model that never saw it."""
    folds = begin_folds(config, folder)
    with kept_if_begun(folds):
        _run_folds(load_written(SegmentationConfig, folds.config), folds)


def start(config: SegmentationConfig, folder: Path | None, *, processes: int = 1) -> Run:
    """Make the folder of a run of one network, or of several."""
    return (
        several_networks.start(config, folder)
        if config.composed
        else one_network.start(config, folder, processes=processes)
    )


def train_and_test(run: Run, fabric: Fabric, ranks: Ranks, *, resume: bool) -> list[Row]:
    """Train what the run folder says, then test it once; the rows of the test, on the leading process."""
    config = read_config(run)
    several = config.composed
    with holding(run.path, leads=ranks.leads):
        if several:
            train_networks(run, fabric, ranks)  # each with a tracker of its own
        tracker, step = open_tracker(run, ranks, resume=resume, services=config.train.trackers)
        with tracker:
            state = FitState() if several else Training(run, fabric, ranks).fit(tracker, resume=step > 0)
            return _test(run, tracker, state, device=str(fabric.device)) if ranks.leads else []


def _test(run: Run, tracker: Tracker, state: FitState, *, device: str) -> list[Row]:
    """Test a trained run where it has a test part, and print where the results are; the rows of the test."""
    config, split = read_config(run), Split.load(run.split)
    rows: list[Row] = []
    look = None
    metrics = {} if state.best_score is None else {"validation/best_dice": state.best_score}
    if split.test:
        dataset = build_dataset(config)
        rows, summary, pictures = run_test(run, config, dataset, split, device=device)
        look = look_at(run, dataset, split)
        keep_rows(run, rows)
        tracker.line(table_text(summary))
        if "classification" in summary:
            tracker.line(classification_text(summary["classification"]))
        tracker.test(state.step, final_figures(summary))
        tracker.pictures(state.step, pictures)
        if (dice := summary["mean"]["dice"]["mean"]) is not None:
            metrics["test/dice"] = dice
    else:
        tracker.line("no test part: nothing is tested")
    tracker.hyper_parameters(state.step, telling_settings(config), metrics)
    page = write_report(run.path, look)
    tracker.line(f"run:     {run.path}")
    tracker.line(f"look:    tensorboard --logdir {run.path.parent}    or open {page}")
    tracker.line(f"predict: segmed predict --run {run.path} --input FILE_OR_FOLDER --output FOLDER")
    return rows


def _run_folds(config: SegmentationConfig, folds: Folds) -> None:
    """Train and test the folds that are not done, sum up, and choose how they predict as one."""
    fabric, ranks = launch(config.train.devices)
    require_one_process(ranks, "folds run one after the other on one process: start each with --fold under torchrun")

    def work(run: Run, *, resume: bool) -> list[Row]:
        rows = kept_rows(run) if run.finished else None  # tested as a job of its own, or before a stop
        return train_and_test(run, fabric, ranks, resume=resume) if rows is None else rows

    with holding(folds.path):
        parts = run_folds(config, folds, start=start, train_and_test=work)
        sum_up(config, folds, [row for rows in parts for row in rows])
        choose_together(config, folds, parts, device=str(fabric.device))
        calibrate_folds(folds, device=str(fabric.device))
    print(f"folds: {folds.path}")
