"""One case, its images by name, its label map and its subject; and the cases that a layout holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from segmed.volumes import Source


class DatasetError(ValueError):
    """A folder or a table that can't be read as cases; one line that says what, where and what to do."""


@dataclass(frozen=True)
class Case:
    """What is looked at once.

    Attributes:
        id: unique in its data set; names its predictions.
        subject: who was scanned, the unit of splitting.
        images: modality -> where it is, in the order of a network's channels.
        label: where the label map is; None without one.
        meta: further columns of a manifest, `site` and `split` among them.
    """

    id: str
    subject: str
    images: Mapping[str, Source]
    label: Source | None = None
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What a layout says, before a config chooses from it.

    Attributes:
        name: of the data set.
        cases: with the images that are there: some may be missing, all where a label map stands alone.
        modalities: that every case should have.
        labels: name -> values, where the layout names them.
        ignore: values to ignore, where the layout names them.
        regions: name -> labels whose union it is, where the layout names them.
        test_images: cases of a layout's test folder, without label maps; they are used where a config lists them.
    """

    name: str
    cases: tuple[Case, ...]
    modalities: tuple[str, ...]
    labels: Mapping[str, Sequence[int]] | None = None
    ignore: tuple[int, ...] = ()
    test_images: tuple[Case, ...] = ()
    regions: Mapping[str, Sequence[str]] = field(default_factory=dict)
