"""Shell scripts by which the tab key completes `segmed`, its commands and their options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro
from pydantic import BaseModel

from segmed.commands import (
    audit_data,
    cache,
    calibrate,
    classify,
    compare,
    download_data,
    evaluate,
    export,
    list_configs,
    list_runs,
    make_phantom,
    model_card,
    predict,
    quantify_cine,
    quantify_scar,
    search,
    train_cls,
    train_seg,
    write_schema,
    write_starter,
)
from segmed.commands.command_line import STYLE, with_experiment
from segmed.config import SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.errors import ConfigError

SHELLS = ("bash", "zsh")


def print_completion(arguments: Sequence[str]) -> int:
    """Print the script of a shell.

    Args:
        arguments: the shell's name.

    Raises:
        ConfigError: another shell, or none.
    """
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise ConfigError(f"--print-completion takes the name of a shell: {' or '.join(SHELLS)}")
    commands: Any = Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in options().items())]  # noqa: UP007
    tyro.cli(commands, prog="segmed", args=["--tyro-print-completion", arguments[0]], config=STYLE)
    return 0


def options() -> dict[str, type[BaseModel]]:
    """Command -> its options."""
    return {
        "train": with_experiment(train_seg.Arguments, SegmentationConfig()),
        "train-cls": with_experiment(train_cls.Arguments, ClassificationConfig()),
        "predict": predict.Arguments,
        "classify": classify.Arguments,
        "evaluate": evaluate.Arguments,
        "compare": compare.Arguments,
        "search": with_experiment(search.Arguments, SegmentationConfig()),
        "runs": list_runs.Arguments,
        "cache": cache.Arguments,
        "init": write_starter.Arguments,
        "audit": audit_data.Arguments,
        "quantify-scar": quantify_scar.Arguments,
        "quantify-cine": quantify_cine.Arguments,
        "calibrate": calibrate.Arguments,
        "export": export.Arguments,
        "model-card": model_card.Arguments,
        "download": download_data.Arguments,
        "phantom": make_phantom.Arguments,
        "configs": list_configs.Arguments,
        "schema": write_schema.Arguments,
    }
