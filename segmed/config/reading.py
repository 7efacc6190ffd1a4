"""YAML files -> one frozen, validated model; errors in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from segmed.config import SegmentationConfig
from segmed.config.aliases import constructed
from segmed.config.classification import ClassificationConfig
from segmed.config.compare import CompareConfig
from segmed.config.problems import describe_all, models_of, tag_of, yaml_problem
from segmed.config.renames import renamed
from segmed.config.sampling import NO_NUMBERS
from segmed.config.shipped import find_config
from segmed.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
Experiment = TypeVar("Experiment", bound=BaseModel)
MEANT: dict[type[BaseModel], str] = {  # kinds of experiments, and what takes them
    SegmentationConfig: "segmentation: `segmed train` (tools/train_seg.py) takes it",
    ClassificationConfig: "classification: `segmed train-cls` (tools/train_cls.py) takes it",
    CompareConfig: "a comparison: `segmed compare --config` (tools/compare.py) takes it",
}
COMPARES = {"rows", "reference"}  # keys of a comparison alone
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
        raise ConfigError(f"config {path} is not valid YAML{where}: {yaml_problem(problem)}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(f"config {path} holds {kind}, not a mapping of sections: name the YAML of an experiment")
    return data


def classifies(config: Path) -> bool | None:
    """Whether a config is one of classification, not of segmentation; None where it does not tell."""
    try:
        data, _ = renamed(load_yaml(config))
    except ConfigError:
        return None
    kind = _kind(data)
    return None if kind is None else kind is ClassificationConfig


def _kind(data: dict[str, Any]) -> type[BaseModel] | None:
    """The kind of experiment that a mapping describes, by what one kind alone knows; None where it does not tell."""
    said = {*data, *_named(data, "network"), *(f"data.{key}" for key in _section(data, "data"))}
    said |= _named(_section(data, "data"), "layout")
    if said & COMPARES:
        return CompareConfig
    segments, classes = _vocabulary(SegmentationConfig), _vocabulary(ClassificationConfig)
    votes = len(said & (segments - classes)) - len(said & (classes - segments))
    return SegmentationConfig if votes > 0 else ClassificationConfig if votes < 0 else None


def _section(data: dict[str, Any], key: str) -> dict[str, Any]:
    section = data.get(key)
    return section if isinstance(section, dict) else {}


def _named(data: dict[str, Any], key: str) -> set[str]:
    return {f"{key} {_section(data, key).get('name')}"}


def _vocabulary(kind: type[BaseModel]) -> set[str]:
    """Sections, keys of data, names of networks and of layouts that a kind of experiment knows."""
    fields = kind.model_fields
    (data,) = models_of(fields["data"].annotation)
    networks = {f"network {tag_of(model)}" for model in models_of(fields["network"].annotation)}
    layouts = {f"layout {tag_of(model)}" for model in models_of(data.model_fields["layout"].annotation)}
    return {*fields, *(f"data.{key}" for key in data.model_fields), *networks, *layouts}


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
    set_values(data, overrides or {}, schema)
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
            _set_value(given, key.replace("-", "_").split("."), value or following)
    name = getattr(schema.model_fields["network"].default, "name", None) if "network" in schema.model_fields else None
    for key in {"network", "model"} & given.keys():
        if isinstance(given[key], dict):
            given[key].setdefault("name", name)
    _, moved = renamed(given)
    if moved:
        dashed = [f"--{each.old.replace('_', '-')} is now --{each.new.replace('_', '-')}" for each in moved]
        raise ConfigError(", ".join(dashed))


def set_values(data: dict[str, Any], values: Mapping[str, Any], schema: type[BaseModel]) -> None:
    """Set nested values; a changed `name` replaces its whole sub-tree, and the other values go into the new one.

    Args:
        data: changed in place.
        values: dotted name -> value, in any order.
        schema: of the data; a section without a name has the one that this gives it.
    """
    for dotted in sorted(values, key=lambda each: (not each.endswith(".name"), each.count("."))):
        keys = dotted.split(".")
        unnamed = _name_by_default(schema, keys[:-1]) if keys[-1] == "name" else None
        _set_value(data, keys, values[dotted], unnamed=unnamed)


def _set_value(data: dict[str, Any], keys: list[str], value: Any, *, unnamed: Any = None) -> None:
    for key in keys[:-1]:
        nested = data.get(key)
        if not isinstance(nested, dict):
            nested = data[key] = {}
        data = nested
    if keys[-1] == "name" and data.get("name", unnamed) != value and len(keys) > 1:
        data.clear()
    data[keys[-1]] = value
    note_given(data, keys[-1])


def _name_by_default(schema: type[BaseModel], keys: Sequence[str]) -> Any:
    """The name of a section that gives none; None where there is no such section, or nothing to tell it by."""
    field, models = None, [schema]
    for key in keys:
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        if not fields:
            return None
        field, models = fields[0], list(models_of(fields[0].annotation))
    default = getattr(field and field.default, "name", None)
    return tag_of(models[0]) if default is None and len(models) == 1 else default


def note_given(section: dict[str, Any], key: str) -> None:
    """Where a whole section says which of its numbers were given, count one more among them."""
    if isinstance(section.get("keep"), (list, tuple)) and key not in NO_NUMBERS:
        section["keep"] = [*section["keep"], key]


def validate(model: type[Model], data: Any, *, where: str) -> Model:
    """Validate `data` against a model.

    Raises:
        ConfigError: naming keys that have moved, or the first problem and how many more there are.
    """
    if model in (SegmentationConfig, ClassificationConfig) and isinstance(data, dict):
        _, moved = renamed(data)
        if moved:
            raise ConfigError(f"{where}: {', '.join(map(str, moved))}")
    return _validated(model, data, where=where)


def _validated(model: type[Model], data: Any, *, where: str) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        actual = _kind(data) if isinstance(data, dict) and model in MEANT else None
        if actual is not None and actual is not model:
            raise ConfigError(f"{where} is a config of {MEANT[actual]}") from None
        raise ConfigError(f"{where}: {describe_all(error, model)}") from None
