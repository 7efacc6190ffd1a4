"""Cases of a segmentation data set -> volumes that occur twice, and what several parts of a split share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache, partial
from itertools import combinations, product
from pathlib import Path

import numpy as np

from segmed.data.audit import Audit
from segmed.data.case import Case
from segmed.data.cases import Dataset
from segmed.data.findings import Finding
from segmed.data.fingerprint import CaseFacts
from segmed.data.leaks.image_facts import voxel_key
from segmed.data.leaks.look_alikes import look_alikes
from segmed.data.leaks.neighbours import subjects_across
from segmed.data.leaks.twins import Twin
from segmed.data.miniature import detail
from segmed.data.processes import map_in_processes
from segmed.data.split_file import PARTS
from segmed.data.splits import Split
from segmed.errors import VolumeError
from segmed.files import write_json
from segmed.geometry import to_canonical
from segmed.volumes import Source, read_volume

SHOWN = 3
FIX = "keep one of each, or give them one subject so that they stay on one side"
VERSION = 1  # raised whenever the same volumes give other twins

# Chosen on hearts and brains (hippocampus, MyoPS, ACDC, LA 2018, OASIS, BraTS): on a common grid other people reach
# 0.54, two states of one heart more, copies resampled by 0.5 to 2 along some or all axes 0.88 and more. Of the
# miniatures by which candidates are found other people reach 0.90 and most far less, copies 0.70 and more.
NEAR = 0.85
FEWEST = 1200  # voxels of the common grid: of fewer only equal ones count
FINE = 64  # voxels an axis of the grid on which candidates are compared
KEPT = 256  # volumes of candidates in memory
WORTH_IT = 32  # pairs from which on other processes help


def volume_twins(
    dataset: Dataset, audit: Audit, *, near: float = NEAR, memory: Path | None = None, workers: int = 1
) -> tuple[Twin, ...]:
    """Pairs of cases that show the same scan: equal voxels, or a copy on another grid; either may be flipped.

    Only cases that look alike in the audit are decoded again.

    Args:
        dataset: of the audit.
        audit: with facts and miniatures.
        near: correlation of the detail from which two volumes show the same.
        memory: folder for the cached pairs, keyed by content; None: they are not cached.
        workers: processes that compare candidates.
    """
    file = None if memory is None else memory / f"volumes-{_content(audit, near)}.json"
    if file is not None and (known := _remembered(file)) is not None:
        return known
    cases = {case.id: case for case in dataset.cases}
    twins_by_pair = _equal_pairs(cases, audit.facts, dataset.modalities)
    copies = {twin.b for twin in twins_by_pair.values()}  # of each set of equal volumes one is compared with the others
    first = [name for name in audit.miniatures if name not in copies and name in cases]
    candidates = [(cases[a], cases[b]) for a, b in look_alikes(first, audit.miniatures)]
    shapes = {fact.id: fact.shape for fact in audit.facts}
    grids = [(shapes[a.id], shapes[b.id]) for a, b in candidates]
    compare = partial(_near, modality=dataset.modalities[0], near=near)
    several = workers > 1 and len(candidates) >= WORTH_IT
    compared = map_in_processes(compare, candidates, grids, workers=workers, chunk=8) if several else None
    for twin in compared or map(compare, candidates, grids):
        if twin is not None:
            twins_by_pair[twin.a, twin.b] = twin
    _detail_of.cache_clear()
    twins = tuple(twins_by_pair[pair] for pair in sorted(twins_by_pair))
    if file is not None:
        with suppress(OSError):  # a read-only or full folder: they are found again next time
            write_json(file, [asdict(twin) for twin in twins])
    return twins


def _content(audit: Audit, near: float) -> str:
    """Hash of the audit's facts and miniatures, which depend on the voxels."""
    total = hashlib.blake2b(f"{VERSION} {near} {audit.modalities}".encode(), digest_size=20)
    for fact in audit.facts:
        total.update(json.dumps([fact.id, fact.shape, fact.intensity]).encode())
        total.update(audit.miniatures[fact.id].tobytes() if fact.id in audit.miniatures else b"")
    return total.hexdigest()


def _remembered(file: Path) -> tuple[Twin, ...] | None:
    try:
        return tuple(Twin(**twin) for twin in json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


# ---------------------------------------------------------------- the same voxels


def _equal_pairs(
    cases: Mapping[str, Case], facts: Sequence[CaseFacts], modalities: Sequence[str]
) -> dict[tuple[str, str], Twin]:
    twins_by_pair: dict[tuple[str, str], Twin] = {}
    for modality in modalities:
        alike: dict[tuple, list[str]] = {}
        for fact in facts:
            if modality not in fact.intensity:  # the case lacks this image
                continue
            numbers = [f"{value:.5g}" for value in fact.intensity[modality].values()]
            alike.setdefault((fact.shape, *numbers), []).append(fact.id)
        for names in alike.values():
            if len(names) > 1:
                twins_by_pair |= {(t.a, t.b): t for t in _equal([cases[name] for name in names], modality)}
    return twins_by_pair


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


# ---------------------------------------------------------------- copies on another grid


def _near(
    cases: tuple[Case, Case], shapes: tuple[Sequence[int], Sequence[int]], modality: str, near: float
) -> Twin | None:
    """Two cases compared on the coarser of their grids, shapes in canonical axes."""
    grid = tuple(min(FINE, *sizes) for sizes in zip(*shapes, strict=True))
    if np.prod(grid) < FEWEST:
        return None
    try:
        one, two = (_detail_of(case.images[modality], grid) for case in cases)
    except VolumeError:  # read before, gone now
        return None
    alike = {axes: float((one * np.flip(two, tuple(axis - 1 for axis in axes))).sum()) for axes in _flips()}
    axes = max(alike, key=lambda each: alike[each])
    a, b = (case.id for case in cases)
    return Twin(a, b, "near", round(alike[axes], 4), _flip(axes)) if alike[axes] >= near else None


@lru_cache(maxsize=KEPT)
def _detail_of(source: Source, grid: tuple[int, ...]) -> np.ndarray:
    return detail(read_volume(source), grid)


# ---------------------------------------------------------------- findings


def check_volumes(dataset: Dataset, twins: Sequence[Twin], split: Split | None = None) -> tuple[Finding, ...]:
    """Findings about equal volumes of two subjects, and about subjects and volumes in several parts of a split.

    All are errors: results on such cases may be too good.

    Args:
        dataset: whose subjects count.
        twins: of `volume_twins`.
        split: of a run; None: only the twins as such are named.
    """
    part_of = parts_of(split) if split is not None else {}
    subjects = {case.id: case.subject for case in dataset.cases}
    findings = [_twin_finding(twin, part_of) for twin in twins if subjects[twin.a] != subjects[twin.b]]
    across = subjects_across(subjects, part_of)
    if across:
        names = ", ".join(list(across)[:SHOWN]) + (" ..." if len(across) > SHOWN else "")
        what = f"{len(across)} subjects have cases in several parts of the split: {names}"
        findings.append(Finding("error", "", what, "make a new split: it goes by subject", "subjects_across_parts"))
    return tuple(sorted(findings, key=lambda finding: finding.kind != "twins_across_parts"))


def parts_of(split: Split) -> dict[str, str]:
    """Case -> its part; unlabelled cases count as training."""
    return {name: part for part in PARTS for name in getattr(split, part)} | dict.fromkeys(split.unlabelled, "train")


def leaking(twins: Sequence[Twin], split: Split) -> str | None:
    """One sentence on volumes that occur in two parts of a split; None without any."""
    part_of = parts_of(split)
    across = [twin for twin in twins if part_of.get(twin.a) != part_of.get(twin.b)]
    across = [twin for twin in across if twin.a in part_of and twin.b in part_of]
    if not across:
        return None
    twice = {name for twin in across for name in (twin.a, twin.b)}
    shares = []
    for part in ("test", "validation"):
        names = [name for name in getattr(split, part) if name in twice]
        if names:
            shares.append(f"{len(names)} of {len(getattr(split, part))} {part} cases")
    worst = min(across, key=lambda twin: (twin.kind != "pixels", -twin.correlation))
    return f"{' and '.join(shares)} stand in another part too: {worst.a} ({part_of[worst.a]}) {_how(worst)} " + (
        f"({part_of[worst.b]})"
    )


def _how(twin: Twin) -> str:
    turned = f" ({twin.transform})" if twin.transform else ""
    if twin.kind == "pixels":
        return f"has the voxels of {twin.b}{turned}"
    return f"shows the same as {twin.b}{turned}, correlation {twin.correlation:.2f}"


def _twin_finding(twin: Twin, part_of: Mapping[str, str]) -> Finding:
    parts = part_of.get(twin.a), part_of.get(twin.b)
    if None not in parts and parts[0] != parts[1]:
        what = f"{_how(twin)}, one in {parts[0]}, one in {parts[1]}"
        return Finding("error", twin.a, what, FIX, "twins_across_parts")
    return Finding("error", twin.a, f"{_how(twin)}, under another subject", FIX, f"twins_{twin.kind}")
