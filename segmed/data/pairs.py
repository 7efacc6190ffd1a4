"""Predictions <-> references, paired by the names of their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.data.naming import (
    FIRST_CHANNEL,
    FileName,
    agree,
    file_name,
    numbers_clash,
    plain_name,
    without_common_folders,
)
from segmed.data.references import Reference
from segmed.errors import DatasetError
from segmed.volumes import strip_suffix

CHANNEL = re.compile(r"(?P<case>.+)_\d{4}")


@dataclass(frozen=True)
class Pairing:
    """Predictions and references of the same cases.

    Attributes:
        predictions: id of a reference -> its prediction.
        missing: ids of references without one.
        unused: predictions without a reference.
    """

    predictions: Mapping[str, Path]
    missing: tuple[str, ...]
    unused: tuple[Path, ...]


def pair(predictions: Sequence[Path], references: Sequence[Reference], *, folder: Path) -> Pairing:
    """The prediction of each reference.

    Compared are, and the first that fits decides: the path below the folder; the name of the file (that of the image,
    of the label map, or of the case); the name without words that say what it is (`_gt`, `_seg`, `_pred`); the same
    without `_0000`, where all predictions end in it; the folders, where they tell the cases. Numbers belong to a name,
    and folders that contradict each other (`p1/seg`, `p2/seg`) never fit. Suffixes (`.nii.gz`, `.mha`) don't matter.

    Args:
        predictions: files, or folders of DICOM slices.
        references: of `find_references`.
        folder: of the predictions.

    Raises:
        DatasetError: a prediction has the name of two references, or two predictions have that of one.
    """
    sides = _Sides([file_name(path, folder) for path in predictions], references)
    claims: dict[str, tuple[int, Path]] = {}
    unused: list[Path] = []
    for path, name in zip(predictions, sides.predictions, strict=True):
        fit = sides.first_fit(path, name)
        if fit is None:
            unused.append(path)
            continue
        level, reference = fit
        before = claims.get(reference)
        if before is not None and before[0] == level:
            raise DatasetError(
                f"{before[1]} and {path} both fit the reference '{reference}': leave one out, or name them as it is"
            )
        if before is not None:
            unused.append(max((before, (level, path)))[1])
        claims[reference] = min(before, (level, path)) if before else (level, path)
    left = [reference for reference in references if reference.id not in claims]
    by_folder = sides.by_folders(unused, {reference.id for reference in left}, folder)
    paths = {**{case: path for case, (_, path) in claims.items()}, **by_folder}
    used = set(by_folder.values())
    return Pairing(
        {reference.id: paths[reference.id] for reference in references if reference.id in paths},
        tuple(reference.id for reference in references if reference.id not in paths),
        tuple(path for path in unused if path not in used),
    )


def pair_images(files: Sequence[Path], references: Sequence[Reference], *, folder: Path) -> Pairing:
    """Find the image of each reference: as `pair`, but `CASE_0000`, `CASE_0001` may be the channels of one case.

    Of several channels the first one is taken.
    """
    pairing = pair(files, references, folder=folder)
    first = {path for path in pairing.unused if strip_suffix(path).endswith(FIRST_CHANNEL)}
    cases = {_case_of_channel(path) for path in first}
    channels = [path for path in pairing.unused if _case_of_channel(path) in cases]
    if not first or not pairing.missing:
        return pairing
    left = [reference for reference in references if reference.id in pairing.missing]
    more = pair(sorted(first), left, folder=folder)
    taken = {_case_of_channel(path) for path in more.predictions.values()}
    used = {path for path in channels if _case_of_channel(path) in taken}
    return Pairing(
        {**pairing.predictions, **more.predictions},
        more.missing,
        tuple(path for path in pairing.unused if path not in used),
    )


def _case_of_channel(path: Path) -> Path | None:
    match = CHANNEL.fullmatch(strip_suffix(path))
    return path.parent / match["case"] if match else None


class _Sides:
    """The names of both sides, and which of them may be those of one case."""

    def __init__(self, predictions: Sequence[FileName], references: Sequence[Reference]) -> None:
        self.predictions = predictions
        self.by_id = {reference.id: reference for reference in references}
        self.common = without_common_folders(predictions)
        self.common_of_references = without_common_folders([name for ref in references for name in ref.files[-1:]])
        self.all_first_channels = all(name.stem.endswith(FIRST_CHANNEL) for name in predictions)
        self.below = _index(references, lambda reference: reference.names[0])
        self.own = _index(references, lambda reference: reference.names[1])
        self.plain = _index(references, lambda reference: {plain_name(name) for name in reference.names[1]})

    def first_fit(self, path: Path, name: FileName) -> tuple[int, str] | None:
        """The reference of the first level at which one fits.

        Raises:
            DatasetError: two of them do.
        """
        keys = [(name.below, self.below), (name.stem, self.own), (plain_name(name.stem), self.plain)]
        if self.all_first_channels:
            keys.append((plain_name(name.stem.removesuffix(FIRST_CHANNEL)), self.plain))
        for level, (key, index) in enumerate(keys):
            fits = [case for case in sorted(set(index.get(key, ()))) if self._together(name, self.by_id[case])]
            if len(fits) == 1:
                return level, fits[0]
            if len(fits) > 1:
                raise DatasetError(
                    f"prediction {path} fits the references '{fits[0]}' and '{fits[1]}': name it as one of them, "
                    "or give --reference-pattern"
                )
        return None

    def _together(self, name: FileName, reference: Reference) -> bool:
        """Whether the folders of both may be those of one case."""
        own = frozenset(name.folders)
        return any(self._folders_agree(own, frozenset(file.folders)) for file in reference.files or (name,))

    def _folders_agree(self, own: frozenset[str], other: frozenset[str]) -> bool:
        if agree(own, other):
            return True
        return agree(own - self.common, other - self.common_of_references) and not numbers_clash(own, other)

    def by_folders(self, paths: Sequence[Path], left: set[str], folder: Path) -> dict[str, Path]:
        """Reference -> prediction, by names and folders together, where only one fits."""
        fits: dict[str, list[Path]] = {}
        for path in paths:
            tokens = file_name(path, folder).tokens
            own = [
                case for case, ref in self.by_id.items() if any(_one_case(tokens, name.tokens) for name in ref.files)
            ]
            for case in own if len(own) == 1 and left.issuperset(own) else ():
                fits.setdefault(case, []).append(path)
        return {case: fitting[0] for case, fitting in fits.items() if len(fitting) == 1}


def _one_case(a: frozenset[str], b: frozenset[str]) -> bool:
    return bool(a and b) and agree(a, b)


def _index(references: Sequence[Reference], names: Callable[[Reference], Iterable[str]]) -> dict[str, list[str]]:
    """Name -> ids of the references that have it."""
    index: dict[str, list[str]] = {}
    for reference in references:
        for name in names(reference):
            index.setdefault(name, []).append(reference.id)
    return index
