"""The cine report of a heart -> one A4 page that a clinician can read and print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmed.cardiac.function import CineReport, Estimate
from segmed.reports.rendering import Picture, origin_line, write_page

NONE = "–"
KEY = {
    "ef": "ejection fraction of the LV",
    "edv": "LV at end-diastole",
    "esv": "LV at end-systole",
    "sv": "stroke volume",
    "mass": "LV myocardium",
}
ROWS = {  # text -> figure of the LV and of the RV, and decimals
    "end-diastolic volume, ml": ("edv", "rv_edv"),
    "end-systolic volume, ml": ("esv", "rv_esv"),
    "stroke volume, ml": ("sv", "rv_sv"),
    "ejection fraction, %": ("ef", "rv_ef"),
    "mass at end-diastole, g": ("mass", None),
    "mass at end-systole, g": ("mass_systole", None),
    "heart rate, 1/min": ("heart_rate", None),
    "cardiac output, l/min": ("cardiac_output", None),
}


def write_cine_page(
    path: Path,
    name: str,
    report: CineReport,
    pictures: Mapping[str, bytes],
    about: Mapping[str, Any],
    flags: Mapping[str, tuple[str, str]],
) -> None:
    """Write the page; pictures lie within it, and it loads nothing.

    Args:
        path: of the page.
        name: of the case.
        report: its numbers.
        pictures: PNG of `curve` and `montage`.
        about: `image`, `labels`, `run`, `missing`, `started` and `versions` are shown where they are given.
        flags: end-diastole and end-systole -> flag and its reason.

    Raises:
        DiskError: the folder can't be written.
    """
    write_page(
        path,
        "cine.html",
        name=name,
        key=[_key(report.figures[figure], text) for figure, text in KEY.items()],
        flags=[(when, flag, reason) for when, (flag, reason) in flags.items()],
        curve=Picture(pictures["curve"], "volumes over the beat"),
        montage=Picture(pictures["montage"], "slices of end-diastole and end-systole"),
        head=("", "LV", "RV") if report.rv is not None else ("", "LV"),
        rows=_rows(report),
        method=_method(report),
        unknown=[f"{figure}: {why}" for figure, why in report.unknown.items()],
        notes=list(dict.fromkeys(report.notes)),
        origin=origin_line(about),
    )


def _key(estimate: Estimate, text: str) -> tuple[str, str, str]:
    """Value, unit, and what it is with its interval."""
    if estimate.value is None:
        return NONE, "", text
    places = 1 if estimate.unit == "%" else 0
    interval = estimate.interval
    told = "" if interval is None else f" [{interval[0]:.{places}f} to {interval[1]:.{places}f}]"
    return f"{estimate.value:.{places}f}", estimate.unit, text + told


def _rows(report: CineReport) -> list[tuple[str, ...]]:
    rows = []
    for text, names in ROWS.items():
        cells = [_cell(report.figures.get(name) if name else None) for name in names]
        if any(cell != NONE for cell in cells):
            rows.append((text, *cells[: 2 if report.rv is not None else 1]))
    return rows


def _cell(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return NONE
    interval = estimate.interval
    return f"{estimate.value:.1f}" + ("" if interval is None else f" [{interval[0]:.1f} to {interval[1]:.1f}]")


def _method(report: CineReport) -> str:
    """How the numbers came about."""
    times = "" if report.times_ms is None else f", {report.times_ms[-1] / (report.phases - 1):.0f} ms apart"
    sentences = [
        f"{report.phases} phases{times}.",
        f"End-diastole is phase {report.diastole + 1}, end-systole phase {report.systole + 1}, by the LV's curve.",
        "Volumes are sums of voxels; mass is the wall's volume at end-diastole times 1.05 g/ml.",
        report.intervals[0].upper() + report.intervals[1:] + ".",
    ]
    if any(estimate.interval is not None for estimate in report.figures.values()):
        sentences.append("Those of stroke volume and ejection fraction hold whatever both volumes' errors share.")
    if "heart_rate" in report.figures:
        sentences.append("Heart rate and output hold if the phases cover the whole beat.")
    return " ".join(sentences)
