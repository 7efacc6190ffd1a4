"""The images of training, validation and test: drawn by subject or twins, stratified by class, saved with the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from segmed.config.images import ClassSplitConfig
from segmed.data.images.image_dataset import ClassDataset
from segmed.data.split_file import PARTS, SplitRecord, check_fold
from segmed.errors import DatasetError

UNIT_OF = {"auto": "subject", "subject": "subject", "twins": "group of twins", "image": "image", "given": "subject"}


@dataclass(frozen=True)
class ClassSplit(SplitRecord):
    """Ids of the images of the three parts, sorted.

    Attributes:
        train, validation, test: ids.
        by: what the parts were drawn by: `auto`, `subject`, `twins`, `image`, or `given` where they were published.
        seed: of the drawing.
        fold: number of the fold that is the test part, from 0; None: hold-out.
        folds: how many there are; None: hold-out.
    """

    UNITS = tuple(UNIT_OF)
    MEMBER = "image"

    by: str = "auto"
    seed: int = 0
    fold: int | None = None
    folds: int | None = None


def make_class_split(
    dataset: ClassDataset, config: ClassSplitConfig, *, twins: Mapping[str, str] | None = None
) -> ClassSplit:
    """Distribute the images over training, validation and test.

    Hold-out: the test part is drawn first, the validation part from the rest. With `config.fold` the test part is
    that fold, so that over all folds every image is tested once. Every class stands in every part. Of published parts
    without a validation part, one is drawn from the training part.

    Args:
        dataset: the images.
        config: unit that stays together, and fractions of the parts.
        twins: id -> group of equal or nearly equal images, from the audit; ids without a group are alone.

    Raises:
        DatasetError: nothing to split by, a class with fewer units than parts, published parts that are missing or
            test a class that training never saw, a file of another data set.
    """
    if config.file is not None:
        return _from_file(dataset, config)
    groups = split_groups(dataset, config.by, twins=twins)
    if config.by == "given":
        return _given(dataset, config, groups)
    units, generator = _Units(dataset, groups, config.by), np.random.default_rng([config.seed])
    ids = [item.id for item in dataset.items]
    if config.fold is None:
        at_least = 2 if config.validation > 0 else 1
        rest, test = units.share(ids, [1 - config.test, config.test], generator, at_least=[at_least, 1])
    else:
        fold = config.fold
        dealt = units.share(ids, [1 / config.folds] * config.folds, generator, at_least=[1] * config.folds)
        test, rest = dealt[fold], [name for other, names in enumerate(dealt) if other != fold for name in names]
    train, validation = units.share(rest, [1 - config.validation, config.validation], generator, at_least=[1, 1])
    folds = None if config.fold is None else config.folds
    return ClassSplit(
        _sorted(train), _sorted(validation), _sorted(test), config.by, config.seed, config.fold, folds
    )  # fmt: skip


def split_groups(dataset: ClassDataset, by: str, *, twins: Mapping[str, str] | None = None) -> dict[str, str]:
    """The groups that stay together: id -> name of its group.

    Args:
        dataset: the images.
        by: as in `ClassSplitConfig`; of `given` and `auto`: subjects, joined where twins link them.
        twins: id -> group, from the audit.

    Raises:
        DatasetError: by subject where the subjects are not known, by twins without an audit.
    """
    if by == "image":
        return {item.id: item.id for item in dataset.items}
    if by == "subject":
        if not dataset.subjects_known:
            raise DatasetError(
                f"{dataset.name} says nothing of subjects: give data.subject, or set split.by to twins or auto"
            )
        return {item.id: item.subject for item in dataset.items}
    if by == "twins" and twins is None:
        raise DatasetError("split.by twins needs the groups that the audit finds: set leaks.check to true")
    subjects = [item.id if by == "twins" else item.subject for item in dataset.items]
    linked = [(twins or {}).get(item.id, item.id) for item in dataset.items]
    return _joined([item.id for item in dataset.items], subjects, linked)


def _joined(ids: Sequence[str], subjects: Sequence[str], linked: Sequence[str]) -> dict[str, str]:
    """Groups of ids that share a subject or a group of twins, through any number of others."""
    names = sorted({("subject", name) for name in subjects} | {("twins", name) for name in linked})
    number = {name: index for index, name in enumerate(names)}
    rows = [number["subject", name] for name in subjects]
    columns = [number["twins", name] for name in linked]
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    called: dict[int, str] = {}
    for row in sorted(set(rows)):  # the first subject lends its name
        called.setdefault(int(component[row]), names[row][1])
    return {name: called[int(component[row])] for name, row in zip(ids, rows, strict=True)}


def leaks(split: ClassSplit, groups: Mapping[str, str]) -> tuple[str, ...]:
    """Groups with images in two or three parts of a split, sorted; an id without a group is its own."""
    sides: dict[str, set[str]] = {}
    for part in PARTS:
        for name in getattr(split, part):
            sides.setdefault(groups.get(name, name), set()).add(part)
    return tuple(sorted(group for group, parts in sides.items() if len(parts) > 1))


# ---------------------------------------------------------------- drawing


class _Units:
    """Images that stay together, and how they are shared out.

    scikit-learn's StratifiedGroupKFold deals into equal folds only, and may leave a fold without a class of a few
    groups. Here rare classes go first, each group where most of its class is missing; as soon as no more groups of the
    class are left than parts that wait for one, these get them.

    Source: Sechidis et al. 2011 (iterative stratification), with groups and a minimum.
    """

    def __init__(self, dataset: ClassDataset, groups: Mapping[str, str], by: str) -> None:
        self.classes = dataset.classes
        self.unit = UNIT_OF[by]
        self.label = {item.id: item.label for item in dataset.items}
        self.groups = groups

    def share(
        self,
        ids: Sequence[str],
        fractions: Sequence[float],
        generator: np.random.Generator,
        *,
        at_least: Sequence[int],
    ) -> list[list[str]]:
        """Ids of each part; a fraction of 0 is an empty part, every other gets `at_least` groups of each class."""
        members: dict[str, list[str]] = {}
        for name in sorted(ids):
            members.setdefault(self.groups[name], []).append(name)
        names = sorted(members)
        counts = np.zeros((len(names), len(self.classes)))
        rows = [row for row, name in enumerate(names) for _ in members[name]]
        np.add.at(counts, (rows, [self.label[each] for name in names for each in members[name]]), 1)
        order = generator.permutation(len(names))
        if len(set(fractions)) == 1:  # equal folds: the largest first, for folds of one size
            order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
        needed = np.where(np.array(fractions) > 0, at_least, 0)
        self._check(counts, needed)
        part = _deal(counts, np.array(fractions), needed, order)
        shared: list[list[str]] = [[] for _ in fractions]
        for row, name in enumerate(names):
            shared[part[row]] += members[name]
        self._check_dealt(counts, part, needed)
        return shared

    def _check(self, counts: np.ndarray, needed: np.ndarray) -> None:
        for name, units in zip(self.classes, (counts > 0).sum(axis=0), strict=True):
            if units < needed.sum():
                more = "s" if units != 1 else ""
                raise DatasetError(
                    f"class '{name}' has {units} {self.unit}{more}, but {needed.sum()} parts or folds: merge it with "
                    "another or leave it out (data.classes), or ask for fewer folds or no validation"
                )

    def _check_dealt(self, counts: np.ndarray, part: np.ndarray, needed: np.ndarray) -> None:
        for index, least in enumerate(needed):
            lost = np.flatnonzero(((counts > 0) & (part == index)[:, None]).sum(axis=0) < least)
            if len(lost):
                raise DatasetError(
                    f"{self.unit}s of several classes leave a part without '{self.classes[lost[0]]}': try another "
                    "split.seed, or fewer folds"
                )


def _deal(counts: np.ndarray, fractions: np.ndarray, needed: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Part of each group (G,), from images of each class (G, K)."""
    part = np.full(len(counts), -1)
    missing = fractions[:, None] * counts.sum(axis=0)[None]  # (parts, K) images
    waiting = np.repeat(needed[:, None], counts.shape[1], axis=1)  # (parts, K) groups
    open_parts = np.flatnonzero(fractions > 0)
    for label in np.argsort((counts > 0).sum(axis=0), kind="stable"):
        queue = [group for group in order if part[group] < 0 and counts[group, label] > 0]
        for place, group in enumerate(queue):
            poor = [p for p in open_parts if waiting[p, label] > 0]
            last = len(queue) - place <= sum(waiting[p, label] for p in poor)
            candidates = poor if last and poor else open_parts
            chosen = max(candidates, key=lambda p: (missing[p, label], missing[p].sum(), -p))
            part[group] = chosen
            missing[chosen] -= counts[group]
            waiting[chosen] = np.maximum(waiting[chosen] - (counts[group] > 0), 0)
    return part


def _sorted(ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(ids))


# ---------------------------------------------------------------- parts from folders or a file


def _given(dataset: ClassDataset, config: ClassSplitConfig, groups: Mapping[str, str]) -> ClassSplit:
    """The published parts; without a validation part, one is drawn from the training part."""
    parts = dataset.parts or {}
    for part in ("train", "test"):
        if part not in parts:
            raise DatasetError(
                f"{dataset.name} has no published {part} part: set split.by to subject or twins, or name the folders "
                "in data.layout.parts"
            )
    lost = [item.id for item in dataset.items if item.part is None]
    if lost:
        raise DatasetError(f"image '{lost[0]}' is in no published part ({len(lost)} are not): give it one")
    split = ClassSplit(
        _sorted(parts["train"]), _sorted(parts.get("validation", ())), _sorted(parts["test"]), "given", config.seed
    )
    if not split.validation and config.validation > 0:
        fractions = [1 - config.validation, config.validation]
        _check_seen(dataset, split)
        generator = np.random.default_rng([config.seed])
        train, validation = _Units(dataset, groups, "given").share(split.train, fractions, generator, at_least=[1, 1])
        split = replace(split, train=_sorted(train), validation=_sorted(validation))
    _check_seen(dataset, split)
    return split


def _check_seen(dataset: ClassDataset, split: ClassSplit) -> None:
    trained = dataset.counts(split.train)
    for part in ("validation", "test"):
        unseen = [name for name, count in dataset.counts(getattr(split, part)).items() if count and not trained[name]]
        if unseen:
            raise DatasetError(
                f"class '{unseen[0]}' is in the {part} part, but training never saw it: rename its folder, leave it "
                "out (data.classes), or make another split"
            )


def _from_file(dataset: ClassDataset, config: ClassSplitConfig) -> ClassSplit:
    path = config.file
    if path is None:
        raise ValueError("split.file is not given")
    split = ClassSplit.load(path)
    check_fold(config.fold, split.fold, path)
    split.check([item.id for item in dataset.items], path)
    _check_seen(dataset, split)
    return split
