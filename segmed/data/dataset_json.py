"""Folders with a dataset.json -> cases: Medical Segmentation Decathlon and nnU-Net raw."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segmed.data.case import Case, LayoutCases, composed, listed_file
from segmed.data.described_labels import label_names
from segmed.errors import DatasetError
from segmed.volumes import Source, is_volume_file, strip_suffix

CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def read_msd(root: Path, *, test: bool = False) -> LayoutCases:
    """Medical Segmentation Decathlon; a 4D file's components are the modalities, by name.

    Args:
        root: folder of dataset.json.
        test: whether the cases listed under `test` are read, too.
    """
    described = read_json(root / "dataset.json")
    modalities = _channel_names(described, root)
    listed = described.get("training")
    if not isinstance(listed, list) or not listed:
        raise DatasetError(f"{root / 'dataset.json'} lists no cases under 'training': use another data.layout")
    cases = [_msd_case(root, entry, modalities, f"training entry {n}") for n, entry in enumerate(listed, 1)]
    others = described.get("test") if test else None
    others = others if isinstance(others, list) else []
    tests = [_msd_case(root, entry, modalities, f"test entry {n}") for n, entry in enumerate(others, 1)]
    labels, ignore, regions, targets = label_names(described, root)
    name = str(described.get("name") or root.name)
    unlabelled = tuple(replace(case, label=None) for case in tests)
    return LayoutCases(name, tuple(cases), modalities, labels, ignore, unlabelled, regions, targets)


def _msd_case(root: Path, entry: Any, modalities: Sequence[str], where: str) -> Case:
    image, label = _msd_entry(entry, f"{root / 'dataset.json'}, {where}")
    path = listed_file(root, image)
    if len(modalities) > 1:
        images = {name: Source(path, index) for index, name in enumerate(modalities)}
    else:
        images = {modalities[0]: Source(path)}
    name = composed(strip_suffix(path))
    return Case(name, name, images, Source(listed_file(root, label)) if label else None)


def _msd_entry(entry: Any, where: str) -> tuple[str, str | None]:
    """Image and label of one entry: a path, a pair of paths, or a dictionary."""
    if isinstance(entry, str):
        entry = {"image": entry}
    elif isinstance(entry, list) and len(entry) == 2:
        entry = {"image": entry[0], "label": entry[1]}
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise DatasetError(f"{where} has no 'image': give the path of the image and of the label")
    label = entry.get("label", entry["image"].replace("imagesTr", "labelsTr") if "imagesTr" in entry["image"] else None)
    if label is not None and not isinstance(label, str):
        raise DatasetError(f"{where}: 'label' is not a path: give the path of the label map")
    return entry["image"], label


def read_nnunet(root: Path, *, test: bool = False) -> LayoutCases:
    """nnU-Net raw: one file a channel, named CASE_0000, CASE_0001 and so on; dataset.json names the channels.

    Args:
        root: folder of imagesTr.
        test: whether the cases in imagesTs are read, too.
    """
    described = read_json(root / "dataset.json") if (root / "dataset.json").exists() else {}
    listed = described.get("dataset")
    images, labels = _listed_files(root, listed) if isinstance(listed, dict) else _files_by_name(root)
    numbers = sorted({number for channels in images.values() for number in channels})
    names = {number: f"{number:04d}" for number in numbers}
    if described:
        names = dict(enumerate(_channel_names(described, root)))
        if numbers[-1] >= len(names):
            file = next(files[numbers[-1]] for files in images.values() if numbers[-1] in files)
            raise DatasetError(
                f"{file} is channel _{numbers[-1]:04d}, but dataset.json names {len(names)}: add it there, or take the "
                "file out"
            )

    def case(name: str, files: Mapping[int, Path]) -> Case:
        sources = {names[number]: Source(path) for number, path in sorted(files.items()) if number in names}
        return Case(name, name, sources, Source(labels[name]) if name in labels else None)

    cases = tuple(case(name, images.get(name, {})) for name in sorted(images.keys() | labels.keys()))
    others = _channels(root / "imagesTs") if test and (root / "imagesTs").is_dir() else {}
    tests = tuple(replace(case(name, files), label=None) for name, files in others.items() if name not in images)
    values, ignore, regions, targets = label_names(described, root)
    name = str(described.get("name") or root.name)
    return LayoutCases(name, cases, tuple(names.values()), values, ignore, tests, regions, targets)


def _files_by_name(root: Path) -> tuple[dict[str, dict[int, Path]], dict[str, Path]]:
    """Images by case and channel, label maps by case, from the folders' names."""
    folder, label_folder = root / "imagesTr", root / "labelsTr"
    if not folder.is_dir():
        raise DatasetError(f"{root} has no folder imagesTr, which nnU-Net data have: use another data.layout")
    images = _channels(folder)
    if not images:
        raise DatasetError(f"{folder} holds no volumes: put CASE_0000.nii.gz and so on there")
    labels: dict[str, Path] = {}
    for path in sorted(label_folder.iterdir()) if label_folder.is_dir() else []:
        if is_volume_file(path):
            _add(labels, composed(strip_suffix(path)), path)
    return images, labels


def _add(files: dict[Any, Path], key: Any, path: Path) -> None:
    """Two files of one name, say .nii and .nii.gz, are two answers to one question."""
    other = files.setdefault(key, path)
    if other != path:
        raise DatasetError(f"{other} and {path.name} are files of one case: take the wrong one away")


def _channels(folder: Path) -> dict[str, dict[int, Path]]:
    """Images of a folder by case and channel."""
    images: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if not is_volume_file(path):
            continue
        match = CHANNEL.fullmatch(strip_suffix(path))
        if match is None:
            raise DatasetError(f"{path} does not end in a channel such as _0000: rename it, or use layout msd")
        _add(images.setdefault(composed(match["case"]), {}), int(match["channel"]), path)
    return images


def _listed_files(root: Path, listed: Mapping[str, Any]) -> tuple[dict[str, dict[int, Path]], dict[str, Path]]:
    """The same from the `dataset` table of dataset.json, whose paths are relative to it."""
    images: dict[str, dict[int, Path]] = {}
    labels: dict[str, Path] = {}
    for case, entry in listed.items():
        files = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(files, list) or not files or not all(isinstance(file, str) for file in files):
            raise DatasetError(f"{root / 'dataset.json'}: case '{case}' has no list of images: give one a channel")
        images[case] = {number: listed_file(root, file) for number, file in enumerate(files)}
        if isinstance(entry.get("label"), str):
            labels[case] = listed_file(root, entry["label"])
    if not images:
        raise DatasetError(f"{root / 'dataset.json'} lists no cases under 'dataset': add them or leave the key out")
    return images, labels


def read_json(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist: check data.root, or use another data.layout") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON ({str(error).splitlines()[0]}): repair it") from error
    if path.name == "dataset.json" and not isinstance(content, dict):
        raise DatasetError(f"{path} is not a dictionary: see the Medical Segmentation Decathlon for its form")
    return content


def _channel_names(described: Mapping[str, Any], root: Path) -> tuple[str, ...]:
    """From `channel_names` or `modality`: {"0": name} or a list."""
    names = described.get("channel_names", described.get("modality", {"0": "image"}))
    if isinstance(names, dict):
        try:
            names = [names[key] for key in sorted(names, key=int)]
        except ValueError as error:
            raise DatasetError(f"{root / 'dataset.json'}: channels are not numbered: number them from 0") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise DatasetError(f"{root / 'dataset.json'} has no names of channels: give {{'0': 'T1', ...}}")
    counts = Counter(names)  # nnU-Net data sets of RGB images name three channels alike
    return tuple(name if counts[name] == 1 else f"{name}_{index}" for index, name in enumerate(names))
