"""Where a classifier looks: Grad-CAM and occlusion maps beside the images they belong to."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from monai.visualize import GradCAM, OcclusionSensitivity
from torch import Tensor

from segmed.config.classification import ClassEvaluateConfig
from segmed.files import remove
from segmed.networks.classifiers import ClassificationModel
from segmed.reports.classification_figures import (
    RIGHT_COLOUR,
    answer_text,
    finish,
    show_image,
    tail,
    tallness_of,
    worst_first,
)
from segmed.reports.classified import Tested
from segmed.reports.distributions import MISS_COLOUR
from segmed.reports.figures import HEAT, INK, save_figure
from segmed.reports.panels import bare, show_plane

MASK_PARTS = {2: 8, 3: 4}  # an occluding box is so many times smaller than the image along each axis
OVERLAP = {2: 0.5, 3: 0.25}  # of neighbouring boxes: some 225 boxes in 2D, 125 in 3D
BATCH = 16
LEAST_DROP = 0.005  # of a probability, from which an occlusion map is drawn
PANEL_INCHES = 1.35


@dataclass(frozen=True)
class Explanation:
    """Where a model looked when it gave an answer.

    Attributes:
        attention: (*spatial), Grad-CAM of the answer from 0 to 1; None where the model has no feature map.
        drop: (*spatial), by how much the probability of the answer falls where the image is hidden; below 0 it rises.
    """

    attention: np.ndarray | None
    drop: np.ndarray


def explain(model: ClassificationModel, image: np.ndarray) -> Explanation:
    """Grad-CAM and occlusion sensitivity of a model's answer to one image; the model stays as it is.

    Args:
        model: on any device.
        image: (C, *spatial), as the model sees it.

    Raises:
        NetworkError: the image does not fit.

    Source: Selvaraju et al. 2017, doi 10.1109/ICCV.2017.74 (Grad-CAM); Zeiler and Fergus 2014, arXiv 1311.2901,
    section 4.2 (occlusion, here by the image's mean).
    """
    twin = copy.deepcopy(model).eval().requires_grad_(True)  # MONAI's hooks stay on the model that gets them
    for module in twin.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]  # backward hooks and in-place changes exclude each other
    with torch.inference_mode(False), torch.enable_grad():
        device = next(twin.parameters()).device
        batch = torch.tensor(np.asarray(image, dtype=np.float32), device=device)[None]
        with torch.no_grad():
            sure = twin(batch).float().softmax(1)[0]
        answer = int(sure.argmax())
        attention = None
        if twin.map_layer:
            found = GradCAM(twin, target_layers=twin.map_layer, postprocessing=_to_one)(batch, class_idx=answer)
            attention = found[0, 0].detach().float().cpu().numpy()
        return Explanation(attention, float(sure[answer]) - _hidden(twin, batch)[answer])


def _hidden(model: ClassificationModel, batch: Tensor) -> np.ndarray:
    """(K, *spatial), the probability of each class where a box around a voxel is hidden."""
    size = [max(1, side // MASK_PARTS[model.dims]) for side in batch.shape[2:]]
    occlusion = OcclusionSensitivity(
        model, mask_size=size, n_batch=BATCH, verbose=False, mode="mean_img", overlap=OVERLAP[model.dims],
        activate=lambda logits: logits.float().softmax(1),
    )  # fmt: skip
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)  # of MONAI 1.6 with torch 2.13
        maps, _ = occlusion(batch)
    return maps[0].cpu().numpy()


def _to_one(maps: Tensor) -> Tensor:
    return maps / maps.amax().clamp(min=torch.finfo(maps.dtype).tiny)


# ---------------------------------------------------------------- figure


def maps_figure(
    model: ClassificationModel,
    test: Tested,
    load: Callable[[str], np.ndarray],
    *,
    most: int,
    title: str = "",
    notes: Sequence[str] = (),
) -> Figure | None:
    """Images with their Grad-CAM and occlusion map, one half misclassified, as far as there are such.

    Of volumes the middle slices of all three planes. Grad-CAM is scaled to its largest value; of occlusion the largest
    drop of the answer's probability stands below the map.

    Args:
        model: that gave the answers.
        test: its answers.
        load: id -> (C, H, W) or (C, X, Y, Z), as the model sees it.
        most: how many images; 0: no figure.
        title, notes: of the figure, see `finish`.

    Returns:
        None where no image is to be shown.
    """
    shown = shown_images(test, most)
    if not shown:
        return None
    images = [np.asarray(load(test.ids[index])) for index in shown]
    heights = _heights(images[0])
    beside = min(2, len(shown))
    rows = -(-len(shown) // beside)
    row_inches = PANEL_INCHES * sum(heights) + 0.12 * len(heights) + 0.7
    figure = Figure(figsize=(beside * (3 * PANEL_INCHES + 0.3), rows * row_inches + 0.5), layout="constrained")
    parts = figure.subfigures(rows, beside, squeeze=False).ravel()
    for part, index, image in zip(parts, shown, images, strict=False):
        right = test.labels[index] == test.truth[index]
        text = f"{'right' if right else 'wrong'}: {answer_text(test, index).replace(chr(10), ', ')}"
        part.suptitle(f"{text}\n{tail(test.ids[index])}", fontsize=6.5, color=RIGHT_COLOUR if right else MISS_COLOUR)
        _draw_case(part, image, explain(model, image), heights)
    return finish(figure, title, notes)


def write_maps(
    model: ClassificationModel,
    test: Tested,
    folder: Path,
    *,
    config: ClassEvaluateConfig,
    title: str,
    notes: Sequence[str],
    load: Callable[[str], np.ndarray],
) -> Figure | None:
    """Write maps.png of `maps_figure`.

    Args:
        model, test, title, notes, load: as in `maps_figure`.
        folder: exists.
        config: the `evaluate` section.

    Raises:
        DiskError: the folder can't be written.
    """
    remove(folder / "maps.png")  # of an earlier test, if this one has none
    figure = maps_figure(model, test, load, most=config.maps, title=title, notes=notes)
    if figure is not None:
        save_figure(figure, folder / "maps.png")
    return figure


def shown_images(test: Tested, most: int) -> list[int]:
    """Indices: the worst errors, then the surest right answers of each class in turn; one half each, if there are."""
    wrong = worst_first(test)
    sure = np.argsort(-test.probabilities.max(axis=1), kind="stable")
    of_class = [[int(i) for i in sure if test.truth[i] == k and test.labels[i] == k] for k in range(len(test.classes))]
    depth = max(map(len, of_class), default=0)
    right = [own[place] for place in range(depth) for own in of_class if place < len(own)]
    half = max(most // 2, most - len(right))
    return [*wrong[:half], *right[: most - min(half, len(wrong))]]


def _heights(image: np.ndarray) -> list[float]:
    """Height over width of each plane that is drawn: one of an image; axial, coronal and sagittal of a volume."""
    if image.ndim == 3:
        return [tallness_of(image)]
    x, y, z = image.shape[1:]
    return [min(max(height / width, 0.4), 2.0) for width, height in ((x, y), (x, z), (y, z))]


def _draw_case(part: SubFigure, image: np.ndarray, found: Explanation, heights: Sequence[float]) -> None:
    grid = part.subplots(len(heights), 3, squeeze=False, height_ratios=heights)
    drop = float(found.drop.max())
    maps = [None, found.attention, found.drop if drop >= LEAST_DROP else None]
    titles = ["image", "Grad-CAM" if found.attention is not None else "no feature map", "occlusion"]
    for column, (text, values) in enumerate(zip(titles, maps, strict=True)):
        for row, axis in enumerate((2, 1, 0)[: len(heights)]):
            axes = grid[row, column]
            _draw_panel(axes, image, values, axis)
        grid[0, column].set_title(text, fontsize=7, color=INK, pad=2)
    below = f"probability falls by up to {drop:.2f}" if drop >= LEAST_DROP else "probability falls nowhere"
    grid[-1, 2].set_xlabel(below, fontsize=6, color=INK, labelpad=2)
    if found.attention is not None and not found.attention.any():
        grid[-1, 1].set_xlabel("nowhere for the answer", fontsize=6, color=INK, labelpad=2)


def _draw_panel(axes: Axes, image: np.ndarray, values: np.ndarray | None, axis: int) -> None:
    """An image and a map over it, the more opaque the higher; of volumes the middle slice across an axis."""
    if image.ndim == 3:
        show_image(axes, image)
        if values is not None:
            high = max(float(values.max()), 1e-6)
            shares = np.clip(values / high, 0, 1)
            axes.imshow(shares, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * np.sqrt(shares))
        return
    show_plane(axes, image[0].take(image.shape[1 + axis] // 2, axis=axis))
    if values is not None:
        shares = np.clip(values / max(float(values.max()), 1e-6), 0, 1)
        plane = shares.take(shares.shape[axis] // 2, axis=axis).T
        axes.imshow(plane, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * np.sqrt(plane), origin="lower")
        axes.set_xlim(plane.shape[1] - 0.5, -0.5)
    bare(axes)
