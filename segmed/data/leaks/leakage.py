"""A survey and a split -> what parts share: twins, subjects, neighbouring slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.data.findings import Finding
from segmed.data.images.image_dataset import ClassDataset
from segmed.data.leaks.neighbours import most_alike, slices_across, subjects_across
from segmed.data.leaks.survey import Survey
from segmed.data.leaks.twins import CUT, Twin, twin_groups

TRAIN = "train"
SHOWN = 3  # examples in a line


@dataclass(frozen=True)
class Leakage:
    """What several parts of a split share.

    Attributes:
        sizes: part -> number of pictures.
        same_pixels: part but train -> ids whose exact pixels are in the training part as well.
        twins: part but train -> ids that have a twin in the training part, equal pixels or a changed copy.
        pairs: two parts, as `test + train` -> the twins with a picture in each.
        subjects: subject -> part -> pictures, of subjects in several parts.
        slices: pairs of neighbouring slices of a subject in different parts; None: slice numbers are not known.
        alike: part but train -> share of its pictures whose most alike training picture is as alike as neighbouring
            slices of one head are; twins included.
        subjects_known: whether it is known who was scanned.
    """

    sizes: Mapping[str, int]
    same_pixels: Mapping[str, tuple[str, ...]]
    twins: Mapping[str, tuple[str, ...]]
    pairs: Mapping[str, tuple[Twin, ...]]
    subjects: Mapping[str, Mapping[str, int]]
    slices: int | None
    alike: Mapping[str, float]
    subjects_known: bool

    @property
    def leaks(self) -> bool:
        """Whether results on this split would be too good."""
        return bool(self.pairs or self.subjects)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """One line each, errors first."""
        return (*_twin_findings(self), *_subject_findings(self), *_unknown_findings(self))


def find_leakage(dataset: ClassDataset, survey: Survey, parts: Mapping[str, Sequence[str]]) -> Leakage:
    """What the parts of a split share.

    Args:
        dataset: whose subjects and slices count.
        survey: of the same data set.
        parts: part -> ids, `train` among them; pictures in none are left out.
    """
    part_of = {name: part for part, names in parts.items() for name in names}
    items = [item for item in dataset.items if item.id in part_of]
    subjects = {item.id: item.subject for item in items} if dataset.subjects_known else {}
    slices = {item.id: item.slice for item in items if item.slice is not None} if dataset.subjects_known else {}
    others = [part for part in parts if part != TRAIN]
    near = twin_groups(list(part_of), survey.twins)
    same = twin_groups(list(part_of), [twin for twin in survey.twins if twin.kind == "pixels"])
    pairs: dict[str, list[Twin]] = {}
    for twin in survey.twins:
        sides = sorted({part_of.get(name, "") for name in (twin.a, twin.b)})
        if len(sides) == 2 and all(sides):
            pairs.setdefault(" + ".join(sides), []).append(twin)
    return Leakage(
        sizes={part: len(names) for part, names in parts.items()},
        same_pixels={part: _also_in_training(same, part_of, part) for part in others},
        twins={part: _also_in_training(near, part_of, part) for part in others},
        pairs={sides: tuple(members) for sides, members in sorted(pairs.items())},
        subjects=subjects_across(subjects, part_of),
        slices=len(slices_across(subjects, slices, part_of)) if slices else None,
        alike=_alike(survey, part_of, others),
        subjects_known=dataset.subjects_known,
    )


def _also_in_training(groups: Mapping[str, str], part_of: Mapping[str, str], part: str) -> tuple[str, ...]:
    """Pictures of a part whose group has a member in the training part."""
    trained = {group for name, group in groups.items() if part_of[name] == TRAIN}
    return tuple(name for name, group in groups.items() if part_of[name] == part and group in trained)


def _alike(survey: Survey, part_of: Mapping[str, str], others: Sequence[str]) -> dict[str, float]:
    names = [record.id for record in survey.readable]
    chosen = [place for place, name in enumerate(names) if name in part_of]
    sides = np.array([part_of[names[place]] for place in chosen])
    features = survey.features[np.array(chosen, dtype=int)]
    shares = {}
    for part in others:
        two = (sides == part) | (sides == TRAIN)
        if not (sides == part).any() or not (sides == TRAIN).any():
            continue
        across = most_alike(features[two], sides[two].tolist()).across[sides[two] == part]
        shares[part] = float((across >= CUT).mean())
    return shares


# ---------------------------------------------------------------- findings


def _twin_findings(leakage: Leakage) -> list[Finding]:
    findings = []
    for part, names in leakage.twins.items():
        if not names:
            continue
        same = len(leakage.same_pixels[part])
        how = f"{same} pixel for pixel" if same == len(names) else f"{same} pixel for pixel, the others changed"
        what = (
            f"{len(names)} of {leakage.sizes[part]} {part} images stand in the training part too, {how}: {_some(names)}"
        )
        fix = "split by subject or twins (split.by), or take them out of one part"
        findings.append(Finding("error", "", what, fix, "twins_across_parts"))
    both = leakage.pairs.get("test + validation", ())
    if both:
        what = (
            f"{len(both)} pairs of equal or nearly equal images stand in validation and test: {both[0].a}, {both[0].b}"
        )
        fix = "split by subject or twins (split.by): what is chosen on validation has seen test images"
        findings.append(Finding("error", "", what, fix, "twins_across_parts"))
    return findings


def _subject_findings(leakage: Leakage) -> list[Finding]:
    if not leakage.subjects:
        return []
    what = f"{len(leakage.subjects)} subjects have images in several parts: {_some(list(leakage.subjects))}"
    if leakage.slices:
        what += f"; {leakage.slices} pairs of neighbouring slices of one subject lie in different parts"
    return [Finding("error", "", what, "split by subject (split.by)", "subjects_across_parts")]


def _unknown_findings(leakage: Leakage) -> list[Finding]:
    if leakage.subjects_known:
        return []
    shares = ", ".join(f"{share:.0%} of the {part} images" for part, share in leakage.alike.items())
    what = "nobody says who was scanned: neighbouring slices of one subject in different parts can't be excluded"
    if shares:
        what += f"; {shares} have a training image as alike (correlation {CUT:g} on) as neighbouring slices are"
    fix = "give a manifest with subjects, or data.subject; split by twins at least"
    return [Finding("warning", "", what, fix, "subjects_unknown")]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
