"""Every network that a config can name is planned, and takes the patch of its plan."""

import pytest
import torch

from segmed.builders.architectures import ENCODERS, build_network
from segmed.builders.segmenters import PLANE_AXES
from segmed.config import SegmentationConfig, known
from segmed.config.problems import models_of, tag_of
from segmed.data.fingerprint import CaseFacts
from segmed.data.training_patches import mostly_padding
from segmed.errors import ConfigError
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


def plan_of(section, shape, spacing, box=None):
    intensity = {"MR": dict.fromkeys(("min", "p0_5", "zero_fraction"), 0.0) | {"mean": 300.0, "sd": 100.0}}
    facts = [CaseFacts("case", shape, spacing, "RAS", intensity, {"a": 1.0}, {"a": 1000}, shape, box)]
    data = {"root": "x", "layout": {"name": "msd"}, "images": ["MR"], "labels": {"a": 1, "b": 2}, "targets": "labels"}
    config = SegmentationConfig.model_validate({"data": data, "network": section})
    return resolve(config, facts, channels=1, machine=CPU)


@pytest.mark.parametrize(
    ("shape", "spacing", "box"),
    [
        ((32, 30, 28), (1.0, 1.0, 1.0), None),  # no larger than what SwinUNETR makes a voxel of
        ((60, 70, 6), (1.5, 1.5, 10.0), (20, 30, 4)),  # planned in 2D
        ((44, 40, 18), (1.0, 1.0, 4.0), None),  # 18 thick slices, in 3D
    ],
)
@pytest.mark.parametrize("section", SECTIONS, ids=names)
def test_every_network_is_planned_and_takes_the_patch_of_its_plan(section, shape, spacing, box):
    plan = plan_of(section, shape, spacing, box)
    patches = plan.config.patches
    across = PLANE_AXES.get(patches.plane) if patches.dims == 2 else None
    assert not mostly_padding(patches.size, [length for axis, length in enumerate(shape) if axis != across])
    network = build_network(plan.config.network, in_channels=1, out_channels=3, dims=known(patches.dims)).eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, 1, *patches.size))
    assert logits.shape == (1, 3, *patches.size)
    assert plan.summary.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"name": "unet", "encoder": {"channels": [4] * 7, "strides": [[1] * 3, *[[2] * 3] * 6]}}, "network.encoder"),
        ({"name": "dynunet", "channels": [4] * 7, "strides": [[1] * 3, *[[2] * 3] * 6]}, "network"),
    ],
)
def test_strides_that_are_too_many_for_the_cases_are_named(section, key):
    with pytest.raises(ConfigError, match=rf"give {key}\.strides of fewer levels, or auto, or take a finer"):
        plan_of(section, (24, 20, 27), (1.0, 1.0, 1.0))


def test_a_network_whose_patches_the_cases_would_not_half_fill_is_refused_with_what_to_choose():
    with pytest.raises(ConfigError) as caught:
        plan_of({"name": "swinunetr", "feature_size": 12}, (24, 20, 27), (1.0, 1.0, 1.0))
    assert str(caught.value) == (
        "network swinunetr plans patches of 32 × 32 × 64 voxels, no case has more than 24 × 20 × 27: choose "
        "another network, such as unet, or take a finer preprocess.spacing_mm"
    )
