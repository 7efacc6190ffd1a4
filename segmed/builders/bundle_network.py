"""Config -> a network's class and arguments as data, `{"_target_": ...}`, as MONAI bundles name what they build."""

from __future__ import annotations

from typing import Any

from segmed.builders.architectures import ENCODERS
from segmed.config import (
    DynUNetConfig,
    EncoderConfig,
    Network,
    PatchCnnConfig,
    SegResNetConfig,
    SwinUNETRConfig,
    UNetConfig,
    known,
)
from segmed.networks.deep_ensemble import DeepEnsemble
from segmed.networks.models import SegmentationNet
from segmed.networks.patchwise import PatchwiseNet
from segmed.networks.peers import dynunet_arguments

BODY = "body."  # before the names of MONAI's weights in a network of MONAI that stands behind our interface


def network_definition(config: Network, *, in_channels: int, out_channels: int, dims: int) -> dict[str, Any]:
    """What builds the network of a resolved config again: MONAI's class where it is one of MONAI's, else ours.

    Args:
        config: without `auto`.
        in_channels: modalities.
        out_channels: labels and background.
        dims: 2 or 3.
    """
    ends = {"in_channels": in_channels, "out_channels": out_channels}
    match config:
        case UNetConfig() if config.members > 1:
            one = config.model_copy(update={"members": 1})
            return {
                "_target_": _named(DeepEnsemble),
                "networks": [network_definition(one, **ends, dims=dims) for _ in range(config.members)],
            }
        case UNetConfig():
            return {
                "_target_": _named(SegmentationNet),
                "encoder": _encoder(config.encoder, in_channels, dims),
                "out_channels": out_channels,
                "upsampling": config.upsampling,
                "deep_supervision": config.deep_supervision,
            }
        case PatchCnnConfig():
            return {"_target_": _named(PatchwiseNet), **ends, "dims": dims, **_options(config, "name")}
        case DynUNetConfig():
            return {"_target_": "DynUNet", **ends, **dynunet_arguments(dims=dims, **_options(config, "name"))}
        case SegResNetConfig():
            return {"_target_": "SegResNet", **ends, "spatial_dims": dims, "init_filters": config.init_filters}
        case SwinUNETRConfig():
            return {"_target_": "SwinUNETR", **ends, "spatial_dims": dims, "feature_size": config.feature_size}


def is_monai(definition: dict[str, Any]) -> bool:
    """Whether a network is built by MONAI alone."""
    return "." not in definition["_target_"]


def _encoder(config: EncoderConfig, in_channels: int, dims: int) -> dict[str, Any]:
    return {
        "_target_": _named(ENCODERS[config.name]),
        "in_channels": in_channels,
        "channels": known(config.channels),
        "strides": known(config.strides),
        "dims": dims,
        **_options(config, "name", "channels", "strides"),
    }


def _options(config: Any, *without: str) -> dict[str, Any]:
    return dict(config.model_dump(exclude=set(without)))


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
