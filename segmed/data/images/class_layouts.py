"""Class folders and CSV tables -> rows: a file, its label, and its subject, slice and part where they are given."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.config.images import ClassFolders, ClassManifestLayout, ClassVolumesLayout
from segmed.data.case import listed_file
from segmed.data.cases import find_volumes
from segmed.data.images.picture import PICTURE_SUFFIXES
from segmed.data.manifest import csv_rows
from segmed.data.split_file import PARTS
from segmed.data.splits import NAMES_IN_MANIFESTS
from segmed.errors import DatasetError, did_you_mean

PART_NAMES = {**{part: part for part in PARTS}, **NAMES_IN_MANIFESTS}
SHOWN = 5  # examples in a message


@dataclass(frozen=True)
class Row:
    """One image as the layout describes it.

    Attributes:
        id: its path below the root.
        path: the file or DICOM folder; None: the row stands for a class folder without images.
        label: of the folder or the table.
        subject, slice, part: where they are given.
        file: device and inode, equal for two paths to one file; None where the system does not say.
        hint: what a folder without images holds instead.
    """

    id: str
    path: Path | None
    label: str
    subject: str | None = None
    slice: int | None = None
    part: str | None = None
    file: tuple[int, int] | None = None
    hint: str = ""


# ---------------------------------------------------------------- folders


def read_folders(root: Path, layout: ClassFolders) -> list[Row]:
    """Class folders below the root, or below folders of parts.

    Raises:
        DatasetError: no class folders; images beside them; parts that are missing or duplicate.
    """
    rows = []
    for part, folder in _part_folders(root, layout):
        folders = _subfolders(folder)
        _check_first_level(folder, folders)
        check_no_copy(folder)
        for class_folder in folders:
            rows += _class_rows(root, class_folder, part, volumes=isinstance(layout, ClassVolumesLayout))
    return rows


def _part_folders(root: Path, layout: ClassFolders) -> list[tuple[str | None, Path]]:
    """Folders whose folders are the classes, each with its part."""
    folders = _subfolders(root)
    parts: Mapping[str, str]
    if isinstance(layout.parts, str):
        parts = {f.name: PART_NAMES[f.name.lower()] for f in folders if f.name.lower() in PART_NAMES}
        if "train" not in parts.values() or len(set(parts.values())) == 1:
            parts = {}
    else:
        parts = layout.parts
    if not parts:
        return [(None, root)]
    names = [folder.name for folder in folders]
    for name in parts:
        if name not in names:
            raise DatasetError(f"data.layout.parts: {root} has no folder '{name}'{did_you_mean(name, names)}")
    twice = [part for part in PARTS if list(parts.values()).count(part) > 1]
    if twice:
        both = " and ".join(sorted(name for name, part in parts.items() if part == twice[0]))
        raise DatasetError(f"{root} has the part {twice[0]} twice, {both}: merge the folders or name data.layout.parts")
    others = [name for name in names if name not in parts]
    if others:
        raise DatasetError(
            f"{root} has a folder '{others[0]}' beside those of the parts ({', '.join(parts)}): name its part in "
            "data.layout.parts or take it away"
        )
    return [(part, root / name) for name, part in parts.items()]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def check_no_copy(folder: Path) -> None:
    """Refuse a folder that contains copies of the others, as in the zips of some published data sets.

    Raises:
        DatasetError: there is one; it would count as a class of its own.
    """
    folders = _subfolders(folder)
    for one in folders:
        others = {other.name for other in folders} - {one.name}
        inside = _subfolders(one)
        if len(others) > 1 and others <= {each.name for each in inside} and any(map(any, map(_pictures, inside))):
            raise DatasetError(
                f"{one} holds the folders {', '.join(sorted(others))} again, as {folder} does: it is a copy, no class; "
                "take it away, or set data.root to it"
            )


def _check_first_level(folder: Path, classes: Sequence[Path]) -> None:
    loose = sorted(path for path in folder.iterdir() if _is_picture(path.name) and path.is_file())
    if not classes:
        what = "images but no class folders: sort them into one folder a class" if loose else "no class folders"
        raise DatasetError(f"{folder} holds {what}{'' if loose else ': set data.root to the folder that holds them'}")
    if loose:
        raise DatasetError(
            f"{len(loose)} images lie beside the class folders of {folder}, e.g. {loose[0].name}: move them into one"
        )


def _class_rows(root: Path, folder: Path, part: str | None, *, volumes: bool) -> list[Row]:
    files = list(_volumes(folder) if volumes else _pictures(folder))
    if files:
        return [
            Row(path.relative_to(root).as_posix(), path, folder.name, part=part, file=_identity(path)) for path in files
        ]
    other = any(_pictures(folder)) if volumes else any(_volumes(folder))
    instead = "images: choose data.layout folders" if volumes else "volumes: choose data.layout volumes"
    hint = f" but {instead}" if other else ""
    return [Row(folder.relative_to(root).as_posix(), None, folder.name, part=part, hint=hint)]


def _pictures(folder: Path) -> Iterator[Path]:
    """Images at any depth, sorted; links are followed, but not in circles."""
    seen: set[str] = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real in seen:
            continue
        seen.add(real)
        yield from (Path(current, name) for name in sorted(files) if _is_picture(name))


def _volumes(folder: Path) -> Iterator[Path]:
    try:
        volumes = find_volumes(folder)
    except DatasetError:  # none at all
        return
    yield from (path for path in volumes if not _is_picture(path.name))


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None where the file is not there or the system knows none."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return (state.st_dev, state.st_ino) if state.st_ino else None


# ---------------------------------------------------------------- tables


def read_table(root: Path, layout: ClassManifestLayout) -> list[Row]:
    """One row an image.

    Raises:
        DatasetError: no table, no rows, a column that is missing, files that are not there, a path twice, cells that
            are empty or make no sense.
    """
    table = root / layout.file
    cells = csv_rows(table)
    if not cells:
        raise DatasetError(f"{table} has no rows: give one an image")
    for key in ("image", "label"):
        name = getattr(layout, key)
        if name not in cells[0]:
            hint = did_you_mean(name, list(cells[0]))
            raise DatasetError(f"{table} has no column '{name}': set data.layout.{key}{hint}")
    rows = [_table_row(row, layout, table, f"{table}, row {number}") for number, row in enumerate(cells, 1)]
    _check_files(rows, table)
    return rows


def _table_row(row: Mapping[str, str], layout: ClassManifestLayout, table: Path, where: str) -> Row:
    for key in ("image", "label", "subject", "split"):
        name = getattr(layout, key)
        if name in row and not row[name]:
            raise DatasetError(f"{where} has no {name}: fill the cell, or take the row away")
    path = listed_file(table.parent, row[layout.image])
    given = row.get(layout.split)
    part = None if given is None else PART_NAMES.get(given.lower())
    if given is not None and part is None:
        raise DatasetError(f"{where} has the split '{given}': write train, validation or test")
    name = row[layout.image]
    name = name if (table.parent / name).exists() else name.replace("\\", "/")
    return Row(
        name, path, row[layout.label], row.get(layout.subject), _number(row, layout, where), part,
        _identity(path),
    )  # fmt: skip


def _number(row: Mapping[str, str], layout: ClassManifestLayout, where: str) -> int | None:
    text = row.get(layout.slice, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise DatasetError(f"{where} has the {layout.slice} '{text}': give a whole number") from None


def _check_files(rows: Sequence[Row], table: Path) -> None:
    seen: dict[str, tuple[int, Row]] = {}
    for number, row in enumerate(rows, 1):
        first, other = seen.setdefault(os.path.normpath(str(row.path)), (number, row))
        if other is not row:
            classes = f"in '{other.label}' and in '{row.label}'" if other.label != row.label else "twice"
            raise DatasetError(f"{table} has '{row.id}' {classes}, rows {first} and {number}: keep one")
    lost = [number for number, row in enumerate(rows, 1) if row.file is None and not (row.path and row.path.exists())]
    if lost:
        shown = ", ".join(f"{rows[number - 1].id} (row {number})" for number in lost[:SHOWN])
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        raise DatasetError(f"{table} names {len(lost)} files that are not there: {shown}{more}: copy them again")
