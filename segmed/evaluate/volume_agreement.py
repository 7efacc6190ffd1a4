"""Volumes, and shares of a region, of every method against the reference's: correlation, ICC, bias, limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmed.evaluate.results import Method
from segmed.metrics.agreement import Agreement, agreement_of

Quantity = Literal["volume_ml", "share_pp"]


@dataclass(frozen=True)
class MethodAgreement:
    """Agreement of one method, each case with its mean over the runs.

    Attributes:
        method, label, quantity: whose, and of what.
        agreement: its figures.
    """

    method: str
    label: str
    quantity: Quantity
    agreement: Agreement

    def data(self) -> dict[str, str | float | None]:
        """A line of the table; None where a figure does not exist."""
        figures = {name: None if math.isnan(value) else value for name, value in vars(self.agreement).items()}
        return {"label": self.label, "quantity": self.quantity, "method": self.method, **figures}


def agreements(
    methods: Sequence[Method],
    labels: Sequence[str],
    subjects: Mapping[str, str],
    *,
    shares: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[MethodAgreement, ...]:
    """Of every method and label whose volumes are known.

    Args:
        methods: that are compared.
        labels: names.
        subjects: case -> subject, of the cases that count.
        shares: label -> case -> per cent of its region in the reference, of labels whose share is compared too.
    """
    lines = []
    for label in labels:
        quantities: tuple[Quantity, ...] = ("volume_ml", "share_pp") if label in (shares or {}) else ("volume_ml",)
        for quantity in quantities:
            for method in methods:
                pairs = [_pair(method, label, case, quantity, (shares or {}).get(label, {})) for case in subjects]
                own, other = np.array(pairs, dtype=np.float64).T
                agreement = agreement_of(own, other, groups=list(subjects.values()))
                if agreement.n:
                    lines.append(MethodAgreement(method.name, label, quantity, agreement))
    return tuple(lines)


def _pair(
    method: Method, label: str, case: str, quantity: Quantity, shares: Mapping[str, float]
) -> tuple[float, float]:
    """Mean over the runs of what the method gives for a case, and the reference's."""
    rows = [row for result in method.results for row in result.rows if row["case"] == case and row["label"] == label]
    if quantity == "share_pp":
        true = shares.get(case, math.nan)
        return true + _mean([row.get("share_difference_pp") for row in rows]), true
    return _mean([row.get("prediction_ml") for row in rows]), _mean([row.get("reference_ml") for row in rows])


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
