"""A classification run, or a cross-validation of one, -> its classified test images, and what they cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from segmed.config.classification import ClassificationConfig
from segmed.config.classifier import BackboneConfig, EncoderClassifierConfig
from segmed.config.reading import classifies, load_written
from segmed.data.images.image_splits import ClassSplit
from segmed.errors import RunError
from segmed.evaluate.classified_images import NOTE, Tested, read_tested
from segmed.evaluate.results import Method, Result
from segmed.metrics.pooling import PoolingRule
from segmed.runs import Folds, Run, read_history, runs_of

TABLE = "predictions.csv"


@dataclass(frozen=True)
class ClassifierRun:
    """One run, one seed of a method.

    Attributes:
        tested: its test images.
        facts: whose they are, what they cost; of its rows only the case is filled in.
        model: in words; None: not known.
        notes: lines that stand in every table of the run.
        pool: how it pools a subject's images.
    """

    tested: Tested
    facts: Result
    model: str | None = None
    notes: tuple[str, ...] = ()
    pool: PoolingRule = "mean"


@dataclass(frozen=True)
class ClassifierMethod:
    """What is compared.

    Attributes:
        name: in tables.
        runs: one a seed, all on the same test images.
    """

    name: str
    runs: tuple[ClassifierRun, ...]

    @property
    def facts(self) -> Method:
        """What is known of its runs but the figures."""
        return Method(self.name, tuple(run.facts for run in self.runs))


def run_of(
    tested: Tested,
    source: str,
    *,
    model: str | None = None,
    notes: Sequence[str] = (),
    pool: PoolingRule = "mean",
    **facts: Any,
) -> ClassifierRun:
    """A run of classified images.

    Args:
        tested: test images.
        source: whose they are, for messages.
        model, notes, pool: as in `ClassifierRun`.
        facts: other fields of `Result`.
    """
    subjects = dict(zip(tested.ids, tested.subjects, strict=True))
    result = Result([{"case": name} for name in tested.ids], source, subjects, **facts)
    return ClassifierRun(tested, result, model, tuple(notes), pool)


def is_classifier(path: Path) -> bool:
    """Whether a folder is that of a classification run, or of a cross-validation of one, tested or not."""
    if (path / "test" / TABLE).is_file():
        return True
    return any(classifies(config) is True for config in (Run(path).config, Folds(path).config) if config.is_file())


def read_classifiers(paths: Mapping[str, Sequence[Path]]) -> tuple[ClassifierMethod, ...]:
    """The runs of every method.

    Args:
        paths: method -> folders of its runs.

    Raises:
        RunError: one is no classification run, or has no finished test.
        RunError: a damaged table.
        ConfigError, DatasetError: a damaged config or split.
    """
    classified = {path: is_classifier(path) for own in paths.values() for path in own}
    if not all(classified.values()):
        one, other = (next(path for path, own in classified.items() if own == kind) for kind in (True, False))
        raise RunError(f"{one} classifies images, {other} does not: compare classifiers with each other alone")
    return tuple(ClassifierMethod(name, tuple(read_classifier(path) for path in own)) for name, own in paths.items())


def read_classifier(path: Path) -> ClassifierRun:
    """The test images of a run or of a cross-validation, and what they cost.

    Raises:
        RunError, ConfigError, DatasetError: as in `read_classifiers`.
    """
    table = path / "test" / TABLE
    if not table.is_file():
        raise RunError(f"run {path} has no finished test: go on with python tools/train_cls.py --resume {path}")
    tested, parts = read_tested(table), _parts(path)
    config = load_written(ClassificationConfig, parts[0].config) if parts else None
    facts: dict[str, Any] = {}
    if config is not None:
        facts = {
            "training_minutes": _minutes(parts),
            "budget": _budget(config),
            "seed": config.seed,
            "training": tuple(frozenset(ClassSplit.load(part.split).train) for part in parts),
            "device": _json(parts[0].environment).get("device"),
        }
    pool = _json(table.with_name("figures.json")).get("pool")
    return run_of(
        tested,
        str(path),
        model=None if config is None else _model(config),
        notes=read_notes(table),
        pool=cast(PoolingRule, pool) if pool in get_args(PoolingRule) else "mean",
        **facts,
    )


def read_notes(path: Path) -> tuple[str, ...]:
    """The notes above the header of a table."""
    notes = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith(NOTE):
                break
            notes.append(line.removeprefix(NOTE).strip())
    return tuple(notes)


def _parts(path: Path) -> tuple[Run, ...]:
    """The run itself, or the folds of a cross-validation; empty where only its table is there."""
    parts = runs_of(path)
    return parts if all(part.config.is_file() for part in parts) else ()


def _minutes(parts: Sequence[Run]) -> float | None:
    """Of training and validation of all folds together, as history.csv counts them; None where one does not."""
    found = [[value for _, value in read_history(part.path / "history.csv").get("minutes", ())] for part in parts]
    return math.fsum(max(values) for values in found) if all(found) else None


def _budget(config: ClassificationConfig) -> str:
    """How long training may take, and how large its steps are."""
    train = config.train
    images = f"of {train.batch_size} images"
    if train.budget_minutes is not None:
        return f"{train.budget_minutes:g} minutes, steps {images}"
    if isinstance(train.steps_per_epoch, int):
        return f"{train.epochs * train.steps_per_epoch} steps {images}"
    return f"{train.epochs} epochs, steps {images}"


def _model(config: ClassificationConfig) -> str:
    model = config.network
    if isinstance(model, EncoderClassifierConfig):
        return f"{model.encoder.name} encoder"
    return model.architecture if isinstance(model, BackboneConfig) else model.name


def _json(path: Path) -> dict[str, Any]:
    """Empty where the file is missing or damaged: what it says is of use, but nothing depends on it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
