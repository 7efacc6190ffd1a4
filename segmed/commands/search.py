"""Search for the values of an experiment's fields that score best on validation.

Each trial is a run that is not tested; one that falls behind at a validation is stopped. With --folds a trial is a
cross-validation, scored by the mean over the validation parts of its folds. The winner is tested once, at the end. The
same command goes on with a search that was stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from segmed.commands.command_line import config_named, parse_as
from segmed.commands.short_help import Groups
from segmed.commands.training import Kind
from segmed.config import Section, SegmentationConfig
from segmed.config.base import Count
from segmed.config.classification import ClassificationConfig
from segmed.config.jobs import JobsConfig
from segmed.config.reading import classifies
from segmed.config.search_space import RangeConfig
from segmed.errors import ConfigError, JobError

if TYPE_CHECKING:
    from segmed.jobs.study import Search


class Arguments(Section):
    """Options of the tool itself; all others are fields of the experiment."""

    often_used: ClassVar[Groups] = {
        "this command": ("config", "space", "trials", "output", "folds", "on", "at_once", "cores"),
        "data": ("data.root", "split.validation", "split.test"),
        "training": ("train.budget_minutes", "train.epochs", "train.validations"),
    }
    config: Path = Field(
        description="YAML of the experiment, segmentation or classification, or the name of a shipped one"
    )
    space: Path = Field(
        description="YAML of fields: `train.learning_rate: {low: 1e-4, high: 1e-2, log: true}`, or a list"
    )
    trials: Count = Field(20, description="how many, with those that are pruned or fail")
    output: Path | None = Field(None, description="folder of the search; none: NAME-search below `runs`")
    folds: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        None, description="of each trial, whose score is the mean over their validation parts; none: one split"
    )
    on: Literal["local", "ray", "slurm"] = Field("local", description="what carries the trials; slurm can't")
    address: str | None = Field(None, description="ray: of a cluster that is there; none: one is started here")
    at_once: Count | None = Field(None, description="trials at a time; none: as many as there is room for")
    cores: Count | None = Field(None, description="of each trial; none: an equal share")


def main() -> int:
    """Exit code 0: the winner is tested."""
    named = config_named()
    schema: type[Any] = ClassificationConfig if named is not None and classifies(named) else SegmentationConfig
    arguments, config = parse_as(schema, Arguments, description=__doc__)
    if arguments.on == "slurm":
        raise ConfigError(
            "--on slurm can't carry a search: each trial is drawn by the scores of those before it, so a process must "
            "watch them all: submit segmed search itself as one job, with --at-once, or give --on ray"
        )
    from segmed.commands.as_jobs import gpus_of_one
    from segmed.jobs.carriers import live_engine
    from segmed.jobs.job import Needs
    from segmed.jobs.study import Search
    from segmed.jobs.trials import carry_out_trials, winner_after_test

    kind = _kind_of(config)
    config = kind.with_absolute_paths(config)
    if arguments.folds is not None:
        config = config.model_copy(update={"split": config.split.model_copy(update={"folds": arguments.folds})})
    search = Search((arguments.output or config.runs / f"{config.title}-search").absolute())
    search.begin(config, arguments.space, folds=arguments.folds)
    engine = live_engine(arguments.on, JobsConfig(address=arguments.address, at_once=arguments.at_once))
    needs = Needs(arguments.cores, None, gpus_of_one())
    if search.winner is None:
        fold = {"split": config.split.model_copy(update={"fold": 0})} if arguments.folds is not None else {}
        needs = Needs(needs.cores, kind.look_ahead(config.model_copy(update=fold))[2], needs.gpus)
        try:
            carry_out_trials(search, arguments.trials, needs, engine)
        finally:
            _write_page(search, None)
    elif arguments.trials > len(search.rows()):
        raise JobError(
            f"the winner of {search.path} was chosen, and its test seen: for more trials name another --output"
        )
    run = winner_after_test(search, needs, engine)
    _write_page(search, run)
    print(f"winner: trial {search.winner}, {run}\nlook:   {search.page}")
    return 0


def _kind_of(config: SegmentationConfig | ClassificationConfig) -> Kind[Any]:
    """What can be done with an experiment."""
    kind: Any
    if isinstance(config, ClassificationConfig):
        from segmed.classify import run as kind
    else:
        from segmed.compose import run as kind
    return kind


def _write_page(search: Search, winner: Path | None) -> None:
    from segmed.reports.search.search_page import write_search_page

    ranges = {name: given for name, given in search.fields.items() if isinstance(given, RangeConfig)}
    write_search_page(
        search.page,
        title=search.config.title,
        trials=search.rows(),
        importance=search.importance(),
        logarithmic=frozenset(name for name, given in ranges.items() if given.log),
        tested=None if winner is None or search.winner is None else (search.winner, winner),
        folds=search.folds,
    )
