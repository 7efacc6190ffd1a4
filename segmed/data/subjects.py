"""Ids of cases -> a warning where the subjects are not known, and groups of ids that look like one subject's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from segmed.data.cases import Dataset
from segmed.data.findings import Finding

UNKNOWN = "subjects are not known: cases are taken as subjects"
EXPRESSIONS = ("^[^_]+", "^[^-]+", "^[^.]+", "^[^_]+_[^_]+", "^[^-]+-[^-_]+", "^.*[0-9]")  # tried in this order
MOST = 12  # scans of one person: more share the name of a hospital or a study
SHOWN = 3


def shared_prefixes(ids: Sequence[str]) -> tuple[str, Mapping[str, int]] | None:
    """A regular expression that may find the subject in ids, and subject -> number of cases; None without such a one.

    Most ids must share their beginning with a few others, and the rest of the name must recur with different
    beginnings: `p1_scan1`, `p1_scan2`, `p2_scan1`, `p2_scan2`.
    """
    for expression in EXPRESSIONS:
        beginnings = {name: match[0] for name in ids if (match := re.search(expression, name))}
        groups = Counter(beginnings.values())
        if len(beginnings) < len(ids) or not 2 <= len(groups) < len(ids) or max(groups.values()) > MOST:
            continue
        rests = Counter(name[len(beginning) :] for name, beginning in beginnings.items())
        together = sum(count for count in groups.values() if count > 1)
        recurring = sum(count for count in rests.values() if count > 1)
        if 2 * together >= len(ids) and 2 * recurring >= len(ids):
            return expression, dict(groups)
    return None


def subject_findings(dataset: Dataset) -> list[Finding]:
    """A warning where subjects are not known, with the expression that would find them if ids share beginnings."""
    if dataset.subjects_known:
        return []
    shared = shared_prefixes([case.id for case in dataset.cases])
    if shared is None:
        fix = "give data.layout.subject, or a manifest with subjects; '.+' says that every case is somebody else"
        return [Finding("warning", "", UNKNOWN, fix, "subjects_unknown")]
    expression, groups = shared
    shown = ", ".join(f"{name} ({count})" for name, count in list(groups.items())[:SHOWN])
    more = " ..." if len(groups) > SHOWN else ""
    what = f"{UNKNOWN}; but {len(dataset.cases)} ids share {len(groups)} beginnings: {shown}{more}"
    fix = f"if these are people, set data.layout.subject to '{expression}'; '.+' says that every case is somebody else"
    return [Finding("warning", "", what, fix, "subjects_unknown")]
