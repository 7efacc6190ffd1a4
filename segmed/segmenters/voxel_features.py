"""What describes a voxel of a region: its intensity, its neighbourhood, its place in the wall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmed.errors import SegmenterError
from segmed.segmenters.region import Scene

THICK = 2.0  # a slice this many times as thick as its pixels stands for itself
BLUNT = 0.3  # a Gaussian of a smaller SD, in voxels, reaches no neighbour
ROWS = 100_000  # voxels whose neighbours are sorted at once: some 100 MB in 3D

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class FeatureSettings:
    """Which features a voxel has.

    Attributes:
        pool: label of the LV blood pool; None: unknown, the cavity is what the region encloses in a slice.
        rv: label of the right ventricle's blood pool; None: unknown, so is the angle about the LV.
        scales_mm: of the neighbourhood: SD of its Gaussian window, radius of its median. Small is for edges and noise
            (two pixels of LGE), large for what a wall's thickness shows.
        position: whether depth, angle and height count.
        oriented: whether all volumes are stored in one orientation, so that one turns from the septum to the anterior
            wall in the same sense in each; else the angle's sense is left out.

    Raises:
        SegmenterError: a scale that is no length.
    """

    pool: str | None = None
    rv: str | None = None
    scales_mm: tuple[float, ...] = (1.5, 3.0)
    position: bool = True
    oriented: bool = False

    def __post_init__(self) -> None:
        if not all(0 < scale < 1000 for scale in self.scales_mm):
            raise SegmenterError(f"scales of {self.scales_mm} mm: give lengths above 0 mm, such as (1.5, 3.0)")

    @property
    def names(self) -> tuple[str, ...]:
        """One a column of `features`; lengths in mm, intensities in interquartile ranges of the region.

        - `intensity`: less the region's median.
        - `intensity_to_pool`: less the blood pool's median.
        - `mean_S`, `sd_S`, `gradient_S` (a mm), `median_S`: of the region's voxels about it, S the scale.
        - `depth`: 0 at the endocardium, 1 at the epicardium.
        - `septal`: cosine of the angle about the LV's centre, 1 toward the RV; `turn`: its sine.
        - `height`: 0 at the broad end of the region, the base, 1 at the other.
        """
        names = ["intensity"]
        names += ["intensity_to_pool"] if self.pool is not None else []
        for scale in self.scales_mm:
            names += [f"{name}_{scale:g}mm" for name in ("mean", "sd", "gradient", "median")]
        if self.position:
            names += ["depth"]
            names += ["septal"] if self.rv is not None else []
            names += ["turn"] if self.rv is not None and self.oriented else []
            names += ["height"]
        return tuple(names)


def features(scene: Scene, settings: FeatureSettings | None = None) -> np.ndarray:
    """Describe each voxel of the region; the same for image * a + b, a > 0.

    Neighbours outside the region do not count, so that the bright blood pool makes no scar of the endocardium. Thick
    slices are looked at one by one, about the centre of their own cavity; in volumes of thinner voxels depth is in 3D
    and the long axis is the principal axis of the region with its cavity.

    Args:
        scene: whose region holds at least two intensities.
        settings: which features; None: the defaults.

    Returns:
        (N, F) float32, a row per voxel of `scene.values`, a column per name of `settings.names`. NaN is what the volume
        does not show: depth without a cavity, an angle without an RV, the pool's intensity without a pool.

    Raises:
        SegmenterError: a region of one intensity, or a label that the scene does not have.
    """
    settings = settings or FeatureSettings()
    scale = _scale(scene)
    box = _box(scene.region)
    region = scene.region[box]
    image = np.where(region, (scene.image[box] - scale[0]) / scale[1], 0).astype(np.float32)
    columns = [image[region]]
    if settings.pool is not None:
        pool = scene.mask(settings.pool)
        level = np.median(scene.image[pool]) if pool.any() else np.nan
        columns.append((scene.values - level) / scale[1])
    for scale_mm in settings.scales_mm:
        columns += _neighbourhood(image, region, scale_mm, scene.spacing_mm)
    if settings.position:
        columns += _position(scene, settings, box)
    return np.stack(columns, axis=1).astype(np.float32)


def _scale(scene: Scene) -> tuple[float, float]:
    """Median and interquartile range; where half the region is of one intensity, the SD instead of the range."""
    values = scene.values.astype(np.float64)
    low, middle, high = np.percentile(values, (25, 50, 75))
    spread = high - low if high > low else values.std()
    if not values.min() < values.max():
        raise SegmenterError(
            f"a region of {values.size} voxels, all of intensity {middle:g}: features need at least two intensities; "
            "check the image and the region"
        )
    return float(middle), float(spread)


def _box(region: np.ndarray) -> Slices:
    return tuple(slice(*np.flatnonzero(region.any(tuple({0, 1, 2} - {axis})))[[0, -1]] + (0, 1)) for axis in range(3))


# ---------------------------------------------------------------- neighbourhood


def _neighbourhood(
    image: np.ndarray, region: np.ndarray, scale_mm: float, spacing_mm: tuple[float, float, float]
) -> list[np.ndarray]:
    """Mean, SD, gradient and median of the region's own voxels; `image` is 0 outside it.

    Source of the mean: normalised convolution, Knutsson and Westin 1993; its gradient by the quotient rule.
    """
    sigma = np.array([scale_mm / step if scale_mm / step > BLUNT else 0.0 for step in spacing_mm])
    inside = region.astype(np.float32)

    def window(data: np.ndarray, order: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
        return ndimage.gaussian_filter(data, sigma, order=order, mode="constant")[region]

    weight = window(inside)
    mean = window(image) / weight
    variance = window(image * image) / weight - mean**2
    squares = np.zeros_like(mean)
    for axis in np.flatnonzero(sigma):
        order = tuple(int(a == axis) for a in range(3))
        squares += ((window(image, order) - mean * window(inside, order)) / weight / spacing_mm[axis]) ** 2
    return [mean, np.sqrt(np.maximum(variance, 0)), np.sqrt(squares), _median(image, region, scale_mm, spacing_mm)]


def _median(
    image: np.ndarray, region: np.ndarray, radius_mm: float, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    reach = [min(int(radius_mm / step), size) for step, size in zip(spacing_mm, image.shape, strict=True)]
    padded = np.pad(np.where(region, image, np.float32(np.nan)), [(r, r) for r in reach], constant_values=np.nan)
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    near = offsets[np.linalg.norm(offsets * spacing_mm, axis=1) <= radius_mm]
    steps = np.array(padded.strides) // padded.itemsize
    centres = (np.argwhere(region) + reach) @ steps
    shifts, flat = near @ steps, padded.ravel()
    result = np.empty(len(centres), np.float32)
    for start in range(0, len(centres), ROWS):
        values = np.sort(flat[centres[start : start + ROWS, None] + shifts], axis=1)  # NaN comes last
        count = np.count_nonzero(~np.isnan(values), axis=1)
        rows = np.arange(len(values))
        result[start : start + ROWS] = (values[rows, (count - 1) // 2] + values[rows, count // 2]) / 2
    return result


# ---------------------------------------------------------------- position


def _position(scene: Scene, settings: FeatureSettings, box: Slices) -> list[np.ndarray]:
    """Depth, the angle where the RV is named, height."""
    region, axis = scene.region[box], scene.slice_axis
    in_plane = [step for a, step in enumerate(scene.spacing_mm) if a != axis]
    by_slice = region.shape[axis] == 1 or scene.spacing_mm[axis] > THICK * max(in_plane)
    cavity = _enclosed(region, axis) if settings.pool is None else scene.mask(settings.pool)[box] & ~region
    columns = [_depth(region, cavity, scene.spacing_mm, axis, by_slice)]
    whole = region | cavity
    first_mm = np.array([part.start for part in box]) * scene.spacing_mm
    points = np.argwhere(region) * scene.spacing_mm + first_mm
    solid = np.argwhere(whole) * scene.spacing_mm + first_mm
    long_axis = np.eye(3)[axis] if by_slice else _principal(solid)
    if settings.rv is not None:
        rv = np.argwhere(scene.mask(settings.rv)) * scene.spacing_mm
        toward = rv.mean(axis=0) - solid.mean(axis=0) if len(rv) else np.full(3, np.nan)
        centres = _centres(whole, axis, points, scene.spacing_mm, first_mm) if by_slice else solid.mean(axis=0)
        angle = _angle(points - centres, toward, long_axis)
        columns += angle if settings.oriented else angle[:1]
    along, middle = points @ long_axis, (solid @ long_axis).mean()
    low, high = along.min(), along.max()
    height = (along - low) / (high - low) if high > low else np.full(len(along), 0.5)
    return [*columns, 1 - height if middle > (low + high) / 2 else height]


def _enclosed(region: np.ndarray, axis: int) -> np.ndarray:
    """What the region encloses, slice by slice."""
    turned = np.moveaxis(region, axis, 0)
    return np.moveaxis(np.stack([ndimage.binary_fill_holes(part) & ~part for part in turned]), 0, axis)


def _depth(
    region: np.ndarray, cavity: np.ndarray, spacing_mm: tuple[float, float, float], axis: int, by_slice: bool
) -> np.ndarray:
    """Distance to the cavity as a share of that to cavity and outside together; NaN where there is no cavity."""
    rim = [(int(a != axis), int(a != axis)) for a in range(3)]  # the stack's ends are no epicardium
    core = tuple(slice(before, size + before) for (before, _), size in zip(rim, region.shape, strict=True))
    cavity = np.pad(cavity, rim)
    outside = ~(np.pad(region, rim) | cavity)
    parts = [[number] for number in range(region.shape[axis])] if by_slice else [list(range(region.shape[axis]))]
    depth = np.full(cavity.shape, np.nan, np.float32)
    for numbers in parts:
        place = tuple(slice(numbers[0], numbers[-1] + 1) if a == axis else slice(None) for a in range(3))
        if cavity[place].any():
            inner = ndimage.distance_transform_edt(~cavity[place], sampling=spacing_mm)
            outer = ndimage.distance_transform_edt(~outside[place], sampling=spacing_mm)
            depth[place] = inner / (inner + outer)
    return depth[core][region]


def _principal(points: np.ndarray) -> np.ndarray:
    centred = points - points.mean(axis=0)
    return np.linalg.eigh(centred.T @ centred)[1][:, -1]


def _centres(
    whole: np.ndarray, axis: int, points: np.ndarray, spacing_mm: tuple[float, float, float], first_mm: np.ndarray
) -> np.ndarray:
    """For each point (N, 3) the centre of the region and its cavity in its slice: breath holds move slices."""
    turned = np.moveaxis(whole, axis, 0)
    centres = np.array([ndimage.center_of_mass(part) if part.any() else (np.nan, np.nan) for part in turned])
    numbers = np.rint((points[:, axis] - first_mm[axis]) / spacing_mm[axis]).astype(int)
    centres_mm = points.copy()
    for column, a in enumerate(a for a in range(3) if a != axis):
        centres_mm[:, a] = centres[numbers, column] * spacing_mm[a] + first_mm[a]
    return centres_mm


def _angle(from_centre: np.ndarray, toward: np.ndarray, long_axis: np.ndarray) -> list[np.ndarray]:
    """Cosine and sine about the long axis, from the direction toward the RV; 0 at the centre itself."""
    first = toward - (toward @ long_axis) * long_axis
    length = np.linalg.norm(first)
    first = first / length if length > 0 else np.full(3, np.nan)
    pair = from_centre @ np.stack([first, np.cross(long_axis, first)], axis=1)
    lengths = np.linalg.norm(pair, axis=1, keepdims=True)
    return list(np.where(lengths == 0, 0.0, pair / np.where(lengths == 0, 1.0, lengths)).T)
