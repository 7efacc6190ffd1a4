"""An audit of images with classes -> its figure: twins side by side, how alike images are, what tells the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from scipy import ndimage

from segmed.data.images.image_dataset import ClassDataset
from segmed.data.leaks.image_audit import ClassAudit
from segmed.data.leaks.image_facts import shown_pixels
from segmed.data.leaks.twins import CUT, Twin
from segmed.reports.drawing.curves import COLOURS
from segmed.reports.drawing.distributions import MISS_COLOUR
from segmed.reports.drawing.slices import INK
from segmed.reports.names import ending

PAIRS = 8  # shown
COLUMNS = 4  # pairs in a row
ROW_INCHES = 1.85
EQUAL = 3  # pairs of equal pixels at most, where there are near twins too
LONGEST_NAME = 26  # letters
FEWEST_BARS = 4  # that there is room for: one alone would fill the panel
WITHIN_COLOUR, ACROSS_COLOUR = COLOURS[0], COLOURS[1]
GREY = "#BBBBBB"


def leak_figure(
    audit: ClassAudit,
    dataset: ClassDataset,
    *,
    parts: Mapping[str, Sequence[str]] | None = None,
    title: str = "",
) -> Figure:
    """Pairs of twins, worst first, above a histogram of the most alike images and bars of what tells the class.

    Args:
        audit: what is shown.
        dataset: of the audit; the images of the twins are read again.
        parts: of the split that was audited; None: the published ones.
        title: above the figure.
    """
    sides = {name: part for part, names in (parts or dataset.parts or {}).items() for name in names}
    pairs = worst_twins(audit.twins, dataset, sides)
    rows = -(-len(pairs) // COLUMNS)
    figure = Figure(figsize=(11, ROW_INCHES * rows + 3.9), layout="constrained")
    heights = [ROW_INCHES * rows + 0.3, 3.3] if rows else [3.3]
    bands = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if rows:
        _draw_pairs(bands[0], pairs, dataset, rows)
    left, middle, right = bands[-1].subplots(1, 3, width_ratios=[1.2, 1, 1])
    _draw_alike(left, audit)
    _draw_neighbours(middle, audit)
    _draw_shortcuts(right, audit)
    figure.suptitle(title or audit.name, fontsize=10, color=INK)
    return figure


def worst_twins(
    twins: Sequence[Twin], dataset: ClassDataset, sides: Mapping[str, str], *, most: int = PAIRS
) -> list[Twin]:
    """Twins of two classes first, then those in two parts; a few of equal pixels, the rest changed copies.

    Args:
        twins: of an audit.
        dataset: whose classes count.
        sides: id -> part.
        most: at the end.
    """
    label = {item.id: item.label for item in dataset.items}

    def rank(twin: Twin) -> tuple[bool, bool]:
        return label[twin.a] == label[twin.b], sides.get(twin.a) == sides.get(twin.b)

    ordered = sorted(twins, key=rank)
    near = sum(twin.kind == "near" for twin in twins)
    allowed = max(EQUAL, most - near)
    equal = [twin for twin in ordered if twin.kind == "pixels" and label[twin.a] == label[twin.b]][allowed:]
    left_out = {(twin.a, twin.b) for twin in equal}
    return [twin for twin in ordered if (twin.a, twin.b) not in left_out][:most]


def _draw_pairs(upper: SubFigure, pairs: Sequence[Twin], dataset: ClassDataset, rows: int) -> None:
    items = {item.id: item for item in dataset.items}
    grid = upper.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, twin in zip(grid.flat, pairs, strict=False):
        two = items[twin.a], items[twin.b]
        beside = _side_by_side(shown_pixels(two[0].path), shown_pixels(two[1].path))
        axes.imshow(beside, cmap="gray", vmin=0, vmax=1)
        colour = INK if two[0].label == two[1].label else MISS_COLOUR
        for place, item in zip((0.25, 0.75), two, strict=True):
            text = f"{_short(item.id)}\n{dataset.classes[item.label]}"
            axes.text(place, 1.02, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=5.5, color=colour)
        how = "same pixels" if twin.kind == "pixels" else f"r = {twin.correlation:.3f}"
        how += f", {twin.transform.replace('_', ' ')}" if twin.transform else ""
        axes.text(0.5, -0.02, how, transform=axes.transAxes, ha="center", va="top", fontsize=6.5, color=colour)


def _side_by_side(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two pictures of equal height with a gap between them; the lower one is enlarged."""
    height = max(len(a), len(b))
    a, b = (ndimage.zoom(picture, height / len(picture), order=1) for picture in (a, b))
    return np.hstack([a, np.ones((height, max(1, height // 25))), b])


def _short(name: str) -> str:
    """The end of an id."""
    name = Path(name).name if len(name) > LONGEST_NAME else name
    return ending(name, LONGEST_NAME)


def _draw_alike(axes: Axes, audit: ClassAudit) -> None:
    known = audit.subjects is not None
    both = np.array([*audit.within, *audit.across, 0.0, 1.0])
    bins = np.linspace(min(0.0, float(both.min())), 1, 51).tolist()
    for values, colour, of in (
        (audit.across, ACROSS_COLOUR, "another subject" if known else "no twin"),
        (audit.within, WITHIN_COLOUR, "the same subject" if known else "a twin"),
    ):
        if values:
            axes.hist(values, bins, color=colour, alpha=0.75, label=of)
    axes.axvline(CUT, color=INK, linewidth=0.8, linestyle=":", label="neighbouring slices from here")
    of = "subject" if known else "group of twins"
    axes.set_xlabel(f"correlation with the most alike image, by {of}", fontsize=8, color=INK)
    axes.set_ylabel("images", fontsize=8, color=INK)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, loc="upper left")
    _plain(axes)


def _draw_neighbours(axes: Axes, audit: ClassAudit) -> None:
    names = list(audit.neighbours)
    for place, name in enumerate(names):
        score = audit.neighbours[name]
        axes.bar(place - 0.2, score.accuracy, 0.38, color=WITHIN_COLOUR, label="accuracy" if not place else None)
        axes.bar(
            place + 0.2, score.balanced_accuracy, 0.38, color=ACROSS_COLOUR, label="balanced" if not place else None
        )
        for shift, value in ((-0.2, score.accuracy), (0.2, score.balanced_accuracy)):
            axes.annotate(f"{100 * value:.1f}", (place + shift, value), ha="center", va="bottom", fontsize=7, color=INK)
    if names:
        majority = audit.neighbours[names[0]].majority
        axes.axhline(majority, color=INK, linewidth=0.8, linestyle=":", label="largest class")
        axes.legend(fontsize=7, frameon=False, loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.14))
    axes.set_xticks(range(len(names)), [f"split by {name}" for name in names])
    axes.set_ylim(0, 1.08)
    axes.set_xlabel("nearest neighbour on pixels", fontsize=8, color=INK)
    _plain(axes)


def _draw_shortcuts(axes: Axes, audit: ClassAudit) -> None:
    """Balanced accuracy of each feature, over the range that chance explains."""
    for place, shortcut in enumerate(audit.shortcuts):
        low, high = shortcut.chance_low, shortcut.chance_high
        axes.barh(place, high - low, 0.8, left=low, color=GREY, alpha=0.6, linewidth=0)
        colour = MISS_COLOUR if shortcut.tells else WITHIN_COLOUR
        axes.plot([shortcut.balanced_accuracy], [place], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(audit.shortcuts)), [shortcut.feature for shortcut in audit.shortcuts])
    axes.set_ylim(max(len(audit.shortcuts), FEWEST_BARS) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("balanced accuracy from this alone (grey: chance)", fontsize=8, color=INK)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7, colors=INK, width=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
