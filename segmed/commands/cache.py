"""The cache that runs share: segmed cache runs/cache"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from segmed.commands.command_line import parse
from segmed.commands.list_runs import bytes_text, duration
from segmed.config import Section
from segmed.config.base import Length
from segmed.errors import ConfigError
from segmed.files import printable
from segmed.machine import cores

if TYPE_CHECKING:
    from segmed.data.cache_entries import CacheEntry

COLUMNS = ("entry", "size", "last use", "state", "data")
SHOWN = 12  # letters of an entry's name


class Arguments(Section):
    """List the prepared volumes and images that runs share: size, age of the last use, of which data.

    Entries that a live process uses are never removed. A run prepares again what it misses, or what is damaged. Exit
    code 1 where `--check` names damaged entries.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = Field(
        Path("runs/cache"), description="the cache: as `cache` of a config says, or `cache` inside the runs folder"
    )
    check: bool = Field(False, description="compare every byte with its checksum, and name damaged entries")
    prune: bool = Field(False, description="remove entries, least recently used first, until --keep-gb are left")
    keep_gb: Length | None = Field(None, description="size that --prune leaves, in GB; 0: all that is not in use goes")


def main() -> int:
    """List the entries, check them, or remove some."""
    arguments = parse(Arguments, description=Arguments.__doc__)
    if arguments.prune != (arguments.keep_gb is not None):
        raise ConfigError("--prune and --keep-gb go together: --prune --keep-gb 20 leaves 20 GB, 0 only what is in use")
    if arguments.keep_gb is not None:
        _prune(arguments.folder, arguments.keep_gb)
    if arguments.check:
        return _check(arguments.folder)
    if not arguments.prune:
        print("\n".join(_table(arguments.folder)))
    return 0


def _table(folder: Path) -> list[str]:
    from segmed.data.cache_entries import entries_of

    entries, now = entries_of(folder), time.time()
    cells = [COLUMNS, *(_cells(entry, now) for entry in entries)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    lines = [
        f"{name:{widths[0]}}  {size:>{widths[1]}}  {age:>{widths[2]}}  {state:{widths[3]}}  {data}".rstrip()
        for name, size, age, state, data in cells
    ]
    return [*(lines if entries else []), _total(folder, entries)]


def _cells(entry: CacheEntry, now: float) -> tuple[str, str, str, str, str]:
    age = duration(now - entry.used_s)
    return entry.key[:SHOWN], bytes_text(entry.size_bytes), age, entry.state, printable(entry.data)


def _total(folder: Path, entries: Sequence[CacheEntry]) -> str:
    used = [entry for entry in entries if entry.state == "in use"]
    more = f", {len(used)} of them ({_size(used)}) in use" if used else ""
    return f"{printable(folder)}: {_count(entries)}, {_size(entries)}{more}"


def _size(entries: Sequence[CacheEntry]) -> str:
    return bytes_text(sum(entry.size_bytes for entry in entries))


def _count(entries: Sequence[CacheEntry]) -> str:
    return f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"


def _prune(folder: Path, keep_gb: float) -> None:
    from segmed.data.cache_entries import entries_of, prune

    removed = prune(folder, keep_gb * 1e9)
    print(f"removed {_count(removed)}, {_size(removed)}")
    print(_total(folder, entries_of(folder)))


def _check(folder: Path) -> int:
    from segmed.data.cache_entries import damaged, entries_of

    entries = entries_of(folder)
    broken = damaged(entries, workers=cores())
    for entry in broken:
        print(printable(f"damaged: {entry.folder} {entry.data}".rstrip()))
    again = ": a run that needs one prepares it again" if broken else ""
    print(f"{_total(folder, entries)}; {len(broken)} damaged{again}")
    return 1 if broken else 0
