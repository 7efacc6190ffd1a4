"""A volume and its label map in a notebook, by ipyniivue."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor

from segmed.errors import ConfigError, GeometryError, VolumeError
from segmed.geometry import as_affine, grid_difference
from segmed.public.experiments import PathLike
from segmed.reports.drawing.label_colours import label_colours
from segmed.volumes import read_label_volume, read_volume

OPACITY = 0.45
Shown = np.ndarray | MetaTensor | PathLike


def view(image: Shown, labels: Shown | None = None) -> Any:
    """A volume in a notebook, its label map over it in the colours of all pages: slices, cross-hair, 3D.

        >>> label_map = np.zeros((8, 8, 4), np.uint8)
        >>> label_map[2:6, 2:6, 1:3] = 1
        >>> widget = segmed.view(np.random.rand(8, 8, 4), label_map)
        >>> len(widget.volumes)
        2

    Args:
        image: (X, Y, Z) or (C, X, Y, Z), of which the first channel is shown; or a file.
        labels: label map on the same grid; none: the image alone. An array lies on the grid of the image.

    Returns:
        A widget of ipyniivue; the last line of a cell shows it.

    Raises:
        ConfigError: ipyniivue is not installed.
        ValueError: a file that can't be read, or label map and image on different grids.
    """
    try:
        from ipyniivue import NiiVue, Volume
    except ImportError as error:
        raise ConfigError('a view needs ipyniivue: pip install "segmed-mri[notebooks]"') from error

    voxels, affine = _first_channel(read_volume(image) if isinstance(image, PathLike) else image, None)
    shown = [Volume(name="image.nii", data=_nifti(voxels.astype(np.float32), affine))]
    if labels is not None:
        given = read_label_volume(labels) if isinstance(labels, PathLike) else labels
        values, own = _first_channel(given, affine)
        difference = grid_difference((values.shape, own), (voxels.shape, affine))
        if difference is not None:
            raise GeometryError(f"label map and image lie on different grids ({difference}): resample one first")
        kind = np.int16 if values.max(initial=0) < 2**15 else np.int32
        over = Volume(name="labels.nii", data=_nifti(values.astype(kind), own), opacity=OPACITY)
        over.set_colormap_label(_colours(values))
        shown.append(over)
    widget = NiiVue()
    widget.load_volumes(shown)
    return widget


def _first_channel(volume: np.ndarray | MetaTensor, affine: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z) and its affine: an array has that which is given, or voxels of 1 mm."""
    own = volume.affine if isinstance(volume, MetaTensor) else np.eye(4) if affine is None else affine
    array = volume.numpy(force=True) if isinstance(volume, MetaTensor) else np.asarray(volume)
    if array.ndim not in (3, 4):
        raise VolumeError(f"a volume to view has the axes (X, Y, Z) or (C, X, Y, Z), not shape {array.shape}")
    return (array[0] if array.ndim == 4 else array), as_affine(own)


def _nifti(voxels: np.ndarray, affine: np.ndarray) -> bytes:
    content: bytes = nib.Nifti1Image(voxels, affine).to_bytes()
    return content


def _colours(values: np.ndarray) -> dict[str, Any]:
    """Each value of a label map and its colour, 0 clear."""
    present = [int(value) for value in np.unique(values) if value]
    colours = label_colours((), len(present))
    channels = [[int(text[at : at + 2], 16) for text in colours] for at in (1, 3, 5)]
    red, green, blue = ([0, *channel] for channel in channels)
    return {
        "R": red, "G": green, "B": blue, "A": [0, *[255] * len(present)],
        "I": [0, *present], "labels": ["background", *map(str, present)],
    }  # fmt: skip
