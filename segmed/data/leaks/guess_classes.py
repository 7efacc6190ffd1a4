"""A folder without a description -> whether it holds images with classes, and their layout."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

from segmed.config.images import ClassFolders, ClassLayout, ClassManifestLayout, ClassVolumesLayout, FoldersLayout
from segmed.data.cases import guess_layout
from segmed.data.images.class_layouts import check_no_copy, read_folders
from segmed.data.nested import LABEL_WORDS
from segmed.errors import DatasetError, VolumeError

MANIFEST = "manifest.csv"
SEGMENTATION = ("dataset.json", "manifest.json", "imagesTr", "labelsTr", "phantom.json")
PLACES = re.compile(r"(^|[^a-z])(images?|imgs?|pictures|scans)([^a-z]|$)", re.IGNORECASE)  # of images, not classes
FEW, MANY = 4, 5  # images in a folder, and folders, from which numbered ones are cases and no classes
MASKS = 0.2  # of the names, from which label maps lie among the images
ROWS = 50  # of a table that are read


def guess_class_layout(root: Path, *, table: str | None = None) -> ClassLayout | None:
    """The layout of images or volumes with classes; None where label maps or cases are more likely.

    A table lists classes if its labels are no files. Folders of images are classes if no name of a folder, and few
    of files, suggest label maps. Folders of volumes are classes if no segmentation layout fits them.

    Args:
        root: the folder.
        table: name of a CSV table below it; None: `manifest.csv`, if it is there.

    Raises:
        DatasetError: one of the folders contains copies of all others.
    """
    name = table or MANIFEST
    if table is not None or (root / name).is_file():
        return ClassManifestLayout(file=name) if _labels_are_classes(root / name) else None
    if not root.is_dir() or any((root / name).exists() for name in SEGMENTATION):
        return None
    check_no_copy(root)
    if _holds_classes(root, FoldersLayout()):
        return FoldersLayout()
    if not _is_segmentation(root) and _holds_classes(root, ClassVolumesLayout()):
        return ClassVolumesLayout()
    return None


def _labels_are_classes(table: Path) -> bool:
    """Whether the labels of the first rows name no files."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            labels = [row.get("label") or "" for row in islice(csv.DictReader(file), ROWS)]
    except (OSError, ValueError, csv.Error):
        return False  # the reader of the layout says what is wrong
    return any(labels) and not any(label and (table.parent / label).is_file() for label in labels)


def _holds_classes(root: Path, layout: ClassFolders) -> bool:
    """Whether there are folders with several files each, and no names that suggest label maps."""
    try:
        rows = read_folders(root, layout)
    except DatasetError:
        return False
    counts = Counter(row.label for row in rows if row.path is not None)
    if any(LABEL_WORDS.search(name) or PLACES.search(name) for name in counts) or _are_cases(counts):
        return False
    inner = [PurePosixPath(row.id).parts[:-1] for row in rows if row.path is not None]
    if sum(any(LABEL_WORDS.search(part) for part in parts) for parts in inner) > MASKS * len(inner):
        return False
    names = [row.path.stem for row in rows if row.path is not None]
    masks = sum(bool(LABEL_WORDS.search(name)) for name in names)
    several = sum(count > 1 for count in counts.values())
    return several > 0 and 2 * several >= len(counts) and masks <= MASKS * len(names)


def _are_cases(counts: Mapping[str, int]) -> bool:
    """Whether folders are subjects: sub-01 as in BIDS, or many numbered folders with few images each."""
    if all(name.startswith("sub-") for name in counts):
        return True
    alike = {re.sub(r"\d+", "#", name) for name in counts}
    few = sum(count <= FEW for count in counts.values())
    return len(alike) == 1 and len(counts) >= MANY and 2 * few >= len(counts)


def _is_segmentation(root: Path) -> bool:
    try:
        guess_layout(root)
    except (DatasetError, VolumeError):
        return False
    return True
