"""Where a run stands, read from its folder alone: state, budget, step, score, time left, age, size."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from segmed.errors import ConfigError
from segmed.runs.history_columns import read_history
from segmed.runs.run_folder import Folds, Run, is_run
from segmed.runs.run_lock import is_held

RunState = Literal["done", "trained", "training", "stopped", "planned", "pruned", "failed"]
ENDED = "ended.json"  # beside the run of a trial that a search does not go on with


@dataclass(frozen=True)
class RunStatus:
    """What a run's folder says of it.

    Attributes:
        state: `done`: trained, and tested where it has a test part; `trained`: not tested yet; `training`: a process
            holds it; `stopped`: it can go on; `planned`: nothing was trained yet; `pruned` or `failed`: a trial that
            its search does not go on with.
        budget: how long it may train, in words.
        share: of its training that is over, in [0, 1]; None: not known.
        step: last step that was logged.
        minutes: of training so far.
        score: best of its validations; None: none yet.
        test_dice: mean Dice of its test part; None: not tested, or no segmentation.
    """

    state: RunState
    budget: str = ""
    share: float | None = None
    step: int = 0
    minutes: float = 0.0
    score: float | None = None
    test_dice: float | None = None

    @property
    def minutes_left(self) -> float | None:
        """By the speed so far; None where that is not known, or nothing is left."""
        if self.state in ("done", "trained") or not self.share or not self.minutes:
            return None
        return max(0.0, self.minutes * (1 - self.share) / self.share)


def status_of(path: Path) -> RunStatus:
    """Of a run, or of a cross-validation, whose score is the mean of its folds'."""
    status = _of_folds(Folds(path)) if Folds(path).begun else _of_run(Run(path))
    ended = trial_end(path).get("state") if status.state in ("stopped", "planned") else None
    return replace(status, state=ended) if ended in ("pruned", "failed") else status


def trial_end(run: Path) -> dict[str, Any]:
    """What a search wrote of the trial whose run this is; empty where it is none, or goes on."""
    try:
        data = json.loads((run.parent / ENDED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _of_run(run: Run) -> RunStatus:
    history = read_history(run.path / "history.csv")
    step = int(max((step for points in history.values() for step, _ in points), default=0))
    minutes = max((value for _, value in history.get("minutes", ())), default=0.0)
    score = max((value for _, value in history.get("score", ())), default=None)
    config = _unchecked(run.config)
    train = _section(config, "train")
    if (config.get("cascade") or config.get("ensemble")) and not run.finished:
        return _of_networks(run, _budget(train))
    state: RunState = "planned" if not step else "stopped"
    if run.finished:
        state = "done"
    elif is_held(run.path):
        state = "training"
    elif _ended(run):
        state = "trained"
    share = 1.0 if state in ("done", "trained") else _share(train, step, minutes)
    return RunStatus(state, _budget(train), share, step, minutes, score, _test_dice(run.test))


def _of_networks(run: Run, budget: str) -> RunStatus:
    """Of a run of several networks that is not finished: how many there will be, their plans say when they begin."""
    parts = [_of_run(Run(path)) for path in _networks(run.path)]
    trained = sum(part.state in ("trained", "done") for part in parts)
    state: RunState = "stopped" if parts else "planned"
    if is_held(run.path) or any(part.state == "training" for part in parts):
        state = "training"
    return RunStatus(
        state,
        f"{trained} network{'s' * (trained != 1)} trained, each {budget}",
        step=sum(part.step for part in parts),
        minutes=sum(part.minutes for part in parts),
    )


def _networks(folder: Path) -> Iterator[Path]:
    """Folders of the networks of a run, as far as they were begun."""
    with suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                path = Path(entry.path)
                yield from (path,) if Run(path).config.is_file() else _networks(path)


def _of_folds(folds: Folds) -> RunStatus:
    try:
        runs = folds.runs()
    except ConfigError:
        return RunStatus("stopped")
    parts = [_of_run(run) for run in runs]
    whole = [part for part in parts if part.state == "done"]
    states = {part.state for part in parts}
    state: RunState = "training" if is_held(folds.path) or "training" in states else "stopped"
    tested = any(
        (folds.test / name).is_file() for name in ("summary.json", "figures.json")
    )  # of segmenters, classifiers
    if state == "stopped" and len(whole) == len(parts) and tested:
        state = "done"
    elif states == {"planned"}:
        state = "planned"
    scores = [part.score for part in parts if part.score is not None]
    return RunStatus(
        state,
        f"{len(whole)} of {len(parts)} folds" + (f", each {parts[0].budget}" if parts and parts[0].budget else ""),
        sum(part.share or 0.0 for part in parts) / len(parts),
        sum(part.step for part in parts),
        sum(part.minutes for part in parts),
        sum(scores) / len(scores) if scores else None,
        _test_dice(folds.test),
    )


def _unchecked(config: Path) -> Mapping[str, Any]:
    """A resolved config, unchecked: what shows many runs reads much, and needs little of it."""
    try:
        data = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return data if isinstance(data, dict) else {}


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _share(train: Mapping[str, Any], step: int, minutes: float) -> float | None:
    budget, epochs, steps = (train.get(name) for name in ("budget_minutes", "epochs", "steps_per_epoch"))
    if isinstance(budget, (int, float)) and budget > 0:
        return min(1.0, minutes / budget)
    if isinstance(epochs, int) and isinstance(steps, int) and epochs * steps > 0:
        return min(1.0, step / (epochs * steps))
    return None


def _budget(train: Mapping[str, Any]) -> str:
    budget, epochs = train.get("budget_minutes"), train.get("epochs")
    if isinstance(budget, (int, float)):
        return f"{budget:g} min"
    return f"{epochs} epochs" if isinstance(epochs, int) else ""


def _ended(run: Run) -> bool:
    """Whether the last weights, which are written at the end of training, are as new as the last row of its history."""
    try:
        return run.weights("last").stat().st_mtime >= (run.path / "history.csv").stat().st_mtime
    except OSError:
        return False


def _test_dice(folder: Path) -> float | None:
    try:
        mean = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["mean"]["dice"]["mean"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(mean) if isinstance(mean, (int, float)) else None


# ---------------------------------------------------------------- many


def runs_below(folder: Path) -> Iterator[Path]:
    """Runs and cross-validations below a folder, itself included, in the order of their names.

    The folds of a cross-validation follow it; what else lies inside a run belongs to it.
    """
    if is_run(folder):
        yield folder
        if Folds(folder).begun:
            with suppress(ConfigError):
                yield from (run.path for run in Folds(folder).runs() if is_run(run.path))
        return
    with suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from runs_below(Path(entry.path))


def size_bytes(folder: Path) -> int:
    """Of all files below a folder."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                total += size_bytes(Path(entry.path))
            else:
                total += entry.stat(follow_symlinks=False).st_size
    return total


def last_change(folder: Path) -> float:
    """Seconds since 1970 at which the newest file of a run, or of its folds, was written."""
    names = ("config.yaml", "folds.yaml", "history.csv", "log.txt", "checkpoint.pt", "report.html", "ensemble.json")
    times = [0.0]
    folders = [folder]
    if Folds(folder).begun:
        with suppress(ConfigError):
            folders += [run.path for run in Folds(folder).runs()]
    for path in folders:
        for name in names:
            with suppress(OSError):
                times.append((path / name).stat().st_mtime)
    return max(times)
