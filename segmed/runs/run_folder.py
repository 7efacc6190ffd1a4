"""The run folder: what is in it, how it is made, and the resolved config that it keeps."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from segmed.config import Section, SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import classifies, load_written
from segmed.errors import ConfigError, RunError
from segmed.files import TEMPORARY, atomic_write_text, remove, write_json
from segmed.runs.versions import environment

Schema = TypeVar("Schema", bound=Section)
USES = {  # whether a run classifies -> what it does, and what takes it
    True: "classifies: segmed classify and segmed train-cls take it",
    False: "segments: segmed predict and segmed train take it",
}

LOCK = ".lock"
NAME_LENGTH = 120  # of an experiment's name in the name of its folder
BEFORE_CONFIG = ("plan.json", "split.json", "environment.json", "audit.json")  # written while a folder is being made


@dataclass(frozen=True)
class Run:
    """A run's folder. Enough to go on, to predict, and to say how its numbers came about."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config, with the reason of every value that was `auto`."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """Reasons and the estimate of memory."""
        return self.path / "plan.json"

    @property
    def split(self) -> Path:
        """Case ids of the training, validation and test parts."""
        return self.path / "split.json"

    @property
    def environment(self) -> Path:
        """Versions and machine."""
        return self.path / "environment.json"

    @property
    def checkpoint(self) -> Path:
        """Everything that training needs to go on bit for bit."""
        return self.path / "checkpoint.pt"

    @property
    def content(self) -> Path:
        """What the files of the cases that it learns from held when it began."""
        return self.path / "content.json"

    @property
    def log(self) -> Path:
        """Plain lines of what happened."""
        return self.path / "log.txt"

    @property
    def test(self) -> Path:
        """Figures and tables of the test part."""
        return self.path / "test"

    @property
    def timing(self) -> Path:
        """Seconds that segmenting each test case took, and on what."""
        return self.test / "timing.json"

    @property
    def predictions(self) -> Path:
        """Label maps of the test part, on the grids of their images."""
        return self.path / "predictions"

    @property
    def page(self) -> Path:
        """The report, the last file that is written."""
        return self.path / "report.html"

    @property
    def finished(self) -> bool:
        """Whether it is trained, and tested where it has a test part."""
        try:
            tests = bool(json.loads(self.split.read_text(encoding="utf-8"))["test"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return self.page.is_file() and (self.test.is_dir() or not tests)

    def weights(self, which: str = "best") -> Path:
        """Weights as safetensors: `best` on validation, or `last`."""
        return self.path / "weights" / f"{which}.safetensors"


@dataclass(frozen=True)
class Folds:
    """The folder of a cross-validation: its config, a run for each fold, and the test of all of them together."""

    path: Path

    @property
    def config(self) -> Path:
        """What all folds have in common."""
        return self.path / "folds.yaml"

    @property
    def begun(self) -> bool:
        """Whether the folder is that of a cross-validation."""
        return self.config.is_file()

    @property
    def test(self) -> Path:
        """Figures and tables over all cases: each was tested once, by a model that never saw it."""
        return self.path / "test"

    @property
    def ensemble(self) -> Path:
        """How the folds predict as one: what was tried on their validation parts, and what was chosen."""
        return self.path / "ensemble.json"

    def runs(self) -> tuple[Run, ...]:
        """The run of each fold in its order, begun or not.

        Raises:
            ConfigError: the config can't be read or is not valid.
        """
        common: SegmentationConfig | ClassificationConfig
        if classifies(self.config):
            common = load_written(ClassificationConfig, self.config)
        else:
            common = load_written(SegmentationConfig, self.config)
        return tuple(Run(self.path / f"fold_{fold}") for fold in range(common.split.folds))


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
        if os.path.lexists(path) and not _half_made(path):
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


def _half_made(path: Path) -> bool:
    """Whether a folder holds at most what is written before the config, with which it becomes a run."""
    known = (*BEFORE_CONFIG, LOCK)
    return path.is_dir() and all(e.name in known or TEMPORARY.fullmatch(e.name) for e in path.iterdir())


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
            if _half_made(folds.path):
                shutil.rmtree(folds.path)
        raise


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run, or of a cross-validation."""
    return Run(path).config.is_file() or Folds(path).begun


def runs_of(path: Path) -> tuple[Run, ...]:
    """The run itself, or those of a cross-validation, begun or not.

    Raises:
        ConfigError: the config of the cross-validation can't be read.
    """
    return Folds(path).runs() if Folds(path).begun else (Run(path),)


def open_run(path: Path) -> Run:
    """An existing run.

    Raises:
        RunError: the folder is missing, or is no run.
    """
    run = Run(Path(path))
    if not run.path.is_dir():
        raise RunError(f"run folder {path} is not there: name a folder that segmed train made")
    if not run.config.is_file():
        if any(run.path.iterdir()) and _half_made(run.path):
            raise RunError(
                f"nothing was trained in {path} yet: the run was stopped while it was being planned; start it again "
                f"with the same command and --run-dir {path}"
            )
        raise RunError(f"{path} is no run: it holds no config.yaml")
    return run


def check_data_there(run: Run, root: Path) -> None:
    """See that the data of a run that goes on are where they were.

    Raises:
        RunError: they are not, saying where their place is written.
    """
    if not root.is_dir():
        raise RunError(
            f"{root}, the data of run {run.path}, is not there: write where it is now as data.root into {run.config}"
        )


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


def write_config(run: Run, config: Section, reasons: Mapping[str, str]) -> None:
    """Write the resolved config; each value that was `auto` has its reason behind it."""
    command = "train-cls" if isinstance(config, ClassificationConfig) else "train"
    text = [f"# The resolved config of this run: `segmed {command} --config THIS_FILE` repeats it.", ""]
    text += _yaml_lines(config.model_dump(mode="json"), reasons, prefix="", indent=0)
    atomic_write_text(run.config, "\n".join(text) + "\n")


def read_config(run: Run) -> SegmentationConfig:
    """The resolved config of a run.

    Raises:
        RunError: it can't be read or is not valid.
    """
    return read_config_as(SegmentationConfig, run)


def read_class_config(run: Run) -> ClassificationConfig:
    """The resolved config of a classification run; as `read_config`."""
    return read_config_as(ClassificationConfig, run)


def read_config_as(schema: type[Schema], run: Run) -> Schema:
    """The resolved config of a run of any kind; as `read_config`."""
    try:
        return load_written(schema, run.config)
    except ConfigError as error:
        wanted, actual = schema is ClassificationConfig, classifies(run.config)
        if actual is not None and actual != wanted:
            raise RunError(
                f"run {run.path} {USES[actual]}; here one that {USES[wanted].split(':')[0]} is needed"
            ) from error
        raise RunError(f"run {run.path} can't be read: {error}") from error


def _yaml_lines(data: Mapping[str, Any], reasons: Mapping[str, str], *, prefix: str, indent: int) -> list[str]:
    lines = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        pad = "  " * indent
        written_key = yaml.safe_dump(str(key), default_flow_style=True, width=10**6).splitlines()[0]
        if isinstance(value, dict) and value and indent < 3 and name not in reasons:
            lines.append(f"{pad}{written_key}:")
            lines += _yaml_lines(value, reasons, prefix=f"{name}.", indent=indent + 1)
            continue
        written = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        written = written.removesuffix("\n").removesuffix("\n...")
        reason = f"  # {reasons[name]}" if name in reasons else ""
        lines.append(f"{pad}{written_key}: {written}{reason}")
    return lines
