"""Folders or a table -> the items of a data set for classification, each with its class, subject and part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segmed.config.images import (
    TWINS,
    ClassDataConfig,
    ClassLayout,
    ClassManifestLayout,
    ClassVolumesLayout,
    ContrastPhantomLayout,
    FoldersLayout,
)
from segmed.data.expressions import first_match
from segmed.data.images.class_layouts import Row, read_folders, read_table
from segmed.data.images.contrast_phantom import make_contrast_phantom
from segmed.data.split_file import PARTS
from segmed.errors import DatasetError, did_you_mean


@dataclass(frozen=True)
class Item:
    """One image or volume.

    Attributes:
        id: its path below the root, unique; names its row in every table.
        path: the file, or a folder of DICOM slices.
        label: index of its class.
        subject: who was scanned; the id where that is not known.
        slice: its number in the volume it was taken from, where a table says so.
        part: `train`, `validation` or `test`, where it was published with parts.
    """

    id: str
    path: Path
    label: int
    subject: str
    slice: int | None = None
    part: str | None = None


@dataclass(frozen=True)
class ClassDataset:
    """Items that belong together.

    Attributes:
        name: of the data set, for tables.
        root: its folder.
        items: sorted by id.
        classes: names, in the order of a network's outputs.
        parts: part -> ids, where it was published with parts.
        dropped: label that no class names -> number of images left out.
        subjects_known: false where the subjects are not known, so every image counts as a subject.
    """

    name: str
    root: Path
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]] | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    subjects_known: bool = True

    def counts(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """Number of images of every class, of all or of some ids."""
        items = self.items if ids is None else self.of(ids)
        numbers = Counter(item.label for item in items)
        return {name: numbers[index] for index, name in enumerate(self.classes)}

    def of(self, ids: Sequence[str]) -> tuple[Item, ...]:
        """Items by id, in the order of ids.

        Raises:
            DatasetError: one is not there any more.
        """
        known = {item.id: item for item in self.items}
        missing = [name for name in ids if name not in known]
        if missing:
            raise DatasetError(
                f"image '{missing[0]}' of the split is not in {self.root} any more ({len(missing)} missing)"
            )
        return tuple(known[name] for name in ids)

    def describe(self) -> str:
        """One line for the log: counts, subjects, and what was left out."""
        counts = ", ".join(f"{name} {count}" for name, count in self.counts().items())
        subjects = len({item.subject for item in self.items})
        who = f"{subjects} subjects" if self.subjects_known else "no subjects given: every image counts as one"
        left = "".join(f"; {count} of '{label}' left out" for label, count in self.dropped.items())
        return f"{self.name}: {len(self.items)} images ({counts}), {who}{left}"


def read_classes(config: ClassDataConfig) -> ClassDataset:
    """The data set of a config; a phantom is written first where it is absent.

    Raises:
        DatasetError: nothing there; an empty class; unknown files, labels or columns; one image in two classes; fewer
            than two classes left.
        DatasetError: the root holds something else than the phantom.
        DiskError: the phantom can't be written.
    """
    layout = _readable_layout(config)
    if not config.root.is_dir():
        raise DatasetError(f"{config.root} is not a folder: set data.root to the folder of the data set")
    rows = _read(config.root, layout)
    classes, merged = _merges(config, rows, config.root)
    rows, dropped = _kept(rows, merged)
    items = [_item(row, classes.index(merged[row.label]), config) for row in rows]
    _check_one_class_each(items, rows, classes)
    known = config.subject not in (None, TWINS) or all(row.subject is not None for row in rows)
    given = {part: tuple(item.id for item in items if item.part == part) for part in PARTS}
    parts = {part: ids for part, ids in given.items() if ids} or None
    return ClassDataset(config.root.resolve().name, config.root, tuple(items), classes, parts, dropped, known)


def _readable_layout(config: ClassDataConfig) -> ClassLayout:
    """The layout to read; a phantom is written first and read as a manifest."""
    layout = config.layout
    if not isinstance(layout, ContrastPhantomLayout):
        return layout
    make_contrast_phantom(
        config.root, subjects=layout.subjects, slices=layout.slices, size=layout.size, seed=layout.seed
    )
    return ClassManifestLayout()


def _read(root: Path, layout: ClassLayout) -> list[Row]:
    match layout:
        case ClassManifestLayout():
            rows = read_table(root, layout)
        case FoldersLayout() | ClassVolumesLayout():
            rows = read_folders(root, layout)
        case _:
            raise DatasetError(f"layout '{layout.name}' can't be read: choose folders, manifest or volumes")
    return sorted(rows, key=lambda row: row.id)


# ---------------------------------------------------------------- classes


def _merges(config: ClassDataConfig, rows: Sequence[Row], root: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the classes, and label of the files -> class."""
    labels = sorted({row.label for row in rows})
    merges = config.merges
    if merges is None:
        _check_spelling(labels, root)
        merges = {label: (label,) for label in labels}
    for name, members in merges.items():
        if not members:
            raise DatasetError(f"data.classes: '{name}' names no folder or label: name those it merges")
        for label in members:
            if label not in labels:
                raise DatasetError(
                    f"data.classes: '{name}' names an unknown class '{label}'{did_you_mean(label, labels)}"
                )
    if len(merges) < 2:
        left = f"only class '{next(iter(merges))}'" if merges else "no class"
        raise DatasetError(
            f"{root} with data.classes leaves {left}: classification needs two; it has {', '.join(labels)}"
        )
    return tuple(merges), {label: name for name, members in merges.items() for label in members}


def _check_spelling(labels: Sequence[str], root: Path) -> None:
    """`No_Tumor` beside `no tumor` is one class in two spellings."""
    seen: dict[str, str] = {}
    for label in labels:
        plain = "".join(letter for letter in label.casefold() if letter.isalnum()) or label
        other = seen.setdefault(plain, label)
        if other != label:
            raise DatasetError(
                f"{root} has classes '{other}' and '{label}', which differ in spelling alone: rename one, or merge "
                "them in data.classes"
            )


def _kept(rows: Sequence[Row], merged: Mapping[str, str]) -> tuple[list[Row], dict[str, int]]:
    dropped = Counter(row.label for row in rows if row.label not in merged and row.path is not None)
    return [row for row in rows if row.label in merged], dict(sorted(dropped.items()))


def _item(row: Row, label: int, config: ClassDataConfig) -> Item:
    if row.path is None:
        raise DatasetError(
            f"class folder {row.id} holds no images{row.hint}: fill it, or leave '{row.label}' out of data.classes"
        )
    return Item(row.id, row.path, label, _subject(row, config.subject), row.slice, row.part)


def _subject(row: Row, pattern: str | None) -> str:
    if pattern is None or pattern == TWINS:
        return row.subject or row.id
    match = first_match(pattern, row.id, key="data.subject")
    if match is None:
        raise DatasetError(f"data.subject '{pattern}' is not found in the id '{row.id}': change the expression")
    return next((group for group in match.groups() if group), match.group())


def _check_one_class_each(items: Sequence[Item], rows: Sequence[Row], classes: Sequence[str]) -> None:
    """The same file, through a link or two rows, may not stand in two classes."""
    owner: dict[tuple[int, int], Item] = {}
    for item, row in zip(items, rows, strict=True):
        if row.file is None:
            continue
        other = owner.setdefault(row.file, item)
        if other.label != item.label:
            raise DatasetError(
                f"one image stands in two classes: '{other.id}' in '{classes[other.label]}', '{item.id}' in "
                f"'{classes[item.label]}': keep one"
            )
