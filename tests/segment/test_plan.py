"""What the planner makes of a fingerprint and a machine."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmed.builders.segmenters import plane_axis
from segmed.config import AugmentConfig, SegmentationConfig
from segmed.data.fingerprint import CaseFacts
from segmed.errors import ConfigError, NetworkError
from segmed.machine import GIB, Machine
from segmed.networks.discriminators import check_depth
from segmed.networks.levels import pooling
from segmed.segment.plan import Planner, resolve

CPU = Machine("cpu", "CPU, 2 cores", 20 * GIB, 2)
GPU = Machine("cuda", "a GPU", 40 * GIB, 16)


def facts(shape=(36, 50, 35), spacing=(1.0, 1.0, 1.0), *, body=None, count=5, zeros=0.0, mean=300.0, sd=100.0, low=0.0):
    numbers = {"min": low, "p0_5": 0, "p50": mean, "p99_5": 900, "max": 999, "mean": mean, "sd": sd}
    intensity = {"MR": {**numbers, "zero_fraction": zeros}}
    return [
        CaseFacts(f"case_{n}", shape, spacing, "RAS", intensity, {"a": 1.0}, {"a": 1000}, body or shape)
        for n in range(count)
    ]


def config(**sections):
    data = {
        "data": {
            "root": "x",
            "layout": {"name": "msd"},
            "images": ["MR"],
            "labels": {"a": 1, "b": 2},
            "targets": "labels",
        }
    }
    return SegmentationConfig.model_validate({**data, **sections})


def plan(found, machine=CPU, **sections):
    return resolve(config(**sections), found, channels=1, machine=machine)


def against(name="patch", **fields):
    """An adversary section."""
    return {"discriminator": {"name": name, **(fields if name == "pixel" else {"encoder": fields})}}


def levels(made):
    """Channels and strides of a planned discriminator."""
    discriminator = made.config.adversary.discriminator
    return discriminator.encoder.channels, discriminator.encoder.strides


def leftovers(section, prefix=""):
    for name, value in section:
        if hasattr(value, "model_fields"):
            yield from leftovers(value, f"{prefix}{name}.")
        elif value == "auto":
            yield f"{prefix}{name}"


def test_hippocampus_gets_the_patch_and_strides_that_nnunet_publishes():
    made = plan(facts(), machine=GPU)
    assert made.config.patches.size == (40, 56, 40)
    assert made.config.network.encoder.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))


def test_nothing_stays_auto_but_what_is_measured_later():
    left = set(leftovers(plan(facts()).config))
    assert left == {
        "train.precision",
        "train.memory_format",
        "inference.windows",
        "inference.precision",
        "inference.largest_component",
    }


def test_every_resolved_value_has_a_reason():
    before, after = config(), plan(facts())
    resolved = set(leftovers(before)) - set(leftovers(after.config))
    assert resolved == set(after.reasons)
    assert all(after.reasons.values())


def test_what_the_user_gave_stays():
    made = plan(
        facts(),
        patches={"size": [32, 32, 32]},
        train={"batch_size": 1},
        network={"name": "unet", "encoder": {"channels": [8, 16, 32]}},
    )
    assert made.config.patches.size == (32, 32, 32)
    assert made.config.train.batch_size == 1
    assert made.config.network.encoder.channels == (8, 16, 32)
    assert len(made.config.network.encoder.strides) == 3


def test_few_thick_slices_are_planned_in_2d_and_keep_their_own_distance():
    made = plan(facts((256, 256, 5), (0.75, 0.75, 12.0)) + facts((256, 256, 5), (0.8, 0.8, 20.0)))
    assert made.config.patches.dims == 2
    assert made.config.preprocess.spacing_mm[2] == 0
    assert plane_axis(made.config) == 2


def test_thick_stacks_that_point_in_different_ways_get_their_slices_last():
    made = plan(facts((256, 5, 256), (0.75, 12.0, 0.75)) + facts((5, 256, 256), (12.0, 0.75, 0.75)))
    assert made.config.preprocess.orientation == "slices_last"
    assert made.config.patches.plane == "slices"
    assert made.config.patches.size == (192, 192)


def test_a_flip_is_refused_where_left_and_right_are_not_the_first_axis():
    found = facts((256, 5, 256), (0.75, 12.0, 0.75))
    with pytest.raises(ConfigError, match="flip_probability"):
        plan(found, augment={"name": "none", "flip_probability": 0.5})


def test_thick_slices_in_3d_are_not_pooled_across_before_the_plane_is_as_coarse():
    strides = pooling((160, 160, 12), (1.5, 1.5, 10.0))
    assert [level[2] for level in strides[:3]] == [1, 1, 1]
    assert all(level[0] == 2 for level in strides[1:4])


def test_strides_stop_before_a_map_has_fewer_than_four_voxels():
    size = (40, 56, 40)
    strides = pooling(size, (1.0, 1.0, 1.0))
    for axis, voxels in enumerate(size):
        for level in strides:
            voxels /= level[axis]
        assert voxels >= 4


def test_single_slices_are_planned_in_2d():
    assert plan(facts((224, 224, 1))).config.patches.dims == 2


def test_masked_images_are_normalised_inside_the_mask():
    made = plan(facts(zeros=0.7))
    assert (made.config.preprocess.intensity, made.config.preprocess.crop) == ("zscore_nonzero", "nonzero")


def test_z_scored_images_are_left_alone():
    assert plan(facts(mean=0.02, sd=1.0, low=-3.0)).config.preprocess.intensity == "none"


def test_a_body_that_fills_half_the_volume_is_cropped():
    assert plan(facts((100, 100, 100), body=(70, 70, 90))).config.preprocess.crop == "body"


def test_volumes_of_several_spacings_go_to_their_median():
    found = facts(spacing=(1.0, 1.0, 1.0)) + facts(spacing=(2.0, 1.0, 1.0)) + facts(spacing=(1.2, 1.0, 1.0))
    assert plan(found).config.preprocess.spacing_mm == (1.2, 1.0, 1.0)


def labelled(shape, spacing, *boxes):
    return [
        replace(case, label_shape=box) for case, box in zip(facts(shape, spacing, count=9), boxes * 9, strict=False)
    ]


@pytest.mark.parametrize(
    ("boxes", "size"),
    [
        ([(80, 70, 9)], (112, 96)),  # 1.3 times the box, and never below half of what the device bears
        ([(20, 10, 3)], (96, 96)),
        ([(150, 140, 9)], (192, 192)),  # a smaller patch would save little
        ([(80, 70, 9)] * 8 + [(200, 180, 9)], (160, 128)),  # the one large heart in nine counts in part
        ([None], (192, 192)),
    ],
)
def test_on_a_cpu_a_patch_holds_the_labels_with_room_around_them(boxes, size):
    thick = labelled((256, 220, 9), (1.5, 1.5, 10.0), *boxes)
    made = plan(thick)
    assert made.config.patches.size == size
    assert ("holds all labels" in made.reasons["patches.size"]) == (size != (192, 192))
    assert plan(thick, machine=GPU).config.patches.size == (256, 224)


def test_the_box_of_the_labels_is_measured_on_the_grid_that_the_network_sees_and_turns_with_the_slices():
    turned = labelled((10, 220, 256), (10.0, 0.75, 0.75), (9, 140, 160))
    made = plan(turned, preprocess={"spacing_mm": [1.5, 1.5, 0.0]}, patches={"dims": 2})
    assert made.config.preprocess.orientation == "slices_last"
    assert made.config.patches.size == (96, 112)


SMALL_HEARTS = [(20, 10, 3)]  # labels for which a patch of half the edges would do


@pytest.mark.parametrize(
    ("sections", "size", "network", "discriminator"),
    [
        ({}, (96, 96), 5, None),
        ({"network": {"name": "unet", "encoder": {"channels": [4, 8, 8]}}}, (96, 96), 3, None),
        ({"network": {"name": "unet", "encoder": {"channels": [4, 8, 8, 8, 8, 8]}}}, (128, 128), 6, None),
        ({"network": {"name": "dynunet", "channels": [4, 8, 8, 8, 8, 8]}}, (128, 128), 6, None),
        ({"network": {"name": "unet", "encoder": {"strides": [[1, 1]] + [[2, 2]] * 5}}}, (128, 128), 6, None),
        ({"network": {"name": "unet", "encoder": {"strides": [[1, 1]] + [[2, 2]] * 6}}}, (192, 192), 7, None),
        ({"adversary": against("patch", channels=[4, 8, 8, 8, 8])}, (128, 128), 6, 5),
        ({"adversary": against("image", channels=[4, 8, 8, 8, 8])}, (128, 128), 6, 5),
        ({"adversary": against("segan", channels=[4, 8, 8, 8])}, (96, 96), 5, 4),
        ({"adversary": against("image", strides=[[2, 2]] * 6)}, (160, 160), 6, 6),
    ],
)
def test_a_patch_on_a_cpu_bears_the_levels_that_are_given(sections, size, network, discriminator):
    thick = labelled((256, 220, 9), (1.5, 1.5, 10.0), *SMALL_HEARTS)
    made = plan(thick, **sections)
    assert made.config.patches.size == size
    assert len(getattr(made.config.network, "encoder", made.config.network).strides) == network
    if discriminator is not None:
        assert len(levels(made)[1]) == discriminator


@pytest.mark.parametrize(
    ("taken", "size"),
    [({"channels": (4,) * 6}, (128, 128)), ({"channels": (4,) * 6, "strides": ((1, 1),) + ((2, 2),) * 5}, (128, 128))],
)
def test_a_patch_on_a_cpu_bears_the_levels_of_the_run_that_the_weights_come_from(monkeypatch, taken, size):
    def shaped(encoder, folder, *, dims):
        return encoder.model_copy(update=taken), dict.fromkeys(taken, "as in another run")

    monkeypatch.setattr("segmed.segment.plan.shaped_like", shaped)
    made = plan(labelled((256, 220, 9), (1.5, 1.5, 10.0), *SMALL_HEARTS))
    assert made.config.patches.size == size
    assert made.config.network.encoder.channels == (4,) * 6
    assert "; enlarged for the levels that it has to bear" in made.reasons["patches.size"]


WIDTHS = st.lists(st.just(4), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(*[st.integers(4, 250)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.7, 1.0, 1.5, 3.0, 8.0])] * 3),
    share=st.floats(0.02, 1.0),
    network=st.sampled_from(["unet", "dynunet"]),
    channels=st.none() | WIDTHS,
    discriminator=st.none() | st.tuples(st.sampled_from(["patch", "image", "segan"]), st.none() | WIDTHS),
)
def test_what_plans_without_boxes_of_labels_plans_with_them_as_deep(
    shape, spacing, share, network, channels, discriminator
):
    fields = {} if channels is None else {"channels": channels}
    sections = {"network": {"name": "unet", "encoder": fields} if network == "unet" else {"name": network, **fields}}
    if discriminator is not None:
        name, widths = discriminator
        sections["adversary"] = against(name, **({} if widths is None else {"channels": widths}))
    box = tuple(max(1, int(share * n)) for n in shape)

    def depths(cases):
        planner = Planner(config(**sections), cases, CPU)
        for part in (planner.preprocessing, planner.patches, planner.network, planner.adversary):
            part()
        section, adversary = planner.config.network, planner.config.adversary
        other = None if adversary is None else len(adversary.discriminator.encoder.strides)
        return len(getattr(section, "encoder", section).strides), other

    try:
        deep, other = depths(facts(shape, spacing, count=1))
    except (ConfigError, NetworkError):
        return
    now, others = depths(labelled(shape, spacing, box)[:1])
    assert now == deep if channels else now >= min(deep, 3 if network == "dynunet" else 1)
    assert others == other if discriminator and discriminator[1] else (others is None) == (other is None)


@pytest.mark.parametrize(
    ("sections", "rate"),
    [
        ({}, 4e-3),
        ({"network": {"name": "unet", "encoder": {"name": "residual"}}, "train": {"optimiser": "adam"}}, 4e-3),
        ({"network": {"name": "unet", "encoder": {"name": "mednext"}}}, 4e-3),
        ({"network": {"name": "unet", "encoder": {"name": "convnext"}}}, 1e-3),
        ({"network": {"name": "segresnet"}}, 1e-3),
        ({"train": {"optimiser": "sgd"}}, 1e-2),
        ({"train": {"optimiser": "adadelta"}}, 1.0),
        ({"train": {"learning_rate": 2e-4}}, 2e-4),
        ({"train": {"learning_rate": "find"}}, "find"),
    ],
)
def test_the_peak_rate_is_that_of_the_optimiser_and_higher_for_a_u_net_with_random_weights(sections, rate):
    made = plan(facts(), **sections)
    assert made.config.train.learning_rate == rate
    assert ("train.learning_rate" in made.reasons) == (rate not in (2e-4, "find"))


def test_little_memory_makes_the_batch_smaller():
    big = facts((256, 256, 256))
    much = plan(big, machine=GPU).config.train.batch_size
    little = plan(big, machine=replace(GPU, memory_bytes=12 * GIB)).config.train.batch_size
    assert 1 <= little < much


def test_a_plan_that_fits_says_what_it_needs_and_stays_below_what_is_free():
    made = plan(facts((256, 256, 256)))
    assert made.memory_bytes < made.machine.memory_bytes
    assert "GiB needed" in str(made)


def test_a_plan_reads_as_value_and_reason():
    made = plan(facts(spacing=(1.0, 1.0, 1.0)))
    assert "  preprocess.spacing_mm = native: all cases have 1 × 1 × 1 mm" in str(made).splitlines()
    assert all(f"  {key} = " in str(made) for key in made.reasons)


def test_a_batch_that_does_not_fit_is_refused_with_one_that_does():
    with pytest.raises(ConfigError, match=r"--train.batch-size \d+"):
        plan(facts((256, 256, 256)), patches={"size": [128, 128, 128]}, train={"batch_size": 64})


def test_a_patch_that_does_not_fit_is_refused_with_one_that_might():
    with pytest.raises(ConfigError, match=r"--patches.size \d+ \d+ \d+"):
        plan(facts((512, 512, 512)), patches={"size": [512, 512, 512]})


def test_a_patch_of_the_wrong_number_of_axes_is_one_line():
    with pytest.raises(ConfigError, match=r"has 2 numbers, patches\.dims is 3"):
        plan(facts(), patches={"size": [64, 64]})


def test_channels_and_strides_of_different_depth_are_one_line():
    with pytest.raises(ConfigError, match=r"2 levels, network\.encoder\.strides 1"):
        plan(facts(), network={"name": "unet", "encoder": {"channels": [8, 16], "strides": [[1, 1, 1]]}})


def test_no_cases_are_one_line():
    with pytest.raises(ConfigError, match="no case"):
        plan([])


# ---------------------------------------------------------------- the adversary


@pytest.mark.parametrize("name", ["pixel", "patch", "image", "segan"])
def test_every_auto_of_an_adversary_is_resolved_with_a_reason(name):
    before, after = config(adversary=against(name)), plan(facts(), adversary=against(name))
    resolved = set(leftovers(before)) - set(leftovers(after.config))
    assert {key for key in resolved if key.startswith("adversary.")} >= {"adversary.loss", "adversary.gradient_penalty"}
    assert resolved == set(after.reasons)
    assert not [key for key in leftovers(after.config) if key.startswith("adversary.")]


@pytest.mark.parametrize(
    ("section", "loss", "penalty"),
    [
        (against("patch"), "non_saturating", 0),
        (against("segan"), "segan_l1", 0),
        ({"loss": "wasserstein"}, "wasserstein", 10),
        ({"loss": "wasserstein", "gradient_penalty": 3}, "wasserstein", 3),
        ({"loss": "hinge"}, "hinge", 0),
    ],
)
def test_loss_and_penalty_of_an_adversary_follow_the_discriminator_and_the_loss(section, loss, penalty):
    adversary = plan(facts(), adversary=section).config.adversary
    assert (adversary.loss, adversary.gradient_penalty) == (loss, penalty)


def test_a_patch_discriminator_sees_31_voxels_an_image_discriminator_all():
    found = facts((256, 256, 5), (0.75, 0.75, 12.0))
    assert levels(plan(found, adversary=against("patch"))) == ((16, 32, 64, 128), ((2, 2),) * 4)
    assert levels(plan(found, adversary=against("image"))) == ((16, 32, 64, 128, 256), ((2, 2),) * 5)
    assert levels(plan(found, machine=GPU, adversary=against("patch")))[0] == (32, 64, 128, 256)


def test_a_discriminator_of_thick_slices_strides_them_last():
    made = plan(facts((256, 256, 40), (0.8, 0.8, 5.0)), adversary=against("image"))
    assert made.config.patches.dims == 3
    across = [stride[2] for stride in levels(made)[1]]
    assert across[:2] == [1, 1]
    assert 2 in across
    assert all(stride[:2] == (2, 2) for stride in levels(made)[1])


def test_given_levels_of_a_discriminator_stay():
    assert levels(plan(facts(), adversary=against(channels=[5, 6]))) == ((5, 6), ((2, 2, 2), (2, 2, 2)))
    made = plan(facts(), adversary=against(strides=[[1, 1, 1], [2, 2, 2]]))
    assert levels(made) == ((16, 32), ((1, 1, 1), (2, 2, 2)))


@settings(max_examples=200, deadline=None)
@given(
    size=st.lists(st.integers(8, 160), min_size=2, max_size=3),
    spacing=st.tuples(*[st.floats(0.3, 12)] * 3),
    levels=st.none() | st.integers(1, 6),
)
def test_the_strides_of_auto_fit_every_patch_from_8_voxels_on(size, spacing, levels):
    strides = pooling(size, spacing[: len(size)], levels=levels and levels + 1)[1:]
    assert 1 <= len(strides) <= (levels or 5)
    check_depth(size, strides, where="adversary.discriminator")


TINY_NETWORK = {"name": "unet", "encoder": {"channels": [4]}}


@pytest.mark.parametrize(
    ("size", "section", "said"),
    [
        ((8, 8, 8), against(channels=[4, 8, 16]), "channels has 3 levels, 1 fits a patch of 8 x 8 x 8: give 1, or"),
        ((16, 16, 16), against("image", channels=[4] * 5), "5 levels, 2 fit a patch of 16 x 16 x 16: give 2, or"),
        ((16, 16, 4), against(channels=[4, 8, 16]), "3 levels, 2 fit a patch of 16 x 16 x 4: give 2"),
        ((8, 8, 8), against(strides=[[2, 2, 2]] * 4), "for a patch of 8 x 8 x 8: at most 2 levels fit; give 2"),
        ((4, 4, 4), against(), "patch 4 x 4 x 4 is too small for the discriminator patch: use the discriminator pixel"),
        ((7, 7, 7), against("segan", channels=[4]), "patch 7 x 7 x 7 is too small for the discriminator segan"),
        ((8, 8, 8), against(channels=[4], strides=[[2, 2]]), r"encoder: stride \(2, 2\) does not fit: give 3"),
        ((8, 8, 8), against(strides=[[2, 0, 2]]), r"discriminator.encoder: stride \(2, 0, 2\) does not fit"),
        ((8, 8, 8), against(strides=[]), "discriminator.encoder: 0 channels and 0 strides"),
    ],
)  # fmt: skip
def test_a_discriminator_that_does_not_fit_the_patch_is_one_line_that_says_what_fits(size, section, said):
    with pytest.raises(ValueError, match=said) as error:
        plan(facts(), patches={"size": size}, network=TINY_NETWORK, adversary=section)
    assert "\n" not in str(error.value)


def test_a_pixel_discriminator_fits_any_patch():
    made = plan(facts(), patches={"size": [4, 4, 4]}, network=TINY_NETWORK, adversary=against("pixel"))
    assert made.config.adversary.discriminator.channels == (16, 32)


@pytest.mark.parametrize("name", ["pixel", "patch", "image", "segan"])
def test_an_adversary_needs_memory_and_more_with_more_channels(name):
    supervised = plan(facts()).memory_bytes
    narrow = plan(facts(), adversary=against(name, channels=[16, 32])).memory_bytes
    wide = plan(facts(), adversary=against(name, channels=[64, 128])).memory_bytes
    assert supervised < narrow < wide


def test_an_adversary_that_leaves_no_room_makes_the_batch_smaller():
    big = facts((256, 256, 256))
    machine = replace(GPU, memory_bytes=24 * GIB)
    alone = plan(big, machine=machine).config.train.batch_size
    both = plan(big, machine=machine, adversary=against("pixel", channels=[32, 32])).config.train.batch_size
    assert 1 <= both < alone


def test_the_supervised_plan_is_the_same_with_an_adversary_beside_it():
    supervised, both = plan(facts()), plan(facts(), adversary=against())
    assert both.config.model_copy(update={"adversary": None}) == supervised.config
    assert {k: v for k, v in both.reasons.items() if not k.startswith("adversary.")} == supervised.reasons


# ---------------------------------------------------------------- augmentation


@pytest.mark.parametrize(
    ("train", "preset"),
    [
        ({"epochs": 100}, "full"),
        ({"epochs": 2}, "light"),
        ({"epochs": 100, "steps_per_epoch": 1}, "full"),
        ({"epochs": 10, "steps_per_epoch": 1}, "light"),
        ({"budget_minutes": 1}, "full"),
        ({"budget_minutes": 0.1}, "light"),
    ],
)
def test_a_run_that_is_short_for_its_cases_is_augmented_lightly(train, preset):
    resolved = plan(facts(count=5), augment={"name": "auto"}, train={"batch_size": 2, **train})
    assert resolved.config.augment == AugmentConfig(name=preset, broaden=True)
    assert resolved.reasons["augment.name"].startswith("5 training cases")


def test_anatomy_of_unknown_spacing_is_turned_and_zoomed_further():
    data = {"root": "x", "layout": {"name": "msd"}, "images": ["MR"], "labels": {"a": 1}, "spacing_known": False}
    resolved = plan(facts(), augment={"name": "auto", "elastic_probability": 0.0}, data=data)
    assert resolved.config.augment == AugmentConfig(name="wide", elastic_probability=0.0, broaden=False)
    assert resolved.reasons["augment.broaden"] == "no preset is broader than wide"
    assert "spacing is not known" in resolved.reasons["augment.name"]
    assert plan(facts(), augment={"name": "auto"}, data=data, train={"epochs": 1}).config.augment.name == "light"


def test_numbers_given_beside_an_automatic_preset_stay():
    resolved = plan(facts(), augment={"name": "auto", "elastic_probability": 0.0, "flip_probability": 0.5})
    assert resolved.config.augment == AugmentConfig(
        name="full", elastic_probability=0.0, flip_probability=0.5, broaden=True
    )


@pytest.mark.parametrize(
    ("augment", "broaden"),
    [({"name": "auto"}, True), ({"name": "light"}, False), ({}, False), ({"name": "light", "broaden": True}, True),
     ({"name": "auto", "broaden": False}, False)],
)  # fmt: skip
def test_overfitting_is_answered_where_the_plan_chose_the_preset_or_the_config_says_so(augment, broaden):
    resolved = plan(facts(), augment=augment)
    assert resolved.config.augment.broaden is broaden
    assert ("augment.broaden" in resolved.reasons) == ("broaden" not in augment)


@pytest.mark.parametrize(
    ("augment", "train", "why"),
    [
        ({"name": "wide", "broaden": True}, {}, "no preset is broader than wide"),
        ({"name": "light", "broaden": True}, {"patience": 1}, "patience 1 ends the run before a loss can rise twice"),
        ({"name": "auto"}, {"patience": 1}, "patience 1 ends the run before a loss can rise twice"),
        ({"name": "auto"}, {"validations": 3}, "validations 3: overfitting is seen in time from 4 on"),
    ],
)
def test_where_overfitting_can_not_be_answered_the_plan_says_so(augment, train, why):
    resolved = plan(facts(), augment=augment, train=train)
    assert resolved.config.augment.broaden is False
    assert resolved.reasons["augment.broaden"].endswith(why)


def test_without_validation_cases_overfitting_is_not_seen():
    cases = facts()
    for training, why in ((len(cases), "no case validates"), (len(cases) - 1, "the preset was chosen by the plan")):
        resolved = resolve(config(augment={"name": "auto"}), cases, channels=1, machine=CPU, training=training)
        assert resolved.config.augment.broaden is (training < len(cases))
        assert resolved.reasons["augment.broaden"].startswith(why)


def test_nothing_to_broaden_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"^augment\.broaden true has no preset to go on from beside .* none: choose"):
        plan(facts(), augment={"name": "none", "broaden": True})


def test_every_process_of_a_run_counts_for_how_often_a_case_is_seen():
    train = {"epochs": 10, "steps_per_epoch": 1, "batch_size": 2}
    given = config(augment={"name": "auto"}, train=train)
    many = resolve(given, facts(count=5), channels=1, machine=CPU, processes=8)
    assert many.config.augment.name == "full"
