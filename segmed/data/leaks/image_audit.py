"""A data set for classification -> everything that would make its results wrong, saved in a file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from segmed.data.findings import Finding
from segmed.data.images.image_dataset import ClassDataset, Item
from segmed.data.leaks.checks import check_classes, check_records, check_shortcuts, check_twins
from segmed.data.leaks.image_facts import Record
from segmed.data.leaks.leakage import find_leakage
from segmed.data.leaks.neighbour_classifier import NeighbourScore, neighbour_score
from segmed.data.leaks.neighbours import most_alike
from segmed.data.leaks.shortcuts import Shortcut, find_shortcuts, one_hot
from segmed.data.leaks.survey import Survey, make_survey, survey_file, survey_key
from segmed.data.leaks.twins import NEAR, Twin, twin_groups
from segmed.errors import DatasetError
from segmed.files import write_json


@dataclass(frozen=True)
class ClassAudit:
    """The result of an audit of a data set for classification.

    Attributes:
        name: of the data set.
        key: hash of the files, classes, subjects and parts that were audited.
        classes: class -> number of images.
        subjects: number of subjects; None: they are not known.
        parts: part -> number of images; empty without a split.
        findings: errors first.
        twins: pairs that show the same, equal pixels first, then by falling correlation.
        shortcuts: features that reveal the class without anatomy, and how well.
        neighbours: `images`, `subjects` or `twins` -> scores of a nearest neighbour on pixels, split by these.
        within, across: correlation of each image with the most alike one of its subject, and of another subject
            (without subjects: of its group of twins, and of another one).
        same_pixels: part -> images whose exact pixels are in the training part as well.
    """

    name: str
    key: str
    classes: Mapping[str, int]
    subjects: int | None
    parts: Mapping[str, int]
    findings: tuple[Finding, ...]
    twins: tuple[Twin, ...]
    shortcuts: tuple[Shortcut, ...]
    neighbours: Mapping[str, NeighbourScore]
    within: tuple[float, ...]
    across: tuple[float, ...]
    same_pixels: Mapping[str, tuple[str, ...]]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that must be repaired."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {
            "errors": len(self.errors),
            "warnings": len(self.findings) - len(self.errors),
            "kinds": dict(Counter(finding.kind for finding in self.findings)),
        }
        return {**counts, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassAudit:
        """From `to_dict`."""
        known = {field.name: data[field.name] for field in fields(cls)}
        values: dict[str, Any] = {
            "findings": tuple(Finding(**each) for each in known["findings"]),
            "twins": tuple(Twin(**each) for each in known["twins"]),
            "shortcuts": tuple(Shortcut(**each) for each in known["shortcuts"]),
            "neighbours": {name: NeighbourScore(**each) for name, each in known["neighbours"].items()},
            "same_pixels": {part: tuple(names) for part, names in known["same_pixels"].items()},
        }
        for name in ("within", "across"):
            values[name] = tuple(known[name])
        return cls(**{**known, **values})

    def save_json(self, path: Path | str) -> None:
        """Write the audit to a file, completely or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> ClassAudit:
        """Read what `save_json` wrote.

        Raises:
            DatasetError: the file is missing or is no audit of a data set for classification.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{path} is no audit of images with classes ({type(error).__name__}): make it with segmed audit"
            ) from error


def audit_classes(
    dataset: ClassDataset,
    *,
    parts: Mapping[str, Sequence[str]] | None = None,
    cache: Path | None = None,
    workers: int = 1,
    near: float = NEAR,
    progress: bool = False,
) -> ClassAudit:
    """Decode every image once, compare all with all, and report what must be repaired.

    Args:
        dataset: its images or volumes.
        parts: of a split, part -> ids; None: those that the data set was published with, if any.
        cache: folder in which the comparison and the audit are remembered until a file, a class, a subject or the
            split changes.
        workers: processes that decode.
        near: correlation of the detail from which two images are near twins.
        progress: show a bar on stderr.

    Raises:
        DatasetError: no image, an id twice, or a worker was killed.
    """
    parts = dataset.parts if parts is None else parts
    key = _key(dataset, parts, near)
    file = None if cache is None else Path(cache) / f"audit-{key}.json"
    if file is not None and file.is_file():
        try:
            return ClassAudit.load(file)
        except DatasetError:
            pass  # of another version: it is made again
    survey = make_survey(dataset.items, cache=cache, workers=workers, near=near, progress=progress)
    audit = _audit(dataset, survey, parts, key)
    if file is not None and cache is not None and survey_file(dataset.items, cache, near=near).is_file():
        with suppress(OSError):  # else the files are too new to be remembered, or the folder can't be written
            audit.save_json(file)
    return audit


def _key(dataset: ClassDataset, parts: Mapping[str, Sequence[str]] | None, near: float) -> str:
    total = hashlib.blake2b(survey_key(dataset.items, near=near).encode(), digest_size=20)
    facts = [[item.id, item.label, item.subject, item.slice] for item in dataset.items]
    sorted_parts = {part: sorted(names) for part, names in (parts or {}).items()}
    total.update(json.dumps([dataset.name, dataset.classes, facts, sorted_parts], sort_keys=True).encode())
    return total.hexdigest()


def _audit(dataset: ClassDataset, survey: Survey, parts: Mapping[str, Sequence[str]] | None, key: str) -> ClassAudit:
    readable = {record.id for record in survey.readable}
    items = [item for item in dataset.items if item.id in readable]
    groups = groups_of(dataset, survey.twins)
    units = [groups[item.id] for item in items]
    labels = [item.label for item in items]
    shortcuts = find_shortcuts(features_of(survey.readable), labels, units) if items else ()
    leakage = find_leakage(dataset, survey, parts) if parts else None
    alike = most_alike(survey.features, units)
    findings = [
        *(leakage.findings if leakage else ()),
        *check_records(survey.records),
        *check_twins(dataset, survey.twins),
        *check_classes(dataset),
        *check_shortcuts(shortcuts),
    ]
    return ClassAudit(
        name=dataset.name,
        key=key,
        classes=dataset.counts(),
        subjects=len({item.subject for item in dataset.items}) if dataset.subjects_known else None,
        parts={part: len(names) for part, names in (parts or {}).items()},
        findings=tuple(sorted(findings, key=lambda finding: finding.severity != "error")),
        twins=survey.twins,
        shortcuts=shortcuts,
        neighbours=_neighbours(survey, items, labels, units, known=dataset.subjects_known),
        within=_rounded(alike.within),
        across=_rounded(alike.across),
        same_pixels=leakage.same_pixels if leakage else {},
    )


def groups_of(dataset: ClassDataset, twins: Sequence[Twin]) -> dict[str, str]:
    """Id -> group that must stay in one part of a split: subjects, joined where they share twins."""
    return twin_groups(
        [item.id for item in dataset.items], twins, subjects={item.id: item.subject for item in dataset.items}
    )


def features_of(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Features that could reveal the class without anatomy: name -> (N, ...) numbers."""
    shapes = np.array([(*record.shape, 1)[:3] for record in records], dtype=float).reshape(-1, 3)  # a picture is flat
    return {
        "size": shapes,
        "aspect": shapes[:, 1] / shapes[:, 0],
        "mean intensity": np.array([record.mean for record in records]),
        "border": np.array([record.border for record in records]),
        "file type": one_hot([f"{record.format} {record.suffix}" for record in records]),
        "colour mode": one_hot([f"{record.mode} {record.bits}" for record in records]),
    }


def _neighbours(
    survey: Survey, items: Sequence[Item], labels: Sequence[int], units: Sequence[str], *, known: bool
) -> dict[str, NeighbourScore]:
    pixels = survey.small[:, 0]
    scores = {
        "images": neighbour_score(pixels, labels),
        "subjects" if known else "twins": neighbour_score(pixels, labels, units),
    }
    return {name: score for name, score in scores.items() if score is not None}


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values if np.isfinite(value))
