"""What is wrong with a config, in plain words: which key, what stands there, what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from segmed.errors import nearest

WANTED = {  # kind of a problem -> what would be right; words in braces are limits
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "a word",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
    "dict": "keys with values",
    "model": "a section, keys with values",
    "none_required": "nothing",
    "literal_error": "{expected}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
}
_UNION_MEMBER = re.compile(r"[\[(]|^(int|float|str|bool|tuple|list|dict|literal|is-instance|constrained-\w+)$")


def describe_all(error: ValidationError, model: type[BaseModel], *, at: Sequence[str] = ()) -> str:
    """The first problem as a line, and how many keys more are wrong.

    Args:
        error: of the schema.
        model: whole, whose keys are named.
        at: keys that lead from it to the section which the error is about.
    """
    of_key: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        problem["loc"] = (*at, *problem["loc"])
        of_key.setdefault(".".join(_walk(model, problem["loc"])[0]), []).append(problem)
    # where a value may be a word or a list, an entry of the list that is wrong says more than "is no word"
    deepest = {key: each for key, each in of_key.items() if not any(key and k.startswith(f"{key}.") for k in of_key)}
    misspelt_first = sorted(deepest.values(), key=lambda each: each[0]["type"] == "missing")
    lines = list(dict.fromkeys(_describe(each, model) for each in misspelt_first))
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def _describe(problems: Sequence[Any], model: type[BaseModel]) -> str:
    """What pydantic says of one key, once for each kind of value that may stand there, as one line."""
    problem = problems[0]
    keys, models = _walk(model, problem["loc"])
    key = ".".join(keys).removeprefix("experiment.")
    if problem["type"] == "extra_forbidden":
        sections = _walk(model, problem["loc"][:-1])[1]
        known = sorted({name for section in sections for name in section.model_fields})
        return f"unknown key '{key}'{_question(keys[-1], known) or f', known here: {_listed(known)}'}"
    names = [str(tag_of(section)) for section in models]
    if problem["type"] == "union_tag_invalid":
        return no_such(f"{key}.name", str(problem["ctx"]["tag"]), names)
    if problem["type"] == "union_tag_not_found":
        return f"'{key}' lacks its 'name': choose one of {_listed(names)}"
    if problem["type"] == "missing":
        return f"'{key}' is missing: give it"
    return _wrong_value(key, problems)


def _wrong_value(key: str, problems: Sequence[Any]) -> str:
    given = problems[0]["input"]
    shown = "nothing" if given is None else repr(given)
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    stated = f"'{key}' is {shown}: " if key else ""
    for problem in problems:
        if problem["type"] == "value_error":
            message = problem["msg"].removeprefix("Value error, ")
            return stated + (message[0].lower() + message[1:] if key else message)
    if len(problems) == 1 and problems[0]["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", problems[0]["ctx"]["expected"])
        return no_such(key, str(given), words) if isinstance(given, str) and words else stated + _choice(problems)
    return stated + _choice(problems)


def no_such(key: str, given: str, known: Sequence[str]) -> str:
    """That a word is none of those which may stand at a key, the nearest, and all of them."""
    near = _question(given, known)
    return f"'{key}' is '{given}'{near}{' Choose' if near else ': choose'} one of {_listed(known)}"


def _choice(problems: Sequence[Any]) -> str:
    return "give " + " or ".join(dict.fromkeys(map(_wanted, problems)))


def _wanted(problem: Any) -> str:
    """What would be right in place of one problem."""
    kind = problem["type"]
    words = WANTED.get(kind) or WANTED.get(kind.split("_")[0])
    if words is None:
        return f"another value ({problem['msg'][0].lower() + problem['msg'][1:]})"
    return words.format(**problem.get("ctx", {}))


def yaml_problem(problem: str) -> str:
    """What the reader of YAML says, in words of who wrote the file."""
    if "\\t" in problem:
        return "a tab stands there: indent with spaces"
    if "<stream end>" in problem or "unexpected end of stream" in problem:
        return "it ends too early: a bracket or a quote is not closed"
    if "<block mapping start>" in problem or "mapping values are not allowed" in problem:
        return "the indentation or a colon is wrong there"
    return problem


def _question(given: str, known: Sequence[str]) -> str:
    """The known word that was probably meant, as a question; empty where none is near."""
    near = nearest(given, known, cutoff=0.5)
    return f", did you mean '{near}'?" if near else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


# ---------------------------------------------------------------- where in the config


def _walk(model: type[BaseModel], location: Sequence[Any]) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys of a location, without pydantic's marks of unions, and the sections that may stand there."""
    keys: list[str] = []
    current: list[type[BaseModel]] = [model]
    for part in location:
        fields = [m.model_fields[part].annotation for m in current if part in m.model_fields]
        if fields:
            keys.append(str(part))
            current = list(dict.fromkeys(m for annotation in fields for m in models_of(annotation)))
        elif tagged := [m for m in current if len(current) > 1 and part == tag_of(m)]:
            current = tagged
        elif not _UNION_MEMBER.search(str(part)):
            keys.append(str(part))
    return keys, current


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from models_of(inner)


def tag_of(model: type[BaseModel]) -> Any:
    """The `name` by which a section is told from the others of its union."""
    field = model.model_fields.get("name")
    return field.default if field else None
