"""Families of tests -> which p-values can say something, and their correction within each family."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segmed.errors import RunError
from segmed.metrics.statistics import holm

LEVEL = 0.05


@dataclass(frozen=True)
class Family:
    """Methods that answer one question.

    Attributes:
        name: in tables.
        methods: that are tested.
        against: method that each is tested against.
    """

    name: str
    methods: tuple[str, ...]
    against: str


@dataclass(frozen=True)
class CorrectedP:
    """The p-values of one test, as far as they can say something.

    Attributes:
        p, p_holm: as it is, and corrected within its family; None where it could not be below 0.05 whatever the data.
        tests: of its family.
        no_p: why one is None; None where none is.
    """

    p: float | None
    p_holm: float | None
    tests: int
    no_p: str | None


def one_family(methods: Sequence[str], reference: str) -> tuple[Family, ...]:
    """All methods against the reference."""
    return (Family("all methods", tuple(name for name in methods if name != reference), reference),)


def check_families(families: Sequence[Family], methods: Sequence[str]) -> None:
    """See that every family names methods that are compared, each once.

    Raises:
        RunError: one does not.
    """
    tested = [name for family in families for name in family.methods]
    for name in [*tested, *(family.against for family in families)]:
        if name not in methods:
            raise RunError(f"family of '{name}': no method is called so: choose from {', '.join(methods)}")
    if twice := next((name for name in tested if tested.count(name) > 1), None):
        raise RunError(f"method '{twice}' stands in two families: choose one")


def against_of(families: Sequence[Family]) -> Mapping[str, Family]:
    """Method -> its family."""
    return {name: family for family in families for name in family.methods}


def smallest_p(units: int, tests: int = 1) -> float:
    """The smallest that an exact two-sided signed-rank test can give, corrected for a number of tests."""
    return min(1.0, tests * 2.0 ** (1 - units))


def correct(p_values: Sequence[float | None], units: Sequence[int]) -> list[CorrectedP]:
    """The p-values of a family, each where it can be below 0.05.

    Args:
        p_values: of the tests; None: not done.
        units: subjects of each.
    """
    tests = sum(p is not None for p in p_values)
    adjusted = holm([math.nan if p is None else p for p in p_values])
    done = []
    for p, other, count in zip(p_values, adjusted, units, strict=True):
        if p is None or smallest_p(count) >= LEVEL:
            done.append(CorrectedP(None, None, tests, f"{count} subjects: no p can be below {LEVEL:g}"))
        elif (least := smallest_p(count, tests)) >= LEVEL:
            why = f"{count} subjects and {tests} tests: no corrected p can be below {least:.2g}"
            done.append(CorrectedP(p, None, tests, why))
        else:
            done.append(CorrectedP(p, other, tests, None))
    return done
