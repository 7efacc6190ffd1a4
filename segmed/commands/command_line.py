"""A command line -> one frozen, validated model; errors in one line, exit code 2."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import reduce
from itertools import zip_longest
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin

import tyro
from pydantic import BaseModel, ValidationError, create_model

from segmed.commands.complaints import complaint
from segmed.config.problems import describe_all
from segmed.config.reading import (
    OPTIONAL_SECTIONS,
    Experiment,
    Model,
    load_yaml,
    note_given,
    refuse_moved_options,
    set_values,
    validate,
)
from segmed.errors import ConfigError
from segmed.files import printable
from segmed.machine import cores

HELP = {"-h", "--help"}
SPINS = "1000"  # looks of a waiting thread before it sleeps, some microseconds
STYLE = (tyro.conf.AvoidSubcommands,)
YAML_WORDS = {
    **dict.fromkeys(("true", "yes", "on"), "True"), **dict.fromkeys(("false", "no", "off"), "False"), "null": "None"
}  # fmt: skip
LIMITS = "raise the limits of this shell (ulimit -v, ulimit -u) or of the job, or do less at once"

# ---------------------------------------------------------------- command line


def of_process() -> tuple[str, list[str]]:
    """The program's name and its arguments; `segmed NAME` is a name of two words."""
    program, *arguments = sys.argv
    if Path(program).stem in ("segmed", "program") and arguments:
        return f"segmed {arguments[0]}", arguments[1:]
    return program, arguments


def parse(model: type[Model], argv: Sequence[str] | None = None, *, description: str | None = None) -> Model:
    """Read a tool's options into its model; `--help` prints what matters, `--help-all` every field, and ends.

    Raises:
        ConfigError: an unknown option (with the nearest real one) or a value of the wrong type.
    """
    argv = of_process()[1] if argv is None else list(argv)
    if HELP & set(argv):
        _print_short_help(model, description)
    return _tyro(model, argv, description=description)


def parse_as(
    schema: type[Experiment],
    model: type[Model],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
    default_config: Path | None = None,
) -> tuple[Model, Experiment]:
    """Read `--config FILE`, the tool's own options, and any field of the experiment as `--section.field VALUE`.

    FILE may be the name of a shipped config. What the YAML says is the default that the command line overrides. A
    changed `name` (say `--network.name swinunetr`) replaces its section.

    Args:
        schema: of the experiment.
        model: the tool's own options; must have a field `config`.
        argv: the command line; none: that of the process.
        description: shown by `--help`.
        default_config: YAML that is read when `--config` is not given.
    """
    argv = of_process()[1] if argv is None else list(argv)
    path = _value_of(argv, "--config") or default_config
    data = load_yaml(path) if path else {}
    refuse_moved_options(schema, data, argv)
    names = [a.split("=")[0] for a in argv if re.fullmatch(r"--[\w.-]+(?<!\.encoder)\.name(=.*)?", a)]
    values = {name[2:].replace("-", "_"): value for name in names if (value := _value_of(argv, name)) is not None}
    set_values(data, values, schema)
    for section in (name for name in OPTIONAL_SECTIONS if name in schema.model_fields):
        if data.get(section) is None and any(re.match(rf"--{section}\.|--help-all$", option) for option in argv):
            data[section] = {}
    default = validate(schema, data, where=str(path or "defaults"))
    if HELP & set(argv):
        _print_short_help(model, description, experiment=default)
    both = with_experiment(model, default)
    given: Any = _tyro(both, argv, description=description or model.__doc__)
    own = model.model_validate({name: getattr(given, name) for name in model.model_fields})
    data = given.experiment.model_dump()
    for option in (argument.split("=")[0] for argument in argv if re.match(r"--[a-z]", argument)):
        *sections, key = option[2:].replace("-", "_").split(".")
        section = reduce(lambda part, name: part.get(name) or {}, sections, data)
        note_given(section, key)
    experiment = validate(schema, data, where="command line")
    return own, experiment


def with_experiment(model: type[Model], experiment: Experiment) -> type[Model]:
    """The tool's own options and, beside them, all fields of an experiment, whose values are the defaults."""
    field: Any = (Annotated[type(experiment), tyro.conf.arg(name="")], experiment)
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, experiment=field)


def _print_short_help(model: type[Model], description: str | None, *, experiment: BaseModel | None = None) -> NoReturn:
    from segmed.commands.short_help import short_help

    print(short_help(model, program=of_process()[0], description=description, experiment=experiment))
    sys.exit(0)


def config_named() -> Path | None:
    """What this process was given as `--config`, before anything else is read."""
    value = _value_of(of_process()[1], "--config")
    return None if value is None else Path(value)


def _value_of(argv: Sequence[str], option: str) -> str | None:
    """What follows an option, where it stands last."""
    value = None
    for argument, following in zip_longest(argv, argv[1:]):
        if argument == option:
            value = following
        elif argument.startswith(option + "="):
            value = argument.split("=", 1)[1]
    return value


def _with_yaml_words(model: type[BaseModel], argv: Sequence[str]) -> list[str]:
    """`true`, `false` and `null` mean what they mean in YAML, where a field can be that; `--loss.batch false` too."""
    words: list[str] = []
    for argument in argv:
        option, equals, value = argument.partition("=")
        if not (equals and option.startswith("--")):
            option, value = words[-1] if words else "", argument
        kinds = _kinds(model, option) if option.startswith("--") else ()
        word = YAML_WORDS.get(value.lower(), value)
        if word not in YAML_WORDS.values() or (NoneType if word == "None" else bool) not in kinds:
            words.append(argument)
        elif kinds == (bool,):
            *sections, key = option[2:].split(".")
            flag = "--" + ".".join([*sections, key if word == "True" else f"no-{key}"])
            words = [*(words if equals else words[:-1]), flag]
        else:
            words = [*words, f"{option}={word}"] if equals else [*words, word]
    return words


def _kinds(model: type[BaseModel], option: str) -> tuple[Any, ...]:
    """The types that an option's field may have: of the tool's own, or of the experiment beside them."""
    *sections, key = option[2:].replace("-", "_").split(".")
    fields = model.model_fields
    if "experiment" in fields and (sections or key not in fields):
        section = reduce(lambda part, name: getattr(part, name, None), sections, fields["experiment"].default)
        fields = getattr(type(section), "model_fields", {})
    annotation = fields[key].annotation if key in fields else None
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _tyro(model: type[Model], argv: Sequence[str], *, description: str | None) -> Model:
    argv = _with_yaml_words(model, ["--help" if argument == "--help-all" else argument for argument in argv])
    program = of_process()[0]
    printed, complained = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(complained):
            return tyro.cli(model, prog=program, args=argv, description=description, config=STYLE)
    except ValidationError as error:
        raise ConfigError(describe_all(error, model)) from None
    except SystemExit as stop:
        if not stop.code:
            print(printed.getvalue(), end="")
            raise
        raise ConfigError(complaint(stop, complained.getvalue() + printed.getvalue(), argv, model)) from None


# ---------------------------------------------------------------- tools


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool's `main`; user errors become one line on stderr and exit code 2.

    Threads of torch that wait for each other look for some microseconds whether they may go on, then they sleep: to
    sleep at once costs a quarter of the speed of small 2D networks on a quiet machine, to look for long a third of it
    where another process wants the processor (docs/speed.md). There are as many as the container or the batch job
    has cores. libgomp takes this from the environment only, when it is loaded; what the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
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
        words = re.sub(r"^\[Errno -?\d+\] ", "", " ".join(str(error).split()))
        print(f"error: {printable(words)}", file=sys.stderr)
        code = 2
    except (MemoryError, RuntimeError, ImportError) as error:
        no_room = ("start new thread", "failed to map segment", "Cannot allocate memory")
        if not (isinstance(error, MemoryError) or any(sign in str(error) for sign in no_room)):
            raise
        reason = str(error) or "MemoryError"
        print(f"error: no memory or no thread is left ({reason}): {LIMITS}", file=sys.stderr, flush=True)
        os._exit(2)  # the end of Python waits for threads that never began
    sys.exit(code)
