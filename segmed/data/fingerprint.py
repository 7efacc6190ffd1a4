"""Voxels of one case -> the facts that a plan needs: grid, intensities, size of the body, volumes of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor

from segmed.data.crop import crop_box
from segmed.geometry import as_affine
from segmed.labels import LabelSet
from segmed.volumes import orientation, spacing_mm

PERCENTILE_VOXELS = 1_000_000  # percentiles of larger volumes are those of every n-th voxel
CHUNK = 1 << 20  # voxels whose squares are summed at once: bounds memory
MASKED = 0.2  # share of exact zeros from which on an image counts as masked (skull-stripped, cropped by a mask)


@dataclass(frozen=True)
class CaseFacts:
    """Facts about one case. Shapes and spacings are in canonical axes (right, anterior, superior).

    Attributes:
        id: of the case.
        shape: voxels.
        spacing_mm: of the voxels.
        orientation: of the file's own axes, e.g. `LAS`.
        intensity: modality -> min, p0_5, p50, p99_5, max, mean, sd, zero_fraction.
        label_ml: label name -> volume.
        label_voxels: label name -> voxels.
        body_shape: voxels of the box around the foreground.
        label_shape: voxels of the box around all labels together; None: nothing is labelled, or an earlier version
            wrote these facts.
    """

    id: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    intensity: Mapping[str, Mapping[str, float]]
    label_ml: Mapping[str, float]
    label_voxels: Mapping[str, int]
    body_shape: tuple[int, int, int]
    label_shape: tuple[int, int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CaseFacts:
        """From `to_dict`."""
        names = ("shape", "spacing_mm", "body_shape", "label_shape")
        triples = {name: tuple(data[name]) for name in names if data.get(name) is not None}
        return cls(**{**data, **triples})


def case_facts(case: str, images: Mapping[str, MetaTensor], indices: np.ndarray | None, labels: LabelSet) -> CaseFacts:
    """Measure one case.

    Args:
        case: its id.
        images: modality -> (1, X, Y, Z), at least one, on one grid.
        indices: label indices (..., X, Y, Z), uint8; None: no label map.
        labels: what the indices mean.
    """
    first = next(iter(images.values()))
    affine = as_affine(first.affine)
    order = np.argsort(nib.io_orientation(affine)[:, 0])
    spacing = spacing_mm(affine)
    intensity = {modality: intensity_facts(volume) for modality, volume in images.items()}
    body = _body_shape(images, masked=float(np.mean([f["zero_fraction"] for f in intensity.values()])) > MASKED)
    voxels, labelled = _label_voxels(indices, labels), _label_shape(indices)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    return CaseFacts(
        id=case,
        shape=_triple(first.shape[1:][axis] for axis in order),
        spacing_mm=_triple(spacing[axis] for axis in order),
        orientation=orientation(affine),
        intensity=intensity,
        label_ml={name: count * voxel_ml for name, count in voxels.items()},
        label_voxels=voxels,
        body_shape=_triple(body[axis] for axis in order),
        label_shape=None if labelled is None else _triple(labelled[axis] for axis in order),
    )


def intensity_facts(volume: MetaTensor) -> dict[str, float]:
    """Extremes, percentiles, mean, standard deviation and share of zeros of a volume.

    Args:
        volume: any shape, finite. Percentiles of more than a million voxels are those of every n-th one.
    """
    values = volume.as_tensor().numpy().ravel(order="K")
    some = values[:: max(1, len(values) // PERCENTILE_VOXELS)]
    low, middle, high = np.percentile(some, (0.5, 50, 99.5))
    mean = float(values.mean(dtype=np.float64))
    chunks = (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
    squares = sum(float(np.square(chunk - mean, dtype=np.float64).sum()) for chunk in chunks)
    return {
        "min": float(values.min()),
        "p0_5": float(low),
        "p50": float(middle),
        "p99_5": float(high),
        "max": float(values.max()),
        "mean": mean,
        "sd": (squares / len(values)) ** 0.5,
        "zero_fraction": 1 - int(np.count_nonzero(values)) / len(values),
    }


def _body_shape(images: Mapping[str, MetaTensor], *, masked: bool) -> list[int]:
    """Size, in the file's axes, of the box around the body in any modality."""
    boxes = []
    for volume in images.values():
        # files keep X fastest: with the axes turned round the voxels lie in memory order, three times as fast
        turned = MetaTensor(volume.as_tensor().permute(0, 3, 2, 1), affine=volume.affine[:, [2, 1, 0, 3]])
        whole = ((0, 0, 0), tuple(turned.shape[1:]))
        boxes.append(crop_box(turned, "nonzero" if masked else "body") or whole)
    starts, ends = np.array([box[0] for box in boxes]), np.array([box[1] for box in boxes])
    return [int(n) for n in (ends.max(axis=0) - starts.min(axis=0))[::-1]]


def _label_voxels(indices: np.ndarray | None, labels: LabelSet) -> dict[str, int]:
    if indices is None:
        return {}
    counts = np.bincount(indices.ravel(order="K"), minlength=labels.classes)
    return {name: int(counts[index]) for index, name in enumerate(labels.names, 1)}


def _label_shape(indices: np.ndarray | None) -> list[int] | None:
    """Size, in the file's axes, of the box around all labelled voxels of indices (..., X, Y, Z)."""
    if indices is None or not indices.any():
        return None
    maps = indices.reshape(-1, *indices.shape[-3:])
    return [int(np.ptp(np.flatnonzero(maps.any(axis=(0, *others))))) + 1 for others in ((2, 3), (1, 3), (1, 2))]


def _triple(values: Any) -> Any:
    """Three plain numbers, as JSON writes them."""
    return tuple(value.item() if hasattr(value, "item") else value for value in values)
