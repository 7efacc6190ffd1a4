"""Probabilities and uncertainty that `segmed predict` wrote beside label maps -> heat maps of a viewer."""

from __future__ import annotations

import math
from glob import escape
from pathlib import Path

from segmed.errors import GeometryError
from segmed.geometry import grid_difference
from segmed.reports.rendering import read_json
from segmed.reports.viewer.layers import HeatMap
from segmed.volumes import Source, strip_suffix
from segmed.volumes.slice_stack import SliceStack, open_stack


def kept_maps(folder: Path, result: Path, grid: SliceStack | None = None) -> tuple[HeatMap, ...]:
    """Uncertainty and probabilities of a case, as far as they were written.

    Args:
        folder: of the prediction, with prediction.json.
        result: label map of the case, in the folder or below it.
        grid: that they have to lie on.

    Raises:
        GeometryError: they lie on another one.
    """
    uncertainty, probabilities = (_kept(folder, result, what) for what in ("uncertainty", "probabilities"))
    if uncertainty is None and probabilities is None:  # the record of many cases is not read for each of them
        return ()
    classes = (read_json(folder / "prediction.json") or {}).get("classes")
    if not classes:
        return ()
    maps = []
    if uncertainty is not None:
        maps.append(HeatMap("uncertainty (entropy)", open_stack(Source(uncertainty)), math.log(len(classes)), "nats"))
    if probabilities is not None:
        for number, name in list(enumerate(classes))[1:]:
            stack = open_stack(Source(probabilities, component=number))
            maps.append(HeatMap(f"probability of {name}", stack, 1.0))
    if grid is not None:
        for heat in maps:
            difference = grid_difference((heat.stack.shape, heat.stack.affine), (grid.shape, grid.affine))
            if difference is not None:
                raise GeometryError(f"{heat.title} lies on another grid ({difference})")
    return tuple(maps)


def _kept(folder: Path, result: Path, what: str) -> Path | None:
    """The file of a case in `probabilities` or `uncertainty`."""
    try:
        below = result.resolve().relative_to(folder.resolve()).parent
    except ValueError:
        below = Path()
    files = (folder / what / below).glob(f"{escape(strip_suffix(result))}_{what}.*")
    return min(files, default=None)
