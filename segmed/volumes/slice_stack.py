"""A volume as its slices, one after the other: of a file that is too large for memory only one is ever there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from segmed.geometry import as_affine
from segmed.volumes import nifti
from segmed.volumes.volume_files import Source, read_header, read_label_volume, read_volume


@dataclass(frozen=True)
class SliceStack:
    """A volume whose slices across the last axis are read in their order.

    Attributes:
        shape: voxels along X, Y and Z.
        affine: (4, 4), voxel -> RAS mm.
        slices: starts to read; gives (X, Y) arrays, that of Z = 0 first.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    slices: Callable[[], Iterator[np.ndarray]]

    @classmethod
    def of(cls, voxels: np.ndarray, affine: object) -> SliceStack:
        """Of an array (X, Y, Z) that is in memory; no copy of it is taken."""
        x, y, z = voxels.shape
        return cls((x, y, z), as_affine(affine), lambda: (voxels[..., number] for number in range(z)))

    def changed(self, change: Callable[[np.ndarray], np.ndarray]) -> SliceStack:
        """The same volume with other values, slice by slice."""
        return replace(self, slices=lambda: map(change, self.slices()))


def open_stack(source: Source) -> SliceStack:
    """The intensities of an image, of its first component where it has several and none is chosen.

    NIfTI, plain or gzipped, is read slice by slice; other formats as a whole.

    Raises:
        VolumeError: missing, unreadable, not a volume.
    """
    header = read_header(source)
    if not nifti.is_nifti(source.path):
        volume = read_volume(source)
        return SliceStack.of(volume.as_tensor().numpy()[0], volume.affine)
    return SliceStack(header.shape, header.affine, lambda: nifti.read_slices(source.path, source.component or 0))


def open_label_stack(source: Source) -> SliceStack:
    """The values of a label map, whole numbers.

    Raises:
        VolumeError: missing, unreadable, not a label map.
    """
    if not nifti.is_nifti(source.path):
        volume = read_label_volume(source)
        return SliceStack.of(volume.as_tensor().numpy()[0], volume.affine)
    return open_stack(source).changed(lambda values: np.rint(np.nan_to_num(values)).astype(np.int32))
