"""A made short-axis stack with late enhancement, whose scar, cavity and remote muscle are known."""

import numpy as np

from segmed.segmenters.region import Scene

MUSCLE, SCAR, BLOOD, LUNG = 100.0, 500.0, 350.0, 20.0
ENDO_MM, EPI_MM = 14.0, 24.0
SIZE = 64


def polar(slices: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Radius in mm and angle in degrees (0 to 360) of each voxel about the middle, (64, 64, slices), 1 mm in plane."""
    x, y = np.meshgrid(*[np.arange(SIZE) - SIZE / 2 + 0.5] * 2, indexing="ij")
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(y, x)) % 360
    return tuple(np.repeat(each[..., None], slices, axis=2) for each in (radius, angle))


def sector(middle_deg: float, extent_deg: float, *, inner_mm: float = ENDO_MM, outer_mm: float = EPI_MM) -> np.ndarray:
    """Part of the wall, (64, 64, 3) bool."""
    radius, angle = polar()
    away = np.abs((angle - middle_deg + 180) % 360 - 180)
    return (away <= extent_deg / 2) & (radius >= inner_mm) & (radius < outer_mm)


def stack(scar: np.ndarray, *, noise: float = 10.0, seed: int = 0, obstruction: np.ndarray | None = None) -> Scene:
    """A ring of muscle with scar (64, 64, 3) in it, blood inside, lung outside; 1 x 1 x 8 mm."""
    radius, _ = polar()
    wall = (radius >= ENDO_MM) & (radius < EPI_MM)
    image = np.where(radius < ENDO_MM, BLOOD, np.where(wall, MUSCLE, LUNG))
    image[scar & wall] = SCAR
    if obstruction is not None:
        image[obstruction & wall] = MUSCLE - 20
    image = image + np.random.default_rng(seed).normal(0, noise, image.shape)
    return Scene(image.astype(np.float32), wall, (1.0, 1.0, 8.0), {"pool": radius < ENDO_MM, "scar": scar & wall})


def changed(scene: Scene, **changes) -> Scene:
    """The scene with another image, region, spacing or masks."""
    parts = {"image": scene.image, "region": scene.region, "spacing_mm": scene.spacing_mm, "found": scene.found}
    return Scene(**{**parts, **changes})
