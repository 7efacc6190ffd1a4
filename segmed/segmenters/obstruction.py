"""Dark cores that scar encloses: the one rule of microvascular obstruction, of methods and of the scar report."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segmed.metrics.surfaces import bounding_box

ENCLOSED_BY_SCAR = 0.5  # of the pixel edges around a core at the endocardium, at least so much is scar


def dark_cores(scar: np.ndarray, region: np.ndarray, *, axis: int, cavity: np.ndarray | None = None) -> np.ndarray:
    """Pieces of the wall that are no scar but enclosed by it within their slice: obstruction, dark in bright scar.

    A piece counts where scar surrounds it, or scar and the cavity, as long as scar makes up at least half of its
    outline: obstruction often reaches the endocardium, and a long thin rim of healthy muscle does not look so.

    Args:
        scar: (X, Y, Z) bool, inside the region.
        region: (X, Y, Z) bool, the wall.
        axis: across the slices.
        cavity: (X, Y, Z) bool, what closes together with scar, such as the blood pool; None: scar alone.

    Returns:
        (X, Y, Z) bool, inside the region and outside the scar.
    """
    result = np.zeros(region.shape, bool)
    box = bounding_box(region if cavity is None else region | cavity)
    wall, bright, dark = (np.moveaxis(mask[box], axis, -1) for mask in (region, scar, result))
    pool = np.zeros_like(wall) if cavity is None else np.moveaxis(cavity[box], axis, -1)
    for number in np.flatnonzero(bright.any(axis=(0, 1))):
        dark[..., number] = _cores_of_slice(wall[..., number], bright[..., number], pool[..., number])
    return result


def _cores_of_slice(wall: np.ndarray, scar: np.ndarray, pool: np.ndarray) -> np.ndarray:
    labelled, count = ndimage.label(np.pad(wall & ~scar, 1))
    scar, pool = np.pad(scar, 1), np.pad(pool, 1)
    edges = {"scar": np.zeros(count + 1), "pool": np.zeros(count + 1), "all": np.zeros(count + 1)}
    for axis in (0, 1):
        for step in (1, -1):
            beside = {name: np.roll(mask, step, axis) for name, mask in (("scar", scar), ("pool", pool))}
            beside["all"] = np.roll(labelled, step, axis) != labelled
            for name, mask in beside.items():
                edges[name] += np.bincount(labelled[mask], minlength=count + 1)
    closed = edges["scar"] + edges["pool"] == edges["all"]
    dark = closed & (edges["scar"] >= ENCLOSED_BY_SCAR * edges["all"]) & (edges["scar"] > 0)
    dark[0] = False
    return dark[labelled][1:-1, 1:-1]
