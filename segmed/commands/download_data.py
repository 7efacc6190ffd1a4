"""Download a public data set: segmed download hippocampus"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from segmed.commands.command_line import parse
from segmed.config import Section


class Arguments(Section):
    """Fetch one task of the Medical Segmentation Decathlon, check it, and unpack it.

    The same command resumes a download that was stopped. Terms of the data: CC BY-SA 4.0.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = Field(
        "", description="data set, e.g. hippocampus, heart, brain_tumour; see --list"
    )
    output: Path = Field(Path("data"), description="folder in which the folder of the data set appears")
    list: tyro.conf.FlagCreatePairsOff[bool] = Field(False, description="show the data sets and end")
    base_url: str = Field(
        "https://msd-for-monai.s3-us-west-2.amazonaws.com", description="address of a folder that holds the archives"
    )


def main() -> int:
    """Exit code 0: the data set is there."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    from rich.console import Console

    from segmed.data.download import download_task, find_task, is_there
    from segmed.errors import DownloadError

    console = Console(soft_wrap=True)
    if arguments.list:
        console.print(_table(arguments.output))
        return 0
    if not arguments.name:
        raise DownloadError("name a data set, e.g. hippocampus, or give --list")
    task = find_task(arguments.name)
    if is_there(task, arguments.output):
        console.print(f"{arguments.output / task.folder} is already there")
        return 0
    folder = download_task(task, arguments.output, base_url=arguments.base_url, progress=True)
    console.print(f"{folder} is there: {task.content}")
    console.print("Source: Medical Segmentation Decathlon (Antonelli et al. 2022), CC BY-SA 4.0")
    console.print(f"Look at it: segmed audit {folder} --output {folder.name}_audit")
    return 0


def _table(output: Path) -> Any:
    from rich.table import Table

    from segmed.data.download import TASKS, is_there

    table = Table("name", "content", "archive", "here")
    for task in TASKS:
        size = f"{task.size_gb:g} GB" if task.size_gb >= 0.1 else f"{task.size_gb * 1000:g} MB"
        table.add_row(task.name, task.content, size, "yes" if is_there(task, output) else "")
    return table
