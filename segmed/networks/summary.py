"""What a network costs before it runs: parameters, multiply-adds, memory."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from segmed.networks.deep_ensemble import DeepEnsemble

GIB = 1024**3
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Summary:
    """The costs of one batch in fp32; under bf16 autocast the activations take about half.

    Attributes:
        name: of the network's class, with its encoder.
        image: (B, C, *spatial) of the batch.
        channels: feature maps of the encoder's levels, finest first, where it has levels.
        outputs: shapes of what the network gives, finest first.
        parameters: number of trained numbers.
        multiply_adds: of convolutions and matrix products in one forward pass.
        activation_bytes: what forward keeps for backward, parameters left out; 0 without training.
        peak_bytes: activations and gradients alive at the worst moment of a step (without training: of a forward
            pass), parameters left out. With checkpointing this, and not `activation_bytes`, is what has to fit.
            On a CPU a step in fp32 took 0.99 to 1.15 times this from 64^3 voxels on, and 0.6 to 0.75 times in
            bf16, plus some 60 MB of compiled kernels.
    """

    name: str
    image: tuple[int, ...]
    channels: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int
    peak_bytes: int

    @property
    def one_line(self) -> str:
        """The figures in one line."""
        return (
            f"{self.name}, {self.parameters / 1e6:.2f} M parameters, {self.multiply_adds / 1e9:.1f} G multiply-adds, "
            f"{self.peak_bytes / GIB:.2f} GiB at most for a batch of {self.image[0]}"
        )

    def __str__(self) -> str:
        rows = [
            ("network", self.name),
            ("image", _shape(self.image)),
            *([("levels", " ".join(map(str, self.channels)))] if self.channels else []),
            ("outputs", ", ".join(map(_shape, self.outputs))),
            ("parameters", f"{self.parameters / 1e6:.2f} M ({self.parameters * FLOAT / 1e6:.1f} MB)"),
            ("multiply-adds", f"{self.multiply_adds / 1e9:.2f} G a forward pass"),
            ("activations", f"{self.activation_bytes / GIB:.2f} GiB kept for backward in fp32"),
            ("peak", f"{self.peak_bytes / GIB:.2f} GiB of activations and gradients in fp32"),
        ]
        return "\n".join(f"{name:<14} {value}" for name, value in rows)


def summarise(network: nn.Module, spatial: tuple[int, ...], *, batch: int = 1, training: bool = True) -> Summary:
    """Cost of one batch, measured on the meta device: no memory is used and nothing is computed.

        >>> print(segmed.summarise_network(network, (16, 16, 16)))

    Args:
        network: declares `in_channels`; its parameters may lie on any device and stay there.
        spatial: size of the image in voxels.
        batch: images in the batch.
        training: count a step, forward and backward; else a forward pass without gradients.

    Raises:
        NetworkError: the size does not fit the network.
    """
    twin = _meta_twin(network).train(training)
    image = torch.empty((batch, int(network.in_channels), *spatial), device="meta")  # type: ignore[arg-type]
    own = {tensor.untyped_storage()._cdata for tensor in _tensors(twin)}
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        outputs = _outputs(twin, image)
    shapes = tuple(tuple(tensor.shape) for tensor in outputs)
    kept: dict[int, int] = {}
    meter = _MemoryMeter()
    if training:
        with meter, _keeping_book(kept, own):
            loss = torch.stack([F.log_softmax(tensor.float(), dim=1).mean() for tensor in _outputs(twin, image)])
        with meter:
            loss.sum().backward()
    else:
        with meter, torch.no_grad():
            _outputs(twin, image)
    return Summary(
        name=_name(network),
        image=tuple(image.shape),
        channels=tuple(getattr(getattr(network, "encoder", network), "channels", ())),
        outputs=shapes,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        multiply_adds=flops.get_total_flops() // 2,
        activation_bytes=sum(kept.values()),
        peak_bytes=meter.peak,
    )


def _meta_twin(network: nn.Module) -> nn.Module:
    """A copy of the network whose tensors have shapes but no memory."""
    replaced: dict[int, Any] = {}
    for tensor in _tensors(network):
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        replaced[id(tensor)] = empty
    return copy.deepcopy(network, replaced)


def _tensors(network: nn.Module) -> Iterable[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _outputs(network: nn.Module, image: Tensor) -> list[Tensor]:
    """All logits of a segmentation network, all outputs of another."""
    whole = getattr(network, "all_logits", network)
    return [tensor for tensor in tree_leaves(whole(image)) if isinstance(tensor, Tensor)]


def _keeping_book(kept: dict[int, int], own: set[int]) -> saved_tensors_hooks:
    """Note the bytes of each storage that is saved for backward; `own` are the parameters'."""

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    return saved_tensors_hooks(pack, lambda tensor: tensor)


class _MemoryMeter(TorchDispatchMode):
    """Bytes of the tensors made under it that are alive together, and their maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.alive:
            return
        self.alive[key] = storage.nbytes()
        self.now += self.alive[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.alive.pop(key)


def _name(network: nn.Module) -> str:
    """The class of the network, with its encoder; for a network of MONAI, MONAI's class."""
    if isinstance(network, DeepEnsemble):
        return f"{network.members} x {_name(network.networks[0])}"
    body = getattr(network, "body", network)
    network = network if isinstance(body, nn.Sequential) else body
    encoder = getattr(network, "encoder", None)
    return type(network).__name__ + (f" ({type(encoder).__name__})" if isinstance(encoder, nn.Module) else "")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
