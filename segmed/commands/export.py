"""A model file or a MONAI bundle to hand over: segmed export --run RUN --output NAME.segmed"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from segmed.commands.command_line import parse
from segmed.config import Section
from segmed.errors import ConfigError
from segmed.files import bounds

if TYPE_CHECKING:
    from segmed.export.card import Words

Flag = tyro.conf.FlagCreatePairsOff[bool]


class Arguments(Section):
    """Put all that predicting needs into one file: weights, config, plan, calibration, figures, a model card.

    The file holds no path of this machine and, without --with-cases, no id of a case. `--model FILE` then stands where
    `--run` does, in segmed predict, classify, evaluate and quantify-scar. Cascades, ensembles and cross-validations
    become one file as well; of several runs the probabilities' mean is the answer. With --format monai one network
    becomes a MONAI bundle, a folder. Exit code 0: it is written.
    """

    run: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = Field(
        (),
        description="folder of a run or of a cross-validation; given again for each of several: they become one model",
    )
    output: Path = Field(description="the file, NAME.segmed; of a MONAI bundle the folder")
    format: tuple[Literal["onnx", "openvino", "monai"], ...] = Field(
        (),
        description="hold the networks in these forms too, for segmed predict --engine; each is compared with torch; "
        "monai: a MONAI bundle in place of the file",
    )
    hub: str | None = Field(
        None,
        description="OWNER/NAME: put the file there too, on the Hugging Face hub; --model hf://OWNER/NAME/FILE then "
        "fetches it; a repository that is new is private",
    )
    overwrite: Flag = Field(False, description="replace a file that is there")
    with_cases: Flag = Field(False, description="keep the ids of the cases that trained, selected and tested it")
    intended_use: str = Field("", description="what the model is for, in the author's words, for its card")
    limits: str = Field("", description="where it is known to fail, for its card")
    license: str = Field("", description="of the weights, as CC-BY-4.0, for its card")


def main() -> int:
    """Exit code 0: the model is written."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    _check(arguments)
    from segmed.export.card import Words
    from segmed.runs import own_files

    _say_unfinished(arguments.run)
    words = Words(arguments.intended_use, arguments.limits, arguments.license)
    with bounds(arguments.output.parent, inputs=[file for run in arguments.run for file in own_files(run)]):
        return _bundle(arguments, words) if "monai" in arguments.format else _model(arguments, words)


def _check(arguments: Arguments) -> None:
    """Refuse options that don't go together."""
    if not arguments.run:
        raise ConfigError("no run is named: give --run RUN, a folder that segmed train made")
    if arguments.output.exists() and not arguments.overwrite and "monai" not in arguments.format:
        raise ConfigError(f"{arguments.output} is there already: name another file, or replace it with --overwrite")
    if "monai" in arguments.format and set(arguments.format) != {"monai"}:
        raise ConfigError("--format monai makes a folder, the other formats are for the file: export twice")
    if "monai" in arguments.format and arguments.hub is not None:
        raise ConfigError("--hub takes a model file, not the folder of a bundle: leave out --format monai")
    if arguments.hub is not None:
        from segmed.builders.hub_files import check_hub

        check_hub(arguments.hub)


def _say_unfinished(runs: Sequence[Path]) -> None:
    """A run may be handed over before its end; whoever does it should know."""
    from segmed.runs.run_state import status_of

    for run in runs:
        status = status_of(run)
        if status.state in ("stopped", "training"):
            done = "" if status.share is None else f" at {100 * status.share:.0f} % of it"
            print(f"warning: {run} is exported{done}, before the end of its training", file=sys.stderr)


def _bundle(arguments: Arguments, words: Words) -> int:
    from segmed.export.bundle import write_bundle

    write_bundle(arguments.run, arguments.output, words, with_cases=arguments.with_cases)
    print(f"written: {arguments.output}, a MONAI bundle; {arguments.output / 'docs' / 'README.md'} is its card")
    return 0


def _model(arguments: Arguments, words: Words) -> int:
    from segmed.builders.hub_files import put_on_hub
    from segmed.export.engine_files import add_engines
    from segmed.export.write_model import write_model

    forms = tuple(form for form in arguments.format if form != "monai")
    add = partial(add_engines, forms=forms) if forms else None
    write_model(arguments.run, arguments.output, words, with_cases=arguments.with_cases, add=add)
    size = arguments.output.stat().st_size / 1e6
    print(f"written: {arguments.output} ({size:.1f} MB); segmed model-card {arguments.output} shows its card")
    if arguments.hub is not None:
        print(f"on the hub: {put_on_hub(arguments.output, arguments.hub)}")
    return 0
