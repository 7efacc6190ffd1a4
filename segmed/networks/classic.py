"""Baselines without an encoder of levels: logistic regression, LeNet-5, AlexNet, VGG-16, a small published CNN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.blocks import initialise
from segmed.networks.classifiers import ClassificationModel

LENET_SMALLEST = 16  # one voxel is left behind the second pooling; the published 32 leave 5 x 5
LENET_MAP = 5
ALEXNET_SMALLEST = 63  # below it the last pooling has nothing to pool
VGG_SMALLEST = 32  # five halvings
VGG_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # feature maps and convolutions
CONTRAST_SIZE = (331, 331)


class LogisticRegression(ClassificationModel):
    """One weight per voxel, for each class; one output for two classes.

    Args:
        in_channels: channels of the image.
        classes: 2 or more.
        size: of the image, in voxels.
    """

    def __init__(self, in_channels: int, classes: int, *, size: Sequence[int]) -> None:
        super().__init__(in_channels, classes, dims=len(size), size=size)
        self.head = nn.Linear(in_channels * math.prod(size), _outputs(classes))
        nn.init.zeros_(self.head.weight)  # convex: the start does not matter, and zero says nothing yet
        nn.init.zeros_(self.head.bias)

    def classify(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) -> logits (B, classes)."""
        return _logits(self.head(image.flatten(1)))


class LeNet5(ClassificationModel):
    """Two convolutions with poolings and three dense layers; 61,706 parameters for one channel and ten classes.

    The second convolution reads all maps of the first, poolings have no weights, and the last layer is linear: the
    published network reads a choice of maps, weighs its poolings and ends in distances to drawn figures. The map of
    an image of another size than 32 x 32 is averaged to that of one.

    Args:
        in_channels: channels of the image.
        classes: 2 or more.
        dims: must be 2.

    Source: LeCun et al. 1998, Proc IEEE 86:2278, fig. 2.
    """

    def __init__(self, in_channels: int, classes: int, *, dims: int = 2) -> None:
        _only_2d("lenet5", dims)
        super().__init__(in_channels, classes, dims=2, map_layer="features.4", smallest=LENET_SMALLEST)
        self.features = nn.Sequential(
            *(nn.Conv2d(in_channels, 6, 5), nn.Tanh(), nn.AvgPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(LENET_MAP)
        self.classifier = nn.Sequential(
            *(nn.Linear(16 * LENET_MAP**2, 120), nn.Tanh()), *(nn.Linear(120, 84), nn.Tanh()), nn.Linear(84, classes)
        )
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.get_parameter("bias"))

    def classify(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, X, Y) -> logits (B, classes)."""
        return self.classifier(self.avgpool(self.features(image)).flatten(1))


class AlexNet(ClassificationModel):
    """Five convolutions and three dense layers, with the names and sizes of torchvision's.

    Args:
        in_channels: channels of the image.
        classes: 2 or more.
        dims: must be 2.
        hidden: features of the two dense layers; with 4096 it is the published network.
        dropout: before the dense layers.

    Source: Krizhevsky 2014, arXiv 1404.5997.
    """

    def __init__(
        self, in_channels: int, classes: int, *, dims: int = 2, hidden: int = 4096, dropout: float = 0.5
    ) -> None:
        _only_2d("alexnet", dims)
        super().__init__(in_channels, classes, dims=2, map_layer="features.11", smallest=ALEXNET_SMALLEST)
        self.features = nn.Sequential(
            *(nn.Conv2d(in_channels, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            *(nn.Dropout(dropout), nn.Linear(256 * 6 * 6, hidden), nn.ReLU()),
            *(nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, classes),
        )
        _initialise(self)

    def classify(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, X, Y) -> logits (B, classes)."""
        return self.classifier(self.avgpool(self.features(image)).flatten(1))


class Vgg16(ClassificationModel):
    """Thirteen convolutions and three dense layers, with the names and sizes of torchvision's.

    Args:
        in_channels: channels of the image.
        classes: 2 or more.
        dims: must be 2.
        hidden: features of the two dense layers; with 4096 it is the published network.
        dropout: after each of them.

    Source: Simonyan and Zisserman 2015, arXiv 1409.1556, configuration D.
    """

    def __init__(
        self, in_channels: int, classes: int, *, dims: int = 2, hidden: int = 4096, dropout: float = 0.5
    ) -> None:
        _only_2d("vgg16", dims)
        super().__init__(in_channels, classes, dims=2, map_layer="features.29", smallest=VGG_SMALLEST)
        layers: list[nn.Module] = []
        inputs = in_channels
        for outputs, convolutions in VGG_BLOCKS:
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            *(nn.Linear(512 * 7 * 7, hidden), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(hidden, classes),
        )
        _initialise(self)

    def classify(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, X, Y) -> logits (B, classes)."""
        return self.classifier(self.avgpool(self.features(image)).flatten(1))


class ContrastCnn(ClassificationModel):
    """The small published CNN that tells images with contrast agent from those without.

    3 x 3 convolutions without padding, each with ReLU and a 2 x 2 max-pooling, then a dense layer; one output for two
    classes. For 331 x 331 x 3 voxels and two classes it has 109,073 parameters.

    Args:
        in_channels: channels of the image.
        classes: 2 or more.
        dims: must be 2.
        size: of the image, in voxels.
        channels: feature maps of each convolution.
        hidden: features of the dense layer.
        dropout: before the dense layer.

    Raises:
        NetworkError: an image that is too small for so many convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        dims: int = 2,
        size: Sequence[int] = CONTRAST_SIZE,
        channels: Sequence[int] = (16, 16, 32, 32, 64, 64),
        hidden: int = 64,
        dropout: float = 0.2,
    ) -> None:
        _only_2d("contrast_cnn", dims)
        if not channels or min(channels) < 1:
            raise NetworkError(f"contrast_cnn of channels {tuple(channels)}: give one or more, each at least 1")
        last, smallest, left = len(channels) - 1, 1, tuple(size)
        for _ in channels:
            smallest, left = 2 * smallest + 2, tuple((n - 2) // 2 for n in left)
        super().__init__(
            in_channels, classes, dims=2, map_layer=f"features.{3 * last + 1}", smallest=smallest, size=size
        )
        widths = (in_channels, *channels)
        layers = ((nn.Conv2d(i, o, 3), nn.ReLU(), nn.MaxPool2d(2)) for i, o in zip(widths, channels, strict=False))
        self.features = nn.Sequential(*(layer for three in layers for layer in three))
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Sequential(nn.Linear(channels[-1] * math.prod(left), hidden), nn.ReLU())
        self.head = nn.Linear(hidden, _outputs(classes))
        _initialise(self)

    def classify(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, X, Y) -> logits (B, classes)."""
        return _logits(self.head(self.dense(self.dropout(self.features(image).flatten(1)))))


def _outputs(classes: int) -> int:
    return 1 if classes == 2 else classes


def _logits(outputs: Tensor) -> Tensor:
    """Outputs (B, 1) -> logits (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)); several outputs as they are."""
    return torch.cat([torch.zeros_like(outputs), outputs], dim=1) if outputs.shape[1] == 1 else outputs


def _only_2d(name: str, dims: int) -> None:
    if dims != 2:
        raise NetworkError(f"{name} has 2 dimensions, not {dims}: choose another model for volumes")


def _initialise(network: nn.Module) -> None:
    """He et al. for convolutions and hidden dense layers; without it 13 convolutions in a row do not learn."""
    initialise(network)
    *hidden, _ = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for layer in hidden:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
