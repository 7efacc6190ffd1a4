"""What a viewer shows of a case: image, reference, result and heat maps, all on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmed.errors import GeometryError
from segmed.volumes import Source, grid_difference, is_picture
from segmed.volumes.slice_stack import SliceStack, open_label_stack, open_stack


@dataclass(frozen=True)
class HeatMap:
    """A map over the image.

    Attributes:
        title: what it is.
        stack: its values, from 0 on.
        highest: that has the lightest colour.
        unit: of the values.
    """

    title: str
    stack: SliceStack
    highest: float
    unit: str = ""


@dataclass(frozen=True)
class Layers:
    """What is shown of a case, on one grid in any orientation.

    Attributes:
        image: any intensities; None: labels on black.
        reference, result: label indices; None: there is none.
        heat: maps over the image.
        picture: it is a 2D picture: rows run downwards, and nobody knows its sides.
        remarks: sentences on what is not shown.
    """

    image: SliceStack | None
    reference: SliceStack | None = None
    result: SliceStack | None = None
    heat: tuple[HeatMap, ...] = ()
    picture: bool = False
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        first = self.first
        for stack in self.every:
            difference = grid_difference((stack.shape, stack.affine), (first.shape, first.affine))
            if difference is not None:
                raise GeometryError(f"what is shown of a case lies on different grids ({difference}): resample first")

    @property
    def every(self) -> list[SliceStack]:
        """All that there are."""
        named = (self.image, self.reference, self.result, *(heat.stack for heat in self.heat))
        return [stack for stack in named if stack is not None]

    @property
    def first(self) -> SliceStack:
        """The one whose grid is that of all."""
        if not self.every:
            raise GeometryError("nothing is shown of a case: give an image or a label map")
        return self.every[0]

    @property
    def label_maps(self) -> list[SliceStack]:
        """Reference and result, as far as there are."""
        return [stack for stack in (self.reference, self.result) if stack is not None]


def layers_of_files(
    image: Source | None,
    *,
    encode: Callable[[np.ndarray], np.ndarray],
    reference: Source | None = None,
    result: Path | None = None,
    heat: tuple[HeatMap, ...] = (),
    remarks: tuple[str, ...] = (),
) -> Layers:
    """The layers of a case whose files lie on one grid, read when they are needed.

    Args:
        image: its first component is shown where it has several.
        encode: label values of the files -> label indices.
        reference, result: label maps.
        heat, remarks: as in `Layers`.

    Raises:
        VolumeError: a file that can't be read, or files on different grids.
    """
    maps = [None if source is None else open_label_stack(source).changed(encode)
            for source in (reference, None if result is None else Source(result))]  # fmt: skip
    first = image or reference or Source(result or Path())
    shown = None if image is None else open_stack(image)
    return Layers(shown, maps[0], maps[1], heat, is_picture(first.path), remarks)
