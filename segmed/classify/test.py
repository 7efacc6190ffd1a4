"""One classification experiment: from a config to a run folder with weights, figures and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from segmed.builders.trained import load_classifier
from segmed.classify.prepare import describe, prepare, start, with_absolute_paths
from segmed.classify.train import ClassSession
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import load_written
from segmed.data.images.image_dataset import read_classes
from segmed.data.images.image_splits import ClassSplit
from segmed.evaluate.classified_images import Tested
from segmed.evaluate.explanations import explain_images
from segmed.holding import holding
from segmed.reports.classification.files import draw_classification, write_classification
from segmed.reports.classification.maps import write_maps
from segmed.reports.classification.page import write_classification_page
from segmed.reports.classification.text import classification_text
from segmed.reports.segmentation.page import write_report
from segmed.runs import Folds, Run, new_folds, open_run, read_class_config
from segmed.training.checkpoint import Checkpoints
from segmed.training.ranks import Ranks
from segmed.training.tracking import RunTracker


def run(config: ClassificationConfig, folder: Path | None) -> int:
    """Plan, train and test one experiment in a new run folder."""
    train_and_test(start(config, folder), resume=False)
    return 0


def resume(folder: Path) -> int:
    """Go on with a run, or with a cross-validation, that was stopped; the result is that of one never stopped."""
    if (folds := Folds(folder)).begun:
        return _run_folds(load_written(ClassificationConfig, folds.config), folds)
    made = open_run(folder)
    if made.finished:
        print(f"run {folder} is finished, nothing is left to do: {made.page}")
        return 0
    train_and_test(made, resume=True)
    return 0


def show_plan(config: ClassificationConfig) -> int:
    """Print what would be trained on what, and why."""
    print("\n".join(describe(prepare(config))))
    return 0


def cross_validate(config: ClassificationConfig, folder: Path | None) -> int:
    """Train and test every fold, and sum up over all images: each was tested once, by a model that never saw it."""
    config = with_absolute_paths(config)
    return _run_folds(config, new_folds(config, folder))


def _run_folds(config: ClassificationConfig, folds: Folds) -> int:
    """The folds one after the other; those that are done are only tested again."""
    with holding(folds.path):
        _train_folds(config, folds)
    return 0


def _train_folds(config: ClassificationConfig, folds: Folds) -> None:
    tests: list[Tested] = []
    notes: dict[str, None] = {}
    for fold, part in enumerate(folds.runs()):
        print(f"fold {fold + 1} of {config.split.folds}")
        begun = part.config.is_file()
        if not begun:
            split = config.split.model_copy(update={"fold": fold})
            part = start(config.model_copy(update={"split": split}), part.path)
        if (test := train_and_test(part, resume=begun)) is not None:
            tests.append(test)
        notes |= dict.fromkeys(notes_of(part))
    together = joined(tests)
    title = f"{config.title}, {config.split.folds} folds"
    remark = "thresholds and temperatures of the folds differ: over all folds the most probable class is the answer"
    summary = write_classification(
        together, None, folds.test, config=config.evaluate, title=title, notes=[*notes, remark], load=None
    )
    print(classification_text(summary))
    print(f"folds: {folds.path}")


def joined(tests: Sequence[Tested]) -> Tested:
    """Test parts of several folds as one."""
    return Tested(
        classes=tests[0].classes,
        ids=tuple(name for test in tests for name in test.ids),
        subjects=tuple(name for test in tests for name in test.subjects),
        truth=np.concatenate([test.truth for test in tests]),
        logits=np.concatenate([test.logits for test in tests]),
    )


def notes_of(made: Run) -> tuple[str, ...]:
    """Lines that must stand in every table of a run."""
    return tuple(json.loads(made.plan.read_text(encoding="utf-8")).get("notes", ()))


def train_and_test(made: Run, *, resume: bool) -> Tested | None:
    """Train from what the run folder says, then test once; None where the split has no test part."""
    with holding(made.path):
        return _train_and_test(made, resume=resume)


def _train_and_test(made: Run, *, resume: bool) -> Tested | None:
    config, split = read_class_config(made), ClassSplit.load(made.split)
    fabric = Fabric(accelerator="cuda" if torch.cuda.is_available() else "cpu", devices=1)
    ranks = Ranks()
    dataset = read_classes(config.data)
    checkpoints = Checkpoints(
        made.path, ranks=ranks, metadata={"network": config.network.name, "classes": ",".join(dataset.classes)}
    )
    step = checkpoints.last_step() if resume else 0
    with RunTracker(made.path, step=step) as tracker:
        tracker.line(f"run: {made.path}")
        session = ClassSession(made, config, dataset, split, fabric=fabric, checkpoints=checkpoints)
        state = session.train(tracker, resume=step > 0)
        test, summary = _test(made, session, tracker) if split.test else (None, None)
        tracker.line("no test part: nothing is tested" if summary is None else classification_text(summary))
        figures = {} if summary is None else {f"test/{name}": value for name, value in _overall(summary).items()}
        tracker.hyper_parameters(session.config.model_dump(mode="json"), {**state.best_metrics, **figures})
        page = write_report(made.path) if test is None else write_classification_page(made.path)
        tracker.line(f"run:      {made.path}")
        tracker.line(f"look:     tensorboard --logdir {made.path.parent}    or open {page}")
        tracker.line(f"classify: python tools/classify.py --run {made.path} --input FILE_OR_FOLDER --output FILE.csv")
    return test


def _test(made: Run, session: ClassSession, tracker: RunTracker) -> tuple[Tested, dict[str, Any]]:
    """Classify validation and test part with the best weights; figures, tables and pictures of the test part."""
    config, notes = session.config, notes_of(made)
    network = load_classifier(made.path, device=str(session.fabric.device))
    validation = session.tested(network, "validation") if session.split.validation else None
    test = session.tested(network, "test")
    given: dict[str, Any] = {"config": config.evaluate, "load": session.image}
    summary = write_classification(test, validation, made.test, title=config.title, notes=notes, **given)
    pictures = draw_classification(test, summary, **given)
    explained = explain_images(network, test, session.image, most=config.evaluate.maps)
    maps = write_maps(test, explained, made.test, title=config.title, notes=notes)
    if maps is not None:
        pictures["maps"] = maps
    tracker.pictures("test", pictures)
    return test, summary


def _overall(summary: Mapping[str, Any]) -> dict[str, float]:
    """Figures by image that exist, by name."""
    found = {name: figure["value"] for name, figure in summary["image"]["overall"].items()}
    return {name: float(value) for name, value in found.items() if value is not None}
