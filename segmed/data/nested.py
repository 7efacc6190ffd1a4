"""Folders within folders, as EMIDEC and BIDS have them -> patterns of images and label maps."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from segmed.config import PatternLayout
from segmed.volumes import is_volume_file, strip_suffix

LABEL_WORDS = re.compile(r"(^|[^a-z])(gt|d?seg|label|mask|annot|truth|contour)", re.IGNORECASE)
MOST_FOLDERS = 50  # of a large data set that are read
SHARE = 0.8  # of the cases that must have a file for it to belong to every case
DEEPEST = 6  # levels below the root
MOST_FILES = 2000
FIELDS = {1: ("case",), 2: ("subject", "case")}


def nested_layout(folders: list[Path]) -> PatternLayout | None:
    """`{case}/Images/{case}` beside `{case}/Contours/{case}`; `{subject}/{case}/anat/{subject}_{case}_T1w` (BIDS).

    A folder whose name recurs in the names of its files names the case; of two such folders the first is the subject.

    Args:
        folders: of the first level.
    """
    if not folders:
        return None
    root = folders[0].parent
    counts: Counter[str] = Counter()
    cases: dict[str, set[tuple[str, ...]]] = {}
    for path in _files(folders):
        template = _template(path.relative_to(root))
        if template is not None:
            text, values = template
            counts[text] += 1
            cases.setdefault(text, set()).add(values)
    everyone = max((len(own) for own in cases.values()), default=0)
    common = [text for text, own in cases.items() if len(own) >= SHARE * everyone and counts[text] == len(own)]
    labels = [text for text in common if LABEL_WORDS.search(_literal(text))]
    images = [text for text in common if text not in labels]
    if everyone < 2 or not images or len(labels) > 1:
        return None
    return PatternLayout(images=_named(images), label=labels[0] if labels else None)


def _files(folders: list[Path]) -> list[Path]:
    """Volumes below the first folders, links not followed."""
    volumes: list[Path] = []
    top = len(folders[0].parent.parts)
    for folder in folders if len(folders) <= MOST_FOLDERS else [*folders[:MOST_FOLDERS], *_others(folders)]:
        for current, inner, names in os.walk(folder):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if len(Path(current).parts) - top >= DEEPEST:
                inner.clear()
            volumes += [Path(current, name) for name in sorted(names) if is_volume_file(name)]
            if len(volumes) > MOST_FILES:
                return volumes
    return volumes


def _others(folders: list[Path]) -> list[Path]:
    """Folders such as `derivatives`, whose name is not like that of the first."""
    first = re.sub(r"\d+", "#", folders[0].name)
    return [folder for folder in folders[MOST_FOLDERS:] if re.sub(r"\d+", "#", folder.name) != first][:MOST_FOLDERS]


def _template(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """The pattern that a path fits and the values of its fields; None where no folder names the case."""
    stem = strip_suffix(path)
    telling = [part for part in dict.fromkeys(path.parts[:-1]) if part in stem]
    if len(telling) not in FIELDS:
        return None
    text = path.name
    parts = list(path.parts[:-1])
    for name, value in zip(FIELDS[len(telling)], telling, strict=True):
        text = text.replace(value, f"{{{name}}}")
        parts = [f"{{{name}}}" if part == value else part for part in parts]
    return "/".join([*parts, text]), tuple(telling)


def _literal(text: str) -> str:
    """A pattern without its fields, a word a part."""
    return re.sub(r"\{\w+\}", " ", text)


def _named(images: list[str]) -> dict[str, str]:
    """Names of images from what their patterns don't share: `{subject}_{case}_T1w.nii.gz` -> T1w."""
    names = [strip_suffix(Path(re.sub(r"\{\w+\}", "", text)).name).strip("_-. ") for text in images]
    if len(set(names)) < len(names) or not all(names):
        names = ["image"] if len(images) == 1 else [f"image_{number}" for number in range(1, len(images) + 1)]
    return dict(zip(names, images, strict=True))
