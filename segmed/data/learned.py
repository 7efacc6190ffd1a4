"""Folder of a run or of a cross-validation -> the cases that what it predicts with has learnt from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segmed.config.reading import load_yaml
from segmed.data.splits import Split
from segmed.errors import ConfigError, DatasetError
from segmed.runs import Folds, Run


def learned_split(folder: Path) -> Split:
    """The parts of a run, or those of the folds of a cross-validation as one model: a case that one has learnt from is
    learnt, so that the test part is empty as a rule. So is a case that gave the run its first weights.

    Args:
        folder: of the run or of the cross-validation.

    Raises:
        DatasetError: a split can't be read.
    """
    folds = Folds(folder)
    if not folds.begun:
        return _with_first_weights(folder, Split.load(folder / "split.json"))
    parts = [_with_first_weights(run.path, Split.load(run.split)) for run in folds.runs() if run.split.is_file()]
    if not parts:
        return Split((), (), ())
    train = {case for part in parts for case in part.train}
    validation = {case for part in parts for case in part.validation} - train
    test = {case for part in parts for case in part.test} - train - validation
    train_ids, validation_ids, test_ids = (tuple(sorted(cases)) for cases in (train, validation, test))
    return replace(parts[0], train=train_ids, validation=validation_ids, test=test_ids, fold=None)


def learned_before(folder: Path, root: Path) -> frozenset[str]:
    """Cases of a data set that a run has learnt from or was selected on, or a run whose weights it began with, or that
    one with, and so on, as far as their folders are there.

    Args:
        folder: of the run.
        root: of the data set; cases of runs on other folders have nothing to do with it.

    Raises:
        DatasetError: what one of them says of itself can't be read.
    """
    cases, seen = set[str](), set[Path]()
    next_one: Path | None = folder
    while next_one is not None and (run := Run(next_one)).config.is_file() and run.path.resolve() not in seen:
        seen.add(run.path.resolve())
        try:
            config = load_yaml(run.config)
            if run.split.is_file() and _root(run, config).resolve() == root.resolve():
                parts = json.loads(run.split.read_text(encoding="utf-8"))
                cases.update(name for part in ("train", "validation") for name in parts.get(part, ()))
        except (ConfigError, OSError, ValueError, AttributeError) as error:
            raise DatasetError(
                f"run {run.path} gave the first weights, and its config or split is damaged: put it back, or move the "
                "folder away"
            ) from error
        next_one = _began_with(config)
    return frozenset(cases)


def of_first_weights(folder: Path) -> frozenset[str]:
    """Cases of the data set of a run from which its first weights have learnt; none where it began with random ones.

    Args:
        folder: of the run.

    Raises:
        DatasetError: as `learned_before`.
    """
    run = Run(folder)
    config = load_yaml(run.config) if run.config.is_file() else {}
    source = _began_with(config)
    return learned_before(source, _root(run, config)) if source else frozenset()


def _began_with(config: Mapping[str, Any]) -> Path | None:
    source = config.get("init_network") or config.get("init_encoder")
    return Path(str(source)) if source else None


def _root(run: Run, config: Mapping[str, Any]) -> Path:
    """Folder of the data of a run; of a network of a cascade or an ensemble, that of the whole."""
    whole = Run(run.path.absolute()).whole
    if whole != run.path.absolute():
        config = load_yaml(Folds(whole).config if Folds(whole).begun else Run(whole).config)
    return Path(str(config.get("data", {}).get("root", "")))


def _with_first_weights(folder: Path, split: Split) -> Split:
    """The parts of a run, with the cases from which its first weights come in the training part."""
    before = of_first_weights(folder)
    new = sorted(before.difference(split.train, split.validation))
    test = tuple(case for case in split.test if case not in before)
    return replace(split, train=(*split.train, *new), test=test)
