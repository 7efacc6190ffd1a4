"""Agreement of volumes and shares with the reference's -> agreement.csv and its tables."""

from __future__ import annotations

import math
from pathlib import Path

from segmed.evaluate.comparison import Comparison
from segmed.evaluate.volume_agreement import MethodAgreement
from segmed.files import atomic_write_text, csv_text, remove
from segmed.reports.comparison.document import Section, Table, Writing, reference_named, signed
from segmed.reports.segmentation.tables import NONE

TITLES = {"volume_ml": "volume (ml)", "share_pp": "share of the region (percentage points)"}
MEANING = (
    "Each case with its mean over the runs. ICC(2,1): two-way random effects, absolute agreement, one measurement. "
    "Limits: bias ± 1.96 SD of method − reference. A constant has no correlation, and the training "
    "means of folds a negative one, as each lacks the cases that it is tested on. Below 6 subjects there are no "
    "correlations, ICC and limits."
)
COLUMNS = (
    "label", "quantity", "method", "n", "subjects", "pearson", "spearman", "icc", "bias", "sd", "low", "high",
)  # fmt: skip


def write_agreements(comparison: Comparison, path: Path) -> None:
    """Write agreement.csv; one of an earlier comparison is removed where no volume is known.

    Raises:
        DiskError: it can't be written.
    """
    remove(path)
    if comparison.agreements:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, csv_text(COLUMNS, (line.data() for line in comparison.agreements)))


def agreement_sections(comparison: Comparison, written: Writing) -> list[Section]:
    """A table a label and quantity, a line a method."""
    sections = []
    for label, quantity in dict.fromkeys((line.label, line.quantity) for line in comparison.agreements):
        own = [line for line in comparison.agreements if (line.label, line.quantity) == (label, quantity)]
        rows = [[reference_named(line.method, comparison.reference, written), *_cells(line)] for line in own]
        table = Table(["method", "Pearson", "Spearman", "ICC(2,1)", "bias", "limits of agreement", "n"], rows)
        sections.append(Section(f"Agreement of {written(label)}: {TITLES[quantity]}", table, [MEANING]))
    return sections


def _cells(line: MethodAgreement) -> list[str]:
    one = line.agreement
    limits = NONE if math.isnan(one.low) else f"[{signed(one.low, 2)}, {signed(one.high, 2)}]"
    return [
        *(_number(value) for value in (one.pearson, one.spearman, one.icc)),
        signed(one.bias, 2),
        limits,
        f"{one.n}",
    ]


def _number(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:.3f}".replace("-", "−")
