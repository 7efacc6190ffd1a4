"""A network that another engine than torch computes on the CPU: ONNX Runtime or OpenVINO, window by window."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from segmed.errors import SegmenterError

Engine = Literal["torch", "onnxruntime", "openvino"]
EXTRA = {"onnxruntime": "onnx", "openvino": "openvino"}  # what is installed for an engine
TITLES = {"torch": "torch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
BESIDE = {"onnxruntime": ".onnx", "openvino": ".xml"}  # a network for it lies beside the weights
SHAPES = 3  # shapes of a batch that OpenVINO prepares one by one; the others are computed by a network of any size

Compute = Callable[[np.ndarray], np.ndarray]


class EngineNetwork(nn.Module):
    """Stands where a network does, and lets another engine compute it.

    Args:
        compute: image (B, C, *spatial) float32 -> logits (B, L, *spatial) float32.
        plain: the network of torch, perhaps without weights; says what fits and how much memory a window takes.
    """

    def __init__(self, compute: Compute, plain: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        self.in_channels = plain.in_channels
        object.__setattr__(self, "_orig_mod", plain)  # as of a compiled network; no part of this one

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, C, *spatial) on the CPU -> logits (B, L, *spatial) float32."""
        return torch.from_numpy(self.compute(np.ascontiguousarray(image.float().numpy())))


def installed(engine: Engine) -> bool:
    """Whether an engine is there."""
    return engine == "torch" or find_spec(engine) is not None


def check_installed(engine: Engine) -> None:
    """See that an engine is there.

    Raises:
        SegmenterError: it is not.
    """
    if not installed(engine):
        raise SegmenterError(
            f'{TITLES[engine]} is not installed: pip install "segmed-mri[{EXTRA[engine]}]", or take --engine torch'
        )


def start_engine(engine: Engine, file: Path, *, precision: str) -> Compute:
    """What computes a network of a file.

    Args:
        engine: not torch.
        file: `.onnx`, or `.xml` of OpenVINO with its `.bin`.
        precision: `bf16` is used where the engine and the processor have it.

    Raises:
        SegmenterError: the engine is not installed, or can't compute this network.
    """
    check_installed(engine)
    start = _onnxruntime if engine == "onnxruntime" else _openvino
    try:
        return start(file, precision)
    except Exception as error:  # each engine has exceptions of its own
        raise SegmenterError(cannot(engine, error)) from error


def cannot(engine: Engine, error: Exception) -> str:
    """That an engine lacks what a network needs, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{TITLES[engine]} can't compute this network ({' '.join(lines)[:200]}): take --engine torch"


def _onnxruntime(file: Path, precision: str) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def _openvino(file: Path, precision: str) -> Compute:
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    bf16 = precision == "bf16" and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    prepared: dict[tuple[int, ...], openvino.CompiledModel] = {}

    def compute(image: np.ndarray) -> np.ndarray:
        shape = image.shape if image.shape in prepared or len(prepared) < SHAPES else ()
        if shape not in prepared:
            copy = model.clone()
            if shape:
                copy.reshape(list(shape))
            prepared[shape] = core.compile_model(copy, "CPU", options)
        return np.array(prepared[shape](image)[0])

    if model.inputs[0].partial_shape.rank.get_length() not in (4, 5):
        raise SegmenterError(f"{file.name} takes no image of 2 or 3 dimensions")
    return compute
