"""Draw what the metrics measure and how segmenters nest, values by segmed itself: python docs/make_drawings.py"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from scipy import ndimage
from scipy.spatial import cKDTree

import segmed

IMAGES = Path(__file__).resolve().parent / "images"
REFERENCE, RESULT, BOTH, INK = "#56B4E9", "#E69F00", "#009E73", "#222222"
SIZE = 48  # voxels of 1 mm an axis
DPI = 110


def masks() -> tuple[np.ndarray, np.ndarray]:
    """A reference and a result (X, Y, 1) bool: a disc, and a smaller one beside it with a spike."""
    x, y = np.mgrid[:SIZE, :SIZE]
    reference = np.hypot(x - 21, y - 24) < 13
    result = (np.hypot(x - 24, y - 25) < 11) | ((abs(y - 25) < 2) & (x > 30) & (x < 44))
    return reference[..., None], result[..., None]


def scores(result: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """All metrics of two masks, voxels of 1 mm."""
    (row,) = segmed.score(result.astype(np.uint8), reference.astype(np.uint8), {"disc": 1}, spacing=(1, 1, 1))
    return row


def main() -> None:
    """Write every drawing."""
    for name, draw in {
        "metrics_overlap": overlap,
        "metrics_distance": distance,
        "metrics_volume": volume,
        "metrics_misses": misses,
        "segmenters": segmenters,
        "files_to_label_maps": stations,
    }.items():
        path = IMAGES / f"{name}.png"
        draw().savefig(path, dpi=DPI, facecolor="white")
        print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


# ---------------------------------------------------------------- metrics


def overlap() -> Figure:
    """Dice, IoU, sensitivity and precision: which areas are divided by which."""
    reference, result = masks()
    value = scores(result, reference)
    figure, panels = _panels(4)
    shown: dict[str, tuple[str, np.ndarray]] = {
        f"Dice {value['dice']:.3f}": ("2 × both / (reference + result)", reference | result),
        f"IoU {value['iou']:.3f}": ("both / either", reference | result),
        f"sensitivity {value['sensitivity']:.3f}": ("both / reference", reference),
        f"precision {value['precision']:.3f}": ("both / result", result),
    }
    for axes, (title, (formula, below)) in zip(panels, shown.items(), strict=True):
        _area(axes, below, "#cccccc")
        _area(axes, reference & result, BOTH)
        _contours(axes, reference, result)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel(formula, fontsize=8.5, color=INK)
    return figure


def distance() -> Figure:
    """HD, HD95, ASSD and surface Dice: distances between the two surfaces."""
    reference, result = masks()
    value = scores(result, reference)
    figure, panels = _panels(4)
    ends = _nearest(result, reference) + _nearest(reference, result)
    lengths = np.array([np.hypot(*(a - b)) for a, b in ends])
    limit = np.percentile(lengths, 95)
    chosen: dict[str, tuple[str, Callable[[float], bool]]] = {
        f"HD {value['hd_mm']:.1f} mm": ("the largest distance", lambda d: d == lengths.max()),
        f"HD95 {value['hd95_mm']:.1f} mm": ("all but the largest 5 %", lambda d: d <= limit),
        f"ASSD {value['assd_mm']:.2f} mm": ("the mean, by surface area", lambda d: True),
        f"surface Dice {value['surface_dice']:.3f}": ("share of surface within 1 mm", lambda d: d <= 1),
    }
    for axes, (title, (what, keeps)) in zip(panels, chosen.items(), strict=True):
        _contours(axes, reference, result)
        for (a, b), length in zip(ends, lengths, strict=True):
            if keeps(length):
                axes.plot(*zip(a, b, strict=True), color=INK, linewidth=0.9)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel(what, fontsize=8.5, color=INK)
    return figure


def volume() -> Figure:
    """AVD, volume difference and relative error: they see sizes, not places."""
    reference, result = masks()
    moved = np.roll(reference, 13, axis=0)
    figure, panels = _panels(2)
    for axes, found in zip(panels, (result, moved), strict=True):
        value = scores(found, reference)
        _area(axes, found, RESULT, strength=0.35)
        _area(axes, reference, REFERENCE, strength=0.35)
        _contours(axes, reference, found)
        given = f"{value['prediction_ml']:.3f} ml found, {value['reference_ml']:.3f} ml true"
        axes.set_title(f"AVD {value['avd_ml']:.3f} ml, Dice {value['dice']:.2f}", fontsize=10, color=INK)
        relative = value["relative_volume_error"]
        signed = f"difference {value['volume_difference_ml']:+.3f} ml, relative error {relative:.2f}"
        axes.set_xlabel(f"{given}\n{signed}", fontsize=8.5, color=INK)
    return figure


def misses() -> Figure:
    """What a structure costs that is missed, invented, or rightly not there."""
    reference, result = masks()
    nothing = np.zeros_like(reference)
    figure, panels = _panels(3)
    cases = {"missed": (reference, nothing), "invented": (nothing, result), "rightly nothing": (nothing, nothing)}
    for axes, (title, (true, found)) in zip(panels, cases.items(), strict=True):
        value = scores(found, true)
        _contours(axes, true, found)
        if true.any() != found.any():
            axes.plot([0, SIZE - 1], [0, SIZE - 1], color="#999999", linewidth=1, linestyle="--")
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel(
            f"Dice {value['dice']:.0f}, HD and HD95 {value['hd_mm']:.1f} mm\nAVD {value['avd_ml']:.2f} ml",
            fontsize=8.5,
            color=INK,
        )
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(2.5 * count, 3.5), layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(1, count)))
    for axes in panels:
        axes.set(xlim=(-0.5, SIZE - 0.5), ylim=(-0.5, SIZE - 0.5), xticks=[], yticks=[], aspect="equal")
    handles = [panels[0].plot([], [], color=colour, linewidth=2)[0] for colour in (REFERENCE, RESULT)]
    figure.legend(handles, ["reference", "result"], loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure, panels


def _area(axes: Axes, mask: np.ndarray, colour: str, *, strength: float = 1.0) -> None:
    if mask.any():
        axes.contourf(mask[..., 0].T.astype(float), levels=[0.5, 1.5], colors=[colour], alpha=strength)


def _contours(axes: Axes, reference: np.ndarray, result: np.ndarray) -> None:
    for mask, colour in ((reference, REFERENCE), (result, RESULT)):
        if mask.any():
            axes.contour(mask[..., 0].T.astype(float), levels=[0.5], colors=[colour], linewidths=1.8)


def _surface(mask: np.ndarray) -> np.ndarray:
    flat = mask[..., 0]
    return np.argwhere(flat & ~ndimage.binary_erosion(flat)).astype(float)


def _nearest(start: np.ndarray, goal: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each surface voxel of one with the nearest of the other."""
    points, others = _surface(start), _surface(goal)
    return list(zip(points, others[cKDTree(others).query(points)[1]], strict=True))


# ---------------------------------------------------------------- boxes and arrows


def segmenters() -> Figure:
    """A cascade of votes: segmenters inside segmenters, all with one interface."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 18), ylim=(0, 7))
    axes.set_axis_off()
    _box(axes, 2.2, 0.2, 13.4, 6.6, "Cascade(margin_mm=10)", "#f2f2f2")
    for left, title, names in (
        (2.6, "coarse: Vote", ("axial U-Net", "coronal U-Net", "sagittal U-Net")),
        (9.4, "fine: Mean", ("axial U-Net", "3D U-Net", "random forest")),
    ):
        _box(axes, left, 0.6, 5.8, 5.4, title, "#e3eef7" if "coarse" in title else "#fbeeda")
        for number, name in enumerate(names):
            _box(axes, left + 0.5, 3.8 - 1.4 * number, 4.8, 1.1, name, "white", middle=True)
    _arrow(axes, (0.9, 3.4), (2.1, 3.4), "volume")
    _arrow(axes, (8.45, 3.4), (9.35, 3.4), "region")
    _arrow(axes, (15.7, 3.4), (16.9, 3.4), "label\nprobabilities")
    return figure


def stations() -> Figure:
    """From files to label maps: the stations of a run."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 18), ylim=(0, 5))
    axes.set_axis_off()
    upper = ["files", "audit and\nfingerprint", "plan: every auto\nwith its reason", "preprocessed\ncache"]
    lower = ["patches and\naugmentation", "one visible\ntraining loop", "run folder", "test, once;\nthen predict"]
    for height, names, colour in ((2.9, upper, "#e3eef7"), (0.3, lower, "#fbeeda")):
        for number, name in enumerate(names):
            _box(axes, 0.3 + 4.45 * number, height, 3.8, 1.7, name, colour, middle=True)
            if number:
                _arrow(axes, (4.45 * number - 0.3, height + 0.85), (4.45 * number + 0.25, height + 0.85))
    axes.plot([15.55, 15.55, 2.2, 2.2], [2.85, 2.45, 2.45, 2.2], color=INK, linewidth=1)
    _arrow(axes, (2.2, 2.3), (2.2, 2.02))
    return figure


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, *, middle: bool = False
) -> None:
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.2", facecolor=colour, edgecolor=INK
    )
    axes.add_patch(shape)
    place = (x + width / 2, y + height / 2) if middle else (x + width / 2, y + height - 0.3)
    axes.text(*place, text, ha="center", va="center" if middle else "top", fontsize=9, color=INK)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK})
    axes.text((start[0] + end[0]) / 2, start[1] + 0.35, text, ha="center", va="bottom", fontsize=8, color=INK)


if __name__ == "__main__":
    main()
