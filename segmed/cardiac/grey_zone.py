"""Where the thresholds of core and grey zone come from: remote muscle that is given, or found in the wall."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from segmed.cardiac.heart import HeartLabels
from segmed.cardiac.rings import enclosed
from segmed.cardiac.tissue import GreyZone
from segmed.errors import CardiacError, SegmenterError
from segmed.segmenters.region import Scene
from segmed.segmenters.remote import RemoteSector


def grey_zone(
    image: np.ndarray,
    heart: HeartLabels,
    scar: np.ndarray,
    *,
    definition: Literal["half_maximum", "roes", "yan", "none"],
    sd: float,
    remote: tuple[float, float] | None,
) -> tuple[GreyZone | None, dict[str, Any] | None, str | None]:
    """Thresholds, the remote muscle that they are from, and why there are none.

    Args:
        image: (X, Y, Z).
        heart: whose wall it is.
        scar: (X, Y, Z) bool.
        definition: as `GreyZone` has it; none: not asked for.
        sd: above remote muscle, of half_maximum.
        remote: mean and SD of remote muscle; none: the darkest sector of the wall.
    """
    if definition == "none":
        return None, None, "core and grey zone were not asked for"
    if definition != "yan" and image[heart.wall].min() < 0:
        return None, None, "core and grey zone: shares of a maximum mean nothing with negative intensities; take yan"
    try:
        if remote is not None:
            muscle: dict[str, Any] = {"mean": remote[0], "sd": remote[1], "voxels": None, "found_from": "given"}
        else:
            axis, pool = heart.slice_axis, heart.pool
            if pool is None:
                pool = np.moveaxis(enclosed(np.moveaxis(heart.wall, axis, -1)), -1, axis)
            scene = Scene(image, heart.wall & ~scar, heart.spacing_mm, {"pool": pool})
            sector = RemoteSector(cavity="pool", darker_than="pool").find(scene)
            muscle = {"mean": sector.mean, "sd": sector.sd, "voxels": sector.voxels, "found_from": "darkest sector"}
        return GreyZone(muscle["mean"], muscle["sd"], definition, sd), muscle, None
    except (SegmenterError, CardiacError) as error:
        return None, None, f"core and grey zone: {error}; or give --remote MEAN SD"
