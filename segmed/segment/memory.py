"""Resolved config + machine -> the bytes that a run needs, and the batch that fits."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from segmed.builders.architectures import build_discriminator, build_network
from segmed.config import SegmentationConfig, known
from segmed.errors import ConfigError
from segmed.machine import GIB, Machine
from segmed.networks.summary import Summary, summarise

BATCH = {("cpu", 2): 8, ("cpu", 3): 2, ("cuda", 2): 32, ("cuda", 3): 4}
BASE_BYTES = int(1.5 * GIB)  # the interpreter with its libraries, and a volume or two
STATE_BYTES = 4 + 4 + 8 + 4 + 4  # a parameter: weight, gradient, two moments, average, a copy while saving


def fit_batch(config: SegmentationConfig, channels: int, classes: int, machine: Machine) -> tuple[int, Summary, int]:
    """The batch size that fits, the network's summary, and the bytes that the run needs.

    Args:
        config: resolved but for `train.batch_size`.
        channels: modalities.
        classes: channels of the network: labels and background, or regions.
        machine: what the run may use.

    Raises:
        ConfigError: not even one patch fits, or not the batch that is given.
    """
    dims, size = known(config.patches.dims), known(config.patches.size)
    shape = {"in_channels": channels, "out_channels": classes, "dims": dims}
    network = build_network(config.network, **shape, class_head=config.classification, device="meta")
    summary = summarise(network, size, batch=1)
    fixed = summary.parameters * STATE_BYTES + (BASE_BYTES if machine.device == "cpu" else GIB // 2)
    each = summary.peak_bytes + 4 * math.prod(size) * (channels + 4 * classes)
    if config.adversary is not None:
        other = _discriminator_summary(config, channels, classes)
        fixed += other.parameters * STATE_BYTES
        # a reference, a result and its gradient beside a judgement of both
        each += 2 * other.peak_bytes + 4 * math.prod(size) * (3 * classes + 2 * channels)
    room = int(0.85 * machine.memory_bytes) - fixed
    given = config.train.batch_size
    batch = BATCH[machine.device, dims] if given == "auto" else given
    fitting = room // each
    if given == "auto":
        batch = min(batch, fitting)
    if batch < 1 or batch > fitting:
        raise ConfigError(_does_not_fit(fixed + max(batch, 1) * each, machine, size, batch, fitting, room / each))
    return batch, summary, fixed + batch * each


def check_parameters(config: SegmentationConfig, channels: int, classes: int, machine: Machine) -> None:
    """See that the weights alone fit, of a run that was planned on another machine and is resumed here.

    Raises:
        ConfigError: they do not.
    """
    network = build_network(
        config.network,
        in_channels=channels,
        out_channels=classes,
        dims=known(config.patches.dims),
        class_head=config.classification,
        device="meta",
    )
    need = sum(parameter.numel() for parameter in network.parameters()) * STATE_BYTES
    if need > machine.memory_bytes:
        raise ConfigError(
            f"the network's weights need {need / GIB:.1f} GiB, {machine.memory_bytes / GIB:.1f} GiB are free: go on "
            "where there is more memory"
        )


class _ConcatenatedInput(nn.Module):
    """A discriminator that takes image and maps as one tensor, for a summary."""

    def __init__(self, discriminator: nn.Module, image_channels: int, classes: int) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.in_channels = image_channels + classes
        self.image_channels = image_channels

    def forward(self, joined: Tensor) -> Any:
        return self.discriminator(joined[:, : self.image_channels], joined[:, self.image_channels :])


def _discriminator_summary(config: SegmentationConfig, channels: int, classes: int) -> Summary:
    """What one image costs the discriminator; its spectral norm, slow to set up, adds as good as nothing."""
    if config.adversary is None:
        raise ValueError("no adversary")
    discriminator = build_discriminator(
        config.adversary.discriminator.model_copy(update={"spectral_norm": False}),
        image_channels=channels,
        classes=classes,
        dims=known(config.patches.dims),
        device="meta",
    )
    return summarise(_ConcatenatedInput(discriminator, channels, classes), known(config.patches.size), batch=1)


def _does_not_fit(need: int, machine: Machine, size: tuple[int, ...], batch: int, fitting: int, ratio: float) -> str:
    free = f"{machine.memory_bytes / GIB:.1f} GiB are free"
    what = f"patch {size} with batch {max(batch, 1)} needs {need / GIB:.1f} GiB, {free}"
    if fitting >= 1:
        return f"{what}: set --train.batch-size {fitting} (and --train.accumulate for the rest)"
    factor = max(ratio, 0.0) ** (1 / len(size))
    smaller = tuple(max(8, int(n * factor) // 8 * 8) for n in size)
    return (
        f"{what}: set --patches.size {' '.join(map(str, smaller))}, --network.encoder.checkpointing "
        "or fewer --network.encoder.channels"
    )


def batch_reason(batch: int, config: SegmentationConfig, machine: Machine) -> str:
    """Why this many patches make a batch."""
    usual = BATCH[machine.device, known(config.patches.dims)]
    if batch == usual:
        return f"usual on a {machine.device.upper()}, and it fits in {machine.memory_bytes / GIB:.1f} GiB"
    return f"what fits in {machine.memory_bytes / GIB:.1f} GiB (usual: {usual})"
