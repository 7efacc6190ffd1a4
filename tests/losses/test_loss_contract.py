"""Every loss asked the same: copies, ignored voxels, an absent label, one voxel, a million voxels, bf16 logits."""

import math

import pytest
import torch
from monai.losses import FocalLoss

from segmed.labels import IGNORE
from segmed.losses.adversarial import (
    ADVERSARIAL,
    adversarial_loss,
    feature_l1,
    feature_matching_loss,
    segan_critic_loss,
    segan_generator_loss,
)
from segmed.losses.classification_loss import ClassificationLoss
from segmed.losses.segmentation_loss import LOSSES, segmentation_loss

WEIGHTS = (1.0, 2.0, 3.0)
SEGMENTATION = {name: {} for name in LOSSES} | {
    "dice_ce weighted": {"class_weights": WEIGHTS},
    "topk_ce weighted": {"class_weights": WEIGHTS},
    "dice_focal weighted": {"class_weights": WEIGHTS},
    "dice an image": {"batch": False},
    "generalised_dice an image": {"batch": False},
}
every = pytest.mark.parametrize("loss", SEGMENTATION, ids=str)


def built(name: str):
    return segmentation_loss(name.split()[0], **SEGMENTATION[name])


def case(voxels: int = 100, *, seed: int = 0):
    """Logits (1, 3, voxels) and labels (1, voxels): half background, a tenth label 1, the rest label 2."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(1, voxels, dtype=torch.uint8)
    labels[:, voxels // 2 :] = 2
    labels[:, -(voxels // 10) :] = 1
    return torch.randn((1, 3, voxels), generator=generator), labels


def certain(labels: torch.Tensor, classes: int = 3, *, logit: float = 40.0) -> torch.Tensor:
    """(B, *spatial) -> logits (B, C, *spatial) that say just this."""
    return logit * torch.nn.functional.one_hot(labels.long(), classes).movedim(-1, 1).float()


def value_and_gradient(loss, logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, torch.Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels)
    value.backward()
    assert logits.grad is not None
    return value.item(), logits.grad


@every
@pytest.mark.parametrize("copies", [10, 10_000])
def test_copies_of_the_same_voxels_change_neither_value_nor_gradient(loss, copies):
    """Of a hundred voxels and of a million."""
    logits, labels = case()
    value, gradient = value_and_gradient(built(loss), logits, labels)
    many, many_gradient = value_and_gradient(built(loss), logits.repeat(1, 1, copies), labels.repeat(1, copies))
    assert many == pytest.approx(value, rel=1e-4)
    together = many_gradient.double().reshape(3, copies, 100).sum(1)
    torch.testing.assert_close(together.float(), gradient[0], rtol=1e-3, atol=1e-6)


@every
def test_ignored_voxels_count_as_if_they_were_not_there(loss):
    logits, labels = case()
    labels[:, ::3] = IGNORE
    value, gradient = value_and_gradient(built(loss), logits, labels)
    seen = (labels != IGNORE)[0]
    alone, alone_gradient = value_and_gradient(built(loss), logits[..., seen], labels[:, seen])
    assert value == pytest.approx(alone, rel=1e-5)
    assert not gradient[..., ~seen].any()
    torch.testing.assert_close(gradient[..., seen], alone_gradient)


@every
@pytest.mark.parametrize("everything", [False, True], ids=["one label absent", "all labels absent"])
def test_an_absent_label_costs_where_it_is_predicted_and_nothing_where_it_is_not(loss, everything):
    _, labels = case(1000)
    labels = torch.where(labels == (labels if everything else 2), 0, labels)
    right, gradient = value_and_gradient(built(loss), certain(labels), labels)
    assert right == pytest.approx(0, abs=1e-4)
    assert gradient.isfinite().all()
    invented = labels.clone()
    invented[:, :100] = 2
    wrong, gradient = value_and_gradient(built(loss), certain(invented), labels)
    assert wrong > 0.05
    assert gradient.isfinite().all()


@every
@pytest.mark.parametrize("label", [0, 1, 2])
def test_one_voxel_is_enough(loss, label):
    labels = torch.full((1, 1), label)
    assert value_and_gradient(built(loss), certain(labels), labels)[0] == pytest.approx(0, abs=1e-4)
    value, gradient = value_and_gradient(built(loss), torch.zeros(1, 3, 1), labels)
    assert 0 < value < math.inf
    assert gradient.isfinite().all()
    assert gradient[0, label, 0] <= 0


@every
def test_among_a_million_voxels_background_everywhere_is_worse_than_a_guess_and_that_worse_than_the_truth(loss):
    _, labels = case(1_000_000)
    nothing = certain(torch.zeros_like(labels), logit=10.0)
    costs = [value_and_gradient(built(loss), x, labels) for x in (nothing, torch.zeros(1, 3, 1_000_000))]
    right = built(loss)(certain(labels, logit=10.0), labels).item()
    assert costs[0][0] > costs[1][0] > right >= 0
    assert right < 0.01
    assert all(gradient.isfinite().all() and gradient.any() for _, gradient in costs)


@every
def test_bf16_logits_give_the_value_of_the_same_numbers_in_fp32_and_a_finite_gradient(loss):
    logits, labels = case(10_000)
    rounded = (100 * logits).bfloat16()
    value, gradient = value_and_gradient(built(loss), rounded, labels)
    assert value == value_and_gradient(built(loss), rounded.float(), labels)[0]
    assert gradient.dtype == torch.bfloat16
    assert gradient.isfinite().all()


# ---------------------------------------------------------------- generalised Dice by its formula


@pytest.mark.parametrize("voxels", [10**2, 10**4, 10**6, 10**7])
def test_generalised_dice_is_its_formula_at_any_volume(voxels):
    """1 - 2 Σ w Σ p g / Σ w Σ (p + g) with w = 1 / V², in double precision, and its slope."""
    blocks = [voxels // 2, voxels // 2 - voxels // 10, voxels // 10]  # of background, label 2 and label 1
    labels = torch.cat([torch.full((n,), k, dtype=torch.uint8) for n, k in zip(blocks, (0, 2, 1), strict=True)])
    rows = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3]])  # probabilities in each block
    logits = torch.repeat_interleave(rows.log(), torch.tensor(blocks), dim=0).T[None].contiguous()
    value, gradient = value_and_gradient(segmentation_loss("generalised_dice"), logits, labels[None])

    exact = rows.double().log().requires_grad_()
    p, size = exact.softmax(1), torch.tensor(blocks, dtype=torch.float64)
    terms = [(own, size[own] ** -2.0, size @ p[:, label]) for own, label in ((2, 1), (1, 2))]
    overlap = sum(w * size[own] * p[own, label] for (own, w, _), label in zip(terms, (1, 2), strict=True))
    expected = 1 - 2 * overlap / sum(w * (predicted + size[own]) for own, w, predicted in terms)
    expected.backward()
    assert value == pytest.approx(expected.item(), abs=1e-6)
    ends = torch.tensor([0, blocks[0], blocks[0] + blocks[1]])
    slopes = gradient[0][:, ends].T.double() * size[:, None]
    torch.testing.assert_close(slopes, exact.grad, rtol=1e-3, atol=1e-6)


def test_generalised_dice_of_background_everywhere_is_one_at_a_million_voxels():
    labels = torch.ones(1, 880_000, dtype=torch.uint8)
    nothing = certain(torch.zeros_like(labels), 2)
    assert segmentation_loss("generalised_dice")(nothing, labels).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_focal_part_of_dice_focal_is_monais_softmax_focal_loss_times_the_classes(classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, classes, 6, 6, 6), generator=generator)
    labels = torch.randint(0, classes, (2, 6, 6, 6), generator=generator)
    monai = classes * FocalLoss(to_onehot_y=True, use_softmax=True)(logits, labels[:, None])
    focal = segmentation_loss("dice_focal")(logits, labels) - segmentation_loss("dice")(logits, labels)
    torch.testing.assert_close(focal, monai)


# ---------------------------------------------------------------- losses without labels of voxels

PAIRED = {name: adversarial_loss(name).discriminator for name in ADVERSARIAL} | {
    f"{name} for the generator": lambda real, fake, name=name: adversarial_loss(name).generator(fake)
    for name in ADVERSARIAL
}
FEATURES = {
    f.__name__: lambda real, fake, f=f: f([real], [fake])
    for f in (feature_l1, feature_matching_loss, segan_critic_loss, segan_generator_loss)
}
CLASSES = {
    "cross-entropy": ClassificationLoss(),
    "weighted": ClassificationLoss(class_weights=WEIGHTS, smoothing=0.1),
    "focal": ClassificationLoss(focal_gamma=2.0),
}


def decisions(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    real, fake = torch.randn((2, 2, 1, size), generator=torch.Generator().manual_seed(1))
    return real, fake


@pytest.mark.parametrize("loss", PAIRED | FEATURES, ids=str)
def test_copies_of_decisions_and_features_change_nothing_up_to_a_million_and_one_is_enough(loss):
    call = (PAIRED | FEATURES)[loss]
    real, fake = decisions(50)
    value = call(real, fake).item()
    assert call(real.repeat(1, 1, 10_000), fake.repeat(1, 1, 10_000)).item() == pytest.approx(value, rel=1e-4)
    assert math.isfinite(call(real[:1, :, :1], fake[:1, :, :1]).item())


@pytest.mark.parametrize("loss", PAIRED | FEATURES, ids=str)
def test_bf16_decisions_and_features_count_in_fp32(loss):
    call = (PAIRED | FEATURES)[loss]
    real, fake = (100 * side.bfloat16() for side in decisions(50))
    fake.requires_grad_()
    value = call(real, fake)
    assert value.dtype == torch.float32
    assert value.item() == call(real.float(), fake.float()).item()
    value.backward()
    assert fake.grad is not None
    assert fake.grad.isfinite().all()


@pytest.mark.parametrize("loss", CLASSES)
def test_copies_of_images_an_absent_class_one_image_and_bf16_change_nothing_in_classification(loss):
    call = CLASSES[loss]
    logits = torch.randn((4, 3), generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1, 1, 0])  # none of class 2
    value, gradient = value_and_gradient(call, logits, classes)
    assert gradient.isfinite().all()
    assert call(logits.repeat(250_000, 1), classes.repeat(250_000)).item() == pytest.approx(value, rel=1e-4)
    assert math.isfinite(call(logits[:1], classes[:1]).item())
    rounded = logits.bfloat16()
    assert call(rounded, classes).item() == call(rounded.float(), classes).item()
