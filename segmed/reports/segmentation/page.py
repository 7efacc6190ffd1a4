"""A run's or an evaluation's folder -> report.html: one page that holds all it shows."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from segmed.errors import RunError
from segmed.files import atomic_write_text
from segmed.metrics.segmentation import METRICS, metrics_shown
from segmed.reports.drawing.curves import training_curves
from segmed.reports.segmentation.tables import cells, entries, whole_meaning
from segmed.runs import read_history

CAPTIONS = {
    "box_plots": "Every case, with median, quartiles and 1.5 times their range.",
    "bland_altman": "Predicted against reference volumes: bias and limits of agreement (Bland and Altman 1986).",
    "montage": "The worst and the median case by mean Dice over labels.",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 0.87em; } th, td { padding: 0.25em 0.8em; text-align: right; }
th { background: #f4f4f4; } th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid #eee; }
.interval, figcaption, .meaning { color: #666; } .missed td { color: #b33c00; } .wide { overflow-x: auto; }
figure { margin: 1.2em 0; } img { max-width: 100%; height: auto; } figcaption { font-size: 0.87em; }
pre { background: #f7f7f7; padding: 1em; overflow-x: auto; font-size: 0.8em; } summary { cursor: pointer; }
.notes { color: #b33c00; font-weight: bold; } caption { text-align: left; } p.meaning { margin: 0.2em 0; }
"""


def write_report(folder: Path) -> Path:
    """Write report.html of a run, or of the folder that `write_evaluation` or `tools/evaluate.py` filled.

    The page loads nothing: pictures lie within it. What a folder does not have (a run that was not tested yet has no
    table) is left out.

    Args:
        folder: a run's folder, or an evaluation's.

    Returns:
        The path of the page.

    Raises:
        RunError: the folder holds neither a config nor a summary, or a file in it is damaged.
    """
    results = folder if (folder / "summary.json").is_file() else folder / "test"
    summary = read_json(results / "summary.json")
    config = read_text(folder / "config.yaml")
    if summary is None and config is None:
        raise RunError(f"{folder} holds neither config.yaml nor summary.json: name a run's or an evaluation's folder")
    title = str(summary["title"]) if summary and "title" in summary else folder.resolve().name
    parts = [f"<h1>{escape(title)}</h1>", facts(folder)]
    if summary is not None:
        parts += ["<h2>Results</h2>", _results(summary), *_pictures(results)]
    parts += _training(folder)
    if summary is not None:
        parts.append(folded("Every case", _cases(results / "cases.csv")))
    parts += [
        folded("Config", preformatted(config)),
        folded("Plan", plan_table(folder)),
        folded("Environment", versions_table(folder)),
    ]
    atomic_write_text(folder / "report.html", page(title, parts))
    return folder / "report.html"


# ---------------------------------------------------------------- parts of the page


def facts(folder: Path, *, what: str = "cases") -> str:
    """A run's number of cases a part, start and device, as far as its files say; `what` names what is counted."""
    environment = read_json(folder / "environment.json") or {}
    split = read_json(folder / "split.json") or {}
    found = [f"{len(split[part])} {part} {what}" for part in ("train", "validation", "test") if part in split]
    found += [f"started {environment['started']}"] if "started" in environment else []
    found += [str(environment["device"])] if "device" in environment else []
    return f"<p>{escape(', '.join(found))}</p>" if found else ""


def _results(summary: Mapping[str, Any]) -> str:
    names = [name for name, _ in entries(summary)]
    head = "".join(f"<th>{escape(name)}</th>" for name in ["", *names])
    rows = []
    for metric in METRICS.values():
        line = cells(summary, metric.name)
        if line:
            figures = "".join(
                f'<td>{escape(mean)}<br><span class="interval">{escape(rest)}</span></td>' for mean, rest in line
            )
            rows.append(f"<tr><td>{escape(metric.title)}</td>{figures}</tr>")
    missed = "".join(f"<td>{figures['dice']['missed']}</td>" for _, figures in entries(summary))
    rows.append(f"<tr><td>missed or invented</td>{missed}</tr>")
    notes = "".join(f"<li>{escape(str(note))}</li>" for note in summary.get("notes", ()))
    sentences = escape(" ".join(whole_meaning(summary)))
    table = f'<div class="wide"><table><tr>{head}</tr>\n' + "\n".join(rows) + "</table></div>"
    return f'{table}<p class="meaning">{sentences}</p>' + (f"<ul>{notes}</ul>" if notes else "")


def _pictures(folder: Path) -> list[str]:
    known = [folder / f"{name}.png" for name in CAPTIONS]
    others = [path for path in sorted(folder.glob("*.png")) if path not in known and not path.name.startswith(".")]
    found = [path for path in [*known, *others] if path.is_file()]
    return [picture(path.read_bytes(), CAPTIONS.get(path.stem, path.stem)) for path in found]


def _training(folder: Path) -> list[str]:
    figure = training_curves(read_history(folder / "history.csv"))
    if figure is None:
        return []
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=130)
    return ["<h2>Training</h2>", picture(drawn.getvalue(), "Losses and validation over the steps.")]


def _cases(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = [metric for metric in metrics_shown("cases") if any(row.get(metric) for row in rows)]
    head = "".join(
        f"<th>{escape(text)}</th>" for text in ["case", "label", *(METRICS[metric].title for metric in metrics)]
    )
    lines = []
    for row in rows:
        mark = ' class="missed"' if (row.get("missed") or "0") != "0" else ""
        values = [row.get("case"), row.get("label"), *(row.get(metric) for metric in metrics)]
        lines.append(f"<tr{mark}>" + "".join(f"<td>{escape(value or '–')}</td>" for value in values) + "</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>\n' + "\n".join(lines) + "</table></div>"


def plan_table(folder: Path) -> str:
    """What a run's `auto` values became and why, and its network."""
    plan = read_json(folder / "plan.json") or {}
    reasons = plan.get("reasons") or {}
    return _table(reasons.items()) + preformatted(plan.get("network"))


def versions_table(folder: Path) -> str:
    """Machine and versions of a run."""
    environment = read_json(folder / "environment.json") or {}
    versions = environment.pop("versions", {})
    plain = {name: value for name, value in environment.items() if not isinstance(value, (dict, list))}
    return _table([*plain.items(), *versions.items()])


# ---------------------------------------------------------------- HTML


def page(title: str, parts: Iterable[str]) -> str:
    """The page of a title and of HTML that lies below it; empty parts are left out."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(part for part in parts if part) + "\n</body></html>\n"
    )


def _table(rows: Iterable[tuple[Any, Any]]) -> str:
    lines = "".join(f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table>{lines}</table>" if lines else ""


def preformatted(text: Any) -> str:
    """A text as it is, escaped."""
    return f"<pre>{escape(str(text))}</pre>" if text else ""


def folded(title: str, content: str) -> str:
    """HTML behind a title that opens it; empty where there is none."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>" if content else ""


def picture(png: bytes, caption: str) -> str:
    """A picture that lies within the page."""
    encoded = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


# ---------------------------------------------------------------- files


def read_text(path: Path) -> str | None:
    """A file's text; None where there is no file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def read_json(path: Path) -> dict[str, Any] | None:
    """A file's table; None where there is no file.

    Raises:
        RunError: it is damaged.
    """
    text = read_text(path)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): evaluate again") from error
    if not isinstance(data, dict):
        raise RunError(f"{path} holds no table of figures: evaluate again")
    return data
