"""The scar report of a heart -> one A4 page that a clinician can read and print."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from segmed.cardiac.report import ScarReport, SegmentScar

STYLE = """
@page { size: A4; margin: 11mm 13mm; }
* { box-sizing: border-box; }
body { font: 12px/1.38 "Helvetica Neue", Arial, "Liberation Sans", sans-serif; color: #222; width: 184mm;
  margin: 8mm auto; }
@media print { body { margin: 0 auto; } }
header { display: flex; justify-content: space-between; align-items: baseline; border-bottom: 1px solid #222;
  padding-bottom: 1.2mm; }
h1 { font-size: 17px; margin: 0; font-weight: 600; } header span { color: #666; }
h2 { font-size: 12px; margin: 3.5mm 0 1mm; font-weight: 600; }
.key { display: flex; margin: 2.5mm 0 3mm; }
.key div { flex: 1; border-left: 1px solid #ddd; padding: 0 3mm; } .key div:first-child { border: 0; padding-left: 0; }
.key b .unit { font-weight: normal; }
.key b { display: block; font-size: 18px; font-weight: 600; line-height: 1.25; }
.key small, .caption, footer, .unit { color: #666; font-size: 10.5px; }
img { display: block; max-width: 100%; } .montage img { max-height: 60mm; margin: 0 auto; }
.caption { margin: 0.5mm 0 0; } .columns { display: flex; gap: 6mm; align-items: flex-start; }
.columns > div { flex: 1; min-width: 0; } .columns > div.wide { flex: 1.22; }
.bullseyes { display: flex; justify-content: space-around; margin-top: 2mm; }
.bullseyes img { height: 54mm; }
table { border-collapse: collapse; width: 100%; font-size: 10.5px; font-variant-numeric: tabular-nums; }
td, th { padding: 0.28mm 0 0.28mm 2mm; text-align: right; border-bottom: 1px solid #eee; font-weight: normal;
  white-space: nowrap; }
td:first-child, th:first-child { text-align: left; padding-left: 0; } th { color: #666; vertical-align: bottom; }
ul { margin: 0; padding-left: 4mm; font-size: 11px; } .unknown { color: #9c3000; }
footer { border-top: 1px solid #ddd; margin-top: 3mm; padding-top: 1mm; overflow-wrap: anywhere; }
tr, li, .columns, .montage { break-inside: avoid; }
"""
GREY_ZONES = {
    "half_maximum": "core from half of the scar's maximum, grey zone from remote mean + {sd:g} SD",
    "roes": "core from 50 %, grey zone from 35 % of the scar's maximum",
    "yan": "core from remote mean + 3 SD, grey zone from + 2 SD",
}
NONE = "–"


def scar_page(name: str, report: ScarReport, pictures: Mapping[str, bytes], seen: str, about: Mapping[str, Any]) -> str:
    """The page as HTML; pictures lie within it, and it loads nothing.

    Args:
        name: of the case.
        report: its numbers.
        pictures: PNG of `montage` and, where segments are known, of `bullseye_extent` and `bullseye_transmurality`.
        seen: how the slices of the montage are seen.
        about: `image`, `labels`, `remote`, `started` and `versions` are shown where they are given.
    """
    parts = [
        f"<header><h1>{escape(name)}</h1><span>Scar of the left ventricle, late gadolinium enhancement</span></header>",
        _key(report),
        f'<div class="montage">{_picture(pictures["montage"], "short-axis slices")}'
        f'<p class="caption">Slices {escape(seen)}.</p></div>',
        _bullseyes(pictures),
        _numbers(report, about),
        _remarks("Not known", report.unknown.values(), "unknown"),
        _remarks("Notes", report.notes, ""),
        _footer(about),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: scar</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(part for part in parts if part) + "\n</body></html>\n"
    )


# ---------------------------------------------------------------- numbers


def _key(report: ScarReport) -> str:
    """The four numbers one looks for first."""
    obstructed = report.obstruction_ml > 0
    entries = [
        ("LV myocardium", _with_unit(report.wall_g, "g")),
        ("scar", _with_unit(report.scar_g, "g")),
        ("scar, of the LV myocardium", _with_unit(report.scar_percent, "%")),
        ("microvascular obstruction", _with_unit(report.obstruction_ml, "ml", places=2) if obstructed else "none"),
    ]
    return (
        '<div class="key">'
        + "".join(f"<div><b>{value}</b><small>{escape(text)}</small></div>" for text, value in entries)
        + "</div>"
    )


def _bullseyes(pictures: Mapping[str, bytes]) -> str:
    if "bullseye_extent" not in pictures:
        return ""
    extent = _picture(pictures["bullseye_extent"], "bullseye of the scar's extent")
    depth = _picture(pictures["bullseye_transmurality"], "bullseye of the scar's transmurality")
    return f'<div class="bullseyes">{extent}{depth}</div>'


def _numbers(report: ScarReport, about: Mapping[str, Any]) -> str:
    counted = "counted as scar" if report.obstruction_counted else "not counted as scar"
    rows = [
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
    volumes = _table(("", "ml", "g", "% of LV"), rows)
    chords = ""
    if report.chords_percent is not None:
        shares = [[f"{share:.0f}" for share in report.chords_percent.values()]]
        head = [name.replace("-", "–") for name in report.chords_percent]
        chords = "<h2>Transmurality of all radial chords</h2>" + _table(
            ("depth of scar, %", *head), [("share of chords, %", *shares[0])]
        )
    method = f'<p class="caption">{escape(_method(report, about, counted))}</p>'
    left = f"<div><h2>Volumes and mass</h2>{volumes}{chords}{method}</div>"
    if report.segments is None:
        return f'<div class="columns">{left}</div>'
    return (
        f'<div class="columns">{left}<div class="wide"><h2>Segments (AHA)</h2>{_segments(report.segments)}</div></div>'
    )


def _method(report: ScarReport, about: Mapping[str, Any], counted: str) -> str:
    sentences = [f"Obstruction is {counted}. Density {report.options.density_g_per_ml:g} g/ml."]
    grey, remote = report.options.grey, about.get("remote")
    if grey is not None and report.core_ml is not None:
        sentences.append(f"By intensity: {GREY_ZONES[grey.definition].format(sd=grey.sd_count)}.")
        found = f", {remote['found_from']}" if remote else ""
        sentences.append(f"Remote muscle {grey.remote_mean:.4g} ± {grey.remote_sd:.3g}{found}.")
        sentences.append("Core and grey zone together need not be the labelled scar.")
    return " ".join(sentences)


def _segments(segments: Sequence[SegmentScar]) -> str:
    rows = [
        (
            f"{one.number} {one.name}",
            _number(one.wall_ml),
            _number(one.scar_ml),
            _number(one.scar_percent, 0),
            _number(one.transmurality_mean_percent, 0),
            _number(one.transmurality_max_percent, 0),
            (one.transmurality_class or NONE).replace("-", "–"),
        )
        for one in segments
    ]
    return _table(("", "wall ml", "scar ml", "extent %", "depth %", "max %", "class %"), rows)


# ---------------------------------------------------------------- HTML


def _remarks(title: str, lines: Iterable[str], kind: str) -> str:
    items = "".join(f'<li class="{kind}">{escape(line)}</li>' for line in dict.fromkeys(lines))
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def _footer(about: Mapping[str, Any]) -> str:
    files = [f"{what} {Path(str(about[what])).name}" for what in ("image", "labels", "run") if about.get(what)]
    version = (about.get("versions") or {}).get("segmed")
    made = [f"segmed {version}"] if version else []
    made += [str(about["started"])[:16].replace("T", " ")] if "started" in about else []
    text = " · ".join([*files, *made])
    return (
        f"<footer>{escape(text)}<br>Computed from the contours above: look at them before you use the numbers. "
        "For research, not a medical device.</footer>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{first}</tr>{lines}</table>"


def _picture(png: bytes, text: str) -> str:
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'


def _number(value: float | None, places: int = 1) -> str:
    return NONE if value is None else f"{value:.{places}f}"


def _share(value_ml: float | None, report: ScarReport, places: int = 1) -> str:
    return _number(None if value_ml is None else 100 * value_ml / report.wall_ml, places)


def _with_unit(value: float, unit: str, *, places: int = 1) -> str:
    return f'{value:.{places}f}&nbsp;<span class="unit">{unit}</span>'
