"""Maps on a network's grid -> maps on the volume's own grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from segmed.geometry import as_affine, resample_onto, spacing_mm
from segmed.targets import Targets

Box = tuple[slice, slice, slice]
ROUNDING_VOXELS = 1e-3


class WayHome:
    """The way from a prepared grid to the native grid that it came from.

    Where only orientation and crop differ, voxels are moved and nothing is interpolated; where the spacing differs,
    each map is interpolated linearly, whose weights keep a sum of one.

    Args:
        affine: (4, 4) of the prepared grid.
        shape: (X', Y', Z') of the prepared grid.
        native_affine: (4, 4) of the volume's own grid.
        native_shape: (X, Y, Z) of the volume's own grid.

    Attributes:
        box: the native voxels that the prepared grid covers; the others were cropped away.
    """

    def __init__(
        self, affine: object, shape: Sequence[int], *, native_affine: object, native_shape: Sequence[int]
    ) -> None:
        self.affine = as_affine(affine)
        self.native_affine = as_affine(native_affine)
        self.native_shape = tuple(int(n) for n in native_shape)
        self.box = self._covered(shape)

    def probabilities(self, maps: Tensor) -> Tensor:
        """Probabilities (classes, X', Y', Z') -> (classes, X, Y, Z) on the CPU; cropped voxels are background."""
        home = torch.zeros((len(maps), *self.native_shape))
        home[0] = 1.0
        for index in range(len(maps)):
            home[(index, *self.box)] = self._bring(maps[index])
        return home

    def labels(self, maps: Tensor, targets: Targets) -> Tensor:
        """Probabilities (classes, X', Y', Z') -> what they decide, (1, X, Y, Z) uint8, one map at a time."""
        home = torch.zeros((1, *self.native_shape), dtype=torch.uint8)
        home[(0, *self.box)] = targets.decide(maps, self._bring)
        return home

    def _bring(self, channel: Tensor) -> Tensor:
        """One map (X', Y', Z') on the native voxels of the box, on the CPU."""
        start = np.eye(4)
        start[:3, 3] = [part.start for part in self.box]
        source = MetaTensor(channel[None], affine=torch.from_numpy(self.affine))
        size = [part.stop - part.start for part in self.box]
        return resample_onto(source, affine=self.native_affine @ start, shape=size).as_tensor()[0].cpu()

    def _covered(self, shape: Sequence[int]) -> Box:
        """Native voxels inside the prepared grid; all of them where the two grids are oblique to each other.

        A prepared grid can end up to half a voxel of its own short of what was cropped, since its size is whole.
        """
        to_prepared = np.linalg.inv(self.affine) @ self.native_affine
        steps = to_prepared[:3, :3]
        driver = np.abs(steps).argmax(axis=1)
        oblique = np.abs(steps).sum() - np.abs(steps)[np.arange(3), driver].sum() > ROUNDING_VOXELS
        box = [slice(0, n) for n in self.native_shape]
        if oblique or len(set(driver.tolist())) < 3:
            return box[0], box[1], box[2]
        coarser = np.array(spacing_mm(self.native_affine))[driver] / np.array(spacing_mm(self.affine))
        slack = 0.5 + np.clip(0.5 - 0.5 * coarser, 0, None) + ROUNDING_VOXELS
        for axis, native in enumerate(driver):
            positions = to_prepared[axis, 3] + steps[axis, native] * np.arange(self.native_shape[native])
            inside = np.flatnonzero((positions > -slack[axis]) & (positions < shape[axis] - 1 + slack[axis]))
            box[native] = slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)
        return box[0], box[1], box[2]
