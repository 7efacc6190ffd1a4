"""Names of files -> the part that names the case, without words that say image, label map or prediction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.data.case import composed
from segmed.volumes import strip_suffix

_LABEL = (
    "gt|gd|gold|labels?|labelmap|dseg|segm?|segmentations?|masks?|manual|truth|groundtruth|ground_truth|annotations?|"
    "contours?|refs?|references?"
)
_FOUND = "preds?|predictions?|predicted|results?|outputs?"
_IMAGE = "im|imgs?|images?|scans?|volumes?|pictures?"
_BIDS = "(desc|space)-[a-z0-9]+"  # by what, and on whose grid, a BIDS derivative was made
APPENDED = re.compile(rf"[_\-. ]({_LABEL}|{_FOUND})$|_{_BIDS}$", re.IGNORECASE)
PREFIXED = re.compile(rf"^({_LABEL}|{_FOUND}|{_IMAGE})(?:[_\-. ]+|(?=\d))", re.IGNORECASE)
SAYS_LABEL = re.compile(rf"[_\-. ]({_LABEL})$|^({_LABEL})([_\-. ].*|\d*)$", re.IGNORECASE)
ROLE = re.compile(rf"({_LABEL}|{_FOUND}|{_IMAGE}|(images|labels)(tr|ts)|derivatives|anat)", re.IGNORECASE)
FIRST_CHANNEL = "_0000"


def plain_name(name: str) -> str:
    """A name without the words that say what the file is: `case1_gt` -> `case1`, `label0007` -> `0007`.

    Numbers are always kept: `case_0001` and `case_0002` are two cases.
    """
    while (match := APPENDED.search(name)) and match.start() > 0:
        name = name[: match.start()]
    match = PREFIXED.match(name)
    return name[match.end() :] if match and match.end() < len(name) else name


@dataclass(frozen=True)
class FileName:
    """The parts of a file's name that are compared.

    Attributes:
        below: path below the folder of all files, without suffix.
        stem: name of the file, without suffix.
        folders: names of the folders in between, but for those that say what their files are (`labelsTr`, `masks`).
    """

    below: str
    stem: str
    folders: tuple[str, ...]

    @property
    def tokens(self) -> frozenset[str]:
        """Everything that may name the case: folders, and the plain name unless it is just a word such as `seg`."""
        plain = plain_name(self.stem)
        return frozenset(self.folders) | (frozenset() if ROLE.fullmatch(plain) else {plain})


def file_name(path: Path, folder: Path) -> FileName:
    """The name of a file below a folder; of one elsewhere, its last part."""
    parts = path.parent.relative_to(folder).parts if path.is_relative_to(folder) else ()
    stem = composed(strip_suffix(path))
    folders = tuple(composed(part) for part in parts)
    return FileName("/".join((*folders, stem)), stem, tuple(name for name in folders if not ROLE.fullmatch(name)))


def without_common_folders(names: Sequence[FileName]) -> frozenset[str]:
    """The folders that all files lie in; none where the files' own names don't tell them apart."""
    stems = [plain_name(name.stem) for name in names]
    if len(set(stems)) < len(stems) or any(ROLE.fullmatch(stem) for stem in stems):
        return frozenset()
    return frozenset.intersection(*(frozenset(name.folders) for name in names)) if names else frozenset()


def agree(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether the folders of two files may be those of one case: one set contains the other."""
    return a <= b or b <= a


def numbers_clash(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether names differ in their numbers alone, as `visit1` and `visit2`."""
    return bool({_letters(name) for name in a - b} & {_letters(name) for name in b - a})


def _letters(name: str) -> str:
    return re.sub(r"\d+", "#", name)
