"""Row of thresholds: scar inside a known wall by Otsu, FWHM and standard deviations above remote muscle."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from monai.data import MetaTensor

from benchmarks.synthetic import NAMED, heart, scan
from benchmarks.timing import Outcome, Setting, Target, alternate, timed
from segmed.builders.classical import build_method
from segmed.config.methods import ClassicalMethod, FullWidthConfig, OtsuConfig, StandardDeviationsConfig
from segmed.labels import LabelSet
from segmed.segmenters.region import Inside, Known
from segmed.segmenters.segmenter import on_grid_of

OTSU, FWHM, STRM = "Otsu", "FWHM", "STRM, 5 SD"
METHODS: dict[str, ClassicalMethod] = {OTSU: OtsuConfig(), FWHM: FullWidthConfig(), STRM: StandardDeviationsConfig()}
SPACING_MM = (0.625, 0.625, 1.3)
SCAR = 700  # brighter than the wall around it by
WALL = LabelSet(("wall",), ((1,),))
RESULT = LabelSet(("myocardium", "scar"), ((1,), (2,)))


def thresholds_row(setting: Setting) -> Outcome:
    """From the volume and a label map of its wall to the label map with scar."""
    shape = (64, 64, 16) if setting.quick else (256, 256, 80)
    label = heart(shape, 0)
    wall, first = label == NAMED["myocardium"], np.arange(shape[0])[:, None, None]
    scar = wall & (first > 0.75 * shape[0])
    affine = torch.diag(torch.tensor([*SPACING_MM, 1.0], dtype=torch.float64))
    image = (scan(label, 0) + SCAR * scar).astype(np.float32)
    volume = MetaTensor(torch.from_numpy(image)[None], affine=affine)
    region = Known(on_grid_of(volume, torch.from_numpy(wall.astype(np.uint8))[None]), WALL)
    made = {
        name: Inside(build_method(method), region, within=("wall",), target="scar", rest="myocardium", labels=RESULT)
        for name, method in METHODS.items()
    }
    timings = alternate({name: timed(partial(inside, volume)) for name, inside in made.items()}, rounds=setting.rounds)
    targets = [Target(name, timing.median, "below", 1.0, "s") for name, timing in timings.items()]
    right = {name: float(((inside(volume).numpy()[0] == 2) == scar)[wall].mean()) for name, inside in made.items()}
    note = "right of the wall's voxels: " + ", ".join(f"{name} {share:.1%}" for name, share in right.items())
    work = f"scar by a threshold in {int(wall.sum())} voxels of wall, {' × '.join(map(str, shape))}"
    return Outcome("thresholds", work, OTSU, timings, tuple(targets), (note,))
