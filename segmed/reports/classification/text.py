"""Figures of a tested classifier -> the words for them, and the table of the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segmed.metrics.small_samples import used
from segmed.reports.names import beginning

NONE = "–"  # in the place of a figure that does not exist
UNIT_TITLES = {"image": "by image", "subject": "by subject"}
POOLED = {"mean": "the mean of the probabilities", "vote": "a vote", "max": "the largest probability"}
CLASS_TITLES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC",
    "average_precision": "AP",
    "support": "support",
    "predicted": "predicted",
}
SHARE_TITLES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "positive_predictive_value": "positive predictive value",
    "negative_predictive_value": "negative predictive value",
}
CALIBRATION_TITLES = {
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "ECE",
    "ece_if_calibrated": "ECE by chance",
}
OVERALL_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "average_precision": "average precision",
    "macro_precision": "mean precision",
    "macro_recall": "mean recall",
    "macro_f1": "mean F1",
    "weighted_precision": "weighted precision",
    "weighted_recall": "weighted recall",
    "weighted_f1": "weighted F1",
}
LOSSES = ("log_loss", "brier")
SHOWN = ("accuracy", "balanced_accuracy", "auc", "average_precision", "macro_f1")  # in the terminal


def classification_text(summary: Mapping[str, Any]) -> str:
    """The table of the terminal: figures by image and by subject with intervals, the report, the threshold.

    Args:
        summary: of `write_classification`.

    Returns:
        Lines; notes stand above everything else. A figure that does not exist is "–".
    """
    blocks = [_grid(["", *(UNIT_TITLES[unit] for unit in summary["units"])], overall_rows(summary, SHOWN))]
    for unit in summary["units"]:
        head, rows = class_table(summary, unit)
        blocks.append(_grid([f"classes {UNIT_TITLES[unit]}", *head[1:]], rows))
    if summary["positive"] is not None:
        head = [f"threshold of {summary['positive']}", *(UNIT_TITLES[unit] for unit in summary["units"])]
        blocks.append(_grid(head, threshold_rows(summary)))
    notes = [f"NOTE: {note}" for note in summary["notes"]]
    return "\n".join([*notes, summary["title"], "", "\n\n".join(blocks), "", *meaning(summary)])


# ---------------------------------------------------------------- rows of tables


def overall_rows(summary: Mapping[str, Any], shown: Sequence[str] = tuple(OVERALL_TITLES)) -> list[list[str]]:
    """A row a figure: its name, then a cell for each unit of the summary.

    Args:
        summary: of `summarise_classification`.
        shown: keys of `OVERALL_TITLES`.
    """
    entries = [summary[unit] for unit in summary["units"]]
    rows = [["cases", *(f"{entry['cases']}" for entry in entries)]]
    for key in shown:
        rows.append([_of_positive(summary, key), *(cell(entry["overall"][key]) for entry in entries)])
        if key == "accuracy":
            texts = [f"{entry['majority_share']:.3f} ({beginning(entry['majority_class'])})" for entry in entries]
            rows.append(["always the majority class", *texts])
    for key, title in CALIBRATION_TITLES.items():
        rows.append([title, *(cell(entry["calibration"]["before"][key]) for entry in entries)])
        if summary["temperature"] is not None:
            rows.append([f"{title}, calibrated", *(cell(entry["calibration"]["after"][key]) for entry in entries)])
    return rows


def class_table(summary: Mapping[str, Any], unit: str, *, intervals: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and a row a class: the classification report with areas.

    Args:
        summary: of `summarise_classification`.
        unit: image or subject.
        intervals: whether figures have theirs beside them.
    """
    rows = []
    for name, own in summary[unit]["per_class"].items():
        cells = [own[key] for key in CLASS_TITLES]
        texts = [(cell(one) if intervals else number(one)) if isinstance(one, Mapping) else str(one) for one in cells]
        rows.append([beginning(name), *texts])
    return ["class", *CLASS_TITLES.values()], rows


def threshold_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """A row a figure at the threshold of the positive class: its name, then a cell for each unit."""
    entries = [summary[unit]["threshold"] for unit in summary["units"]]
    rows = [["threshold", *(f"{entry['value']:.4g}" for entry in entries)]]
    rows.append(["chosen by", *(_choice(entry) for entry in entries)])
    rows += [[title, *(cell(entry[key]) for entry in entries)] for key, title in SHARE_TITLES.items()]
    return rows


def meaning(summary: Mapping[str, Any]) -> list[str]:
    """What one must know to read the figures, a line each; remarks at the end."""
    test, validation = summary["test"], summary["validation"]
    lines = [f"Test: {_count(test)}. [95 % interval over subjects]. The answer is the most probable class."]
    if summary["positive"] is None:
        lines.append("AUC and average precision are means of one class against the rest.")
    if "subject" in summary["units"]:
        lines.append(f"By subject: {POOLED[summary['pool']]} of a subject's images.")
    if summary["temperature"] is not None:
        value = summary["temperature"]["value"]
        lines.append(
            f"Calibrated: logits divided by {value:.3g}, fitted on validation ({_count(validation)}); "
            "all other figures are of probabilities as the model gives them."
        )
    lines.append(
        "The ECE of few cases is too high: beside it stand mean and 95 % range of what these probabilities would have "
        "by chance, were each right as often as it says; it has no interval."
    )
    for unit in summary["units"]:
        lines.append(f"95 % intervals {UNIT_TITLES[unit]}, over subjects: {_methods(summary[unit])}.")
    for unit in summary["units"]:
        undefined = summary[unit]["undefined"]
        if undefined:
            count = f"{len(undefined)} figure{'s' if len(undefined) > 1 else ''}"
            lines.append(f"{NONE}: {count} {UNIT_TITLES[unit]} undefined: {', '.join(undefined)}.")
    return [*lines, *(f"- {remark}" for remark in summary["remarks"])]


# ---------------------------------------------------------------- words


def cell(figure: Mapping[str, Any]) -> str:
    """A figure and its interval: 0.861 [0.820, 0.900]; – where it does not exist."""
    if figure["value"] is None or figure["ci95"] is None:
        return number(figure)
    low, high = figure["ci95"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def number(figure: Mapping[str, Any]) -> str:
    """A figure without its interval; – where it does not exist."""
    return NONE if figure["value"] is None else f"{figure['value']:.3f}"


def _methods(entry: Mapping[str, Any]) -> str:
    """How the intervals of all and of the classes were found."""
    of_all = [(OVERALL_TITLES[key], entry["overall"][key]["ci95_method"]) for key in OVERALL_TITLES]
    losses = [(CALIBRATION_TITLES[key], entry["calibration"]["before"][key]["ci95_method"]) for key in LOSSES]
    of_classes = [
        (f"{title} of {beginning(name)}", own[key]["ci95_method"])
        for name, own in entry["per_class"].items()
        for key, title in CLASS_TITLES.items()
        if isinstance(own[key], Mapping) and own[key]["value"] is not None
    ]
    methods = dict.fromkeys(method for _, method in of_classes)
    same = len(methods) == 1 and set(methods) == {method for _, method in of_all}
    point = entry["threshold"] or {}
    at_threshold = [
        (f"{title} at the threshold", point[key]["ci95_method"]) for key, title in SHARE_TITLES.items() if point
    ]
    return used([*of_all, *losses, *([] if same else of_classes), *at_threshold])


def _of_positive(summary: Mapping[str, Any], key: str) -> str:
    title = OVERALL_TITLES[key]
    named = key in ("auc", "average_precision") and summary["positive"] is not None
    return f"{title} of {beginning(summary['positive'])}" if named else title


def _choice(entry: Mapping[str, Any]) -> str:
    return "default" if entry["chosen_on"] is None else f"{entry['rule']}, on validation"


def _count(part: Mapping[str, Any]) -> str:
    images = f"{part['images']} image{'s' if part['images'] != 1 else ''}"
    if part["subjects"] == part["images"]:
        return images
    return f"{images} of {part['subjects']} subject{'s' if part['subjects'] != 1 else ''}"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in (head, *rows)]
    return "\n".join([lines[0].rstrip(), "─" * max(len(line.rstrip()) for line in lines), *map(str.rstrip, lines[1:])])
