"""The folder of a search: its experiment, its space, Optuna's record of the trials, and a run for each of them."""

from __future__ import annotations

import json
import logging
import math
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import classifies, load_as, load_yaml
from segmed.config.search_space import RangeConfig, Space, check_space, load_space, with_values
from segmed.errors import JobError
from segmed.files import atomic_write_text, write_json
from segmed.jobs.fold_jobs import last_file
from segmed.reports.search.search_page import ShownTrial
from segmed.runs import Folds, Run, read_history

FIRST_TRIALS = 4  # done before any is pruned
FIRST_VALIDATIONS = 1  # of a trial, before it may be pruned
STATES = {"COMPLETE": "done", "FAIL": "failed", "PRUNED": "pruned", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True)
class Search:
    """The folder of a search.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def experiment(self) -> Path:
        """The config of which fields change."""
        return self.path / "experiment.yaml"

    @property
    def space(self) -> Path:
        """Which fields, and what they may be."""
        return self.path / "space.yaml"

    @property
    def facts(self) -> Path:
        """What else tells it from another search."""
        return self.path / "search.json"

    @property
    def chosen(self) -> Path:
        """The number of the winner, written before it is tested: from then on there are no more trials."""
        return self.path / "winner.json"

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "search.html"

    def trial(self, number: int) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / f"{number:04d}"

    def run(self, number: int) -> Run:
        """The run of a trial; with folds, the folder of its cross-validation."""
        return Run(self.trial(number) / "run")

    def begin(
        self, config: SegmentationConfig | ClassificationConfig, space: Path, *, folds: int | None = None
    ) -> None:
        """Write the folder of a search, or see that it is the same one that goes on.

        Args:
            config: of which fields change.
            space: YAML of the fields.
            folds: score a trial on the validation parts of so many; None: on that of one split.

        Raises:
            JobError: the folder holds another search, or something else.
            ConfigError: a value of the space is none that the experiment may have.
        """
        described, given, facts = config.model_dump(mode="json"), load_space(space), {"folds": folds}
        check_space(config, given)
        import_optuna()
        if self.space.is_file() and self.experiment.is_file():
            for what, same in (
                ("space", load_space(self.space) == given),
                ("experiment", load_yaml(self.experiment) == described),
                ("number of folds", json.loads(self.facts.read_text(encoding="utf-8")) == facts),
            ):
                if not same:
                    raise JobError(f"{self.path} holds the search of another {what}: name another --output")
            return
        if self.path.is_dir() and not {self.experiment, self.facts}.issuperset(self.path.iterdir()):
            raise JobError(f"{self.path} exists and is no search: name another --output (nothing is overwritten)")
        atomic_write_text(self.experiment, yaml.safe_dump(described, sort_keys=False))
        write_json(self.facts, facts)
        atomic_write_text(self.space, yaml.safe_dump(load_yaml(space), sort_keys=False))

    @cached_property
    def config(self) -> SegmentationConfig | ClassificationConfig:
        """The experiment."""
        if classifies(self.experiment):
            return load_as(ClassificationConfig, self.experiment)
        return load_as(SegmentationConfig, self.experiment)

    @cached_property
    def folds(self) -> int | None:
        """By the validation parts of how many folds a trial is scored; None: by that of one split."""
        folds = json.loads(self.facts.read_text(encoding="utf-8"))["folds"]
        return None if folds is None else int(folds)

    @property
    def command(self) -> str:
        """Of segmed, that trains a trial."""
        return "train-cls" if isinstance(self.config, ClassificationConfig) else "train"

    @cached_property
    def fields(self) -> Space:
        """The space."""
        return load_space(self.space)

    def study(self, number: int = 0) -> Any:
        """Optuna's study; its sampler is seeded for the trial of that number."""
        optuna = import_optuna()
        sampler = optuna.samplers.TPESampler(seed=self.config.seed + number, constant_liar=True)
        return optuna.create_study(
            study_name="search",
            storage=f"sqlite:///{self.path / 'optuna.db'}",
            sampler=sampler,
            pruner=optuna.pruners.MedianPruner(FIRST_TRIALS, FIRST_VALIDATIONS),
            direction="maximize",
            load_if_exists=True,
        )

    def describe(self, trial: Any) -> None:
        """Draw the values of a trial and write its experiment; what was drawn before stays.

        Raises:
            ConfigError: the experiment may not have these values together.
        """
        values = {name: suggest(trial, name, given) for name, given in self.fields.items()}
        config = with_values(self.config, values, where=f"trial {trial.number}")
        config = config.model_copy(update={"name": f"{config.title}-{trial.number}"})
        described = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        atomic_write_text(self.trial(trial.number) / "experiment.yaml", described)

    def scores(self, number: int) -> list[float]:
        """The score of each validation of a trial so far; with folds one alone, the mean of the best of each."""
        run = self.run(number).path
        if self.folds is None:
            return scores_of(run)
        best = [max(scores_of(run / f"fold_{fold}"), default=math.nan) for fold in range(self.folds)]
        return [sum(best) / len(best)] if all(map(math.isfinite, best)) else []

    def tested(self, number: int) -> bool:
        """Whether the run of a trial is tested."""
        run = self.run(number)
        return self.proof(number).is_file() if self.folds is not None else run.finished

    def proof(self, number: int) -> Path:
        """What the test of a trial writes last."""
        run = self.run(number)
        return run.page if self.folds is None else last_file(Folds(run.path), classifies=self.command == "train-cls")

    def rows(self) -> list[ShownTrial]:
        """What became of each trial."""
        return [self._row(trial) for trial in self.study().get_trials(deepcopy=False)]

    def _row(self, trial: Any) -> ShownTrial:
        drawn = {name: given for name, given in self.fields.items() if name in trial.params}
        values = {
            name: trial.params[name] if isinstance(given, RangeConfig) else json.loads(trial.params[name])
            for name, given in drawn.items()
        }
        scores = trial.intermediate_values.values()
        seconds = None if trial.duration is None else round(trial.duration.total_seconds(), 1)
        state, error = STATES[trial.state.name], trial.user_attrs.get("error", "")
        return ShownTrial(trial.number, state, max(scores, default=None), len(scores), seconds, values, error)

    def choose(self) -> int:
        """The winner, the best trial that trained to its end, of equal ones the first; chosen once.

        Raises:
            JobError: there is none.
        """
        if (before := self.winner) is not None:
            return before
        rows = self.rows()
        done = [row for row in rows if row.state == "done" and row.score is not None]
        if not done:
            reason = next((row.error for row in rows if row.error), "none trained to its end")
            raise JobError(f"no trial of {self.path} is done: {reason}")
        winner = max(done, key=lambda row: (row.score or 0.0, -row.number)).number
        write_json(self.chosen, {"winner": winner})
        return winner

    @property
    def winner(self) -> int | None:
        """The number of the trial that was chosen; None before."""
        if not self.chosen.is_file():
            return None
        return int(json.loads(self.chosen.read_text(encoding="utf-8"))["winner"])

    def importance(self) -> dict[str, float]:
        """Field -> share of the variance of the score that it explains; empty where too few trials are done."""
        import_optuna()
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        with suppress(ValueError, RuntimeError, ZeroDivisionError):
            return dict(get_param_importances(self.study(), evaluator=FanovaImportanceEvaluator(seed=0)))
        return {}


def scores_of(run: Path) -> list[float]:
    """The score of each validation of a run so far."""
    points = read_history(run / "history.csv").get("score", [])
    return [score for _, score in points if math.isfinite(score)]


def import_optuna() -> Any:
    """Optuna, with its own lines kept quiet.

    Raises:
        JobError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise JobError('a search needs Optuna: pip install "segmed-mri[search]"') from error
    optuna.logging.set_verbosity(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def suggest(trial: Any, name: str, given: Any) -> Any:
    """The value of a field in a trial."""
    if not isinstance(given, RangeConfig):
        return json.loads(trial.suggest_categorical(name, given.words))
    if given.whole:
        return trial.suggest_int(name, int(given.low), int(given.high), step=int(given.step or 1), log=given.log)
    return trial.suggest_float(name, float(given.low), float(given.high), step=given.step, log=given.log)
