"""The label maps that others are compared with: found in a folder of them, or in a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from segmed.config import PHANTOM_FILES, DataConfig, NnunetLayout, PatternLayout, PhantomLayout
from segmed.data.case import Case, composed
from segmed.data.cases import find_volumes, read_dataset
from segmed.data.expressions import first_match
from segmed.data.guess import guess_layout
from segmed.data.naming import FIRST_CHANNEL, FileName, file_name
from segmed.data.patterns import label_files, parse_pattern
from segmed.errors import DatasetError
from segmed.labels import LabelSet
from segmed.volumes import Source, strip_suffix


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
