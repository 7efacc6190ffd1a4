"""Make the folder of a run or of a cross-validation, where nothing is overwritten."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.errors import RunError
from segmed.files import atomic_write_text, remove, write_json
from segmed.runs.resolved_config import write_config
from segmed.runs.run_folder import BEFORE_CONFIG, Folds, Run, half_made, is_run
from segmed.runs.versions import environment

NAME_LENGTH = 120  # of an experiment's name in the name of its folder


def new_run(path: Path | None, *, runs: Path, name: str) -> Run:
    """Make an empty run folder; without a path, `runs/NAME-DATE-TIME`.

    One that was being made when its process was killed, so that nothing was trained there, is made anew.

    Raises:
        RunError: the folder exists and holds something.
    """
    check_new_run(path, runs=runs)
    if path is None:
        stem = f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[:NAME_LENGTH]}-{datetime.now():%Y%m%d-%H%M%S}"
        path = runs / stem
        number = 2
        while path.exists():
            path = runs / f"{stem}-{number}"
            number += 1
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in BEFORE_CONFIG:
            remove(path / name)
    except OSError as error:
        raise RunError(f"cannot make run folder {path}: {error.strerror}; choose another with --run-dir") from error
    return Run(path)


def check_new_run(path: Path | None, *, runs: Path) -> None:
    """See that a run folder can be made, before a minute goes by over the data; arguments are those of `new_run`.

    Raises:
        RunError: it exists and holds something, or there is no way or no permission to make it.
    """
    path = runs / "a_new_run" if path is None else path
    try:
        if os.path.lexists(path) and not half_made(path):
            way_out = f"go on with --resume {path}, or name" if path.is_dir() and is_run(path) else "name"
            raise RunError(f"run folder {path} exists: {way_out} another --run-dir (nothing is overwritten)")
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RunError(f"cannot make run folder {path}: {error.strerror}; choose another with --run-dir") from error
    above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not above.is_dir():
        raise RunError(f"cannot make run folder {path}: {above} is a file; choose another with --run-dir")
    if not os.access(above, os.W_OK | os.X_OK):
        raise RunError(f"no permission to write run folder {path}: choose another with --run-dir")


def new_folds(config: SegmentationConfig | ClassificationConfig, path: Path | None) -> Folds:
    """Make the folder of a cross-validation, with its config.

    Raises:
        RunError: as in `new_run`.
    """
    folds = Folds(new_run(path, runs=config.runs, name=f"{config.title}-folds").path)
    atomic_write_text(folds.config, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return folds


@contextmanager
def kept_if_begun(folds: Folds) -> Iterator[None]:
    """Take the folder of a new cross-validation away where its first fold is refused: nothing was learnt yet."""
    try:
        yield
    except (ValueError, OSError):
        if not any(run.config.is_file() for run in folds.runs()):
            remove(folds.config)
            if half_made(folds.path):
                shutil.rmtree(folds.path)
        raise


def begin_run(
    path: Path | None,
    config: SegmentationConfig | ClassificationConfig,
    reasons: Mapping[str, str],
    *,
    text: str,
    records: Mapping[str, Any],
    device: str,
    cases: int,
) -> Run:
    """Make a run folder that holds everything which training needs.

    Args:
        path: as in `new_run`.
        config: resolved.
        reasons: of each value that was `auto`.
        text: the plan in words, with which the log begins.
        records: name of a JSON file -> what it holds.
        device: name of what trains.
        cases: of the data set.

    Raises:
        RunError: as in `new_run`.
    """
    run = new_run(path, runs=config.runs, name=config.title)
    for name, content in records.items():
        write_json(run.path / name, content)
    write_json(run.environment, {**environment(), "device": device, "cases": cases})
    write_config(run, config, reasons)  # with it the folder is a run
    atomic_write_text(run.log, text + "\n")
    return run
