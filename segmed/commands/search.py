"""Search for the values of an experiment's fields that score best on validation.

Each trial is a run that is not tested; one that falls behind at a validation is stopped. The winner is tested once, at
the end. The same command goes on with a search that was stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from segmed.commands.command_line import parse_as
from segmed.commands.short_help import Groups
from segmed.config import Section, SegmentationConfig
from segmed.config.base import Count
from segmed.config.search_space import RangeConfig
from segmed.errors import JobError

if TYPE_CHECKING:
    from segmed.jobs.study import Search


class Arguments(Section):
    """Options of the tool itself; all others are fields of the experiment."""

    often_used: ClassVar[Groups] = {
        "this command": ("config", "space", "trials", "output", "at_once", "cores"),
        "data": ("data.root", "split.validation", "split.test"),
        "training": ("train.budget_minutes", "train.epochs", "train.validations"),
    }
    config: Path = Field(description="YAML of the experiment, or the name of a shipped one")
    space: Path = Field(
        description="YAML of fields: `train.learning_rate: {low: 1e-4, high: 1e-2, log: true}`, or a list"
    )
    trials: Count = Field(20, description="how many, with those that are pruned or fail")
    output: Path | None = Field(None, description="folder of the search; none: NAME-search below `runs`")
    at_once: Count | None = Field(None, description="trials at a time; none: as many as this machine has room for")
    cores: Count | None = Field(None, description="of each trial; none: an equal share")


def main() -> int:
    """Exit code 0: the winner is tested."""
    arguments, config = parse_as(SegmentationConfig, Arguments, description=__doc__)
    from segmed.compose.run import look_ahead
    from segmed.jobs.job import Needs
    from segmed.jobs.pool import LocalPool
    from segmed.jobs.study import Search
    from segmed.jobs.trials import carry_out_trials, winner_after_test
    from segmed.machine import this_machine
    from segmed.segment.prepare import with_absolute_paths

    config = with_absolute_paths(config)
    search = Search((arguments.output or config.runs / f"{config.title}-search").absolute())
    search.begin(config, arguments.space)
    pool = LocalPool(at_once=arguments.at_once)
    needs = Needs(arguments.cores, None, 1 if this_machine().device == "cuda" else 0)
    if search.winner is None:
        needs = Needs(needs.cores, look_ahead(config)[2], needs.gpus)
        try:
            carry_out_trials(search, arguments.trials, needs, pool)
        finally:
            _write_page(search, None)
    elif arguments.trials > len(search.rows()):
        raise JobError(
            f"the winner of {search.path} was chosen, and its test seen: for more trials name another --output"
        )
    run = winner_after_test(search, needs, pool)
    _write_page(search, run)
    print(f"winner: trial {search.winner}, {run}\nlook:   {search.page}")
    return 0


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
    )
