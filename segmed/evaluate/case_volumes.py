"""The volumes of one case that figures and pages show, on one canonical grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor

from segmed.geometry import as_affine, reversed_axes, to_canonical, with_data
from segmed.geometry import spacing_mm as spacing_of


@dataclass(frozen=True)
class CaseVolumes:
    """What a figure of one case shows, on one grid in canonical (RAS) axes.

    Attributes:
        image: (X, Y, Z), any intensities; None: contours on black.
        reference, prediction: (X, Y, Z) label indices; None: not drawn.
        spacing_mm: size of a voxel along X, Y and Z.
        overlay: (X, Y, Z), from 0 on, drawn in colour over the image, the more opaque the higher; None: not drawn.
        reversed_axes: whether the file counts its slices across X, Y and Z the other way round.
        picture: whether it is a 2D picture; None: where it is one voxel thick and its spacing is one.
    """

    image: np.ndarray | None
    reference: np.ndarray | None
    prediction: np.ndarray | None
    spacing_mm: tuple[float, float, float]
    overlay: np.ndarray | None = None
    reversed_axes: tuple[bool, bool, bool] = (False, False, False)
    picture: bool | None = None

    @property
    def is_picture(self) -> bool:
        """Whether it is a 2D picture: rows run downwards, and nobody knows its sides."""
        return self.shape[2] == 1 and self.spacing_mm == (1.0, 1.0, 1.0) if self.picture is None else self.picture

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along X, Y and Z."""
        return next(array.shape for array in (self.image, self.reference, self.prediction) if array is not None)

    def slice_number(self, axis: int, index: int) -> int:
        """The number of a slice in the file, from 1."""
        return self.shape[axis] - index if self.reversed_axes[axis] else index + 1


def shown_case(
    image: MetaTensor,
    *,
    reference: MetaTensor | None = None,
    prediction: MetaTensor | None = None,
    overlay: MetaTensor | None = None,
) -> CaseVolumes:
    """Volumes as they are read and segmented, in any orientation, as figures take them.

    Args:
        image: (C, X, Y, Z); its first channel is shown.
        reference, prediction: (1, X, Y, Z) label indices on the same grid.
        overlay: (1, X, Y, Z) on the same grid, from 0 on.
    """
    canonical = to_canonical(with_data(image, image.as_tensor()[:1], as_affine(image.affine)))
    maps = [None if v is None else to_canonical(v).numpy(force=True)[0] for v in (reference, prediction, overlay)]
    return CaseVolumes(
        canonical.numpy(force=True)[0], maps[0], maps[1], spacing_of(canonical.affine), maps[2],
        reversed_axes(image.affine),
    )  # fmt: skip
