"""Folders of runs and of cross-validations -> the trained runs that predict as one, and their settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segmed.builders.segmenters import stages_of
from segmed.config import InferenceConfig, SegmentationConfig, known
from segmed.errors import ConfigError, RunError
from segmed.runs import Folds, Run, open_run, read_config
from segmed.training.checkpoint import read_metadata


@dataclass(frozen=True)
class Member:
    """One trained run among those that predict together.

    Attributes:
        run: its folder.
        config: resolved; of a fold its `inference` is what was chosen for all folds together.
    """

    run: Path
    config: SegmentationConfig

    @property
    def digest(self) -> str:
        """Tells weights apart, of one network or of all networks of a composed run.

        Raises:
            RunError: some are not there, or damaged.
        """
        views = [(name, view) for name, stage in stages_of(self.config) for view in known(stage.views)]
        folders = [self.run / name / view for name, view in views] or [self.run]
        for folder in folders:
            read_metadata(Run(folder).weights("best"))
        weights = sorted(self.run.rglob("best.safetensors")) if views else [Run(self.run).weights("best")]
        return _hash(weights)


def members_of(folder: Path) -> tuple[Member, ...]:
    """The run itself, or the folds of a cross-validation, with the settings that were chosen for them.

    Raises:
        RunError: no run, or one that can't be read.
        RunError: a cross-validation with a fold that is not done, or whose choice can't be read.
    """
    folds = Folds(Path(folder))
    if not folds.begun:
        return (Member(Path(folder), read_config(open_run(folder))),)
    runs = folds.runs()
    for number, run in enumerate(runs, 1):
        if not run.finished:
            raise RunError(
                f"fold {number} of {len(runs)} of {folder} is not done: end it with segmed train --resume {folder}, or "
                "name the runs of single folds"
            )
    chosen = chosen_settings(folds)
    configs = [read_config(run) for run in runs]
    return tuple(
        Member(run.path, config.model_copy(update={"inference": _with(config.inference, chosen, folds)}))
        for run, config in zip(runs, configs, strict=True)
    )


def chosen_settings(folds: Folds) -> dict[str, Any]:
    """Fields of `inference` that were chosen for all folds together; empty where nothing was chosen yet.

    Raises:
        RunError: the file can't be read.
    """
    try:
        return dict(json.loads(folds.ensemble.read_text(encoding="utf-8"))["chosen"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(_unreadable(folds)) from error


def _with(inference: InferenceConfig, chosen: dict[str, Any], folds: Folds) -> InferenceConfig:
    try:
        return InferenceConfig.model_validate({**inference.model_dump(), **chosen})
    except ValidationError as error:
        raise RunError(_unreadable(folds)) from error


def _unreadable(folds: Folds) -> str:
    return f"{folds.ensemble} can't be read: delete it, then segmed train --resume {folds.path} chooses again"


def common_cleaning(members: Sequence[Member]) -> InferenceConfig:
    """Which pieces all members want to be cleaned: the largest that each keeps, the smallest that each removes."""
    settings = [member.config.inference for member in members]
    named = [() if each.largest_component == "auto" else each.largest_component for each in settings]
    smallest = {
        name: min(each.smallest_ml[name] for each in settings)
        for name in settings[0].smallest_ml
        if all(name in each.smallest_ml for each in settings)
    }
    largest = tuple(name for name in named[0] if all(name in names for names in named))
    return InferenceConfig(largest_component=largest, smallest_ml=smallest)


def check_alike(members: Sequence[Member]) -> None:
    """See that runs which predict together take the same images and know the same labels.

    Raises:
        ConfigError: they don't.
    """
    first = members[0].config.data
    for run, config in ((member.run, member.config) for member in members):
        for what, own, other in (
            ("labels", config.data.labels, first.labels),
            ("images", config.data.images, first.images),
        ):
            if own != other or (isinstance(own, dict) and list(own) != list(other)):
                raise ConfigError(
                    f"runs {members[0].run} and {run} have different {what}: {_shown(other)} and {_shown(own)}; "
                    "an ensemble needs the same"
                )


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {values}" for name, values in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _hash(weights: Iterable[Path]) -> str:
    together = hashlib.sha256()
    for path in weights:
        together.update(path.read_bytes())
    return together.hexdigest()
