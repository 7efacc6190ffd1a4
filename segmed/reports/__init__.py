"""Tables, figures and pages that a person reads.

Those of one case, one training or one network can be drawn by hand: `from segmed.reports import volume_figure`.
"""

from __future__ import annotations

from typing import Any

FIGURES = (
    *("volume_figure", "montage", "shown_case", "training_curves", "table_text", "facts_table"),
    *("intensity_figure", "patch_figure", "feature_figure", "logits_figure", "blending_figure", "error_figure"),
)


def __getattr__(name: str) -> Any:
    if name in FIGURES:
        from segmed.reports import figures

        return getattr(figures, name)
    raise AttributeError(f"module 'segmed.reports' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *FIGURES})
