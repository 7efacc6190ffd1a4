"""A scan of a synthetic chest: its grid, what it sees of the tissue, noise, and where it lies in the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from segmed.data.anatomy import LABEL_VALUES, Anatomy, chest_wall, draw_heart, organs

FRAME = np.array([[-0.70, -0.06, -0.58], [-0.70, 0.20, 0.66], [-0.08, -0.97, -0.42]])  # columns: u, v, w in RAS


@dataclass(frozen=True)
class Acquisition:
    """How a subject is imaged.

    Attributes:
        shape: voxels of the grid.
        spacing_mm: of its axes; the last is across the slices.
        samples: points an axis whose mean is a voxel (partial volume).
        rotation: (3, 3), columns are the grid's axes in heart coordinates (u, v, w).
        centre_mm: middle of the grid in heart coordinates.
        shifts_mm: (slices, 2) displacement of the inner organs in each slice, by breathing.
        noise: standard deviation of the noise in both parts of the complex signal.
        bias: coefficients of the coil's sensitivity.
        gain: of the receiver.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    samples: tuple[int, int, int]
    rotation: np.ndarray
    centre_mm: np.ndarray
    shifts_mm: np.ndarray
    noise: float
    bias: np.ndarray
    gain: float


# ---------------------------------------------------------------- the scan


def draw_stack(
    anatomy: Anatomy, rng: np.random.Generator, *, thickness_mm: tuple[float, float] = (7, 10)
) -> Acquisition:
    """Draw a short-axis stack: thick slices, a few degrees off the axis, displaced by breathing.

    Args:
        anatomy: of the subject.
        rng: of the scan.
        thickness_mm: of the slices, least and largest.
    """
    spacing, thickness = float(rng.uniform(1.4, 1.6)), float(rng.uniform(*thickness_mm))
    above, below = rng.uniform(4, 14), rng.uniform(2, 10)
    slices = int(np.ceil((above + anatomy.heart.length_mm + below) / thickness))
    shifts = rng.normal(0, 1.3, (slices, 2)) + (rng.random((slices, 1)) < 0.12) * rng.normal(0, 4, (slices, 2))
    return Acquisition(
        shape=(int(rng.integers(88, 105)), int(rng.integers(88, 105)), slices),
        spacing_mm=(spacing, spacing, thickness),
        samples=(2, 2, 5),
        rotation=Rotation.from_euler("xyz", rng.normal(0, (5, 5, 8)), degrees=True).as_matrix(),
        centre_mm=np.array([*rng.uniform(-10, 10, 2), slices * thickness / 2 - above]),
        shifts_mm=shifts,
        noise=float(rng.uniform(0.02, 0.05)),
        bias=rng.normal(0, 1, 9) * 0.12,
        gain=float(rng.uniform(300, 1500)),
    )


def draw_volume(anatomy: Anatomy, rng: np.random.Generator) -> Acquisition:
    """Draw a 3D acquisition of 1.3 mm along the axes of the patient: no displacement, more noise."""
    tilt = Rotation.from_euler("xyz", rng.normal(0, 6, 3), degrees=True).as_matrix()
    return Acquisition(
        shape=(int(rng.integers(84, 97)), int(rng.integers(84, 97)), int(rng.integers(84, 97))),
        spacing_mm=(1.3, 1.3, 1.3),
        samples=(2, 2, 2),
        rotation=_frame().T @ tilt,
        centre_mm=np.array([*rng.uniform(-4, 4, 2), anatomy.heart.length_mm * 0.45]),
        shifts_mm=np.zeros((96, 2)),
        noise=float(rng.uniform(0.04, 0.07)),
        bias=rng.normal(0, 1, 9) * 0.12,
        gain=float(rng.uniform(300, 1500)),
    )


def render(anatomy: Anatomy, acquisition: Acquisition) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Render finely and average: signal (X, Y, Z) float32, label (X, Y, Z) uint8, true volumes in ml."""
    shape, (fine_x, fine_y, fine_z) = acquisition.shape, acquisition.samples
    signal = np.zeros(shape, np.float32)
    shares = np.zeros((len(LABEL_VALUES) + 1, *shape), np.float32)
    x, y = (positions(shape[axis], acquisition.samples[axis], acquisition.spacing_mm[axis]) for axis in (0, 1))
    z = positions(shape[2], fine_z, acquisition.spacing_mm[2])
    blocks = (shape[0], fine_x, shape[1], fine_y)
    for plane, height in enumerate(z):
        slice_index = plane // fine_z
        tissue, label = _render_plane(anatomy, acquisition, (x, y, height), acquisition.shifts_mm[slice_index])
        signal[:, :, slice_index] += tissue.reshape(blocks).mean((1, 3)) / fine_z
        for value in range(1, len(shares)):
            shares[value, :, :, slice_index] += (label == value).reshape(blocks).mean((1, 3)) / fine_z
    shares[0] = 1 - shares[1:].sum(0)
    voxel_ml = float(np.prod(acquisition.spacing_mm)) / 1000
    volumes = {name: round(float(shares[value].sum(dtype=float)) * voxel_ml, 4) for name, value in LABEL_VALUES.items()}
    return signal, shares.argmax(0).astype(np.uint8), volumes


def _render_plane(
    anatomy: Anatomy, acquisition: Acquisition, at: tuple[np.ndarray, np.ndarray, float], shift_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tissue and label on one fine plane; the breath moves all but the chest wall."""
    u, v, w = plane_points(acquisition, at)
    wall, layers = chest_wall(anatomy, u, v)
    u, v = u + np.float32(shift_mm[0]), v + np.float32(shift_mm[1])
    tissue = organs(anatomy, u, v, w)
    label = np.zeros(u.shape, np.uint8)
    window = heart_window(u, v)
    label[window] = draw_heart(anatomy, u[window], v[window], w[window], tissue[window])
    outside = wall & (label == 0)
    tissue[outside] = layers[outside]
    return tissue, label


def plane_points(acquisition: Acquisition, at: tuple[np.ndarray, np.ndarray, float]) -> list[np.ndarray]:
    """Heart coordinates u, v and w of the points of a fine plane, (X, Y) each.

    Args:
        acquisition: of the stack.
        at: `positions` along the first two axes, and the height of the plane along the third.
    """
    x, y, height = at
    turn, centre = acquisition.rotation.astype(np.float32), acquisition.centre_mm
    return [
        turn[axis, 0] * x[:, None] + turn[axis, 1] * y[None] + np.float32(turn[axis, 2] * height + centre[axis])
        for axis in range(3)
    ]


def heart_window(u: np.ndarray, v: np.ndarray) -> tuple[slice, slice]:
    """The part of a plane, with points u and v, that may show the heart."""
    boxes = ndimage.find_objects((np.hypot(u, v) < 85).astype(np.uint8))
    return boxes[0] if boxes else (slice(0), slice(0))


def positions(count: int, samples: int, spacing_mm: float) -> np.ndarray:
    """Coordinates of fine samples, with the middle of the grid at zero."""
    fine = np.arange(count * samples, dtype=np.float32) + 0.5
    return (fine / samples - count / 2) * np.float32(spacing_mm)


def receive(signal: np.ndarray, acquisition: Acquisition, rng: np.random.Generator) -> np.ndarray:
    """Add texture, coil sensitivity and Rician noise: (X, Y, Z) int16."""
    shape = signal.shape
    texture = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), (1.5, 1.5, 0.5))
    vessels = np.clip(texture / texture.std() - 1.5, 0, 1) * (signal < 0.15) * 0.2
    signal = signal * (1 + 0.07 * texture / texture.std()) + vessels * (signal > 0.02)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij")
    terms = (x, y, z, x * y, x * x, y * y, x * z, y * z, z * z)
    bias = np.exp(sum(float(weight) * term for weight, term in zip(acquisition.bias, terms, strict=True)))
    real = signal * bias + acquisition.noise * rng.standard_normal(shape)
    magnitude = np.hypot(real, acquisition.noise * rng.standard_normal(shape))
    return np.clip(magnitude * acquisition.gain, 0, 32767).round().astype(np.int16)


# ---------------------------------------------------------------- where the scan lies in the world


def _frame() -> np.ndarray:
    """Directions of u, v and w in the world, orthonormal: those of hearts in chests, and so left-handed.

    Lateral, inferior and apex are a left-handed system in every patient; a right-handed one is a mirrored heart.
    """
    turn, stretch = np.linalg.qr(FRAME)
    return turn * np.sign(np.diag(stretch))


def placed_affine(acquisition: Acquisition, rng: np.random.Generator, *, wander: bool) -> np.ndarray:
    """Affine (4, 4) of the grid as rendered; patients differ in the direction of their heart."""
    turn = Rotation.from_euler("xyz", rng.normal(0, 4, 3) * wander, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ _frame() @ acquisition.rotation * acquisition.spacing_mm
    middle = affine[:3, :3] @ ((np.array(acquisition.shape) - 1) / 2)
    affine[:3, 3] = rng.normal((-30, 10, 0), 20) - middle
    return affine


def stored_axes(
    affine: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]:
    """Choose how a file orders and flips the axes: affine of the file, order, flipped axes."""
    order = tuple(int(axis) for axis in (rng.permutation(3) if rng.random() < 0.2 else [*rng.permutation(2), 2]))
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
    stored = affine.copy()
    stored[:, :3] = affine[:, order]
    for axis in flips:
        stored[:3, 3] += stored[:3, axis] * (shape[order[axis]] - 1)
        stored[:3, axis] *= -1
    return stored, order, flips
