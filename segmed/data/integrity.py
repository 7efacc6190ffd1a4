"""Files of each case, and the cases compared with each other -> findings and facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from segmed.data.case import Case
from segmed.data.cases import Dataset, find_volumes
from segmed.data.field_of_view import read_field_of_view
from segmed.data.findings import Finding, from_error
from segmed.data.fingerprint import CaseFacts, case_facts
from segmed.data.miniature import miniature
from segmed.data.mixed_colours import is_coloured
from segmed.data.repair import disagreement
from segmed.errors import GeometryError, VolumeError
from segmed.labels import IGNORE, LabelSet
from segmed.volumes import Source, grid_difference, header_remarks, is_picture, read_label_volume, read_volume

SPACING_RATIO = 1.5  # a spacing this many times the median, or the median this many times it, may be an outlier ...
SPACING_MADS = 5.0  # ... where it also lies this many (scaled) median deviations off
FEWEST = 4  # fewer cases have no outliers
GRID_FIXES = {
    "header": "if the label map was drawn on this image, run segmed audit with --fix-geometry",
    "axes": "the axes only come in another order: run segmed audit with --fix-geometry",
    "shape": "resample the label map onto the image's grid, or find the image it was drawn on",
}


@dataclass(frozen=True)
class CaseReport:
    """Findings and facts of one case; `facts` and `small`, its miniature, are None where its images can't be used.

    `coloured` says whether its colours differ, and is None where they are not read apart.
    """

    facts: CaseFacts | None
    findings: tuple[Finding, ...]
    small: np.ndarray | None = field(default=None, compare=False)
    coloured: bool | None = None


# ---------------------------------------------------------------- one case


def check_case(
    case: Case, *, modalities: Sequence[str], labels: LabelSet, labelled: bool, incomplete: bool = False
) -> CaseReport:
    """Open every file of a case, each one once.

    Args:
        case: whose files are read.
        modalities: what every case should have.
        labels: the known label values.
        labelled: whether a case without a label map is a fault.
        incomplete: whether a case may lack some of the modalities.
    """
    findings: list[Finding] = []
    expected = [name for name in modalities if name in case.images] if incomplete and case.images else modalities
    images = _read_images(case, expected, findings)
    indices = None
    if case.label is not None:
        indices = _read_label(case, case.label, images, labels, findings)
    elif labelled:
        findings.append(Finding("error", case.id, "has no label map", "add it, or take the case out", "partner"))
    seen = _read_field_of_view(case, images, findings)
    if indices is not None and seen is not None:
        indices[..., ~seen] = IGNORE
    findings += _headers(case)
    usable = len(images) == len(expected) and len({tuple(volume.shape) for volume in images.values()}) == 1
    if not usable:
        return CaseReport(None, tuple(findings))
    facts = case_facts(case.id, images, indices, labels)
    for modality, values in facts.intensity.items():
        if values["min"] == values["max"]:
            findings.append(_constant(case, modality, values["min"]))
    small = miniature(images[modalities[0]]) if modalities[0] in images else None
    return CaseReport(facts, tuple(findings), small, is_coloured(case, images))


def _constant(case: Case, modality: str, value: float) -> Finding:
    source = case.images[modality]
    if source.colours:  # a picture may have no red
        fix = "leave it out of data.images if no case has anything there"
        return Finding("warning", case.id, f"{source.path}: '{modality}' is {value:g} everywhere", fix, "constant")
    fix = "export the image again, or take the case out"
    return Finding("error", case.id, f"{source.path}: every voxel is {value:g}", fix, "constant")


def _read_images(case: Case, modalities: Sequence[str], findings: list[Finding]) -> dict[str, MetaTensor]:
    """The modalities that can be read, one channel each; a file that holds several is decoded once."""
    images: dict[str, MetaTensor] = {}
    whole: dict[Path, MetaTensor] = {}
    uses = Counter(source.path for source in case.images.values())
    for modality in modalities:
        source = case.images.get(modality)
        if source is None:
            findings.append(
                Finding("error", case.id, f"has no image '{modality}'", "add it, or take the case out", "partner")
            )
            continue
        try:
            if source.component is not None and uses[source.path] > 1:
                if source.path not in whole:
                    whole[source.path] = read_volume(replace(source, component=None))
                chosen = whole[source.path].as_tensor()[source.component : source.component + 1]
                volume = MetaTensor(chosen, affine=whole[source.path].affine)
            else:
                volume = read_volume(source)
        except VolumeError as error:
            _add_once(findings, _unreadable(case, error))
            continue
        if len(volume) != 1:
            what = f"{source.path}: image '{modality}' is one of {len(volume)} components"
            findings.append(Finding("error", case.id, what, "name the right one in data.components", "components"))
            continue
        images[modality] = volume
    findings += _grids_of_images(case, images)
    return images


def _headers(case: Case) -> list[Finding]:
    """Contradictions within a file's header, and what reading it loses: positions, mm and ml depend on it."""
    findings = []
    for path, source in {source.path: source for source in case.sources}.items():
        try:
            remarks = header_remarks(source)
        except VolumeError:  # reported where it is read
            continue
        kind, fix = "header", "check it against the scanner's protocol or in a viewer, and write the header anew"
        if is_picture(path):
            kind, fix = "colours", "look whether that is meant"
        findings += [Finding("warning", case.id, f"{path}: {remark}", fix, kind) for remark in remarks]
    return findings


def _grids_of_images(case: Case, images: dict[str, MetaTensor]) -> list[Finding]:
    first, *others = images or [""]
    findings = []
    for modality in others:
        difference = _difference(images[modality], images[first])
        if difference:
            what = f"image '{modality}' is not on the grid of '{first}': {difference}"
            fix = "resample one onto the grid of the other"
            findings.append(Finding("error", case.id, what, fix, "grid"))
    return findings


def _read_label(
    case: Case, source: Source, images: dict[str, MetaTensor], labels: LabelSet, findings: list[Finding]
) -> np.ndarray | None:
    """Label indices on the shape of the images; None where the label map can't be used."""
    try:
        values = read_label_volume(source)
    except VolumeError as error:
        findings.append(_unreadable(case, error))
        return None
    same_shape = True
    for volume in list(images.values())[:1]:
        difference = _difference(values, volume)
        if difference:
            kind = disagreement(_grid(values), _grid(volume)) or "header"
            what = f"{source.path} is not on the image's grid: {difference}"
            findings.append(Finding("error", case.id, what, GRID_FIXES[kind], "grid"))
        same_shape = values.shape == volume.shape
    try:
        indices = labels.encode(values.as_tensor().numpy(), where=str(source.path))
    except VolumeError as error:
        findings.append(from_error(error, case=case.id, kind="unknown_label"))
        return None
    if not ((indices > 0) & (indices != IGNORE)).any():
        what = f"{source.path}: no voxel has a label"
        fix = "right only if the structure is truly absent: look at the case"
        findings.append(Finding("warning", case.id, what, fix, "empty_label"))
    return indices if same_shape else None


def _read_field_of_view(case: Case, images: dict[str, MetaTensor], findings: list[Finding]) -> np.ndarray | None:
    """The mask (X, Y, Z); None where there is none, or none that can be used."""
    if case.field_of_view is None or not images:
        return None
    try:
        return read_field_of_view(case.field_of_view, like=next(iter(images.values())), case=case.id)
    except VolumeError as error:
        findings.append(
            from_error(error, case=case.id, kind="grid" if isinstance(error, GeometryError) else "unreadable")
        )
        return None


def _unreadable(case: Case, error: VolumeError) -> Finding:
    return from_error(error, case=case.id, kind="geometry" if isinstance(error, GeometryError) else "unreadable")


def _add_once(findings: list[Finding], finding: Finding) -> None:
    """A file that holds several modalities is reported once."""
    if finding not in findings:
        findings.append(finding)


def _grid(volume: MetaTensor) -> tuple[tuple[int, ...], np.ndarray]:
    return tuple(volume.shape[1:]), np.asarray(volume.affine, dtype=np.float64)


def _difference(a: MetaTensor, b: MetaTensor) -> str | None:
    return grid_difference(_grid(a), _grid(b))


# ---------------------------------------------------------------- cases compared with each other


def check_together(facts: Sequence[CaseFacts], labels: LabelSet) -> list[Finding]:
    """Findings that need all cases, compared with each other; all of them are warnings."""
    return [*_mixed_sides(facts), *_spacing_outliers(facts), *_absent_labels(facts, labels)]


def check_files(dataset: Dataset) -> list[Finding]:
    """Findings that need no voxels: duplicate ids, images that may lack, volumes below the root that are no case's.

    Folders of test images without labels (`imagesTs`) are ignored.
    """
    counts = Counter(case.id for case in dataset.cases)
    findings = [
        Finding("error", case, f"stands {count} times", "give every case an id of its own", "duplicate")
        for case, count in counts.items()
        if count > 1
    ]
    findings += _without_field_of_view(dataset.cases)
    findings += _lacking_images(dataset) if dataset.incomplete else []
    used = {source.path.resolve() for case in dataset.cases for source in case.sources}
    unused = [
        path.relative_to(dataset.root)
        for path in find_volumes(dataset.root)
        if not {path.resolve(), path.resolve().parent} & used
    ]
    unused = [path for path in unused if not path.parts[0].endswith("Ts")]
    if unused:
        shown = ", ".join(str(path) for path in unused[:3]) + (" ..." if len(unused) > 3 else "")
        what = f"{len(unused)} {'volume belongs' if len(unused) == 1 else 'volumes belong'} to no case: {shown}"
        findings.append(Finding("warning", "", what, _what_to_do(unused), "unused"))
    return findings


def _lacking_images(dataset: Dataset) -> list[Finding]:
    """How many cases lack which image, where networks learn to do without."""
    lacking = Counter(name for case in dataset.cases for name in dataset.modalities if name not in case.images)
    if not lacking:
        return []
    count = sum(len(case.images) < len(dataset.modalities) for case in dataset.cases)
    by_image = ", ".join(f"{name} in {lacking[name]}" for name in dataset.modalities if lacking[name])
    what = f"{count} of {len(dataset.cases)} cases {'lacks' if count == 1 else 'lack'} an image: {by_image}"
    fix = "right as augment.modality_dropout is set: the networks learn to do without; look whether that many is meant"
    return [Finding("warning", "", what, fix, "partner")]


def _without_field_of_view(cases: Sequence[Case]) -> list[Finding]:
    """Cases without a mask where others have one."""
    without = [case for case in cases if case.field_of_view is None]
    if len(without) == len(cases):
        return []
    fix = "add its mask, or take the case out"
    return [Finding("error", case.id, "has no field of view", fix, "partner") for case in without]


def _what_to_do(unused: Sequence[Path]) -> str:
    """About volumes of no case; the same names in many folders are label maps with one file a structure."""
    folders: dict[str, set[Path]] = {}
    for path in unused:
        folders.setdefault(path.name, set()).add(path.parent)
    repeated = [name for name, places in folders.items() if len(places) > 1]
    if len(repeated) < 2 or any(len(path.parts) < 2 for path in unused):
        return "right if you don't need them: else adapt data.layout"
    names = " and ".join(repeated[:2]) + (" and so on" if len(repeated) > 2 else "")
    return (
        f"if {names} are one structure each: write one label map a case, of values 1, 2 and so on, "
        "and name it in data.layout; right as it is if you don't need them"
    )


def _mixed_sides(facts: Sequence[CaseFacts]) -> list[Finding]:
    """Cases whose axes are mirrored against those of most others: left and right may be exchanged."""
    mirrored = [is_mirrored(fact.orientation) for fact in facts]
    usual, count = Counter(mirrored).most_common(1)[0] if facts else (False, 0)
    if count == len(facts):
        return []
    example = facts[mirrored.index(usual)].orientation
    return [
        Finding(
            "warning",
            fact.id,
            f"axes {fact.orientation} are mirrored against those of {count} of {len(facts)} cases ({example})",
            "harmless if the header is true: look in a viewer whether left is left",
            "mixed_sides",
        )
        for fact, odd in zip(facts, mirrored, strict=True)
        if odd != usual
    ]


def is_mirrored(orientation: str) -> bool:
    """Whether axes such as `LAS` are left-handed: no rotation brings them to right, anterior, superior."""
    axes = ["LR", "PA", "IS"]
    order = [next(i for i, pair in enumerate(axes) if letter in pair) for letter in orientation]
    negative = sum(letter in "LPI" for letter in orientation)
    swaps = sum(order[i] > order[j] for i in range(3) for j in range(i + 1, 3))
    return (negative + swaps) % 2 == 1


def _spacing_outliers(facts: Sequence[CaseFacts]) -> list[Finding]:
    """Cases whose spacing is far from the median, by ratio and relative to the spread of the others.

    Spacings are sorted before they are compared, so the direction of a stack does not matter.
    """
    if len(facts) < FEWEST:
        return []
    logs = np.log(np.array([sorted(fact.spacing_mm) for fact in facts]))
    medians = np.median(logs, axis=0)
    away = np.abs(logs - medians)
    limits = np.maximum(np.log(SPACING_RATIO), SPACING_MADS * 1.4826 * np.median(away, axis=0))
    usual = " × ".join(f"{spacing:.4g}" for spacing in np.exp(medians))
    findings = []
    for fact, far in zip(facts, away > limits, strict=True):
        if far.any():
            what = f"spacing {' × '.join(f'{s:.4g}' for s in sorted(fact.spacing_mm))} mm, the median is {usual} mm"
            fix = "check the header against the scanner's protocol"
            findings.append(Finding("warning", fact.id, what, fix, "spacing"))
    return findings


def _absent_labels(facts: Sequence[CaseFacts], labels: LabelSet) -> list[Finding]:
    labelled = [fact for fact in facts if fact.label_voxels]
    absent = [name for name in labels.names if labelled and not any(fact.label_voxels[name] for fact in labelled)]
    return [
        Finding(
            "warning",
            "",
            f"label '{name}' is in none of the {len(labelled)} label maps",
            "check its value in data.labels",
            "absent_label",
        )
        for name in absent
    ]
