"""The JSON schema of an experiment: segmed schema segmentation --output FILE"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from segmed.commands.command_line import parse
from segmed.config import Section

Kind = Literal["segmentation", "classification", "comparison"]


class Arguments(Section):
    """Write the JSON schema by which an editor completes and checks the YAML of an experiment.

    An editor with the YAML language server (VS Code, Neovim, Emacs, ...) uses it where a YAML has the line
    `# yaml-language-server: $schema=FILE`.
    """

    kind: Annotated[Kind, tyro.conf.Positional, tyro.conf.arg(metavar="KIND")] = Field(
        "segmentation", description="of the experiment"
    )
    output: Path | None = Field(None, description="JSON file; none: print it")


def main() -> int:
    """Exit code 0: it is written."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    from segmed.config.schema import json_schema

    text = json.dumps(json_schema(arguments.kind), indent=1, ensure_ascii=False) + "\n"
    if arguments.output is None:
        print(text, end="")
    else:
        from segmed.files import atomic_write_text

        atomic_write_text(arguments.output, text)
    return 0
