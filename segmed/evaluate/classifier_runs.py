"""A classification run, or a cross-validation of one -> its answers to the test images, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from segmed.config.classification import ClassificationConfig
from segmed.config.classifier import BackboneConfig, EncoderClassifierConfig
from segmed.config.reading import classifies, load_written
from segmed.data.images.image_splits import ClassSplit
from segmed.errors import RunError
from segmed.evaluate.answers import Answers, read_answers, read_notes
from segmed.evaluate.results import Method, Result, json_facts, minutes_of
from segmed.metrics.pooling import PoolingRule
from segmed.runs import Folds, Run, runs_of

TABLE = "predictions.csv"


@dataclass(frozen=True)
class ClassifierRun:
    """One run, one seed of a method.

    Attributes:
        answers: its test images.
        facts: whose they are, what they cost; of its rows only the case is filled in.
        model: in words; None: not known.
        notes: lines that stand in every table of the run.
        pool: how it pools a subject's images.
    """

    answers: Answers
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
        """Costs, seeds and training parts of its runs, without figures."""
        return Method(self.name, tuple(run.facts for run in self.runs))


def run_of(
    answers: Answers,
    source: str,
    *,
    model: str | None = None,
    notes: Sequence[str] = (),
    pool: PoolingRule = "mean",
    **facts: Any,
) -> ClassifierRun:
    """A run with its answers.

    Args:
        answers: test images.
        source: whose they are, for messages.
        model, notes, pool: as in `ClassifierRun`.
        facts: other fields of `Result`.
    """
    subjects = dict(zip(answers.ids, answers.subjects, strict=True))
    result = Result([{"case": name} for name in answers.ids], source, subjects, **facts)
    return ClassifierRun(answers, result, model, tuple(notes), pool)


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
    kinds = {path: is_classifier(path) for own in paths.values() for path in own}
    if not all(kinds.values()):
        one, other = (next(path for path, own in kinds.items() if own == kind) for kind in (True, False))
        raise RunError(f"{one} classifies images, {other} does not: compare classifiers with each other alone")
    return tuple(ClassifierMethod(name, tuple(read_classifier(path) for path in own)) for name, own in paths.items())


def read_classifier(path: Path) -> ClassifierRun:
    """The test images of a run or of a cross-validation, and what they cost.

    Raises:
        RunError, ConfigError, DatasetError: as in `read_classifiers`.
    """
    table = path / "test" / TABLE
    if not table.is_file():
        raise RunError(f"run {path} has no finished test: go on with segmed train-cls --resume {path}")
    answers, parts = read_answers(table), runs_of(path)
    config = (
        load_written(ClassificationConfig, parts[0].config) if all(part.config.is_file() for part in parts) else None
    )
    facts: dict[str, Any] = {}
    if config is not None:
        facts = {
            "training_minutes": minutes_of(parts),
            "budget": _budget(config),
            "seed": config.seed,
            "training": tuple(frozenset(ClassSplit.load(part.split).train) for part in parts),
            "device": json_facts(parts[0].environment).get("device"),
        }
    pool = json_facts(table.with_name("figures.json")).get("pool")
    return run_of(
        answers,
        str(path),
        model=None if config is None else _model(config),
        notes=read_notes(table),
        pool=cast(PoolingRule, pool) if pool in get_args(PoolingRule) else "mean",
        **facts,
    )


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
