"""What scanners do to intensities, drawn from our own generator and computed by TorchIO on the patch alone.

TorchIO's random transforms draw from torch's global generator, and calling any of its transforms does too. So the
parameters are drawn here, and the deterministic transform is applied by its `apply_transform`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import torchio as tio
from monai.transforms import RandHistogramShift
from torch import Tensor

from segmed.data.spatial import Numbers, Whole
from segmed.labels import IGNORE

BIAS_ORDER = 3  # of the polynomial, as in TorchIO
GHOSTS = (4, 10)  # number of ghosts, as in TorchIO
MOVEMENTS = 2  # of the patient during one acquisition, as in TorchIO
INVERTED_GAMMA = 0.25  # share of the gamma changes that act on the negative: nnU-Net's 0.1 beside 0.3


@dataclass(frozen=True)
class Frame:
    """What an artefact needs to know about the patch besides its intensities.

    Attributes:
        spacing_mm: of the patch.
        axes: along which the slice was acquired; all three for volumes.
        floor: (C,), the lowest intensity of the whole volume: air, the zero of the scanner's own intensities.
        labels: (X, Y, Z), label indices of the patch, 0 and 255 where nothing is labelled; None without a label map.
    """

    spacing_mm: tuple[float, float, float]
    axes: tuple[int, ...]
    floor: Tensor
    labels: Tensor | None = None


Artefact = Callable[..., Tensor]


def synthetic(
    image: Tensor,
    frame: Frame,
    *,
    clusters: int,
    noise: float,
    blur_sd_voxels: float,
    bias: float,
    generator: np.random.Generator,
) -> Tensor:
    """Another contrast of the same anatomy: each tissue gets a random mean and a random spread of its own.

    Tissues are the labels, and what is not labelled is split by the first channel's intensity. Then they are blurred,
    as voxels that hold two of them are, and a bias field is laid over. Each channel keeps its mean and deviation.

    Source: Billot et al. 2023, SynthSeg, doi:10.1016/j.media.2023.102789.
    """
    tissue = tissues(image[0].numpy(), None if frame.labels is None else frame.labels.numpy(), clusters=clusters)
    kinds = int(tissue.max()) + 1
    drawn = torch.empty_like(image)
    for channel in drawn:
        means = generator.random(kinds, dtype=np.float32)
        spreads = noise * generator.random(kinds, dtype=np.float32)
        grain = generator.standard_normal(tissue.shape, dtype=np.float32)
        channel[:] = torch.from_numpy(means[tissue] + spreads[tissue] * grain)
    sd = np.zeros(3)
    sd[list(frame.axes)] = generator.uniform(0, blur_sd_voxels)
    drawn = _apply(tio.Blur(tuple(sd * frame.spacing_mm)), drawn, frame.spacing_mm)
    for channel in drawn:
        channel *= polynomial_field(channel.shape, generator.uniform(-bias, bias, 20))
    return _with_statistics(drawn, image)


def tissues(image: np.ndarray, labels: np.ndarray | None, *, clusters: int) -> np.ndarray:
    """What belongs together: unlabelled voxels by their intensity, labelled ones by their label.

    Args:
        image: (X, Y, Z), intensities.
        labels: (X, Y, Z), label indices, of which 0 and 255 are unlabelled; None: nothing is labelled.
        clusters: equal steps of intensity, between the 2nd and the 98th percentile of what is not labelled.

    Returns:
        Numbers from 0, (X, Y, Z): the clusters, then the labels.
    """
    outside = np.ones(image.shape, bool) if labels is None else (labels == 0) | (labels == IGNORE)
    low, high = np.percentile(image[outside], [2, 98]) if outside.any() else (0.0, 0.0)
    cluster = np.digitize(image, np.linspace(low, high, clusters + 1)[1:-1])
    return cluster if labels is None else np.where(outside, cluster, clusters - 1 + labels.astype(np.int64))


def contrast(image: Tensor, frame: Frame, *, points: int, generator: np.random.Generator) -> Tensor:
    """Map intensities by a random curve of straight pieces that may rise and fall; mean and deviation are kept.

    The more points the curve has, the less is left of the order of intensities.
    """
    changed = image.clone()
    for channel in changed:
        values = channel.numpy()
        places = np.linspace(float(values.min()), float(values.max()), points)
        if places[-1] > places[0]:
            channel[:] = torch.from_numpy(np.interp(values, places, generator.random(points)).astype(np.float32))
    return _with_statistics(changed, image)


def histogram(image: Tensor, frame: Frame, *, points: int, generator: np.random.Generator) -> Tensor:
    """Map intensities by a random rising curve of straight pieces; each channel keeps its mean and deviation.

    The fewer points the curve has, the further it can leave the diagonal.

    Source: Zhou et al. 2019, Models Genesis (non-linear intensity maps); computed by MONAI's `RandHistogramShift`.
    """
    curve = RandHistogramShift(num_control_points=points, prob=1.0)
    curve.set_random_state(seed=int(generator.integers(2**32)))
    changed = image.clone()
    for channel in changed:
        if channel.max() > channel.min():  # else MONAI warns
            channel[:] = torch.from_numpy(np.asarray(curve(channel.numpy())))
    return _with_statistics(changed, image)


def bias(image: Tensor, frame: Frame, *, coefficient: float, generator: np.random.Generator) -> Tensor:
    """Multiply by the exponential of a random polynomial of the position, another one for each channel, of mean 1.

    The field acts above the floor, because on z-scored intensities it would darken values below zero. TorchIO's own
    computes the polynomial voxel by voxel, in 64 ms for 64³; by its three factors it takes less than 2 ms.

    Source: Van Leemput et al. 1999; the same polynomial as `torchio.BiasField`.
    """
    above = image - frame.floor[:, None, None, None]
    for channel in above:
        coefficients = generator.uniform(-coefficient, coefficient, 20)
        field = polynomial_field(channel.shape, coefficients)
        channel *= field / float(field.numpy().mean(dtype=np.float64))
    return above + frame.floor[:, None, None, None]


def polynomial_field(size: Whole, coefficients: np.ndarray) -> Tensor:
    """Exponential of a polynomial of order 3 over [-1, 1]³: (*size), 20 coefficients in TorchIO's order."""
    orders = range(BIAS_ORDER + 1)
    cube = np.zeros((BIAS_ORDER + 1,) * 3)
    places = [(i, j, k) for i in orders for j in orders for k in orders if i + j + k <= BIAS_ORDER]
    for place, value in zip(places, coefficients, strict=True):
        cube[place] = value
    field = torch.from_numpy(cube).float()
    for voxels in size:
        position = np.linspace(-1, 1, voxels) if voxels > 1 else np.zeros(1)
        powers = torch.from_numpy(np.vander(position, BIAS_ORDER + 1, increasing=True)).float()
        field = torch.tensordot(field, powers, dims=([0], [1]))  # the axis done goes to the end: all, in order
    return field.exp_()


def gamma(image: Tensor, frame: Frame, *, log: float, generator: np.random.Generator) -> Tensor:
    """Raise intensities, scaled to [0, 1], to a power; each channel keeps its mean and standard deviation.

    Source: Isensee et al. 2021 (gamma and inverted gamma, with retained statistics).
    """
    flat = image.flatten(1)
    low, high = flat.amin(dim=1), flat.amax(dim=1)
    scale = (high - low).clamp_min(1e-6)[:, None, None, None]
    unit = (image - low[:, None, None, None]) / scale
    inverted = generator.random() < INVERTED_GAMMA
    powers = np.exp(generator.uniform(-log, log, len(image))).tolist()
    changed = _apply(tio.Gamma(powers), 1 - unit if inverted else unit, frame.spacing_mm)
    changed = 1 - changed if inverted else changed
    return _with_statistics(changed, image)


def _with_statistics(changed: Tensor, image: Tensor) -> Tensor:
    """Give (C, X, Y, Z) the mean and the standard deviation of each channel of the image before."""
    (mean, sd), (mean_now, sd_now) = _statistics(image), _statistics(changed)
    return (changed - mean_now) * (sd / sd_now.clamp_min(1e-6)) + mean


def _statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C, 1, 1, 1) of the channels, by NumPy: torch's depend on the number of threads."""
    flat = image.flatten(1).numpy()
    both = flat.mean(axis=1, dtype=np.float64), flat.std(axis=1, dtype=np.float64)
    mean, sd = (torch.from_numpy(each).float()[:, None, None, None] for each in both)
    return mean, sd


def ghosting(image: Tensor, frame: Frame, *, intensity: float, generator: np.random.Generator) -> Tensor:
    """Fainter copies along a phase-encoding axis, from periodic movement."""
    ghosts = int(generator.integers(GHOSTS[0], GHOSTS[1] + 1))
    axis = int(generator.choice(frame.axes))
    transform = tio.Ghosting(num_ghosts=ghosts, axis=axis, intensity=generator.uniform(0, intensity), restore=None)
    return _apply(transform, image, frame.spacing_mm)


def motion(image: Tensor, frame: Frame, *, deg: float, mm: float, generator: np.random.Generator) -> Tensor:
    """Movement of the patient while k-space was filled; a slice moves in its own plane.

    TorchIO fills k-space along the last axis, which must not be a slice's normal: a phase-encoding axis is drawn. It
    takes what moves in from outside for air, so the patch gets a margin of its outermost voxels.
    """
    moving = np.isin(range(3), frame.axes)
    turning = moving if len(frame.axes) == 3 else ~moving  # in a plane: about its normal
    degrees = generator.uniform(-deg, deg, (MOVEMENTS, 3)) * turning
    shifts = generator.uniform(-mm, mm, (MOVEMENTS, 3)) * moving
    step = 1 / (MOVEMENTS + 1)
    times = step * (np.arange(1, MOVEMENTS + 1) + generator.uniform(-0.3, 0.3, MOVEMENTS))
    phase = int(generator.choice(frame.axes))
    order = [*(axis for axis in range(3) if axis != phase), phase]
    spacing = np.asarray(frame.spacing_mm)
    radius_mm = (np.asarray(image.shape[1:]) * spacing)[moving].max() / 2
    reach_mm = np.abs(shifts).max() + np.sin(np.deg2rad(min(np.abs(degrees).max(), 90))) * radius_mm
    margin = (np.ceil(reach_mm / spacing) * moving).astype(int)[order].tolist()
    sides = [voxels for width in reversed(margin) for voxels in (width, width)]
    padded = F.pad(image.permute(0, *(axis + 1 for axis in order)), sides, mode="replicate")
    moved = _apply(tio.Motion(degrees[:, order], shifts[:, order], times, "linear"), padded, spacing[order])
    for axis, width in enumerate(margin):
        moved = moved.narrow(axis + 1, width, moved.shape[axis + 1] - 2 * width)
    return moved.permute(0, *(order.index(axis) + 1 for axis in range(3))).contiguous()


def spike(image: Tensor, frame: Frame, *, intensity: float, generator: np.random.Generator) -> Tensor:
    """Stripes from one wrong point of k-space, as strong as a share of the mean signal above the floor."""
    floor = frame.floor[:, None, None, None]
    transform = tio.Spike(generator.random((1, 3)), generator.uniform(-intensity, intensity))
    return _apply(transform, image - floor, frame.spacing_mm) + floor


def blur(image: Tensor, frame: Frame, *, sd_voxels: float, generator: np.random.Generator) -> Tensor:
    """Gaussian blur along the acquired axes."""
    sd = np.zeros(3)
    sd[list(frame.axes)] = generator.uniform(0, sd_voxels)
    return _apply(tio.Blur(tuple(sd * frame.spacing_mm)), image, frame.spacing_mm)


def low_resolution(image: Tensor, frame: Frame, *, factor: float, generator: np.random.Generator) -> Tensor:
    """Fewer voxels, then as many as before: along all acquired axes or, as in thick slices, along one of them.

    Source: TorchIO's RandomAnisotropy (one axis) and nnU-Net's SimulateLowResolution (all), both by nearest voxel
    down and smoothly up; done here by two calls of torch, twice as fast as `torchio.Resample`.
    """
    axes = list(frame.axes) if generator.random() < 0.5 else [int(generator.choice(frame.axes))]
    size = np.array(image.shape[1:])
    fewer = size.copy()
    fewer[axes] = np.maximum(np.round(size[axes] / generator.uniform(1, factor)), 1)
    coarse = F.interpolate(image[None], tuple(map(int, fewer)), mode="nearest-exact")
    return F.interpolate(coarse, tuple(map(int, size)), mode="trilinear", align_corners=False)[0]


def noise(image: Tensor, frame: Frame, *, sd: float, generator: np.random.Generator) -> Tensor:
    """Gaussian noise. Drawn from our generator: `torchio.Noise` seeds torch's global one."""
    drawn = torch.from_numpy(generator.standard_normal(tuple(image.shape), dtype=np.float32))
    return image + drawn * generator.uniform(0, sd)


def _apply(transform: tio.Transform, image: Tensor, spacing_mm: Numbers) -> Tensor:
    """Result (C, X, Y, Z) of a deterministic transform, without touching any global generator."""
    patch = tio.ScalarImage(tensor=image, affine=np.diag([*spacing_mm, 1.0]))
    return transform.apply_transform(tio.Subject(patch=patch)).get_first_image().data


# In the order of a scan: tissue, coil, acquisition, reconstruction, noise. NAME_probability and NAME_OPTION of the
# config belong to the function of that name.
ARTEFACTS: tuple[Callable[..., Tensor], ...] = (
    synthetic,
    contrast,
    gamma,
    histogram,
    bias,
    motion,
    ghosting,
    spike,
    blur,
    low_resolution,
    noise,
)
