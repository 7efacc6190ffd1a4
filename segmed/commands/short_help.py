"""A command's `--help`: the options that matter, in groups, on one screen."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import tyro
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

Groups = Mapping[str, Sequence[str]]
"""Title of a group -> its options: fields of the command, or of the experiment, as `train.epochs`."""

INDENT, COLUMN, WIDEST = 2, 26, 110
COMPLETION = "`segmed --print-completion bash` (or zsh) completes commands and options with the tab key"


def short_help(
    model: type[BaseModel], *, program: str, description: str | None, experiment: BaseModel | None = None
) -> str:
    """The text of `--help`.

    Args:
        model: the command's own options. Its class variable `often_used`, of type Groups, says which are shown; where
            it has none, all are.
        program: as it was called.
        description: what the command does.
        experiment: whose fields are options too; its values are shown as defaults.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    groups: Groups = getattr(model, "often_used", {"options": tuple(model.model_fields)})
    lines = [f"usage: {program} [OPTIONS]", ""]
    for paragraph in (description or model.__doc__ or "").strip().split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]
    for title, options in groups.items():
        lines.append(title)
        for name in options:
            if (option := _field(model, experiment, name)) is not None:
                lines += _option(name, *option, width)
        lines.append("")
    some_are_left_out = experiment is not None or sum(map(len, groups.values())) < len(model.model_fields)
    more = ["--help-all documents every option"] if some_are_left_out else []
    return "\n".join([*lines, *textwrap.wrap("; ".join([*more, COMPLETION]), width)])


def _field(
    model: type[BaseModel], experiment: BaseModel | None, name: str
) -> tuple[FieldInfo, Any, tuple[str, ...]] | None:
    """A field of the command or the experiment, its default, and the words that it may be; none: not in this one."""
    if name in model.model_fields:
        field = model.model_fields[name]
        return field, field.get_default(call_default_factory=True), _words(field.annotation)
    section: Any = experiment
    *above, last = name.split(".")
    kinds: Any = None
    for part in above:
        if part not in type(section).model_fields:
            return None  # of another network, say
        kinds = type(section).model_fields[part].annotation
        section = getattr(section, part)
    if last not in type(section).model_fields:
        return None
    field = type(section).model_fields[last]
    members = [kind for kind in get_args(kinds) if last == "name" and last in getattr(kind, "model_fields", {})]
    words = tuple(word for kind in members for word in _words(kind.model_fields[last].annotation))
    return field, getattr(section, last), words or _words(field.annotation)


def _words(annotation: Any) -> tuple[str, ...]:
    """The words of a Literal, or of those in a union."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return tuple(word for inner in get_args(annotation) for word in _words(inner))


def _option(name: str, field: FieldInfo, default: Any, words: tuple[str, ...], width: int) -> list[str]:
    label = name.upper() if tyro.conf.Positional in field.metadata else f"--{name.replace('_', '-')}"
    said = [field.description or "", f"[{', '.join(words)}]" if len(words) > 1 else ""]
    if default is PydanticUndefined:
        said.append("(required)")
    elif default not in (None, False, (), ""):
        shown = " ".join(map(str, default)) if isinstance(default, (tuple, list, dict)) else str(default)
        said.append(f"(default: {shown})")
    first, *others = textwrap.wrap(" ".join(filter(None, said)), width - INDENT - COLUMN) or [""]
    margin = " " * INDENT
    if len(label) >= COLUMN:
        others, first = [first, *others], ""
    return [f"{margin}{label:{COLUMN}}{first}".rstrip(), *(f"{margin}{'':{COLUMN}}{line}" for line in others)]
