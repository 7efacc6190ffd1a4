"""A folder without a description -> the most likely layout of its files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

import numpy as np

from segmed.config import BidsLayout, Layout, ManifestLayout, MsdLayout, NnunetLayout, PatternLayout
from segmed.data.bids import described, is_bids, read_bids
from segmed.data.case import composed
from segmed.data.nested import LABEL_WORDS, MOST_FOLDERS, SHARE, nested_layout
from segmed.errors import DatasetError, VolumeError
from segmed.volumes import is_dicom_folder, is_volume_file, read_volume, strip_suffix

MOST_LABEL_VALUES = 64


def guess_layout(root: Path) -> Layout:
    """The layout of a folder, from its names and, where names don't tell images from label maps, from one case.

    Tried in this order: dataset.json (nnU-Net where the images end in _0000, else MSD), manifest.csv or
    manifest.json, BIDS, a folder of images beside one of label maps, one folder a subject or a case, image files.

    Raises:
        DatasetError: nothing there, or no layout fits.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder: give the folder of a data set")
    if (root / "imagesTr").is_dir() and _all_end_in_channels(root / "imagesTr"):
        return NnunetLayout()
    if (root / "dataset.json").is_file():
        return NnunetLayout() if _lists_nnunet_files(root / "dataset.json") else MsdLayout()
    for name in ("manifest.csv", "manifest.json"):
        if (root / name).is_file():
            return ManifestLayout(file=name)
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if is_bids(root) and (bids := _bids(root, folders)) is not None:
        return bids
    attempts = (_pair_of_folders, _folder_a_subject, _folder_a_case, nested_layout)
    for attempt in attempts:
        if (guess := attempt(folders)) is not None:
            return guess
    if (guess := _flat(root)) is not None:
        return guess
    raise DatasetError(f"{root} fits no known layout: describe it in a config by data.layout, with name patterns")


def _bids(root: Path, folders: list[Path]) -> Layout | None:
    """BIDS, unless label maps lie elsewhere than below derivatives/."""
    try:
        cases = read_bids(root, BidsLayout()).cases
    except DatasetError:
        return BidsLayout() if "BIDSVersion" in described(root) else None  # the reader says what is wrong
    nested = None if any(case.label for case in cases) else nested_layout(folders)
    return nested if nested is not None and nested.label else BidsLayout()


def _volumes(folder: Path) -> list[Path]:
    """Volume files and DICOM folders in a folder, sorted."""
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [path for path in entries if (is_dicom_folder(path) if path.is_dir() else is_volume_file(path))]


def _all_end_in_channels(folder: Path) -> bool:
    files = _volumes(folder)
    return bool(files) and all(re.search(r"_\d{4}$", strip_suffix(path)) for path in files)


def _lists_nnunet_files(path: Path) -> bool:
    try:
        described = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        return False  # the reader of the layout says what is wrong
    return isinstance(described, dict) and isinstance(described.get("dataset"), dict) and "training" not in described


def _pair_of_folders(folders: list[Path]) -> PatternLayout | None:
    """images/x.png beside masks/x.png: two folders whose files have the same names."""
    names = {
        folder: {composed(strip_suffix(path)): path for path in _volumes(folder)} for folder in folders[:MOST_FOLDERS]
    }
    label_folders = [folder for folder in names if LABEL_WORDS.search(folder.name) and names[folder]]
    for labels in label_folders:
        for images in names:
            shared = names[images].keys() & names[labels].keys()
            if images is labels or not shared or len(shared) < SHARE * len(names[labels]):
                continue
            return PatternLayout(
                images={"image": f"{images.name}/{{case}}{_ending(names[images].values())}"},
                label=f"{labels.name}/{{case}}{_ending(names[labels].values())}",
            )
    return None


def _ending(paths: Iterable[Path]) -> str:
    """The suffix that all names share, else `.*`."""
    endings = {_suffix(path) for path in paths}
    return endings.pop() if len(endings) == 1 else ".*"


def _suffix(path: Path) -> str:
    return path.name[len(strip_suffix(path)) :]


def _folder_a_case(folders: list[Path]) -> PatternLayout | None:
    """{case}/{case}_LGE.nii.gz or {case}/lgemri.nii.gz: equal names in all folders, but for the folder's own name."""
    looked_at = folders[:MOST_FOLDERS]
    templates: Counter[str] = Counter()
    example: dict[str, Path] = {}
    for folder in looked_at:
        for path in _volumes(folder):
            template = path.name.replace(folder.name, "{case}")
            templates[template] += 1
            example.setdefault(template, path)
    common = [template for template, count in templates.items() if count >= max(1, SHARE * len(looked_at))]
    if not common or (len(looked_at) == 1 and len(common) > 1 and not _tells_cases_apart(common)):
        return None
    label = _label_template({template: example[template] for template in common})
    images = [template for template in common if template != label and not _is_label_map(example[template])]
    if not images:
        return None
    return PatternLayout(
        images={_image_name(template): f"{{case}}/{template}" for template in images},
        label=f"{{case}}/{label}" if label else None,
    )


def _tells_cases_apart(templates: list[str]) -> bool:
    return any("{case}" in template for template in templates)


def _image_name(template: str) -> str:
    """`{case}_LGE.nii.gz` -> `LGE`."""
    return strip_suffix(template.replace("{case}", "")).strip("_-. ") or "image"


def _label_template(examples: dict[str, Path]) -> str | None:
    """Of the files of one case the one with the most labels; masks of the body have fewer."""
    values = {template: _label_values(path) for template, path in examples.items()}
    best = max(values, key=lambda template: (values[template], bool(LABEL_WORDS.search(template))))
    return best if values[best] > 1 and len(examples) > 1 else None


def _label_values(path: Path) -> int:
    """Number of different values of a file, 0 where it is no label map."""
    try:
        voxels = read_volume(path).as_tensor().numpy()
    except VolumeError:
        return 0
    values = np.unique(voxels)
    whole = len(values) <= MOST_LABEL_VALUES and bool((values == np.round(values)).all())
    return len(values) if whole and len(voxels) == 1 else 0


def _is_label_map(path: Path) -> bool:
    return _label_values(path) > 0


def _folder_a_subject(folders: list[Path]) -> PatternLayout | None:
    """{subject}/{case}.nii.gz beside {subject}/{case}_gt.nii.gz: several cases in a folder."""
    holding = {folder: [path.name for path in _volumes(folder)] for folder in folders[:MOST_FOLDERS]}
    holding = {folder: names for folder, names in holding.items() if names}
    if not holding:
        return None
    pair = _paired_suffixes([name for names in holding.values() for name in names])
    if pair is None:
        return None
    case = _narrow_case(holding, pair) or "{case}"
    return PatternLayout(images={"image": f"{{subject}}/{case}{pair[0]}"}, label=f"{{subject}}/{case}{pair[1]}")


def _narrow_case(holding: dict[Path, list[str]], pair: tuple[str, str]) -> str | None:
    """`{subject}_frame{case}`, where files without label maps (`{subject}_4d`) lie among those that have some."""
    paired: list[str] = []
    others: list[str] = []
    for folder, names in holding.items():
        for name in (name for name in names if name.endswith(pair[0]) and not name.endswith(pair[1])):
            stem = name.removesuffix(pair[0])
            kept = paired if f"{stem}{pair[1]}" in names else others
            kept.append(stem.replace(folder.name, "{subject}"))
    same = (letters[0] for letters in takewhile(lambda each: len(set(each)) == 1, zip(*paired, strict=False)))
    begin = "".join(same).rstrip("0123456789")
    if not others or not begin or any(stem.startswith(begin) for stem in others):
        return None
    return f"{begin}{{case}}"


def _paired_suffixes(names: list[str]) -> tuple[str, str] | None:
    """Endings of images and label maps, where most label maps have the name of their image plus an ending."""
    stems = {strip_suffix(name): _suffix(Path(name)) for name in names}
    endings: Counter[tuple[str, str]] = Counter()
    for stem, suffix in stems.items():
        for cut in range(1, len(stem)):
            if stem[:cut] in stems and LABEL_WORDS.search(stem[cut:]):
                endings[stems[stem[:cut]], stem[cut:] + suffix] += 1
    if not endings:
        return None
    pair, count = endings.most_common(1)[0]
    return pair if 2 * count >= SHARE * len(names) else None


def _two_endings(names: list[str]) -> tuple[str, str] | None:
    """Endings of images and label maps, where each case has one of each: `a_T1`, `a_seg`."""
    ends: dict[str, dict[str, str]] = {}
    for name in names:
        case, mark, rest = strip_suffix(name).rpartition("_")
        ends.setdefault(case, {})[f"{mark}{rest}{_suffix(Path(name))}"] = rest
    kinds = {tuple(sorted(own)) for case, own in ends.items() if case}
    if len(kinds) != 1 or len(ends) < 2 or len(next(iter(kinds))) != 2:
        return None
    own = next(iter(ends.values()))
    labels = [end for end, rest in own.items() if LABEL_WORDS.search(rest)]
    images = [end for end in own if end not in labels]
    return (images[0], labels[0]) if len(labels) == 1 else None


def _flat(root: Path) -> PatternLayout | None:
    """Files in the folder itself, with label maps beside them or without."""
    names = [path.name for path in _volumes(root)]
    if not names:
        return None
    pair = _paired_suffixes(names) or _two_endings(names)
    if pair is not None:
        return PatternLayout(images={"image": f"{{case}}{pair[0]}"}, label=f"{{case}}{pair[1]}")
    endings = {_suffix(Path(name)) for name in names}
    return PatternLayout(images={"image": f"{{case}}{endings.pop() if len(endings) == 1 else '*'}"})
