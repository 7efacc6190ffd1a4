"""A command line -> one frozen, validated model; errors in one line, exit code 2."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
from pydantic import ValidationError, create_model

from segmed.config.reading import (
    OPTIONAL_SECTIONS,
    Experiment,
    Model,
    describe,
    load_yaml,
    refuse_moved_options,
    set_value,
    validate,
)
from segmed.errors import ConfigError

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
    refuse_moved_options(schema, data, argv)
    for option in [a for a in argv if re.fullmatch(r"--[\w.-]+\.name(=.*)?", a)]:
        value = _value_of(argv, option.split("=")[0])
        if value is not None:
            set_value(data, option.split("=")[0][2:].replace("-", "_").split("."), value)
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
        raise ConfigError(describe(error.errors(include_url=False)[0], model)) from None
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
    people) want the processor too, training is several times faster. libgomp takes this from the environment only,
    when it is loaded; what the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = main() or 0
    except KeyboardInterrupt as stop:
        print(f"interrupted{f': {stop}' if str(stop) else ''}", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 141
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    sys.exit(code)
