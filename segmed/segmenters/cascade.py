"""Two stages: the first finds a region, the second looks at nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from segmed.geometry import as_affine, spacing_mm
from segmed.labels import LabelSet
from segmed.segmenters.segmenter import Segmenter, decide, on_grid_of

RegionOfInterest = Literal["mask", "crop"]


class Cascade(Segmenter):
    """A coarse segmenter finds a region, a fine one segments inside it: scar in the myocardium.

    Inside the region the fine segmenter's labels come first, and what it leaves over is shared as the coarse one says.
    Where the coarse one finds no region, the fine one is not asked.

        >>> cascade = segmed.Cascade(
        ...     coarse=segmed.Vote([segmenter, segmenter]), fine=segmenter, region=["myocardium"], rest=None,
        ...     labels=segmenter.labels, margin_mm=5,
        ... )
        >>> cascade(volume).shape == volume.shape
        True

    Args:
        coarse: finds the region.
        fine: sees what is left of the volume, see `restrict`; any segmenter, a cascade too.
        region: names of the coarse labels and regions that make up the region.
        rest: name, in the result, of the region without what the fine segmenter finds in it; None: background.
        labels: of the result: `rest`, all labels of `fine`, and any other of `coarse` that are to stay.
        margin_mm: how far beyond the region the fine segmenter sees, and may find something.
        roi: `mask` sets all else to zero, `crop` cuts the volume to the region's box.

    Raises:
        VolumeError: a name that is not there.
        ValueError: a negative margin, or no region.

    Source: masked: Zabihollahy et al. 2020, Med Phys 47:1645.
    """

    def __init__(
        self,
        coarse: Segmenter,
        fine: Segmenter,
        *,
        region: Sequence[str],
        rest: str | None,
        labels: LabelSet,
        margin_mm: float = 0.0,
        roi: RegionOfInterest = "mask",
    ) -> None:
        if margin_mm < 0 or not region:
            raise ValueError(f"a cascade of region {tuple(region)} and {margin_mm} mm: name a label, and 0 mm or more")
        self.coarse, self.fine, self.labels = coarse, fine, labels.with_targets("labels")
        self.margin_mm, self.roi = margin_mm, roi
        self._region = sorted({index for name in region for index in coarse.labels.members(name)})
        self._fine = [labels.index(name) for name in fine.labels.names]
        self._rest = 0 if rest is None else labels.index(rest)
        kept = [name for name in coarse.labels.names if name in labels.names and name != rest]
        self._kept = {
            labels.index(name): coarse.labels.index(name)
            for name in kept
            if coarse.labels.index(name) not in self._region
        }

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        coarse = self.coarse.probabilities(volume).as_tensor().float().cpu()
        result = torch.zeros((self.labels.classes, *coarse.shape[1:]))
        for own, theirs in self._kept.items():
            result[own] = coarse[theirs]
        result[self._rest] += coarse[self._region].sum(dim=0)
        result[0] += (1 - result.sum(dim=0)).clamp(min=0)
        mask = np.isin(decide(coarse, self.coarse.labels).numpy(), self._region)
        if mask.any():
            self._refine(result, volume, mask)
        return on_grid_of(volume, result)

    def _refine(self, result: torch.Tensor, volume: MetaTensor, mask: np.ndarray) -> None:
        """Put the fine segmenter's labels into the result, in place."""
        seen, place, inside = restrict(volume, mask, margin_mm=self.margin_mm, roi=self.roi)
        probabilities = self.fine.probabilities(seen).as_tensor().float().cpu()[1:] * torch.from_numpy(inside)
        part = result[(slice(None), *place)]
        part *= 1 - probabilities.sum(dim=0).clamp(max=1)
        for index, probability in zip(self._fine, probabilities, strict=True):
            part[index] += probability


def restrict(
    volume: MetaTensor, mask: np.ndarray, *, margin_mm: float, roi: RegionOfInterest
) -> tuple[MetaTensor, tuple[slice, ...], np.ndarray]:
    """What the second stage sees of a volume, in training and in prediction.

    Args:
        volume: (C, X, Y, Z), raw intensities.
        mask: (X, Y, Z) bool, the region, with at least one voxel.
        margin_mm: added around it.
        roi: `mask`: intensities outside are set to 0; `crop`: the volume is cut to the box of region and margin.

    Returns:
        The volume; where it lies in the one given, a slice per axis; and the region with its margin there, bool.

    Raises:
        ValueError: the mask is empty.
    """
    extents = ndimage.find_objects(mask.astype(np.uint8))
    if not extents:
        raise ValueError("the region is empty: nothing is left of the volume to look at")
    spacing = np.array(spacing_mm(as_affine(volume.affine)))
    reach = np.floor(margin_mm / spacing + 1e-6).astype(int).tolist()
    box = tuple(
        slice(max(0, extent.start - step), min(size, extent.stop + step))
        for extent, step, size in zip(extents[0], reach, mask.shape, strict=True)
    )
    near = mask[box]
    if margin_mm > 0:
        near = ndimage.distance_transform_edt(~near, sampling=spacing) <= margin_mm
    if roi == "crop":
        affine = as_affine(volume.affine).copy()
        affine[:3, 3] += affine[:3, :3] @ [extent.start for extent in box]
        cut = volume.as_tensor()[(slice(None), *box)].clone()
        return MetaTensor(cut, affine=torch.from_numpy(affine)), box, near
    inside = np.zeros(mask.shape, bool)
    inside[box] = near
    blank = volume.as_tensor() * torch.from_numpy(inside).to(volume.device)
    return on_grid_of(volume, blank), (slice(None),) * 3, inside
