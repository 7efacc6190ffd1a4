"""Image and label maps -> how much the maps look like a reference, one decision per voxel, patch or image."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.blocks import CONVOLUTIONS, ConvBlock, Norm, check_strides, initialise
from segmed.networks.encoders.base_encoder import Encoder
from segmed.networks.spectral import normalise_spectrally

SHORTCUT = "shortcut"  # the attribute that holds it, in a block of any encoder
SMALLEST = 2  # voxels that a strided axis keeps; one voxel could not be compared with a neighbour


class Judgement(NamedTuple):
    """What a discriminator gives.

    Attributes:
        decision: (B, 1, *spatial_d) raw, before any sigmoid; higher is more like a reference.
        features: (B, channels[i], *spatial_i) of every level, finest first.
    """

    decision: Tensor
    features: list[Tensor]


class Discriminator(nn.Module, ABC):
    """Image and maps, joined along channels -> raw decisions.

    Args:
        in_channels: of the first convolution: `image_channels + classes`, or `classes` alone (unconditional).
        classes: K, channels of the maps, background included.
        dims: 2 or 3.
        receptive_field: see below.

    Attributes:
        dims: 2 or 3.
        image_channels: C of the image that the maps are judged with; 0: the maps are judged alone.
        classes: K, channels of the maps, background included.
        receptive_field: voxels along each axis that one decision sees through the convolutions; None: the whole
            image. Instance and group normalisation let a little of the whole map through beside it (batch
            normalisation: of the whole batch, in training): with norm `none` nothing outside counts.

    Raises:
        NetworkError: fewer than two classes, or fewer channels than classes.
    """

    def __init__(
        self, in_channels: int, classes: int, *, dims: int, receptive_field: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        _check_classes(classes)
        if in_channels < classes:
            raise NetworkError(
                f"a discriminator of {in_channels} channels can't see {classes} classes: give image channels + "
                f"classes, or {classes} where it judges the maps alone"
            )
        self.dims = dims
        self.image_channels = in_channels - classes
        self.classes = classes
        self.receptive_field = receptive_field

    @property
    def conditional(self) -> bool:
        """Whether the image is seen beside the maps."""
        return self.image_channels > 0

    def forward(self, image: Tensor, maps: Tensor) -> Judgement:
        """Judge maps as those of an image.

        Args:
            image: (B, image_channels, *spatial); an unconditional discriminator ignores it, whatever its shape.
            maps: (B, classes, *spatial), one-hot or probabilities.

        Raises:
            NetworkError: image and maps do not fit the discriminator or each other.
        """
        _check_shape("maps", maps, self.classes, self.dims)
        if not self.conditional:
            return self.judge(maps)
        _check_shape("image", image, self.image_channels, self.dims)
        _check_same_grid(image, maps)
        return self.judge(torch.cat([image, maps], dim=1))

    @abstractmethod
    def judge(self, seen: Tensor) -> Judgement:
        """seen: (B, image_channels + classes, *spatial), what `forward` has checked and joined -> a judgement."""


class PixelDiscriminator(Discriminator):
    """A decision for each voxel, from this voxel alone: 1 x 1 (x 1) convolutions.

    Args:
        in_channels: image channels + classes; `classes` alone: unconditional.
        channels: feature maps of each block.
        classes: channels of the maps, background included.
        dims: 2 or 3.
        spectral_norm: bound each convolution, see `normalise_spectrally`.
        norm: normalisation of the blocks; its statistics span the whole map.

    Raises:
        NetworkError: channels, classes and dims do not fit together.

    Source: Son et al. 2017, arXiv 1706.09318, "pixel GAN".
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        classes: int,
        dims: int,
        spectral_norm: bool = True,
        norm: Norm = "none",
    ) -> None:
        once = (1,) * dims
        check_strides(channels, [once] * len(channels), dims)
        super().__init__(in_channels, classes, dims=dims, receptive_field=once)
        self.blocks = nn.ModuleList()
        inputs = in_channels
        for outputs in channels:
            self.blocks.append(ConvBlock(inputs, outputs, once, once, norm=norm))
            inputs = outputs
        self.head = CONVOLUTIONS[dims](inputs, 1, 1)
        initialise(self)
        if spectral_norm:
            normalise_spectrally(self)

    def judge(self, seen: Tensor) -> Judgement:
        """seen: (B, in_channels, *spatial) -> decision (B, 1, *spatial), features of each block, all at full size."""
        features = []
        for block in self.blocks:
            seen = block(seen)
            features.append(seen)
        return Judgement(self.head(seen), features)


class PatchDiscriminator(Discriminator):
    """A decision for each voxel of the encoder's coarsest map, from the patch that this voxel sees.

    Args:
        encoder: of image channels + classes; `classes` alone: unconditional. It becomes part of the discriminator,
            its convolutions bounded in place.
        classes: channels of the maps, background included.
        spectral_norm: bound each convolution, see `normalise_spectrally`.

    Raises:
        NetworkError: the encoder has fewer channels than classes, or is checkpointed under spectral normalisation.

    Source: Isola et al. 2017, arXiv 1611.07004, section 3.2.2; Son et al. 2017, arXiv 1706.09318, "patch GAN".
    """

    def __init__(self, encoder: Encoder, *, classes: int, spectral_norm: bool = True) -> None:
        super().__init__(encoder.in_channels, classes, dims=encoder.dims, receptive_field=receptive_field(encoder))
        self.encoder = encoder
        self.head = CONVOLUTIONS[encoder.dims](encoder.channels[-1], 1, 1)
        initialise(self.head)
        if spectral_norm:
            normalise_spectrally(self)

    def judge(self, seen: Tensor) -> Judgement:
        """seen: (B, in_channels, *spatial) -> decision (B, 1, *coarsest), features of the encoder."""
        features = _encode(self.encoder, seen)
        return Judgement(self.head(features[-1]), features)


class ImageDiscriminator(Discriminator):
    """One decision for the whole image: the mean of the encoder's coarsest map, then a linear layer.

    Args:
        encoder: of image channels + classes; `classes` alone: unconditional. It becomes part of the discriminator,
            its convolutions bounded in place.
        classes: channels of the maps, background included.
        spectral_norm: bound each layer, see `normalise_spectrally`.

    Raises:
        NetworkError: the encoder has fewer channels than classes, or is checkpointed under spectral normalisation.

    Source: Son et al. 2017, arXiv 1706.09318, "image GAN".
    """

    def __init__(self, encoder: Encoder, *, classes: int, spectral_norm: bool = True) -> None:
        super().__init__(encoder.in_channels, classes, dims=encoder.dims)
        self.encoder = encoder
        self.head = nn.Linear(encoder.channels[-1], 1)
        if spectral_norm:
            normalise_spectrally(self)

    def judge(self, seen: Tensor) -> Judgement:
        """seen: (B, in_channels, *spatial) -> decision (B, 1, 1, 1[, 1]), features of the encoder."""
        features = _encode(self.encoder, seen)
        decision = self.head(features[-1].flatten(2).mean(dim=2))
        return Judgement(decision.unflatten(1, (1,) * (self.dims + 1)), features)


class MultiScaleCritic(nn.Module):
    """The critic of SegAN: features, from fine to coarse, of the image masked by each label's map.

    It decides nothing: its loss is the distance between the features of reference and result.

    Args:
        encoder: of image_channels * (classes - 1) channels. It becomes part of the critic, its convolutions
            bounded in place.
        image_channels: C of the image.
        classes: K, channels of the maps, background included.
        spectral_norm: bound each convolution, see `normalise_spectrally`.

    Attributes:
        dims, image_channels, classes: as given.

    Raises:
        NetworkError: the encoder has other channels, or is checkpointed under spectral normalisation.

    Source: Xue et al. 2017, arXiv 1706.01805, section 2.
    """

    def __init__(self, encoder: Encoder, *, image_channels: int, classes: int, spectral_norm: bool = True) -> None:
        super().__init__()
        _check_classes(classes)
        if encoder.in_channels != image_channels * (classes - 1):
            raise NetworkError(
                f"a critic of {encoder.in_channels} channels does not fit: {image_channels} image channels x "
                f"{classes - 1} labels without background make {image_channels * (classes - 1)}"
            )
        self.dims = encoder.dims
        self.image_channels = image_channels
        self.classes = classes
        self.encoder = encoder
        if spectral_norm:
            normalise_spectrally(self)

    def forward(self, image: Tensor, maps: Tensor) -> list[Tensor]:
        """The masked image and its features, all that the loss compares.

        Args:
            image: (B, C, *spatial).
            maps: (B, K, *spatial), one-hot or probabilities, the background first.

        Returns:
            The image times the map of each label without background, (B, C * (K - 1), *spatial), all image channels
            of the first label first; then (B, channels[i], *spatial_i), finest first.

        Raises:
            NetworkError: image and maps do not fit the critic or each other.
        """
        _check_shape("maps", maps, self.classes, self.dims)
        _check_shape("image", image, self.image_channels, self.dims)
        _check_same_grid(image, maps)
        product = (maps[:, 1:, None] * image[:, None]).flatten(1, 2)
        return [product, *_encode(self.encoder, product)]


def receptive_field(encoder: Encoder) -> tuple[int, ...]:
    """How many voxels of the image one voxel of the coarsest map sees, along each axis, through the convolutions.

    Read off the kernels and strides along the longest path, on which the convolutions stand in the order in which
    the encoder holds them; a module called `shortcut` sees less than what it stands beside. At the border, part of
    it is padding. Statistics of a normalisation are left out: those of norm `instance` and `group` span the whole map.

    Source: Araujo et al. 2019, Distill, doi 10.23915/distill.00021, eq. 2.
    """
    field = [1] * encoder.dims
    step = [1] * encoder.dims
    for name, module in encoder.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)) and SHORTCUT not in name.split("."):
            for axis in range(encoder.dims):
                field[axis] += (module.kernel_size[axis] - 1) * module.dilation[axis] * step[axis]
                step[axis] *= module.stride[axis]
    return tuple(field)


def fitting_depth(size: Sequence[int], strides: Sequence[Sequence[int]]) -> int:
    """How many levels of these strides, from the finest on, fit a patch.

    A level fits while every axis that it strides has at least 2 voxels after it.

    Args:
        size: voxels of the patch, an entry per axis.
        strides: step of each level relative to the one before, finest first, an entry per axis.
    """
    for level, stride in enumerate(strides):
        size = [math.ceil(n / step) for n, step in zip(size, stride, strict=True)]
        if any(step > 1 and n < SMALLEST for n, step in zip(size, stride, strict=True)):
            return level
    return len(strides)


def check_depth(size: Sequence[int], strides: Sequence[Sequence[int]], *, where: str) -> None:
    """Refuse a discriminator that is too deep for the patches it will see; see `fitting_depth`.

    Args:
        where: what the user would change, such as `adversary.discriminator`.

    Raises:
        NetworkError: it is too deep; the line says which depth fits.
    """
    fits = fitting_depth(size, strides)
    if fits < len(strides):
        levels = "1 level" if len(strides) == 1 else f"{len(strides)} levels"
        most, way_out = {
            0: ("no level fits", "give smaller strides"),
            1: ("at most 1 level fits", "give 1 channel and stride"),
        }.get(fits, (f"at most {fits} levels fit", f"give {fits} channels and strides"))
        raise NetworkError(
            f"{where} has {levels}, too deep for a patch of {' x '.join(map(str, size))}: {most}; {way_out}, "
            "or larger patches"
        )


def _encode(encoder: Encoder, seen: Tensor) -> list[Tensor]:
    """Feature maps, finest first; refuses what leaves an instance normalisation a single voxel."""
    coarsest = [
        math.ceil(n / math.prod(s)) for n, s in zip(seen.shape[2:], zip(*encoder.strides, strict=True), strict=True)
    ]
    if encoder.norm == "instance" and math.prod(coarsest) < SMALLEST:
        raise NetworkError(
            f"maps of size {tuple(seen.shape[2:])} leave 1 voxel at the coarsest of {len(encoder.channels)} levels, "
            "too few to be normalised: give larger patches, fewer levels or norm none"
        )
    return encoder(seen)


def _check_classes(classes: int) -> None:
    if classes < 2:
        raise NetworkError(f"{classes} classes: give at least 2, background included")


def _check_shape(what: str, given: Tensor, channels: int, dims: int) -> None:
    if given.dim() != dims + 2 or given.shape[1] != channels:
        axes = ", ".join("XYZ"[:dims])
        raise NetworkError(f"{what}: shape {tuple(given.shape)} does not fit, give (B, {channels}, {axes})")


def _check_same_grid(image: Tensor, maps: Tensor) -> None:
    if image.shape[:1] + image.shape[2:] != maps.shape[:1] + maps.shape[2:]:
        raise NetworkError(
            f"image of shape {tuple(image.shape)} and maps of shape {tuple(maps.shape)} differ in batch or size: "
            "give both on one grid"
        )
