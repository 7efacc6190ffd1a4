"""Methods and their folders, as a command line names them: NAME=FOLDER,FOLDER"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segmed.errors import ConfigError
from segmed.runs import is_run


def named_paths(texts: Sequence[str]) -> dict[str, list[Path]]:
    """Method -> its folders and tables, patterns expanded.

    Args:
        texts: NAME=FOLDER[,FOLDER] of each method.

    Raises:
        ConfigError: fewer than two, one without a folder, a folder given twice.
    """
    methods: dict[str, list[Path]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not name.strip() or not sign or not values.strip(","):
            raise ConfigError(f"--methods {text} is not NAME=FOLDER: give a name and folders, as patch=runs/a,runs/b")
        if name in methods:
            raise ConfigError(f"method '{name}' is given twice: give all its runs at once, as {name}=RUN,RUN")
        given = [values] if Path(values).expanduser().exists() else values.split(",")  # a folder's name may have commas
        methods[name] = [path for value in given if value for path in _expanded(value, name)]
    if not methods:
        raise ConfigError("nothing to compare: give --config FILE, or --methods NAME=RUN NAME=RUN")
    if len(methods) < 2:
        raise ConfigError("one method alone can't be compared: give two or more, as supervised=RUN,RUN patch=RUN,RUN")
    _check_apart(methods)
    return methods


def _expanded(value: str, name: str) -> Iterable[Path]:
    path = Path(value).expanduser()
    if path.exists():
        return [path]
    paths = [Path(match) for match in sorted(glob.glob(str(path)))]
    paths = [match for match in paths if match.is_dir() or match.suffix == ".csv"]
    if not paths:
        what = "no folder fits the pattern" if glob.has_magic(value) else "there is no"
        raise ConfigError(f"method '{name}': {what} {value}: name a run, an evaluation or a folder of label maps")
    return paths


def _check_apart(methods: Mapping[str, Sequence[Path]]) -> None:
    """What stands twice would count as two seeds, or be compared with itself."""
    owner: dict[Path, str] = {}
    for name, paths in methods.items():
        for path in paths:
            if (same := _whose(path)) in owner:
                twice = f"in '{name}'" if owner[same] == name else f"in '{owner[same]}' and in '{name}'"
                raise ConfigError(f"{path} is given twice, {twice}: leave one out")
            owner[same] = name


def _whose(path: Path) -> Path:
    """The run or evaluation that a table or a folder belongs to."""
    path = path.resolve()
    path = path.parent if path.name == "cases.csv" else path
    in_run = path.name == "test" and is_run(path.parent)
    return path.parent if in_run else path
