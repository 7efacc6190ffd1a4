"""One fold of a data set as files that every contender reads: nnU-Net's raw layout, its parts, the test cases apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from benchmarks.processes import PeerError
from segmed.config import SegmentationConfig
from segmed.data.case import Case
from segmed.data.cases import cases_of
from segmed.files import write_json
from segmed.labels import LabelSet
from segmed.segment.prepare import Prepared, prepare
from segmed.volumes import read_label_volume, read_volume, write_volume

DATASET = "Dataset001_campaign"
PARTS_FILE = "parts.json"


def prepared_fold(config: SegmentationConfig, *, folds: int, fold: int) -> Prepared:
    """The data, checked, and the parts of one fold: the same that `train_seg.py --folds F --fold K` draws."""
    split = config.split.model_copy(update={"folds": folds, "fold": fold})
    return prepare(config.model_copy(update={"split": split}))


def write_fold(folder: Path, ready: Prepared) -> Path:
    """The cases in nnU-Net's raw layout: training and validation in `imagesTr`, test images without labels apart.

    Args:
        folder: that it is written below; what is there already is kept.
        ready: of one fold.

    Returns:
        The folder of the data set. `parts.json` in it names the cases of each part. Label maps hold 0 for background
        and the labels' places, from 1.

    Raises:
        PeerError: the fold that is there has other parts.
    """
    root = folder / DATASET
    if (root / PARTS_FILE).is_file():
        check_parts(root, ready)
        return root
    labels = ready.dataset.labels
    learned = [*ready.split.train, *ready.split.validation]
    for case in cases_of(ready.dataset, learned):
        _write_images(root / "imagesTr", case, ready.dataset.modalities)
        _write_label(root / "labelsTr" / f"{case.id}.nii.gz", case, labels)
    for case in cases_of(ready.dataset, ready.split.test):
        _write_images(root / "imagesTs", case, ready.dataset.modalities)
    about = {
        "channel_names": {str(index): name for index, name in enumerate(ready.dataset.modalities)},
        "labels": {"background": 0, **{name: index for index, name in enumerate(labels.names, start=1)}},
        "numTraining": len(learned),
        "file_ending": ".nii.gz",
    }
    write_json(root / "dataset.json", about)
    write_json(root / PARTS_FILE, _parts_of(ready))
    return root


def check_parts(root: Path, ready: Prepared) -> None:
    """See that a fold that was written has these parts: else a contender would learn from another's test case.

    Raises:
        PeerError: it has others.
    """
    both = (read_parts(root), _parts_of(ready))
    there, now = ({case: part for part, cases in parts.items() for case in cases} for parts in both)
    for case in sorted(there.keys() | now.keys()):
        if there.get(case) != now.get(case):
            raise PeerError(
                f"{root.parent} holds a fold of another split (case {case}: {there.get(case, 'no')} part there, "
                f"{now.get(case, 'no')} part now): give another --output, or the same --folds and --data"
            )


def read_parts(root: Path) -> dict[str, list[str]]:
    """The cases of each part of a fold that was written."""
    parts: dict[str, list[str]] = json.loads((root / PARTS_FILE).read_text(encoding="utf-8"))
    return parts


def _parts_of(ready: Prepared) -> dict[str, list[str]]:
    return {part: list(getattr(ready.split, part)) for part in ("train", "validation", "test")}


def collect(predictions: Path, target: Path, cases: list[Case], labels: LabelSet) -> None:
    """A peer's label maps, with the values that the data set's own files have.

    Args:
        predictions: `CASE.nii.gz` with the labels' places.
        target: folder of `CASE.nii.gz` with the first value of each label.
        cases: the test cases.
        labels: of the data set.
    """
    for case in cases:
        volume = read_label_volume(predictions / f"{case.id}.nii.gz")
        values = labels.decode(volume.numpy().astype(np.uint8))
        target.mkdir(parents=True, exist_ok=True)
        write_volume(target / f"{case.id}.nii.gz", MetaTensor(torch.from_numpy(values), affine=volume.affine))


def _write_images(folder: Path, case: Case, modalities: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(modalities):
        write_volume(folder / f"{case.id}_{index:04d}.nii.gz", read_volume(case.images[name]))


def _write_label(path: Path, case: Case, labels: LabelSet) -> None:
    if case.label is None:
        raise ValueError(f"case {case.id} has no label map: the campaign trains on labelled cases alone")
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = read_label_volume(case.label)
    places = labels.encode(volume.numpy(), where=case.id)
    write_volume(path, MetaTensor(torch.from_numpy(places.astype(np.uint8)), affine=volume.affine))
