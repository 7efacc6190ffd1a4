"""A row of inference: the same sliding window by torch, OpenVINO and ONNX Runtime, and how many labels are equal."""

from __future__ import annotations

from functools import partial

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from benchmarks.timing import Outcome, Setting, Target, alternate, ratio, timed
from benchmarks.windows import CLASSES, OVERLAP, QUICK, Size
from segmed.export.convert import ENGINE_OF, Format, convert, noise
from segmed.segmenters.engines import EngineNetwork, installed, start_engine
from segmed.segmenters.sliding import sliding_window

TORCH, BY_FORMAT = "torch, bf16", {"openvino": "OpenVINO", "onnx": "ONNX Runtime, fp32"}
STEPS = 60  # of training on blobs: labels of random weights are ties, which any rounding turns


def engines_row(setting: Setting) -> Outcome:
    """One volume by every engine that is installed; labels are compared with those of torch in fp32."""
    torch.set_num_threads(setting.threads)  # this may be a process of its own
    size = QUICK if setting.quick else Size()
    network = _trained(size)
    image = noise(1, size.volume, seed=2)[0]
    networks: dict[str, tuple[nn.Module, str]] = {TORCH: (network, "bf16")}
    notes = []
    forms: tuple[Format, ...] = ("openvino", "onnx")
    for form in forms:
        if not installed(ENGINE_OF[form]):
            notes.append(f"{BY_FORMAT[form]} is not installed")
            continue
        file = convert(network, setting.scratch / "network", form, image=noise(1, size.window))
        for precision in ("bf16", "fp32") if form == "openvino" else ("fp32",):
            name = f"OpenVINO, {precision}" if form == "openvino" else BY_FORMAT[form]
            compute = start_engine(ENGINE_OF[form], file, precision=precision)
            networks[name] = (EngineNetwork(compute, network), precision)
    reference = _labels(network, image, size, "fp32")
    contenders = {
        name: timed(partial(_labels, each, image, size, precision)) for name, (each, precision) in networks.items()
    }
    timings = alternate(contenders, rounds=setting.rounds)
    targets = []
    for name, (each, precision) in networks.items():
        equal = float((_labels(each, image, size, precision) == reference).double().mean())
        notes.append(f"{name}: {100 * equal:.3f} % of the voxels have the label of torch in fp32")
        if name.startswith("OpenVINO"):
            targets.append(Target(f"{name} / torch, bf16", ratio(timings[name], timings[TORCH]), "at most", 0.6))
            targets.append(Target(f"{name}: labels as of torch in fp32", 100 * equal, "at least", 99.9, "%"))
    work = f"sliding window over {' × '.join(map(str, size.volume))}, window {size.window[0]}³, overlap {OVERLAP}"
    return Outcome("engines", f"{work}, MONAI UNet {size.channels[0]}–{size.channels[-1]}", TORCH, timings,
                   tuple(targets), tuple(notes))  # fmt: skip


def _labels(network: nn.Module, image: Tensor, size: Size, precision: str) -> Tensor:
    probabilities = sliding_window(
        network, image, window=size.window, classes=CLASSES, overlap=OVERLAP,
        precision="bf16" if precision == "bf16" else "fp32",
    )  # fmt: skip
    return probabilities.argmax(0)


def _trained(size: Size) -> nn.Module:
    """A network that has learnt in seconds to tell dark, middling and bright blobs."""
    torch.manual_seed(0)
    network = UNet(3, 1, CLASSES, size.channels, (2,) * (len(size.channels) - 1), num_res_units=2)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(STEPS):
        blobs = noise(1, (32, 32, 32), batch=2, seed=100 + step)
        labels = (blobs[:, 0] > -0.5).long() + (blobs[:, 0] > 0.5).long()
        loss = nn.functional.cross_entropy(network(blobs), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()
