"""The class of each case, from a column of the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from segmed.data.case import Case
from segmed.errors import DatasetError, did_you_mean

UNKNOWN = -1  # index of a case whose class is not known


@dataclass(frozen=True)
class KnownClasses:
    """The classes to tell apart, and the cases whose class is known.

    Attributes:
        names: of the classes.
        indices: case id -> index of its class; cases without a class are left out.
    """

    names: tuple[str, ...]
    indices: Mapping[str, int]

    @classmethod
    def of(cls, cases: Iterable[Case], column: str, names: Sequence[str]) -> KnownClasses:
        """From the cases of a data set.

        Raises:
            DatasetError: no case has the column.
        """
        return cls(tuple(names), class_indices(classes_of(cases, column), names))

    def counts(self, ids: Iterable[str]) -> list[int]:
        """How many of some cases are of each class."""
        numbers = Counter(self.indices[case] for case in ids if case in self.indices)
        return [numbers[index] for index in range(len(self.names))]


def classes_of(cases: Iterable[Case], column: str) -> dict[str, str]:
    """Case id -> its class in a column; cases with an empty cell are left out.

    Raises:
        DatasetError: no case has the column.
    """
    cases = list(cases)
    classes = {case.id: case.meta[column] for case in cases if case.meta.get(column)}
    columns = sorted({name for case in cases for name in case.meta})
    if not columns:
        raise DatasetError(
            f"no case has a column '{column}' (classification.column): use the layout manifest, its table has some"
        )
    if not classes:
        raise DatasetError(
            f"column '{column}' (classification.column) is absent or empty in every case{did_you_mean(column, columns)}"
        )
    return classes


def class_names(
    classes: Mapping[str, str], parts: Mapping[str, Sequence[str]], wanted: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The classes to tell apart.

    Args:
        classes: of `classes_of`.
        parts: `train`, `validation` and `test` -> ids of their cases.
        wanted: the classes in their order; none: all of the training part, sorted.

    Raises:
        DatasetError: fewer than two classes to learn, or a class that training never sees.
    """
    counts = Counter(classes[name] for name in parts["train"] if name in classes)
    names = tuple(sorted(counts)) if wanted is None else tuple(wanted)
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise DatasetError(
            f"classification needs two or more different classes in the training part, it has {', '.join(names)}: "
            "give more cases, or name classification.classes"
        )
    missing = [name for name in names if not counts[name]]
    if missing:
        raise DatasetError(
            f"class '{missing[0]}' of classification.classes has no training case, there are "
            f"{', '.join(sorted(counts))}: correct the name, or split otherwise"
        )
    if wanted is None:
        for part in ("validation", "test"):
            strange = [name for name in parts[part] if name in classes and classes[name] not in counts]
            if strange:
                raise DatasetError(
                    f"{part} case {strange[0]} is of class '{classes[strange[0]]}', which no training case has: split "
                    "otherwise, or name classification.classes without it"
                )
    return names


def class_indices(classes: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    """Case id -> index of its class; cases of other classes are left out."""
    return {case: names.index(name) for case, name in classes.items() if name in names}


def with_targets(batch: Mapping[str, Any], indices: Mapping[str, int]) -> dict[str, Any]:
    """A batch of patches with `target` (B,) int64: the class of the case of each, UNKNOWN where there is none."""
    return {**batch, "target": torch.tensor([indices.get(name, UNKNOWN) for name in batch["case"]])}
