"""Label maps whose header disagrees with the image -> label maps on the image's grid, voxel values untouched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from segmed.data.case import Case
from segmed.data.cases import Dataset
from segmed.errors import DatasetError, VolumeError
from segmed.files import bounds, write_json
from segmed.volumes import grid_difference, read_header, read_label_volume, write_volume

Disagreement = Literal["header", "axes", "shape"]
Grid = tuple[Sequence[int], np.ndarray]
WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha")


@dataclass(frozen=True)
class Repair:
    """One label map that was rewritten.

    Attributes:
        case: id of the case.
        file: the label map.
        image: whose grid it has now.
        change: `header`: the affine was replaced; `axes`: the axes were brought in the image's order.
        difference: how the grids differed.
        old_affine: (4, 4), of the label map before.
        new_affine: (4, 4), of the label map now.
    """

    case: str
    file: str
    image: str
    change: str
    difference: str
    old_affine: list[list[float]]
    new_affine: list[list[float]]


def disagreement(label: Grid, image: Grid) -> Disagreement | None:
    """How the grid of a label map differs from its image's; None: it does not.

    Args:
        label, image: (shape, affine) each.

    Returns:
        `axes`: the same voxels in the world, stored in another order; `header`: the same shape at another place;
        `shape`: another number of voxels.
    """
    if grid_difference(label, image) is None:
        return None
    turn = _turn(label[1], image[1])
    shape = [label[0][axis] for axis in np.argsort(turn[:, 0])]
    if grid_difference((shape, label[1] @ nib.orientations.inv_ornt_aff(turn, label[0])), image) is None:
        return "axes"
    return "header" if tuple(label[0]) == tuple(image[0]) else "shape"


def _turn(label: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The permutation and flips that bring axes of one affine in the order of another."""
    return nib.orientations.ornt_transform(nib.io_orientation(label), nib.io_orientation(image))


def fix_geometry(dataset: Dataset, *, log: Path) -> tuple[Repair, ...]:
    """Rewrite the label maps whose header, but not whose content, disagrees with their image.

    Images are never written, and nothing outside the data set's folder. Every change is in the log, with the old
    affine, before the file is touched; an existing log is added to.

    Args:
        dataset: whose first modality gives the right grid.
        log: JSON file.

    Returns:
        The changes, in the order of the cases. Cases that can't be read, and those whose shapes differ, are left.

    Raises:
        DatasetError: the log is there but is no list, or a label map's format can't be written, or it lies elsewhere.
        OSError: no space or no permission; what was rewritten until then is in the log.
    """
    entries = _earlier(log)
    planned = [repair for case in dataset.cases if (repair := _planned(case, dataset)) is not None]
    _check_inside(planned, dataset.root)
    repairs: list[Repair] = []
    with bounds(dataset.root, inputs=[source.path for case in dataset.cases for source in case.images.values()]):
        for repair in planned:
            write_json(log, [*entries, *(asdict(done) for done in repairs), asdict(repair)])
            _apply(repair)
            repairs.append(repair)
    return tuple(repairs)


def _check_inside(planned: Sequence[Repair], root: Path) -> None:
    """Refuse label maps outside the data set, to which a table, a dataset.json or a link may lead."""
    for repair in planned:
        if not Path(repair.file).resolve().is_relative_to(root.resolve()):
            raise DatasetError(
                f"{repair.file} lies outside {root}, and nothing is rewritten there: audit the folder that it is in"
            )


def _planned(case: Case, dataset: Dataset) -> Repair | None:
    image = next((case.images[name] for name in dataset.modalities if name in case.images), None)
    if image is None or case.label is None:
        return None
    try:
        reference, label = read_header(image.path), read_header(case.label.path)
    except VolumeError:
        return None
    ours, theirs = (label.shape, label.affine), (reference.shape, reference.affine)
    change = disagreement(ours, theirs)
    if change in (None, "shape"):
        return None
    if case.label.component is not None or not case.label.path.name.lower().endswith(WRITABLE):
        raise DatasetError(f"{case.label.path} can't be rewritten: convert it to .nii.gz, then run again")
    return Repair(
        case=case.id,
        file=str(case.label.path),
        image=str(image.path),
        change=str(change),
        difference=str(grid_difference(ours, theirs)),
        old_affine=label.affine.tolist(),
        new_affine=reference.affine.tolist(),
    )


def _apply(repair: Repair) -> None:
    path = Path(repair.file)
    volume = read_label_volume(path)
    values = volume.as_tensor().numpy()
    new = np.array(repair.new_affine)
    if repair.change == "axes":
        turn = _turn(np.array(repair.old_affine), new)
        values = np.ascontiguousarray(nib.orientations.apply_orientation(values[0], turn))[None]
    write_volume(path, MetaTensor(torch.from_numpy(values), affine=torch.from_numpy(new)), like=path)


def _earlier(log: Path) -> list[Any]:
    if not log.exists():
        return []
    try:
        entries = json.loads(log.read_text(encoding="utf-8"))
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise DatasetError(f"{log} is no log of repairs: move it away, so that no old affine is lost")
    return entries
