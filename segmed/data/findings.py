"""What an audit says of a data set: one line each, with what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """Something in a data set that must be mended (error) or looked at (warning).

    Attributes:
        severity: `error`: training or a figure would be wrong or impossible.
        case: id of the case; empty where the finding is about the whole data set.
        what: what was found, and where.
        fix: what to do.
        kind: what findings of one sort share, e.g. `grid`, `unreadable`.
    """

    severity: Severity
    case: str
    what: str
    fix: str
    kind: str


def from_error(error: Exception, *, case: str, kind: str) -> Finding:
    """An error as a finding; our errors end in `: what to do`."""
    line = " ".join(str(error).split())
    what, colon, fix = line.rpartition(": ")
    if not colon:
        what, fix = line, "repair the file or leave the case out"
    return Finding("error", case, what, fix, kind)
