"""Every network that a config can name is planned, and takes the patch of its plan."""

import pytest
import torch

from segmed.builders.architectures import ENCODERS, build_network
from segmed.config import SegmentationConfig, known
from segmed.config.problems import models_of, tag_of
from segmed.data.fingerprint import CaseFacts
from segmed.machine import GIB, Machine
from segmed.segment.plan import resolve

CPU = Machine("cpu", "CPU, 2 cores", 20 * GIB, 2)
NARROW = {"channels": [4, 4, 8]}
OPTIONS = {
    "dynunet": NARROW,
    "segresnet": {"init_filters": 8},
    "swinunetr": {"feature_size": 12},
    "patch_cnn": {"channels": [2, 2], "hidden": 2},
}
NETWORKS = [tag_of(model) for model in models_of(SegmentationConfig.model_fields["network"].annotation)]
SECTIONS = [{"name": "unet", "encoder": {"name": encoder, **NARROW}} for encoder in ENCODERS]
SECTIONS += [{"name": name, **OPTIONS.get(name, {})} for name in NETWORKS if name != "unet"]


def names(section):
    return section.get("encoder", section)["name"]


@pytest.mark.parametrize(
    ("shape", "spacing", "box"),
    [
        ((24, 20, 27), (1.0, 1.0, 1.0), None),  # smaller than what SwinUNETR makes a voxel of
        ((60, 70, 6), (1.5, 1.5, 10.0), (20, 30, 4)),  # planned in 2D
        ((44, 40, 18), (1.0, 1.0, 4.0), None),  # 18 thick slices, in 3D
    ],
)
@pytest.mark.parametrize("section", SECTIONS, ids=names)
def test_every_network_is_planned_and_takes_the_patch_of_its_plan(section, shape, spacing, box):
    intensity = {"MR": dict.fromkeys(("min", "p0_5", "zero_fraction"), 0.0) | {"mean": 300.0, "sd": 100.0}}
    facts = [CaseFacts("case", shape, spacing, "RAS", intensity, {"a": 1.0}, {"a": 1000}, shape, box)]
    data = {"root": "x", "layout": {"name": "msd"}, "images": ["MR"], "labels": {"a": 1, "b": 2}, "targets": "labels"}
    plan = resolve(
        SegmentationConfig.model_validate({"data": data, "network": section}), facts, channels=1, machine=CPU
    )
    patches = plan.config.patches
    network = build_network(plan.config.network, in_channels=1, out_channels=3, dims=known(patches.dims)).eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, 1, *patches.size))
    assert logits.shape == (1, 3, *patches.size)
    assert plan.summary.parameters == sum(parameter.numel() for parameter in network.parameters())
