"""The public interface: what `segmed.NAME` is, for scripts and notebooks.

The examples of `segmed.__init__`'s names run as they stand, one after the other, in an empty folder, after these lines:

    >>> import segmed
    >>> tiny = {
    ...     "data.layout.cases": 3, "split.test": 0.34, "network.name": "unet", "network.encoder.channels": [4, 8],
    ...     "patches.dims": 2, "patches.size": [32, 32],
    ...     "train.budget_minutes": None, "train.epochs": 1, "train.steps_per_epoch": 2, "train.validations": 1,
    ...     "train.workers": 0, "train.devices": 1, "train.precision": "fp32", "train.memory_format": "contiguous",
    ... }
"""

from segmed.data.phantoms import make_phantom
from segmed.data.preprocess import read_case
from segmed.networks.summary import summarise as summarise_network
from segmed.public.experiments import plan, resume, start, train
from segmed.public.look_inside import (
    build_network,
    preprocess,
    read_audit,
    read_dataset,
    read_history,
    read_run_config,
    read_split,
    training_patches,
)
from segmed.public.use_runs import classify_images, load_run, predict, score, score_table
from segmed.public.view_volume import view
from segmed.segment.predict import entropy
from segmed.segmenters.cascade import Cascade
from segmed.segmenters.combine import LargestComponent, Mean, Tidied, Vote
from segmed.segmenters.segmenter import Segmenter
from segmed.segmenters.sliding import blending_weights, window_starts
from segmed.volumes import read_volume

__all__ = [
    "Cascade",
    "LargestComponent",
    "Mean",
    "Segmenter",
    "Tidied",
    "Vote",
    "blending_weights",
    "build_network",
    "classify_images",
    "entropy",
    "load_run",
    "make_phantom",
    "plan",
    "predict",
    "preprocess",
    "read_audit",
    "read_case",
    "read_dataset",
    "read_history",
    "read_run_config",
    "read_split",
    "read_volume",
    "resume",
    "score",
    "score_table",
    "start",
    "summarise_network",
    "train",
    "training_patches",
    "view",
    "window_starts",
]
