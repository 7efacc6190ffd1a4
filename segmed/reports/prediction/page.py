"""A folder of label maps that `segmed predict` filled -> report.html: each case, its volumes, its slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmed.errors import RunError, VolumeError
from segmed.reports.prediction.kept_maps import kept_maps
from segmed.reports.rendering import read_json
from segmed.reports.viewer.layers import Layers, layers_of_files
from segmed.reports.viewer.viewer import Column, Viewer, ViewerCase, write_page_with_viewer
from segmed.trust.verdict import FLAGS
from segmed.volumes import Source

Report = Mapping[str, Any]
NONE = "–"
RISK_SHARE = 0.99  # of a step from one flag to the next
FEWEST = 4  # cases from which a volume is compared with the others'


def write_prediction_page(folder: Path) -> Path:
    """Write report.html of a folder of label maps, from its prediction.json and its files.

    Args:
        folder: of the label maps.

    Returns:
        The path of the page.

    Raises:
        RunError: the folder holds no prediction.json, or it is damaged.
        DiskError: the folder can't be written.
    """
    record = read_json(folder / "prediction.json")
    if record is None:
        raise RunError(f"{folder} holds no prediction.json: name a folder that segmed predict filled")
    reports = [report for report in record["cases"] if report["status"] != "failed"]
    failed = [report for report in record["cases"] if report["status"] == "failed"]
    names = tuple(record["classes"][1:])
    flagged = any(report.get("trust") for report in reports)
    return write_page_with_viewer(
        folder / "report.html",
        "prediction.html",
        _viewer(folder, record, reports, names),
        title=f"{folder.resolve().name}: label maps of {len(reports)} case{'s' if len(reports) != 1 else ''}",
        key=_key(reports, failed),
        facts=_facts(record),
        flagged=flagged,
        told=_told(reports) if flagged else "",
        head=["case", *(["flag"] if flagged else []), *(f"{name} ({_unit(reports)})" for name in names), "seconds"],
        cases=[_row(report, names) for report in sorted(reports, key=_doubt, reverse=True)],
        failed=[(report["case"], report.get("error", "")) for report in failed],
    )


def _key(reports: Sequence[Report], failed: Sequence[Report]) -> list[tuple[str, str, str]]:
    warned = sum("warning" in report for report in reports)
    seconds = [float(report.get("seconds", 0)) for report in reports]
    mean = [(f"{np.mean(seconds):.1f}", "s", "a case, reading and writing included")] if seconds else []
    counts = Counter(report["trust"]["flag"] for report in reports if report.get("trust"))
    flags = [(str(counts[flag]), "", f"flagged: {flag}") for flag in reversed(FLAGS)] if counts else []
    return [
        (str(len(reports)), "", "segmented"),
        (str(len(failed)), "", "failed"),
        *flags,
        (str(warned), "", "unlike the training scans"),
        *mean,
    ]


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    named = Counter(str(run.get("name", run.get("run"))) for run in record.get("runs") or [])
    runs = ", ".join(name if count == 1 else f"{name} ({count} networks)" for name, count in named.items())
    kept = [name for name in ("probabilities", "uncertainty") if (record.get("settings") or {}).get(name)]
    facts = [("run", runs), ("images", ", ".join(record.get("images") or [])), ("kept besides", ", ".join(kept))]
    facts += [(name, str(record[name])[:16].replace("T", " ")) for name in ("started", "device") if name in record]
    return [(name, text) for name, text in facts if text]


def _unit(reports: Sequence[Report]) -> str:
    return "ml" if any(report.get("volume_ml") for report in reports) else "voxels"


def _sizes(report: Report) -> Mapping[str, float]:
    """Label -> ml, or voxels where the spacing is nominal."""
    sizes: Mapping[str, float] = report.get("volume_ml") or report.get("voxels") or {}
    return sizes


def _row(report: Report, names: Sequence[str]) -> dict[str, Any]:
    cells = [_cell(report, name) for name in names]
    flag = (report.get("trust") or {}).get("flag")
    seconds = f"{report.get('seconds', 0):.1f}"
    return {"name": report["case"], "flag": flag, "cells": [*cells, seconds], "note": _note(report)}


def _cell(report: Report, name: str) -> str:
    """A volume, with its interval where there is one."""
    sizes = _sizes(report)
    if name not in sizes:
        return NONE
    interval = ((report.get("trust") or {}).get("structures") or {}).get(name, {}).get("interval")
    return f"{sizes[name]:.4g}" + (f" [{interval['low']:.3g} to {interval['high']:.3g}]" if interval else "")


def _doubt(report: Report) -> float:
    """The more a case is to be doubted, the higher: the place of its flag, then its risk; all are 0 without flags."""
    trust = report.get("trust")
    return FLAGS.index(trust["flag"]) + RISK_SHARE * float(trust["risk"]) if trust else 0.0


def _told(reports: Sequence[Report]) -> str:
    level = next(report["trust"]["level"] for report in reports if report.get("trust"))
    return f"In brackets: intervals of {100 * level:g} %. The cases that are to be doubted most come first."


def _note(report: Report) -> str:
    classes = sorted((report.get("classes") or {}).items(), key=lambda entry: -entry[1])
    said = [f"Class {classes[0][0]}, probability {classes[0][1]:.2f}."] if classes else []
    if trust := report.get("trust"):
        said.append(f"{trust['flag'].capitalize()}: {trust['reason']}.")
    return " ".join([*said, *([f"This scan is {report['warning']}."] if report.get("warning") else [])])


# ---------------------------------------------------------------- the viewer


def _viewer(folder: Path, record: Mapping[str, Any], reports: Sequence[Report], names: tuple[str, ...]) -> Viewer:
    by_case = {report["case"]: report for report in reports}
    middle = {name: float(np.median([_sizes(report).get(name, 0) for report in reports] or [0])) for name in names}
    compared = len(reports) >= FEWEST

    flagged = any(report.get("trust") for report in reports)

    def values(report: Report) -> dict[str, tuple[float | None, ...]]:
        sizes, trust = _sizes(report), report.get("trust") or {}
        each = {name: sizes.get(name) for name in names}
        apart = {name: None if size is None or not middle[name] else 100 * (size / middle[name] - 1)
                 for name, size in each.items()}  # fmt: skip
        dice = {name: trust["structures"][name]["dice"]["lower"] if trust else None for name in names}
        doubt = _doubt(report) if trust else None
        return {
            name: (*((doubt, dice[name]) if flagged else ()), *((apart[name],) if compared else ()), each[name])
            for name in names
        }

    columns = [Column("flag", "high", FLAGS), Column("Dice, lower bound", "low")] if flagged else []
    columns += [Column("volume, % from the median", "far")] if compared else []
    return Viewer(
        labels=names,
        load=lambda case: _layers(folder, record, by_case[case]),
        cases=tuple(ViewerCase(report["case"], values(report), _note(report)) for report in reports),
        columns=(*columns, Column(f"volume ({_unit(reports)})", "high")),
        structures=names,
        elsewhere=f"{folder.resolve().name}, beside this page",
    )


def _layers(folder: Path, record: Mapping[str, Any], report: Report) -> Layers:
    """Image, label map, and what else was kept of a case."""
    result = Path(report["output"])
    result = result if result.is_file() else folder / result.name
    if not result.is_file():
        raise VolumeError(f"its label map {result} is gone")
    values = np.array(record["values"])
    inputs = [Path(path) for path in report["inputs"]]
    more = [] if len(inputs) == 1 else [f"Of {len(inputs)} images of the case the first is shown, {inputs[0].name}."]
    gone = not inputs[0].exists()
    remarks = [f"The image {inputs[0].name} is not where it was."] if gone else more
    return layers_of_files(
        None if gone else Source(inputs[0]),
        encode=lambda written: _indices(written, values),
        result=result,
        heat=kept_maps(folder, result),
        remarks=tuple(remarks),
    )


def _indices(written: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of the file -> label indices; a value of no label is background."""
    order = np.argsort(values, kind="stable")
    place = np.searchsorted(values[order], written).clip(0, len(values) - 1)
    return np.where(values[order][place] == written, order[place], 0).astype(np.uint8)
