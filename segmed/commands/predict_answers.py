"""What segmed predict says of each case, and what it writes when all are done."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from segmed.errors import DiskError
from segmed.files import printable
from segmed.segment.conveyor import Waiting
from segmed.segment.record import CaseReport, Record


class Answers:
    """A line of answer a case, as soon as it is done.

    Args:
        record: to which every case is added first.
        total: number of cases; 0: nobody knows.

    Attributes:
        all: reports so far.
        waiting: what the network did with its time.
    """

    def __init__(self, record: Record, total: int) -> None:
        self.record = record
        self.total = total
        self.waiting = Waiting()
        self.all: list[CaseReport] = []

    @property
    def failed(self) -> list[CaseReport]:
        return [report for report in self.all if report.status == "failed"]

    def tell(self, report: CaseReport) -> None:
        """Note a case and print its line; the thread that writes label maps calls it."""
        from segmed.reports.segmentation.trust_table import flag_words

        of_all = f"/{self.total}" if self.total else ""
        self.record.add(report)
        self.all.append(report)
        outcome = {"done": f"{report.seconds:.1f} s", "kept": "done before"}.get(
            report.status, f"failed: {report.error}"
        ) + flag_words(report.trust)
        print(printable(f"[{len(self.all)}{of_all}] {report.case}: {outcome}"), flush=True)
        if report.missing:
            print(printable(f"{report.case} lacks {', '.join(report.missing)}: predicted without"), file=sys.stderr)
        if report.warning is not None:
            print(f"warning: {report.case} is {report.warning}", file=sys.stderr)

    def follow(self, reports: Iterable[CaseReport]) -> None:
        """Let all cases be done; the record is whole afterwards, also where it is stopped."""
        try:
            deque(reports, maxlen=0)
        except BaseException:
            with suppress(DiskError):
                self.record.end()
            raise
        if not self.waiting.network_s:
            self.record.end()
            return
        self.record.end(waiting={name: round(value, 3) for name, value in asdict(self.waiting).items()})
        print(self.waiting)

    def end(self, output: Path, classes: tuple[str, ...], *, trusted: bool, started: float) -> int:
        """Write the tables and the page, and sum up; gives the exit code, 1 where a case failed."""
        from segmed.reports.prediction.page import write_prediction_page
        from segmed.reports.segmentation.trust_table import write_trust

        present = self.record.present()
        write_classes(output, classes, [report for report in present if tuple(report.classes) == classes])
        calibrations = {report.trust.get("calibration") for report in self.all if report.trust}
        judged = [(each.case, each.trust) for each in present if each.trust.get("calibration") in calibrations]
        if trusted and judged:
            print(write_trust(output, judged))
        page = write_prediction_page(output)
        print(
            f"{len(self.all) - len(self.failed)} of {len(self.all)} label maps in {output}, "
            f"{time.perf_counter() - started:.0f} s; how they were made: {self.record.path}; to look at: {page}"
        )
        self.print_failures()
        return 1 if self.failed else 0

    def print_failures(self) -> None:
        """The cases that failed, once more."""
        if self.failed:
            print(f"{len(self.failed)} failed:", file=sys.stderr)
        for report in self.failed:
            print(printable(f"  {report.case}: {report.error}"), file=sys.stderr)


def write_classes(output: Path, classes: tuple[str, ...], reports: Sequence[CaseReport]) -> None:
    """classes.csv: the class of each case and its probabilities."""
    if not classes or not reports:
        return
    import numpy as np

    from segmed.evaluate.answers import save_predictions
    from segmed.reports.classification.second_head import TABLE

    probabilities = np.array([[report.classes[name] for name in classes] for report in reports])
    logits = np.log(probabilities.clip(np.finfo(float).tiny))
    save_predictions(output / TABLE, classes, [report.case for report in reports], logits)
    print(f"classes of {len(reports)} cases in {output / TABLE}")


def say_label_maps(path: Path) -> None:
    """Name the files of the input that are label maps by their names, and are left out."""
    from segmed.data.cases import find_volumes
    from segmed.data.inputs import label_maps
    from segmed.volumes import is_dicom_folder

    if not path.is_dir() or is_dicom_folder(path):
        return
    left_out = label_maps(find_volumes(path), path)
    if left_out:
        names = ", ".join(file.name for file in left_out[:3]) + (" ..." if len(left_out) > 3 else "")
        print(f"{len(left_out)} label maps are no inputs and are left out: {names}", file=sys.stderr)
