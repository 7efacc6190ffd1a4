"""Command lines and YAML files -> one frozen, validated model; errors in one line, exit code 2."""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import tyro
import yaml
from pydantic import BaseModel, ValidationError, create_model

from segmed.config import ExperimentConfig
from segmed.config.aliases import constructed
from segmed.limits import cores
from segmed.plain import printable

Model = TypeVar("Model", bound=BaseModel)
Experiment = TypeVar("Experiment", bound=BaseModel)
OPTIONAL_SECTIONS = ("adversary", "classification")  # none by default, and there as soon as one option names them


class ConfigError(ValueError):
    """A config or a command line that can't be used; the message says where and what to do."""


# ---------------------------------------------------------------- YAML


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Raises:
        ConfigError: the file is missing, is not YAML, or is no mapping.
    """
    path = Path(path)
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
        sections = set(load_yaml(config))
    except ConfigError:
        return None
    return "model" in sections if sections & {"model", "network"} else None


MOST_BYTES = 1_000_000  # of a config
LIMITS = "raise the limits of this shell (ulimit -v, ulimit -u) or of the job, or do less at once"
MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """The safe loader, with 1e-3 read as the number it is, and a key given twice refused."""

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


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def load_config(path: Path | str, overrides: dict[str, Any] | None = None) -> ExperimentConfig:
    """Read an experiment from YAML; `overrides` maps dotted names to values.

    Raises:
        ConfigError: with one line a problem, each naming the key and the nearest real one.
    """
    return load_as(ExperimentConfig, path, overrides)


def load_as(schema: type[Model], path: Path | str, overrides: dict[str, Any] | None = None) -> Model:
    """Read YAML as any schema; as `load_config`."""
    data = load_yaml(path)
    for dotted, value in (overrides or {}).items():
        _set(data, dotted.split("."), value)
    return validate(schema, data, where=str(path))


def _set(data: dict[str, Any], keys: list[str], value: Any) -> None:
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
        ConfigError: naming the first problem and how many more there are.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_describe(problem, model) for problem in error.errors(include_url=False)]
        problems = list(dict.fromkeys(problems))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{where}: {problems[0]}{more}") from None


_UNION_MEMBER = re.compile(r"[\[(]|^(int|float|str|bool|tuple|list|dict|literal|is-instance|constrained-\w+)$")


def _describe(problem: Any, model: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"] if not _UNION_MEMBER.search(str(part))]
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, problem["loc"][:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f", did you mean '{near[0]}'?" if near else f", known here: {', '.join(known)}"
        return f"unknown key '{'.'.join(location)}'{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "union_tag_not_found":
        message = "its 'name' is missing: say which one is meant"
    shown = repr(problem["input"])
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return f"'{'.'.join(location)}' is {shown}: {message[0].lower() + message[1:]}" if location else message


def _known_keys(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Fields of the section at `location`, whose parts may be fields or the tags of unions."""
    current: list[type[BaseModel]] = [model]
    for part in location:
        fields = [m.model_fields[part].annotation for m in current if part in m.model_fields]
        if fields:
            current = [m for annotation in fields for m in _models_of(annotation)]
        else:
            current = [m for m in current if part == _tag_of(m)]
    return sorted({name for m in current for name in m.model_fields})


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for inner in getattr(annotation, "__args__", ()) for m in _models_of(inner)]


def _tag_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("name")
    return field.default if field else None


# ---------------------------------------------------------------- command line


def parse(model: type[Model], argv: Sequence[str] | None = None, *, description: str | None = None) -> Model:
    """Read a tool's options into its model; `--help` prints every field with its description and ends.

    Raises:
        ConfigError: an unknown option (with the nearest real one) or a value of the wrong type.
    """
    return _tyro(model, sys.argv[1:] if argv is None else argv, description=description)


def parse_as(
    schema: type[Experiment],
    model: type[Model],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
    default_config: Path | None = None,
) -> tuple[Model, Experiment]:
    """Read `--config FILE`, the tool's own options, and any field of the experiment as `--section.field VALUE`.

    What the YAML says is the default that the command line overrides. A changed `name` (say
    `--network.name swinunetr`) replaces its section.

    Args:
        schema: of the experiment.
        model: the tool's own options; must have a field `config`.
        argv: the command line; none: that of the process.
        description: shown by `--help`.
        default_config: YAML that is read when `--config` is not given.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    path = _value_of(argv, "--config") or default_config
    data = load_yaml(path) if path else {}
    for option in [a for a in argv if re.fullmatch(r"--[\w.-]+\.name(=.*)?", a)]:
        value = _value_of(argv, option.split("=")[0])
        if value is not None:
            _set(data, option.split("=")[0][2:].replace("-", "_").split("."), value)
    for section in (name for name in OPTIONAL_SECTIONS if name in schema.model_fields):
        if data.get(section) is None and any(re.match(rf"--{section}\.|--help$|-h$", option) for option in argv):
            data[section] = {}
    default = validate(schema, data, where=str(path or "defaults"))

    field: Any = (Annotated[schema, tyro.conf.arg(name="")], default)
    both: Any = create_model("Both", __base__=model, experiment=field)
    given = _tyro(both, argv, description=description or model.__doc__)
    own = model.model_validate({name: getattr(given, name) for name in model.model_fields})
    experiment = validate(schema, given.experiment.model_dump(), where="command line")
    return own, experiment


def _value_of(argv: Sequence[str], option: str) -> str | None:
    for position, argument in enumerate(argv):
        if argument == option and position + 1 < len(argv):
            return argv[position + 1]
        if argument.startswith(option + "="):
            return argument.split("=", 1)[1]
    return None


def _tyro(model: type[Model], argv: Sequence[str], *, description: str | None) -> Model:
    printed, complained = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(complained):
            return tyro.cli(model, args=list(argv), description=description, config=(tyro.conf.AvoidSubcommands,))
    except ValidationError as error:
        raise ConfigError(_describe(error.errors(include_url=False)[0], model)) from None
    except SystemExit as stop:
        if not stop.code:
            print(printed.getvalue(), end="")
            raise
        raise ConfigError(_one_line(complained.getvalue() + printed.getvalue())) from None


def _one_line(box: str) -> str:
    """The words of tyro's box as one line, without its rules and its repeated help text."""
    box = re.sub("\x1b\\[[0-9;]*m", "", box)
    words = " ".join(re.sub(r"[╭╮╰╯│─━┃]+|-{4,}", " ", box).split())
    words = re.split(r"Argument helptext|For full helptext|Full helptext|Got errors|For further information", words)[0]
    words = re.sub(
        r"^(Unrecognized options|Value error|Parsing error|Missing.*?|Invalid.*?) (?=\1|Error|Missing)", "", words
    )
    whole_section = re.search(r"validation errors? for \w+ Value error, (.*?) \[type=", words)
    if whole_section:
        return whole_section.group(1)
    member = r"(?:\.(?:`[^`]*`|[\w\[\],-]+))*"  # of a union, or an entry of a tuple: pydantic names it after the field
    pydantic = re.search(
        rf"validation errors? for (\w+) (\w+){member} (.*?) \[type=.*?input_value=(.*?), input_type", words
    )
    if pydantic:
        section = re.search(r"Error parsing (?:experiment\.?)?([\w.]*)", words)
        path = ".".join(part for part in (section.group(1) if section else "", pydantic.group(2)) if part)
        message = pydantic.group(3).removeprefix("Value error, ")
        return f"'{path}' is {pydantic.group(4)}: {message[0].lower() + message[1:]}"
    return re.sub(r" Perhaps you meant: ", "; did you mean ", words).strip(" ;")


# ---------------------------------------------------------------- tools


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool's `main`; user errors become one line on stderr and exit code 2.

    Threads of torch that wait for each other sleep instead of spinning: where other processes (data workers, other
    people) want the processor too, training is several times faster. There are as many as the container or the batch
    job has cores. libgomp takes this from the environment only, when it is loaded; what the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", str(cores()))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files that are not UTF-8, terminals that are not
    try:
        code = main() or 0
    except KeyboardInterrupt as stop:
        print(f"interrupted{f': {stop}' if str(stop) else ''}", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 141
    except (ValueError, OSError) as error:
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        code = 2
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or "start new thread" in str(error)):
            raise
        print(
            f"error: no memory or no thread is left ({error or 'MemoryError'}): {LIMITS}", file=sys.stderr, flush=True
        )
        os._exit(2)  # the end of Python waits for threads that never began
    sys.exit(code)
