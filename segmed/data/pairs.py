"""Predictions <-> references, paired by the names of their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from segmed.config import PHANTOM_FILES, DataConfig, NnunetLayout, PatternLayout, PhantomLayout
from segmed.data.case import Case, composed
from segmed.data.cases import find_volumes, read_dataset
from segmed.data.expressions import first_match
from segmed.data.guess import guess_layout
from segmed.data.naming import (
    FIRST_CHANNEL,
    FileName,
    agree,
    file_name,
    numbers_clash,
    plain_name,
    without_common_folders,
)
from segmed.data.patterns import label_files, parse_pattern
from segmed.errors import DatasetError
from segmed.labels import LabelSet
from segmed.volumes import Source, strip_suffix

CHANNEL = re.compile(r"(?P<case>.+)_\d{4}")


@dataclass(frozen=True)
class Reference:
    """A label map to compare with.

    Attributes:
        id: of the case.
        subject: who was scanned.
        label: where the label map is.
        image: where its image is, if known.
        names: by which a prediction may call it: first paths below the folder, then names of files and the case.
        files: names of its files, with their folders.
        subject_known: whether something says who was scanned; else the case counts as a subject.
        field_of_view: mask outside of which nothing is scored; None: all counts.
    """

    id: str
    subject: str
    label: Source
    image: Source | None = None
    names: tuple[frozenset[str], frozenset[str]] = field(default=(frozenset(), frozenset()))
    files: tuple[FileName, ...] = ()
    subject_known: bool = False
    field_of_view: Source | None = None


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


# ---------------------------------------------------------------- references


def find_references(
    folder: Path, *, data: DataConfig | None = None, pattern: str | None = None, subject: str | None = None
) -> tuple[tuple[Reference, ...], LabelSet | None]:
    """The references of a folder of label maps, or of a data set.

    Args:
        folder: label maps, at any depth, or a data set in a layout that `guess_layout` knows.
        data: how the folder is arranged, if it is that of a run: tried first.
        pattern: of label maps below the folder, such as `{case}/{case}_gt.nii.gz`; nothing is guessed then.
        subject: regular expression found in a case's id whose match (or first group) is the subject.

    Returns:
        The references, and the labels that the data set names.

    Raises:
        DatasetError: no folder, nothing in it, the pattern fits nothing, or `subject` is not found in an id.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: give the folder of the references")
    references, labels = _from_dataset(folder, data, pattern)
    if not references and data is not None:
        references = _from_label_pattern(folder, data.layout)
    if not references:
        references, labels = _from_files(folder), None
    if data is not None and isinstance(data.layout, NnunetLayout):  # which calls the images of a case so
        references = [_also_called(ref, {f"{name}{FIRST_CHANNEL}" for name in ref.names[1]}) for ref in references]
    if subject is not None:
        references = [replace(ref, subject=_subject(ref.id, subject), subject_known=True) for ref in references]
    return tuple(references), labels


def _from_dataset(
    folder: Path, data: DataConfig | None, pattern: str | None
) -> tuple[list[Reference], LabelSet | None]:
    """From the first description of the folder that finds label maps; a pattern must."""
    if pattern is not None:
        layout = PatternLayout(images={"label": pattern})
        dataset = read_dataset(DataConfig(root=folder, layout=layout, labels={"any": 1}), complete=False)
        known = dataset.subjects_known
        return [_from_case(Case(c.id, c.subject, {}, c.images["label"]), folder, known) for c in dataset.cases], None
    attempts: list[Callable[[], DataConfig]] = []
    if data is not None:
        attempts.append(lambda: _readable(data.model_copy(update={"root": folder})))
    attempts.append(lambda: _guessed(folder))
    for attempt in attempts:
        try:
            described = attempt()
            dataset = read_dataset(described, complete=False)
        except DatasetError:
            continue
        cases = [case for case in dataset.cases if case.label is not None]
        if cases:
            named = described.labels != {"any": 1}
            references = [_from_case(case, folder, dataset.subjects_known) for case in cases]
            return references, dataset.labels if named else None
    return [], None


def _guessed(folder: Path) -> DataConfig:
    layout = guess_layout(folder)
    # Without names in a dataset.json every label map would be read for its values.
    labels = {"any": 1} if isinstance(layout, PatternLayout) or not (folder / "dataset.json").is_file() else "auto"
    return DataConfig(root=folder, layout=layout, labels=labels)


def _readable(data: DataConfig) -> DataConfig:
    """The config, with the layout of a phantom's files instead of `phantom`."""
    if not isinstance(data.layout, PhantomLayout):
        return data
    return data.model_copy(update={"layout": PHANTOM_FILES})


def _from_label_pattern(folder: Path, layout: object) -> list[Reference]:
    """Label maps of a run's layout, whose images are elsewhere: their names say what the images are called.

    The folder may be any of those in the pattern.
    """
    if not isinstance(layout, PatternLayout) or layout.label is None:
        return []
    whole = parse_pattern(layout.label)
    for depth in range(len(whole.parts)):
        pattern = parse_pattern("/".join(whole.parts[depth:])) if "{" in "/".join(whole.parts[depth:]) else None
        files = label_files(folder, pattern) if pattern is not None else []
        if not files:
            continue
        references = []
        for path, values in files:
            images = [strip_suffix(parse_pattern(text).path(values)) for text in layout.images.values()]
            reference = _also_called(_from_file(path, folder), {composed(n) for n in images if "*" not in n})
            references.append(_also_called(reference, {values["case"]} if "case" in values else set()))
        return references
    return []


def _from_files(folder: Path) -> list[Reference]:
    """Every volume below a folder; where all names end in nnU-Net's first channel, names without it fit, too."""
    references = [_from_file(path, folder) for path in find_volumes(folder)]
    seen: set[str] = set()
    for reference in references:
        if reference.id in seen:
            raise DatasetError(
                f"{folder} has two references '{reference.id}' that differ by suffix alone: leave one out"
            )
        seen.add(reference.id)
    if all(reference.files[0].stem.endswith(FIRST_CHANNEL) for reference in references):
        references = [_also_called(r, {r.files[0].stem.removesuffix(FIRST_CHANNEL)}) for r in references]
    return references


def _from_case(case: Case, folder: Path, subject_known: bool) -> Reference:
    label = case.label if case.label is not None else Source(folder)
    files = tuple(file_name(source.path, folder) for source in [*case.images.values(), label])
    image = next(iter(case.images.values()), None)
    below, own = frozenset(name.below for name in files), frozenset(name.stem for name in files)
    names = (below, own | {composed(case.id)})
    return Reference(case.id, case.subject, label, image, names, files, subject_known, case.field_of_view)


def _from_file(path: Path, folder: Path) -> Reference:
    name = file_name(path, folder)
    return Reference(
        name.below, name.below, Source(path), None, (frozenset({name.below}), frozenset({name.stem})), (name,)
    )


def _also_called(reference: Reference, names: Iterable[str]) -> Reference:
    return replace(reference, names=(reference.names[0], reference.names[1] | frozenset(names)))


def _subject(case: str, subject: str) -> str:
    match = first_match(subject, case, key="subject")
    if match is None:
        raise DatasetError(f"subject '{subject}' is not found in case '{case}': adapt it")
    return match[1] if match.re.groups and match[1] is not None else match[0]


# ---------------------------------------------------------------- pairing


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
