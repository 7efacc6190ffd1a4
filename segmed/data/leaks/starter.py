"""A folder without a description -> a commented YAML to start an experiment with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from segmed.config import DataConfig
from segmed.config.images import ClassDataConfig, ClassLayout
from segmed.data.cases import Dataset, guess_layout, read_dataset
from segmed.data.leaks.guess_classes import guess_class_layout
from segmed.data.subjects import shared_prefixes
from segmed.errors import DatasetError, VolumeError

SHOWN = 3


def starter_config(root: Path) -> str:
    """A config with the most likely images, label maps, labels or classes, and subjects of a folder.

    Comments mark what is only guessed. The text is a config of segmed train, or of segmed train-cls
    where the folder holds images with classes.

    Args:
        root: of a data set.

    Raises:
        DatasetError: nothing there that looks like a data set.
    """
    classes = guess_class_layout(root)
    return _classification(root, classes) if classes is not None else _segmentation(root)


def _segmentation(root: Path) -> str:
    data = DataConfig(root=root, layout=guess_layout(root))
    try:
        dataset = read_dataset(data, complete=False)
    except VolumeError as error:
        raise DatasetError(f"{root}: {error}") from error
    layout = {"name": data.layout.name} | data.layout.model_dump(exclude_defaults=True)
    labelled = [case for case in dataset.cases if case.label is not None]
    shared = None if dataset.subjects_known else shared_prefixes([case.id for case in dataset.cases])
    if shared is not None:
        layout["subject"] = shared[0]
    lines = [
        f"# {dataset.name}: {len(dataset.cases)} cases, {len(labelled)} with label maps. Guessed: read it.",
        "# Look at the files first: segmed audit --config THIS_FILE --output FOLDER",
        "# Then train:              segmed train --config THIS_FILE",
        f"name: {_plain(root)}",
        "data:",
        f"  root: {_value(str(root.absolute()))}",
        "  # How the files are named; {case} and {subject} stand for text that differs.",
        f"  layout: {_value(layout)}",
        *(f"  # {line}" for line in _about_subjects(dataset, shared)),
        f"  images: {_value(list(dataset.modalities))}    # in the order of channels",
    ]
    if len(dataset.labels):
        named = {name: list(v) for name, v in zip(dataset.labels.names, dataset.labels.values, strict=True)}
        source = "the values in the label maps: name them"
        if any(name != f"label_{values[0]}" for name, values in named.items()):
            source = "from dataset.json" if (root / "dataset.json").is_file() else "from dseg.tsv"
        labels = {name: values[0] if len(values) == 1 else values for name, values in named.items()}
        lines.append(f"  labels: {_value(labels)}    # {source}")
        lines += _regions(dataset)
    if 0 < len(labelled) < len(dataset.cases):
        without = ", ".join(case.id for case in dataset.cases if case.label is None)[:80]
        lines.append(f"  unlabelled: skip    # {len(dataset.cases) - len(labelled)} have no label map: {without}")
    lines += _known_later("patch, grid and network")
    return _text(lines)


def _regions(dataset: Dataset) -> list[str]:
    """Unions of labels, and what the network learns of them in place of labels."""
    lines = []
    if dataset.labels.regions:
        regions = {name: list(members) for name, members in dataset.labels.regions.items()}
        lines.append(f"  regions: {_value(regions)}    # unions of labels, from dataset.json")
    if dataset.labels.targets:
        said = "learned each by itself, painted in this order: regions_class_order"
        lines.append(f"  targets: {_value(list(dataset.labels.targets))}    # {said}")
    return lines


def _about_subjects(dataset: Dataset, shared: Any) -> list[str]:
    """Who was scanned, as far as one can tell."""
    if dataset.subjects_known:
        return [f"Subjects, which never stand on two sides: {len({case.subject for case in dataset.cases})}."]
    example = ", ".join(case.id for case in dataset.cases[:SHOWN])
    if shared is None:
        return [
            f"Nothing says who was scanned; ids are like {example}. Is every case somebody else? Add subject: '.+'",
            "to layout. Else add what finds the patient in an id: subject: '^[^_]+' finds pat07 in pat07_scan2.",
        ]
    return [
        f"Guessed: '{shared[0]}' in the ids finds {len(shared[1])} subjects, as {', '.join(list(shared[1])[:SHOWN])}.",
        "They never stand on two sides; '.+' says that every case is somebody else.",
    ]


def _classification(root: Path, layout: ClassLayout) -> str:
    from segmed.data.images.image_dataset import read_classes

    dataset = read_classes(ClassDataConfig(root=root, layout=layout))
    counts = ", ".join(f"{name} {count}" for name, count in dataset.counts().items())
    people = (
        f"Subjects: {len({item.subject for item in dataset.items})}."
        if dataset.subjects_known
        else "Nothing says who was scanned: images that are alike (twins) stay on one side."
    )
    given = {"name": layout.name} | layout.model_dump(exclude_defaults=True)
    lines = [
        f"# {dataset.name}: {len(dataset.items)} images, {counts}. Guessed: read it.",
        "# Look at the files first: segmed audit --config THIS_FILE --output FOLDER",
        "# Then train:              segmed train-cls --config THIS_FILE",
        f"name: {_plain(root)}",
        "data:",
        f"  root: {_value(str(root.absolute()))}",
        f"  layout: {_value(given)}",
        f"  classes: {_value(list(dataset.classes))}",
        f"  # {people}",
        "network: {name: encoder}",
        *_known_later("learning rate and steps"),
    ]
    return _text(lines)


def _text(lines: Sequence[str]) -> str:
    """A line break in a name would end a comment."""
    return "".join(f"{' '.join(line.splitlines())}\n" for line in lines)


def _known_later(what: str) -> list[str]:
    return [f"# All else ({what}) is planned from the data; --plan-only shows it with its reasons."]


def _plain(root: Path) -> str:
    return _value("".join(letter if letter.isalnum() else "_" for letter in root.resolve().name) or "experiment")


def _value(value: Any) -> str:
    """On one line, as YAML writes it."""
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )
