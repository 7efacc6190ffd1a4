"""Classification networks of MONAI and timm, and Inception, behind the interface of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

import torch
from monai.networks.nets import DenseNet121, DenseNet169, DenseNet201, EfficientNetBN, ResNet, ViT
from torch import Tensor, nn

from segmed.errors import NetworkError
from segmed.networks.blocks import CONVOLUTIONS, Conv3d
from segmed.networks.classifiers import ClassificationModel
from segmed.networks.inception import InceptionV3

COLOURS = 3
HALVED = 32  # voxels that five halvings leave one of
INCEPTION_SMALLEST = 75
RESNETS = {
    18: ("basic", [2, 2, 2, 2]),
    34: ("basic", [3, 4, 6, 3]),
    50: ("bottleneck", [3, 4, 6, 3]),
}
DENSENETS = {121: DenseNet121, 169: DenseNet169, 201: DenseNet201}


class Backbone(ClassificationModel):
    """A network from elsewhere, `body`, with its own head; where asked for, behind a convolution to three channels.

    Args:
        body: (B, 3 or in_channels, *spatial) -> logits (B, classes).
        in_channels: channels of the image.
        classes: 2 or more.
        dims: 2 or 3.
        map_layer, smallest, size: as for `ClassificationModel`.
        colour: a 1 x 1 convolution from the image's channels to three comes first.
    """

    def __init__(
        self,
        body: nn.Module,
        in_channels: int,
        classes: int,
        *,
        dims: int,
        map_layer: str,
        smallest: int = 1,
        size: Sequence[int] | None = None,
        colour: bool = False,
    ) -> None:
        super().__init__(in_channels, classes, dims=dims, map_layer=map_layer, smallest=smallest, size=size)
        self.colour: nn.Module = _to_colour(in_channels, dims) if colour else nn.Identity()
        self.body = body
        for module in body.modules():
            if type(module) is nn.Conv3d:
                module.__class__ = Conv3d  # right gradients in bf16 on maps of two voxels

    def classify(self, image: Tensor) -> Tensor:
        """image: (B, in_channels, *spatial) -> logits (B, classes)."""
        return self.body(self.colour(image))


def backbone(name: str, *, in_channels: int, classes: int, dims: int, **options: object) -> ClassificationModel:
    """A network of MONAI or timm, or Inception, with the attributes and methods of ours.

    Args:
        name: `resnet` (options depth, first_kernel, first_stride, max_pool, width), `densenet` (depth),
            `efficientnet` (variant, `b0` to `b4`), `vit` (size; patch, width, layers, heads, hidden, dropout),
            `inception` (2D) or `timm` (model, published; 2D).
        in_channels: channels of the image.
        classes: 2 or more.
        dims: 2 or 3.
        options: of that network, and for each of them `colour`.

    Raises:
        NetworkError: a name or an option that is not known, values that the network can't have, or a library that is
            not installed.
    """
    if name not in BACKBONES:
        raise NetworkError(f"no backbone '{name}': choose {', '.join(BACKBONES)}")
    if dims not in CONVOLUTIONS:
        raise NetworkError(f"a network has 2 or 3 dimensions, not {dims}")
    try:
        return BACKBONES[name](in_channels, classes, dims, **options)
    except TypeError as error:
        raise NetworkError(f"backbone '{name}': {str(error).split('() ')[-1]}") from error


# ---------------------------------------------------------------- MONAI


def _resnet(
    in_channels: int,
    classes: int,
    dims: int,
    *,
    depth: int = 18,
    first_kernel: int = 7,
    first_stride: int = 2,
    max_pool: bool = True,
    width: int = 64,
    colour: bool = False,
) -> ClassificationModel:
    """ResNet with projections in its shortcuts: MONAI's shortcuts without projections pass no gradient.

    Source: He et al. 2016, arXiv 1512.03385.
    """
    if first_kernel % 2 == 0:
        raise NetworkError(f"resnet with first_kernel {first_kernel}: give an odd number")
    block, layers = RESNETS[depth]
    body = ResNet(
        block,
        layers,
        [width * 2**level for level in range(len(layers))],
        spatial_dims=dims,
        n_input_channels=COLOURS if colour else in_channels,
        conv1_t_size=first_kernel,
        conv1_t_stride=first_stride,
        no_max_pool=not max_pool,
        num_classes=classes,
        bias_downsample=False,
    )
    halvings = 8 * first_stride * (2 if max_pool else 1)
    return Backbone(body, in_channels, classes, dims=dims, map_layer="body.layer4", smallest=halvings, colour=colour)


def _densenet(
    in_channels: int, classes: int, dims: int, *, depth: int = 121, colour: bool = False
) -> ClassificationModel:
    """Source: Huang et al. 2017, arXiv 1608.06993."""
    body = DENSENETS[depth](dims, COLOURS if colour else in_channels, classes)
    body.class_layers.relu = nn.ReLU()  # in place it would overwrite the map that hooks look at
    layer = "body.class_layers.relu"
    return Backbone(body, in_channels, classes, dims=dims, map_layer=layer, smallest=HALVED, colour=colour)


def _efficientnet(
    in_channels: int, classes: int, dims: int, *, variant: str = "b0", colour: bool = False
) -> ClassificationModel:
    """Source: Tan and Le 2019, arXiv 1905.11946."""
    body = EfficientNetBN(
        f"efficientnet-{variant}",
        pretrained=False,
        spatial_dims=dims,
        in_channels=COLOURS if colour else in_channels,
        num_classes=classes,
    )
    return Backbone(body, in_channels, classes, dims=dims, map_layer="body._bn1", smallest=HALVED, colour=colour)


class VisionTransformer(nn.Module):
    """MONAI's ViT; the patches' tokens become a feature map before the class token attends to them once more.

    Attributes:
        map: where the tokens (B, width, *grid) go through before the last block.
        grid: patches along each axis.
    """

    def __init__(self, body: ViT, grid: Sequence[int]) -> None:
        super().__init__()
        self.cls_token = body.cls_token
        self.patch_embedding = body.patch_embedding
        self.blocks = body.blocks
        self.norm = body.norm
        self.classification_head = body.classification_head
        self.map = nn.Identity()
        self.grid = tuple(grid)
        for block in self.blocks:
            block.norm_cross_attn = nn.Identity()  # weights of MONAI's that nothing uses
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-6  # of the source; torch's is 1e-5

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, C, *spatial) -> logits (B, classes)."""
        patches = self.patch_embedding(image)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        maps = self.map(tokens[:, 1:].transpose(1, 2).unflatten(2, self.grid))
        tokens = last(torch.cat([tokens[:, :1], maps.flatten(2).transpose(1, 2)], dim=1))
        return self.classification_head(self.norm(tokens)[:, 0])


def _vit(
    in_channels: int,
    classes: int,
    dims: int,
    *,
    size: Sequence[int],
    patch: int = 16,
    width: int = 768,
    layers: int = 12,
    heads: int = 12,
    hidden: int = 3072,
    dropout: float = 0.0,
    colour: bool = False,
) -> ClassificationModel:
    """Source: Dosovitskiy et al. 2021, arXiv 2010.11929."""
    if len(size) != dims or any(n < patch or n % patch for n in size):
        raise NetworkError(f"vit of patches of {patch} for images of {tuple(size)}: give {dims} multiples of the patch")
    if width % heads:
        raise NetworkError(f"vit of width {width} with {heads} heads: give a multiple")
    if layers < 1:
        raise NetworkError(f"vit of {layers} layers: give at least 1")
    body = ViT(
        COLOURS if colour else in_channels,
        size,
        patch,
        hidden_size=width,
        mlp_dim=hidden,
        num_layers=layers,
        num_heads=heads,
        classification=True,
        num_classes=classes,
        dropout_rate=dropout,
        spatial_dims=dims,
        post_activation="none",
        qkv_bias=True,
    )
    network = VisionTransformer(body, [n // patch for n in size])
    return Backbone(
        network, in_channels, classes, dims=dims, map_layer="body.map", smallest=patch, size=size, colour=colour
    )


def _inception(in_channels: int, classes: int, dims: int, *, colour: bool = False) -> ClassificationModel:
    """Source: Szegedy et al. 2016, arXiv 1512.00567."""
    _only_2d("inception", dims)
    return Backbone(
        InceptionV3(COLOURS if colour else in_channels, classes),
        in_channels,
        classes,
        dims=dims,
        map_layer="body.Mixed_7c",
        smallest=INCEPTION_SMALLEST,
        colour=colour,
    )


# ---------------------------------------------------------------- timm, where it is installed


def _timm(
    in_channels: int, classes: int, dims: int, *, model: str, published: bool = False, colour: bool = False
) -> ClassificationModel:
    """A backbone by its name in timm; `published` fetches its weights, which timm fits to the channels itself."""
    _only_2d(f"timm {model}", dims)
    timm = _library("timm", f"timm {model}")
    try:
        body = timm.create_model(
            model, pretrained=published, in_chans=COLOURS if colour else in_channels, num_classes=classes
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NetworkError(f"timm model '{model}' can't be built: {reason}") from error
    known = getattr(body, "feature_info", None) or [{}]
    layer = str(known[-1].get("module", ""))
    map_layer = f"body.{layer}" if layer and layer in dict(body.named_modules()) else ""
    return Backbone(body, in_channels, classes, dims=dims, map_layer=map_layer, colour=colour)


def _library(module: str, wanted_by: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise NetworkError(
            f"{wanted_by} needs {package}, which is not installed: pip install {package}, or choose another model"
        ) from error


def _only_2d(name: str, dims: int) -> None:
    if dims != 2:
        raise NetworkError(f"{name} has 2 dimensions, not {dims}: choose a resnet for volumes")


def _to_colour(in_channels: int, dims: int) -> nn.Module:
    """A 1 x 1 convolution to three channels that starts as three copies of the channels' mean."""
    convolution = CONVOLUTIONS[dims](in_channels, COLOURS, 1)
    nn.init.constant_(convolution.get_parameter("weight"), 1 / in_channels)
    nn.init.zeros_(convolution.get_parameter("bias"))
    return convolution


BACKBONES: dict[str, Callable[..., ClassificationModel]] = {
    "resnet": _resnet,
    "densenet": _densenet,
    "efficientnet": _efficientnet,
    "vit": _vit,
    "inception": _inception,
    "timm": _timm,
}
