"""The resolved config that a run keeps: written with its reasons, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import yaml

from segmed.config import Section, SegmentationConfig
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import classifies, load_written
from segmed.errors import ConfigError, RunError
from segmed.files import atomic_write_text
from segmed.runs.run_folder import Run

Schema = TypeVar("Schema", bound=Section)
HEAD = "# The resolved config of this run: "
SECTIONS = {"network", "train", "inference"}  # without which nothing can be done with a run; all are written
USES = {  # whether a run classifies -> what it does, and what takes it
    True: "classifies: segmed classify and segmed train-cls take it",
    False: "segments: segmed predict and segmed train take it",
}


def write_config(run: Run, config: Section, reasons: Mapping[str, str]) -> None:
    """Write the resolved config; each value that was `auto` has its reason behind it."""
    command = "train-cls" if isinstance(config, ClassificationConfig) else "train"
    text = [f"{HEAD}`segmed {command} --config THIS_FILE` repeats it.", ""]
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
        config = load_written(schema, run.config)
    except ConfigError as error:
        wanted, actual = schema is ClassificationConfig, classifies(run.config)
        if actual is not None and actual != wanted:
            raise RunError(
                f"run {run.path} {USES[actual]}; here one that {USES[wanted].split(':')[0]} is needed"
            ) from error
        raise RunError(f"run {run.path} can't be read: {error}") from error
    lacking = sorted(SECTIONS.intersection(schema.model_fields) - config.model_fields_set)
    text = run.config.read_text(encoding="utf-8") if lacking else ""
    if lacking and (not text or text.startswith(HEAD)):  # who writes one by hand may leave out what is usual
        raise RunError(
            f"run {run.path} can't be read: {run.config.name} is cut off, it lacks {', '.join(lacking)}: copy the run "
            "again, or name another"
        )
    return config


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
