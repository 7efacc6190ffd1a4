"""What a prediction shows of a case without its truth: numbers by which good label maps can be told from bad ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from segmed.data.fingerprint import intensity_facts
from segmed.geometry import as_affine
from segmed.labels import LabelSet
from segmed.metrics.surfaces import bounding_box, surface

POSSIBLE = 0.02  # probability of any label from which on a voxel is looked at
THICK = 3.0  # times the finest spacing from which on the voxels across are no neighbours
RING = 2  # voxels around a label in which its surroundings are looked at
TINY = 1e-6

Signs = dict[str, float]


def structure_signs(
    probabilities: np.ndarray,
    indices: np.ndarray,
    image: np.ndarray,
    labels: LabelSet,
    *,
    spacing_mm: Sequence[float],
    voxel_ml: float,
    members: Sequence[np.ndarray] = (),
) -> dict[str, Signs]:
    """The signs of every label and region of one case.

    Args:
        probabilities: (L + 1, X, Y, Z), background first, summing to one.
        indices: (X, Y, Z) label indices that were decided from them.
        image: (C, X, Y, Z), as it is in the file.
        labels: what the indices mean.
        spacing_mm: size of a voxel along X, Y and Z.
        voxel_ml: volume of a voxel; 1 where the spacing is not known, so that volumes are voxels.
        members: label indices (X, Y, Z) of each of several networks whose mean the probabilities are.

    Returns:
        Name -> volume, soft_volume (of the sum of the probabilities), overlap (Dice that the probabilities expect),
        entropy (mean in and around the label, nats), foreground_entropy (mean of all foreground, nats), pieces (share
        of voxels outside the largest), roughness (surface over that of a ball), brightness N and contrast N of each
        channel; agreement (mean Dice of the members with the decided label), if there are members.
    """
    box = _box(probabilities, indices)
    doubt = _whole_entropy(probabilities[(slice(None), *box)], indices[box])
    scale = [_scale(channel) for channel in image]
    probabilities, indices, image = probabilities[(slice(None), *box)], indices[box], image[(slice(None), *box)]
    cut = [member[box] for member in members]
    neighbours = _neighbours(spacing_mm)
    result = {}
    for name, mask in labels.masks(indices).items():
        indices_of = labels.members(name)
        probability = probabilities[list(indices_of)].sum(axis=0)
        signs = _signs(mask, probability, neighbours, voxel_ml) | {"foreground_entropy": doubt}
        signs |= _appearance(mask, image, scale, neighbours)
        if cut:
            signs["agreement"] = float(np.mean([_dice(np.isin(each, indices_of), mask) for each in cut]))
        result[name] = signs
    return result


def scan_signs(image: MetaTensor) -> Signs:
    """What tells the grey values of a scan from those of others, whatever their unit.

    Args:
        image: (C, X, Y, Z), as it is in the file.

    Returns:
        zeros N, median N, mean N and spread N of each channel.
    """
    signs: Signs = {}
    for number, channel in enumerate(image.as_tensor()):
        facts = intensity_facts(MetaTensor(channel[None], affine=torch.from_numpy(as_affine(image.affine))))
        signs |= {f"{name} {number}": value for name, value in _histogram(facts).items()}
    return signs


def _histogram(intensity: Mapping[str, float]) -> Signs:
    low, middle, high = (intensity[name] for name in ("p0_5", "p50", "p99_5"))
    width = high - low
    if width <= 0:
        return {"zeros": intensity["zero_fraction"], "median": 0.0, "mean": 0.0, "spread": 0.0}
    return {
        "zeros": intensity["zero_fraction"],
        "median": (middle - low) / width,
        "mean": (intensity["mean"] - low) / width,
        "spread": intensity["sd"] / width,
    }


def _whole_entropy(probabilities: np.ndarray, indices: np.ndarray) -> float:
    """Mean entropy (nats) of the voxels that are, or may be, foreground: what is usually looked at alone."""
    seen = (indices > 0) | (probabilities[0] < 1 - POSSIBLE)
    if not seen.any():
        return 0.0
    inside = np.clip(probabilities[:, seen], TINY, 1)
    return float(-(inside * np.log(inside)).sum(axis=0).mean())


# ---------------------------------------------------------------- one structure


def _signs(mask: np.ndarray, probability: np.ndarray, neighbours: np.ndarray, voxel_ml: float) -> Signs:
    voxels, soft = int(mask.sum()), float(probability.sum(dtype=np.float64))
    if not voxels:
        most = float(probability.max(initial=0.0))
        return {
            **{"volume": 0.0, "soft_volume": soft * voxel_ml, "overlap": 1 - most},
            **{"entropy": _binary_entropy(np.array([most])), "pieces": 0.0, "roughness": 0.0},
        }
    around = ndimage.binary_dilation(mask, neighbours, iterations=RING)
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    largest = int(np.bincount(pieces[mask]).max())
    rough = float(surface(mask).sum()) / voxels ** (2 / 3)
    return {
        "volume": voxels * voxel_ml,
        "soft_volume": soft * voxel_ml,
        "overlap": 2 * float(probability[mask].sum(dtype=np.float64)) / (voxels + soft),
        "entropy": _binary_entropy(probability[around]),
        "pieces": 1 - largest / voxels,
        "roughness": rough,
    }


def _appearance(
    mask: np.ndarray, image: np.ndarray, scale: Sequence[tuple[float, float]], neighbours: np.ndarray
) -> Signs:
    """Brightness of a label, and of it over its surroundings, in units of each scan's range of grey values."""
    signs: Signs = {}
    ring = ndimage.binary_dilation(mask, neighbours, iterations=RING) & ~mask
    for number, (channel, (middle, width)) in enumerate(zip(image, scale, strict=True)):
        inside = float(channel[mask].mean(dtype=np.float64)) if mask.any() else middle
        outside = float(channel[ring].mean(dtype=np.float64)) if ring.any() else inside
        signs[f"brightness {number}"] = (inside - middle) / width
        signs[f"contrast {number}"] = (inside - outside) / width
    return signs


def _binary_entropy(probability: np.ndarray) -> float:
    inside = np.clip(probability.astype(np.float64), TINY, 1 - TINY)
    return float(-(inside * np.log(inside) + (1 - inside) * np.log(1 - inside)).mean())


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    both, total = int((one & other).sum()), int(one.sum()) + int(other.sum())
    return 2 * both / total if total else 1.0


# ---------------------------------------------------------------- where to look


def _box(probabilities: np.ndarray, indices: np.ndarray) -> tuple[slice, ...]:
    """The box around what is or may be foreground, with room for the ring."""
    box = bounding_box((indices > 0) | (probabilities[0] < 1 - POSSIBLE))
    if box[0].stop == 0:
        return tuple(slice(0, 1) for _ in indices.shape)
    return tuple(slice(max(0, one.start - RING - 1), one.stop + RING + 1) for one in box)


def _neighbours(spacing_mm: Sequence[float]) -> np.ndarray:
    """(3, 3, 3) bool, a cross without the arms along which voxels are thick."""
    cross = ndimage.generate_binary_structure(3, 1)
    for axis, step in enumerate(spacing_mm):
        if step > THICK * min(spacing_mm):
            for side in (0, 2):
                cross[tuple(side if other == axis else slice(None) for other in range(3))] = False
    return cross


def _scale(channel: np.ndarray) -> tuple[float, float]:
    """Median and range of a channel (X, Y, Z); every n-th voxel of a large one."""
    values = channel.ravel(order="K")
    low, middle, high = np.percentile(values[:: max(1, values.size // 1_000_000)], (0.5, 50, 99.5))
    return float(middle), float(max(high - low, TINY))


def sign_words(name: str, modalities: Sequence[str]) -> str:
    """A sign's name as a reader says it."""
    words: dict[str, Any] = {
        "volume": "its volume",
        "overlap": "the Dice that its probabilities expect",
        "entropy": "the entropy in and around it",
        "foreground_entropy": "the entropy of all foreground",
        "pieces": "its share in loose pieces",
        "roughness": "the roughness of its surface",
        "agreement": "the agreement of the networks on it",
        "zeros": "the share of the scan's voxels that are 0",
        "median": "the place of the scan's median in its range of grey values",
        "mean": "the place of the scan's mean in its range of grey values",
        "spread": "the SD of the scan in units of its range of grey values",
    }
    words |= {"brightness": "its brightness", "contrast": "its contrast with its surroundings"}
    kind, _, number = name.partition(" ")
    where = f" in {modalities[int(number)]}" if number and len(modalities) > 1 else ""
    return f"{words[kind]}{where}"
