"""A comparison in one table, a line a method; and how the volumes of each method agree with the reference's."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmed.files import atomic_write_text, remove
from segmed.plain import as_cells
from segmed.reports.comparison import Comparison
from segmed.reports.comparison import Figure as Entry
from segmed.reports.comparison_text import NONE, p_text, padded_table
from segmed.reports.distributions import bland_altman
from segmed.reports.figures import save_figure
from segmed.reports.results import Method
from segmed.reports.tables import digits, escaped, mean_sd

HEADS = {
    "dice": "Dice",
    "hd_mm": "HD (mm)",
    "hd95_mm": "HD95 (mm)",
    "avd_ml": "AVD (ml)",
    "share_error_pp": "share error (pp)",
    "share_difference_pp": "share difference (pp)",
    "true_avd_ml": "AVD to truth (ml)",
    "true_difference_ml": "difference to truth (ml)",
    "dice_zabihollahy2020": "Dice (zabihollahy2020)",
}


def overview_markdown(comparison: Comparison, *, label: str) -> str:
    """Mean ± SD of each metric of one label, difference and test of the first, seconds, misses; a line a method.

    Args:
        comparison: what is shown.
        label: of which label.
    """
    first = comparison.metrics[0]
    head = ["method", *(HEADS[metric] for metric in comparison.metrics)]
    head += [f"{HEADS[first]} − {comparison.reference}", "95 % interval", "p (Holm)", "s a case", "missed"]
    lines = [head]
    for method in comparison.methods:
        entries = {metric: comparison.figures[method.name, label, metric] for metric in comparison.metrics}
        lines.append([
            escaped(method.name), *(mean_sd(vars(entry), metric) for metric, entry in entries.items()),
            *_against(entries[first]), _seconds(method), f"{entries[first].missed} of {entries[first].chances}",
        ])  # fmt: skip
    return "\n".join([f"## {escaped(label)}", "", *padded_table(lines), ""])


def _against(entry: Entry) -> list[str]:
    if entry.difference is None:
        return [NONE] * 3
    signed = f"+.{digits(vars(entry), entry.metric)}f"
    ends = entry.difference_ci95
    between = NONE if ends is None else f"[{ends[0]:{signed}}, {ends[1]:{signed}}]"
    return [f"{entry.difference:{signed}}".replace("-", "−"), between.replace("-", "−"), p_text(entry.p_holm)]


def _seconds(method: Method) -> str:
    return NONE if method.inference_seconds is None else f"{method.inference_seconds:.3g}"


def overview_csv(comparison: Comparison) -> str:
    """A row a label and method, a column a figure, in full precision; an empty cell is not known."""
    parts = ("mean", "sd", "ci95_low", "ci95_high", "difference", "difference_low", "difference_high", "p", "p_holm")
    columns = ["label", "method", "reference", "cases", "missed", "seconds_a_case", "training_minutes"]
    columns += [f"{metric}_{part}" for metric in comparison.metrics for part in parts]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for label in comparison.labels:
        for method in comparison.methods:
            entries = [comparison.figures[method.name, label, metric] for metric in comparison.metrics]
            row: dict[str, Any] = {
                "label": label,
                "method": method.name,
                "reference": comparison.reference,
                "cases": len(comparison.cases),
                "missed": entries[0].missed,
                "seconds_a_case": method.inference_seconds,
                "training_minutes": method.training_minutes,
            }
            for entry in entries:
                known = {**vars(entry)}
                known["ci95_low"], known["ci95_high"] = entry.ci95 or (None, None)
                known["difference_low"], known["difference_high"] = entry.difference_ci95 or (None, None)
                row |= {f"{entry.metric}_{part}": known[part] for part in parts}
            writer.writerow(as_cells(row))
    return text.getvalue()


def write_overview(comparison: Comparison, folder: Path, *, title: str, stem: str = "overview") -> str:
    """Write overview.md and overview.csv.

    Args:
        comparison: what is shown.
        folder: made where it does not exist.
        title: above the tables.
        stem: of the files' names.

    Returns:
        The text of overview.md.

    Raises:
        OSError: the folder can't be written.
    """
    tables = [overview_markdown(comparison, label=label) for label in comparison.labels if _known(comparison, label)]
    text = "\n".join([f"# {escaped(title)}", "", *tables])
    atomic_write_text(folder / f"{stem}.md", text)
    atomic_write_text(folder / f"{stem}.csv", overview_csv(comparison))
    return text


def _known(comparison: Comparison, label: str) -> bool:
    first = comparison.metrics[0]
    return any(comparison.figures[method.name, label, first].n for method in comparison.methods)


def write_agreement(methods: Sequence[Method], label: str, path: Path, *, title: str, truth: str | None = None) -> bool:
    """Bland-Altman plots of a label's volume, a panel a method; a case counts once for each run of a method.

    Args:
        methods: that are compared.
        label: whose volume it is.
        path: of the figure; one of an earlier comparison is replaced, or removed where there are no volumes.
        title: above the figure.
        truth: column of the volume to compare with; None: that of the reference's label map.

    Returns:
        Whether there are volumes.

    Raises:
        OSError: it can't be written.
    """
    rows = [
        _renamed(row, method.name, truth)
        for method in methods
        for result in method.results
        for row in result.rows
        if row["label"] == label
    ]
    rows = [row for row in rows if row["volume_difference_ml"] is not None and row["prediction_ml"] is not None]
    if not any(math.isfinite(row["volume_difference_ml"]) for row in rows):
        remove(path)
        return False
    save_figure(bland_altman(rows, title=title), path, dpi=150)
    return True


def _renamed(row: Mapping[str, Any], name: str, truth: str | None) -> dict[str, Any]:
    if truth is None or row["prediction_ml"] is None:
        return {**row, "label": name}
    true = row[truth]
    return {**row, "label": name, "reference_ml": true, "volume_difference_ml": row["prediction_ml"] - true}
