"""Synthetic short-axis cine with known volumes at every phase, in the files and folders of the ACDC data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from rich.progress import track

from segmed.data.anatomy import Anatomy, chest_wall, draw_heart, organs
from segmed.data.moving_hearts import contracted, contraction, draw_moving_heart
from segmed.data.phantom_folder import SETTINGS_FILE, is_complete
from segmed.data.scan import (
    Acquisition,
    draw_stack,
    heart_window,
    placed_affine,
    plane_points,
    positions,
    receive,
    stored_axes,
)
from segmed.files import write_json
from segmed.volumes import write_volume

CINE_PHANTOM_VERSION = 1  # raised whenever the same seed gives another data set
CINE_VALUES = {"rv": 1, "myocardium": 2, "lv_cavity": 3}  # of ACDC
AS_ACDC = np.array([0, 2, 3, 1, 2], np.uint8)  # from the label values of `segmed.data.anatomy`
FINE_SLICES = 3  # planes whose mean is a slice
THICKNESS_MM = (5, 7)  # without gaps: half a slice more or less at the base is then 1 to 2 points of EF, not 3
FEWEST_PHASES = 2

Labels = np.ndarray  # (phases, X, Y, Z) uint8


def make_cine_phantom(
    folder: Path | str, *, cases: int = 20, seed: int = 0, phases: int = 20, progress: bool = False
) -> None:
    """Write a data set of synthetic short-axis cine stacks of beating hearts; a complete one is left as it is.

    Writes, as ACDC does, `{case}/{case}_4d.nii.gz`, the frames of end-diastole and end-systole as
    `{case}/{case}_frameNN.nii.gz` and `{case}/{case}_frameNN_gt.nii.gz` (1 right ventricle, 2 myocardium, 3 LV
    cavity), and beside them `{case}_4d_gt.nii.gz` and `truth.json`: the true volumes in ml at every phase, rendered
    finer than the voxels, and the ejection fraction that follows. Stroke, long-axis shortening and the thickening of
    the wall belong together: the muscle keeps its volume. A case depends on the seed, its number and the phases only.

    Args:
        folder: of the data set; made when it is not there.
        cases: number of subjects.
        seed: of the data set.
        phases: of a cycle.
        progress: show a progress bar.

    Raises:
        DatasetError: the folder holds something else, or a phantom of other settings.
        DiskError: the disk is full or the folder can't be written.
        ValueError: fewer than two phases.
    """
    if phases < FEWEST_PHASES:
        raise ValueError(f"{phases} phase shows no beat: ask for two or more")
    folder = Path(folder)
    settings = {"version": CINE_PHANTOM_VERSION, "kind": "cine", "cases": cases, "seed": seed, "phases": phases}
    names = [f"phantom_{index:03d}" for index in range(cases)]
    if is_complete(folder, settings, own=names):
        return
    for index, name in track(enumerate(names), "making the phantom", total=cases, disable=not progress):
        _make_case(folder / name, name, np.random.default_rng([seed, index]), phases)
    write_json(folder / SETTINGS_FILE, settings)


def _make_case(folder: Path, name: str, rng: np.random.Generator, phases: int) -> None:
    anatomy, beat = draw_moving_heart(rng)
    acquisition = draw_stack(anatomy, rng, thickness_mm=THICKNESS_MM)
    fine_x, fine_y, _ = acquisition.samples
    acquisition = replace(acquisition, samples=(fine_x, fine_y, FINE_SLICES))
    hearts = [contracted(anatomy.heart, beat, contraction(beat, phase / phases)) for phase in range(phases)]
    moving = [(replace(anatomy, heart=heart), descent_mm) for heart, descent_mm in hearts]
    signals, labels, volumes_ml = _render_phases(moving, acquisition)
    images = np.stack([receive(signal, acquisition, rng) for signal in signals])
    affine = placed_affine(acquisition, rng, wander=True)
    affine, order, flips = stored_axes(affine, acquisition.shape, rng)
    step_ms = round(beat.cycle_ms / phases, 3)
    left = volumes_ml["lv_cavity"]
    diastole, systole = int(np.argmax(left)), int(np.argmin(left))

    def write(what: str, values: np.ndarray) -> None:
        stored = np.flip(values.transpose(0, *(axis + 1 for axis in order)), tuple(axis + 1 for axis in flips))
        volume = MetaTensor(torch.from_numpy(np.ascontiguousarray(stored)), affine=torch.from_numpy(affine))
        write_volume(folder / f"{name}_{what}.nii.gz", volume, step_ms=step_ms if len(values) > 1 else None)

    for phase in (diastole, systole):
        write(f"frame{phase + 1:02d}", images[phase : phase + 1])
        write(f"frame{phase + 1:02d}_gt", labels[phase : phase + 1])
    write("4d", images)
    write("4d_gt", labels)
    truth = {
        "case": name,
        "label_values": CINE_VALUES,
        "beat": asdict(beat),
        "step_ms": step_ms,
        "volumes_ml": volumes_ml,
        "labelled_ml": _labelled_ml(labels, acquisition),
        "end_diastole": diastole,
        "end_systole": systole,
        "ef_percent": _ejected_percent(left, diastole, systole),
        "rv_ef_percent": _ejected_percent(volumes_ml["rv"], diastole, systole),
    }
    write_json(folder / "truth.json", truth)


def _labelled_ml(labels: Labels, acquisition: Acquisition) -> dict[str, list[float]]:
    """Volumes that the voxels of the label maps have, by label and phase: what the grid makes of the true ones."""
    voxel_ml = float(np.prod(acquisition.spacing_mm)) / 1000
    counts = {name: (labels == value).sum(axis=(1, 2, 3)) for name, value in CINE_VALUES.items()}
    return {name: [round(float(count) * voxel_ml, 4) for count in each] for name, each in counts.items()}


def _ejected_percent(volumes_ml: Sequence[float], diastole: int, systole: int) -> float:
    return round(100 * (1 - volumes_ml[systole] / volumes_ml[diastole]), 3)


def _render_phases(
    moving: Sequence[tuple[Anatomy, float]], acquisition: Acquisition
) -> tuple[np.ndarray, Labels, dict[str, list[float]]]:
    """Render all phases finely and average; what does not beat is drawn once a plane.

    Args:
        moving: the chest at each phase, and how far the base has moved toward the apex, in mm.
        acquisition: of the stack.

    Returns:
        Signal (phases, X, Y, Z) float32; labels (phases, X, Y, Z) uint8; true volumes in ml, by label and phase.
    """
    shape, (fine_x, fine_y, fine_z) = acquisition.shape, acquisition.samples
    signal = np.zeros((len(moving), *shape), np.float32)
    shares = np.zeros((len(moving), len(CINE_VALUES) + 1, *shape), np.float32)
    x, y = (positions(shape[axis], acquisition.samples[axis], acquisition.spacing_mm[axis]) for axis in (0, 1))
    blocks = (shape[0], fine_x, shape[1], fine_y)
    for plane, height in enumerate(positions(shape[2], fine_z, acquisition.spacing_mm[2])):
        number = plane // fine_z
        for phase, (tissue, label) in enumerate(_planes(moving, acquisition, (x, y, height), number)):
            signal[phase, :, :, number] += tissue.reshape(blocks).mean((1, 3)) / fine_z
            for value in CINE_VALUES.values():
                shares[phase, value, :, :, number] += (label == value).reshape(blocks).mean((1, 3)) / fine_z
    shares[:, 0] = 1 - shares[:, 1:].sum(1)
    voxel_ml = float(np.prod(acquisition.spacing_mm)) / 1000
    sums = shares.sum(axis=(2, 3, 4), dtype=float) * voxel_ml
    volumes = {name: [round(float(ml), 4) for ml in sums[:, value]] for name, value in CINE_VALUES.items()}
    return signal, shares.argmax(1).astype(np.uint8), volumes


def _planes(
    moving: Sequence[tuple[Anatomy, float]], acquisition: Acquisition, at: tuple[Any, Any, float], number: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tissue and label of one fine plane at every phase; the breath moves all but the chest wall."""
    u, v, w = plane_points(acquisition, at)
    resting = moving[0][0]
    wall, layers = chest_wall(resting, u, v)
    shift_mm = acquisition.shifts_mm[number]
    u, v = u + np.float32(shift_mm[0]), v + np.float32(shift_mm[1])
    around = organs(resting, u, v, w)
    window = heart_window(u, v)
    planes = []
    for anatomy, descent_mm in moving:
        tissue, label = around.copy(), np.zeros(u.shape, np.uint8)
        below_base = w[window] - np.float32(descent_mm)
        label[window] = AS_ACDC[draw_heart(anatomy, u[window], v[window], below_base, tissue[window])]
        outside = wall & (label == 0)
        tissue[outside] = layers[outside]
        planes.append((tissue, label))
    return planes
