"""Validation part -> the temperature and the thresholds with which the test part is evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmed.config.classification import ClassEvaluateConfig
from segmed.errors import MetricError, RunError
from segmed.evaluate.answers import Answers
from segmed.metrics.calibration import Bin, Temperature, fit_temperature, reliability
from segmed.metrics.class_curves import PrecisionRecallCurve, RocCurve, precision_recall_curves, roc_curves
from segmed.metrics.class_figures import positive_index
from segmed.metrics.operating_points import OperatingPoint, choose_threshold
from segmed.metrics.pooling import PoolingRule, pool_by_subject

Unit = Literal["image", "subject"]
UNITS: tuple[Unit, ...] = ("image", "subject")
DEFAULT_THRESHOLD = 0.5
DEFAULT_RULE = "default"  # in the place of a rule's name, where validation could not choose


@dataclass(frozen=True)
class Level:
    """What is counted: images, or subjects with their images pooled.

    Attributes:
        unit: image or subject.
        names: N ids.
        subjects: N names, drawn whole for intervals.
        truth: (N,) int.
        probabilities: (N, K), as the model gives them.
        calibrated: (N, K), of the logits divided by the temperature; None: there is none.
    """

    unit: Unit
    names: tuple[str, ...]
    subjects: tuple[str, ...]
    truth: np.ndarray
    probabilities: np.ndarray
    calibrated: np.ndarray | None

    def roc(self, classes: Sequence[str]) -> dict[str, RocCurve]:
        """Curve of each class against the rest, where it has one."""
        return roc_curves(self.truth, self.probabilities, classes)

    def precision_recall(self, classes: Sequence[str]) -> dict[str, PrecisionRecallCurve]:
        """Curve of each class against the rest, where it has one."""
        return precision_recall_curves(self.truth, self.probabilities, classes)

    def reliability(self) -> dict[str, tuple[Bin, ...]]:
        """How often the answer is right by its probability: as the model gives it, and calibrated if there is such."""
        kinds = {"given": self.probabilities, "calibrated": self.calibrated}
        return {name: reliability(self.truth, values) for name, values in kinds.items() if values is not None}


@dataclass(frozen=True)
class Decisions:
    """What is fixed before the test part is looked at.

    Attributes:
        temperature: None without validation, or where none is asked for.
        points: threshold by image and by subject; empty with more than two classes.
        remarks: what could not be decided, and why.
    """

    temperature: Temperature | None
    points: Mapping[Unit, OperatingPoint]
    remarks: tuple[str, ...]


def decide(
    validation: Answers | None, classes: tuple[str, ...], config: ClassEvaluateConfig, *, units: Sequence[Unit] = UNITS
) -> Decisions:
    """Fit the temperature and choose the thresholds; no figure of the test part goes in.

    Args:
        validation: None: no temperature, and a threshold of 0.5.
        classes: of the test part.
        config: the `evaluate` section.
        units: for which a threshold is needed.

    Raises:
        RunError: validation has other classes.
        MetricError: the positive class is none, or there are more than two.
    """
    if validation is not None and validation.classes != classes:
        raise RunError(
            f"validation has the classes {', '.join(validation.classes)}, test {', '.join(classes)}: "
            "classify both parts with one model"
        )
    target = positive_index(classes, config.positive)
    positive = None if target is None else classes[target]
    if validation is None:
        points = {} if positive is None else {unit: _default(positive) for unit in units}
        lost = ["no temperature is fitted"] if config.calibrate else []
        lost += [f"the threshold is {DEFAULT_THRESHOLD:g}"] if points else []
        return Decisions(None, points, (f"no validation part: {' and '.join(lost)}",) if lost else ())
    remarks = []
    temperature = fit_temperature(validation.logits, validation.truth) if config.calibrate else None
    if temperature is not None and temperature.note:
        remarks.append(f"temperature: {temperature.note}")
    points = {}
    for unit in units if positive is not None else ():
        try:
            points[unit] = _chosen(validation, unit, str(positive), config)
        except MetricError as error:
            points[unit] = _default(str(positive))
            remarks.append(f"threshold by {unit} is {DEFAULT_THRESHOLD:g}: {error}")
    return Decisions(temperature, points, tuple(remarks))


def levels_of(answers: Answers, *, temperature: float | None, pool: PoolingRule, units: Sequence[Unit]) -> list[Level]:
    """Images and, where `units` asks for them, subjects with their images pooled.

    Args:
        answers: one part.
        temperature: that validation gave; None: nothing is calibrated.
        pool: of a subject's images to one decision.
        units: image, or image and subject.

    Raises:
        MetricError: by subject, and a subject's images have different labels.
    """
    levels = {
        "image": lambda: by_image(answers, temperature),
        "subject": lambda: by_subject(answers, temperature, pool),
    }
    return [levels[unit]() for unit in units]


def by_image(answers: Answers, temperature: float | None = None) -> Level:
    """Every image counts once."""
    calibrated = None if temperature is None else answers.calibrated(temperature)
    return Level("image", answers.ids, answers.subjects, answers.truth, answers.probabilities, calibrated)


def why_not_by_subject(answers: Answers) -> str:
    """Why images can't be pooled by subject, or need not; empty where they can."""
    if len(set(answers.subjects)) == len(answers.ids):
        return "every image counts as a subject of its own: there are no figures by subject beside those by image"
    try:
        pool_by_subject(answers.probabilities, answers.subjects, truth=answers.truth)
    except MetricError as error:
        return f"no figures by subject: {error}"
    return ""


def by_subject(answers: Answers, temperature: float | None = None, pool: PoolingRule = "mean") -> Level:
    """Every subject counts once, with the pooled probabilities of its images.

    Raises:
        MetricError: a subject's images have different labels.
    """
    pooled = pool_by_subject(answers.probabilities, answers.subjects, pool, truth=answers.truth)
    calibrated = None
    if temperature is not None:
        calibrated = pool_by_subject(answers.calibrated(temperature), answers.subjects, pool).probabilities
    truth = np.asarray(pooled.truth)
    return Level("subject", pooled.subjects, pooled.subjects, truth, pooled.probabilities, calibrated)


def _chosen(validation: Answers, unit: Unit, positive: str, config: ClassEvaluateConfig) -> OperatingPoint:
    level = by_image(validation) if unit == "image" else by_subject(validation, pool=config.pool)
    least = config.least if config.rule in ("sensitivity", "specificity") else None
    return choose_threshold(
        level.truth, level.probabilities, validation.classes, positive=positive, rule=config.rule, least=least
    )


def _default(positive: str) -> OperatingPoint:
    return OperatingPoint(DEFAULT_RULE, DEFAULT_THRESHOLD, *(math.nan,) * 3, 0, positive)
