"""The cases of training, validation and test: drawn by subject or site, seeded, stratified, saved with the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segmed.config import SplitConfig
from segmed.data.case import Case
from segmed.data.split_file import PARTS, SplitRecord, check_fold
from segmed.errors import DatasetError

NAMES_IN_MANIFESTS = {"training": "train", "tr": "train", "val": "validation", "valid": "validation", "testing": "test"}


@dataclass(frozen=True)
class Split(SplitRecord):
    """Case ids of the three parts, sorted, and of the cases that train without labels.

    Attributes:
        train, validation, test: case ids.
        unlabelled: ids of cases in no part; their label maps, if there are any, are not read.
        seed: of the drawing.
        by: unit that is never divided between parts, `subject` or `site`.
        fold: number of the fold that is the test part, from 0; None: hold-out.
        folds: how many there are; None: hold-out.
    """

    UNITS = ("subject", "site")
    MEMBER = "case"

    seed: int = 0
    by: str = "subject"
    fold: int | None = None
    folds: int | None = None
    unlabelled: tuple[str, ...] = ()


def make_split(
    cases: Sequence[Case],
    config: SplitConfig,
    *,
    strata: Mapping[str, str] | None = None,
    unlabelled: Sequence[str] = (),
) -> Split:
    """Distribute the cases over training, validation and test.

    Hold-out: the test part is drawn first, the validation part from the rest. With `config.fold` the test part is
    that fold, so that over all folds every subject is tested once, and the validation part is drawn from the rest.
    A fraction above 0 takes at least one unit; a fraction of 0 leaves its part empty.

    Args:
        cases: of a data set.
        config: fractions or folds, or the file that names the parts.
        strata: case id -> class that the parts share evenly; the cases' sites are balanced too.
        unlabelled: ids of cases that are in no part; `config.withhold` adds training cases to them.

    Raises:
        DatasetError: fewer units than folds or parts, a case without a site, unknown ids or none for a case in a
            file, a subject in two parts, an unlabelled case in a part.
    """
    left_out = set(unlabelled)
    everyone, cases = cases, [case for case in cases if case.id not in left_out]
    if config.file is not None:
        split = Split.load(config.file)
        _check_unlabelled(split, everyone, unlabelled, config.file)
        left_out = set(split.unlabelled)
        cases = [case for case in cases if case.id not in left_out]
        check_fold(config.fold, split.fold, config.file)
        split.check([case.id for case in cases], config.file)
    elif config.from_manifest:
        _check_manifest(everyone, unlabelled)
        split = _from_manifest(cases, config, strata)
    else:
        split = _drawn(cases, config, strata)
    if not set(split.unlabelled) - set(unlabelled):  # else a file says who is withheld
        split = _withhold(split, cases, config, strata)
    split = replace(split, unlabelled=tuple(sorted({*split.unlabelled, *unlabelled})))
    _check_apart(split, everyone, split.by)
    return split


def _withhold(split: Split, cases: Sequence[Case], config: SplitConfig, strata: Mapping[str, str] | None) -> Split:
    """Hold back the label maps of a share of the training subjects; the other parts stay as they are."""
    if not config.withhold:
        return split
    train = set(split.train)
    units = _units([case for case in cases if case.id in train], config, strata)
    held, kept = _take(units, config.withhold)
    if not kept:
        raise DatasetError(
            f"split.withhold {config.withhold} leaves none of {len(units)} training {config.by}s: give less"
        )
    return replace(split, train=_cases_of(kept), unlabelled=_cases_of(held))


# ---------------------------------------------------------------- drawing


@dataclass(frozen=True)
class Unit:
    """Cases that stay together."""

    name: str
    cases: tuple[str, ...]
    subjects: int
    stratum: str


def _units(cases: Sequence[Case], config: SplitConfig, strata: Mapping[str, str] | None) -> list[Unit]:
    """Subjects or sites, in an order that depends on the seed only."""
    groups: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: case.id):
        groups.setdefault(_unit_name(case, config.by), []).append(case)
    units = []
    for name in sorted(groups):
        members = groups[name]
        classes = sorted({_stratum(case, config, strata) for case in members})
        ids = tuple(case.id for case in members)
        units.append(Unit(name, ids, len({case.subject for case in members}), " / ".join(classes)))
    order = np.random.default_rng(config.seed).permutation(len(units))
    return [units[index] for index in order]


def _unit_name(case: Case, by: str) -> str:
    if by == "subject":
        return case.subject
    site = case.meta.get("site", "")
    if not site:
        raise DatasetError(f"case '{case.id}' has no site: add a column 'site' to the manifest, or split by subject")
    return site


def _stratum(case: Case, config: SplitConfig, strata: Mapping[str, str] | None) -> str:
    if not config.stratify:
        return ""
    return f"{(strata or {}).get(case.id, '')}@{case.meta.get('site', '')}"


def _drawn(cases: Sequence[Case], config: SplitConfig, strata: Mapping[str, str] | None) -> Split:
    units = _units(cases, config, strata)
    if config.fold is None:
        test, rest = _take(units, config.test)
        fold, folds = None, None
    else:
        test, rest = _fold(units, config)
        fold, folds = config.fold, config.folds
    validation, train = _take(rest, config.validation)
    if not train or (config.test > 0 and not test) or (config.validation > 0 and not validation):
        raise DatasetError(_too_few(len(units), config))
    return Split(_cases_of(train), _cases_of(validation), _cases_of(test), config.seed, config.by, fold, folds)


def _too_few(count: int, config: SplitConfig) -> str:
    """How many are needed, and how to train all the same."""
    parts = {"training": True, "validation": config.validation > 0, "test": config.test > 0 or config.fold is not None}
    needed = sum(parts.values())
    have = f"{count} {config.by}{'' if count == 1 else 's'}"
    if count >= needed:
        return f"{have} can't fill {needed} parts with these shares: lower split.validation or split.test"
    may_go = {"validation": config.validation > 0, "test": config.test > 0 and config.fold is None}
    spare = [f"split.{part} to 0" for part, there in may_go.items() if there][: needed - max(1, count)]
    way_out = f", or set {' and '.join(spare)}" if len(spare) >= needed - count > 0 and count else ""
    return (
        f"{have} can't fill {needed} parts ({', '.join(name for name, on in parts.items() if on)}): add cases{way_out}"
    )


def _cases_of(units: Sequence[Unit]) -> tuple[str, ...]:
    return tuple(sorted(case for unit in units for case in unit.cases))


def _take(units: Sequence[Unit], fraction: float) -> tuple[list[Unit], list[Unit]]:
    """A fraction of the subjects, every stratum in proportion, and the rest."""
    if fraction == 0 or not units:
        return [], list(units)
    if any(unit.subjects != 1 for unit in units):
        taken = _nearest_to(units, fraction)
    else:
        taken = _in_proportion(units, max(1, round(fraction * len(units))))
    return [unit for unit in units if unit in taken], [unit for unit in units if unit not in taken]


def _in_proportion(units: Sequence[Unit], number: int) -> set[Unit]:
    """A number of units, from each stratum its share; the largest remainders are rounded up."""
    sizes = Counter(unit.stratum for unit in units)
    shares = {stratum: number * size / len(units) for stratum, size in sizes.items()}
    quota = {stratum: int(share) for stratum, share in shares.items()}
    by_remainder = sorted(shares, key=lambda stratum: quota[stratum] - shares[stratum])
    for stratum in by_remainder[: number - sum(quota.values())]:
        quota[stratum] += 1
    taken: set[Unit] = set()
    for unit in units:
        if quota[unit.stratum] > 0:
            quota[unit.stratum] -= 1
            taken.add(unit)
    return taken


def _nearest_to(units: Sequence[Unit], fraction: float) -> set[Unit]:
    """Sites, of different sizes, that together hold about this fraction of the subjects."""
    wanted = fraction * sum(unit.subjects for unit in units)
    taken, held = {units[0]}, units[0].subjects
    for unit in units[1:]:
        if abs(held + unit.subjects - wanted) < abs(held - wanted):
            taken.add(unit)
            held += unit.subjects
    return taken


def _fold(units: Sequence[Unit], config: SplitConfig) -> tuple[list[Unit], list[Unit]]:
    """The units of one fold and the others; each stratum is dealt out over the folds."""
    fold, folds = int(config.fold or 0), config.folds
    if len(units) < folds:
        raise DatasetError(
            f"{len(units)} {config.by}s can't make {folds} folds: set split.folds to {len(units)} or less"
        )
    held = [0] * folds
    part: dict[Unit, int] = {}
    order = {unit: position for position, unit in enumerate(units)}
    for unit in sorted(units, key=lambda unit: (-unit.subjects, unit.stratum, order[unit])):
        part[unit] = held.index(min(held))
        held[part[unit]] += unit.subjects
    return [unit for unit in units if part[unit] == fold], [unit for unit in units if part[unit] != fold]


# ---------------------------------------------------------------- parts from a manifest or a file


def _from_manifest(cases: Sequence[Case], config: SplitConfig, strata: Mapping[str, str] | None) -> Split:
    """The manifest's column `split`; without validation cases, these are drawn from the training cases."""
    if config.fold is not None:
        raise DatasetError("split.fold and split.from_manifest exclude each other: leave one out")
    parts: dict[str, list[Case]] = {part: [] for part in PARTS}
    for case in cases:
        given = case.meta.get("split", "").strip().lower()
        part = NAMES_IN_MANIFESTS.get(given, given)
        if part not in parts:
            shown = f"split '{given}'" if given else "no split"
            raise DatasetError(f"case '{case.id}' has {shown} in the manifest: write train, validation or test")
        parts[part].append(case)
    if not parts["train"] or not parts["test"]:
        empty = "test" if parts["train"] else "train"
        raise DatasetError(f"the manifest's column 'split' has no {empty} case: mark some")
    ids = {part: tuple(sorted(case.id for case in members)) for part, members in parts.items()}
    if not parts["validation"]:
        rest = _drawn(parts["train"], config.model_copy(update={"test": 0.0}), strata)
        ids.update(train=rest.train, validation=rest.validation)
    return Split(ids["train"], ids["validation"], ids["test"], config.seed, config.by)


def _check_unlabelled(split: Split, cases: Sequence[Case], unlabelled: Sequence[str], path: Path) -> None:
    """Unlabelled cases must be there, and not in a part that is written down."""
    unknown = sorted(set(split.unlabelled) - {case.id for case in cases})
    if unknown:
        raise DatasetError(f"{path} names {len(unknown)} unknown cases, e.g. '{unknown[0]}': it is of another data set")
    for part in PARTS:
        both = sorted({*unlabelled, *split.unlabelled} & set(getattr(split, part)))
        if both:
            raise DatasetError(
                f"case '{both[0]}' is unlabelled and in the {part} part of {path}: take it out of data.unlabelled"
            )


def _check_manifest(cases: Sequence[Case], unlabelled: Sequence[str]) -> None:
    """Listed cases must not be in the manifest's test or validation part."""
    for case in cases:
        given = case.meta.get("split", "").strip().lower()
        part = NAMES_IN_MANIFESTS.get(given, given)
        if case.id in unlabelled and part in ("validation", "test"):
            raise DatasetError(
                f"case '{case.id}' is unlabelled and in the {part} part of the manifest: take it out of data.unlabelled"
            )


def _check_apart(split: Split, cases: Sequence[Case], by: str) -> None:
    """Check that no subject (with `by` site, no site) is in two parts; unlabelled cases count as training."""
    part_of = {case_id: part for part in PARTS for case_id in getattr(split, part)}
    part_of |= dict.fromkeys(split.unlabelled, "train")
    for unit in {"subject", by}:
        owner: dict[str, tuple[str, str]] = {}
        for case in cases:
            name, part = _unit_name(case, unit), part_of[case.id]
            other, other_part = owner.setdefault(name, (case.id, part))
            if other_part != part:
                hidden = [each for each in (other, case.id) if each in split.unlabelled]
                way_out = "take it out of data.unlabelled" if hidden else "keep it in one part"
                raise DatasetError(
                    f"{unit} '{name}' stands in {other_part} ({other}) and in {part} ({case.id}): {way_out}"
                )
