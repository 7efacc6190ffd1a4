"""A data set -> every file opened: facts about the cases, and findings: what must be repaired or checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segmed.data.audit_memory import AuditMemory, Expected, Miniatures, without_miniature
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

MANY = 1000  # cases of which a worker gets several at once


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
    dataset: Dataset,
    *,
    workers: int = 1,
    progress: bool = False,
    other_findings: Sequence[Finding] = (),
    memory: Path | None = None,
) -> Audit:
    """Open every file of a data set once.

    Args:
        dataset: its cases; they may be a part of it, say those of training.
        workers: processes; 1: this one.
        progress: show a bar on stderr.
        other_findings: findings from other parts of an audit, e.g. `integrity.check_files`.
        memory: folder of a cache, where reports are kept: a case whose files are the same is not opened again; None:
            nothing is kept.

    Raises:
        DatasetError: no case, or a worker was killed.
    """
    if not dataset.cases:
        raise DatasetError(f"{dataset.root} has no cases: check data.root and data.layout")
    look = _Look(AuditMemory(memory), dataset)
    columns = (TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        reports, keys = _reports(look, dataset.cases, workers, bar)
    facts = tuple(report.facts for report in reports if report.facts is not None)
    findings = [*other_findings, *(finding for report in reports for finding in report.findings)]
    findings += check_together(facts, dataset.labels)
    findings += mixed_colours({case.id: report.coloured for case, report in zip(dataset.cases, reports, strict=True)})
    findings.sort(key=lambda finding: finding.severity != "error")
    small = {
        report.facts.id: key
        for case, report, key in zip(dataset.cases, reports, keys, strict=True)
        if report.facts is not None and dataset.modalities[0] in case.images  # a miniature is of the first image
    }
    return Audit(facts, tuple(findings), dataset.modalities, dataset.labels.names, Miniatures(look.memory, small))


class _Look:
    """Opens one case, in this process or in a worker, unless the memory has it.

    Args:
        memory: of reports.
        dataset: whose cases are opened; a worker gets what they are compared with, not all of them with each.
    """

    def __init__(self, memory: AuditMemory, dataset: Dataset) -> None:
        self.memory, self.modalities, self.labels = memory, dataset.modalities, dataset.labels
        self.labelled = any(case.label is not None for case in dataset.cases)
        self.unlabelled = frozenset(dataset.unlabelled)
        self.incomplete = dataset.incomplete
        self.expected = Expected(dataset.modalities, dataset.labels, dataset.incomplete).digest()

    def expects_label(self, case: Case) -> bool:
        return self.labelled and case.id not in self.unlabelled

    def noted(self, case: Case) -> str | None:
        """Its key, where no file has to be read for that."""
        return self.memory.noted_key(case, self.expected, labelled=self.expects_label(case))

    def __call__(self, case: Case) -> tuple[str | None, CaseReport, bool]:
        """Its key, its report, and whether that was there: its files may only have been touched."""
        labelled = self.expects_label(case)
        key = self.memory.key(case, self.expected, labelled=labelled)
        known = {} if key is None else self.memory.recall({key: case})
        if key in known:
            return key, known[key], True
        report = check_case(
            case, modalities=self.modalities, labels=self.labels, labelled=labelled, incomplete=self.incomplete
        )
        return key, report, False


def _reports(look: _Look, cases: Sequence[Case], workers: int, bar: Progress) -> tuple[list[CaseReport], list[str]]:
    """The report of every case, without its miniature, and its key in the memory, in the order of the cases."""
    task = bar.add_task("", total=len(cases))
    keys = [look.noted(case) for case in cases]
    known = look.memory.recall({key: case for key, case in zip(keys, cases, strict=True) if key is not None})
    open_again = [index for index, key in enumerate(keys) if key not in known]
    bar.advance(task, len(cases) - len(open_again))
    reports = {index: known[key] for index, key in enumerate(keys) if key is not None and key in known}
    for index, (key, report, there) in zip(
        open_again, _opened(look, [cases[index] for index in open_again], workers), strict=True
    ):
        keys[index] = key or f"{index}"
        if not there:
            look.memory.keep(str(keys[index]), cases[index], report)
        reports[index] = without_miniature(report)
        bar.advance(task)
    look.memory.flush()
    return [reports[index] for index in range(len(cases))], [str(key) for key in keys]


def _opened(look: _Look, cases: Sequence[Case], workers: int) -> Iterator[tuple[str | None, CaseReport, bool]]:
    workers = min(workers, len(cases))
    if workers <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the work comes in small pieces: on a busy machine two threads took ten times as long
        try:
            yield from map(look, cases)
        finally:
            torch.set_num_threads(threads)
        return
    yield from map_in_processes(look, cases, workers=workers, chunk=1 if len(cases) < MANY else 16)
