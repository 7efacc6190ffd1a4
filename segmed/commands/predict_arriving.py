"""segmed predict as a service: cases from standard input, or from a folder that is watched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segmed.commands.predict_answers import Answers
from segmed.config import DataConfig
from segmed.data.arriving import Arrival, from_folder, from_lines
from segmed.data.content import case_files
from segmed.data.inputs import Input
from segmed.errors import SegmenterError
from segmed.files import bounds
from segmed.segment.outputs import Extras, check_outputs
from segmed.segment.record import CaseReport, place_of


@dataclass(frozen=True)
class Service:
    """Predicts what arrives, one case after the other, by a model that is loaded.

    Attributes:
        predict: cases -> their reports.
        answers: to whom a path without a case is told, and whose record says what is done.
        output: folder of the label maps.
        replace: label maps that are there may be replaced.
        extras: written beside the label maps.
        as_dicom_seg: the label maps are DICOM-SEG objects, with names of their own.
    """

    predict: Callable[[Sequence[Input]], Iterator[CaseReport]]
    answers: Answers
    output: Path
    replace: bool
    extras: Extras
    as_dicom_seg: bool = False

    def reports(self, folder: Path | None, data: DataConfig) -> Iterator[CaseReport]:
        """A report a case, as soon as it is done.

        Args:
            folder: that is watched until Ctrl-C or SIGTERM; none: paths come on standard input.
            data: of the run, resolved.
        """
        if folder is None:
            yield from self._reports(from_lines(sys.stdin.buffer, data, output=self.output))
            return
        print(f"watching {folder}: Ctrl-C or SIGTERM ends it", file=sys.stderr, flush=True)
        try:
            yield from self._reports(from_folder(folder, data, output=self.output))
        except KeyboardInterrupt:
            print("stopped: what is done is kept", file=sys.stderr)

    def _reports(self, arrivals: Iterable[Arrival]) -> Iterator[CaseReport]:
        record = self.answers.record
        for arrival in arrivals:
            try:
                inputs = self._checked(arrival)
            except (ValueError, OSError) as error:
                line = " ".join(str(error).split())
                report = CaseReport(arrival.name, (arrival.name,), "", "failed", error=line)
                self.answers.tell(report)
                yield report
                continue
            record.reports.pop(arrival.name, None)  # a path that failed before
            with bounds(self.output, inputs=case_files(item.case for item in inputs)):
                for report in self.predict(inputs):
                    if report.output is not None:
                        place = place_of(Path(report.output))
                        record.done[place] = record.own[place] = report
                    yield report

    def _checked(self, arrival: Arrival) -> Sequence[Input]:
        """The cases of an arrival, whose label maps can be written and replace none of another image.

        Raises:
            SegmenterError: there are none, or they can not.
        """
        if arrival.error is not None:
            raise SegmenterError(arrival.error)
        inputs: Sequence[Input] = arrival.inputs
        if self.as_dicom_seg:
            from segmed.export.dicom_seg import with_seg_names

            inputs = with_seg_names(inputs)
        for item in inputs:
            done = self.answers.record.done.values()
            before = next((report for report in done if report.case == item.case.id), None)
            if before is not None and not before.is_of(item.paths):
                raise SegmenterError(
                    f"{item.paths[0]} and {before.inputs[0]}, done before, have one name in {self.output}: rename "
                    "one, or predict them apart"
                )
        check_outputs(inputs, self.output, replace=self.replace, earlier=self.answers.record.own, extras=self.extras)
        return inputs
