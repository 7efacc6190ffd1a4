"""The rows of the benchmark by name; what a row needs is imported when it is its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from benchmarks.timing import Outcome, Setting

RowName = Literal[
    "windows",
    "engines",
    "step",
    "epoch",
    "adversarial_3d",
    "adversarial_2d",
    "augmentation",
    "patch",
    "distances",
    "maxflow",
    "cascade",
    "thresholds",
    "classification",
    "help",
]
ROWS: tuple[RowName, ...] = get_args(RowName)


def measure(row: RowName, setting: Setting) -> Outcome:
    """Measure one row."""
    match row:
        case "windows":
            from benchmarks.windows import sliding_window_row

            return sliding_window_row(setting)
        case "engines":
            from benchmarks.engines import engines_row
            from benchmarks.processes import in_a_process

            return in_a_process(engines_row, setting)
        case "step":
            from benchmarks.training import training_step_row

            return training_step_row(setting)
        case "epoch":
            from benchmarks.training import epoch_row

            return epoch_row(setting)
        case "adversarial_3d":
            from benchmarks.adversarial import adversarial_3d_row

            return adversarial_3d_row(setting)
        case "adversarial_2d":
            from benchmarks.adversarial import adversarial_2d_row

            return adversarial_2d_row(setting)
        case "augmentation":
            from benchmarks.patches import augmentation_row

            return augmentation_row(setting)
        case "patch":
            from benchmarks.patches import cached_patch_row

            return cached_patch_row(setting)
        case "distances":
            from benchmarks.distances import distances_row

            return distances_row(setting)
        case "maxflow":
            from benchmarks.maxflow import maxflow_row

            return maxflow_row(setting)
        case "cascade":
            from benchmarks.cascade import cascade_row

            return cascade_row(setting)
        case "thresholds":
            from benchmarks.thresholds import thresholds_row

            return thresholds_row(setting)
        case "classification":
            from benchmarks.classification import classification_row

            return classification_row(setting)
        case "help":
            from benchmarks.commands import help_row

            return help_row(setting)
