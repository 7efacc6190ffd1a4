"""Answers to test images, and what validation decides -> every figure with its interval, as figures.json has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from segmed.config.classification import ClassEvaluateConfig
from segmed.evaluate.answers import Answers
from segmed.evaluate.decisions import DEFAULT_RULE, UNITS, Level, Unit, decide, levels_of, why_not_by_subject
from segmed.metrics.calibration import calibrated_error, expected_calibration_error
from segmed.metrics.class_figures import OVERALL, PER_CLASS, figures, positive_index
from segmed.metrics.operating_points import OperatingPoint, figures_at
from segmed.metrics.repeated import BIASED
from segmed.metrics.resampling import Interval, intervals
from segmed.metrics.small_samples import Ends, none
from segmed.metrics.statistics import FEWEST_DRAWN, bootstrap_ci, interval_method

SHARES = ("sensitivity", "specificity", "accuracy", "positive_predictive_value", "negative_predictive_value")
COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")

_LEAST = float(np.finfo(np.float64).eps)  # of a probability whose logarithm is taken, as by scikit-learn


def summarise_classification(
    test: Answers, validation: Answers | None, *, config: ClassEvaluateConfig, title: str, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The figures of a tested classifier, as they stand in figures.json.

    Args:
        test, validation, config, title, notes: as in `write_classification`.

    Returns:
        notes, title; remarks: what could not be computed or has to be known; classes, positive, units; test and
        validation: how many images and subjects; temperature; image and, where they differ, subject: majority class
        and share, overall, per_class, confusion, calibration before and after, threshold, undefined. Every figure is
        {"value", "ci95", "ci95_method"}, None where it does not exist.

    Raises:
        RunError, MetricError: as in `write_classification`.
    """
    own = why_not_by_subject(test)
    units: tuple[Unit, ...] = UNITS[:1] if own else UNITS
    decisions = decide(validation, test.classes, config, units=units)
    temperature = decisions.temperature
    value = None if temperature is None else temperature.value
    levels = levels_of(test, temperature=value, pool=config.pool, units=units)
    remarks = [*decisions.remarks, own]
    entries: dict[str, Any] = {}
    for level in levels:
        entries[level.unit], entry_remarks = _entry(level, test.classes, decisions.points.get(level.unit), config)
        remarks += entry_remarks
    target = positive_index(test.classes, config.positive)
    return {
        "notes": list(notes),
        "title": title,
        "remarks": list(dict.fromkeys(remark for remark in remarks if remark)),
        "classes": list(test.classes),
        "positive": None if target is None else test.classes[target],
        "units": list(units),
        "pool": config.pool,
        "test": _part(test),
        "validation": None if validation is None else _part(validation),
        "temperature": None if temperature is None else asdict(temperature),
        **entries,
    }


def levels_shown(test: Answers, summary: Mapping[str, Any]) -> list[Level]:
    return levels_of(test, temperature=temperature_of(summary), pool=summary["pool"], units=summary["units"])


def temperature_of(summary: Mapping[str, Any]) -> float | None:
    return None if summary["temperature"] is None else float(summary["temperature"]["value"])


def _part(answers: Answers) -> dict[str, Any]:
    return {"images": len(answers.ids), "subjects": len(set(answers.subjects)), "minutes": answers.minutes}


def _entry(
    level: Level, classes: tuple[str, ...], point: OperatingPoint | None, config: ClassEvaluateConfig
) -> tuple[dict[str, Any], list[str]]:
    """All figures of one level, and remarks for its reader."""
    point_estimates = figures(level.truth, level.probabilities, classes, positive=config.positive)
    spread = intervals(
        level.truth, level.probabilities, classes, level.subjects, positive=config.positive, resamples=config.bootstrap
    )
    entry = {
        "cases": point_estimates.cases,
        "subjects": spread.subjects,
        "majority_class": point_estimates.majority_class,
        "majority_share": point_estimates.majority_share,
        "overall": {key: _figure(point_estimates.overall[key], spread.overall[key]) for key in OVERALL},
        "per_class": {
            name: {
                "support": own["support"],
                "predicted": own["predicted"],
                **{key: _figure(own[key], spread.per_class[name][key]) for key in PER_CLASS},
            }
            for name, own in point_estimates.per_class.items()
        },
        "confusion": [list(row) for row in point_estimates.confusion],
        "calibration": {
            "before": _calibration(level, level.probabilities, config),
            "after": None if level.calibrated is None else _calibration(level, level.calibrated, config),
        },
        "threshold": None if point is None else _threshold(level, classes, point, config),
        "undefined": list(point_estimates.undefined),
    }
    notes = [f"by {level.unit}: {note}" for note in spread.notes]
    return entry, [*point_estimates.notes, *notes] if level.unit == "image" else notes


def _calibration(level: Level, probabilities: np.ndarray, config: ClassEvaluateConfig) -> dict[str, Any]:
    """Log loss and Brier score, which are means over cases, and the ECE with what it would be if calibrated."""
    truth = np.eye(probabilities.shape[1])[level.truth]
    losses = {
        "log_loss": -np.log(np.clip(probabilities[truth > 0], _LEAST, 1 - _LEAST)),
        "brier": np.square(probabilities - truth).sum(axis=1) / (2 if probabilities.shape[1] == 2 else 1),
    }
    entry = {
        key: _figure(float(values.mean()), _mean_ends(values, level, config.bootstrap))
        for key, values in losses.items()
    }
    chance = calibrated_error(probabilities)
    entry["ece"] = _figure(expected_calibration_error(level.truth, probabilities), none(BIASED))
    entry["ece_if_calibrated"] = _figure(chance.mean, Ends(chance.low, chance.high, "95 % of draws, no interval"))
    return entry


def _mean_ends(losses: np.ndarray, level: Level, resamples: int) -> Ends:
    """Of a loss, which is too skewed for Student's t over few subjects."""
    subjects = len(set(level.subjects))
    if subjects < FEWEST_DRAWN:
        return none(f"below {FEWEST_DRAWN} subjects")
    return Ends(*bootstrap_ci(losses, resamples=resamples, groups=level.subjects), interval_method(subjects))


def _threshold(
    level: Level, classes: tuple[str, ...], point: OperatingPoint, config: ClassEvaluateConfig
) -> dict[str, Any]:
    """What the threshold does on the test part, and what it was chosen on."""
    done = figures_at(
        point, level.truth, level.probabilities, classes, subjects=level.subjects, resamples=config.bootstrap
    )
    chosen = {key: getattr(point, key) for key in ("cases", "sensitivity", "specificity", "accuracy")}
    return {
        "positive": point.positive,
        "value": point.threshold,
        "rule": point.rule,
        "chosen_on": None if point.rule == DEFAULT_RULE else chosen,
        **{key: _figure(getattr(done, key), Ends(*done.ci95[key], done.ci95_method[key])) for key in SHARES},
        **{key: getattr(done, key) for key in COUNTS},
    }


def _figure(value: float, ends: Ends | Interval) -> dict[str, Any]:
    """A figure, its interval and the method of this as JSON has them: None for NaN."""
    return {
        "value": None if np.isnan(value) else float(value),
        "ci95": None if np.isnan(ends.low) or np.isnan(ends.high) else [float(ends.low), float(ends.high)],
        "ci95_method": ends.method,
    }
