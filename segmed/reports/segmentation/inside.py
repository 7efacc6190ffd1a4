"""What a network sees and makes of it: intensities, training patches, feature maps, logits, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage
from torch import Tensor, nn

from segmed.labels import IGNORE, LabelSet
from segmed.reports.drawing.curves import COLOURS
from segmed.reports.drawing.panels import (
    TILE_INCHES,
    add_legend,
    add_scale,
    add_title,
    bare,
    contours,
    fullest_slice,
    grey_range,
    labelled,
    plain,
    plane_of,
    show_plane,
    size_text,
    tallness,
)
from segmed.reports.drawing.slices import HEAT, INK, PREDICTION_COLOUR, REFERENCE_COLOUR
from segmed.targets import targets_of

BINS = 120  # of a distribution of intensities,
SMOOTHING_BINS = 1.5  # smoothed a little: files hold whole numbers, which fall unevenly into bins
UNCERTAINTY_BINS = 10
SHARES = (0.0001, 0.001, 0.01, 0.1, 1.0)  # of the voxels, ticks
BESIDE = {"horizontalalignment": "right", "verticalalignment": "center", "rotation": 0}


# ---------------------------------------------------------------- what goes in


def intensity_figure(panels: Mapping[str, Mapping[str, np.ndarray]], *, title: str = "") -> Figure:
    """Distributions of intensities: a panel a group, a line a volume or tissue.

    Args:
        panels: text above a panel -> name of a line -> intensities, of any shape.
        title: above the figure.

    Raises:
        ValueError: no panel, or one without voxels.
    """
    if not panels or not all(any(np.size(values) for values in lines.values()) for lines in panels.values()):
        raise ValueError("a distribution needs voxels: give arrays that hold some in every panel")
    figure = Figure(figsize=(3.3 * len(panels), 2.5), layout="constrained")
    for axes, (text, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        arrays = [np.asarray(values, dtype=float).ravel() for values in lines.values()]
        ends = [np.percentile(array, (0.1, 99.5)) for array in arrays if array.size]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
        for number, (name, array) in enumerate(zip(lines, arrays, strict=True)):
            share = np.histogram(array, edges)[0] / max(array.size, 1)
            smooth = ndimage.gaussian_filter1d(share, SMOOTHING_BINS, mode="nearest")
            axes.plot(edges[:-1], smooth, color=COLOURS[number % len(COLOURS)], linewidth=1.2, label=name)
        axes.set_title(text, fontsize=8, color=INK)
        axes.set_xlabel("intensity", fontsize=8, color=INK)
        axes.set_ylabel("share of the voxels", fontsize=8, color=INK)
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
        plain(axes)
        axes.legend(fontsize=6.5, frameon=False)
    add_title(figure, title)
    return figure


def patch_figure(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    labels: LabelSet,
    *,
    columns: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """Training samples, a row a group, with the contours of their labels.

    The first sample of each number sets the standard: those of the same number are cut where it has most of its
    labels, and all share one range of grey, so that what differs from it was done by augmentation.

    Args:
        rows: name of a row -> samples of a `PatchDataset`: image (C, *spatial), label (*spatial), case, index.
        labels: their names.
        columns: text above each column; none: the number of the first row's sample, and its case.
        title: above the figure.

    Raises:
        ValueError: no sample.
    """
    drawn = {name: row for name, row in rows.items() if row}
    if not drawn:
        raise ValueError("no patch to draw: give at least one sample")
    first = next(iter(drawn.values()))
    standard: dict[int, Mapping[str, Any]] = {}
    for sample in (sample for row in drawn.values() for sample in row):
        standard.setdefault(sample["index"], sample)
    slices = {index: fullest_slice(np.asarray(sample["label"])) for index, sample in standard.items()}
    window = grey_range(np.concatenate([np.asarray(sample["image"])[0].ravel() for sample in standard.values()]))
    most = max(len(row) for row in drawn.values())
    height = TILE_INCHES * tallness(np.asarray(first[0]["label"]))
    figure = Figure(figsize=(TILE_INCHES * most + 0.9, height * len(drawn) + 0.8), layout="constrained")
    grid = figure.subplots(len(drawn), most, squeeze=False)
    for line, (name, row) in zip(grid, drawn.items(), strict=True):
        for axes in line:
            bare(axes)
        for axes, sample in zip(line, row, strict=False):
            _show_sample(axes, sample, slices[sample["index"]], window)
        line[0].set_ylabel(name, fontsize=8, color=INK, **BESIDE)
    for axes, text in zip(grid[0], columns or [f"sample {s['index']}\n{s['case']}" for s in first], strict=False):
        axes.set_title(text, fontsize=7, color=INK)
    add_legend(figure, {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(labels.names)})
    add_title(figure, title)
    return figure


def _show_sample(axes: Axes, sample: Mapping[str, Any], number: int, window: tuple[float, float]) -> None:
    show_plane(axes, plane_of(np.asarray(sample["image"])[0], number), window=window)
    contours(axes, plane_of(np.asarray(sample["label"]), number), COLOURS)


# ---------------------------------------------------------------- what a network makes of it


def feature_figure(network: nn.Module, image: Tensor, *, maps: int = 7, title: str = "") -> Figure:
    """Feature maps of every level of a network's encoder, beside the image that they come from.

    A level shows the maps that vary most, each in its own range, in the slice in the middle of the last axis.

    Args:
        network: with an `encoder`, on the image's device; used in the mode it is in.
        image: (C, *spatial), preprocessed, of a size that fits the network.
        maps: shown of each level, at most.
        title: above the figure.

    Raises:
        ValueError: the network has no encoder that gives a feature map a level.
    """
    encoder = getattr(network, "encoder", None)
    if encoder is None or not hasattr(encoder, "channels"):
        raise ValueError(f"{type(network).__name__} has no encoder to look into: take a network named `unet`")
    with torch.no_grad():
        features = [level[0].float().numpy(force=True) for level in encoder(image[None])]
    picture = image[0].numpy(force=True)
    tile = 0.85 * TILE_INCHES
    size = tile * (maps + 2.2) + 1.3, tile * tallness(picture) * len(features) + 0.4
    figure = Figure(figsize=size, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[2.2 * tile, tile * maps + 1.3], squeeze=False)[0]
    axes = left.subplots()
    show_plane(axes, plane_of(picture, picture.shape[-1] // 2))
    bare(axes)
    axes.set_title(f"image, {size_text(picture.shape)}", fontsize=8, color=INK)
    grid = right.subplots(len(features), maps, squeeze=False)
    for number, (line, level) in enumerate(zip(grid, features, strict=True), start=1):
        _show_level(line, level)
        text = f"level {number}\n{len(level)} maps of\n{size_text(level.shape[1:])}"
        line[0].set_ylabel(text, fontsize=7.5, color=INK, **BESIDE)
    add_title(figure, title)
    return figure


def _show_level(line: Sequence[Axes], level: np.ndarray) -> None:
    """The maps of a level (channels, *spatial) that vary most, in their order."""
    planes = [plane_of(one, one.shape[-1] // 2) for one in level]
    most_varied = sorted(range(len(planes)), key=lambda index: -planes[index].std())[: len(line)]
    for axes in line:
        bare(axes)
    for axes, index in zip(line, sorted(most_varied), strict=False):
        show_plane(axes, planes[index], colours=HEAT)


def logits_figure(
    network: nn.Module, image: Tensor, labels: LabelSet, *, reference: Tensor | None = None, title: str = ""
) -> Figure:
    """From image to decision: the logits of one patch, the probabilities of labels or regions, the labels.

    Args:
        network: (B, C, *spatial) -> logits, on the image's device; used in the mode it is in.
        image: (C, *spatial), preprocessed, of a size that fits the network.
        labels: of the classes after background.
        reference: (*spatial) label indices.
        title: above the figure.

    Raises:
        ValueError: the network gives another number of classes.
    """
    with torch.no_grad():
        logits = network(image[None])[0].float().numpy(force=True)
    targets = targets_of(labels)
    if len(logits) != targets.channels:
        given = f"the network gives {len(logits)} classes, the labels are {targets.channels}"
        raise ValueError(f"{given}: are they its own?")
    decided = targets.decided(torch.from_numpy(logits)[None])[0].numpy()
    known = np.zeros_like(decided) if reference is None else reference.numpy(force=True)
    number = fullest_slice(known if labelled(known).any() else decided)
    tile = 1.1 * TILE_INCHES
    size = tile * (targets.channels + 1) + 0.8, tile * 2 * tallness(decided) + 0.9
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(2, targets.channels + 1)
    for axes, text in zip(grid[:, 0], ("image", "most probable label"), strict=True):
        show_plane(axes, plane_of(image[0].numpy(force=True), number))
        axes.set_title(text, fontsize=8, color=INK)
    contours(grid[1, 0], plane_of(known, number), REFERENCE_COLOUR, width=1.6)
    contours(grid[1, 0], plane_of(decided, number), PREDICTION_COLOUR)
    largest = max(float(np.percentile(np.abs(logits), 99.5)), 1e-6)
    planes = np.stack([plane_of(one, number) for one in logits])
    _show_classes(grid[0, 1:], planes, "logits", (-largest, largest), "RdBu_r")
    _show_classes(
        grid[1, 1:], targets.activated(torch.from_numpy(planes)[None])[0].numpy(), "probabilities", (0.0, 1.0), HEAT
    )
    for axes, name in zip(grid[0, 1:], targets.names, strict=True):
        axes.set_title(name, fontsize=8, color=INK)
    for line in grid:
        bare(line[0])
        add_scale(figure, line[1:])
    lines = {"reference": REFERENCE_COLOUR} if reference is not None else {}
    add_legend(figure, {**lines, "prediction": PREDICTION_COLOUR})
    add_title(figure, title)
    return figure


def _show_classes(
    line: Sequence[Axes], planes: np.ndarray, text: str, window: tuple[float, float], colours: str
) -> None:
    for axes, plane in zip(line, planes, strict=True):
        show_plane(axes, plane, window=window, colours=colours)
        bare(axes)
    line[0].set_ylabel(text, fontsize=8, color=INK)


def error_figure(uncertainty: np.ndarray, prediction: np.ndarray, reference: np.ndarray, *, title: str = "") -> Figure:
    """Whether uncertain voxels are the wrong ones: error rate by uncertainty, and errors found by looking at the top.

    Args:
        uncertainty: (X, Y, Z), the higher the less certain.
        prediction, reference: (X, Y, Z) label indices; where the reference is IGNORE nothing counts.
        title: above the figure.

    Raises:
        ValueError: arrays of different shapes, or no voxel that counts.
    """
    uncertainty, prediction, reference = (np.asarray(array) for array in (uncertainty, prediction, reference))
    if not uncertainty.shape == prediction.shape == reference.shape:
        shapes = f"{uncertainty.shape}, {prediction.shape} and {reference.shape}"
        raise ValueError(f"uncertainty, prediction and reference differ in shape ({shapes}): bring them onto one grid")
    counted = reference != IGNORE
    if not counted.any():
        raise ValueError("every voxel of the reference is to be ignored: give one that knows some")
    values, wrong = uncertainty[counted], (prediction != reference)[counted]
    figure = Figure(figsize=(6.6, 2.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_error_rate(left, values, wrong)
    _draw_errors_found(right, values, wrong)
    add_title(figure, title)
    return figure


def _draw_error_rate(axes: Axes, values: np.ndarray, wrong: np.ndarray) -> None:
    edges = np.linspace(0, max(float(values.max()), 1e-6), UNCERTAINTY_BINS + 1)
    counts, errors = np.histogram(values, edges)[0], np.histogram(values[wrong], edges)[0]
    rates = np.divide(errors, counts, out=np.zeros(len(counts)), where=counts > 0)
    axes.bar(edges[:-1], rates, width=np.diff(edges) * 0.9, align="edge", color=REFERENCE_COLOUR)
    axes.set_ylim(0, 1)
    axes.set_xlabel("uncertainty", fontsize=8, color=INK)
    axes.set_ylabel("share of the voxels that is wrong", fontsize=8, color=INK)
    plain(axes)


def _draw_errors_found(axes: Axes, values: np.ndarray, wrong: np.ndarray) -> None:
    order = np.argsort(-values, kind="stable")
    recall = np.cumsum(wrong[order]) / max(int(wrong.sum()), 1)
    viewed = np.arange(1, len(recall) + 1) / len(recall)
    shown = np.unique(np.geomspace(1, len(recall), 400).astype(int)) - 1
    axes.plot(viewed[shown], recall[shown], color=PREDICTION_COLOUR, linewidth=1.6)
    axes.set_xscale("log")
    ticks = [share for share in SHARES if share >= 1 / len(recall)]
    axes.set_xlim(min(ticks), 1)
    axes.set_xticks(ticks, [f"{100 * share:g} %" for share in ticks])
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("most uncertain voxels looked at", fontsize=8, color=INK)
    axes.set_ylabel("share of the errors found", fontsize=8, color=INK)
    plain(axes)
