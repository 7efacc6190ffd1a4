"""Labels <-> channels of regions: what is learned, what comes back, and which regions can't be told apart."""

import numpy as np
import pytest
import torch

from segmed.errors import VolumeError
from segmed.labels import IGNORE, LabelSet
from segmed.segmenters.segmenter import decide
from segmed.targets import RegionTargets, targets_of

LABELS = {"oedema": 2, "core": [1, 3], "enhancing": 4}
REGIONS = {"whole": ["oedema", "core", "enhancing"], "tumour_core": ["core", "enhancing"]}
HEART = {"wall": 1, "blood": 2, "rv": 3, "scar": 4}
DISC = {"lv": ["wall", "blood", "scar"], "lv_wall": ["wall", "scar"]}


def tumour(targets="regions") -> LabelSet:
    return LabelSet.from_config(LABELS, regions=REGIONS, targets=targets)


def heart(*targets) -> LabelSet:
    return LabelSet.from_config(HEART, regions=DISC, targets=targets or ("lv", "lv_wall", "scar", "rv"))


def painted(logits: torch.Tensor, targets: RegionTargets) -> torch.Tensor:
    """By nnU-Net's rule: each region in its order, where its own sigmoid is above 0.5."""
    label_map = torch.zeros(logits.shape[1:], dtype=torch.uint8)
    for channel, own in zip(logits, targets.own, strict=True):
        label_map[channel > 0] = own[0]
    return label_map


def test_a_label_map_comes_back_from_its_maps():
    for labels in (tumour(), heart()):
        targets = targets_of(labels)
        indices = torch.randint(0, labels.classes, (2, 4, 5, 6), generator=torch.Generator().manual_seed(0))
        maps = targets.maps(indices)
        assert maps.shape == (2, targets.channels, 4, 5, 6)
        for number, name in enumerate(targets.names):
            np.testing.assert_array_equal(maps[:, number].bool().numpy(), np.isin(indices, labels.members(name)))
        for one, logits in zip(indices, 20 * (maps - 0.5), strict=True):
            assert torch.equal(decide(targets.probabilities(logits), labels), one.to(torch.uint8))
        assert torch.equal(targets.decided(20 * (maps - 0.5)), indices)


def test_nobody_annotated_is_zero_in_every_map():
    maps = targets_of(heart()).maps(torch.tensor([[[1, IGNORE]]], dtype=torch.uint8))
    assert maps[0, :, 0, 0].tolist() == [1, 1, 0, 0]
    assert not maps[..., 1].any()


def test_nested_regions_are_painted_as_nnunet_paints_them():
    targets = targets_of(tumour())
    logits = 3 * torch.randn(3, 20, 20, 20, generator=torch.Generator().manual_seed(1))
    probabilities = targets.probabilities(logits)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(20, 20, 20))
    assert probabilities.min() >= 0
    assert torch.equal(targets.decide(probabilities), painted(logits, targets))


def test_consistent_regions_keep_their_probability_as_the_sum_of_their_labels():
    labels = heart()
    targets = targets_of(labels)
    wanted = torch.tensor([0.9, 0.7, 0.2, 0.05])  # lv, lv_wall, scar, rv
    probabilities = targets.probabilities(torch.logit(wanted)[:, None])
    # background, wall, blood, rv, scar
    torch.testing.assert_close(probabilities[:, 0], torch.tensor([0.05, 0.5, 0.2, 0.05, 0.2]))
    assert int(targets.decide(probabilities)) == labels.index("wall")
    torch.testing.assert_close(targets.logits(probabilities)[:, 0], torch.logit(wanted), atol=1e-4, rtol=0)


def test_a_likely_inner_region_is_decided_where_its_label_is_not_the_most_probable():
    targets = targets_of(tumour())
    probabilities = torch.tensor([0.40, 0.05, 0.10, 0.45])[:, None]  # whole 0.6, core 0.55, enhancing 0.45
    assert int(targets.decide(probabilities)) == tumour().index("core")


def test_regions_that_exclude_each_other_share_what_is_more_than_one():
    labels = heart()
    targets = targets_of(labels)
    probabilities = targets.probabilities(torch.logit(torch.tensor([0.9, 0.1, 0.1, 0.8]))[:, None])
    torch.testing.assert_close(probabilities.sum(), torch.tensor(1.0))
    assert int(targets.decide(probabilities)) == labels.index("blood")


def test_a_region_without_a_label_of_its_own_is_painted_as_its_likelier_part():
    labels = LabelSet.from_config({"a": 1, "b": 2}, regions={"both": ["a", "b"]}, targets=("both", "a", "b"))
    targets = targets_of(labels)
    probabilities = targets.probabilities(torch.logit(torch.tensor([[0.8, 0.8], [0.2, 0.1], [0.1, 0.3]])))
    torch.testing.assert_close(probabilities[1:].sum(0), torch.tensor([0.8, 0.8]))
    assert targets.decide(probabilities).tolist() == [1, 2]


def test_regions_by_themselves_come_larger_first_and_with_the_labels_that_they_do_not_tell():
    assert tumour().targets == ("whole", "tumour_core", "enhancing")
    assert LabelSet.from_config(HEART, regions=DISC, targets="regions").targets == ("lv", "lv_wall", "rv", "scar")
    assert tumour("labels").targets == ()


def test_targets_survive_a_file():
    assert LabelSet.from_dict(tumour().to_dict()) == tumour()


def test_labels_that_no_target_tells_are_said():
    assert targets_of(tumour()).notes == []
    notes = targets_of(heart("lv", "lv_wall")).notes
    assert notes == [
        "labels wall, scar are in the same targets: all are written as wall",
        "labels rv are in no target: they are learned as background",
    ]


def test_a_flip_exchanges_the_channels_of_two_sides():
    sides = {"left_ca": 1, "left_rest": 2, "right_ca": 3, "right_rest": 4}
    regions = {"left": ["left_ca", "left_rest"], "right": ["right_ca", "right_rest"]}
    pairs = [(1, 3), (2, 4)]
    whole = LabelSet.from_config(sides, regions=regions, targets=("left", "right", "left_ca", "right_ca"))
    assert targets_of(whole).swapped(pairs) == [(0, 1), (2, 3)]
    half = LabelSet.from_config(sides, regions=regions, targets=("left", "right", "left_ca"))
    with pytest.raises(VolumeError, match="target 'left_ca' flipped by"):
        targets_of(half).swapped(pairs)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("tumour_core", "whole"), r"'tumour_core' comes before 'whole'.*name 'whole' first"),
        (("whole", "whole"), "hold the same labels: leave one of them out"),
        (("whole", "necrosis"), "data.targets names 'necrosis', which is no label and no region"),
        (("whole",), "names 'whole' alone: name two or more"),
        (("crossing", "tumour_core"), "overlap and neither holds the other"),
    ],
)
def test_targets_that_can_not_be_told_back_are_one_line(targets, said):
    regions = {**REGIONS, "crossing": ["oedema", "core"]}
    with pytest.raises(VolumeError, match=said) as caught:
        targets_of(LabelSet.from_config(LABELS, regions=regions, targets=targets))
    assert "\n" not in str(caught.value)


def test_regions_as_targets_need_regions_that_are_unions_of_labels():
    with pytest.raises(VolumeError, match="name the regions and their labels"):
        LabelSet.from_config(LABELS, targets="regions")
    with pytest.raises(VolumeError, match="region 'whole' names an unknown label 'necrosis'"):
        LabelSet.from_config(LABELS, regions={"whole": ["necrosis"]}, targets="regions")
