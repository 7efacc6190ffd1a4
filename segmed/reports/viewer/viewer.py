"""Cases of a page -> its viewer: those for which there is room, and in words what was left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib import colormaps

from segmed.files import atomic_write_text
from segmed.reports.drawing.label_colours import label_colours
from segmed.reports.drawing.one_slice import HEAT
from segmed.reports.rendering import render_page
from segmed.reports.viewer.layers import Layers
from segmed.reports.viewer.payload import Payload, pack

MOST_BYTES = 25_000_000  # of a page: what mail takes
LEAST_SHOWN = 6  # cases that a page has room for, however large they are
FULL_BYTES = 20_000  # of room that no further case is tried with
FIGURES = 4  # of a value in the list
SCRIPTS = ("viewer_case.js", "viewer_drawing.js", "viewer_hands.js")  # they share their names; the last one starts


@dataclass(frozen=True)
class Column:
    """A figure by which cases are sorted.

    Attributes:
        title: of it.
        worst: which values come first: `low`, `high`, or those `far` from 0.
        words: shown in place of a value, that of its whole part; none: the value is shown.
    """

    title: str
    worst: str = "high"
    words: tuple[str, ...] = ()

    def key(self, value: float | None) -> float:
        """By which cases are sorted, the worst first; a case without a value comes last."""
        if value is None or math.isnan(value):
            return math.inf
        return {"low": value, "high": -value, "far": -abs(value)}[self.worst]


@dataclass(frozen=True)
class ViewerCase:
    """A case of the list.

    Attributes:
        name: of it.
        values: structure -> a value for each column; None: it has none.
        note: what there is to say of it.
    """

    name: str
    values: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Viewer:
    """What a page shows.

    Attributes:
        labels: names in the order of their indices, for their colours.
        load: name of a case -> its layers.
        cases: of the list.
        columns: by which they are sorted, that of the page first.
        structures: of which there are values, that of the page first.
        colours: of the labels; none: those of all pages.
        elsewhere: where the cases are that the page has no room for.
    """

    labels: tuple[str, ...]
    load: Callable[[str], Layers]
    cases: tuple[ViewerCase, ...]
    columns: tuple[Column, ...] = ()
    structures: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    elsewhere: str = "the folder of this page"

    def ranked(self) -> list[ViewerCase]:
        """The worst first, by the page's own figure."""
        if not (self.columns and self.structures):
            return list(self.cases)
        first = self.columns[0]
        return sorted(self.cases, key=lambda case: first.key((case.values.get(self.structures[0]) or (None,))[0]))


@cache
def _own_files(*names: str) -> Markup:
    """Files of the viewer, as they stand, one after the other."""
    return Markup("\n").join(Markup((Path(__file__).parent / name).read_text(encoding="utf-8")) for name in names)


def write_page_with_viewer(path: Path, template: str, viewer: Viewer | None, **content: Any) -> Path:
    """Write a page of at most 25 MB: its viewer holds as many cases as there is room for.

    Args:
        path: of the page.
        template: name of a file in `templates`.
        viewer: what is shown; None: nothing.
        content: of the page.

    Raises:
        DiskError: the folder can't be written.
    """
    if viewer is None or not viewer.cases:
        atomic_write_text(path, render_page(template, viewer=None, **content))
        return path
    empty = render_page(template, viewer=_shown(viewer, {}, {}), **content)
    packed, wrong = _embedded(viewer, MOST_BYTES - len(empty.encode()))
    atomic_write_text(path, render_page(template, viewer=_shown(viewer, packed, wrong), **content))
    return path


def _in_turn(ranked: Sequence[ViewerCase]) -> Iterator[ViewerCase]:
    """The worst, the median and the best, then the others from the worst on."""
    first = dict.fromkeys((0, len(ranked) // 2, len(ranked) - 1))
    yield from (ranked[place] for place in first)
    yield from (case for place, case in enumerate(ranked) if place not in first)


def _embedded(viewer: Viewer, room_bytes: int) -> tuple[dict[str, Payload], dict[str, str]]:
    """Cases that the page has room for, and those that can't be shown, each with why."""
    packed, wrong = dict[str, Payload](), dict[str, str]()
    share = room_bytes // min(len(viewer.cases), LEAST_SHOWN)
    for case in _in_turn(viewer.ranked()):
        if room_bytes < FULL_BYTES:
            break
        try:
            payload = pack(viewer.load(case.name), min(share, room_bytes))
        except (ValueError, OSError, MemoryError) as error:
            wrong[case.name] = " ".join(str(error).split()) or type(error).__name__
            continue
        size = payload.size + len(str(payload.about))
        if size > room_bytes:
            break
        packed[case.name] = payload
        room_bytes -= size
    return packed, wrong


def _shown(viewer: Viewer, packed: Mapping[str, Payload], wrong: Mapping[str, str]) -> dict[str, Any]:
    """What the template is given."""
    cases, blobs = [], dict[str, str]()
    for number, case in enumerate(viewer.cases):
        payload = packed.get(case.name)
        if payload is not None:
            blobs |= {f"voxels-{number}-{layer}": text for layer, text in payload.voxels.items()}
        values = {name: [_short(value) for value in row] for name, row in case.values.items()}
        about = None if payload is None else payload.about
        cases.append({"name": case.name, "note": case.note, "values": values, "grid": about})
    heat = colormaps[HEAT](range(256), bytes=True)[:, :3].ravel().tolist()
    data = {
        "labels": list(viewer.labels),
        "colours": list(viewer.colours) or label_colours(viewer.labels, max(12, len(viewer.labels))),
        "columns": [
            {"title": column.title, "worst": column.worst, "words": list(column.words)} for column in viewer.columns
        ],
        "structures": list(viewer.structures),
        "cases": cases,
        "heat": heat,
    }
    return {
        "data": data,
        "blobs": blobs,
        "held": set(packed),
        "script": _own_files(*SCRIPTS),
        "style": _own_files("viewer.css"),
        "left_out": _left_out(viewer, packed, wrong),
    }


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{FIGURES}g}")


def _left_out(viewer: Viewer, packed: Mapping[str, Payload], wrong: Mapping[str, str]) -> list[str]:
    """Which cases the page does not hold, in words."""
    said = []
    if len(packed) + len(wrong) < len(viewer.cases):
        said.append(
            f"{len(packed)} of {len(viewer.cases)} cases are in this page, which is kept below "
            f"{MOST_BYTES // 1_000_000} MB: the worst, the median and the best, then from the worst on. "
            f"The others are in {viewer.elsewhere}."
        )
    return [*said, *(f"{name} can't be shown: {why}" for name, why in wrong.items())]
