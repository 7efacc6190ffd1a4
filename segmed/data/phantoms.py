"""Synthetic cardiac LGE data sets with known truth, as NIfTI files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from rich.progress import track

from segmed.data.anatomy import LABEL_VALUES
from segmed.data.drawn_hearts import CLEAR, HARD, Disease, draw_anatomy
from segmed.data.phantom_folder import SETTINGS_FILE, is_complete
from segmed.data.scan import draw_stack, draw_volume, placed_affine, receive, render, stored_axes
from segmed.files import write_json
from segmed.volumes import write_volume

PHANTOM_VERSION = 2  # raised whenever the same seed gives another data set


def make_phantom(
    folder: Path | str,
    *,
    cases: int,
    seed: int,
    isotropic: bool = False,
    hard: bool = False,
    progress: bool = False,
) -> None:
    """Write a data set of synthetic short-axis LGE stacks; a complete one is left as it is.

    Writes `{case}/{case}_LGE.nii.gz`, `{case}/{case}_label.nii.gz` (1 healthy myocardium, 2 blood pool, 3 right
    ventricle, 4 scar) and `{case}/truth.json` with the true volumes in ml, the scars and the direction of the RV, for
    phantom_000, phantom_001 and so on. A case depends on the seed and its number only.

        >>> segmed.make_phantom("data/phantom", cases=3, seed=0)  # is complete: it stays as it is

    Args:
        folder: of the data set; made when it is not there.
        cases: number of subjects.
        seed: of the data set.
        isotropic: 3D LGE of 1.3 mm instead of slices of 7 to 10 mm.
        hard: scar about as bright as blood, in walls that are thin, and thinner where it lies; more dark cores, and
            more hearts without scar: see `segmed.data.drawn_hearts.HARD`.
        progress: show a progress bar.

    Raises:
        DatasetError: the folder holds something else, or a phantom of other settings.
        DiskError: the disk is full or the folder can't be written.
    """
    folder = Path(folder)
    settings = {"version": PHANTOM_VERSION, "cases": cases, "seed": seed, "isotropic": isotropic}
    if hard:
        settings["hard"] = True
    names = [f"phantom_{index:03d}" for index in range(cases)]
    if is_complete(folder, settings, own=names):
        return
    numbered = enumerate(names)
    for index, name in track(numbered, "making the phantom", total=cases, disable=not progress):
        disease = HARD if hard else CLEAR
        _make_case(folder / name, name, np.random.default_rng([seed, index]), disease, isotropic=isotropic)
    write_json(folder / SETTINGS_FILE, settings)


def _make_case(folder: Path, name: str, rng: np.random.Generator, disease: Disease, *, isotropic: bool) -> None:
    anatomy = draw_anatomy(rng, disease)
    acquisition = (draw_volume if isotropic else draw_stack)(anatomy, rng)
    signal, label, volumes_ml = render(anatomy, acquisition)
    image = receive(signal, acquisition, rng)
    affine = placed_affine(acquisition, rng, wander=not isotropic)
    affine, order, flips = stored_axes(affine, image.shape, rng)
    for kind, values in (("LGE", image), ("label", label)):
        stored = np.flip(values.transpose(order), flips)
        volume = MetaTensor(torch.from_numpy(np.ascontiguousarray(stored))[None], affine=torch.from_numpy(affine))
        write_volume(folder / f"{name}_{kind}.nii.gz", volume)
    truth = {
        "case": name,
        "label_values": LABEL_VALUES,
        "volumes_ml": volumes_ml,
        "scars": [asdict(scar) for scar in anatomy.heart.scars],
        "rv_angle_rad": anatomy.heart.rv_angle_rad,
    }
    write_json(folder / "truth.json", truth)
