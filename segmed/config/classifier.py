"""Classification networks that a config can name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from segmed.config.base import Depth, Fraction, Section, Width
from segmed.config.encoder import ClassifierEncoderConfig

Pretrained = Literal["hub", "hub_or_random"] | Path | None


class EncoderClassifierConfig(Section):
    """One of our encoders, a pooling, a linear head."""

    name: Literal["encoder"] = "encoder"
    encoder: ClassifierEncoderConfig = ClassifierEncoderConfig()
    pooling: Literal["average", "max", "attention"] = Field("average", description="of the coarsest feature map")
    dropout: Fraction = Field(0.0, description="of the pooled features")


class BackboneConfig(Section):
    """Base of the networks that have published weights."""

    pretrained: Pretrained = Field(
        None,
        description="file of weights, or `hub` to fetch the published ones, or `hub_or_random`: drawn where they can't "
        "be had, as the log says; none: drawn",
    )
    grey: Literal["sum", "average"] = Field(
        "sum", description="published first convolution over three colours -> over other channels; sum keeps its size"
    )

    @property
    def architecture(self) -> str:
        """What published weights, and tables, call it."""
        return str(getattr(self, "name", ""))


class ColourConfig(BackboneConfig):
    """Base of the backbones that can stand behind a convolution to three channels."""

    colour: bool = Field(False, description="a 1 x 1 convolution from the image's channels to three comes first")


# ---------------------------------------------------------------- backbones


class ResNetConfig(ColourConfig):
    """ResNet, from MONAI; first_kernel 3, first_stride 1 and no max_pool suit images of 128 voxels and below."""

    name: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50] = Field(18, description="layers")
    first_kernel: Width = Field(7, description="size of the first convolution; odd")
    first_stride: Width = Field(2, description="step of the first convolution")
    max_pool: bool = Field(True, description="halve the map after the first convolution")
    width: Width = Field(
        64, description="feature maps of the first level, doubled with each; published weights have 64"
    )

    @property
    def architecture(self) -> str:
        """As `BackboneConfig.architecture`."""
        return f"resnet{self.depth}"


class DenseNetConfig(ColourConfig):
    """DenseNet, from MONAI."""

    name: Literal["densenet"] = "densenet"
    depth: Literal[121, 169, 201] = Field(121, description="layers; 121 has published weights")

    @property
    def architecture(self) -> str:
        """As `BackboneConfig.architecture`."""
        return f"densenet{self.depth}"


class EfficientNetConfig(ColourConfig):
    """EfficientNet, from MONAI."""

    name: Literal["efficientnet"] = "efficientnet"
    variant: Literal["b0", "b1", "b2", "b3", "b4"] = Field("b0", description="size, from small to large")

    @property
    def architecture(self) -> str:
        """As `BackboneConfig.architecture`."""
        return f"efficientnet_{self.variant}"


class VitConfig(ColourConfig):
    """Vision transformer, from MONAI; as it stands ViT-B/16."""

    name: Literal["vit"] = "vit"
    patch: Width = Field(16, description="voxels along an axis that become one token; they divide the image")
    width: Width = Field(768, description="features of a token; a multiple of the heads")
    layers: Depth = Field(12, description="transformer blocks")
    heads: Width = Field(12, description="of the attention")
    hidden: Width = Field(3072, description="features inside a block's two dense layers")
    dropout: Fraction = Field(0.0, description="of tokens, attention and dense layers")


class InceptionConfig(ColourConfig):
    """Inception v3, for images of 75 voxels an axis or more; the published size is 299."""

    name: Literal["inception"] = "inception"


class TimmConfig(ColourConfig):
    """Any 2D backbone of timm, which has to be installed beside segmed."""

    name: Literal["timm"] = "timm"
    model: str = Field("resnet18", description="name in timm")


# ---------------------------------------------------------------- classic


class LogisticConfig(Section):
    """Logistic regression on the voxels."""

    name: Literal["logistic"] = "logistic"


class LeNet5Config(Section):
    """LeNet-5, with full connections and a linear last layer."""

    name: Literal["lenet5"] = "lenet5"


class AlexNetConfig(BackboneConfig):
    """AlexNet, as torchvision has it."""

    name: Literal["alexnet"] = "alexnet"
    hidden: Width = Field(4096, description="features of the two dense layers")
    dropout: Fraction = Field(0.5, description="before the dense layers")


class Vgg16Config(BackboneConfig):
    """VGG-16, as torchvision has it."""

    name: Literal["vgg16"] = "vgg16"
    hidden: Width = Field(4096, description="features of the two dense layers")
    dropout: Fraction = Field(0.5, description="after the dense layers")


class ContrastCnnConfig(Section):
    """The small published CNN that tells images with contrast agent from those without."""

    name: Literal["contrast_cnn"] = "contrast_cnn"
    channels: tuple[Width, ...] = Field((16, 16, 32, 32, 64, 64), description="feature maps of each convolution")
    hidden: Width = Field(64, description="features of the dense layer")
    dropout: Fraction = Field(0.2, description="before the dense layer")


ClassifierNetwork = Annotated[
    EncoderClassifierConfig
    | ResNetConfig
    | DenseNetConfig
    | EfficientNetConfig
    | VitConfig
    | InceptionConfig
    | TimmConfig
    | LogisticConfig
    | LeNet5Config
    | AlexNetConfig
    | Vgg16Config
    | ContrastCnnConfig,
    Field(discriminator="name"),
]
