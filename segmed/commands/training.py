"""The command line that both training tools have: options beside the experiment's fields, and what they make it do."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from pydantic import Field

from segmed.commands.command_line import of_process, parse_as
from segmed.config import Section, SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.errors import ConfigError


class TrainingOptions(Section):
    """Options of the tool itself; all others are fields of the experiment."""

    config: Path = Field(description="YAML of the experiment, or the name of a shipped one")
    run_dir: Path | None = Field(None, description="folder of the run; none: a new one below `runs`")
    resume: Path | None = Field(None, description="run to go on with; takes no other option")
    fold: int | None = Field(None, description="train and test one cross-validation fold, counted from 0")
    folds: int | None = Field(None, description="train and test so many folds, one after the other, and sum them up")
    plan_only: bool = Field(False, description="print the plan with its reasons and stop")


def train(
    schema: type[SegmentationConfig] | type[ClassificationConfig],
    options: type[TrainingOptions],
    experiment: str,
    *,
    description: str | None,
) -> int:
    """Train, resume, cross-validate or plan, as the command line of this process says.

    Args:
        schema: of the experiment.
        options: of the tool, with its first run as the default of `config`.
        experiment: module with `run`, `resume`, `show_plan` and `cross_validate`; imported once the command line is
            read, since it is heavy: torch and MONAI.
        description: shown by `--help`.

    Returns:
        The exit code.

    Raises:
        ConfigError: a command line or a config that can't be used.
    """
    given = [argument.split("=")[0] for argument in of_process()[1] if argument.startswith("--")]
    if "--resume" in given and len(given) > 1:
        raise ConfigError("--resume takes no other option: the run's own config.yaml says what to do")
    first_run: Path = options.model_fields["config"].default
    arguments, config = parse_as(schema, options, description=description, default_config=first_run)
    if "--train.epochs" in given and config.train.budget_minutes is not None:
        raise ConfigError(
            f"--train.epochs means nothing beside train.budget_minutes {config.train.budget_minutes:g}, which says how "
            "long the run is: leave it out, or add --train.budget-minutes None"
        )
    module = import_module(experiment)
    code: int
    if arguments.resume is not None:
        code = module.resume(arguments.resume)
        return code
    changes = {name: getattr(arguments, name) for name in ("fold", "folds") if getattr(arguments, name) is not None}
    if changes:
        config = config.model_copy(update={"split": config.split.model_validate(config.split.model_dump() | changes)})
    if arguments.plan_only:
        code = module.show_plan(config)
    elif arguments.folds is not None and arguments.fold is None:
        code = module.cross_validate(config, arguments.run_dir)
    else:
        code = module.run(config, arguments.run_dir)
    return code
