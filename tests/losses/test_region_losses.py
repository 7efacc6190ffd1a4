"""Losses of regions: MONAI's with a sigmoid where it has them, by hand where not; ignored voxels; refusals."""

import math

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, FocalLoss, TverskyLoss

from segmed.builders.losses import build_loss
from segmed.config import DiceCELossConfig
from segmed.errors import NetworkError
from segmed.labels import IGNORE, LabelSet
from segmed.losses.region_loss import REGION_LOSSES, region_loss
from segmed.targets import targets_of

LABELS = LabelSet.from_config(
    {"wall": 1, "blood": 2, "scar": 3},
    regions={"lv": ["wall", "blood", "scar"], "lv_wall": ["wall", "scar"]},
    targets=("lv", "lv_wall", "scar"),
)
TARGETS = targets_of(LABELS)
every_loss = pytest.mark.parametrize("name", REGION_LOSSES)


def batch(*, ignored: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 3, 5, 6, 7) and labels (2, 5, 6, 7)."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (2, 5, 6, 7), generator=generator, dtype=torch.uint8)
    if ignored:
        labels[:, 2:] = IGNORE
    return torch.randn(2, 3, 5, 6, 7, generator=generator), labels


@pytest.mark.parametrize("over_batch", [True, False])
def test_dice_and_tversky_are_monais_with_a_sigmoid(over_batch):
    logits, labels = batch()
    maps = TARGETS.maps(labels)
    dice = DiceLoss(sigmoid=True, batch=over_batch)(logits, maps)
    torch.testing.assert_close(region_loss("dice", TARGETS, batch=over_batch)(logits, labels), dice)
    tversky = TverskyLoss(sigmoid=True, batch=over_batch, alpha=0.2, beta=0.8)(logits, maps)
    ours = region_loss("tversky", TARGETS, batch=over_batch, alpha=0.2, beta=0.8)(logits, labels)
    torch.testing.assert_close(ours, tversky)


def test_dice_of_one_voxel_is_that_of_hand():
    logits = torch.zeros(1, 3, 1, 1)  # every region with probability 0.5
    labels = torch.tensor([[[2]]], dtype=torch.uint8)  # blood: in lv alone
    lv = 1 - (2 * 0.5 + 1e-5) / (0.5 + 1 + 1e-5)
    others = 1 - 1e-5 / (0.5 + 1e-5)
    assert math.isclose(float(region_loss("dice", TARGETS)(logits, labels)), (lv + 2 * others) / 3, rel_tol=1e-5)


def test_cross_entropy_and_focal_are_those_of_each_region():
    logits, labels = batch()
    maps = TARGETS.maps(labels)
    dice = region_loss("dice", TARGETS)(logits, labels)
    entropy = F.binary_cross_entropy_with_logits(logits, maps)
    torch.testing.assert_close(region_loss("dice_ce", TARGETS, ce_weight=0.5)(logits, labels), dice + 0.5 * entropy)
    focal = FocalLoss(gamma=1.5)(logits, maps)
    torch.testing.assert_close(region_loss("dice_focal", TARGETS, gamma=1.5)(logits, labels), dice + focal)
    torch.testing.assert_close(region_loss("topk_ce", TARGETS, fraction=1.0)(logits, labels), entropy)
    assert region_loss("topk_ce", TARGETS, fraction=0.1)(logits, labels) > entropy


@every_loss
def test_ignored_voxels_change_neither_the_value_nor_a_gradient(name):
    logits, labels = batch(ignored=True)
    logits.requires_grad_()
    loss = region_loss(name, TARGETS)
    value = loss(logits, labels)
    torch.testing.assert_close(value, loss(logits[:, :, :2], labels[:, :2]))
    (slope,) = torch.autograd.grad(value, logits)
    assert slope[:, :, :2].any()
    assert not slope[:, :, 2:].any()
    assert abs(float(loss(logits.detach(), torch.full_like(labels, IGNORE)))) < 1e-5


@every_loss
def test_a_perfect_map_costs_almost_nothing_and_a_wrong_one_much(name):
    _, labels = batch()
    sure = 40 * (TARGETS.maps(labels) - 0.5)
    loss = region_loss(name, TARGETS)
    assert float(loss(sure, labels)) < 1e-4 < 0.5 < float(loss(-sure, labels))


def test_deep_supervision_sees_the_same_regions_at_every_level():
    _, labels = batch()
    network = type("Net", (), {"supervised_levels": 2, "members": 1})()
    loss = build_loss(DiceCELossConfig(), network, labels=LABELS)
    sure = 40 * (TARGETS.maps(labels) - 0.5)
    assert float(loss([sure, sure[:, :, ::2, ::2, ::7]], labels)) > 0
    small = labels[:, :4, :6, :6]
    coarse = small[:, ::2, ::2, ::2]
    levels = [40 * (TARGETS.maps(each) - 0.5) for each in (small, coarse)]
    assert float(loss(levels, small)) < 1e-4


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("generalised_dice", {}, "weighs labels that exclude each other, data.targets are regions: choose dice"),
        ("dice_ce", {"class_weights": (1.0, 2.0)}, "class_weights are of background and labels"),
    ],
)
def test_losses_without_a_meaning_for_regions_are_one_line(name, options, said):
    with pytest.raises(NetworkError, match=said):
        region_loss(name, TARGETS, **options)


def test_logits_of_another_number_of_regions_are_one_line():
    logits, labels = batch()
    with pytest.raises(NetworkError, match=r"give \(B, 3, \*spatial\), a channel a region"):
        region_loss("dice", TARGETS)(logits[:, :2], labels)
