"""Where an image shows anything: outside of this mask nothing is trained, found or scored."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.data.case import Case
from segmed.errors import GeometryError, VolumeError
from segmed.volumes import Source, grid_difference, read_mask


def read_field_of_view(source: Source, *, like: MetaTensor, case: str) -> np.ndarray:
    """The mask of a case: (X, Y, Z) bool, true where the file is not 0; a picture, where a viewer shows it not black.

    Args:
        source: of the mask.
        like: (C, X, Y, Z), the image or label map that it is of.
        case: its id, for errors.

    Raises:
        VolumeError: the mask can't be read, or is 0 everywhere.
        GeometryError: it is on another grid.
    """
    values = read_mask(source)
    difference = grid_difference((values.shape[1:], values.affine), (like.shape[1:], like.affine))
    if difference is not None:
        raise GeometryError(
            f"case {case}: the field of view {source.path} is not on the image's grid: {difference}: give the mask of "
            "this image"
        )
    seen = values.as_tensor().numpy()[0]
    if not seen.any():
        raise VolumeError(f"case {case}: the field of view {source.path} is 0 everywhere: mark what counts")
    return np.asarray(seen)


def labels_inside(label_map: MetaTensor, case: Case) -> MetaTensor:
    """A label map (1, X, Y, Z) of a case, background outside of its field of view.

    Raises:
        VolumeError, GeometryError: as `read_field_of_view`.
    """
    return _inside(label_map, case, [0])


def probabilities_inside(probabilities: MetaTensor, case: Case) -> MetaTensor:
    """Probabilities (classes, X, Y, Z) of a case, certainly background outside of its field of view.

    Raises:
        VolumeError, GeometryError: as `read_field_of_view`.
    """
    return _inside(probabilities, case, [1, *[0] * (len(probabilities) - 1)])


def _inside(result: MetaTensor, case: Case, outside: list[int]) -> MetaTensor:
    """A result of a case, with one number a channel for what lies outside of its field of view."""
    if case.field_of_view is None:
        return result
    seen = read_field_of_view(case.field_of_view, like=result, case=case.id)
    values = result.as_tensor()
    fill = torch.tensor(outside, dtype=values.dtype, device=values.device)[:, None, None, None]
    return MetaTensor(torch.where(torch.from_numpy(seen).to(values.device), values, fill), affine=result.affine)
