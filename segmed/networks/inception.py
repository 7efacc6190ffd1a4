"""Inception v3, with the names that its published weights have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.networks.blocks import initialise

Kernel = tuple[int, int]
Convolutions = Sequence[tuple[int, Kernel]]  # feature maps and kernel of each
ONE, THREE, FIVE, LYING, STANDING = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
HALF_LYING, HALF_STANDING = (1, 3), (3, 1)
EPSILON = 1e-3  # of batch normalisation, as in the published weights
DROPOUT = 0.5


class NormalisedConvolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, *, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, inputs, X, Y) -> (B, outputs, *strided)."""
        return F.relu(self.bn(self.conv(features)))


class Mixed(nn.Module):
    """Branches side by side, each a row of convolutions, and a pooling; all are joined along channels.

    Args:
        inputs: feature maps.
        branches: convolutions by the name of their branch.
        pooled: maps of the convolution behind the average pooling; 0: the last convolution of each branch and a
            maximum pooling halve the map instead.
        forked: branches of which the last convolution is followed by two side by side, 1 x 3 and 3 x 1, of as many
            maps.

    Attributes:
        outputs: feature maps that are delivered.
    """

    def __init__(
        self, inputs: int, branches: Mapping[str, Convolutions], *, pooled: int = 0, forked: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.forks: dict[int, tuple[str, str]] = {}
        self.outputs = pooled or inputs
        for branch, convolutions in branches.items():
            names = [branch] if len(convolutions) == 1 else [f"{branch}_{n + 1}" for n in range(len(convolutions))]
            widths = [inputs, *(maps for maps, _ in convolutions)]
            halves = [not pooled and name == names[-1] for name in names]
            for name, half, (given, maps), (_, kernel) in zip(
                names, halves, pairwise(widths), convolutions, strict=True
            ):
                step = NormalisedConvolution(given, maps, kernel, stride=2 if half else 1, padded=not half)
                self.add_module(name, step)
            self.outputs += widths[-1]
            if branch in forked:
                fork = f"{branch}_{len(names) + 1}"
                self.forks[len(self.rows)] = (f"{fork}a", f"{fork}b")
                for name, kernel in zip(self.forks[len(self.rows)], (HALF_LYING, HALF_STANDING), strict=True):
                    self.add_module(name, NormalisedConvolution(widths[-1], widths[-1], kernel))
                self.outputs += widths[-1]
            self.rows.append(names)
        self.branch_pool = NormalisedConvolution(inputs, pooled, ONE) if pooled else None

    def forward(self, features: Tensor) -> Tensor:
        """features: (B, inputs, X, Y) -> (B, outputs, X, Y), halved where the pooling is by the maximum."""
        maps = []
        for number, names in enumerate(self.rows):
            branch = features
            for name in names:
                branch = self.get_submodule(name)(branch)
            forks = self.forks.get(number)
            maps += [self.get_submodule(name)(branch) for name in forks] if forks else [branch]
        if self.branch_pool is None:
            return torch.cat([*maps, F.max_pool2d(features, 3, 2)], dim=1)
        return torch.cat([*maps, self.branch_pool(F.avg_pool2d(features, 3, 1, 1))], dim=1)


def _fine(inputs: int, pooled: int) -> Mixed:
    """Source: fig. 5."""
    branches = {
        "branch1x1": [(64, ONE)],
        "branch5x5": [(48, ONE), (64, FIVE)],
        "branch3x3dbl": [(64, ONE), (96, THREE), (96, THREE)],
    }
    return Mixed(inputs, branches, pooled=pooled)


def _middle(inputs: int, maps: int) -> Mixed:
    """Source: fig. 6, with n = 7."""
    branches = {
        "branch1x1": [(192, ONE)],
        "branch7x7": [(maps, ONE), (maps, LYING), (192, STANDING)],
        "branch7x7dbl": [(maps, ONE), (maps, STANDING), (maps, LYING), (maps, STANDING), (192, LYING)],
    }
    return Mixed(inputs, branches, pooled=192)


def _coarse(inputs: int) -> Mixed:
    """Source: fig. 7."""
    branches = {
        "branch1x1": [(320, ONE)],
        "branch3x3": [(384, ONE)],
        "branch3x3dbl": [(448, ONE), (384, THREE)],
    }
    return Mixed(inputs, branches, pooled=192, forked=["branch3x3", "branch3x3dbl"])


class InceptionV3(nn.Module):
    """Image -> logits, without the auxiliary classifier.

    Args:
        in_channels: channels of the image.
        classes: logits.

    Source: Szegedy et al. 2016, arXiv 1512.00567; widths as in torchvision, whose names these are.
    """

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = NormalisedConvolution(in_channels, 32, THREE, stride=2, padded=False)
        self.Conv2d_2a_3x3 = NormalisedConvolution(32, 32, THREE, padded=False)
        self.Conv2d_2b_3x3 = NormalisedConvolution(32, 64, THREE)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = NormalisedConvolution(64, 80, ONE)
        self.Conv2d_4a_3x3 = NormalisedConvolution(80, 192, THREE, padded=False)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = _fine(192, 32)
        self.Mixed_5c = _fine(256, 64)
        self.Mixed_5d = _fine(288, 64)
        self.Mixed_6a = Mixed(288, {"branch3x3": [(384, THREE)], "branch3x3dbl": [(64, ONE), (96, THREE), (96, THREE)]})
        self.Mixed_6b = _middle(768, 128)
        self.Mixed_6c = _middle(768, 160)
        self.Mixed_6d = _middle(768, 160)
        self.Mixed_6e = _middle(768, 192)
        self.Mixed_7a = Mixed(
            768,
            {
                "branch3x3": [(192, ONE), (320, THREE)],
                "branch7x7x3": [(192, ONE), (192, LYING), (192, STANDING), (192, THREE)],
            },
        )
        self.Mixed_7b = _coarse(1280)
        self.Mixed_7c = _coarse(2048)
        self.dropout = nn.Dropout(DROPOUT)
        self.fc = nn.Linear(2048, classes)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, X, Y), 75 voxels an axis or more -> logits (B, classes)."""
        *layers, dropout, head = self.children()
        for layer in layers:
            image = layer(image)
        return head(dropout(image.mean((2, 3))))
