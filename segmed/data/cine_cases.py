"""A path -> the cines to measure: a 4D file, a DICOM cine, or a folder of 4D files; and their label maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.data.cases import find_volumes
from segmed.data.inputs import label_maps
from segmed.data.naming import plain_name
from segmed.errors import DatasetError, VolumeError
from segmed.volumes import is_volume_file, read_header, strip_suffix
from segmed.volumes.dicom_cine import holds_cine


@dataclass(frozen=True)
class CineFiles:
    """One cine.

    Attributes:
        name: of the case.
        image: 4D file, DICOM file or folder.
        labels: 4D file of the label maps of all phases; None: there is none.
    """

    name: str
    image: Path
    labels: Path | None = None


def is_one_cine(path: Path) -> bool:
    """Whether a path is one case: a file, or a folder that holds DICOM slices, in folders below it too, and no 4D."""
    if path.is_file():
        return True
    return holds_cine(path) and not any(is_volume_file(file) for file in path.rglob("*"))


def find_cines(image: Path, labels: Path | None, *, output: Path | None = None) -> list[CineFiles]:
    """The cines at a path, and their label maps.

    Args:
        image: a case of its own, as of `is_one_cine`, or a folder of 4D files at any depth; other volumes are left out.
        labels: the label map of the one case, or a folder with a 4D file a case, of the same name or with `_gt`,
            `_seg` or the like behind it.
        output: folder of results, left out if it lies in `image`.

    Raises:
        DatasetError: nothing there, a folder for a file, or a case without its label map.
    """
    if not image.exists():
        raise DatasetError(f"image {image} does not exist: check the path")
    if labels is not None and not labels.exists():
        raise DatasetError(f"labels {labels} does not exist: check the path")
    if is_one_cine(image):
        if labels is not None and labels.is_dir():
            raise DatasetError(f"--image is one cine and --labels {labels} a folder: give the 4D label map of the cine")
        return [CineFiles(strip_suffix(image.absolute()), image, labels)]
    if labels is not None and not labels.is_dir():
        raise DatasetError(f"--image is a folder and --labels {labels} is none: give the folder of the label maps")
    volumes = [path for path in _four_dimensional(image) if not _lies_in(path, output)]
    maps = set(label_maps(volumes, image))
    images = [path for path in volumes if path not in maps]
    if not images:
        raise DatasetError(f"{image} holds no 4D volumes: give a 4D file, a DICOM cine, or a folder of 4D files")
    known = {} if labels is None else _by_name(_four_dimensional(labels))
    names = _names(images, image)
    cines = []
    for path, name in zip(images, names, strict=True):
        own = known.get(strip_suffix(path), known.get(plain_name(strip_suffix(path))))
        if labels is not None and own in (None, path):
            raise DatasetError(f"{path} has no 4D label map in {labels}: name it as the image, or with _gt behind it")
        cines.append(CineFiles(name, path, own))
    return cines


def _four_dimensional(folder: Path) -> list[Path]:
    """The files below a folder that hold several volumes; those that can't be read are reported as cases."""
    return [path for path in find_volumes(folder) if path.is_file() and _components(path) > 1]


def _components(path: Path) -> int:
    try:
        return read_header(path).components
    except VolumeError:
        return 2


def _by_name(files: Sequence[Path]) -> dict[str, Path]:
    """Label maps by the name of their image; a name that says that it is a label map counts before one that doesn't."""
    names = {path: (plain_name(strip_suffix(path)), strip_suffix(path)) for path in files}
    return {names[path][0]: path for path in sorted(files, key=lambda path: names[path][0] != names[path][1])}


def _names(images: Sequence[Path], root: Path) -> list[str]:
    """Names of cases: of their files, with the folders before them where two are equal."""
    counts = Counter(strip_suffix(path) for path in images)
    return [
        strip_suffix(path)
        if counts[strip_suffix(path)] == 1
        else "_".join((*path.parent.relative_to(root).parts, strip_suffix(path)))
        for path in images
    ]


def _lies_in(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())
