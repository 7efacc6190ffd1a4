"""Segmentation, classification and adversarial training for cardiac and brain MRI, from files to test figures.

Train:      train, start, resume, plan
Use a run:  load_run, predict, classify_images, score, score_table, view
Build:      build_network, Segmenter, Mean, Vote, Cascade, LargestComponent, Tidied
Data:       make_phantom, read_dataset, read_case, read_volume, preprocess, training_patches
Inside:     summarise_network, entropy, window_starts, blending_weights
Of a run:   read_run_config, read_split, read_audit, read_history

Everything is imported when it is first used. `segmed.config` holds the experiments, `segmed.reports` the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmed import config as config
    from segmed import reports as reports
    from segmed.public import *  # noqa: F403

__version__ = "0.1.0"

PUBLIC = (
    *("train", "start", "resume", "plan"),
    *("load_run", "predict", "classify_images", "score", "score_table", "view"),
    *("build_network", "Segmenter", "Mean", "Vote", "Cascade", "LargestComponent", "Tidied"),
    *("make_phantom", "read_dataset", "read_case", "read_volume", "preprocess", "training_patches"),
    *("summarise_network", "entropy", "window_starts", "blending_weights"),
    *("read_run_config", "read_split", "read_audit", "read_history"),
)


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        from segmed import public

        return getattr(public, name)
    if name == "config":
        import segmed.config

        return segmed.config
    if name == "reports":
        import segmed.reports

        return segmed.reports
    raise AttributeError(f"module 'segmed' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC, "config", "reports"})
