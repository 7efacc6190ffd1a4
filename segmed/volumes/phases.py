"""A 4D file or a DICOM cine -> the phases of a heartbeat and the times at which they were taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from segmed.errors import VolumeError
from segmed.geometry import grid_difference
from segmed.volumes import nifti
from segmed.volumes.dicom_cine import read_cine
from segmed.volumes.dicom_frames import is_dicom_file
from segmed.volumes.volume_files import WHOLE, read_volume

CYCLE_MS = (250.0, 2500.0)  # of a heartbeat, 240 to 24 a minute: times that give another are no times of phases
BACKWARDS = 0.5  # of the usual step: times of phases that lie closer, or run backwards, are no times


@dataclass(frozen=True)
class Phases:
    """The volumes of a heartbeat, in the order of time.

    Attributes:
        volume: (T, X, Y, Z) float32, a phase a component.
        times_ms: of each phase after the first; None: the file does not say, or what it says can't be.
        remark: why the times are not known; empty where they are.
    """

    volume: MetaTensor
    times_ms: tuple[float, ...] | None
    remark: str = ""

    @property
    def step_ms(self) -> float | None:
        """Between two phases, in the mean."""
        return None if self.times_ms is None else self.times_ms[-1] / (len(self.times_ms) - 1)


def read_phases(path: Path, *, step_ms: float | None = None) -> Phases:
    """Read all phases of a 4D file, or of a folder or a file of DICOM.

    Slices that were stored as a DICOM series each, as most scanners do, lie in one folder or in folders below it.

    Args:
        path: NIfTI, NRRD, MetaImage, or DICOM.
        step_ms: between two phases, in place of what the file says.

    Raises:
        VolumeError: as `read_volume`; a file of one phase.
    """
    volume, stored, remark = _read(path)
    count = len(volume)
    if count < 2:
        raise VolumeError(f"{path} holds one phase: a cine has two or more; give the 4D file or the whole series")
    if step_ms is not None:
        return Phases(volume, tuple(step_ms * phase for phase in range(count)))
    if stored is None:
        return Phases(volume, None, remark)
    times = tuple(time - stored[0] for time in stored)
    fault = _implausible(times)
    return Phases(volume, None, fault) if fault else Phases(volume, times)


def _read(path: Path) -> tuple[MetaTensor, tuple[float, ...] | None, str]:
    """The volumes, the times that are stored with them in ms, and what to say where there are none."""
    if path.is_dir() or is_dicom_file(path):
        return *read_cine(path), "the series does not say the trigger times of its phases"
    volume = read_volume(path)
    step = nifti.step_ms(path) if path.name.lower().endswith(nifti.SUFFIXES) else None
    times = None if step is None else tuple(step * phase for phase in range(len(volume)))
    return volume, times, "the file does not say the time between its phases"


def _implausible(times_ms: Sequence[float]) -> str:
    """Why times can't be those of a heartbeat; empty where they can."""
    steps = np.diff(times_ms)
    usual = float(np.median(steps))
    cycle = float(times_ms[-1]) + usual
    if usual <= 0 or float(steps.min()) < BACKWARDS * usual:
        return "the times of the phases do not rise evenly"
    if not CYCLE_MS[0] <= cycle <= CYCLE_MS[1]:
        return f"{usual:g} ms between {len(times_ms)} phases would be a beat of {cycle:g} ms, which no heart has"
    return ""


def read_phase_labels(path: Path, like: Phases) -> np.ndarray:
    """Label maps of all phases, of a 4D file: (T, X, Y, Z) int32, with the values of the file.

    Args:
        path: of the file.
        like: the cine that they belong to.

    Raises:
        VolumeError: another number of phases, another grid, or values that are not whole numbers.
    """
    labels = read_volume(path)
    if len(labels) != len(like.volume):
        raise VolumeError(
            f"{path} has {len(labels)} phases, its cine {len(like.volume)}: give a label map of every phase, in 4D"
        )
    grids = ((tuple(one.shape[1:]), np.asarray(one.affine)) for one in (labels, like.volume))
    if difference := grid_difference(*grids):
        raise VolumeError(f"{path} lies on another grid than its cine ({difference}): resample it first")
    values = labels.numpy()
    whole = np.rint(values).astype(np.int32)
    if np.abs(whole - values).max() > WHOLE:
        raise VolumeError(f"{path} holds values that are not whole numbers: give label maps, not interpolated ones")
    return whole
