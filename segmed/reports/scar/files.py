"""The scar report of a case -> its files: scar.json, segments.csv, summary.csv, figures and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmed.builders.scar_trust import ScarTrust
from segmed.cardiac.chords import CLASSES
from segmed.cardiac.report import ScarReport
from segmed.files import atomic_write_text, csv_text, remove, write_json
from segmed.reports.drawing.slices import save_figure
from segmed.reports.scar.figures import Tiles, extent_bullseye, scar_montage, transmurality_bullseye
from segmed.reports.scar.page import write_scar_page
from segmed.reports.scar.volumes import scar_viewer
from segmed.reports.viewer.layers import Layers

OWN_FILES = (
    "scar.json",
    "segments.csv",
    "summary.csv",
    "montage.png",
    "bullseye_extent.png",
    "bullseye_transmurality.png",
    "report.html",
)
SEGMENT_COLUMNS = {
    "segment": "number",
    "name": "name",
    "wall_ml": "wall_ml",
    "scar_ml": "scar_ml",
    "extent_percent": "scar_percent",
    "transmurality_mean_percent": "transmurality_mean_percent",
    "transmurality_max_percent": "transmurality_max_percent",
    "transmurality_class": "transmurality_class",
}
FIGURES = (
    "wall_ml",
    "wall_g",
    "scar_ml",
    "scar_g",
    "scar_percent",
    "obstruction_ml",
    "obstruction_counted",
    "core_ml",
    "core_g",
    "grey_zone_ml",
    "grey_zone_g",
    "scar_outside_percent",
)
INTERVALS = ("scar_ml", "scar_g", "scar_percent", "wall_ml", "wall_g")
SUMMARY_COLUMNS = (
    "case",
    *FIGURES,
    *(f"chords_{name.replace('-', '_to_')}_percent" for name in CLASSES),
    *(f"{name}_{side}" for name in INTERVALS for side in ("low", "high")),
    *("interval_level", "flag", "reason"),
    "unknown",
    "error",
)
DECIMALS = 4


@dataclass(frozen=True)
class ScarCase:
    """One heart, measured.

    Attributes:
        name: of the case.
        report: its numbers.
        tiles: its slices.
        about: what else scar.json says: files, label values, remote muscle, command, versions.
        layers: of the page's viewer; None: it has none.
        trust: intervals of mass, volume and extent; None: what segmented it is not calibrated.
    """

    name: str
    report: ScarReport
    tiles: Tiles
    about: Mapping[str, Any]
    layers: Layers | None = None
    trust: ScarTrust | None = None

    @property
    def intervals(self) -> Mapping[str, Any] | None:
        """Of mass, volume and extent, for JSON."""
        return None if self.trust is None else self.trust.to_dict(self.report.options.density_g_per_ml)


def write_case(case: ScarCase, folder: Path) -> None:
    """Write all files of a case; those of an earlier call are replaced, and removed where there is no such file now.

    Raises:
        DiskError: the disk is full or the folder can't be written.
    """
    clear_reports(folder)
    figures = {"montage": scar_montage(case.tiles)}
    if case.report.segments is not None:
        figures["bullseye_extent"] = extent_bullseye(case.report)
        figures["bullseye_transmurality"] = transmurality_bullseye(case.report)
        rows = [
            {column: _plain(getattr(one, name)) for column, name in SEGMENT_COLUMNS.items()}
            for one in case.report.segments
        ]
        atomic_write_text(folder / "segments.csv", csv_text(tuple(SEGMENT_COLUMNS), rows))
    pictures = {}
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png", dpi=200)
        pictures[name] = (folder / f"{name}.png").read_bytes()
    viewer = scar_viewer(case.name, case.report, case.layers)
    flag = None if case.trust is None else (case.trust.flag, case.trust.reason)
    write_scar_page(
        folder / "report.html", case.name, case.report, pictures, case.tiles.told, case.about, viewer, flag=flag
    )
    write_summary([summary_row(case)], folder)
    write_json(
        folder / "scar.json",
        {"case": case.name, **case.report.to_dict(), "intervals": case.intervals, **case.about, "error": None},
    )


def write_error(name: str, error: str, folder: Path, about: Mapping[str, Any]) -> None:
    """Write a scar.json that says why there are no numbers, and remove the files of an earlier call.

    Raises:
        DiskError: the disk is full or the folder can't be written.
    """
    clear_reports(folder)
    write_json(folder / "scar.json", {"case": name, "error": error, **about})


def write_summary(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """summary.csv: a row a case.

    Args:
        rows: of `summary_row`, or with a name and an error alone.
        folder: it is written to.
    """
    atomic_write_text(folder / "summary.csv", csv_text(SUMMARY_COLUMNS, rows))


def summary_row(case: ScarCase) -> dict[str, Any]:
    """The row of a case: units stand in the names, what is unknown is empty."""
    chords = case.report.chords_percent or {}
    shares = {f"chords_{name.replace('-', '_to_')}_percent": _plain(chords.get(name)) for name in CLASSES}
    unknown = "; ".join(f"{name}: {why}" for name, why in case.report.unknown.items())
    figures = {name: _plain(getattr(case.report, name)) for name in FIGURES}
    return {"case": case.name, **figures, **shares, **_interval_cells(case), "unknown": unknown}


def _interval_cells(case: ScarCase) -> dict[str, Any]:
    """Ends of the intervals, and the flag; empty where the run is not calibrated."""
    intervals = case.intervals
    if intervals is None:
        return {}
    cells = {"interval_level": intervals["level"], "flag": intervals["flag"], "reason": intervals["reason"]}
    for name in INTERVALS:
        if intervals[name] is not None:
            cells |= {f"{name}_{side}": _plain(intervals[name][side]) for side in ("low", "high")}
    return cells


def case_line(case: ScarCase) -> str:
    """The numbers of a case for the terminal."""
    report = case.report
    text = f"LV {report.wall_g:.1f} g, scar {report.scar_g:.1f} g ({report.scar_percent:.1f} %)"
    if report.core_g is not None and report.grey_zone_g is not None:
        text += f", core {report.core_g:.1f} g, grey zone {report.grey_zone_g:.1f} g"
    if report.obstruction_ml > 0:
        text += f", obstruction {report.obstruction_ml:.2f} ml"
    if case.trust is not None:
        text += f"; {case.trust.words(report.options.density_g_per_ml)}"
    unknown = ", ".join(report.unknown)
    return f"{text}; not known: {unknown}" if unknown else text


def clear_reports(folder: Path) -> None:
    """Remove the files of an earlier report, so that no old number stands beside a new one."""
    for name in OWN_FILES:
        remove(folder / name)


def _plain(value: Any) -> Any:
    return round(value, DECIMALS) if isinstance(value, float) else value
