"""The figures and tables that `segmed.reports` has for scripts and notebooks; a run's own report holds the same."""

from segmed.evaluate.case_volumes import shown_case
from segmed.reports.audit.text import facts_table
from segmed.reports.drawing.curves import training_curves
from segmed.reports.drawing.slices import montage, volume_figure
from segmed.reports.segmentation.inside import (
    error_figure,
    feature_figure,
    intensity_figure,
    logits_figure,
    patch_figure,
)
from segmed.reports.segmentation.tables import table_text
from segmed.reports.segmentation.windows import blending_figure

__all__ = [
    "blending_figure",
    "error_figure",
    "facts_table",
    "feature_figure",
    "intensity_figure",
    "logits_figure",
    "montage",
    "patch_figure",
    "shown_case",
    "table_text",
    "training_curves",
    "volume_figure",
]
