"""One case, its images by name, its label map and its subject; and the cases that a layout holds."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from segmed.data.expressions import first_match
from segmed.errors import DatasetError
from segmed.volumes import Source


@dataclass(frozen=True)
class Case:
    """One examination: the unit that is trained on, predicted and scored.

    Attributes:
        id: unique in its data set; names its predictions.
        subject: who was scanned, the unit of splitting.
        images: modality -> where it is, in the order of a network's channels.
        label: where the label map is; None without one.
        field_of_view: where the mask is outside of which nothing is trained, found or scored; None: all counts.
        meta: other columns of a manifest, `site` and `split` among them.
    """

    id: str
    subject: str
    images: Mapping[str, Source]
    label: Source | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    field_of_view: Source | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """All its files: images, label map, field of view."""
        return (*self.images.values(), *(source for source in (self.label, self.field_of_view) if source is not None))


@dataclass(frozen=True)
class LayoutCases:
    """All that a layout says of a folder, before a config chooses from it.

    Attributes:
        name: of the data set.
        cases: with the images that exist; some may be missing, or all where there is only a label map.
        modalities: that every case should have.
        labels: name -> values, where the layout names them.
        ignore: values to ignore, where the layout names them.
        regions: name -> labels whose union it is, where the layout names them.
        targets: regions and labels that the layout has a network learn, each by itself, in the order of painting.
        test_images: cases of a layout's test folder, without label maps; they are used where a config lists them.
        subjects_known: whether the layout names the subjects; otherwise every case counts as a subject.
    """

    name: str
    cases: tuple[Case, ...]
    modalities: tuple[str, ...]
    labels: Mapping[str, Sequence[int]] | None = None
    ignore: tuple[int, ...] = ()
    test_images: tuple[Case, ...] = ()
    regions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    subjects_known: bool = False


def composed(text: str) -> str:
    """Accented letters as one character each: macOS stores them as two, and equal names would differ."""
    return unicodedata.normalize("NFC", text)


def listed_file(folder: Path, text: str) -> Path:
    """The file that a table or a dataset.json names; Windows' \\ counts as /, and accents in either Unicode form."""
    path = folder / text
    if path.exists():
        return path
    forward = text.replace("\\", "/")
    spellings = [forward, *(unicodedata.normalize(form, forward) for form in ("NFC", "NFD"))]
    return next((folder / each for each in spellings if (folder / each).exists()), path)


def with_subjects(layout_cases: LayoutCases, expression: str) -> LayoutCases:
    """The cases with the subject that a regular expression finds in their ids: its first group, or all of it.

    Raises:
        DatasetError: no regular expression, one that never ends, or it is not found in an id.
    """

    def named(case: Case) -> Case:
        match = first_match(expression, case.id, key="data.layout.subject")
        if match is None:
            raise DatasetError(f"data.layout.subject '{expression}' is not found in case '{case.id}': adapt it")
        return replace(case, subject=match[1] if match.re.groups and match[1] is not None else match[0])

    cases, tests = (tuple(map(named, group)) for group in (layout_cases.cases, layout_cases.test_images))
    return replace(layout_cases, cases=cases, test_images=tests, subjects_known=True)
