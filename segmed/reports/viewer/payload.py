"""The layers of a case -> what a page holds of it: voxels of 8 bits, compressed, and where they lie."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from segmed.geometry import as_affine, spacing_mm, to_canonical
from segmed.reports.drawing.one_slice import is_labelled, side_letters
from segmed.reports.viewer.layers import Layers
from segmed.reports.viewer.part import Part, averaged, choose_part, picked

LEVELS = 255
DARKEST, LIGHTEST = 0.1, 99.9  # percentiles of the intensities that the 8 bits reach from and to
BYTES_A_VOXEL = 0.8  # of an image, compressed and as text: 0.1 to 0.95 over the data sets that this was tried on
PLANES = ("sagittal", "coronal", "axial")
OBLIQUE_DEG = 10.0  # from which a plane is called oblique


@dataclass(frozen=True)
class Payload:
    """What a page holds of a case.

    Attributes:
        about: grid and layers, for JSON; layers are named by the keys of `voxels`.
        voxels: layer -> its voxels, X fastest, as differences to the one before, deflated, as base64.
    """

    about: dict[str, Any]
    voxels: dict[str, str]

    @property
    def size(self) -> int:
        """Letters on the page."""
        return sum(map(len, self.voxels.values()))


def pack(layers: Layers, most_bytes: int) -> Payload:
    """Pack a case for a page, in axes that point right, anterior and superior.

    Args:
        layers: of the case.
        most_bytes: about as many letters as the case may take: what would be more is cut and made coarser.

    Raises:
        VolumeError: a file that can't be read.
    """
    deep = len(layers.heat) + (layers.image is not None)
    part = choose_part(layers, max(1, int(most_bytes / BYTES_A_VOXEL / (deep + 0.1))))
    affine = layers.first.affine @ part.voxel_to_file
    maps = {name: _canonical(picked(stack, part), affine)[0]
            for name, stack in (("reference", layers.reference), ("result", layers.result))
            if stack is not None}  # fmt: skip
    voxels: dict[str, np.ndarray] = dict(maps)
    window = None
    if layers.image is not None:
        voxels["image"], window = _in_8_bits(_canonical(averaged(layers.image, part), affine)[0])
    for number, heat in enumerate(layers.heat):
        shares = _canonical(averaged(heat.stack, part), affine)[0] / max(heat.highest, 1e-9)
        voxels[f"heat{number}"] = _rounded(shares)
    grid = _grid(layers, part, affine)
    return Payload(
        {
            **grid,
            "window": window,
            "layers": [*voxels],
            "heat": [{"title": heat.title, "highest": heat.highest, "unit": heat.unit} for heat in layers.heat],
            "centre": _centre([maps[name] for name in ("reference", "result") if name in maps], grid["shape"]),
            "said": [*layers.remarks, *_left_out(layers, part)],
        },
        {name: _packed(array) for name, array in voxels.items()},
    )


def _canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An array (X, Y, Z) in canonical axes, and its affine."""
    volume = to_canonical(MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(as_affine(affine))))
    return volume.as_tensor().numpy()[0], as_affine(volume.affine)


def _in_8_bits(image: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Voxels from 0 to 255, and the intensities of these two."""
    low, high = (float(value) for value in np.percentile(image, (DARKEST, LIGHTEST)))
    high = high if high > low else low + 1.0
    return _rounded((image - low) / (high - low)), (low, high)


def _rounded(shares: np.ndarray) -> np.ndarray:
    return (shares * LEVELS).round().clip(0, LEVELS).astype(np.uint8)


def _packed(array: np.ndarray) -> str:
    """Differences to the voxel before are a tenth smaller than voxels."""
    flat = array.ravel(order="F")
    differences = np.diff(flat, prepend=np.uint8(0))
    return base64.b64encode(zlib.compress(differences.tobytes(), 6)).decode("ascii")


# ---------------------------------------------------------------- where the voxels lie


def _grid(layers: Layers, part: Part, affine: np.ndarray) -> dict[str, Any]:
    """Shape, spacing, sides and slice numbers of the canonical axes."""
    native = nib.io_orientation(affine)
    canonical = affine @ nib.orientations.inv_ornt_aff(native, part.shape)
    order = [int(axis) for axis in np.argsort(native[:, 0])]  # of the file's axes along canonical X, Y and Z
    directions = canonical[:3, :3] / np.linalg.norm(canonical[:3, :3], axis=0)
    tilts_deg = np.degrees(np.arccos(np.clip(np.abs(np.diag(directions)), 0, 1)))
    return {
        "shape": [int(part.shape[axis]) for axis in order],
        "spacing": [round(step, 6) for step in spacing_mm(canonical)],
        "affine": [[round(float(value), 6) for value in row] for row in canonical[:3]],
        "ends": [[side_letters(-directions[:, axis]), side_letters(directions[:, axis])] for axis in range(3)],
        "planes": [
            f"{name}, oblique by {tilt:.0f}°" if tilt > OBLIQUE_DEG else name
            for name, tilt in zip(PLANES, tilts_deg, strict=True)
        ],
        "file": [
            {
                "first": part.start[axis] + part.step[axis] // 2 + 1,
                "step": part.step[axis],
                "slices": layers.first.shape[axis],
                "flipped": bool(native[axis, 1] < 0),
            }
            for axis in order
        ],
        "picture": layers.picture,
    }


def _centre(label_maps: Sequence[np.ndarray], shape: Sequence[int]) -> list[int]:
    """Where a reader looks first: along each axis the slice that holds most of the reference, else of the result."""
    for labels in label_maps:
        mask = is_labelled(labels)
        if mask.any():
            others = ((1, 2), (0, 2), (0, 1))
            return [int(np.argmax(np.count_nonzero(mask, axis=axes))) for axes in others]
    return [size // 2 for size in shape]


def _left_out(layers: Layers, part: Part) -> list[str]:
    """What of the volume is not on the page, in words."""
    whole, spacing = layers.first.shape, spacing_mm(layers.first.affine)
    said = []
    cut = [stop - start for start, stop in zip(part.start, part.stop, strict=True)]
    if tuple(cut) != tuple(whole):
        said.append(f"Cut to {_sizes(cut)} of {_sizes(whole)} voxels, what is labelled and a margin around it.")
    if part.step != (1, 1, 1):
        coarse = _sizes(f"{size * step:.3g}" for size, step in zip(spacing, part.step, strict=True))
        fine = _sizes(f"{size:.3g}" for size in spacing)
        said.append(
            f"Voxels of {fine} mm are shown as {coarse} mm: the image's mean, of labels the voxel in the middle."
        )
    return said


def _sizes(values: Any) -> str:
    return " × ".join(map(str, values))
