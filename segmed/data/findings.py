"""Findings of an audit of a data set: one line each, with what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """Something in a data set that must be repaired (error) or checked (warning).

    Attributes:
        severity: `error`: training is impossible, or a result would be wrong.
        case: id of the case; empty where the finding is about the whole data set.
        what: the fault, and where it is.
        fix: what to do.
        kind: name of this sort of finding, e.g. `grid`, `unreadable`.
    """

    severity: Severity
    case: str
    what: str
    fix: str
    kind: str


def from_error(error: Exception, *, case: str, kind: str) -> Finding:
    """An error as a finding; segmed's errors end in `: what to do`."""
    line = " ".join(str(error).split()).removeprefix(f"case {case}: ")
    what, colon, fix = line.rpartition(": ")
    if not colon:
        what, fix = line, "repair the file or leave the case out"
    return Finding("error", case, what, fix, kind)
