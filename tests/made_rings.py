"""A wall with a scar whose voxels are known, made and real, for tests of methods that tell tissues apart."""

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from segmed.labels import LabelSet
from segmed.segmenters.region import Inside, Known, Scene, TissueMethod
from segmed.volumes import read_label_volume, read_volume, spacing_mm

SPACING_MM = (1.2, 1.2, 4.0)
HEART = LabelSet(("wall", "pool"), ((1,), (2,)))
RESULT = LabelSet(("myocardium", "scar", "pool"), ((1,), (2,), (3,)))


def ring(*, shape=(64, 64, 6), noise: float, contrast: float = 120.0) -> tuple[Scene, np.ndarray]:
    """A ring of 100 with a quarter of `contrast` more in its inner half, the pool as bright; and where the scar is."""
    x, y, _ = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    wall, pool = (radius > 14) & (radius < 25), radius <= 14
    scar = wall & (angle > 0) & (angle < np.pi / 2) & (radius < 21)
    image = 30 + 70 * wall + contrast * scar + (70 + contrast) * pool
    image = image + np.random.default_rng(0).normal(0, noise, shape)
    found = {"pool": pool, "scar": scar, "myocardium": wall & ~scar}
    return Scene(image.astype(np.float32), wall, SPACING_MM, found), scar


def heart_volume(scene: Scene) -> tuple[MetaTensor, MetaTensor]:
    """A scene's image, and its label map of wall and pool."""
    affine = torch.diag(torch.tensor([*scene.spacing_mm, 1.0], dtype=torch.float64))
    labels = (scene.region + 2 * scene.found["pool"]).astype(np.uint8)
    image = MetaTensor(torch.from_numpy(scene.image.copy())[None], affine=affine)
    return image, MetaTensor(torch.from_numpy(labels)[None], affine=affine)


def heart_segmenter(method: TissueMethod) -> tuple[Inside, MetaTensor, np.ndarray]:
    """A method inside the known wall of a made ring, the ring's image, and where its scar is."""
    scene, scar = ring(noise=40)
    image, labels = heart_volume(scene)
    known = Known(labels, HEART)
    return Inside(method, known, within=("wall",), target="scar", rest="myocardium", labels=RESULT), image, scar


def wall_of(folder: Path, case: str) -> tuple[Scene, np.ndarray]:
    """Scene and scar of a case of myops_lge, within the reference's wall."""
    image = read_volume(folder / case / f"{case}_LGE.nii.gz")
    labels = read_label_volume(folder / case / f"{case}_gd.nii.gz").numpy()[0]
    wall, scar = np.isin(labels, (200, 1220, 2221)), labels == 2221
    found = {"pool": labels == 500, "scar": scar, "myocardium": wall & ~scar}
    return Scene(image.numpy()[0].astype(np.float32), wall, spacing_mm(image.affine), found), scar


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Of what is more likely than not."""
    found = found > 0.5
    return float(2 * (found & (truth > 0.5)).sum() / (found.sum() + (truth > 0.5).sum()))
