"""Names and shapes of published weights -> those of our networks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from segmed.networks.backbones import Backbone
from segmed.networks.classifiers import ClassificationModel

BODY = "body."


def own_names(name: str, weights: Mapping[str, Tensor], network: ClassificationModel) -> dict[str, Tensor]:
    """Published weights by the names that `network` has for them; what it has no name for keeps its own.

    Weights that segmed wrote have these names already.

    Args:
        name: of the architecture, as `backbone` takes it, or `alexnet`, `vgg16`.
        weights: as torchvision (resnet, densenet, vit, inception, alexnet, vgg16), lukemelas' EfficientNet-PyTorch,
            timm or MedicalNet name them.
        network: that they are for.
    """
    weights = {key.removeprefix("module."): tensor for key, tensor in weights.items()}
    if not isinstance(network, Backbone) or any(key.startswith(BODY) for key in weights):
        return weights
    if name == "vit":
        weights = _vit_names(weights, network)
    elif name == "densenet121":  # the file is older than the names of today
        weights = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): w for key, w in weights.items()}
    rename = next((to for start, to in RENAMED.items() if name.startswith(start)), lambda own: own)
    names = {rename(own.removeprefix(BODY)): own for own in network.state_dict() if own.startswith(BODY)}
    return {names.get(key, key): tensor for key, tensor in weights.items()}


def _of_densenet(own: str) -> str:
    return own.replace(".layers.", ".").replace("class_layers.out", "classifier")


def _of_efficientnet(own: str) -> str:
    """MONAI numbers stages and, through all of them, blocks; the file numbers blocks alone."""
    return re.sub(r"^_blocks\.\d+\.", "_blocks.", own)


RENAMED: Mapping[str, Callable[[str], str]] = {"densenet": _of_densenet, "efficientnet": _of_efficientnet}


# ---------------------------------------------------------------- ViT

VIT_PARTS = {
    "conv_proj": "patch_embedding.patch_embeddings",
    "encoder.ln": "norm",
    "heads.head": "classification_head",
}
VIT_LAYER_PARTS = {
    "ln_1": "norm1",
    "self_attention.in_proj_": "attn.qkv.",
    "self_attention.out_proj": "attn.out_proj",
    "ln_2": "norm2",
    "mlp.linear_1": "mlp.linear1",
    "mlp.linear_2": "mlp.linear2",
    "mlp.0": "mlp.linear1",
    "mlp.3": "mlp.linear2",
}


def _vit_names(weights: Mapping[str, Tensor], network: Backbone) -> dict[str, Tensor]:
    """torchvision's ViT in MONAI's names; the class token takes its position in, positions are drawn to our grid."""
    named = {_vit_name(key): tensor for key, tensor in weights.items()}
    token, positions = named.pop("class_token", None), named.pop("encoder.pos_embedding", None)
    if token is not None and positions is not None:
        named["cls_token"] = token + positions[:, :1]
        named["patch_embedding.position_embeddings"] = _positions(positions[:, 1:], network)
    return named


def _vit_name(published: str) -> str:
    layer = re.match(r"encoder\.layers\.encoder_layer_(\d+)\.(.*)", published)
    rest = layer.group(2) if layer else published
    for theirs, ours in (VIT_LAYER_PARTS if layer else VIT_PARTS).items():
        if rest.startswith(theirs):
            rest = ours + rest.removeprefix(theirs)
            break
    return f"blocks.{layer.group(1)}.{rest}" if layer else rest


def _positions(positions: Tensor, network: Backbone) -> Tensor:
    """Positions (1, N, width) of a square grid, drawn to the network's grid where that is one of an image.

    Source: Dosovitskiy et al. 2021, arXiv 2010.11929, section 3.2.
    """
    side = math.isqrt(positions.shape[1])
    if network.dims != 2 or network.size is None or side**2 != positions.shape[1]:
        return positions
    grid = [n // network.smallest for n in network.size]
    maps = positions.transpose(1, 2).unflatten(2, (side, side))
    if grid != [side, side]:
        maps = F.interpolate(maps, size=grid, mode="bicubic", align_corners=False)
    return maps.flatten(2).transpose(1, 2)
