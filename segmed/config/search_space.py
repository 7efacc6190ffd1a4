"""What a search may change of an experiment: a field -> a range of numbers, or a list of values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import model_validator

from segmed.config import SegmentationConfig
from segmed.config.base import Section
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import load_yaml, set_values, validate
from segmed.errors import ConfigError

MEASURED = ("split", "evaluate", "data", "runs", "cache", "name", "leaks")  # sections that no trial may change
MEASURED_FIELDS = ("train.validations", "train.validation_cases", "train.select")
Experiment = TypeVar("Experiment", bound=SegmentationConfig | ClassificationConfig)


class RangeConfig(Section):
    """Numbers from `low` to `high`: whole ones where both are, on a logarithmic scale where `log` is set."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> RangeConfig:
        if not self.low < self.high:
            raise ValueError(f"the range is empty: low {self.low:g} is not below high {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a logarithmic range begins above 0 and has no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step {self.step:g} is not above 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, (int, type(None)))

    @property
    def tried(self) -> tuple[Any, ...]:
        """Values that show whether the experiment may have all of them: both ends."""
        return (self.low, self.high)


class ChoiceConfig(Section):
    """One of several values of any kind."""

    values: tuple[Any, ...]

    @property
    def tried(self) -> tuple[Any, ...]:
        """All of them."""
        return self.values

    @property
    def words(self) -> list[str]:
        """The values as texts, by which they are told apart."""
        return [json.dumps(value) for value in self.values]


Space = dict[str, RangeConfig | ChoiceConfig]


def load_space(path: Path) -> Space:
    """Read a space: `train.learning_rate: {low: 1e-4, high: 1e-2, log: true}`, `loss.name: [dice, dice_ce]`.

    Raises:
        ConfigError: not such a file, naming the key.
    """
    space: Space = {}
    for name, given in load_yaml(path).items():
        if isinstance(given, list):
            if len(given) < 2:
                raise ConfigError(f"{path}: '{name}' has {len(given)} values: give two or more, or leave it out")
            space[name] = ChoiceConfig(values=tuple(given))
        elif isinstance(given, dict):
            space[name] = validate(RangeConfig, given, where=f"{path}: '{name}'")
        else:
            raise ConfigError(f"{path}: '{name}' is {given!r}: give a list of values, or low and high")
    if not space:
        raise ConfigError(f"{path} names no field to search over: give one, as train.learning_rate")
    return dict(sorted(space.items(), key=lambda item: not item[0].endswith(".name")))  # a name replaces its section


def check_space(config: SegmentationConfig | ClassificationConfig, space: Space) -> None:
    """See that the experiment may have each value of a space.

    Raises:
        ConfigError: naming the field, or that several networks have no score of their own.
    """
    if isinstance(config, SegmentationConfig) and config.composed:
        raise ConfigError(
            "a search is over one network, and a cascade or an ensemble has several, each with a score of its own: "
            "search over the experiment of each by itself"
        )
    for name, given in space.items():
        if name.split(".")[0] in MEASURED or name in MEASURED_FIELDS:
            raise ConfigError(f"'{name}' says what is measured, not how it is trained: leave it out of the space")
        for value in given.tried:
            with_values(config, {name: value}, where=f"space, {name} = {value}")


def with_values(config: Experiment, values: dict[str, Any], *, where: str) -> Experiment:
    """The experiment with other values of some fields.

    Raises:
        ConfigError: it may not have them.
    """
    data = config.model_dump(mode="json")
    set_values(data, values, type(config))
    return validate(type(config), data, where=where)
