"""The model card of a model file: segmed model-card FILE"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from segmed.commands.command_line import parse
from segmed.config import Section


class Arguments(Section):
    """Print the card of a model file in Markdown: what it is for, its data, figures, limits and versions."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = Field(description="the model file")
    output: Path | None = Field(None, description="Markdown file to write it to; none: it is printed")


def main() -> int:
    """Exit code 0: it is printed, or written."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    from segmed.builders.model_file import read_card
    from segmed.files import atomic_write_text, bounds

    card = read_card(arguments.file)
    if arguments.output is None:
        print(card, end="")
        return 0
    with bounds(arguments.output.parent, inputs=[arguments.file]):
        atomic_write_text(arguments.output, card)
    print(f"written: {arguments.output}")
    return 0
