"""Predictions <-> references, by the names of their files, whoever named them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segmed.config import PHANTOM_FILES, DataConfig, PatternLayout, PhantomLayout
from segmed.data.case import Case
from segmed.data.cases import DatasetError, find_volumes, read_dataset
from segmed.data.expressions import found_in
from segmed.data.guess import guess_layout
from segmed.labels import LabelSet
from segmed.volumes import Source, strip_suffix

# What people append to a case's name: the channel of nnU-Net, or a word for a label map.
APPENDED = re.compile(
    r"[_\-. ](\d{4}|gt|gd|gold|label|labels|labelmap|seg|segm|segmentation|mask|manual|truth|groundtruth|ground_truth|"
    r"pred|prediction|predicted|result)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reference:
    """A label map to compare with.

    Attributes:
        id: of the case.
        subject: who was scanned.
        label: where the label map is.
        image: where its image is, if known.
        names: by which a prediction may call it: first paths below the folder, then names of files and the case.
    """

    id: str
    subject: str
    label: Source
    image: Source | None = None
    names: tuple[frozenset[str], frozenset[str]] = field(default=(frozenset(), frozenset()))


@dataclass(frozen=True)
class Pairing:
    """What belongs together.

    Attributes:
        predictions: id of a reference -> its prediction.
        missing: ids of references without one.
        unused: predictions that no reference is found for.
    """

    predictions: Mapping[str, Path]
    missing: tuple[str, ...]
    unused: tuple[Path, ...]


# ---------------------------------------------------------------- references


def find_references(
    folder: Path, *, data: DataConfig | None = None, pattern: str | None = None, subject: str | None = None
) -> tuple[tuple[Reference, ...], LabelSet | None]:
    """The references of a folder of label maps, or of a data set.

    Args:
        folder: label maps, at any depth, or a data set in a layout that `guess_layout` knows.
        data: how the folder is arranged, if it is that of a run: tried first.
        pattern: of label maps below the folder, such as `{case}/{case}_gt.nii.gz`; instead of any guess.
        subject: regular expression found in a case's id whose match (or first group) is the subject.

    Returns:
        The references, and the labels that the data set names.

    Raises:
        DatasetError: no folder, nothing in it, the pattern fits nothing, or `subject` is not found in an id.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: give the folder of the references")
    references, labels = _from_dataset(folder, data, pattern)
    if not references:
        references, labels = [_from_file(path, folder) for path in find_volumes(folder)], None
        if twice := _twice([reference.id for reference in references]):
            raise DatasetError(f"{folder} has two references '{twice}' that differ by suffix alone: leave one out")
    if subject is not None:
        references = [
            Reference(ref.id, _subject(ref.id, subject), ref.label, ref.image, ref.names) for ref in references
        ]
    return tuple(references), labels


def _from_dataset(
    folder: Path, data: DataConfig | None, pattern: str | None
) -> tuple[list[Reference], LabelSet | None]:
    """From the first description of the folder that finds label maps; a pattern must."""
    if pattern is not None:
        layout = PatternLayout(images={"label": pattern})
        found = read_dataset(DataConfig(root=folder, layout=layout, labels={"any": 1}), complete=False)
        return [_from_case(Case(c.id, c.subject, {}, c.images["label"]), folder) for c in found.cases], None
    attempts: list[Callable[[], DataConfig]] = []
    if data is not None:
        attempts.append(lambda: _readable(data.model_copy(update={"root": folder})))
    attempts.append(lambda: _guessed(folder))
    for attempt in attempts:
        try:
            described = attempt()
            found = read_dataset(described, complete=False)
        except DatasetError:
            continue
        cases = [case for case in found.cases if case.label is not None]
        if cases:
            named = described.labels != {"any": 1}
            return [_from_case(case, folder) for case in cases], found.labels if named else None
    return [], None


def _guessed(folder: Path) -> DataConfig:
    layout = guess_layout(folder)
    # Without names in a dataset.json every label map would be read for its values.
    labels = {"any": 1} if isinstance(layout, PatternLayout) or not (folder / "dataset.json").is_file() else "auto"
    return DataConfig(root=folder, layout=layout, labels=labels)


def _readable(data: DataConfig) -> DataConfig:
    """A phantom is read as the files it consists of."""
    if not isinstance(data.layout, PhantomLayout):
        return data
    return data.model_copy(update={"layout": PHANTOM_FILES})


def _from_case(case: Case, folder: Path) -> Reference:
    label = case.label if case.label is not None else Source(folder)
    paths = [source.path for source in [*case.images.values(), label]]
    image = next(iter(case.images.values()), None)
    return Reference(case.id, case.subject, label, image, _names(paths, folder, case.id))


def _from_file(path: Path, folder: Path) -> Reference:
    below = _below(path, folder)
    return Reference(below, below, Source(path), None, _names([path], folder))


def _subject(case: str, subject: str) -> str:
    found = found_in(subject, case, key="subject")
    if found is None:
        raise DatasetError(f"subject '{subject}' is not found in case '{case}': adapt it")
    return found[1] if found.re.groups and found[1] is not None else found[0]


# ---------------------------------------------------------------- names


def plain_name(name: str) -> str:
    """A name without what people append to it: `case1_gt_0000` -> `case1`."""
    while (match := APPENDED.search(name)) and match.start() > 0:
        name = name[: match.start()]
    return name


def _below(path: Path, folder: Path) -> str:
    """Path below the folder, without suffix."""
    parent = path.parent.relative_to(folder)
    return (parent / strip_suffix(path)).as_posix()


def _names(paths: Sequence[Path], folder: Path, case: str | None = None) -> tuple[frozenset[str], frozenset[str]]:
    files = {strip_suffix(path) for path in paths}
    below = {_below(path, folder) for path in paths if path.is_relative_to(folder)}
    return frozenset(below), frozenset(files | ({case} if case is not None else set()))


def _twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


# ---------------------------------------------------------------- pairing


def pair(predictions: Sequence[Path], references: Sequence[Reference], *, folder: Path) -> Pairing:
    """Find the prediction of each reference.

    Compared are, and the first that fits decides: the path below the folder, the name of the file (that of the image,
    of the label map, or of the case), the name without what people append (`_0000`, `_gt`, `_seg`), and the name of
    the folder where files are called alike in every folder. Suffixes (`.nii.gz`, `.mha`) never matter.

    Args:
        predictions: files, or folders of DICOM slices.
        references: of `find_references`.
        folder: of the predictions.

    Raises:
        DatasetError: a prediction fits two references, or two predictions fit one reference equally well.
    """
    levels = [
        _index(references, lambda reference: reference.names[0]),
        _index(references, lambda reference: reference.names[1]),
        _index(references, lambda reference: {plain_name(name) for name in reference.names[1]}),
        _index(references, _folders),
    ]
    claims: dict[str, tuple[int, Path]] = {}
    unused = []
    for path in predictions:
        name = strip_suffix(path)
        own_folder = path.parent.name if path.parent != folder else None
        keys: list[set[str | None]] = [
            {_below(path, folder)},
            {name},
            {plain_name(name)},
            {plain_name(name), own_folder},
        ]
        fit = _first_fit(path, keys, levels)
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
    found = {reference.id: claims[reference.id][1] for reference in references if reference.id in claims}
    missing = tuple(reference.id for reference in references if reference.id not in claims)
    return Pairing(found, missing, tuple(unused))


def _index(references: Sequence[Reference], names: Callable[[Reference], Iterable[str]]) -> dict[str, list[str]]:
    """Name -> ids of the references that have it."""
    index: dict[str, list[str]] = {}
    for reference in references:
        for name in names(reference):
            index.setdefault(name, []).append(reference.id)
    return index


def _folders(reference: Reference) -> set[str]:
    """The folder of a reference, and its plain names."""
    parents = {Path(below).parent.name for below in reference.names[0]} - {""}
    return parents | {plain_name(name) for name in reference.names[1]}


def _first_fit(
    path: Path, keys: Sequence[set[str | None]], levels: Sequence[Mapping[str, list[str]]]
) -> tuple[int, str] | None:
    last = len(levels) - 1
    for level, (own, index) in enumerate(zip(keys, levels, strict=True)):
        fits = sorted({reference for key in own if key is not None for reference in index.get(key, ())})
        if len(fits) == 1:
            return level, fits[0]
        if len(fits) > 1 and level < last:  # a folder that holds several cases says nothing of them
            raise DatasetError(
                f"prediction {path} fits the references '{fits[0]}' and '{fits[1]}': name it as one of them, "
                "or give --reference-pattern"
            )
    return None
