"""A command -> a page with both of its helps, as it prints them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from segmed.commands.program import COMMANDS, main_of

COLUMNS = "100"


def write_command_pages(root: Path, folder: Path) -> None:
    """A page a command, and the list of them.

    Args:
        root: of the repository, where shipped configs are looked for.
        folder: of the pages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Commands", "", "What each prints, taken when this site was built.", ""]
    lines += ["| command | what it is for |", "|---|---|"]
    for command, what in COMMANDS.items():
        lines.append(f"| [segmed {command}]({command}.md) | {what} |")
        short, whole = (printed_help(command, option, root) for option in ("--help", "--help-all"))
        page = [f"# segmed {command}", "", what[0].upper() + what[1:] + ".", "", "```text", short.rstrip(), "```", ""]
        if whole.strip() != short.strip():
            page += ["## Every option", "", "```text", whole.rstrip(), "```", ""]
        (folder / f"{command}.md").write_text("\n".join(page), encoding="utf-8")
    lines += ["", ":::{toctree}", ":hidden:", *COMMANDS, ":::", ""]
    (folder / "index.md").write_text("\n".join(lines), encoding="utf-8")


def printed_help(command: str, option: str, root: Path) -> str:
    """What `segmed COMMAND OPTION` prints.

    Args:
        command: its name.
        option: `--help` or `--help-all`.
        root: the folder that it is called in.

    Raises:
        RuntimeError: the command ended with a complaint.
    """
    printed = io.StringIO()
    with _called(["segmed", command, option], root), redirect_stdout(printed):
        try:
            main_of(command)()
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(f"segmed {command} {option} ended with {stop.code}") from stop
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())


@contextmanager
def _called(words: list[str], folder: Path) -> Iterator[None]:
    """The command line, the working folder and the width of the terminal of a call."""
    before, where, columns = sys.argv, Path.cwd(), os.environ.get("COLUMNS")
    sys.argv = words
    os.environ["COLUMNS"] = COLUMNS
    os.chdir(folder)
    try:
        yield
    finally:
        sys.argv = before
        os.chdir(where)
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
