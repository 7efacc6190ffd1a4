"""The record of a split: which ids train, select and test, drawn by what and how; a JSON file of the run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

from segmed.errors import DatasetError
from segmed.files import write_json

PARTS = ("train", "validation", "test")
NUMBERS = ("seed", "fold", "folds")


@dataclass(frozen=True)
class SplitRecord:
    """Ids of the three parts, sorted; a subclass has `by`, `seed`, `fold`, `folds`, and more lists of ids if it likes.

    Attributes:
        train, validation, test: ids.
    """

    UNITS: ClassVar[tuple[str, ...]]  # what parts may be drawn by; the first is meant where a file says nothing
    MEMBER: ClassVar[str]  # what an id names

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """From `save`.

        Raises:
            DatasetError: no such file, or not a split.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            lists = {part: _ids(data[part]) for part in PARTS}
            others = [field.name for field in fields(cls) if field.name not in (*PARTS, *NUMBERS, "by")]
            lists |= {name: _ids(data.get(name, [])) for name in others}
            numbers = {name: data.get(name) for name in NUMBERS}
            by = data.get("by", cls.UNITS[0])
        except FileNotFoundError as error:
            raise DatasetError(f"{path} does not exist: give the split.json of a run") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(f"{path} is not a split with train, validation and test: give one of a run") from error
        if by not in cls.UNITS or any(value is not None and type(value) is not int for value in numbers.values()):
            raise DatasetError(
                f"{path} has a seed, fold, folds or by that makes no sense: give the split.json of a run"
            )
        return cls(**lists, **{**numbers, "seed": numbers["seed"] or 0, "by": by})

    def check(self, ids: Collection[str], path: Path) -> None:
        """See that every id of a data set stands in one part.

        Args:
            ids: of the data set.
            path: where the split was read, for messages.

        Raises:
            DatasetError: an id that is unknown, twice there or missing, or no part that trains.
        """
        known, what = set(ids), self.MEMBER
        written = [name for part in PARTS for name in getattr(self, part)]
        unknown = [name for name in written if name not in known]
        if unknown:
            raise DatasetError(
                f"{path} names {len(unknown)} unknown {what}s, e.g. '{unknown[0]}': it is of another data set"
            )
        twice = [name for name, count in Counter(written).items() if count > 1]
        if twice:
            raise DatasetError(f"{path} has {what} '{twice[0]}' twice: every {what} belongs to one part")
        if not self.train:
            raise DatasetError(f"{path} has no training {what}: give the split.json of a run")
        left = sorted(known - set(written))
        if left:
            raise DatasetError(f"{path} leaves out {len(left)} {what}s, e.g. '{left[0]}': make a new split")


def check_fold(fold: int | None, written: int | None, path: Path) -> None:
    """Refuse a fold that is asked for beside a file of another one.

    Raises:
        DatasetError: it is.
    """
    if fold is not None and fold != written:
        raise DatasetError(f"{path} is of fold {written}, not {fold}: leave out split.file or fold")


def _ids(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("not a list of ids")
    return tuple(values)
