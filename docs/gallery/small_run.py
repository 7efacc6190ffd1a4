"""One short training on synthetic hearts that the examples share: the first that needs it makes it."""

import os
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import segmed

FAST = os.environ.get("SEGMED_FAST_GALLERY") == "1"  # a build that only asks whether all of it runs
STEPS = 30 if FAST else 200
FOLDER = Path(tempfile.gettempdir()) / "segmed_gallery"
RUN = FOLDER / f"run_{STEPS}_steps"
SETTINGS = {
    "seed": 0,
    "runs": FOLDER,
    "data.root": FOLDER / "hearts",
    "data.layout.cases": 10,
    "split.test": 0.3,
    "patches.dims": 2,
    "patches.size": (96, 96),
    "network.name": "unet",
    "network.encoder.channels": (8, 16, 32, 64),
    "train.ema": 0.9,
    "train.budget_minutes": None,
    "train.epochs": 2,
    "train.steps_per_epoch": STEPS // 2,
    "train.batch_size": 8,
    "train.validations": 2,
    "train.workers": 0,
    "train.devices": 1,
    "train.precision": "fp32",
    "train.memory_format": "contiguous",
}


def small_run() -> Path:
    """The folder of the run: ten hearts, a 2D U-Net, and the same weights whenever it is made on one machine."""
    if not (RUN / "report.html").is_file():
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # its log is not what an example shows
            segmed.train("phantom", RUN, overrides=SETTINGS)
    return RUN
