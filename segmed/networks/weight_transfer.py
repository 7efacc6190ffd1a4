"""Weights from one network to another: what fits is taken bit for bit, 2D kernels into 3D by inflation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from segmed.errors import NetworkError

Grey = Literal["sum", "average"]
PREFIX = "encoder."
HEAD = "heads."
FIRST_MEMBER = "networks.0."  # of a deep ensemble
CLASS_HEAD = "class_head."
ABSENT = "not in the source"
OTHER_BLOCK = "its block is built otherwise in the source"
FLAT, SOLID = 4, 5  # axes of a 2D and of a 3D kernel


@dataclass(frozen=True)
class Transfer:
    """What became of each weight.

    Attributes:
        taken: names in the target that were filled.
        left: names in the target that keep their values, with the reason.
        unused: names in the source that nothing was made of.
        axis: spatial axis along which 2D kernels were repeated; none: no kernel was.
    """

    taken: tuple[str, ...]
    left: Mapping[str, str]
    unused: tuple[str, ...]
    axis: int | None = None

    def __str__(self) -> str:
        inflated = "" if self.axis is None else f", 2D kernels repeated along {'XYZ'[self.axis]}"
        left = "".join(f"; {name} left: {reason}" for name, reason in self.left.items())
        unused = f"; unused: {', '.join(self.unused)}" if self.unused else ""
        return f"{len(self.taken)} weights taken{inflated}{left}{unused}"


def move_encoder(source: Mapping[str, Tensor], target: nn.Module, *, axis: int | None = None) -> Transfer:
    """Start a network's encoder with the encoder of another: classifier to segmenter, back, or of the same kind.

    A weight is taken where name and shape fit and its block is built as in the source. Image channels of another
    number leave the weights that read the image, and only these. 2D kernels go into a 3D encoder by inflation.

    Args:
        source: weights by name; those of the encoder begin with `encoder.`.
        target: has an attribute `encoder`, which is changed.
        axis: spatial axis along which 2D kernels are repeated; none: the last one that suits most kernels.

    Raises:
        NetworkError: no encoder on one side, values that are not finite, or no kernel that fits.

    Source of the inflation: Carreira and Zisserman 2017, arXiv 1705.07750, section 2.4.
    """
    encoder = getattr(target, "encoder", None)
    given = {name: tensor for name, tensor in source.items() if name.startswith(PREFIX)}
    if not given:
        first = next(iter(source), "nothing")
        raise NetworkError(f"the weights hold no encoder (they begin with {first}): name a run of an encoder of ours")
    if not isinstance(encoder, nn.Module):
        raise NetworkError(f"{type(target).__name__} has no encoder to be filled: choose a network with one")
    if axis not in (None, 0, 1, 2):
        raise NetworkError(f"2D kernels can't be repeated along axis {axis}: choose 0, 1 or 2")
    here = {PREFIX + name: tensor for name, tensor in encoder.state_dict().items()}
    foreign = _foreign_blocks(given, here)
    return _fill(here, given, source, axis=axis, excluded=lambda name: OTHER_BLOCK if _block(name) in foreign else "")


def move_network(source: Mapping[str, Tensor], target: nn.Module, *, heads: bool, class_head: bool) -> Transfer:
    """Start a network with all of another of its kind: encoder, decoder and heads.

    A weight is taken where name and shape fit and, in the encoder, its block is built as in the source.

    Args:
        source: weights by name.
        target: is changed.
        heads: whether heads are taken too; without, those of the target stay as they are.
        class_head: the same of a second head, for the class of the image.

    Raises:
        NetworkError: values that are not finite, or no kernel that fits.
    """
    here = target.state_dict()
    foreign = _foreign_blocks({n: t for n, t in source.items() if n.startswith(PREFIX)}, here)

    def excluded(name: str) -> str:
        if not heads and name.startswith(HEAD):
            return "a head of other labels"
        if not class_head and name.startswith(CLASS_HEAD):
            return "a head of other classes"
        return OTHER_BLOCK if _block(name) in foreign else ""

    return _fill(here, source, source, excluded=excluded)


def of_one_network(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Those of a deep ensemble's first member by the names that they have in a network of its own; others as given."""
    first = {n.removeprefix(FIRST_MEMBER): tensor for n, tensor in weights.items() if n.startswith(FIRST_MEMBER)}
    return first or weights


def adopt(weights: Mapping[str, Tensor], target: nn.Module, *, grey: Grey = "sum") -> Transfer:
    """Fill a network with published weights of its own names; a head of other classes is left.

    Args:
        weights: by the names of the target.
        target: is changed.
        grey: what becomes of a first convolution over three colours where the image has other channels: `average`,
            its mean over the colours for each channel; `sum`, the same times three over the number of channels, so
            that equal channels give the response that a grey image in three colours gave.

    Raises:
        NetworkError: values that are not finite, or no kernel that fits.
    """
    here = target.state_dict()
    first = next((name for name, tensor in here.items() if tensor.ndim >= FLAT and "colour." not in name), None)
    given = dict(weights)
    if first is not None and first in given:
        given[first] = _over_channels(given[first], here[first].shape[1], grey)
    return _fill(here, given, weights)


def inflate(kernel: Tensor, shape: torch.Size, axis: int) -> Tensor:
    """A 2D kernel (O, I, *two) as a 3D one of `shape`, repeated along a spatial axis and divided by its size.

    On a volume that is constant along that axis, and away from its ends, the response is that of the 2D kernel.
    """
    return kernel.unsqueeze(axis + 2).expand(shape) / shape[axis + 2]


def _fill(
    here: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    source: Collection[str],
    *,
    axis: int | None = None,
    excluded: Callable[[str], str] = lambda name: "",
) -> Transfer:
    """Copy what fits of `given` into the tensors of `here`, but for what is excluded, with the reason."""
    kernels = [name for name, tensor in here.items() if tensor.ndim == SOLID and _ndim(given, name) == FLAT]
    if kernels and axis is None:
        axis = max(range(3), key=lambda a: (sum(_inflates(given[name], here[name], a) for name in kernels), a))
    fitting: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for name, tensor in here.items():
        if name not in given:
            left[name] = ABSENT
        elif reason := excluded(name):
            left[name] = reason
        elif given[name].shape == tensor.shape:
            fitting[name] = given[name]
        elif axis is not None and _inflates(given[name], tensor, axis):
            fitting[name] = inflate(given[name], tensor.shape, axis)
        else:
            left[name] = f"shape {tuple(given[name].shape)} there, {tuple(tensor.shape)} here"
    _check(fitting, left)
    with torch.no_grad():
        for name, tensor in fitting.items():
            here[name].copy_(tensor)
    unused = tuple(name for name in source if name not in fitting)
    return Transfer(tuple(fitting), left, unused, axis if any(name in fitting for name in kernels) else None)


def _check(fitting: Mapping[str, Tensor], left: Mapping[str, str]) -> None:
    if not any(tensor.ndim > 1 for tensor in fitting.values()):
        telling = sorted(left.items(), key=lambda item: item[1] == ABSENT)  # a stable sort: the first that says most
        name, reason = next(iter(telling), ("the network", "without weights"))
        raise NetworkError(f"no kernel fits this network ({name}: {reason}): name weights of the same architecture")
    for name, tensor in fitting.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NetworkError(f"weights {name} are not finite: take those of another epoch or file")


def _ndim(given: Mapping[str, Tensor], name: str) -> int:
    return given[name].ndim if name in given else 0


def _inflates(flat: Tensor, solid: Tensor, axis: int) -> bool:
    shape = list(solid.shape)
    return flat.ndim == FLAT and solid.ndim == SOLID and list(flat.shape) == shape[: axis + 2] + shape[axis + 3 :]


def _over_channels(kernel: Tensor, channels: int, grey: Grey) -> Tensor:
    """A kernel (O, 3, *spatial) over other channels; any other kernel, and one over three, as it is."""
    if grey not in ("sum", "average"):
        raise NetworkError(f"no way '{grey}' from colours to other channels: choose sum or average")
    if kernel.ndim < FLAT or kernel.shape[1] != 3 or channels == 3:
        return kernel
    mean = kernel.mean(1, keepdim=True)
    share = 3 / channels if grey == "sum" else 1.0
    return (mean * share).repeat_interleave(channels, dim=1)


# ---------------------------------------------------------------- blocks


def _block(name: str) -> str:
    """The block of a weight: `encoder.levels.1.0` of `encoder.levels.1.0.first.conv.weight`."""
    return ".".join(name.split(".")[:4])


def _foreign_blocks(given: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> set[str]:
    """Blocks whose kernels do not have the same names on both sides.

    Plain and residual blocks share some names, and even shapes, though their weights do different work.
    """
    kernels = [_kernels_by_block(side) for side in (given, here)]
    return {block for block in kernels[0].keys() & kernels[1].keys() if kernels[0][block] != kernels[1][block]}


def _kernels_by_block(weights: Mapping[str, Tensor]) -> dict[str, set[str]]:
    blocks: dict[str, set[str]] = defaultdict(set)
    for name, tensor in weights.items():
        if tensor.ndim >= FLAT:
            blocks[_block(name)].add(name)
    return blocks
