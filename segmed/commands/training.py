"""The command line that both training tools have: options beside the experiment's fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import Field

from segmed.commands.command_line import of_process, parse_as
from segmed.config import Section, SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.jobs import EngineName, JobsConfig
from segmed.config.reading import validate
from segmed.errors import ConfigError
from segmed.runs import Folds, Run, is_run

Planned = TypeVar("Planned")
Experiment = TypeVar("Experiment", SegmentationConfig, ClassificationConfig)
WITH_RESUME = ("--resume", "--on", "--submit", "--plan-only", "--part")  # options that may stand beside --resume


class TrainingOptions(Section):
    """Options of the tool itself; all others are fields of the experiment."""

    config: Path = Field(description="YAML of the experiment, or the name of a shipped one")
    run_dir: Path | None = Field(None, description="folder of the run; none: a new one below `runs`")
    resume: Path | None = Field(None, description="run to go on with; takes no other option")
    go_on: bool = Field(False, description="go on with --run-dir where it was begun, else begin it: what jobs do")
    part: str | None = Field(None, description="with --resume: train one network of several, as coarse/axial, and stop")
    fold: int | None = Field(None, description="train and test one cross-validation fold, counted from 0")
    folds: int | None = Field(None, description="train and test so many folds, and sum them up")
    untested: bool = Field(
        False, description="train one network, or one a fold, and test nothing; --resume tests it: trials of a search"
    )
    plan_only: bool = Field(False, description="print the plan with its reasons, and what it takes of jobs, and stop")
    on: EngineName = Field(
        "here", description="folds, and networks of a cascade: here, one after the other, or several at once as jobs"
    )
    submit: bool = Field(False, description="with --on slurm: call sbatch; else its scripts are only written")
    jobs: JobsConfig = Field(JobsConfig(), description="what each job takes, and what an engine is told")

    @property
    def every_fold(self) -> bool:
        """Whether a whole cross-validation is asked for."""
        return self.folds is not None and self.fold is None


def read_training(
    schema: type[Experiment],
    options: type[TrainingOptions],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
) -> tuple[TrainingOptions, Experiment]:
    """What a command line asks for: the tool's options, and the experiment.

    Args:
        schema: of the experiment.
        options: of the tool, with its first run as the default of `config`.
        argv: the command line; none: that of this process.
        description: shown by `--help`.

    Raises:
        ConfigError: a command line or a config that can't be used.
    """
    argv = of_process()[1] if argv is None else list(argv)
    given = [argument.split("=")[0] for argument in argv if argument.startswith("--")]
    others = [option for option in given if option not in WITH_RESUME and not option.startswith("--jobs.")]
    if "--resume" in given and others:
        raise ConfigError("--resume takes no other option: the run's own config.yaml says what to do")
    first_run: Path = options.model_fields["config"].default
    arguments, config = parse_as(schema, options, argv, description=description, default_config=first_run)
    if "--train.epochs" in given and config.train.budget_minutes is not None:
        raise ConfigError(
            f"--train.epochs means nothing beside train.budget_minutes {config.train.budget_minutes:g}, which says how "
            "long the run is: leave it out, or add --train.budget-minutes None"
        )
    changes = {name: getattr(arguments, name) for name in ("fold", "folds") if getattr(arguments, name) is not None}
    if changes:
        split = validate(type(config.split), config.split.model_dump() | changes, where="--folds, --fold")
        config = config.model_copy(update={"split": split})
    return arguments, config


class Kind(Protocol[Planned]):
    """What can be done with experiments of one kind: the module `run` of their room."""

    def run(self, config: Planned, folder: Path | None) -> None:
        """Train and test one."""

    def resume(self, folder: Path) -> None:
        """Go on with one."""

    def look_ahead(self, config: Planned) -> tuple[str, Planned, int | None]:
        """Its plan in words, its config as far as that is decided, and the bytes that it needs, if that is known."""

    def with_absolute_paths(self, config: Planned) -> Planned:
        """The same experiment, read from any folder."""

    def begin_folds(self, config: Planned, folder: Path | None) -> Folds:
        """Make the folder of a cross-validation."""

    def train_untested(self, config: Planned, folder: Path | None, *, go_on: bool, every_fold: bool) -> None:
        """Train one, or every fold, and test nothing."""

    def start(self, config: Planned, folder: Path | None) -> Run:
        """Make the folder of a run."""

    def cross_validate(self, config: Planned, folder: Path | None) -> None:
        """Train and test every fold."""


def carry_out(arguments: TrainingOptions, config: Experiment, kind: Kind[Experiment]) -> None:
    """Train, resume or cross-validate in this process, as the command line says."""
    if arguments.untested:
        kind.train_untested(config, arguments.run_dir, go_on=arguments.go_on, every_fold=arguments.every_fold)
        return
    if arguments.part is not None:
        _train_part(arguments)
        return
    begun = arguments.resume
    if arguments.go_on and arguments.run_dir is not None and is_run(arguments.run_dir):
        begun = arguments.run_dir
    if begun is not None:
        kind.resume(begun)
    elif arguments.every_fold:
        kind.cross_validate(config, arguments.run_dir)
    else:
        kind.run(config, arguments.run_dir)


def _train_part(arguments: TrainingOptions) -> None:
    if arguments.resume is None:
        raise ConfigError("--part goes with --resume: name the run that it is a part of")
    from segmed.compose.run import train_part

    train_part(arguments.resume, str(arguments.part))
