"""Losses: each against a value worked out by hand, and the contract that all keep."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import FocalLoss

from segmed.config import SegmentationConfig
from segmed.errors import NetworkError
from segmed.labels import IGNORE
from segmed.losses.segmentation_loss import LOSSES, DeepSupervisionLoss, SegmentationLoss, segmentation_loss

NAMES = list(LOSSES)
WITH_BATCH = ["dice", "dice_ce", "dice_focal", "tversky", "generalised_dice"]
WITH_WEIGHTS = ["dice_ce", "dice_focal", "topk_ce"]

# four voxels, two of label 1, whose probability is 0.8, 0.6 there and 0.4, 0.1 in the background
FOREGROUND = torch.tensor([[[0.8, 0.6], [0.4, 0.1]]])
LABELS = torch.tensor([[[1, 1], [0, 0]]])
DICE = 1 - 2 * 1.4 / (1.9 + 2)
CE = -(math.log(0.8) + math.log(0.6) + math.log(0.6) + math.log(0.9)) / 4
FOCAL = -(0.2**2 * math.log(0.8) + 2 * 0.4**2 * math.log(0.6) + 0.1**2 * math.log(0.9)) / 4


def logits_of(foreground: torch.Tensor) -> torch.Tensor:
    """(B, *spatial) probability of label 1 -> logits (B, 2, *spatial)."""
    return torch.stack([1 - foreground, foreground], dim=1).log()


def random_case(*, dims: int = 3, classes: int = 3, batch: int = 2, size: int = 6, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *[size] * dims)
    logits = torch.randn((batch, classes, *shape[1:]), generator=generator)
    return logits, torch.randint(0, classes, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dice", {}, DICE),
        ("dice_ce", {}, DICE + CE),
        ("dice_ce", {"ce_weight": 0.5}, DICE + 0.5 * CE),
        ("dice_ce", {"class_weights": (1.0, 3.0)}, DICE - (3 * math.log(0.48) + math.log(0.54)) / 8),
        ("dice_focal", {}, DICE + FOCAL),
        ("dice_focal", {"gamma": 0.0}, DICE + CE),
        ("tversky", {}, 1 - 1.4 / (1.4 + 0.3 * 0.5 + 0.7 * 0.6)),
        ("tversky", {"alpha": 0.5, "beta": 0.5}, DICE),
        ("generalised_dice", {}, DICE),
        ("topk_ce", {"fraction": 1.0}, CE),
        ("topk_ce", {"fraction": 0.5}, -math.log(0.6)),
        ("topk_ce", {"fraction": 0.25, "class_weights": (1.0, 3.0)}, -3 * math.log(0.6)),
    ],
)
def test_a_loss_has_the_value_worked_out_by_hand(name, options, expected):
    loss = segmentation_loss(name, **options)
    assert loss(logits_of(FOREGROUND), LABELS).item() == pytest.approx(expected, abs=2e-5)


def test_generalised_dice_weighs_labels_by_the_inverse_square_of_their_volume():
    probabilities = torch.tensor([[0.2, 0.2, 0.1, 0.7], [0.6, 0.1, 0.2, 0.1], [0.2, 0.7, 0.7, 0.2]])  # (class, voxel)
    labels = torch.tensor([[1, 2, 2, 0]])
    overlap = 1.0 * 0.6 + 0.25 * 1.4  # label 1 has one voxel, label 2 two
    volumes = 1.0 * (1.0 + 1) + 0.25 * (1.8 + 2)
    loss = segmentation_loss("generalised_dice")(probabilities.log()[None], labels)
    assert loss.item() == pytest.approx(1 - 2 * overlap / volumes, abs=2e-5)


def test_dice_is_the_mean_over_labels_without_background():
    probabilities = torch.tensor([[0.2, 0.2, 0.1, 0.7], [0.6, 0.1, 0.2, 0.1], [0.2, 0.7, 0.7, 0.2]])
    expected = 1 - (2 * 0.6 / (1.0 + 1) + 2 * 1.4 / (1.8 + 2)) / 2
    loss = segmentation_loss("dice")(probabilities.log()[None], torch.tensor([[1, 2, 2, 0]]))
    assert loss.item() == pytest.approx(expected, abs=2e-5)


def test_batch_sums_over_images_before_dividing():
    foreground = torch.stack([FOREGROUND[0], torch.full((2, 2), 0.1)])
    labels = torch.stack([LABELS[0], torch.zeros(2, 2, dtype=torch.long)])
    together = segmentation_loss("dice", batch=True)(logits_of(foreground), labels)
    assert together.item() == pytest.approx(1 - 2 * 1.4 / (1.9 + 0.4 + 2), abs=2e-5)
    apart = segmentation_loss("dice", batch=False)(logits_of(foreground), labels)
    assert apart.item() == pytest.approx((DICE + 1) / 2, abs=2e-5)  # an image without the label counts as a miss


@pytest.mark.parametrize("name", WITH_BATCH)
def test_without_batch_the_loss_is_the_mean_of_the_images_losses(name):
    logits, labels = random_case()
    loss = segmentation_loss(name, batch=False)
    single = [loss(logits[i : i + 1], labels[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(loss(logits, labels), torch.stack(single).mean())


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 5.0)])
def test_focal_equals_monai(weights):
    logits, labels = random_case()
    labels[:, :2] = IGNORE
    monai = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=1.5, weight=weights, ignore_index=IGNORE)
    ours = segmentation_loss("dice_focal", gamma=1.5, class_weights=weights)
    focal = ours(logits, labels) - segmentation_loss("dice")(logits, labels)
    torch.testing.assert_close(focal, monai(logits, labels[:, None]))


# ---------------------------------------------------------------- the contract of all losses


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_ignored_voxels_count_as_if_they_were_cut_away(name, dims):
    logits, labels = random_case(dims=dims)
    logits.requires_grad_()
    masked = labels.clone()
    masked[:, 4:] = IGNORE
    loss = segmentation_loss(name)
    value = loss(logits, masked)
    torch.testing.assert_close(value, loss(logits[:, :, :4], labels[:, :4]))
    value.backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, 4:] == 0).all()
    assert logits.grad[:, :, :4].abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in NAMES] + [(name, {"class_weights": (1.0, 2.0, 3.0)}) for name in WITH_WEIGHTS],
)
def test_a_batch_that_is_wholly_ignored_gives_zero_and_zero_gradients(name, options):
    logits, labels = random_case()
    logits.requires_grad_()
    value = segmentation_loss(name, **options)(logits, torch.full_like(labels, IGNORE))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", WITH_BATCH)
def test_one_wholly_ignored_image_of_a_batch_harms_nothing(name):
    logits, labels = random_case()
    labels[1] = IGNORE
    logits.requires_grad_()
    value = segmentation_loss(name, batch=True)(logits, labels)
    torch.testing.assert_close(value, segmentation_loss(name)(logits[:1], labels[:1]))
    value.backward()
    assert logits.grad is not None
    assert (logits.grad[1] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_prediction_costs_nothing(name):
    _, labels = random_case()
    logits = 40 * (torch.nn.functional.one_hot(labels.long(), 3).movedim(-1, 1).float() - 0.5)
    assert segmentation_loss(name)(logits, labels).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_lower_the_loss_and_are_finite_at_extreme_logits(name):
    logits, labels = random_case()
    loss = segmentation_loss(name)
    for scale in (1.0, 1e4):
        scaled = (logits * scale).requires_grad_()
        loss(scaled, labels).backward()
        assert scaled.grad is not None
        assert scaled.grad.isfinite().all()
    plain = logits.clone().requires_grad_()
    before = loss(plain, labels)
    before.backward()
    assert plain.grad is not None
    after = loss(plain.detach() - plain.grad / plain.grad.norm(), labels)
    assert after < before


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_a_finite_gradient_where_the_network_is_certain(gamma):
    logits, labels = random_case()
    certain = (logits.argmax(1, keepdim=True) == torch.arange(3).view(1, 3, 1, 1, 1)).float() * 1e3
    certain.requires_grad_()
    segmentation_loss("dice_focal", gamma=gamma)(certain, labels).backward()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_computed_in_fp32_under_autocast(name):
    logits, labels = random_case()
    loss = segmentation_loss(name)
    rounded = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(rounded, labels)
    assert value.dtype == torch.float32
    assert value.item() == loss(rounded.float(), labels).item()


@pytest.mark.parametrize("name", NAMES)
def test_label_type_and_memory_layout_change_nothing(name):
    logits, labels = random_case()
    loss = segmentation_loss(name)
    expected = loss(logits, labels)
    torch.testing.assert_close(loss(logits, labels.long()), expected)
    torch.testing.assert_close(loss(logits.contiguous(memory_format=torch.channels_last_3d), labels), expected)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
def test_a_loss_is_never_negative_and_swapping_images_or_voxels_keeps_it(name, seed, scale):
    logits, labels = random_case(dims=2, size=4, seed=seed)
    loss = segmentation_loss(name)
    value = loss(logits * scale, labels)
    assert value >= 0
    torch.testing.assert_close(loss((logits * scale).flip(0, 3), labels.flip(0, 2)), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_of_the_schema_builds_from_its_section(name):
    config = SegmentationConfig.model_validate({"loss": {"name": name}}).loss
    loss = segmentation_loss(**config.model_dump())
    assert isinstance(loss, SegmentationLoss)
    logits, labels = random_case()
    assert loss(logits, labels) == segmentation_loss(name)(logits, labels)


# ---------------------------------------------------------------- deep supervision


def test_deep_supervision_halves_the_weights_and_takes_the_nearest_labels():
    logits, labels = random_case(size=8)
    levels = [logits, logits[:, :, ::2, ::2, ::2].contiguous(), logits[:, :, ::4, ::4, ::4].contiguous()]
    loss = segmentation_loss("dice_ce")
    expected = (
        4 * loss(levels[0], labels)
        + 2 * loss(levels[1], labels[:, ::2, ::2, ::2])
        + 1 * loss(levels[2], labels[:, ::4, ::4, ::4])
    ) / 7
    torch.testing.assert_close(DeepSupervisionLoss(loss, 3)(levels, labels), expected)


def test_deep_supervision_of_one_level_is_the_loss():
    logits, labels = random_case()
    loss = segmentation_loss("dice_ce")
    assert DeepSupervisionLoss(loss, 1)([logits], labels) == loss(logits, labels)


def test_deep_supervision_follows_anisotropic_strides():
    logits, labels = random_case(dims=3, size=8)
    coarse = logits[:, :, ::4, ::2].contiguous()
    loss = segmentation_loss("topk_ce")
    expected = (2 * loss(logits, labels) + loss(coarse, labels[:, ::4, ::2])) / 3
    torch.testing.assert_close(DeepSupervisionLoss(loss, 2)([logits, coarse], labels), expected)


def test_deep_supervision_keeps_the_ignored_voxels():
    logits, labels = random_case(size=8)
    labels[:] = IGNORE
    loss = DeepSupervisionLoss(segmentation_loss("dice_ce"), 2)
    assert loss([logits, logits[:, :, ::2, ::2, ::2]], labels).item() == 0


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: segmentation_loss("dicee"), "no loss 'dicee': choose dice"),
        (lambda: segmentation_loss("dice", gamma=2.0), "loss 'dice': got an unexpected keyword argument 'gamma'"),
        (lambda: segmentation_loss("dice", class_weights=(1.0, 2.0)), "has no cross-entropy"),
        (lambda: segmentation_loss("topk_ce", fraction=0.0), "fraction 0.0"),
        (lambda: segmentation_loss("dice_focal", gamma=-1.0), "gamma -1.0"),
        (lambda: segmentation_loss("dice_ce", class_weights=(1.0, -2.0)), "from 0 on"),
        (lambda: DeepSupervisionLoss(segmentation_loss("dice"), 0), "at least 1"),
    ],
)
def test_a_loss_that_cannot_be_built_says_why_in_one_line(build, message):
    with pytest.raises(NetworkError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_class_weights_must_be_as_many_as_the_classes(name):
    logits, labels = random_case()
    with pytest.raises(NetworkError, match="2 class weights for 3 classes"):
        segmentation_loss(name, class_weights=(1.0, 2.0))(logits, labels)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit_are_named(name):
    logits, labels = random_case()
    loss = segmentation_loss(name)
    for wrong in ((logits, labels[:, None]), (logits, labels[:, 1:]), (logits[:, :1], labels)):
        with pytest.raises(NetworkError, match="do not fit"):
            loss(*wrong)


def test_deep_supervision_wants_one_map_of_logits_a_level():
    logits, labels = random_case()
    with pytest.raises(NetworkError, match="1 logits for 2 supervised levels"):
        DeepSupervisionLoss(segmentation_loss("dice"), 2)([logits], labels)
