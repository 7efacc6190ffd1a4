"""`myocardium=200,1220,2221 scar=2221` -> labels and regions to score; label maps of anybody -> their indices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.errors import VolumeError
from segmed.labels import LabelSet


@dataclass(frozen=True)
class Structures:
    """What is scored.

    Attributes:
        labels: every voxel belongs to at most one of its labels; what overlaps is a region.
        shown: the names to report, in this order; a part of a region that nobody named is left out.
    """

    labels: LabelSet
    shown: tuple[str, ...]

    @classmethod
    def of(cls, labels: LabelSet) -> Structures:
        """All labels and regions of a label set."""
        return cls(labels, (*labels.names, *labels.regions))


def parse_structures(texts: Sequence[str], ignore: Sequence[int] = ()) -> Structures:
    """Read names and values as they are given on a command line.

    Args:
        texts: `NAME=VALUE,VALUE,...` or plain `VALUE`, whose name is the number. Where two share values, the larger
            one is a region, made of the smaller one and of the rest.
        ignore: values that are not scored.

    Raises:
        VolumeError: no name or value, the same name or the same values twice, background as a label.
    """
    given: dict[str, frozenset[int]] = {}
    for text in texts:
        name, values = _parse(text)
        if name in given:
            raise VolumeError(f"label '{name}' is given twice: give all its values at once, as {name}=1,2")
        same = next((other for other, others in given.items() if others == values), None)
        if same is not None:
            raise VolumeError(f"labels '{same}' and '{name}' have the same values: leave one out")
        given[name] = values
    if not given:
        raise VolumeError("no labels: give --labels, such as --labels myocardium=200,1220 scar=2221")
    return Structures(_label_set(given, ignore), tuple(given))


def _parse(text: str) -> tuple[str, frozenset[int]]:
    name, _, values = text.rpartition("=")
    numbers = [number.strip() for number in values.split(",")]
    if not all(re.fullmatch(r"-?\d+", number) for number in numbers):
        raise VolumeError(f"label '{text}' is not NAME=VALUE or NAME=VALUE,VALUE: give whole numbers, as scar=2221")
    return (name or values).strip(), frozenset(int(number) for number in numbers)


def _label_set(given: Mapping[str, frozenset[int]], ignore: Sequence[int]) -> LabelSet:
    """Values that the same names share become one label; a name that has several of these becomes a region."""
    owners: dict[int, tuple[str, ...]] = {
        value: tuple(name for name, values in given.items() if value in values)
        for values in given.values()
        for value in sorted(values)
    }
    parts: dict[tuple[str, ...], list[int]] = {}
    for value, names in owners.items():
        parts.setdefault(names, []).append(value)
    labels: dict[str, list[int]] = {}
    part_name: dict[tuple[str, ...], str] = {}
    for names, part in parts.items():
        whole = next((name for name in names if given[name] == frozenset(part)), None)
        part_name[names] = whole or f"values {','.join(map(str, part))} of {' and '.join(names)}"
        labels[part_name[names]] = part
    regions = {
        name: tuple(part_name[names] for names in parts if name in names) for name in given if name not in labels
    }
    order = {name: labels[name] for name in [*(n for n in given if n in labels), *labels]}
    return LabelSet.from_config(order, ignore=ignore, regions=regions)


def encode_known(values: np.ndarray, labels: LabelSet, *, where: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Label indices of the values that a label set knows; all others become background.

    Args:
        values: whole numbers, of any shape.
        labels: what the values mean.
        where: file, for errors.

    Returns:
        uint8 indices of the same shape, and the values that no label knows.
    """
    try:
        return labels.encode(values, where=where), ()
    except VolumeError:
        known = [0, *labels.background, *labels.ignore, *(value for merged in labels.values for value in merged)]
        strange = ~np.isin(values, known)
        indices = labels.encode(np.where(strange, 0, values), where=where)
        return indices, tuple(int(value) for value in np.unique(values[strange]))
