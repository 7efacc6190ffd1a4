"""A made ventricle with a scar of known voxels, and what tests ask of every method that finds it."""

import numpy as np
from scipy import ndimage

from segmed.segmenters.region import Scene

NORMAL, SCAR, POOL = 1.0, 4.0, 4.5
THICK = (1.5, 1.5, 8.0)


def wall(*, seed=0, noise=0.3, spacing=THICK, shape=(44, 44, 4), scar=True) -> tuple[Scene, np.ndarray]:
    """A ring a slice, narrower toward the last, its RV at low x, its scar at high x in the inner two thirds.

    Args:
        seed: of the noise and of the scar's width.
        noise: SD; scar lies 3 above the normal wall, one pixel in the plane blurs into the next.
        spacing: in mm.
        shape: voxels.
        scar: whether there is any.

    Returns:
        The scene, with `pool` and `rv` found, and the scar (X, Y, Z) bool.
    """
    random = np.random.default_rng(seed)
    x, y, z = np.indices(shape)
    x, y = x - shape[0] // 2, y - shape[1] // 2
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    shrink = 3.0 * z / max(shape[2] - 1, 1)
    pool = radius < 9 - shrink
    region = (radius < 16 - shrink) & ~pool
    rv = (x < -16 + shrink) & (np.abs(y) < 8)
    found = region & (radius < 14 - shrink) & (np.abs(angle) < random.uniform(0.5, 1.0)) & scar
    levels = np.where(region, NORMAL, 0.0)
    levels[found], levels[pool | rv] = SCAR, POOL
    blurred = ndimage.gaussian_filter(levels, (0.5, 0.5, 0))
    image = (blurred + noise * random.standard_normal(shape)).astype(np.float32)
    return Scene(image, region, spacing, {"pool": pool, "rv": rv}), found


def changed(scene: Scene, *, factor: float, offset: float) -> Scene:
    """The same volume in other units."""
    return Scene((scene.image * factor + offset).astype(np.float32), scene.region, scene.spacing_mm, scene.found)


def line(values, *, spacing=(1.0, 1.0, 1.0)) -> Scene:
    """Voxels in a row, all of them the region."""
    image = np.asarray(values, np.float32).reshape(-1, 1, 1)
    return Scene(image, np.ones(image.shape, bool), spacing)


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))


def real_wall(folder, case: str) -> tuple[Scene, np.ndarray]:
    """A case of myops_lge inside the reference's wall, and its scar."""
    from segmed.geometry import spacing_mm
    from segmed.volumes import read_volume

    image = read_volume(folder / case / f"{case}_LGE.nii.gz")
    label = read_volume(folder / case / f"{case}_gd.nii.gz").numpy()[0]
    found = {"pool": label == 500, "rv": label == 600}
    region = np.isin(label, (200, 1220, 2221))
    return Scene(image.numpy()[0], region, spacing_mm(image.affine), found), label == 2221
