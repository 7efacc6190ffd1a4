"""The cine report of a case -> its files: cine.json, curve.csv, summary.csv, figures and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from segmed.cardiac.function import CineReport, Estimate
from segmed.files import atomic_write_text, csv_text, remove, write_json
from segmed.reports.cine.figures import curve_figure
from segmed.reports.cine.page import write_cine_page
from segmed.reports.drawing.slices import save_figure
from segmed.trust.verdict import FLAGS

OWN_FILES = ("cine.json", "curve.csv", "summary.csv", "curve.png", "montage.png", "report.html")
COLUMNS = {  # of summary.csv: figure -> its name with its unit
    "edv": "edv_ml",
    "esv": "esv_ml",
    "sv": "sv_ml",
    "ef": "ef_percent",
    "mass": "mass_g",
    "mass_systole": "mass_systole_g",
    "rv_edv": "rv_edv_ml",
    "rv_esv": "rv_esv_ml",
    "rv_sv": "rv_sv_ml",
    "rv_ef": "rv_ef_percent",
    "heart_rate": "heart_rate_per_min",
    "cardiac_output": "cardiac_output_l_per_min",
}
BOUNDS = ("from", "to")  # of an interval
SUMMARY_COLUMNS = (
    "case",
    "end_diastole_phase",
    "end_systole_phase",
    *(column for name in COLUMNS.values() for column in (name, *(f"{name}_{bound}" for bound in BOUNDS))),
    "flag",
    "reason",
    "notes",
    "error",
)
DECIMALS = 4


@dataclass(frozen=True)
class CineCase:
    """One heart, measured.

    Attributes:
        name: of the case.
        report: its numbers.
        montage: the slices of both phases.
        about: what else cine.json says: files, label values, times, versions.
        flags: end-diastole and end-systole -> flag and its reason; empty: what segmented them is not calibrated.
    """

    name: str
    report: CineReport
    montage: Figure
    about: Mapping[str, Any]
    flags: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def write_case(case: CineCase, folder: Path) -> None:
    """Write all files of a case; those of an earlier call are replaced.

    Raises:
        DiskError: the disk is full or the folder can't be written.
    """
    clear_reports(folder)
    report = case.report
    pictures = {}
    for name, figure in {"curve": curve_figure(report), "montage": case.montage}.items():
        save_figure(figure, folder / f"{name}.png", dpi=150)
        pictures[name] = (folder / f"{name}.png").read_bytes()
    unit = "ml" if report.curve_unit == "ml" else "percent_of_edv"
    columns = ("phase", "time_ms", f"lv_{unit}", f"rv_{unit}", f"wall_{unit}", "is")
    ends = {report.diastole: "end-diastole", report.systole: "end-systole"}
    rows = [
        {
            "phase": phase + 1,
            "time_ms": None if report.times_ms is None else _plain(report.times_ms[phase]),
            f"lv_{unit}": _plain(report.lv[phase]),
            f"rv_{unit}": None if report.rv is None else _plain(report.rv[phase]),
            f"wall_{unit}": None if report.wall is None else _plain(report.wall[phase]),
            "is": "left out" if phase in report.left_out else ends.get(phase),
        }
        for phase in range(report.phases)
    ]
    atomic_write_text(folder / "curve.csv", csv_text(columns, rows))
    write_cine_page(folder / "report.html", case.name, report, pictures, case.about, case.flags)
    write_summary([summary_row(case)], folder)
    flags = {when: {"flag": flag, "reason": reason} for when, (flag, reason) in case.flags.items()}
    known = {"case": case.name, **report.to_dict(), "flags": flags}
    write_json(folder / "cine.json", {**known, **case.about, "error": None})


def write_error(name: str, error: str, folder: Path, about: Mapping[str, Any]) -> None:
    """Write a cine.json that says why there are no numbers, and remove the files of an earlier call.

    Raises:
        DiskError: the disk is full or the folder can't be written.
    """
    clear_reports(folder)
    write_json(folder / "cine.json", {"case": name, "error": error, **about})


def write_summary(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """summary.csv: a row a case.

    Args:
        rows: of `summary_row`, or with a name and an error alone.
        folder: it is written to.
    """
    atomic_write_text(folder / "summary.csv", csv_text(SUMMARY_COLUMNS, rows))


def summary_row(case: CineCase) -> dict[str, Any]:
    """The row of a case: units stand in the names, what is unknown is empty; phases count from 1."""
    row: dict[str, Any] = {
        "case": case.name,
        "end_diastole_phase": case.report.diastole + 1,
        "end_systole_phase": case.report.systole + 1,
        "notes": "; ".join(case.report.notes),
    }
    if case.flags:
        when, (flag, reason) = max(case.flags.items(), key=lambda item: FLAGS.index(item[1][0]))
        row |= {"flag": flag, "reason": f"{when}: {reason}"}
    for name, column in COLUMNS.items():
        estimate = case.report.figures.get(name, Estimate(None, ""))
        row[column] = _plain(estimate.value)
        for bound, value in zip(BOUNDS, estimate.interval or (None, None), strict=True):
            row[f"{column}_{bound}"] = _plain(value)
    return row


def case_line(case: CineCase) -> str:
    """The numbers of a case for the terminal."""
    figures = case.report.figures
    texts = [f"EF {estimate_text(figures['ef'])}"]
    shown = {"EDV": "edv", "ESV": "esv", "SV": "sv", "mass": "mass", "RV EF": "rv_ef"}
    for text, name in shown.items():
        if name in figures and figures[name].value is not None:
            texts.append(f"{text} {estimate_text(figures[name])}")
    told = f"; {len(case.report.notes)} notes" if case.report.notes else ""
    ends = f"end-diastole phase {case.report.diastole + 1}, end-systole phase {case.report.systole + 1}"
    return ", ".join(texts) + f" ({ends}{told})"


def estimate_text(estimate: Estimate) -> str:
    """A number with its unit, and in brackets its interval."""
    if estimate.value is None:
        return "not known"
    interval = "" if estimate.interval is None else f" [{estimate.interval[0]:.0f} to {estimate.interval[1]:.0f}]"
    return f"{estimate.value:.1f} {estimate.unit}{interval}"


def clear_reports(folder: Path) -> None:
    """Remove the files of an earlier report, so that no old number stands beside a new one."""
    for name in OWN_FILES:
        remove(folder / name)


def _plain(value: Any) -> Any:
    return round(value, DECIMALS) if isinstance(value, float) else value
