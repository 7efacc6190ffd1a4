"""One experiment: from a config to a run folder with weights, test figures and label maps."""

from __future__ import annotations

from pathlib import Path

from lightning_fabric import Fabric

from segmed.builders.datasets import build_dataset
from segmed.compose.train import start_composite, train_composite
from segmed.config import SegmentationConfig
from segmed.config.reading import load_written
from segmed.errors import DatasetError
from segmed.evaluate.case_rows import Row
from segmed.holding import holding
from segmed.reports.segmentation.files import write_evaluation
from segmed.reports.segmentation.tables import table_text
from segmed.runs import Folds, Run, new_folds, open_run, read_config
from segmed.segment.prepare import launch, prepare, start, train_and_test, with_absolute_paths
from segmed.training.ranks import Ranks


def run(config: SegmentationConfig, folder: Path | None) -> int:
    """Plan, train and test one experiment in a new run folder."""
    fabric, ranks = launch(config)
    made = Run(ranks.lead(lambda: _begin(config, folder, processes=ranks.world).path))
    _go_on(made, fabric, ranks, resume=False)
    return 0


def resume(folder: Path) -> int:
    """Go on with a run, or with a cross-validation, that was stopped; the result is that of one never stopped."""
    if (folds := Folds(folder)).begun:
        return _run_folds(load_written(SegmentationConfig, folds.config), folds)
    made = open_run(folder)
    if made.finished:
        print(f"run {folder} is finished, nothing is left to do: {made.page}")
        return 0
    fabric, ranks = launch(read_config(made))
    _go_on(made, fabric, ranks, resume=True)
    return 0


def _begin(config: SegmentationConfig, folder: Path | None, *, processes: int = 1) -> Run:
    """The folder of a run of one network, or of several."""
    return start_composite(config, folder) if config.composed else start(config, folder, processes=processes)


def _go_on(made: Run, fabric: Fabric, ranks: Ranks, *, resume: bool) -> list[Row]:
    """Train and test what a run folder describes."""
    work = train_composite if read_config(made).composed else train_and_test
    with holding(made.path, leads=ranks.leads):
        return work(made, fabric, ranks, resume=resume)


def show_plan(config: SegmentationConfig) -> int:
    """Print the plan of an experiment with its reasons."""
    *_, plan = prepare(config)
    print(plan)
    return 0


def cross_validate(config: SegmentationConfig, folder: Path | None) -> int:
    """Train and test every fold, and sum up over all cases: each was tested once, by a model that never saw it."""
    config = with_absolute_paths(config)
    return _run_folds(config, new_folds(config, folder))


def _run_folds(config: SegmentationConfig, folds: Folds) -> int:
    """The folds one after the other; those that are done are only tested again."""
    fabric, ranks = launch(config)
    if ranks.world > 1:
        raise DatasetError("folds run one after the other on one process: start each with --fold under torchrun")
    with holding(folds.path):
        _train_folds(config, folds, fabric, ranks)
    return 0


def _train_folds(config: SegmentationConfig, folds: Folds, fabric: Fabric, ranks: Ranks) -> None:
    rows: list[Row] = []
    subjects: dict[str, str] = {}
    for fold, part in enumerate(folds.runs()):
        print(f"fold {fold + 1} of {config.split.folds}")
        begun = part.config.is_file()
        if not begun:
            split = config.split.model_copy(update={"fold": fold})
            part = _begin(config.model_copy(update={"split": split}), part.path)
        rows += _go_on(part, fabric, ranks, resume=begun)
        subjects |= {case.id: case.subject for case in build_dataset(read_config(part)).cases}
    title = f"{config.title}, {config.split.folds} folds"
    summary = write_evaluation(
        rows,
        folds.test,
        title=title,
        config=config.evaluate,
        subjects={row["case"]: subjects[row["case"]] for row in rows},
    )
    print(table_text(summary))
    if config.classification is not None:
        _sum_up_classes(config, folds, title=f"{title}: classes")
    print(f"folds: {folds.path}")


def _sum_up_classes(config: SegmentationConfig, folds: Folds, *, title: str) -> None:
    """What the second heads of all folds told of their test cases, as one test."""
    from segmed.classify.test import joined
    from segmed.evaluate.answers import read_answers
    from segmed.reports.classification.case_classes import TABLE, write_case_classes
    from segmed.reports.classification.text import classification_text

    tables = [part.test / TABLE for part in folds.runs()]
    tests = [read_answers(table) for table in tables if table.is_file()]
    if tests:
        together, bootstrap = joined(tests), config.evaluate.bootstrap
        summary = write_case_classes(together, None, folds.test, title=title, bootstrap=bootstrap)
        print(classification_text(summary))
