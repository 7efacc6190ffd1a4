"""A DICOM cine -> its phases: one series of many time points, or a series a slice as most scanners store it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.errors import VolumeError
from segmed.geometry import check_affine
from segmed.volumes.dicom import decoded, stacks_of
from segmed.volumes.dicom_frames import Frame, frames_of, is_dicom_file


def holds_cine(path: Path) -> bool:
    """Whether a folder, or one below it, holds DICOM files."""
    return path.is_dir() and any(is_dicom_file(file) for file in path.rglob("*"))


def read_cine(path: Path) -> tuple[MetaTensor, tuple[float, ...] | None]:
    """All phases of a folder, of the folders below it, or of one multi-frame file.

    Args:
        path: of the folder or the file.

    Returns:
        (T, X, Y, Z) float32; and the trigger time of each phase in ms, in the mean over the slices, or None where a
        slice does not say it.

    Raises:
        VolumeError: no DICOM images; slices of several planes, of other sizes, or with phases that are missing.
    """
    files = sorted(file for file in path.rglob("*") if is_dicom_file(file)) if path.is_dir() else [path]
    frames = [frame for file in files for frame in frames_of(file)]
    if not frames:
        raise VolumeError(f"{path} holds no DICOM images: give the folder of the cine")
    if frames[0].samples > 1:
        raise VolumeError(f"{path} is in colour: a cine is grey; give the series as the scanner stored it")
    _check_phases(frames, path)
    stacks, affine = stacks_of(frames, path)
    voxels = decoded(stacks, path, frames=frames).astype(np.float32).transpose(0, 3, 2, 1)
    data = torch.from_numpy(np.ascontiguousarray(voxels))
    volume = MetaTensor(data, affine=torch.from_numpy(check_affine(affine, path)), meta={"path": str(path)})
    return volume, _times(stacks)


def _check_phases(frames: Sequence[Frame], path: Path) -> None:
    """See that the series of a stack, where it has several, have as many phases each.

    Raises:
        VolumeError: they have not; the line names both numbers.
    """
    counts: dict[str, int] = {}
    for frame in frames:
        counts[frame.series] = counts.get(frame.series, 0) + 1
    least, most = min(counts.values()), max(counts.values())
    if least != most:
        raise VolumeError(
            f"{path} holds {len(counts)} series of {least} to {most} images: the slices of a cine have as many phases "
            "each; take out localisers and other planes"
        )


def _times(stacks: Sequence[Sequence[Frame]]) -> tuple[float, ...] | None:
    times = [[frame.trigger_ms for frame in stack] for stack in stacks]
    if any(time is None for stack in times for time in stack):
        return None
    return tuple(float(np.mean([time for time in stack if time is not None])) for stack in times)
