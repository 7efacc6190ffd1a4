"""Transforms that a MONAI bundle names where MONAI has none that gives the same: onto a network's grid and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from segmed.config import PreprocessConfig
from segmed.data.preprocess import prepare
from segmed.geometry import as_affine
from segmed.segmenters.native import WayHome

AFFINE, SHAPE = "native_affine", "native_shape"  # what the image remembers of the grid that it came from


class PrepareVolumed(MapTransform):
    """Orient, crop, respace and normalise as in training.

    Args:
        keys: of images (C, X, Y, Z), raw intensities.
        preprocess: section of a resolved config, as data.
        allow_missing_keys: of MONAI.
    """

    def __init__(
        self, keys: KeysCollection, preprocess: Mapping[str, Any], *, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.preprocess = PreprocessConfig.model_validate(dict(preprocess))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A case whose images are on the network's grid, (C, X', Y', Z') float32, and remember their own."""
        case = dict(data)
        for key in self.key_iterator(case):
            volume = case[key]
            image, _ = prepare(volume, None, self.preprocess)
            home = {AFFINE: torch.from_numpy(as_affine(volume.affine).copy()), SHAPE: torch.tensor(volume.shape[1:])}
            case[key] = MetaTensor(image.as_tensor(), meta={**_named(volume), **home, "affine": image.affine})
        return case


class OnNativeGridd(MapTransform):
    """Probabilities (L + 1, X', Y', Z') -> the same on the grid of the file, (L + 1, X, Y, Z) float32.

    Args:
        keys: of the probabilities.
        image_key: of the image that they are of, from `PrepareVolumed`.
        allow_missing_keys: of MONAI.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image", *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A case whose probabilities are on the native grid."""
        case = dict(data)
        image = case[self.image_key]
        affine, shape = as_affine(image.meta[AFFINE]), [int(n) for n in image.meta[SHAPE]]
        way = WayHome(image.affine, image.shape[1:], native_affine=affine, native_shape=shape)
        for key in self.key_iterator(case):
            maps = way.probabilities(torch.as_tensor(case[key]).float())
            case[key] = MetaTensor(maps, meta={**_named(image), "affine": torch.from_numpy(affine)})
        return case


def _named(volume: MetaTensor) -> dict[str, Any]:
    """What a volume knows of its file's name, after which results are called."""
    return {key: volume.meta[key] for key in ("filename_or_obj",) if key in volume.meta}
