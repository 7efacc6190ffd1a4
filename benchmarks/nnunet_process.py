"""nnU-Net's own predictor, training step and augmentation; runs in an interpreter that has nnunetv2, without segmed."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from benchmarks.processes import Work, serve


def predictor(options: Mapping[str, Any]) -> Work:
    """Its sliding window without mirroring, Gaussian weights, step of half a window; a TorchScript network.

    Args:
        options: network and image (files), window, classes, threads.
    """
    torch.set_num_threads(options["threads"])
    image = torch.load(options["image"], weights_only=True)
    made = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    heads = SimpleNamespace(num_segmentation_heads=options["classes"])
    made.manual_initialization(
        torch.jit.load(options["network"]),
        SimpleNamespace(get_label_manager=lambda _: heads),
        SimpleNamespace(patch_size=options["window"]),
        parameters=None,
        dataset_json={},
        trainer_name="",
        inference_allowed_mirroring_axes=None,
    )
    return lambda: made.predict_sliding_window_return_logits(image)


def training_step(options: Mapping[str, Any]) -> Work:
    """`nnUNetTrainer.train_step` with its PlainConvUNet, its loss and its optimiser; on a CPU it computes in fp32.

    Args:
        options: channels and strides of the levels, patch, batch, classes, threads.
    """
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    depth = len(options["channels"])
    network = get_network_from_plans(
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        {
            "n_stages": depth,
            "features_per_stage": options["channels"],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * depth,
            "strides": options["strides"],
            "n_conv_per_stage": [2] * depth,
            "n_conv_per_stage_decoder": [2] * (depth - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        ["conv_op", "norm_op", "dropout_op", "nonlin"],
        1,
        options["classes"],
        deep_supervision=True,
    )
    scales = _scales(options["strides"])
    trainer: Any = SimpleNamespace(
        label_manager=SimpleNamespace(has_regions=False, ignore_label=None),
        configuration_manager=SimpleNamespace(batch_dice=False),
        is_ddp=False,
        enable_deep_supervision=True,
        _do_i_compile=lambda: False,  # as it decides on a CPU
        _get_deep_supervision_scales=lambda: scales,
        device=torch.device("cpu"),
        network=network.train(),
        grad_scaler=None,
        initial_lr=1e-2,
        weight_decay=3e-5,
        num_epochs=1000,
    )
    trainer.loss = nnUNetTrainer._build_loss(trainer)
    trainer.optimizer, _ = nnUNetTrainer.configure_optimizers(trainer)
    shape = (options["batch"], 1, *options["patch"])
    batch = {
        "data": torch.randn(shape),
        "target": [
            torch.randint(
                0, options["classes"], (*shape[:2], *(round(n * s) for n, s in zip(shape[2:], scale, strict=True)))
            ).float()
            for scale in scales
        ],
    }
    return lambda: nnUNetTrainer.train_step(trainer, batch)


def augmentation(options: Mapping[str, Any]) -> Work:
    """A patch as its loader makes it, out of a volume in memory: crop, then the training transforms.

    Args:
        options: volume (.npz with image and label), patch, strides.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    with np.load(options["volume"]) as volume:
        image, label = volume["image"], volume["label"][None]
    angle = (-np.pi / 6, np.pi / 6)
    size = [int(n) for n in get_patch_size(options["patch"], angle, angle, angle, (0.85, 1.25))]
    transforms = nnUNetTrainer.get_training_transforms(
        tuple(options["patch"]), angle, _scales(options["strides"]), (0, 1, 2), False
    )

    def one() -> None:
        room = [voxels - extent for voxels, extent in zip(label.shape[1:], size, strict=True)]
        starts = [int(np.random.randint(min(0, n), max(0, n) + 1)) for n in room]
        box = [[start, start + extent] for start, extent in zip(starts, size, strict=True)]
        transforms(
            image=torch.from_numpy(crop_and_pad_nd(image, box, 0)).float(),
            segmentation=torch.from_numpy(crop_and_pad_nd(label, box, -1, cast_cropped_to=np.int16)),
        )

    return one


def _scales(strides: list[list[int]]) -> list[list[float]]:
    """Size of each supervised level as a share of the patch's: all but the coarsest."""
    return [list(map(float, level)) for level in 1 / np.cumprod(np.array(strides), axis=0)[:-1]]


if __name__ == "__main__":
    serve({"predict": predictor, "train": training_step, "augment": augmentation})
