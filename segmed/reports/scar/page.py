"""The scar report of a heart -> one A4 page that a clinician can read and print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmed.cardiac.report import ScarReport, SegmentScar
from segmed.reports.rendering import Picture, origin_line
from segmed.reports.viewer.viewer import Viewer, write_page_with_viewer

GREY_ZONES = {
    "half_maximum": "core from half of the scar's maximum, grey zone from remote mean + {sd:g} SD",
    "roes": "core from 50 %, grey zone from 35 % of the scar's maximum",
    "yan": "core from remote mean + 3 SD, grey zone from + 2 SD",
}
BULLSEYES = {
    "bullseye_extent": "bullseye of the scar's extent",
    "bullseye_transmurality": "bullseye of the scar's transmurality",
}
NONE = "–"


def write_scar_page(
    path: Path,
    name: str,
    report: ScarReport,
    pictures: Mapping[str, bytes],
    seen: str,
    about: Mapping[str, Any],
    viewer: Viewer | None = None,
    *,
    flag: tuple[str, str] | None = None,
) -> None:
    """Write the page; pictures lie within it, and it loads nothing.

    Args:
        path: of the page.
        name: of the case.
        report: its numbers.
        pictures: PNG of `montage` and, where segments are known, of `bullseye_extent` and `bullseye_transmurality`.
        seen: how the slices of the montage are seen.
        about: `image`, `labels`, `remote`, `started` and `versions` are shown where they are given.
        viewer: below the page's first sheet; None: there is none.
        flag: of the case, and its reason; None: what segmented it is not calibrated.

    Raises:
        DiskError: the folder can't be written.
    """
    write_page_with_viewer(
        path,
        "scar.html",
        viewer,
        name=name,
        key=_key(report),
        flag=flag,
        montage=Picture(pictures["montage"], "short-axis slices"),
        seen=seen,
        bullseyes=[Picture(pictures[stem], text) for stem, text in BULLSEYES.items() if stem in pictures],
        volumes=_volumes(report),
        chords=_chords(report),
        method=_method(report, about),
        segments=None if report.segments is None else [_segment(one) for one in report.segments],
        unknown=list(dict.fromkeys(report.unknown.values())),
        notes=list(dict.fromkeys(report.notes)),
        origin=origin_line(about),
    )


# ---------------------------------------------------------------- numbers


def _key(report: ScarReport) -> list[tuple[str, str, str]]:
    """The four numbers one looks for first: value, unit, what it is."""
    obstruction = (f"{report.obstruction_ml:.2f}", "ml") if report.obstruction_ml > 0 else ("none", "")
    return [
        (f"{report.wall_g:.1f}", "g", "LV myocardium"),
        (f"{report.scar_g:.1f}", "g", "scar"),
        (f"{report.scar_percent:.1f}", "%", "scar, of the LV myocardium"),
        (*obstruction, "microvascular obstruction"),
    ]


def _volumes(report: ScarReport) -> list[tuple[str, ...]]:
    return [
        ("LV myocardium, scar included", _number(report.wall_ml), _number(report.wall_g), ""),
        ("scar", _number(report.scar_ml), _number(report.scar_g), _number(report.scar_percent)),
        ("dense core", _number(report.core_ml), _number(report.core_g), _share(report.core_ml, report)),
        ("grey zone", _number(report.grey_zone_ml), _number(report.grey_zone_g), _share(report.grey_zone_ml, report)),
        (
            "microvascular obstruction",
            _number(report.obstruction_ml, 2),
            _number(report.obstruction_ml * report.options.density_g_per_ml, 2),
            _share(report.obstruction_ml, report, 2),
        ),
    ]


def _chords(report: ScarReport) -> dict[str, Any] | None:
    if report.chords_percent is None:
        return None
    shares = [f"{share:.0f}" for share in report.chords_percent.values()]
    names = [name.replace("-", "–") for name in report.chords_percent]
    return {"head": ["depth of scar, %", *names], "rows": [["share of chords, %", *shares]]}


def _method(report: ScarReport, about: Mapping[str, Any]) -> str:
    counted = "counted as scar" if report.obstruction_counted else "not counted as scar"
    sentences = [f"Obstruction is {counted}. Density {report.options.density_g_per_ml:g} g/ml."]
    grey, remote = report.options.grey, about.get("remote")
    if grey is not None and report.core_ml is not None:
        sentences.append(f"By intensity: {GREY_ZONES[grey.definition].format(sd=grey.sd_count)}.")
        origin = f", {remote['found_from']}" if remote else ""
        sentences.append(f"Remote muscle {grey.remote_mean:.4g} ± {grey.remote_sd:.3g}{origin}.")
        sentences.append("Core and grey zone together need not be the labelled scar.")
    return " ".join(sentences)


def _segment(one: SegmentScar) -> tuple[str, ...]:
    return (
        f"{one.number} {one.name}",
        _number(one.wall_ml),
        _number(one.scar_ml),
        _number(one.scar_percent, 0),
        _number(one.transmurality_mean_percent, 0),
        _number(one.transmurality_max_percent, 0),
        (one.transmurality_class or NONE).replace("-", "–"),
    )


def _number(value: float | None, places: int = 1) -> str:
    return NONE if value is None else f"{value:.{places}f}"


def _share(value_ml: float | None, report: ScarReport, places: int = 1) -> str:
    return _number(None if value_ml is None else 100 * value_ml / report.wall_ml, places)
