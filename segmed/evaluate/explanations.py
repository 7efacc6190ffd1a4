"""Where a classifier looks: Grad-CAM and occlusion maps, and the images that are worth a look."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from monai.visualize import GradCAM, OcclusionSensitivity
from torch import Tensor

from segmed.evaluate.answers import Answers
from segmed.networks.classifiers import ClassificationModel

MASK_PARTS = {2: 8, 3: 4}  # an occluding box is so many times smaller than the image along each axis
OVERLAP = {2: 0.5, 3: 0.25}  # of neighbouring boxes: some 225 boxes in 2D, 125 in 3D
BATCH = 16


@dataclass(frozen=True)
class Explanation:
    """Where a model looked when it gave an answer.

    Attributes:
        attention: (*spatial), Grad-CAM of the answer from 0 to 1; None where the model has no feature map.
        drop: (*spatial), by how much the probability of the answer falls where the image is hidden; below 0 it rises.
    """

    attention: np.ndarray | None
    drop: np.ndarray


@dataclass(frozen=True)
class ExplainedImage:
    """A test image and where the model looked.

    Attributes:
        index: of the image among the answers.
        image: (C, H, W) or (C, X, Y, Z), as the model sees it.
        explanation: of the answer.
    """

    index: int
    image: np.ndarray
    explanation: Explanation


def explain_images(
    model: ClassificationModel, test: Answers, load: Callable[[str], np.ndarray], *, most: int
) -> list[ExplainedImage]:
    """Explanations of some answers, one half of them wrong, as far as there are such.

    Args:
        model: that gave the answers.
        test: its answers.
        load: id -> (C, H, W) or (C, X, Y, Z), as the model sees it.
        most: how many images.
    """
    images = {index: np.asarray(load(test.ids[index])) for index in shown_images(test, most)}
    return [ExplainedImage(index, image, explain(model, image)) for index, image in images.items()]


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
            maps = GradCAM(twin, target_layers=twin.map_layer, postprocessing=_to_one)(batch, class_idx=answer)
            attention = maps[0, 0].detach().float().cpu().numpy()
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


def shown_images(test: Answers, most: int) -> list[int]:
    """Indices: the worst errors, then the surest right answers of each class in turn; one half each, if there are."""
    wrong = worst_first(test)
    sure = np.argsort(-test.probabilities.max(axis=1), kind="stable")
    of_class = [[int(i) for i in sure if test.truth[i] == k and test.labels[i] == k] for k in range(len(test.classes))]
    depth = max(map(len, of_class), default=0)
    right = [own[place] for place in range(depth) for own in of_class if place < len(own)]
    half = max(most // 2, most - len(right))
    return [*wrong[:half], *right[: most - min(half, len(wrong))]]


def worst_first(test: Answers) -> list[int]:
    """Indices of the misclassified images, the least probable truth first; of equal ones in the order of the images."""
    own = np.take_along_axis(test.probabilities, test.truth[:, None], axis=1)[:, 0]
    return [int(index) for index in np.argsort(own, kind="stable") if test.labels[index] != test.truth[index]]
