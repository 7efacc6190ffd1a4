"""Losses of whole images: torch's where torch has them, the formula where it has not."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segmed.errors import NetworkError
from segmed.losses.classification_loss import ClassificationLoss

WEIGHTS = (0.5, 2.0, 1.0)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((7, 3), generator=generator), torch.randint(0, 3, (7,), generator=generator)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.9), st.booleans())
def test_it_is_torchs_cross_entropy(seed, smoothing, weighted):
    logits, target = batch(seed)
    weights = WEIGHTS if weighted else None
    ours = ClassificationLoss(class_weights=weights, smoothing=smoothing)(logits, target)
    theirs = F.cross_entropy(
        logits, target, weight=torch.tensor(WEIGHTS) if weighted else None, label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, theirs)


def test_classes_and_their_one_hot_shares_give_the_same():
    logits, target = batch()
    loss = ClassificationLoss(class_weights=WEIGHTS, smoothing=0.1, focal_gamma=2.0)
    torch.testing.assert_close(loss(logits, target), loss(logits, F.one_hot(target, 3)))


def test_the_loss_of_mixed_images_is_the_mix_of_their_losses():
    logits, target = batch()
    other, share = target.flip(0), 0.3
    mixed = share * F.one_hot(target, 3).float() + (1 - share) * F.one_hot(other, 3).float()
    loss = ClassificationLoss()
    torch.testing.assert_close(loss(logits, mixed), share * loss(logits, target) + (1 - share) * loss(logits, other))


def test_the_focal_loss_is_its_formula_and_makes_sure_images_count_less():
    logits, target = batch()
    probability = logits.softmax(1)[torch.arange(7), target]
    expected = (-((1 - probability) ** 2) * probability.log()).mean()
    torch.testing.assert_close(ClassificationLoss(focal_gamma=2.0)(logits, target), expected)
    sure = torch.tensor([[8.0, 0.0, 0.0]])
    assert ClassificationLoss(focal_gamma=2.0)(sure, torch.tensor([0])) < 1e-5 * ClassificationLoss()(
        sure, torch.tensor([0])
    )


def test_under_autocast_it_is_computed_in_full_precision():
    logits, target = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ClassificationLoss()(logits, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, F.cross_entropy(logits, target), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_weights": (1.0, 0.0)}, "above 0"),
        ({"smoothing": 1.0}, "0 to below 1"),
        ({"focal_gamma": -1.0}, "0 or more"),
    ],
)
def test_options_without_meaning_are_refused(options, words):
    with pytest.raises(NetworkError, match=words):
        ClassificationLoss(**options)


@pytest.mark.parametrize(
    ("logits", "target", "words"),
    [((4, 1), (4,), "at least 2 classes"), ((4, 3), (5,), "do not fit"), ((4, 4), (4,), "3 class weights for 4")],
)
def test_shapes_that_do_not_fit_are_refused(logits, target, words):
    with pytest.raises(NetworkError, match=words):
        ClassificationLoss(class_weights=WEIGHTS)(torch.zeros(logits), torch.zeros(target, dtype=torch.long))
