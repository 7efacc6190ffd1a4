"""The run folder: what is in it, and how it is found again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import classifies, load_written
from segmed.errors import RunError
from segmed.files import TEMPORARY

LOCK = ".lock"
BEFORE_CONFIG = ("plan.json", "split.json", "environment.json", "audit.json")  # written while a folder is being made

DEEPEST = 3  # folders from that of a network to that of the whole: fold, stage, view


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
    def whole(self) -> Path:
        """Folder of what it is a part of, a cascade, an ensemble or a cross-validation: with that it goes on. Its own
        where it stands alone.
        """
        around = [each for each in self.path.parents[:DEEPEST] if Folds(each).begun or _holds_parts(Run(each))]
        return around[-1] if around else self.path

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


def _holds_parts(run: Run) -> bool:
    """Whether a folder above that of a network is a cascade's or an ensemble's; a config alone may be anybody's."""
    return run.config.is_file() and run.split.is_file()


def half_made(path: Path) -> bool:
    """Whether a folder holds at most what is written before the config, with which it becomes a run."""
    known = (*BEFORE_CONFIG, LOCK)
    return path.is_dir() and all(e.name in known or TEMPORARY.fullmatch(e.name) for e in path.iterdir())


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
        if any(run.path.iterdir()) and half_made(run.path):
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
