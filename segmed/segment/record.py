"""prediction.json: by what the label maps of a folder were made, and what became of each case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from segmed.errors import SegmenterError
from segmed.files import write_json


@dataclass(frozen=True)
class CaseReport:
    """What became of one case.

    Attributes:
        case: its name.
        inputs: its files.
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


def place_of(path: Path) -> str:
    """Where a file is, the same from whichever folder it is named."""
    return str(path.resolve())


class Record:
    """`prediction.json`: by what the label maps of a folder were made, and what became of each case.

    It is written after every case, so that the same call goes on where it was stopped.

    Args:
        output: folder of the label maps.
        about: `runs` and `settings`, which decide whether a case has to be done again, and whatever else is worth
            knowing.
        overwrite: do everything again.
        path: of the record of a shard, which goes on from that of the whole; none: of the whole.

    Attributes:
        done: reports of label maps that the same runs and settings have made, by the place of the label map.

    Raises:
        SegmenterError: the folder holds label maps of other runs or settings, and may not be overwritten.
    """

    NAME = "prediction.json"

    def __init__(
        self, output: Path, about: Mapping[str, Any], *, overwrite: bool = False, path: Path | None = None
    ) -> None:
        self.path = path or output / self.NAME
        self._begun = self.path if self.path.exists() else output / self.NAME
        self.about = dict(about)
        earlier = self._read()
        same = all(
            _without_run_path(earlier.get(key)) == _without_run_path(self.about[key]) for key in ("runs", "settings")
        )
        if earlier and not same and not overwrite:
            raise SegmenterError(
                f"{output} holds label maps of other runs or settings (see {self.NAME}): choose another output "
                "folder, or replace them with --overwrite"
            )
        reports = [report_of(data) for data in earlier["cases"]] if earlier and same else []
        self.reports = {report.case: report.to_dict() for report in reports}
        known = [] if overwrite else [report for report in reports if report.status != "failed"]
        places = [(_present_path(str(report.output), output), report) for report in known]
        self.done = {place_of(place): report for place, report in places if place is not None}

    def add(self, report: CaseReport) -> None:
        """Note a case and write the record."""
        self.reports[report.case] = report.to_dict()
        write_json(self.path, {**self.about, "cases": list(self.reports.values())})

    def _read(self) -> dict[str, Any]:
        """The record of an earlier call; a damaged one is that of other runs."""
        if not self._begun.exists():
            return {}
        try:
            earlier = json.loads(self._begun.read_text(encoding="utf-8"))
            for data in earlier["cases"]:
                report_of(data)
            return {key: earlier[key] for key in ("runs", "settings", "cases")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"runs": None, "settings": None, "cases": []}


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
