"""YAML files -> one frozen, validated model; errors in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from copy import deepcopy
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from segmed.config import SegmentationConfig
from segmed.config.aliases import constructed
from segmed.config.classification import ClassificationConfig
from segmed.config.renames import renamed
from segmed.config.shipped import find_config
from segmed.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
Experiment = TypeVar("Experiment", bound=BaseModel)
KINDS: dict[type[BaseModel], bool] = {SegmentationConfig: False, ClassificationConfig: True}  # whether it classifies
MEANT = {
    False: "segmentation: `segmed train` takes it",
    True: "classification: `segmed train-cls` takes it",
}
OPTIONAL_SECTIONS = ("adversary", "classification")  # none by default, and there as soon as one option names them


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader; a bare word that is no file is the name of a shipped config.

    Raises:
        ConfigError: the file is missing, is not YAML, or is no mapping.
    """
    path = find_config(path)
    if path.exists() and not path.is_file():
        raise ConfigError(f"cannot read config {path}: it is a folder, a pipe or a device: name a YAML file")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"config {path} is larger than {MOST_BYTES} bytes: name the YAML file of an experiment")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path} is not a text file: name a YAML file") from error
    try:
        data = constructed(_Loader(text))
    except RecursionError as error:
        raise ConfigError(f"config {path} is not valid YAML: it is nested too deeply, or refers to itself") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"config {path} is not valid YAML{where}: {problem}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"config {path} holds a {type(data).__name__}, not a mapping of sections")
    return data


def classifies(config: Path) -> bool | None:
    """Whether a config is one of classification, not of segmentation; None where it does not tell."""
    try:
        data, _ = renamed(load_yaml(config))
    except ConfigError:
        return None
    return _classifies(data)


def _classifies(data: dict[str, Any]) -> bool | None:
    """As `classifies`, by the network, which no kind shares with the other, or by sections that one kind alone has."""
    network = data.get("network")
    name = network.get("name") if isinstance(network, dict) else None
    segments, classes = SegmentationConfig.model_fields, ClassificationConfig.model_fields
    if name in _tags(segments["network"].annotation) or data.keys() & (segments.keys() - classes.keys()):
        return False
    if name in _tags(classes["network"].annotation) or data.keys() & (classes.keys() - segments.keys()):
        return True
    return None


MOST_BYTES = 1_000_000  # of a config
MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """The safe loader, with 1e-3 read as the number it is, yes and no as words, and a key given twice refused."""

    def flatten_mapping(self, node: Any) -> None:
        """Take in what `<<` merges, after a look at the keys that the file itself gives; a node is flattened once."""
        if getattr(node, "flat", False):
            return
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key_node.start_mark)
            key = MERGE if key_node.tag == MERGE else self.construct_object(key_node, deep=True)
            if key in seen:
                problem = f"key '{key_node.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        super().flatten_mapping(node)
        node.flat = True


BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, words) for tag, words in resolvers if tag != BOOL]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}  # classes are called yes and no, and layouts on; where a switch is meant, these words are understood all the same
_Loader.add_implicit_resolver(BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def load_config(path: Path | str, overrides: dict[str, Any] | None = None) -> SegmentationConfig:
    """Read an experiment from YAML; `overrides` maps dotted names to values.

    Raises:
        ConfigError: with one line a problem, each naming the key and the nearest real one.
    """
    return load_as(SegmentationConfig, path, overrides)


def load_as(schema: type[Model], path: Path | str, overrides: dict[str, Any] | None = None) -> Model:
    """Read YAML as any schema; as `load_config`."""
    data = load_yaml(path)
    for dotted, value in (overrides or {}).items():
        set_value(data, dotted.split("."), value)
    return validate(schema, data, where=str(path))


def load_written(schema: type[Model], path: Path | str) -> Model:
    """Read a config that a run wrote, perhaps long ago: keys that have moved since count as what they are now.

    Raises:
        ConfigError: as in `load_config`.
    """
    return _validated(schema, renamed(load_yaml(path))[0], where=str(path))


def refuse_moved_options(schema: type[BaseModel], data: dict[str, Any], argv: Sequence[str]) -> None:
    """Refuse options whose key has another name today.

    Args:
        schema: of the experiment, whose defaults name the sections that `data` leaves out.
        data: what the file says.
        argv: the command line.

    Raises:
        ConfigError: naming each of them with the option of today.
    """
    given = deepcopy(data)
    for option, following in zip_longest(argv, argv[1:]):
        if re.fullmatch(r"--[a-z][\w-]*(\.[\w-]+)+(=.*)?", option):
            key, _, value = option[2:].partition("=")
            set_value(given, key.replace("-", "_").split("."), value or following)
    name = getattr(schema.model_fields["network"].default, "name", None) if "network" in schema.model_fields else None
    for key in {"network", "model"} & given.keys():
        if isinstance(given[key], dict):
            given[key].setdefault("name", name)
    _, moved = renamed(given)
    if moved:
        dashed = [f"--{each.old.replace('_', '-')} is now --{each.new.replace('_', '-')}" for each in moved]
        raise ConfigError(", ".join(dashed))


def set_value(data: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a nested value; a changed `name` replaces its whole sub-tree instead of merging into it."""
    for key in keys[:-1]:
        nested = data.get(key)
        if not isinstance(nested, dict):
            nested = data[key] = {}
        data = nested
    if keys[-1] == "name" and data.get("name") != value and len(keys) > 1:
        data.clear()
    data[keys[-1]] = value


def validate(model: type[Model], data: Any, *, where: str) -> Model:
    """Validate `data` against a model.

    Raises:
        ConfigError: naming keys that have moved, or the first problem and how many more there are.
    """
    if model in KINDS and isinstance(data, dict):
        _, moved = renamed(data)
        if moved:
            raise ConfigError(f"{where}: {', '.join(map(str, moved))}")
    return _validated(model, data, where=where)


def _validated(model: type[Model], data: Any, *, where: str) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wanted, actual = KINDS.get(model), _classifies(data) if isinstance(data, dict) else None
        if wanted is not None and actual is not None and wanted != actual:
            raise ConfigError(f"{where} is a config of {MEANT[actual]}") from None
        problems = [describe(problem, model) for problem in error.errors(include_url=False)]
        problems = list(dict.fromkeys(problems))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{where}: {problems[0]}{more}") from None


_UNION_MEMBER = re.compile(r"[\[(]|^(int|float|str|bool|tuple|list|dict|literal|is-instance|constrained-\w+)$")


def describe(problem: Any, model: type[BaseModel]) -> str:
    """One problem that pydantic has found, as a line: which key, what is wrong, what would be right."""
    keys, models = _walk(model, problem["loc"])
    key = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        names = sorted({name for section in _walk(model, problem["loc"][:-1])[1] for name in section.model_fields})
        return f"unknown key '{key}'{_nearest(keys[-1], names) or f', known here: {_listed(names)}'}"
    names = [str(_tag_of(section)) for section in models]
    if problem["type"] == "union_tag_invalid":
        given = str(problem["ctx"]["tag"])
        near = _nearest(given, names)
        return f"'{key}.name' is '{given}'{near}{' Choose' if near else ': choose'} one of {_listed(names)}"
    if problem["type"] == "union_tag_not_found":
        return f"'{key}' lacks its 'name': choose one of {_listed(names)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        message += _nearest(problem["input"], re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    shown = repr(problem["input"])
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return f"'{key}' is {shown}: {message[0].lower() + message[1:]}" if keys else message


def _nearest(given: str, known: Sequence[str]) -> str:
    """The known word that was probably meant, as a question; empty where none is near."""
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f", did you mean '{near[0]}'?" if near else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _walk(model: type[BaseModel], location: Sequence[Any]) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys of a location, without pydantic's marks of unions, and the sections that may stand there."""
    keys: list[str] = []
    current: list[type[BaseModel]] = [model]
    for part in location:
        fields = [m.model_fields[part].annotation for m in current if part in m.model_fields]
        if fields:
            keys.append(str(part))
            current = [m for annotation in fields for m in _models_of(annotation)]
        elif tagged := [m for m in current if len(current) > 1 and part == _tag_of(m)]:
            current = tagged
        elif not _UNION_MEMBER.search(str(part)):
            keys.append(str(part))
    return keys, current


def _tags(annotation: Any) -> list[Any]:
    """Names of the sections of a union."""
    return [_tag_of(model) for model in _models_of(annotation)]


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for inner in getattr(annotation, "__args__", ()) for m in _models_of(inner)]


def _tag_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("name")
    return field.default if field else None
