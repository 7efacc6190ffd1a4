"""prediction.json: by what the label maps of a folder were made, and what became of each case."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from segmed.errors import SegmenterError
from segmed.files import append_line, atomic_write_text, finite, read_lines, remove, write_json

ALWAYS_WHOLE = 100  # cases up to which the whole record is written each time
WHOLE_SHARE = 0.05  # of the time that may go into writing the whole record of more cases


@dataclass(frozen=True)
class CaseReport:
    """What became of one case.

    Attributes:
        case: its name.
        inputs: its files, by absolute paths.
        stamp: sizes and times of the files, by which a later call knows that they are the same.
        status: `done`; `kept`: done before, by the same weights and settings; `failed`.
        output: the label map, if there is one.
        seconds: reading and writing included.
        voxels: of each label.
        volume_ml: of each label; none where the spacing is nominal.
        classes: probability of each class of the case, where the segmenter tells them.
        trust: intervals of volumes, the Dice to expect, a flag and its reason, where the runs are calibrated.
        error: what was wrong.
        missing: images that the case lacks, which it was predicted without.
        warning: what makes the label map doubtful, such as an image unlike all that the run learned from.
    """

    case: str
    inputs: tuple[str, ...]
    stamp: str
    status: Literal["done", "kept", "failed"]
    output: str | None = None
    seconds: float = 0.0
    voxels: Mapping[str, int] = field(default_factory=dict)
    volume_ml: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    trust: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    warning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON, without what is empty."""
        return {key: value for key, value in asdict(self).items() if value not in (None, {}, ())}

    def is_of(self, paths: Iterable[Path]) -> bool:
        """Whether it is of these files, and not of others of the same names; a relative path does not tell."""
        noted = [Path(path) for path in self.inputs]
        return not all(path.is_absolute() for path in noted) or set(map(place_of, noted)) == set(map(place_of, paths))


def place_of(path: Path) -> str:
    """Where a file is, the same from whichever folder it is named."""
    return str(path.resolve())


class Record:
    """`prediction.json`: by what the label maps of a folder were made, and what became of each case.

    Each case is noted as soon as it is done, so that the same call goes on where it was stopped. Up to a hundred cases
    the whole record is written each time. Of more that would take ever longer: a case is then a line that is appended
    to `prediction.jsonl`, and the whole is written now and then, and by `end`, which removes the lines.

    Args:
        output: folder of the label maps.
        about: `runs` and `settings`, which decide whether a case has to be done again, and whatever else is worth
            knowing.
        overwrite: do everything again.
        path: of the record of a shard, which goes on from that of the whole; none: of the whole.

    Attributes:
        done: reports of label maps that the same runs and settings have made, by the place of the label map.
        own: what may be replaced, by the place of the label map: the reports of `done`, and None for what an earlier
            call had begun to write when it was killed.
        others: places of label maps that other runs or settings made, which --overwrite replaces.

    Raises:
        SegmenterError: the folder holds label maps of other runs or settings, and may not be overwritten.
    """

    NAME = "prediction.json"

    def __init__(
        self, output: Path, about: Mapping[str, Any], *, overwrite: bool = False, path: Path | None = None
    ) -> None:
        self.path, self._output = path or output / self.NAME, output
        self.about = dict(about)
        earlier = self._read(self.path if self.path.exists() else output / self.NAME)
        same = all(
            _without_run_path(earlier.get(key)) == _without_run_path(self.about[key]) for key in ("runs", "settings")
        )
        if earlier and not same and not overwrite:
            raise SegmenterError(
                f"{output} holds label maps of other runs or settings (see {self.NAME}): choose another output "
                "folder, or replace them with --overwrite"
            )
        every = [report_of(data) for data in earlier["cases"]] if earlier else []
        self.others = set() if same else set(self._places(every))
        reports = every if same else []
        self.reports = {report.case: report.to_dict() for report in reports}
        self.done = {} if overwrite else self._places(reports)
        begun = {_present_path(each["begun"], output): str(each["case"]) for each in earlier.get("begun", ()) if same}
        self._begun = {place_of(path): case for path, case in begun.items() if path is not None}
        self.own: dict[str, CaseReport | None] = {**dict.fromkeys(self._begun), **self.done}
        self._whole_took, self._whole_at, self._lines = 0.0, float("-inf"), False

    def _places(self, reports: Iterable[CaseReport]) -> dict[str, CaseReport]:
        """Reports by the place of their label map, of those whose label map is there."""
        whole = [report for report in reports if report.status != "failed"]
        present = [(_present_path(str(report.output), self._output), report) for report in whole]
        return {place_of(path): report for path, report in present if path is not None}

    def present(self) -> list[CaseReport]:
        """Reports of the label maps that are there and that these runs and settings made, earlier calls' too."""
        return list(self._places(map(report_of, self.reports.values())).values())

    def begin(self, path: Path, case: str) -> None:
        """Note that the label map of a case is going to be written, before it is."""
        self._start()
        self._append({"begun": str(path.absolute()), "case": case})

    def add(self, report: CaseReport) -> None:
        """Note a case."""
        self._start()
        self.reports[report.case] = report.to_dict()
        self._begun = {place: case for place, case in self._begun.items() if case != report.case}
        since = time.monotonic() - self._whole_at
        if len(self.reports) <= ALWAYS_WHOLE or self._whole_took < WHOLE_SHARE * since:
            self._write()
        else:
            self._append(self.reports[report.case])

    def end(self, **facts: Any) -> None:
        """Write the whole record, if there is anything to say, with facts about this call."""
        self.about.update(facts)
        if self.reports:
            self._write()

    def _start(self) -> None:
        """Before the first line: lines hold only what `prediction.json` of the same runs and settings lacks."""
        if self._whole_at < 0:
            self._write()

    def _append(self, data: Mapping[str, Any]) -> None:
        if not self._lines:
            append_line(lines_of(self.path), _identity(self.about))
        self._lines = True
        append_line(lines_of(self.path), data)

    def _write(self) -> None:
        began = time.monotonic()
        write_json(self.path, {**self.about, "cases": list(self.reports.values())})
        self._lines = bool(self._begun)
        if self._begun:
            left = [{"begun": place, "case": case} for place, case in self._begun.items()]
            lines = [json.dumps(finite(line)) + "\n" for line in (_identity(self.about), *left)]
            atomic_write_text(lines_of(self.path), "".join(lines))
        else:
            remove(lines_of(self.path))
        self._whole_at = time.monotonic()
        self._whole_took = self._whole_at - began

    def _read(self, path: Path) -> dict[str, Any]:
        """The record of an earlier call; a damaged one is that of other runs."""
        if not path.exists():
            return {}
        try:
            earlier = read_record(path)
            for data in earlier["cases"]:
                report_of(data)
            return {key: earlier[key] for key in ("runs", "settings", "cases", "begun")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"runs": None, "settings": None, "cases": []}


def lines_of(path: Path) -> Path:
    """Where the cases lie that a record does not hold yet, a line each."""
    return path.with_suffix(".jsonl")


def read_record(path: Path) -> dict[str, Any]:
    """A record with its lines: what it says of the runs, `cases`, and what was `begun` and is not known to be done.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: it is missing or damaged.
    """
    whole = json.loads(path.read_text(encoding="utf-8"))
    cases, begun = {str(each["case"]): each for each in whole["cases"]}, dict[str, dict[str, Any]]()
    head, *lines = read_lines(lines_of(path)) or [{}]
    if head and all(_without_run_path(head.get(key)) == _without_run_path(whole[key]) for key in ("runs", "settings")):
        for line in lines:
            if "begun" in line:
                begun[str(line["case"])] = line
            else:
                cases[str(line["case"])] = line
                begun.pop(str(line["case"]), None)
    return {**whole, "cases": list(cases.values()), "begun": list(begun.values())}


def _identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """What decides whether a case has to be done again."""
    return {key: about[key] for key in ("runs", "settings")}


def _without_run_path(about: Any) -> Any:
    """Runs or settings without the paths of the runs: the hash of the weights tells runs apart."""
    if not isinstance(about, list):
        return about
    return [{k: v for k, v in run.items() if k != "run"} if isinstance(run, dict) else run for run in about]


def _present_path(noted: str, output: Path) -> Path | None:
    """Where a label map of the record is now: it may have been written elsewhere, or from another working folder."""
    parts = Path(noted).parts
    tails = [output.joinpath(*parts[start:]) for start in range(len(parts)) if parts[start] not in ("/", "..")]
    return next((path for path in tails if path.is_file()), None)


def report_of(data: Mapping[str, Any]) -> CaseReport:
    """A case of a record.

    Raises:
        ValueError, KeyError, TypeError: it is of another version or damaged.
    """
    lists = {name: tuple(map(str, data.get(name, ()))) for name in ("inputs", "missing")}
    report = CaseReport(**{**data, **lists})
    texts = (report.case, report.stamp, *((report.output,) if report.status != "failed" else ()))
    if report.status not in ("done", "kept", "failed") or not all(isinstance(text, str) for text in texts):
        raise ValueError("not the report of a case")
    return report
