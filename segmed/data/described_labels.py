"""The labels and regions that a dataset.json names, in the form of the Decathlon or of nnU-Net."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmed.errors import DatasetError

Values = dict[str, list[int]]
Described = tuple[Values | None, tuple[int, ...], dict[str, list[str]], tuple[str, ...]]


def label_names(described: Mapping[str, Any], root: Path) -> Described:
    """Labels, values to ignore, regions and targets of a dataset.json.

    Args:
        described: its content. `labels` are {"1": name}, {name: 1} or {name: [1, 2]}; where lists share values they are
            nnU-Net's regions, and `regions_class_order` gives the value that each of them is written as.
        root: its folder, for errors.

    Returns:
        Name -> values in the files, None where no labels are named; values to ignore; region -> labels whose union it
        is; and the names that a network learns each by itself, in the order of painting: none without
        `regions_class_order`.

    Raises:
        DatasetError: labels that are not names and numbers, or an order that is not one value for each region.
    """
    given = described.get("labels")
    if given is None:
        return None, (), {}, ()
    labels: Values = {}
    try:
        for key, value in dict(given).items():
            by_number = isinstance(value, str) and not value.lstrip("-").isdigit()
            name, values = (value, [int(key)]) if by_number else (key, value if isinstance(value, list) else [value])
            labels.setdefault(str(name), []).extend(map(_whole, values))
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{root / 'dataset.json'}: 'labels' are not names and whole numbers: repair them") from error
    ignore = tuple(labels.pop("ignore", ()))
    foreground = {name: values for name, values in labels.items() if values != [0]}
    order = _class_order(described.get("regions_class_order"), foreground, root)
    targets = tuple(foreground) if order else ()
    if max(Counter(value for values in foreground.values() for value in set(values)).values(), default=0) < 2:
        return {name: _first(values, order) for name, values in foreground.items()}, ignore, {}, targets
    parts, wholes = _parts_and_wholes(foreground)
    return {name: _first(values, order) for name, values in parts.items()}, ignore, wholes, targets


def _whole(number: Any) -> int:
    """A value of label maps, as JSON gives it.

    Raises:
        TypeError, ValueError, OverflowError: it is no whole number.
    """
    if isinstance(number, bool) or (isinstance(number, float) and not number.is_integer()):
        raise ValueError(f"{number} is no whole number")
    return int(number)


def _first(values: Sequence[int], order: Sequence[int]) -> list[int]:
    """Values of a label, that which is written of it first."""
    return sorted(values, key=lambda value: value not in order)


def _class_order(order: Any, regions: Mapping[str, Sequence[int]], root: Path) -> tuple[int, ...]:
    """`regions_class_order`, a value for each region; empty where there is none.

    Raises:
        DatasetError: not so many numbers, or a value that the region shares with one that is painted over it.
    """
    if order is None:
        return ()
    where = f"{root / 'dataset.json'}: 'regions_class_order'"
    whole = isinstance(order, list) and all(type(value) is int for value in order)
    if not whole or len(order) != len(regions):
        raise DatasetError(
            f"{where} is {order}: give one value for each of {', '.join(regions)}, that which it is written as"
        )
    named = list(regions)
    for number, (name, value) in enumerate(zip(named, order, strict=True)):
        inner = {other for later in named[number + 1 :] for other in regions[later]}
        own = [other for other in regions[name] if other not in inner] or regions[name]
        if value not in own:
            raise DatasetError(
                f"{where} writes '{name}' as {value}, which is no value of it alone: give one of {own}, and name outer "
                "regions before inner ones"
            )
    return tuple(order)


def _parts_and_wholes(regions: Mapping[str, Sequence[int]]) -> tuple[Values, dict[str, list[str]]]:
    """nnU-Net's regions, whose lists of values overlap -> the parts as labels, and regions made of them.

    A part is what lies in the same regions; it takes the name of the region that it fills, else `label_VALUE`.
    """
    owners: dict[int, tuple[str, ...]] = {}
    for value in sorted({value for values in regions.values() for value in values}):
        owners[value] = tuple(name for name, values in regions.items() if value in values)
    parts: dict[tuple[str, ...], list[int]] = {}
    for value, names in owners.items():
        parts.setdefault(names, []).append(value)
    filled = {tuple(sorted(set(values))): name for name, values in regions.items()}
    named = {owner: filled.get(tuple(values), f"label_{values[0]}") for owner, values in parts.items()}
    wholes = {name: [named[owner] for owner in parts if name in owner] for name in regions}
    labels = {named[owner]: values for owner, values in parts.items()}
    return labels, {name: members for name, members in wholes.items() if name not in labels}
