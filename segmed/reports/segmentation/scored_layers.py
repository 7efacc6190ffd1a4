"""A scored case -> what the viewer of an evaluation shows of it, read from its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from segmed.data.references import Reference
from segmed.errors import VolumeError
from segmed.evaluate.scoring import Scoring, on_grid
from segmed.evaluate.structures import encode_known
from segmed.geometry import grid_difference, resample_onto
from segmed.reports.prediction.kept_maps import kept_maps
from segmed.reports.viewer.layers import Layers
from segmed.volumes import Source, is_picture, read_header, read_label_volume, read_volume
from segmed.volumes.slice_stack import SliceStack, open_label_stack, open_stack


def scored_layers(
    reference: Reference, prediction: Path | None, scoring: Scoring, *, image: Source | None, folder: Path
) -> Layers:
    """The layers of a case on the grid of its reference.

    Args:
        reference: of the case.
        prediction: its file; None: it has none.
        scoring: what is scored.
        image: where the image is; None: labels on black.
        folder: of the predictions, with the maps that `segmed predict` keeps.

    Raises:
        VolumeError: a label map that can't be read.
    """

    def encode(values: np.ndarray) -> np.ndarray:
        return encode_known(values, scoring.structures.labels, where="")[0]

    true = open_label_stack(reference.label)
    layers = Layers(None, true.changed(encode), picture=is_picture(reference.label.path))
    if prediction is None:
        layers = replace(layers, remarks=("There is no prediction of this case.",))
    else:
        layers = replace(layers, result=_result(prediction, reference.label, true).changed(encode))
    if image is not None:
        try:
            layers = replace(layers, image=_image(image, true))
        except VolumeError as error:
            layers = replace(layers, remarks=(*layers.remarks, f"The image can't be shown: {error}"))
    if prediction is not None:
        try:
            layers = replace(layers, heat=kept_maps(folder, prediction, true))
        except VolumeError as error:
            layers = replace(layers, remarks=(*layers.remarks, f"No heat map: {error}"))
    return layers


def _same_grid(source: Source, stack: SliceStack) -> bool:
    header = read_header(source)
    return grid_difference((header.shape, header.affine), (stack.shape, stack.affine)) is None


def _result(prediction: Path, label: Source, true: SliceStack) -> SliceStack:
    """The prediction's values; of another grid they are brought onto that of the reference, as for its figures."""
    if _same_grid(Source(prediction), true):
        return open_label_stack(Source(prediction))
    moved = on_grid(read_label_volume(prediction), read_label_volume(label), resample=True)
    return SliceStack.of(moved.as_tensor().numpy()[0], true.affine)


def _image(image: Source, true: SliceStack) -> SliceStack:
    if _same_grid(image, true):
        return open_stack(image)
    volume = read_volume(image)
    first = MetaTensor(volume.as_tensor()[:1], affine=volume.affine)
    moved = resample_onto(first, affine=true.affine, shape=true.shape)
    return SliceStack.of(moved.as_tensor().numpy()[0], true.affine)
