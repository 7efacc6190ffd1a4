"""The prediction of a folder in shards: which cases each takes, the record of each, and their merge into one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.data.inputs import Input
from segmed.errors import JobError
from segmed.files import write_json
from segmed.jobs.job import Job, Needs, Plan
from segmed.segment.record import CaseReport, Record, read_record, report_of


@dataclass(frozen=True)
class Shards:
    """The shards of a prediction, in the folder `jobs/shards` of its output.

    Attributes:
        output: folder of the label maps.
    """

    output: Path

    @property
    def folder(self) -> Path:
        """Where their records lie."""
        return self.output / "jobs" / "shards"

    @property
    def dealt(self) -> Path:
        """Which cases there are, and which shard takes each."""
        return self.folder / "cases.json"

    def record(self, shard: int) -> Path:
        """What became of the cases of a shard, as prediction.json; written after every case."""
        return self.folder / f"{shard}.json"

    def whole(self, shard: int) -> Path:
        """The file that a shard writes last."""
        return self.folder / f"{shard}_whole.json"

    def cases(self) -> list[dict[str, Any]]:
        """Case, its files, its output below the folder and its shard, in the order of the inputs.

        Raises:
            JobError: the list is missing or damaged.
        """
        try:
            cases = json.loads(self.dealt.read_text(encoding="utf-8"))["cases"]
            return [
                {
                    "case": str(each["case"]),
                    "inputs": [str(path) for path in each["inputs"]],
                    "output": str(each["output"]),
                    "shard": int(each["shard"]),
                }
                for each in cases
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JobError(f"{self.dealt} is missing or damaged: give segmed predict --on again") from error

    def divide(self, inputs: Sequence[Input], count: int, *, again: bool) -> int:
        """Deal the inputs out to the shards, unless that was done before for the same ones; how many shards there are.

        Args:
            inputs: all cases.
            count: of shards, no more than there are cases.
            again: forget what earlier shards did.
        """
        count = max(1, min(count, len(inputs)))
        cases = [
            {
                "case": each.case.id,
                "inputs": [str(path.absolute()) for path in each.paths],
                "output": str(each.output),
                "shard": number % count,
            }
            for number, each in enumerate(inputs)
        ]
        if self.dealt.is_file() and not again and self.cases() == cases:
            return count
        if self.dealt.is_file():
            merge(self)  # what the shards of an earlier plan did counts
            shutil.rmtree(self.folder)
        write_json(self.dealt, {"shards": count, "cases": cases})
        return count

    def inputs_of(self, shard: int, inputs: Sequence[Input]) -> tuple[list[Input], list[CaseReport]]:
        """The inputs that a shard takes, and reports of those that are not there any more."""
        there = {str(each.output): each for each in inputs}
        own = [each for each in self.cases() if each["shard"] == shard]
        if not own:
            raise JobError(f"{self.dealt} names no cases of shard {shard}: give segmed predict --on again")
        gone = [each for each in own if each["output"] not in there]
        return [there[each["output"]] for each in own if each["output"] in there], [_vanished(each) for each in gone]

    def end(self, shard: int, reports: Sequence[CaseReport]) -> None:
        """Write that a shard is whole."""
        failed = [report.case for report in reports if report.status == "failed"]
        write_json(self.whole(shard), {"cases": len(reports), "failed": failed})


def _vanished(case: Mapping[str, Any]) -> CaseReport:
    files = tuple(case["inputs"])
    error = f"{files[0]} vanished after the shards were planned: put it back, and give the same command again"
    return CaseReport(str(case["case"]), files, "", "failed", error=error)


def plan_of_shards(shards: Shards, count: int, words: Sequence[str], again: Sequence[str], needs: Needs) -> Plan:
    """The jobs of a prediction: one a shard, and one that merges their records.

    Args:
        shards: of the prediction.
        count: how many.
        words: of the command line that predicts, without its engine.
        again: words of the command line that goes on.
        needs: of one shard.
    """
    jobs = [
        Job(
            f"shard_{number}",
            (*words, "--shard", str(number)),
            shards.folder / str(number),
            shards.whole(number),
            needs,
        )
        for number in range(count)
    ]
    after = tuple(job.name for job in jobs)
    merged = Job("merge", (*words, "--merge"), shards.output, shards.folder / "merged.json", Needs(1), after)
    return Plan(f"prediction of {count} shards", shards.output, (*jobs, merged), tuple(again))


def merge(shards: Shards) -> list[CaseReport]:
    """Write prediction.json of what all shards did so far, in the order of the inputs; the reports of these cases.

    Where no shard has done a case nothing is written.
    """
    about: dict[str, Any] = {}
    reports: dict[tuple[int, str], CaseReport] = {}
    for number in sorted({each["shard"] for each in shards.cases()}):
        for said, report in _reports(shards.record(number)):
            about = about or said
            reports[number, report.case] = report
    if not about:
        return []
    ordered = [
        reports[each["shard"], each["case"]] for each in shards.cases() if (each["shard"], each["case"]) in reports
    ]
    write_json(shards.output / Record.NAME, {**about, "cases": [report.to_dict() for report in ordered]})
    return ordered


def _reports(path: Path) -> Iterator[tuple[dict[str, Any], CaseReport]]:
    """What a record says of the runs and settings, with each of its cases; nothing where it is missing or damaged."""
    try:
        data = read_record(path)
        cases = [report_of(each) for each in data.pop("cases")]
        for of_a_call in ("begun", "waiting"):
            data.pop(of_a_call, None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    yield from ((data, case) for case in cases)
