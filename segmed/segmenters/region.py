"""Classical methods as segmenters: a region that any segmenter finds, its voxels told apart by a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.errors import SegmenterError
from segmed.geometry import as_affine, grid_difference, spacing_mm
from segmed.labels import LabelSet
from segmed.segmenters.segmenter import Segmenter, most_probable, on_grid_of


@dataclass(frozen=True)
class Scene:
    """What a method sees of one volume, or of one slice of it.

    Attributes:
        image: (X, Y, Z) float32, raw intensities; a 2D image has one slice.
        region: (X, Y, Z) bool, the voxels to be told apart.
        spacing_mm: of the three axes.
        masks: (X, Y, Z) bool of what else is known, by label name, such as the blood pool.
    """

    image: np.ndarray
    region: np.ndarray
    spacing_mm: tuple[float, float, float]
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def values(self) -> np.ndarray:
        """Intensities of the region, (N,) float32."""
        return self.image[self.region]

    def mask(self, name: str) -> np.ndarray:
        """What else is known under a name, (X, Y, Z) bool.

        Raises:
            SegmenterError: there is no such mask.
        """
        if name not in self.masks:
            known = ", ".join(self.masks) or "none"
            raise SegmenterError(f"no mask is called '{name}': choose one of those beside the region ({known})")
        return self.masks[name]

    @property
    def slice_axis(self) -> int:
        """The axis of the thickest voxels; of equal ones the last."""
        return max(range(3), key=lambda axis: (round(self.spacing_mm[axis], 3), axis))

    def slices(self, axis: int) -> Iterator[tuple[tuple[slice, ...], Scene]]:
        """Each slice that holds some of the region, as a scene, with where it lies."""
        for number in range(self.image.shape[axis]):
            place = tuple(slice(number, number + 1) if a == axis else slice(None) for a in range(3))
            if self.region[place].any():
                masks = {name: mask[place] for name, mask in self.masks.items()}
                yield place, Scene(self.image[place], self.region[place], self.spacing_mm, masks)


class TissueMethod(ABC):
    """Tells one tissue, such as scar, from the rest of a region."""

    @abstractmethod
    def probability(self, scene: Scene) -> np.ndarray:
        """Probability of each voxel to be that tissue.

        Args:
            scene: whose region holds at least one voxel.

        Returns:
            (X, Y, Z) float32 in [0, 1], 0 outside the region; a method that only decides gives 0 and 1.

        Raises:
            SegmenterError: the intensities make the method meaningless.
        """


class SliceBySlice(TissueMethod):
    """Applies a method to each slice by itself; slices in which the method has no meaning stay empty.

    Args:
        method: for one slice.
        axis: across the slices; None: the axis of the thickest voxels.

    Attributes:
        failed: of the last volume: number of a slice without a result -> why.
    """

    def __init__(self, method: TissueMethod, axis: int | None = None) -> None:
        self.method = method
        self.axis = axis
        self.failed: Mapping[int, str] = {}

    def probability(self, scene: Scene) -> np.ndarray:
        """As of every method; zeros in the slices that are then in `failed`.

        Raises:
            SegmenterError: no slice has a result.
        """
        axis = scene.slice_axis if self.axis is None else self.axis
        tissue = np.zeros(scene.image.shape, np.float32)
        failed: dict[int, SegmenterError] = {}
        looked_at = 0
        for place, part in scene.slices(axis):
            looked_at += 1
            try:
                tissue[place] = self.method.probability(part)
            except SegmenterError as error:
                failed[place[axis].start] = error
        self.failed = {number: str(error) for number, error in failed.items()}
        if failed and len(failed) == looked_at:
            first = next(iter(failed.values()))
            raise SegmenterError(f"none of {looked_at} slices has a result; of the first: {first}") from first
        return tissue


class Inside(Segmenter):
    """A tissue inside the region that another segmenter finds: scar inside the myocardium.

    Args:
        method: tells the tissue from the rest of the region; it sees the first channel.
        region: finds the region: a network, `Known` for a reference, `Everywhere` for the whole volume.
        within: names of the region's labels that make up the region.
        target: name of the tissue sought.
        rest: name of what is left of the region; None: background.
        labels: those of the result: `target`, `rest`, and any other of the region's that are to stay.

    Raises:
        VolumeError: a name that is not there.
    """

    def __init__(
        self,
        method: TissueMethod,
        region: Segmenter,
        *,
        within: Sequence[str],
        target: str,
        rest: str | None,
        labels: LabelSet,
    ) -> None:
        self.method = method
        self.region = region
        self.labels = labels
        self._within = [region.labels.index(name) for name in within]
        self._target = labels.index(target)
        self._rest = 0 if rest is None else labels.index(rest)
        kept = [name for name in labels.names if name in region.labels.names and name not in (target, rest)]
        self._kept = {labels.index(name): region.labels.index(name) for name in kept}

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        """As of every segmenter; where the region is empty, nothing of the tissue.

        Raises:
            SegmenterError: the intensities inside the region make the method meaningless.
        """
        region = self.region.probabilities(volume).as_tensor().float().cpu()
        share = region[self._within].sum(dim=0)
        hard = most_probable(region).numpy()
        mask = np.isin(hard, self._within)
        tissue = torch.zeros_like(share)
        if mask.any():
            masks = {name: hard == number for number, name in enumerate(self.region.labels.names, start=1)}
            image = volume.as_tensor()[0].float().numpy(force=True)
            scene = Scene(image, mask, spacing_mm(as_affine(volume.affine)), masks)
            tissue = torch.from_numpy(self.method.probability(scene).astype(np.float32, copy=False))
        result = torch.zeros((self.labels.classes, *share.shape))
        for own, theirs in self._kept.items():
            result[own] = region[theirs]
        result[self._target] += share * tissue
        result[self._rest] += share * (1 - tissue)
        result[0] += (1 - result.sum(dim=0)).clamp(min=0)
        return on_grid_of(volume, result)


class Known(Segmenter):
    """A given label map: a reference, or the result of another tool.

    Args:
        map: (1, X, Y, Z) label indices, voxels marked to be ignored counting as background.
        labels: what the indices are.
    """

    def __init__(self, map: MetaTensor, labels: LabelSet) -> None:
        self.map = map
        self.labels = labels

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        """One-hot.

        Raises:
            SegmenterError: the volume is on another grid than the label map.
        """
        ours = (tuple(self.map.shape[1:]), as_affine(self.map.affine))
        difference = grid_difference(ours, (tuple(volume.shape[1:]), as_affine(volume.affine)))
        if difference is not None:
            raise SegmenterError(
                f"a label map and the volume differ ({difference}): resample one onto the other's grid"
            )
        indices = self.map.as_tensor()[0].long()
        indices = torch.where(indices < self.labels.classes, indices, 0)
        return on_grid_of(volume, torch.stack([indices == index for index in range(self.labels.classes)]).float())


class Everywhere(Segmenter):
    """One label that covers the whole volume, for methods that need no region.

    Args:
        name: of the label.
    """

    def __init__(self, name: str = "volume") -> None:
        self.labels = LabelSet((name,), ((1,),))

    def probabilities(self, volume: MetaTensor) -> MetaTensor:
        """Certain of the label, everywhere."""
        result = torch.zeros((2, *volume.shape[1:]))
        result[1] = 1.0
        return on_grid_of(volume, result)
