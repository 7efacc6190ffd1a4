"""Random changes of training patches: one resampling out of the volume, then MRI artefacts on the patch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from segmed.config import AugmentConfig, known
from segmed.data import artefacts
from segmed.data.spatial import (
    Numbers,
    Whole,
    draw_deformation,
    normal_axis,
    own_generators,
    patch_start,
    resample_patch,
    slice_patch,
)
from segmed.labels import LabelSet

FLOOR_SAMPLES = 32  # voxels an axis that are read for a volume's lowest intensity


class Augmentation:
    """Cuts patches out of volumes and changes them as a config says.

    Most patches of a mild preset are plain copies of the volume: a spatial change costs a resampling only where it
    is drawn, and so does each artefact. Rotations, zoom, shear, shift and elastic displacement are in mm, so they are
    rigid or smooth on any grid. Across thick slices, and in 2D, nothing is moved or blurred out of plane.

    Args:
        config: probabilities and ranges.
        dims: 2 for slices, 3 for volumes.
        labels: the data set's labels.
        mirror_pairs: names of labels that swap when left and right are flipped.

    Raises:
        ValueError: `dims` is neither 2 nor 3, the preset is still `auto`, or a mirror pair names an unknown label, or
            one label twice.
    """

    def __init__(
        self,
        config: AugmentConfig,
        *,
        dims: int,
        labels: LabelSet,
        mirror_pairs: Sequence[tuple[str, str]] = (),
    ) -> None:
        if dims not in (2, 3):
            raise ValueError(f"augmentation of {dims} dimensions: dims is 2 or 3")
        known(config.name)
        self.config = config
        self.dims = dims
        self._mirrored = mirrored_indices(labels, mirror_pairs)
        self._artefacts = _artefacts(config)

    def patch(
        self,
        image: np.ndarray,
        label: np.ndarray | None,
        *,
        centre: Numbers,
        size: Whole,
        spacing_mm: Numbers,
        generator: np.random.Generator,
    ) -> tuple[Tensor, Tensor | None]:
        """Cut and change one patch. The same state of `generator` gives the same patch, bit for bit.

        Args:
            image: (C, X, Y, Z) float32 in canonical orientation, perhaps memory-mapped.
            label: (X, Y, Z) uint8 label indices, 255 for voxels to ignore; or None.
            centre: middle of the patch, in voxels of the volume: its first voxel plus (size - 1) / 2.
            size: three numbers of voxels; in 2D one of them is 1.
            spacing_mm: of the volume.
            generator: the only source of randomness.

        Returns:
            Image (C, *size) float32, outside the volume the value of the nearest voxel; and label (*size) uint8,
            0 outside the volume, or None.

        Raises:
            ValueError: the sizes do not fit the dimensions, or the centre lies outside the volume.
        """
        _check(image, label, size, dims=self.dims)
        normal = normal_axis(size, spacing_mm, dims=self.dims)
        own = own_generators(generator)
        deformation = draw_deformation(self.config, size=size, spacing_mm=spacing_mm, normal=normal, own=own)
        mirror = own("flip").random() < self.config.flip_probability and size[0] > 1
        if deformation is None:
            start = patch_start(centre, size)
            values = torch.from_numpy(slice_patch(image, start, size, outside="edge")).float()
            marks = None if label is None else torch.from_numpy(slice_patch(label, start, size, outside="constant"))
        else:
            values, marks = resample_patch(image, label, deformation, centre=centre, size=size, spacing_mm=spacing_mm)
        if mirror:
            values = values.flip(1)
            marks = None if marks is None else self._mirrored[marks.flip(0).long()]
        values = self._with_artefacts(values, marks, image, spacing_mm, normal, own)
        if self.config.modality_dropout:
            values = without_some(values, self.config.modality_dropout, generator=own("modality"))
        return values, marks

    def _with_artefacts(
        self,
        patch: Tensor,
        labels: Tensor | None,
        volume: np.ndarray,
        spacing_mm: Numbers,
        normal: int | None,
        own: Callable[[str], np.random.Generator],
    ) -> Tensor:
        possible = {name: own(name) for name in self._artefacts}
        drawn = {name: g for name, g in possible.items() if g.random() < getattr(self.config, f"{name}_probability")}
        if not drawn:
            return patch
        frame = artefacts.Frame(
            spacing_mm=(float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])),
            axes=tuple(axis for axis in range(3) if axis != normal),
            floor=volume_floor(volume),
            labels=labels,
        )
        for name, generator in drawn.items():
            patch = self._artefacts[name](patch, frame, generator=generator)
        return patch


def _artefacts(config: AugmentConfig) -> dict[str, artefacts.Artefact]:
    """Artefacts of probability above 0, with their strengths: the fields that begin with the artefact's name."""
    strengths = config.model_dump()
    possible: dict[str, artefacts.Artefact] = {}
    for artefact in artefacts.ARTEFACTS:
        name = artefact.__name__
        if strengths[f"{name}_probability"]:
            options = inspect.getfullargspec(artefact).kwonlyargs
            given = {option: strengths[f"{name}_{option}"] for option in options if option != "generator"}
            possible[name] = partial(artefact, **given)
    return possible


def without_some(patch: Tensor, probability: float, *, generator: np.random.Generator) -> Tensor:
    """Set some channels to zero, which is how a missing image reaches a network; one that has something stays.

    Args:
        patch: (C, X, Y, Z); a channel of zeros is of an image that the case lacks.
        probability: that a channel is left out, of each by itself.
        generator: of the draws.
    """
    present = np.flatnonzero([bool(channel.any()) for channel in patch])
    dropped = generator.random(len(patch)) < probability
    if len(present) and dropped[present].all():
        dropped[generator.choice(present)] = False
    if not dropped.any():
        return patch
    patch = patch.clone()
    patch[torch.from_numpy(dropped)] = 0
    return patch


def mirrored_indices(labels: LabelSet, pairs: Sequence[tuple[str, str]]) -> Tensor:
    """Label index after a left-right flip of every label index before: (256,) uint8."""
    table = torch.arange(256, dtype=torch.uint8)
    named = [name for pair in pairs for name in pair]
    for name in named:
        if name not in labels.names:
            raise ValueError(f"mirror_pairs: no label '{name}': choose from {', '.join(labels.names)}")
        if named.count(name) > 1:
            raise ValueError(f"mirror_pairs: label '{name}' stands in more than one pair: name it once")
    for left, right in pairs:
        a, b = labels.names.index(left) + 1, labels.names.index(right) + 1
        table[a], table[b] = b, a
    return table


def volume_floor(image: np.ndarray) -> Tensor:
    """Lowest intensity of every channel (C,), from a coarse grid of voxels: cheap, whatever the volume's size."""
    steps = tuple(slice(None, None, max(1, voxels // FLOOR_SAMPLES)) for voxels in image.shape[1:])
    return torch.from_numpy(np.array(image[(slice(None), *steps)].reshape(len(image), -1).min(axis=1))).float()


def _check(image: np.ndarray, label: np.ndarray | None, size: Whole, *, dims: int) -> None:
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"patch size {tuple(size)}: three numbers of at least 1 voxel are needed")
    if dims == 2 and 1 not in size:
        raise ValueError(f"patch size {tuple(size)} in 2D: one of its axes must be 1")
    if label is not None and label.shape != image.shape[1:]:
        raise ValueError(f"image of {image.shape[1:]} voxels and label of {label.shape}: they must share one grid")
