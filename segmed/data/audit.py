"""A data set -> every file opened: facts about the cases, and findings: what must be repaired or checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segmed.data.case import Case
from segmed.data.cases import Dataset
from segmed.data.findings import Finding
from segmed.data.fingerprint import CaseFacts
from segmed.data.integrity import CaseReport, check_case, check_together
from segmed.data.mixed_colours import mixed_colours
from segmed.data.processes import map_in_processes
from segmed.data.repair import Repair, fix_geometry
from segmed.errors import DatasetError
from segmed.files import write_json

__all__ = ["Audit", "CaseFacts", "DatasetError", "Finding", "Repair", "audit_dataset", "fix_geometry"]


@dataclass(frozen=True)
class Audit:
    """The result of an audit: facts and findings.

    Attributes:
        facts: of the cases whose images can be used, in the order of the data set.
        findings: errors first, then in the order of the cases.
        modalities: names of the images.
        labels: names of the labels.
        miniatures: case -> its first image, small, used to find copies; not saved in the file.
    """

    facts: tuple[CaseFacts, ...]
    findings: tuple[Finding, ...]
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    miniatures: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that must be repaired."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "errors": len(self.errors),
            "warnings": len(self.findings) - len(self.errors),
            "kinds": dict(Counter(finding.kind for finding in self.findings)),
            "modalities": list(self.modalities),
            "labels": list(self.labels),
            "findings": [asdict(finding) for finding in self.findings],
            "cases": [facts.to_dict() for facts in self.facts],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Audit:
        """From `to_dict`."""
        return cls(
            facts=tuple(CaseFacts.from_dict(facts) for facts in data["cases"]),
            findings=tuple(Finding(**finding) for finding in data["findings"]),
            modalities=tuple(data["modalities"]),
            labels=tuple(data["labels"]),
        )

    def save_json(self, path: Path | str) -> None:
        """Write the audit to a file, completely or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> Audit:
        """Read what `save_json` wrote.

        Raises:
            DatasetError: the file is missing or is no audit.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path} is no audit ({type(error).__name__}): make it with segmed audit") from error


def audit_dataset(
    dataset: Dataset, *, workers: int = 1, progress: bool = False, other_findings: Sequence[Finding] = ()
) -> Audit:
    """Open every file of a data set once.

    Args:
        dataset: its cases; they may be a part of it, say those of training.
        workers: processes; 1: this one.
        progress: show a bar on stderr.
        other_findings: findings from other parts of an audit, e.g. `integrity.check_files`.

    Raises:
        DatasetError: no case, or a worker was killed.
    """
    if not dataset.cases:
        raise DatasetError(f"{dataset.root} has no cases: check data.root and data.layout")
    labelled = any(case.label is not None for case in dataset.cases)
    check = partial(_check, dataset=dataset, labelled=labelled)
    columns = (TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    reports: list[CaseReport] = []
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        for report in bar.track(_reports(check, dataset.cases, workers), total=len(dataset.cases)):
            reports.append(report)
    facts = tuple(report.facts for report in reports if report.facts is not None)
    findings = [*other_findings, *(finding for report in reports for finding in report.findings)]
    findings += check_together(facts, dataset.labels)
    findings += mixed_colours({case.id: report.coloured for case, report in zip(dataset.cases, reports, strict=True)})
    findings.sort(key=lambda finding: finding.severity != "error")
    small = {report.facts.id: report.small for report in reports if report.facts and report.small is not None}
    return Audit(facts, tuple(findings), dataset.modalities, dataset.labels.names, small)


def _check(case: Case, *, dataset: Dataset, labelled: bool) -> CaseReport:
    expected = labelled and case.id not in dataset.unlabelled
    return check_case(
        case, modalities=dataset.modalities, labels=dataset.labels, labelled=expected, incomplete=dataset.incomplete
    )


def _reports(check: Callable[[Case], CaseReport], cases: Sequence[Case], workers: int) -> Iterator[CaseReport]:
    """The report of every case, in their order."""
    workers = min(workers, len(cases))
    if workers <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the work comes in small pieces: on a busy machine two threads took ten times as long
        try:
            yield from map(check, cases)
        finally:
            torch.set_num_threads(threads)
        return
    yield from map_in_processes(check, cases, workers=workers)
