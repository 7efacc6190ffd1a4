"""Folder of a run or of a cross-validation -> the cases that what it predicts with has learnt from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segmed.data.splits import Split
from segmed.runs import Folds


def learned_split(folder: Path) -> Split:
    """The parts of a run, or those of the folds of a cross-validation as one model: a case that one has learnt from is
    learnt, so that the test part is empty as a rule.

    Args:
        folder: of the run or of the cross-validation.

    Raises:
        DatasetError: a split can't be read.
    """
    folds = Folds(folder)
    if not folds.begun:
        return Split.load(folder / "split.json")
    parts = [Split.load(run.split) for run in folds.runs() if run.split.is_file()]
    if not parts:
        return Split((), (), ())
    train = {case for part in parts for case in part.train}
    validation = {case for part in parts for case in part.validation} - train
    test = {case for part in parts for case in part.test} - train - validation
    train_ids, validation_ids, test_ids = (tuple(sorted(cases)) for cases in (train, validation, test))
    return replace(parts[0], train=train_ids, validation=validation_ids, test=test_ids, fold=None)
