"""A network of torch -> ONNX or OpenVINO, for images of any size; and how far it is from torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segmed.errors import SegmenterError
from segmed.networks.decoders import LINEAR
from segmed.segmenters.engines import BESIDE, Compute, Engine, cannot, check_installed

Format = Literal["onnx", "openvino"]
ENGINE_OF: dict[Format, Engine] = {"onnx": "onnxruntime", "openvino": "openvino"}
OPSET = 18
LEAST_DICE = 0.99  # of a label on noise, where many voxels lie at a border
FARTHEST = 0.02  # of the range of the logits


def convert(network: nn.Module, stem: Path, form: Format, *, image: Tensor) -> Path:
    """Write a network for another engine.

    Args:
        network: image (B, C, *spatial) -> logits, in evaluation mode, on the CPU.
        stem: path of the file without its ending.
        form: `onnx`, or `openvino`: two files, `.xml` and `.bin`.
        image: (1, C, *spatial), of a size that fits.

    Raises:
        SegmenterError: the engine is not installed, or lacks an operator.
    """
    engine = ENGINE_OF[form]
    check_installed(engine)
    target = stem.with_name(stem.name + BESIDE[engine])
    write = _write_onnx if form == "onnx" else _write_openvino
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer, about checks of shapes
            write(network, target, image)
    except Exception as error:  # each engine has exceptions of its own
        raise SegmenterError(cannot(engine, error)) from error
    return target


def _write_onnx(network: nn.Module, target: Path, image: Tensor) -> None:
    axes = {0: "batch", **{axis: f"size_{axis - 1}" for axis in range(2, image.dim())}}
    torch.onnx.export(
        network, (image,), str(target), dynamo=False, opset_version=OPSET,
        input_names=["image"], output_names=["logits"], dynamic_axes={"image": axes, "logits": axes},
    )  # fmt: skip


def _write_openvino(network: nn.Module, target: Path, image: Tensor) -> None:
    import openvino

    anything = openvino.PartialShape([-1, image.shape[1], *[-1] * (image.dim() - 2)])
    model = openvino.convert_model(network, example_input=image, input=[anything])
    openvino.save_model(model, str(target), compress_to_fp16=False)


def noise(channels: int, size: tuple[int, ...], *, batch: int = 1, seed: int = 0) -> Tensor:
    """Blobs and noise, z-scored: (batch, channels, *size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((batch, channels, *(max(2, n // 8) for n in size)), generator=generator)
    smooth = F.interpolate(coarse, size=size, mode=LINEAR[len(size)])
    return smooth + 0.2 * torch.randn((batch, channels, *size), generator=generator)


@torch.no_grad()
def parity(network: nn.Module, compute: Compute, image: Tensor, decide: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """How far another engine is from torch on one image, both in fp32.

    Args:
        network: of torch.
        compute: the same by the other engine.
        image: (B, C, *spatial).
        decide: logits -> label map.

    Returns:
        The largest difference of logits, their range, the least Dice of a label, and the share of equal voxels.

    Raises:
        SegmenterError: it is another network.
    """
    ours, theirs = network(image), torch.from_numpy(compute(image.numpy()))
    labels, others = decide(ours), decide(theirs)
    dice = [_dice(labels == value, others == value) for value in labels.unique()]
    difference, span = float((ours - theirs).abs().max()), float(ours.max() - ours.min())
    figures = {
        "size": list(image.shape),
        "largest_difference_of_logits": difference,
        "range_of_logits": span,
        "least_dice_of_labels": min(dice),
        "equal_voxels": float((labels == others).double().mean()),
    }
    if difference > FARTHEST * span or min(dice) < LEAST_DICE:
        raise SegmenterError(
            f"the converted network differs from torch (logits by {difference:.3g}, Dice "
            f"{min(dice):.4f}): nothing is written; take --engine torch"
        )
    return figures


def _dice(one: Tensor, other: Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()).clamp(min=1))
