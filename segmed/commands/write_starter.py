"""A first YAML for a folder that nobody described: segmed init FOLDER"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from segmed.commands.command_line import parse
from segmed.config import Section
from segmed.errors import ConfigError


class Arguments(Section):
    """Look at a folder and write a commented YAML to begin an experiment with: what is only guessed says so.

    It is one for `segmed train`, or for `segmed train-cls` where the folder holds images with classes. A file that is
    there is never replaced.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = Field(description="the data set")
    output: Path | None = Field(None, description="YAML file; none: called as the folder, here")


def main() -> int:
    """Exit code 0: it is written."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    from segmed.data.leaks.starter import starter_config
    from segmed.files import atomic_write_text

    path = arguments.output or Path(f"{arguments.folder.resolve().name}.yaml")
    if path.exists():
        raise ConfigError(f"{path} is there already: choose another name by --output, or take it away")
    atomic_write_text(path, starter_config(arguments.folder))
    print(f"written: {path}; read it, then segmed audit --config {path} --output FOLDER")
    return 0
