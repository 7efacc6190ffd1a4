"""Cases of a segmentation data set -> volumes that stand under two names, and what a split has on several sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np

from segmed.data.case import Case
from segmed.data.cases import Dataset
from segmed.data.findings import Finding
from segmed.data.fingerprint import CaseFacts
from segmed.data.leaks.image_facts import voxel_key
from segmed.data.leaks.neighbours import subjects_across
from segmed.data.leaks.twins import Twin
from segmed.data.split_file import PARTS
from segmed.data.splits import Split
from segmed.errors import VolumeError
from segmed.geometry import to_canonical
from segmed.volumes import read_volume

SHOWN = 3
FIX = "keep one of each, or give them one subject so that they stay on one side"


def volume_twins(dataset: Dataset, facts: Sequence[CaseFacts]) -> tuple[Twin, ...]:
    """Pairs of cases that have the same voxels in an image, perhaps flipped; axes in canonical order.

    Only cases whose shape and intensities agree in the audit's facts are decoded again.

    Args:
        dataset: of the facts.
        facts: of an audit.
    """
    cases = {case.id: case for case in dataset.cases}
    found: dict[tuple[str, str], Twin] = {}
    for modality in dataset.modalities:
        alike: dict[tuple, list[str]] = {}
        for fact in facts:
            numbers = [f"{value:.5g}" for value in fact.intensity[modality].values()]
            alike.setdefault((fact.shape, *numbers), []).append(fact.id)
        for names in alike.values():
            if len(names) > 1:
                found |= {(t.a, t.b): t for t in _equal([cases[name] for name in names], modality)}
    return tuple(found[pair] for pair in sorted(found))


def _equal(cases: Sequence[Case], modality: str) -> list[Twin]:
    """Pairs among cases that look alike in their facts; a hash of each, and of its flips."""
    keys: dict[str, dict[str, str]] = {}
    for case in cases:
        try:
            voxels = to_canonical(read_volume(case.images[modality])).numpy(force=True)
        except VolumeError:  # read before, gone now
            continue
        keys[case.id] = {voxel_key(np.flip(voxels, axes)): _flip(axes) for axes in _flips()}
    twins = []
    for a, b in combinations(keys, 2):
        own = next(iter(keys[a]))
        if own in keys[b]:
            twins.append(Twin(a, b, "pixels", 1.0, keys[b][own]))
    return twins


def _flips() -> list[tuple[int, ...]]:
    """Axes of (C, X, Y, Z) to flip: none first."""
    return [tuple(axis for axis, on in zip((1, 2, 3), flags, strict=True) if on) for flags in product((0, 1), repeat=3)]


def _flip(axes: tuple[int, ...]) -> str:
    return "flip " + "".join("xyz"[axis - 1] for axis in axes) if axes else ""


def check_volumes(dataset: Dataset, twins: Sequence[Twin], split: Split | None = None) -> tuple[Finding, ...]:
    """Findings about equal volumes, and about what stands on several sides of a split.

    Args:
        dataset: whose subjects count.
        twins: of `volume_twins`.
        split: of a run; None: only the twins as such are named.
    """
    part_of = {} if split is None else {name: part for part in PARTS for name in getattr(split, part)}
    part_of |= dict.fromkeys(split.unlabelled, "train") if split else {}
    subjects = {case.id: case.subject for case in dataset.cases}
    findings = [_twin_finding(twin, part_of) for twin in twins if subjects[twin.a] != subjects[twin.b]]
    across = subjects_across(subjects, part_of)
    if across:
        names = ", ".join(list(across)[:SHOWN]) + (" ..." if len(across) > SHOWN else "")
        what = f"{len(across)} subjects have cases in several parts of the split: {names}"
        findings.append(Finding("error", "", what, "make a new split: it goes by subject", "subjects_across_parts"))
    return tuple(sorted(findings, key=lambda finding: finding.severity != "error"))


def _twin_finding(twin: Twin, part_of: Mapping[str, str]) -> Finding:
    how = f"has the voxels of {twin.b}" + (f" ({twin.transform})" if twin.transform else "")
    parts = part_of.get(twin.a), part_of.get(twin.b)
    if None not in parts and parts[0] != parts[1]:
        return Finding("error", twin.a, f"{how}, one in {parts[0]}, one in {parts[1]}", FIX, "twins_across_parts")
    return Finding("warning", twin.a, f"{how}, under another subject", FIX, "twins_pixels")
