"""What the parser of the command line complains about -> one line in plain words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

import tyro
from pydantic import BaseModel, ValidationError

from segmed.config.problems import describe_all, no_such

KINDS = {"INT": "whole number", "FLOAT": "number", "STR": "word", "PATH": "path", "STR INT": "name and number"}
EVERY_OPTION = "--help-all lists every option"


def complaint(stop: BaseException, box: str, argv: Sequence[str], model: type[BaseModel]) -> str:
    """One line on a command line that can't be used.

    Args:
        stop: what the parser ended with.
        box: what it printed.
        argv: the command line.
        model: of all options.
    """
    box = re.sub("\x1b\\[[0-9;]*m", "", box)
    words = " ".join(re.sub(r"[╭╮╰╯│─━┃]+|-{4,}", " ", box).split())
    invalid = _invalid(stop)
    if invalid is not None:
        place = re.search(r"Error parsing ([\w.]*)", words)
        at = place[1].split(".") if place else []
        if at[:1] != [model.__name__]:
            return describe_all(invalid, model, at=at)
        text = describe_all(invalid, model, at=at[1:])  # options of a command, which are no keys of a config
        return re.sub(r"^'([\w.]+)'", lambda key: f"--{key[1].replace('_', '-')}", text)
    if choice := re.search(r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of \((.*?)\)", words):
        return no_such(choice[2], choice[1], re.findall(r"'(.*?)'", choice[3]))
    if missing := re.search(r"Missing value for argument '(.*?)'", words):
        return f"{missing[1]} needs a value"
    if unparsed := re.search(r"Error parsing (--[\w.-]+)", words):
        option = unparsed[1]
        given = " ".join(_given(argv, option))
        return f"'{option}' is '{given}': give {_wanted(box, option)}"
    if unknown := re.search(
        r"Unrecognized options: (.*?)(?: Perhaps you meant:(.*)|$| For full helptext| Similar)", words
    ):
        near = list(dict.fromkeys(re.findall(r"(?<!\S)--(?!help)[\w.-]+", unknown[2] or "")))[:3]
        return _unknown(re.split(r"[,\s]+", unknown[1].strip()), near, argv, model)
    if required := re.search(r"required:? (.*?)(?: For full helptext|$)", words, re.IGNORECASE):
        options = list(dict.fromkeys(re.findall(r"(?<!\S)--[\w.-]+", required[1])))
        return f"{', '.join(options) or required[1]} must be given"
    return re.split(r"Argument helptext|For full helptext", words)[0].strip()


def _unknown(words: Sequence[str], near: Sequence[str], argv: Sequence[str], model: type[BaseModel]) -> str:
    """What is said of words that fit no option, of which the parser may have named options that are near."""
    names = [word for word in words if word.startswith("-")]
    if not names:
        until = argv.index(words[0]) if words[0] in argv else 0
        before = [word for word in argv[:until] if word.startswith("--")]
        if before and _repeats(before[-1], model):
            return f"'{words[0]}' lacks its option: give {before[-1]} before each value"
        where = f"after {before[-1]} is one value too many" if before else "belongs to no option"
        return f"'{words[0]}' {where}: {EVERY_OPTION}"
    near = near or difflib.get_close_matches(names[0].replace("_", "-"), list(_options(model)), n=2, cutoff=0.75)
    hint = f"; did you mean {' or '.join(near)}?" if near else f": {EVERY_OPTION}"
    return f"unknown option{'s' * (len(names) > 1)} {', '.join(names)}{hint}"


def _repeats(option: str, model: type[BaseModel]) -> bool:
    """Whether an option stands on a command line as often as it has values."""
    field = model.model_fields.get(option.removeprefix("--").replace("-", "_"))
    return field is not None and tyro.conf.UseAppendAction in field.metadata


def _options(model: type[BaseModel], prefix: str = "--") -> Iterator[str]:
    """Of the fields of a model and of its sections."""
    for name, field in model.model_fields.items():
        option = prefix + name.replace("_", "-")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _options(field.annotation, f"{option}.")
        else:
            yield option


def _invalid(stop: BaseException) -> ValidationError | None:
    """The schema's own complaint behind the parser's."""
    cause: BaseException | None = stop
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__context__
    return cause


def _given(argv: Sequence[str], option: str) -> list[str]:
    """The values of an option."""
    for position, argument in enumerate(argv):
        if argument.replace("_", "-").startswith(option + "="):
            return [argument.split("=", 1)[1]]
        if argument.replace("_", "-") == option:
            rest = argv[position + 1 :]
            ends = [at for at, word in enumerate(rest) if word.startswith("--")]
            return list(rest[: ends[0]] if ends else rest)
    return []


def _wanted(box: str, option: str) -> str:
    """What the help text says that an option takes."""
    stated = re.search(rf"^[ │]*{re.escape(option)} +(.*?)[ │]*$", box.split("Argument helptext")[-1], re.MULTILINE)
    shown = stated[1] if stated else "another value"
    choices = []
    for choice in shown.split("|"):
        word = choice.strip("{}[] ")
        kind = KINDS.get(word.split(" ")[0])
        plural = "..." in choice or " " in word
        choices.append(word if kind is None else f"{kind}s" if plural else f"a {kind}")
    return " or ".join(choices)
