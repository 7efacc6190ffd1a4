"""Files of a case -> image and label map on one grid -> the network's grid and intensities, with MONAI transforms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import compute_shape_offset, zoom_affine
from monai.transforms import (
    NormalizeIntensity,
    Orientation,
    ScaleIntensity,
    SpatialCrop,
    Transform,
)
from scipy import ndimage

from segmed.config import PreprocessConfig
from segmed.data.cases import Case, Dataset
from segmed.data.crop import crop_box
from segmed.data.field_of_view import read_field_of_view
from segmed.data.label_shares import resample_labels
from segmed.errors import GeometryError, VolumeError
from segmed.geometry import Mode
from segmed.labels import IGNORE
from segmed.volumes import Source, grid_difference, read_label_volume, read_volume, resample_onto, spacing_mm

RAS = (("L", "R"), ("P", "A"), ("I", "S"))
THICK = 2.0  # an axis is thick from this many times the next finer spacing on
COARSER = 1.2  # an axis is the coarsest one from this many times the next finer spacing on
SAME_SPACING = 1e-3  # relative difference below which nothing is resampled


# ---------------------------------------------------------------- files -> one case


def read_case(case: Case, dataset: Dataset) -> tuple[MetaTensor, MetaTensor | None]:
    """Read a case's modalities, in the data set's order, and its label map, on the grid of the files.

        >>> image, label = segmed.read_case(dataset.cases[0], dataset)
        >>> len(image), label.shape == image.shape
        (1, True)

    Returns:
        image (C, X, Y, Z) float32 with one channel a modality, zero where a case of an incomplete data set lacks it;
        label (1, X, Y, Z) uint8 of label indices, or None, IGNORE outside of the case's field of view.

    Raises:
        VolumeError: the files lie on different grids, one can't be read, or a modality is missing or has several
            components.
        ValueError: the label map holds an unknown value.
    """
    missing = [modality for modality in dataset.modalities if modality not in case.images]
    if missing and not (dataset.incomplete and len(missing) < len(dataset.modalities)):
        raise VolumeError(f"case {case.id} has no image '{missing[0]}': add the file or leave the modality out")
    sources = {modality: case.images[modality] for modality in dataset.modalities if modality in case.images}
    channels = _read_modalities(sources, case)
    first_name, first = next(iter(channels.items()))
    for modality, channel in channels.items():
        _check_grid(case, channel, sources[modality].path, first, sources[first_name].path)
    if missing:  # zeros stay zeros through every normalisation: modality dropout trains with the same
        nothing = MetaTensor(torch.zeros_like(first.as_tensor()), affine=first.affine)
        channels = {name: channels.get(name, nothing) for name in dataset.modalities}
    together = torch.cat([channel.as_tensor() for channel in channels.values()])
    image = MetaTensor(together, affine=first.affine, meta={"path": str(sources[first_name].path)})
    if case.label is None:
        return image, None
    values = read_label_volume(case.label)
    _check_grid(case, values, case.label.path, first, sources[first_name].path)
    indices = dataset.labels.encode(values.as_tensor().numpy(), where=str(case.label.path))
    if case.field_of_view is not None:
        indices[:, ~read_field_of_view(case.field_of_view, like=first, case=case.id)] = IGNORE
    return image, MetaTensor(torch.from_numpy(indices), affine=first.affine)


def _read_modalities(sources: Mapping[str, Source], case: Case) -> dict[str, MetaTensor]:
    """Read one channel a modality; a file that holds several of them is decoded once."""
    uses = Counter(source.path for source in sources.values())
    shared = {source.path: replace(source, component=None) for source in sources.values() if uses[source.path] > 1}
    whole = {path: read_volume(source) for path, source in shared.items()}
    channels: dict[str, MetaTensor] = {}
    for modality, source in sources.items():
        if source.path in whole and source.component is not None:
            every = whole[source.path]
            volume = MetaTensor(every.as_tensor()[source.component : source.component + 1], affine=every.affine)
        else:
            volume = read_volume(source)
        if len(volume) != 1:
            components = f"{len(volume)} components" if len(volume) else f"no component {source.component}"
            raise VolumeError(
                f"case {case.id}: image '{modality}' ({source.path}) has {components}: name the right one in "
                "data.components"
            )
        channels[modality] = volume
    return channels


def _check_grid(case: Case, volume: MetaTensor, path: Path, reference: MetaTensor, reference_path: Path) -> None:
    difference = grid_difference(
        (tuple(volume.shape[1:]), _affine(volume)), (tuple(reference.shape[1:]), _affine(reference))
    )
    if difference is not None:
        raise GeometryError(
            f"case {case.id}: {path} is not on the grid of {reference_path}: {difference}; "
            "run segmed audit --fix-geometry if only headers disagree"
        )


# ---------------------------------------------------------------- the scanner's grid -> the network's


def prepare(
    image: MetaTensor, label: MetaTensor | None, config: PreprocessConfig
) -> tuple[MetaTensor, MetaTensor | None]:
    """Orient, crop, respace and normalise; the label map follows, and its values are never interpolated.

    The affines of the results are exact, so `volumes.resample_onto` brings a prediction back to the native grid.

    Args:
        image: (C, X, Y, Z) on the native grid.
        label: (1, X, Y, Z) label indices with IGNORE, on the same grid, or None.
        config: with every `auto` resolved.

    Returns:
        image (C, X', Y', Z') float32; label (1, X', Y', Z') uint8, or None.

    Raises:
        ValueError: a field of `config` is still `auto`.
    """
    unresolved = [name for name, value in config if value == "auto"]
    if unresolved:
        raise ValueError(f"preprocess.{unresolved[0]} is still 'auto': plan the experiment first")
    orient = Orientation(axcodes=axis_codes(_affine(image), config.orientation), labels=RAS)
    image = _apply(orient, image)
    label = None if label is None else _apply(orient, label)
    box = crop_box(image, config.crop)
    if box is not None:
        crop = SpatialCrop(roi_start=box[0], roi_end=box[1])
        image = _apply(crop, image)
        label = None if label is None else _apply(crop, label)
    for spacing, nearest in respacing_steps(image, config):
        label = None if label is None else _respace_label(label, spacing, nearest=nearest)
        image = _respace_image(image, spacing, nearest=nearest, interpolation=config.interpolation)
    image = normalise(_plain(image, torch.float32), config)
    return image, None if label is None else _plain(label, torch.uint8)


def axis_codes(affine: np.ndarray, orientation: str) -> str:
    """The directions that the axes will point to.

    With `slices_last` the coarsest axis, if there is one, comes last, pointing so that the frame is right-handed: a
    short-axis stack lies halfway between front and side, its closest axis differs between patients, but its frame
    then does not.

    Args:
        affine: (4, 4) of the native grid.
        orientation: `ras` or `slices_last`.

    Returns:
        Three letters, e.g. `RAS`, or `RSP` for coronal slices.
    """
    spacing = spacing_mm(affine)
    _, second, coarsest = sorted(spacing)
    if orientation == "ras" or coarsest < COARSER * second:
        return "RAS"
    axes = nib.io_orientation(affine)[:, 0]
    return ("ASR", "RSP", "RAS")[int(axes[int(np.argmax(spacing))])]


# ---------------------------------------------------------------- respacing


def respacing_steps(image: MetaTensor, config: PreprocessConfig) -> list[tuple[tuple[float, ...], bool]]:
    """List the resamplings that lead to the target grid: (spacing in mm, by nearest neighbour?), none at `native`.

    With `separate_z` a thick axis is resampled apart, and where it gets finer by nearest neighbour. An axis of one
    voxel, or of spacing 0 in the config, is left alone.
    """
    if isinstance(config.spacing_mm, str):
        return []
    native = spacing_mm(_affine(image))
    target = tuple(
        old if size == 1 or new == 0 or abs(new - old) < SAME_SPACING * old else float(new)
        for old, new, size in zip(native, config.spacing_mm, image.shape[1:], strict=True)
    )
    thick = int(np.argmax(native))
    others = [spacing for axis, spacing in enumerate(native) if axis != thick]
    if not config.separate_z or native[thick] < THICK * max(others):
        return [] if target == native else [(target, False)]
    in_plane = tuple(native[axis] if axis == thick else target[axis] for axis in range(3))
    steps = [(in_plane, False)] if in_plane != native else []
    return steps + ([(target, target[thick] < native[thick])] if target != in_plane else [])


def _respace_image(image: MetaTensor, spacing: tuple[float, ...], *, nearest: bool, interpolation: str) -> MetaTensor:
    """Resample (C, X, Y, Z); what shrinks is smoothed first, so that nothing aliases."""
    if nearest:
        return _respace(image, spacing, "nearest")
    factors = np.divide(spacing, spacing_mm(_affine(image)))
    widths = np.clip((factors - 1) / 2, 0, None)
    values = image.as_tensor().float()
    if widths.max() > 0.1:
        values = torch.from_numpy(ndimage.gaussian_filter(values.numpy(), (0, *widths), mode="nearest"))
    smooth = MetaTensor(values, affine=image.affine)
    if interpolation == "linear":
        return _respace(smooth, spacing, "linear")
    low, high = values.amin(dim=(1, 2, 3), keepdim=True), values.amax(dim=(1, 2, 3), keepdim=True)
    splines = _respace(smooth, spacing, "cubic")
    return MetaTensor(splines.as_tensor().clamp(low, high), affine=splines.affine)


def _respace_label(label: MetaTensor, spacing: tuple[float, ...], *, nearest: bool) -> MetaTensor:
    """Resample (1, X, Y, Z): the label with the largest share of a voxel wins."""
    if nearest:
        return _respace(label, spacing, "nearest")
    affine, shape = _respaced_grid(label, spacing)
    return resample_labels(label, affine=affine, shape=shape)


def _respace(volume: MetaTensor, spacing: tuple[float, ...], mode: Mode) -> MetaTensor:
    """Resample onto MONAI's grid of another spacing over the same extent.

    MONAI's `Spacing` would do both, but misplaces spline interpolation on such a grid (1.6), and takes four times
    as long; `resample_onto` also brings predictions back.
    """
    affine, shape = _respaced_grid(volume, spacing)
    return resample_onto(volume, affine=affine, shape=shape, mode=mode)


def _respaced_grid(volume: MetaTensor, spacing: tuple[float, ...]) -> tuple[np.ndarray, list[int]]:
    """Affine and shape of MONAI's grid of another spacing over the same extent.

    The origin is MONAI's, except where a coordinate of the first voxel and of its corner differ in sign: there MONAI
    (1.6) mirrors the coordinate, so that the grid misses the image's end.
    """
    native = _affine(volume)
    affine = zoom_affine(native, spacing, diagonal=False)
    shape, _ = compute_shape_offset(tuple(volume.shape[1:]), native, affine, scale_extent=True)
    first = (np.divide(volume.shape[1:], shape) - 1) / 2  # the first new voxel, in old ones
    affine[:3, 3] = native[:3, :3] @ first + native[:3, 3]
    return affine, [int(n) for n in shape]


# ---------------------------------------------------------------- intensities


def normalise(image: MetaTensor, config: PreprocessConfig) -> MetaTensor:
    """Clip each channel at its percentiles and scale it: z-scores, z-scores of what is not zero, or to [0, 1].

    Args:
        image: (C, X, Y, Z) float32.
        config: `intensity`, `clip_percentiles` and `slices_across` are used.

    Source: of `median_minmax`: Zabihollahy et al. 2020, Med Phys 47:1645; the cap as a percentile is ours.
    """
    if config.intensity == "none":
        return image
    if config.intensity == "median_minmax":
        cap, axis = config.clip_percentiles[1], config.slices_across
        capped = [_median_minmax(channel.movedim(axis, 2), cap).movedim(2, axis) for channel in image.as_tensor()]
        return MetaTensor(torch.stack(capped), affine=image.affine)
    masked = config.intensity == "zscore_nonzero"
    channels = [_clip(channel, config.clip_percentiles, masked=masked) for channel in image.as_tensor()]
    clipped = MetaTensor(torch.stack(channels), affine=image.affine)
    if config.intensity == "percentile":
        return _apply(ScaleIntensity(minv=0.0, maxv=1.0, channel_wise=True), clipped)
    return _apply(NormalizeIntensity(nonzero=masked, channel_wise=True), clipped)


def _clip(channel: torch.Tensor, percentiles: tuple[float, float], *, masked: bool) -> torch.Tensor:
    """Clip (X, Y, Z) at percentiles of all voxels, or of the non-zero ones, of which zero stays zero."""
    values = channel[channel != 0] if masked else channel.flatten()
    if len(values) == 0:
        return channel
    low, high = (float(bound) for bound in np.percentile(values.numpy(), percentiles))
    if low == high:  # nearly all voxels are equal: what differs is the content, no outlier
        return channel
    return torch.where(channel != 0, channel.clamp(low, high), 0.0) if masked else channel.clamp(low, high)


def _median_minmax(channel: torch.Tensor, cap: float) -> torch.Tensor:
    """(X, Y, Z) -> the same shape in [0, 1]; zeros, the outside of a masked image, count for nothing and stay."""
    seen = channel != 0
    if not seen.any():
        return channel
    highest = float(np.percentile(channel[seen].numpy(), cap))
    result = torch.zeros_like(channel)
    for number in range(channel.shape[2]):
        inside = seen[:, :, number]
        if not inside.any():
            continue
        values = channel[:, :, number][inside]
        values = torch.where(values > highest, values.median(), values)
        low, high = values.min(), values.max()
        result[:, :, number][inside] = (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
    return result


def _apply(transform: Transform, volume: MetaTensor) -> MetaTensor:
    """Call a MONAI transform; it returns a MetaTensor, though its annotation doesn't say so."""
    return cast(MetaTensor, transform(volume))


def _affine(volume: MetaTensor) -> np.ndarray:
    return np.asarray(volume.affine, dtype=np.float64)


def _plain(volume: MetaTensor, dtype: torch.dtype) -> MetaTensor:
    """Drop MONAI's record of transforms, which keeps all earlier tensors in memory."""
    return MetaTensor(volume.as_tensor().to(dtype).contiguous(), affine=volume.affine)
