"""Label names <-> numbers: sparse file values to indices and back, merges, an ignore value, and regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NoReturn

import numpy as np

from segmed.errors import VolumeError, did_you_mean

IGNORE = 255
MEAN = "mean of labels"  # a row of every table
TOGETHER = "all labels"  # the union of all of them, where pieces are cleaned
RESERVED = {
    "background": "background is what no label holds",
    MEAN: "every table has such a row",
    TOGETHER: "it stands for all labels together",
}
TABLE_LENGTH = 1 << 16  # values from 0 up to here are looked up in a table; others are searched


@dataclass(frozen=True)
class LabelSet:
    """The labels of a data set, in the order of a network's classes after background.

    Attributes:
        names: of labels 1 to L; none for a data set without label maps.
        values: the values in the files that each label stands for; the first is written back.
        ignore: values in the files that are excluded from training and scores.
        regions: name -> labels whose union is scored too.
        background: values in the files, beside 0, that count as background.
        targets: names of regions and labels that a network learns, each by itself, outer ones first, and in whose
            order a label map is painted; none: it learns the labels, of which a voxel has one.
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    ignore: tuple[int, ...] = ()
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    background: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_config(
        cls,
        labels: Mapping[str, int | Sequence[int]],
        ignore: Sequence[int] = (),
        regions: Mapping[str, Sequence[str]] | None = None,
        background: Sequence[int] = (),
        targets: str | Sequence[str] = "labels",
    ) -> LabelSet:
        """From the `labels`, `ignore`, `regions`, `background` and `targets` of a config.

        Raises:
            VolumeError: no label, a value used twice, 0 as a label, an unknown name in a region or among the targets.
        """
        if not labels:
            raise VolumeError("data.labels is empty: name at least one label and its value")
        values = tuple((value,) if isinstance(value, int) else tuple(value) for value in labels.values())
        named = {name: tuple(members) for name, members in (regions or {}).items()}
        plain = cls(tuple(labels), values, tuple(ignore), named, tuple(background))
        return plain.with_targets(targets)

    def with_targets(self, targets: str | Sequence[str]) -> LabelSet:
        """The same labels, learned in another way.

        Args:
            targets: `labels`, or `auto` where nobody said otherwise; `regions`: all regions, the larger ones first,
                and every label that they don't tell; or names.

        Raises:
            VolumeError: `regions` where there are none, or an unknown name.
        """
        if targets in ("auto", "labels"):
            return replace(self, targets=())
        if targets == "regions" and not self.regions:
            raise VolumeError("data.targets is regions and data.regions is empty: name the regions and their labels")
        return replace(self, targets=_all_targets(self) if isinstance(targets, str) else tuple(targets))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> int:
        """Number of a network's classes: the labels and background."""
        return len(self.names) + 1

    def index(self, name: str) -> int:
        """Index of a label, from 1.

        Raises:
            VolumeError: unknown name.
        """
        if name not in self.names:
            raise VolumeError(f"label '{name}' is unknown{did_you_mean(name, self.names)}")
        return self.names.index(name) + 1

    def members(self, name: str) -> tuple[int, ...]:
        """Indices of a label, of the labels of a region, or of all labels together.

        Raises:
            VolumeError: unknown name.
        """
        if name == TOGETHER:
            return tuple(range(1, self.classes))
        if name in self.regions:
            return tuple(self.index(member) for member in self.regions[name])
        if name not in self.names:
            raise VolumeError(f"label '{name}' is unknown{did_you_mean(name, (*self.names, *self.regions))}")
        return (self.index(name),)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """What may be one piece, outer ones first, and its labels: all labels together where there are several, each
        region, each label.
        """
        together = {TOGETHER: self.names} if len(self.names) > 1 else {}
        return {**together, **self.regions, **{name: (name,) for name in self.names}}

    def outer_first(self, names: Iterable[str]) -> list[str]:
        """What may be cleaned in its order: all labels together, regions, labels."""
        return sorted(names, key=lambda name: (name != TOGETHER, name not in self.regions))

    def encode(self, values: np.ndarray, *, where: str) -> np.ndarray:
        """File values to uint8 indices of the same shape: 0 background, 1 to L, IGNORE.

        Args:
            values: whole numbers, of any type.
            where: file or case, for the error.

        Raises:
            VolumeError: a value that no label has.
        """
        values = np.asarray(values)
        if values.dtype == np.bool_:
            values = values.astype(np.uint8)
        if values.dtype.kind not in "iu":
            raise VolumeError(f"{where}: label values are {values.dtype}: give whole numbers")
        if values.flags.f_contiguous and not values.flags.c_contiguous:
            return self.encode(values.T, where=where).T  # files keep X fastest: a gather across memory is slow
        if values.size == 0:
            return np.zeros(values.shape, np.uint8)
        known = self._known()
        if int(values.min()) >= 0 and int(values.max()) < TABLE_LENGTH:
            table = np.array([known.get(value, -1) for value in range(int(values.max()) + 1)], np.int16)
            indices = table[values]
        else:
            present, inverse = np.unique(values, return_inverse=True)
            indices = np.array([known.get(int(value), -1) for value in present], np.int16)[inverse]
        if int(indices.min()) < 0:
            self._reject(values, where)
        return indices.astype(np.uint8).reshape(values.shape)

    def _known(self) -> dict[int, int]:
        """File value -> index."""
        pairs = {value: index for index, merged in enumerate(self.values, 1) for value in merged}
        return {0: 0} | dict.fromkeys(self.background, 0) | pairs | dict.fromkeys(self.ignore, IGNORE)

    def _reject(self, values: np.ndarray, where: str) -> NoReturn:
        known = self._known()
        present, counts = np.unique(values, return_counts=True)
        unknown = [(int(v), int(n)) for v, n in zip(present, counts, strict=True) if int(v) not in known]
        shown = ", ".join(f"{value} ({count} voxels)" for value, count in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise VolumeError(
            f"{where} has unknown label values {shown}{more}; known are {sorted(known)}: "
            "add them to data.labels, data.ignore or data.background"
        )

    @property
    def ignored_value(self) -> int:
        """What marks ignored voxels in files of our own: a value of `ignore`, or else one that means nothing."""
        if self.ignore:
            return self.ignore[0]
        taken = {0, *self.background, *(value for merged in self.values for value in merged)}
        return next(value for value in count(1) if value not in taken)

    def decode(self, indices: np.ndarray, *, ignored: int = 0) -> np.ndarray:
        """Indices to the values of the files, in the smallest type; a merged label gets its first value, IGNORE
        `ignored`.

        Raises:
            VolumeError: an index that is no label.
        """
        indices = np.asarray(indices)
        written = [0, *(merged[0] for merged in self.values)]
        values = (*written, ignored)
        table = np.zeros(IGNORE + 1, np.min_scalar_type(max(values)) if min(values) >= 0 else np.int32)
        table[: len(written)] = written
        table[IGNORE] = ignored
        if indices.size:
            wrong = (indices > len(self)) & (indices != IGNORE) | (indices < 0)
            if wrong.any():
                raise VolumeError(f"label index {int(indices[wrong][0])} does not exist: there are {len(self)} labels")
        return table[indices.astype(np.uint8)]

    def masks(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """One bool array for every label, then for every region."""
        indices = np.asarray(indices)
        masks = {name: indices == index for index, name in enumerate(self.names, 1)}
        for region, members in self.regions.items():
            masks[region] = np.isin(indices, [self.index(name) for name in members])
        return masks

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "labels": {name: list(merged) for name, merged in zip(self.names, self.values, strict=True)},
            "ignore": list(self.ignore),
            "regions": {name: list(members) for name, members in self.regions.items()},
            "background": list(self.background),
            **({"targets": list(self.targets)} if self.targets else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LabelSet:
        """From `to_dict`."""
        ignore, regions, background = (data.get(name) or () for name in ("ignore", "regions", "background"))
        return cls.from_config(data["labels"], ignore, dict(regions), background, data.get("targets", "labels"))


def _check(labels: LabelSet) -> None:
    if len(labels.names) >= IGNORE:
        raise VolumeError(f"{len(labels.names)} labels are more than {IGNORE - 1}: merge some")
    if len(labels.names) != len(set(labels.names)) or len(labels.names) != len(labels.values):
        raise VolumeError("every label needs a name of its own and its values")
    owner: dict[int, str] = dict.fromkeys(labels.ignore, "ignore")
    for value in labels.background:
        if value in owner:
            raise VolumeError(f"value {value} is in ignore and in background: leave it in one of them")
        owner[value] = "background"
    for name, merged in zip(labels.names, labels.values, strict=True):
        _check_name(name, "label")
        if not merged:
            raise VolumeError(f"label '{name}' has no value: give the value it has in the files")
        for value in merged:
            if value == 0:
                raise VolumeError(f"label '{name}' has value 0, which is background: give its value in the files")
            if value in owner:
                raise VolumeError(f"value {value} stands for '{owner[value]}' and '{name}': give it to one of them")
            owner[value] = name
    _check_regions(labels)
    for name in labels.targets:
        if name not in labels.names and name not in labels.regions:
            known = did_you_mean(name, (*labels.names, *labels.regions))
            raise VolumeError(f"data.targets names '{name}', which is no label and no region{known}")


def _all_targets(labels: LabelSet) -> tuple[str, ...]:
    """Regions, larger ones first, and behind them the labels that no region tells from those before them."""
    regions = sorted(labels.regions, key=lambda name: -len(set(labels.regions[name])))
    seen: set[tuple[str, ...]] = {()}  # of labels in no region: they would be background
    alone = []
    for name in labels.names:
        holders = tuple(region for region in regions if name in labels.regions[region])
        alone += [name] if holders in seen else []
        seen.add(holders)
    return (*regions, *alone)


def _check_name(name: str, kind: str) -> None:
    if not name.strip() or name in RESERVED:
        raise VolumeError(f"{kind} name '{name}' can't be used: {RESERVED.get(name, 'give it letters')}")


def _check_regions(labels: LabelSet) -> None:
    for region, members in labels.regions.items():
        _check_name(region, "region")
        if region in labels.names:
            raise VolumeError(f"region '{region}' has the name of a label: choose another name")
        if not members:
            raise VolumeError(f"region '{region}' has no labels: name those whose union it is")
        for member in members:
            if member not in labels.names:
                raise VolumeError(
                    f"region '{region}' names an unknown label '{member}'{did_you_mean(member, labels.names)}"
                )
            if members.count(member) > 1:
                raise VolumeError(f"region '{region}' names the label '{member}' twice: once is enough")
