"""An image and its label map, read for clinical numbers: on one grid, with a spacing that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmed.errors import VolumeError
from segmed.geometry import as_affine
from segmed.volumes import Source, grid_difference, read_label_volume, read_volume, through_pillow


def read_labelled(image: Source, labels: Source) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read both.

    Returns:
        Intensities (X, Y, Z) float32, values (X, Y, Z) int32, and their affine (4, 4).

    Raises:
        VolumeError: a file that can't be read, pictures without spacing, several components, or two grids.
    """
    for source in (image, labels):
        check_spacing(source.path)
    volume, values = read_volume(image), read_label_volume(labels)
    if len(volume) > 1:
        raise VolumeError(f"{image.path} has {len(volume)} components: give the late enhancement image alone")
    if difference := grid_difference((volume.shape, volume.affine), (values.shape, values.affine)):
        raise VolumeError(f"{labels.path} lies on another grid than its image ({difference}): resample it first")
    return volume.numpy()[0], values.numpy()[0], as_affine(values.affine)


def check_spacing(path: Path) -> None:
    """Refuse PNG and the like, whose pixels have no size.

    Raises:
        VolumeError: such a file.
    """
    if path.name.lower().endswith(through_pillow.SUFFIXES):
        raise VolumeError(f"{path} is a picture without spacing: nothing can be said in ml; give a NIfTI or DICOM file")
