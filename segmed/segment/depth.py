"""Config + patch -> how many of the levels that do not follow from the patch it bears."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segmed.config import (
    DynUNetConfig,
    EncoderConfig,
    PixelDiscriminatorConfig,
    SegmentationConfig,
    UNetConfig,
    known,
)
from segmed.data.training_patches import mostly_padding
from segmed.errors import ConfigError
from segmed.networks.blocks import Strides
from segmed.networks.discriminators import fitting_depth
from segmed.networks.levels import SMALLEST_MAP, pooling, round_up
from segmed.networks.peers import DIVISORS, DYNUNET_LEVELS
from segmed.segment.grid_plan import joined


def levels_of(config: SegmentationConfig) -> EncoderConfig | DynUNetConfig | None:
    """The section that says how many levels the network has, if any does."""
    network = config.network
    if isinstance(network, DynUNetConfig):
        return network
    return network.encoder if isinstance(network, UNetConfig) else None


def fixed_strides(config: SegmentationConfig) -> Strides | None:
    """Strides that the network has whatever the patch: given, taken from another run, or its kind's own."""
    dims, section = known(config.patches.dims), levels_of(config)
    if section is None:
        divisor = DIVISORS.get(config.network.name)
        return None if divisor is None else ((divisor,) * dims,)
    return section.strides if section.strides != "auto" and _fit(section.strides, dims) else None


def rounded_up(config: SegmentationConfig, size: Sequence[int], spacing: Sequence[float]) -> list[int]:
    """The next size, in voxels, that the network's strides divide, and that leaves more than one voxel to normalise.

    Args:
        config: resolved but for what follows from the patch.
        size: voxels, an entry per axis.
        spacing: in mm, an entry per axis.
    """
    strides = fixed_strides(config)
    rounded = round_up(size, strides or pooling(size, spacing))
    if strides and rounded == round_up([1] * len(size), strides):
        longest = max(range(len(size)), key=lambda axis: size[axis])
        rounded[longest] *= 2
    return rounded


def check_padding(config: SegmentationConfig, size: Sequence[int], largest: np.ndarray) -> None:
    """Refuse a network whose strides need patches of which the cases would fill a small part.

    Args:
        config: resolved but for what follows from the patch.
        size: voxels, an entry per axis.
        largest: those of the largest case along each.

    Raises:
        ConfigError: naming the network, and what to choose.
    """
    if not (fixed_strides(config) and mostly_padding(size, largest)):
        return
    section, instead = levels_of(config), "choose another network, such as unet,"
    if section is not None:
        key = "network.encoder" if isinstance(section, EncoderConfig) else "network"
        instead = f"give {key}.strides of fewer levels, {'begin with another run' if config.init_run else 'or auto'},"
    raise ConfigError(
        f"network {config.network.name} plans patches of {joined(size)} voxels, no case has more than "
        f"{joined(largest)}: {instead} or take a finer preprocess.spacing_mm"
    )


def borne(config: SegmentationConfig, size: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """What a patch bears of network and discriminator; a patch that has less in one place may be refused.

    Levels whose number is given count as far as they fit, strides by the voxels that they leave of each axis.

    Args:
        config: resolved but for what follows from the patch.
        size: voxels, an entry per axis.
        spacing: in mm, an entry per axis.
    """
    return (*_borne_by_network(config, size, spacing), *_borne_by_discriminator(config, size, spacing))


def _borne_by_network(config: SegmentationConfig, size: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    section, strides = levels_of(config), fixed_strides(config)
    if strides is not None:
        return _left(size, strides)
    if section is None or section.strides != "auto":
        return ()
    fewest = DYNUNET_LEVELS if isinstance(section, DynUNetConfig) else 1
    levels = fewest if section.channels == "auto" else len(section.channels)
    return (len(pooling(size, spacing, levels=levels)),)


def _borne_by_discriminator(
    config: SegmentationConfig, size: Sequence[int], spacing: Sequence[float]
) -> tuple[int, ...]:
    if config.adversary is None or isinstance(config.adversary.discriminator, PixelDiscriminatorConfig):
        return ()
    encoder = config.adversary.discriminator.encoder
    if encoder.strides != "auto":
        if not _fit(encoder.strides, len(size)):
            return ()
        return (fitting_depth(size, encoder.strides), *_left(size, encoder.strides))
    levels = 1 if encoder.channels == "auto" else len(encoder.channels)
    return (len(pooling(size, spacing, levels=levels + 1)),)


def _fit(strides: Strides, dims: int) -> bool:
    """Whether they are strides of so many dimensions; others are refused later."""
    return all(len(level) == dims and min(level) >= 1 for level in strides)


def _left(size: Sequence[int], strides: Strides) -> tuple[int, ...]:
    """Voxels of the coarsest map along each axis, as far as more would be worth nothing."""
    divisors = [math.prod(axis) for axis in zip(*strides, strict=True)] or [1] * len(size)
    return tuple(min(SMALLEST_MAP, math.ceil(n / divisor)) for n, divisor in zip(size, divisors, strict=True))
