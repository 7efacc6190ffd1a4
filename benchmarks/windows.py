"""Rows of inference: a sliding window over one volume, and what bf16 does to the Dice of a trained run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from torch import Tensor, nn

from benchmarks.peers import nnunet
from benchmarks.timing import Outcome, Setting, Target, alternate, ratio, timed
from segmed.builders.datasets import build_dataset
from segmed.builders.trained import load_run
from segmed.data.preprocess import read_case
from segmed.data.splits import Split
from segmed.errors import DatasetError
from segmed.metrics.mask_metrics import overlaps
from segmed.runs import open_run, read_config
from segmed.segmenters.sliding import sliding_window, window_batch, window_starts

OURS, BARE = "segmed, bf16", "the bare network on the same windows, bf16"
MONAI, MONAI_FOUR = "MONAI's sliding_window_inference", "the same in batches of four"
NNUNET = "nnU-Net's predictor without mirroring"
CLASSES, OVERLAP = 3, 0.5
DICE_CASES = 10  # at most so many test cases are segmented twice


@dataclass(frozen=True)
class Size:
    """Of the volume, the window and the network."""

    volume: tuple[int, int, int] = (160, 160, 96)
    window: tuple[int, int, int] = (64, 64, 64)
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)


QUICK = Size((40, 40, 24), (16, 16, 16), (4, 8))


def sliding_window_row(setting: Setting) -> Outcome:
    """The same weights on the same volume by MONAI, nnU-Net and segmed; with a run, the Dice of bf16 too."""
    size = QUICK if setting.quick else Size()
    torch.manual_seed(0)
    network = UNet(3, 1, CLASSES, size.channels, (2,) * (len(size.channels) - 1), num_res_units=2).eval()
    image = torch.randn(1, *size.volume)
    contenders = {
        OURS: timed(
            lambda: sliding_window(
                network, image, window=size.window, classes=CLASSES, overlap=OVERLAP, precision="bf16"
            )
        ),
        BARE: timed(lambda: _bare(network, image, size)),
        MONAI: timed(lambda: _monai(network, image, size, 1)),
        MONAI_FOUR: timed(lambda: _monai(network, image, size, 4)),
    }
    path = setting.scratch / "image.pt"
    torch.save(image, path)
    options = {
        "task": "predict",
        "network": str(_traced(network, size, setting.scratch / "network.pt")),
        "image": str(path),
        "window": size.window,
        "classes": CLASSES,
        "threads": setting.threads,
    }
    with nnunet(setting, NNUNET, options) as (peers, missing):
        timings = alternate({**contenders, **peers}, rounds=setting.rounds)
    targets = [
        Target(f"{name} / ours", ratio(timings[name], timings[OURS]), "at least", 6.0)
        for name in (MONAI, NNUNET)
        if name in timings
    ]
    targets.append(Target("ours / the bare network", ratio(timings[OURS], timings[BARE]), "at most", 1.25))
    notes = missing
    if setting.run is not None:
        target, note = dice_in_bf16(setting.run)
        targets.append(target)
        notes = (*missing, note)
    work = f"sliding window over {_by(size.volume)}, window {_by(size.window)}, overlap {OVERLAP}, MONAI UNet"
    return Outcome("windows", f"{work} {size.channels[0]}–{size.channels[-1]}", OURS, timings, tuple(targets), notes)


def _bare(network: nn.Module, image: Tensor, size: Size) -> None:
    """The network's calls of a sliding window without anything around them."""
    batch = window_batch(size.window, precision="bf16")
    starts = window_starts(size.volume, size.window, OVERLAP)
    windows = image[(slice(None), *(slice(0, n) for n in size.window))].expand(batch, 1, *size.window).contiguous()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for first in range(0, len(starts), batch):
            network(windows[: len(starts) - first])


@torch.no_grad()
def _monai(network: nn.Module, image: Tensor, size: Size, batch: int) -> None:
    sliding_window_inference(image[None], size.window, batch, network, overlap=OVERLAP)


def _traced(network: nn.Module, size: Size, path: Path) -> Path:
    """The network as TorchScript, for an interpreter without MONAI."""
    with torch.no_grad():
        torch.jit.trace(network, torch.zeros(1, 1, *size.window), check_trace=False).save(str(path))
    return path


def _by(size: tuple[int, ...]) -> str:
    return " × ".join(map(str, size))


# ---------------------------------------------------------------- a trained run


def dice_in_bf16(run: Path) -> tuple[Target, str]:
    """How far the mean Dice of a run's test cases in bf16 is from that in fp32, and a note on single cases.

    Args:
        run: of tools/train_seg.py; its data are read where its config says.
    """
    made = open_run(run)
    config = read_config(made)
    dataset = build_dataset(config)
    tested = set(Split.load(made.split).test)
    cases = [case for case in dataset.cases if case.id in tested][:DICE_CASES]
    if not cases:
        raise DatasetError(f"no test case of {run} is in {dataset.root}: name a run whose data are there")
    segmenters = [
        load_run(run, device="cpu", inference=config.inference.model_copy(update={"precision": precision}))
        for precision in ("fp32", "bf16")
    ]
    against_reference, against_each_other = [], []
    for case in cases:
        image, reference = read_case(case, dataset)
        if reference is None:
            continue
        full, short = (segmenter(image).numpy()[0] for segmenter in segmenters)
        true = reference.numpy()[0]
        for label in range(1, dataset.labels.classes):
            masks = full == label, short == label, true == label
            against_reference.append([overlaps(mask, masks[2])["dice"] for mask in masks[:2]])
            against_each_other.append(overlaps(masks[1], masks[0])["dice"])
    dice = np.array(against_reference)
    change = abs(float(np.mean(dice[:, 1] - dice[:, 0])))
    note = (
        f"{run.name}, {len(cases)} test cases: mean Dice {dice[:, 0].mean():.4f} in fp32, {dice[:, 1].mean():.4f} in "
        f"bf16; largest change of a label in a case {np.abs(dice[:, 1] - dice[:, 0]).max():.4f}; label maps agree with "
        f"Dice {np.mean(against_each_other):.4f}"
    )
    return Target("mean Dice of a trained run, bf16 from fp32", change, "at most", 0.001, ""), note
