"""A run folder -> a folder of the same shape that holds what predicting and judging need, and nothing private."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from segmed.builders.segmenters import stages_of
from segmed.config import ManifestLayout, SegmentationConfig, known
from segmed.config.classification import ClassificationConfig
from segmed.config.images import ClassManifestLayout
from segmed.config.reading import classifies
from segmed.data.learned import of_first_weights
from segmed.errors import RunError
from segmed.export.private import Private, private_of
from segmed.files import atomic_write_text, write_json
from segmed.runs import Folds, Run, open_run, read_class_config, read_config, write_config
from segmed.training.checkpoint import read_metadata

Config = SegmentationConfig | ClassificationConfig
CALIBRATION = "calibration.json"
CLASS_FIGURES = (
    "title",
    "classes",
    "positive",
    "temperature",
    "units",
    "pool",
    "test",
    "validation",
    "image",
    "subject",
)
VERSIONS = ("python", "versions", "commit", "device", "cases")
PAGE = "<!doctype html><title>{name}</title><p>{name} was handed over: MODEL_CARD.md of the model file describes it.\n"


def hand_over(source: Path, target: Path, *, with_cases: bool = False) -> None:
    """Write what a run or a cross-validation predicts with into a new folder.

    Args:
        source: folder of the run.
        target: folder that is made.
        with_cases: keep the ids of the cases.

    Raises:
        RunError: no run, one that is not trained, a fold that is not done.
        DatasetError: a run that gave first weights is damaged.
    """
    folds = Folds(source)
    if not folds.begun:
        _hand_over_run(
            open_run(source), target, private_of(source, subject=_subject(read_any(source)), keep=with_cases)
        )
        return
    config = read_any(folds.runs()[0].path)
    private = private_of(source, subject=_subject(config), keep=with_cases)
    copies = Folds(target)
    target.mkdir(parents=True)
    common = _without_places(config, with_cases=with_cases).model_dump(mode="json")
    common["split"] = {**common["split"], "fold": None}
    atomic_write_text(copies.config, yaml.safe_dump(common, sort_keys=False))
    for run in folds.runs():
        if not run.finished:
            raise RunError(
                f"{run.path} is not done: end it with segmed train --resume {source}, or export single folds"
            )
        _hand_over_run(run, target / run.path.name, private)
    _records(source, target, private, (("ensemble.json", private), (CALIBRATION, private)))
    _figures(folds.test, copies.test, private)


def read_any(folder: Path) -> Config:
    """The resolved config of a run of either kind.

    Raises:
        RunError: no run, or one that can't be read.
    """
    run = open_run(folder)
    return read_class_config(run) if classifies(run.config) else read_config(run)


def _hand_over_run(run: Run, target: Path, private: Private) -> None:
    """One run, with those inside it where it is composed of several."""
    config = read_any(run.path)
    copy = Run(target)
    target.mkdir(parents=True)
    if isinstance(config, SegmentationConfig) and config.composed:
        for stage, settings in stages_of(config):
            for view in known(settings.views):
                _hand_over_run(open_run(run.path / stage / view), target / stage / view, private)
    else:
        read_metadata(run.weights())
        copy.weights().parent.mkdir()
        shutil.copyfile(run.weights(), copy.weights())
    write_config(copy, _without_places(config, with_cases=private.keep), {})
    _records(
        run.path, target, private,
        (("plan.json", lambda data: _plan(data, private)), ("environment.json", _versions),
         ("split.json", lambda data: private(_learned(run, data))),
         ("audit.json", lambda data: _audit(data, private)), (CALIBRATION, private)),
    )  # fmt: skip
    _figures(run.test, copy.test, private)
    if run.finished:
        atomic_write_text(copy.page, PAGE.format(name=target.name))


def _learned(run: Run, split: dict[str, Any]) -> dict[str, Any]:
    """A split whose training part holds the cases of the first weights too: whoever has the file lacks their run."""
    first = of_first_weights(run.path)
    new = sorted(first.difference(split["train"], split["validation"]))
    return {**split, "train": [*split["train"], *new], "test": [case for case in split["test"] if case not in first]}


def _records(
    source: Path, target: Path, private: Private, records: tuple[tuple[str, Callable[[Any], Any]], ...]
) -> None:
    """The JSON files of a folder that are there, each through its filter.

    Raises:
        RunError: one is damaged.
    """
    for name, filtered in records:
        path = source / name
        if not path.is_file():
            continue
        try:
            write_json(target / name, filtered(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged or of another version: it can't be handed over") from error


def _figures(source: Path, target: Path, private: Private) -> None:
    """Figures of the test part, over its cases: none of a single case."""

    def of_segmentation(data: dict[str, Any]) -> dict[str, Any]:
        return {**private(data), "notes": [private.note(note) for note in data.get("notes", ())]}

    def of_classes(data: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = private({key: data[key] for key in CLASS_FIGURES if key in data})
        return {**kept, "notes": [private.note(note) for note in data.get("notes", ())]}

    if source.is_dir():
        target.mkdir(parents=True)
        _records(source, target, private, (("summary.json", of_segmentation), ("figures.json", of_classes)))


def _plan(data: dict[str, Any], private: Private) -> dict[str, Any]:
    notes = [private.note(note) for note in data.get("notes", ())]
    return {**private({key: value for key, value in data.items() if key != "notes"}), "notes": notes}


def _versions(data: dict[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in VERSIONS if key in data}


def _audit(data: dict[str, Any], private: Private) -> dict[str, Any]:
    """What tells a strange image: facts about every case, without what was found in the files."""
    facts = {key: private(data[key]) for key in ("modalities", "labels", "cases")}
    return {"errors": 0, "warnings": 0, "kinds": {}, "findings": [], **facts}


def _subject(config: Config) -> str | None:
    """The regular expression that finds subjects in ids."""
    data = config.data
    return getattr(data, "subject", None) or getattr(data.layout, "subject", None)


def _without_places(config: Config, *, with_cases: bool) -> Config:
    """The config without the places of files on the machine that trained."""
    data: dict[str, Any] = {"root": Path("data")}
    if isinstance(config.data.layout, ManifestLayout | ClassManifestLayout):
        data["layout"] = config.data.layout.model_copy(update={"file": Path(config.data.layout.file).name})
    if isinstance(config, SegmentationConfig) and isinstance(config.data.unlabelled, tuple) and not with_cases:
        data["unlabelled"] = "error"
    changes: dict[str, Any] = {
        "runs": Path("runs"),
        "cache": None,
        "data": config.data.model_copy(update=data),
        "split": config.split.model_copy(update={"file": None}),
        "init_encoder": _name_alone(config.init_encoder),
    }
    if isinstance(config, SegmentationConfig):
        changes["init_network"] = _name_alone(config.init_network)
    if isinstance(getattr(config.network, "pretrained", None), Path):
        changes["network"] = config.network.model_copy(update={"pretrained": None})
    return config.model_copy(update=changes)


def _name_alone(run: Path | None) -> Path | None:
    return None if run is None else Path(run.name)
