"""Checks before methods are compared: common cases and labels, one policy for misses, warnings for the reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from segmed.errors import RunError
from segmed.evaluate.families import correct
from segmed.evaluate.results import Method, Result, first_few
from segmed.metrics.statistics import FEWEST_PAIRS, holm


def check_names(methods: Sequence[Method], reference: str) -> None:
    """See that there are several methods, each with a name of its own and results, the reference among them.

    Raises:
        RunError: they are not.
    """
    names = [method.name for method in methods]
    if len(names) < 2:
        raise RunError("one method alone can't be compared: give two or more")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RunError(f"method '{twice}' is given twice: give all its runs at once, or another name")
    if reference not in names:
        raise RunError(f"no method is called '{reference}': the reference is one of {', '.join(names)}")
    if empty := next((method.name for method in methods if not method.results), None):
        raise RunError(f"method '{empty}' has no results: give a run or an evaluation")


def check_policy(methods: Sequence[Method]) -> None:
    """See that the distance of a miss means the same everywhere.

    Raises:
        RunError: it does not.
    """
    of_policy = {result.missed: result.source for m in methods for result in m.results if result.missed is not None}
    if len(of_policy) > 1:
        shown = " and ".join(f"'{policy}' in {source}" for policy, source in of_policy.items())
        raise RunError(f"a miss counts as {shown}: evaluate all with the same evaluate.missed")


def shared_cases(methods: Sequence[Method], *, common_only: bool = False) -> tuple[tuple[str, ...], list[str]]:
    """What all results were tested on, in the order of the first.

    Args:
        methods: to compare.
        common_only: leave out what not all were tested on.

    Returns:
        Case ids, and a note where cases are left out.

    Raises:
        RunError: not all were tested on the same, or nothing is common.
    """
    results = [(method, result) for method in methods for result in method.results]
    tested = [{row["case"] for row in result.rows} for _, result in results]
    every = list(dict.fromkeys(row["case"] for _, result in results for row in result.rows))
    for (method, result), own in zip(results, tested, strict=True):
        missing = [case for case in every if case not in own]
        if missing and not common_only:
            other = next(other for (_, other), cases in zip(results, tested, strict=True) if missing[0] in cases)
            raise RunError(
                f"method '{method.name}': {result.source} was not tested on {len(missing)} of {len(every)} cases, "
                f"{first_few(missing)}, as {other.source} was: compare runs of the same split, or add --common-cases"
            )
    common = tuple(case for case in every if all(case in own for own in tested))
    if not common:
        raise RunError("the methods have no test case in common: compare runs of the same split")
    if len(common) == len(every):
        return common, []
    out = first_few([case for case in every if case not in set(common)])
    return common, [f"only {len(common)} of {len(every)} cases, those that all were tested on; left out: {out}"]


def common_labels(methods: Sequence[Method]) -> dict[str, str]:
    """Label -> kind, the same for all results.

    Raises:
        RunError: one has others.
    """
    first = methods[0].results[0]
    kinds = {row["label"]: row["kind"] for row in first.rows}
    for method in methods:
        for result in method.results:
            if differing := sorted({row["label"] for row in result.rows} ^ set(kinds)):
                raise RunError(
                    f"method '{method.name}': {result.source} and {first.source} have different labels, "
                    f"{first_few(differing)} in one alone: score the same with segmed evaluate --labels"
                )
    return kinds


def warnings(methods: Sequence[Method], subjects: int, tests: int) -> list[str]:
    """What would mislead a reader who does not know it, a sentence each.

    Args:
        methods: that are compared.
        subjects: how many there are among the cases.
        tests: how many p-values are corrected for.
    """
    notes = list(dict.fromkeys(remark for method in methods for r in method.results for remark in r.remarks))
    trained = [method for method in methods if not method.constant]
    if len({len(method.results) for method in trained}) > 1:
        numbers = ", ".join(f"{method.name} {len(method.results)}" for method in trained)
        notes.append(f"different numbers of runs: {numbers}")
    for method in methods:
        seeds = [result.seed for result in method.results if result.seed is not None]
        if len(set(seeds)) < len(seeds):
            notes.append(f"runs of {method.name} share a seed: they are no independent repetitions")
    notes += _differing(methods, "training budgets", lambda result: result.budget)
    if len({result.training for method in methods for result in method.results if result.training}) > 1:
        numbers = ", ".join(f"{method.name} {training_text(method)}" for method in methods if training_text(method))
        notes.append(f"not trained on the same cases: {numbers}")
    notes += [f"{note}: times do not compare" for note in _differing(methods, "devices", lambda result: result.device)]
    if subjects < FEWEST_PAIRS:
        notes.append(f"{subjects} subjects are too few for a paired test: none is done below {FEWEST_PAIRS}")
    elif (least := tests * 2.0 ** (1 - subjects)) > 0.05:
        notes.append(f"with {subjects} subjects and {tests} tests no corrected p can be below {min(least, 1.0):.2g}")
    return notes


def _differing(methods: Sequence[Method], what: str, of: Callable[[Result], str | None]) -> list[str]:
    said = {method.name: dict.fromkeys(filter(None, map(of, method.results))) for method in methods}
    if len({text for texts in said.values() for text in texts}) < 2:
        return []
    shown = "; ".join(f"{name}: {' and '.join(texts)}" for name, texts in said.items() if texts)
    return [f"different {what} ({shown})"]


def training_text(method: Method) -> str:
    """Number of training cases, of each fold where there are several; empty where it is not known."""
    sizes = sorted({len(part) for result in method.results for part in result.training})
    return " to ".join(dict.fromkeys(str(size) for size in (sizes[0], sizes[-1]))) if sizes else ""


# ---------------------------------------------------------------- figures that may not exist


def or_none(value: float) -> float | None:
    """None for NaN."""
    return None if math.isnan(value) else value


def interval_or_none(low: float, high: float) -> tuple[float, float] | None:
    """None where an end does not exist."""
    return None if math.isnan(low) or math.isnan(high) else (low, high)


def corrected(p_values: Sequence[float | None], *, units: int | None = None) -> list[float | None]:
    """Holm's correction over one family of tests; None where there is no test, or no p can be below 0.05.

    Args:
        p_values: None: not tested.
        units: cases of an exact test of signs; None: the test has no least p.
    """
    if units is not None:
        return [one.p_holm for one in correct(p_values, [units] * len(p_values))]
    return [or_none(p) for p in holm([math.nan if p is None else p for p in p_values])]
