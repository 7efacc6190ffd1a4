"""True classes and probabilities of many cases -> accuracy, the classification report, confusion and areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from segmed.errors import MetricError

# Keys of `Figures.overall` and of `Figures.per_class`, in the order of tables.
OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "auc",
    "average_precision",
    "log_loss",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
)
VALIDATED = ("accuracy", "balanced_accuracy", "auc", "log_loss")  # those of OVERALL that a validation shows
PER_CLASS = ("precision", "recall", "f1", "auc", "average_precision")

_SUM_TOLERANCE = 1e-3  # a table of probabilities with four digits still sums to one within this


@dataclass(frozen=True)
class Checked:
    """Truth and probabilities that fit together.

    Attributes:
        truth: (N,) int, index into classes.
        probabilities: (N, K) float64, rows sum to one.
        classes: K names.
        subjects: (N,) str, whose image each case is; None: not given.
        notes: one line for every class that the truth never has.
    """

    truth: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    subjects: np.ndarray | None
    notes: tuple[str, ...]

    @property
    def labels(self) -> np.ndarray:
        """(N,) int, the most probable class; of equal ones the first."""
        return np.argmax(self.probabilities, axis=1)


@dataclass(frozen=True)
class Figures:
    """Figures of one classifier on one set of cases; `dataclasses.asdict` gives the JSON.

    Attributes:
        cases: how many.
        classes: K names.
        positive: the positive class of two; None with more.
        majority_class: the most frequent class of the truth.
        majority_share: accuracy of always answering with it.
        overall: the keys of `OVERALL`.
        per_class: of each class the keys of `PER_CLASS`, its support, and how often it was answered (predicted).
        confusion: K rows of the truth, K columns of the answers.
        undefined: "precision of glioma": the figures that do not exist here. They are NaN, and no part of a mean.
        notes: what the reader of the figures has to know.
    """

    cases: int
    classes: tuple[str, ...]
    positive: str | None
    majority_class: str
    majority_share: float
    overall: dict[str, float]
    per_class: dict[str, dict[str, float]]
    confusion: tuple[tuple[int, ...], ...]
    undefined: tuple[str, ...]
    notes: tuple[str, ...]


def check(
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    subjects: Sequence[str] | np.ndarray | None = None,
) -> Checked:
    """Refuse what no figure can be made of.

    Args:
        truth: (N,) int, index into classes.
        probabilities: (N, K), rows sum to one within 0.001, as a table with few digits does.
        classes: K names, at least two.
        subjects: (N,) str, whose image each case is.

    Returns:
        The same as arrays. A class that the truth never has is allowed and noted.

    Raises:
        MetricError: other shapes or lengths, no case at all, names that repeat, labels outside the classes,
            NaN, values outside 0 to 1, rows that do not sum to one.
    """
    names = _check_names(classes)
    labels, given = np.asarray(truth), np.asarray(probabilities, dtype=np.float64)
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "iub":
        raise MetricError(
            f"truth of shape {labels.shape} and type {labels.dtype}: give one integer per case, for at least one case"
        )
    if given.shape != (len(labels), len(names)):
        raise MetricError(
            f"probabilities of shape {given.shape} for {len(labels)} cases and {len(names)} classes: "
            f"give {(len(labels), len(names))}"
        )
    if subjects is not None and len(subjects) != len(labels):
        raise MetricError(f"{len(subjects)} subjects for {len(labels)} cases: give one per case")
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if outside.size:
        raise MetricError(
            f"true label {labels[outside[0]]} of case {outside[0]}: must lie between 0 and {len(names) - 1}"
        )
    check_probabilities(given)
    missing = [name for number, name in enumerate(names) if not np.any(labels == number)]
    notes = tuple(
        f"class {name} has no case in the truth: its recall, AUC and average precision are undefined"
        for name in missing
    )
    units = None if subjects is None else np.asarray(subjects).astype(str)
    return Checked(labels.astype(np.intp), given, names, units, notes)


def check_unnamed(
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    *,
    subjects: Sequence[str] | np.ndarray | None = None,
) -> Checked:
    """As `check`, with the numbers of the classes for names.

    Raises:
        MetricError: as in `check`.
    """
    given = np.asarray(probabilities)
    if given.ndim != 2:
        raise MetricError(f"probabilities of shape {given.shape}: give (cases, classes)")
    return check(truth, given, [str(number) for number in range(given.shape[1])], subjects=subjects)


def figures(
    truth: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    positive: str | None = None,
) -> Figures:
    """Every figure of one classifier; the answer to a case is its most probable class.

    Precision, recall and F1 are defined where their denominators are not zero: F1 = 2 TP / (2 TP + FP + FN). The area
    and the average precision of a class need cases of it and of the rest. What is undefined is NaN and listed. The
    balanced accuracy is the mean recall of the classes that the truth has. With two classes the recall of the positive
    one is the sensitivity and that of the other the specificity.

    Args:
        truth, probabilities, classes: as in `check`.
        positive: of two classes, that whose area and average precision stand in `overall`; None: the second. With
            more classes these are the means of one class against the rest.

    Raises:
        MetricError: as in `check`; `positive` is no class, or there are more than two.

    Source: scikit-learn's `classification_report`, `roc_auc_score`, `average_precision_score` and `log_loss`.
    """
    checked = check(truth, probabilities, classes)
    target = positive_index(checked.classes, positive)
    kinds = range(len(checked.classes))
    report = precision_recall_fscore_support(checked.truth, checked.labels, labels=kinds, zero_division=np.nan)
    columns = dict(zip(("precision", "recall", "f1"), (np.asarray(column) for column in report), strict=False))
    areas = [areas_of(checked, number) for number in kinds]
    columns |= {
        "auc": np.array([area[0] for area in areas]),
        "average_precision": np.array([area[1] for area in areas]),
    }
    table = confusion_matrix(checked.truth, checked.labels, labels=kinds)
    support, predicted = table.sum(axis=1), table.sum(axis=0)
    per_class = {
        name: {key: float(columns[key][number]) for key in PER_CLASS}
        | {"support": int(support[number]), "predicted": int(predicted[number])}
        for number, name in enumerate(checked.classes)
    }
    overall = _overall(checked, columns, target)
    undefined = [key for key in OVERALL if np.isnan(overall[key])]
    undefined += [f"{key} of {name}" for name in checked.classes for key in PER_CLASS if np.isnan(per_class[name][key])]
    return Figures(
        cases=len(checked.truth),
        classes=checked.classes,
        positive=None if target is None else checked.classes[target],
        majority_class=checked.classes[int(support.argmax())],
        majority_share=float(support.max() / support.sum()),
        overall=overall,
        per_class=per_class,
        confusion=tuple(tuple(int(count) for count in row) for row in table),
        undefined=tuple(undefined),
        notes=checked.notes,
    )


def positive_index(classes: Sequence[str], positive: str | None) -> int | None:
    """Index of the positive class of two, the second if none is named; None with more than two.

    Raises:
        MetricError: `positive` is no class, or there are more than two.
    """
    if positive is not None and positive not in classes:
        raise MetricError(f"positive class {positive} is none of {', '.join(classes)}: name one of them")
    if len(classes) > 2:
        if positive is not None:
            raise MetricError(f"positive class {positive} of {len(classes)} classes: only two classes have one")
        return None
    return 1 if positive is None else list(classes).index(positive)


def _overall(checked: Checked, columns: dict[str, np.ndarray], target: int | None) -> dict[str, float]:
    kinds = range(len(checked.classes))
    rows = checked.probabilities / checked.probabilities.sum(axis=1, keepdims=True)
    result = {
        "accuracy": float(np.mean(checked.truth == checked.labels)),
        "balanced_accuracy": _known_mean(columns["recall"]),
        "log_loss": float(log_loss(checked.truth, rows, labels=list(kinds))),
    }
    for key in ("auc", "average_precision"):
        result[key] = _known_mean(columns[key]) if target is None else float(columns[key][target])
    for mean in ("macro", "weighted"):
        means = precision_recall_fscore_support(
            checked.truth, checked.labels, labels=kinds, average=mean, zero_division=np.nan
        )
        result |= {f"{mean}_{key}": float(value) for key, value in zip(PER_CLASS[:3], means[:3], strict=True)}
    return {key: result[key] for key in OVERALL}


def areas_of(checked: Checked, number: int) -> tuple[float, float]:
    """Area under the ROC curve and average precision of one class against the rest; NaN where one has no case."""
    own, scores, positives, negatives = one_against_rest(checked, number)
    if not positives or not negatives:
        return float("nan"), float("nan")
    return float(roc_auc_score(own, scores)), float(average_precision_score(own, scores))


def one_against_rest(checked: Checked, number: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(N,) bool, whether a case is of the class; (N,) its probability; how many cases are, and how many are not."""
    own = checked.truth == number
    positives = int(np.count_nonzero(own))
    return own, checked.probabilities[:, number], positives, len(own) - positives


def _known_mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _check_names(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(classes)
    if isinstance(classes, str) or len(names) < 2 or len(set(names)) < len(names):
        raise MetricError(f"classes {classes!r}: give two or more different names")
    return names


def check_probabilities(probabilities: np.ndarray) -> None:
    """Refuse NaN, values outside 0 to 1 and rows that do not sum to one.

    Args:
        probabilities: (N, K).

    Raises:
        MetricError: with the first case and the number of such cases.
    """
    broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if broken.size:
        raise MetricError(
            f"probabilities of case {broken[0]} are {probabilities[broken[0]].tolist()} ({broken.size} such cases): "
            "look for a loss that became NaN in training, or for broken pixels"
        )
    outside = np.flatnonzero(((probabilities < 0) | (probabilities > 1 + _SUM_TOLERANCE)).any(axis=1))
    if outside.size:
        raise MetricError(
            f"probabilities of case {outside[0]} are {probabilities[outside[0]].tolist()}: "
            "must lie between 0 and 1; pass logits through a softmax first"
        )
    sums = probabilities.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > _SUM_TOLERANCE)
    if wrong.size:
        raise MetricError(
            f"probabilities of case {wrong[0]} sum to {sums[wrong[0]]:.4g} ({wrong.size} such cases), not to 1: "
            "pass logits through a softmax over the classes first"
        )
