"""MONAI's DynUNet recipe for so many minutes: the pipeline that MONAI publishes for the Medical Segmentation Decathlon.

Kernels and strides by its rule (an axis is halved while its spacing is below twice the finest and 8 voxels remain;
anisotropic kernels before that), deep supervision, Dice + cross-entropy, SGD with Nesterov momentum 0.99, weight decay
3e-5, polynomial decay of exponent 0.9, zoom 0.9 to 1.2, noise, smoothing, intensity scale, flips, half of the patches
centred on foreground. Source: Project-MONAI/tutorials, modules/dynunet_pipeline. On a CPU it computes in fp32.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai import transforms as mt
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet

IMAGES, LABEL = "image", "label"
LEAST = 8  # voxels of an axis that is still halved
EXPONENT, RATE, MOMENTUM, DECAY = 0.9, 0.01, 0.99, 3e-5


def kernels_and_strides(patch: Sequence[int], spacing_mm: Sequence[float]) -> tuple[list[list[int]], list[list[int]]]:
    """Of every level, finest first; the first stride is 1."""
    size, spacing = np.array(patch, int), np.array(spacing_mm, float)
    strides, kernels = [[1] * len(size)], []
    while True:
        near = spacing / spacing.min() <= 2
        stride = np.where(near & (size >= LEAST), 2, 1)
        kernels.append(np.where(near, 3, 1).tolist())
        if (stride == 1).all():
            break
        if (size % stride).any():
            raise ValueError(
                f"patch {tuple(patch)} can't be halved as its plan says: give sizes that are powers of two"
            )
        size, spacing = size // stride, spacing * stride
        strides.append(stride.tolist())
    return kernels, strides


def main() -> None:
    """Train and predict as the JSON file says that is the only argument; write `facts.json` beside it."""
    given = Path(sys.argv[1])
    options = json.loads(given.read_text(encoding="utf-8"))
    torch.set_num_threads(options["threads"])
    torch.manual_seed(options["seed"])
    fold, work = Path(options["fold"]), Path(options["work"])
    about = json.loads((fold / "dataset.json").read_text(encoding="utf-8"))
    parts = json.loads((fold / "parts.json").read_text(encoding="utf-8"))
    network, facts = _train(fold, parts["train"], about, options)
    began = time.perf_counter()
    _predict(network, fold, parts["test"], about, options, work / "raw_predictions")
    facts["predict_seconds"] = time.perf_counter() - began
    given.with_name("facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _train(
    fold: Path, cases: Sequence[str], about: dict[str, Any], options: dict[str, Any]
) -> tuple[torch.nn.Module, dict[str, Any]]:
    patch, spacing = options["patch"], options["spacing_mm"]
    began = time.perf_counter()
    files = [_files(fold / "imagesTr", case, about) | {LABEL: fold / "labelsTr" / f"{case}.nii.gz"} for case in cases]
    data = CacheDataset(files, mt.Compose([*_reading(spacing, labelled=True), *_augmentation(patch)]), progress=False)
    loader = DataLoader(data, batch_size=options["batch"], shuffle=True, drop_last=len(files) >= options["batch"])
    kernels, strides = kernels_and_strides(patch, spacing)
    network = DynUNet(
        3, len(about["channel_names"]), len(about["labels"]), kernels, strides, strides[1:],
        norm_name="instance", deep_supervision=True, deep_supr_num=max(1, min(3, len(strides) - 2)),
    )  # fmt: skip
    optimiser = torch.optim.SGD(network.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
    prepared, budget, steps = time.perf_counter() - began, 60.0 * options["minutes"], 0
    start = time.perf_counter()
    network.train()
    while (time.perf_counter() - start) < budget:
        for batch in loader:
            gone = time.perf_counter() - start
            if gone >= budget:
                break
            for group in optimiser.param_groups:
                group["lr"] = RATE * (1 - gone / budget) ** EXPONENT
            optimiser.zero_grad(set_to_none=True)
            heads = network(batch[IMAGES]).unbind(1)  # finest first, all of the patch's size
            total = sum(0.5**level * loss(head, batch[LABEL]) for level, head in enumerate(heads))
            total.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimiser.step()
            steps += 1
    facts = {
        "minutes": (time.perf_counter() - start) / 60,
        "prepare_minutes": prepared / 60,
        "steps": steps,
        "plan": f"patch {tuple(patch)} at {tuple(spacing)} mm, batch {options['batch']}, {len(strides)} levels",
    }
    return network, facts


@torch.inference_mode()
def _predict(
    network: torch.nn.Module,
    fold: Path,
    cases: Sequence[str],
    about: dict[str, Any],
    options: dict[str, Any],
    out: Path,
) -> None:
    """Sliding window with half a window's overlap and Gaussian weights; labels on the image's own grid."""
    reading = mt.Compose(_reading(options["spacing_mm"], labelled=False))
    back = mt.Invertd("logits", reading, orig_keys=IMAGES, nearest_interp=False, to_tensor=True)
    out.mkdir(parents=True, exist_ok=True)
    network.eval()
    for case in cases:
        item = reading(_files(fold / "imagesTs", case, about))
        image = item[IMAGES]
        logits = sliding_window_inference(image[None], options["patch"], 4, network, overlap=0.5, mode="gaussian")[0]
        item["logits"] = MetaTensor(
            torch.as_tensor(logits), meta=dict(image.meta), applied_operations=list(image.applied_operations)
        )
        labels = back(item)["logits"].argmax(0)
        stored = nib.Nifti1Image(labels.numpy().astype(np.uint8), image.meta["original_affine"])
        nib.save(stored, out / f"{case}.nii.gz")


def _files(folder: Path, case: str, about: dict[str, Any]) -> dict[str, Any]:
    return {IMAGES: [str(folder / f"{case}_{int(index):04d}.nii.gz") for index in about["channel_names"]]}


def _reading(spacing_mm: Sequence[float], *, labelled: bool) -> list[Any]:
    keys = [IMAGES, LABEL] if labelled else [IMAGES]
    modes = ["bilinear", "nearest"] if labelled else ["bilinear"]
    return [
        mt.LoadImaged(keys, ensure_channel_first=True, image_only=True),
        mt.Orientationd(keys, axcodes="RAS"),
        mt.Spacingd(keys, pixdim=tuple(spacing_mm), mode=modes),
        mt.NormalizeIntensityd(IMAGES, nonzero=True, channel_wise=True),
    ]


def _augmentation(patch: Sequence[int]) -> list[Any]:
    keys = [IMAGES, LABEL]
    return [
        mt.SpatialPadd(keys, spatial_size=tuple(patch)),
        mt.RandCropByPosNegLabeld(keys, label_key=LABEL, spatial_size=tuple(patch), pos=1, neg=1, num_samples=1),
        mt.RandZoomd(
            keys, min_zoom=0.9, max_zoom=1.2, mode=("trilinear", "nearest"), align_corners=(True, None), prob=0.15
        ),
        mt.RandGaussianNoised(IMAGES, std=0.01, prob=0.15),
        mt.RandGaussianSmoothd(IMAGES, sigma_x=(0.5, 1.15), sigma_y=(0.5, 1.15), sigma_z=(0.5, 1.15), prob=0.15),
        mt.RandScaleIntensityd(IMAGES, factors=0.3, prob=0.15),
        *(mt.RandFlipd(keys, spatial_axis=axis, prob=0.5) for axis in range(3)),
    ]


if __name__ == "__main__":
    main()
