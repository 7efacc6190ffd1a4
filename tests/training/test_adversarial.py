"""The adversarial step: whose weights move when, by which gradients, and what is reported."""

import copy

import pytest
import torch
from small_adversary import (
    HALFWAY,
    KINDS,
    LOSSES,
    Certain,
    Formula,
    at_advance,
    batch_of,
    copy_of,
    distance,
    every_dims,
    every_kind,
    game,
    gradients,
    gradients_in,
    make_loss,
    same,
)
from small_discriminators import CLASSES
from small_networks import make_net
from tiny_run import single, tiny_train
from torch import nn

from segmed.losses.adversarial import adversarial_loss, feature_matching_loss, segan_generator_loss
from segmed.losses.segmentation_loss import CrossEntropy
from segmed.networks.discriminators import ImageDiscriminator, PatchDiscriminator, PixelDiscriminator
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.targets import LabelTargets
from segmed.training.disguise import disguise, reference_maps
from segmed.training.precision import Choice
from segmed.training.steps import SupervisedStep

GAMES = [*((kind, loss) for kind in KINDS[:3] for loss in LOSSES), ("segan", "segan_l1")]
every_game = pytest.mark.parametrize(("kind", "loss"), GAMES)
every_accumulation = pytest.mark.parametrize("accumulate", [1, 2])


def learned_steps(step) -> int:
    """Steps of the discriminator's optimiser."""
    return max((int(each["step"]) for each in step.opponent.learner.optimiser.state.values()), default=0)


# ---------------------------------------------------------------- who moves


@every_dims
@every_game
def test_both_sides_learn_in_one_step(kind, loss, dims):
    step = game(kind, dims, loss=loss)
    before = [copy_of(dict(side.named_parameters())) for side in (step.network, step.opponent.learner.network)]
    step.step(batch_of(dims), HALFWAY)
    for was, side in zip(before, (step.network, step.opponent.learner.network), strict=True):
        for name, weight in side.named_parameters():
            # the loss of wasserstein, and that of hinge within its margins, is the same for all decisions shifted alike
            still = name == "head.bias" and loss in ("wasserstein", "hinge") and side is not step.network
            assert torch.equal(weight, was[name]) == still, name


@every_dims
@every_kind
def test_before_the_warm_up_ends_nothing_of_the_discriminator_moves(kind, dims):
    step = game(kind, dims, warmup=0.5)
    before = copy_of(step.state_dict()["discriminator"])
    for number in range(2):
        step.step(batch_of(dims, seed=number), 0.4)
    assert same(step.state_dict()["discriminator"], before)
    step.step(batch_of(dims), 0.5)
    assert not same(step.state_dict()["discriminator"], before)


@every_dims
@every_accumulation
@pytest.mark.parametrize("choice", [Choice(), Choice("bf16", "channels_last")], ids=["fp32", "bf16"])
def test_before_the_warm_up_ends_the_generator_is_that_of_supervised_training_to_the_bit(dims, accumulate, choice):
    train = tiny_train(accumulate=accumulate)
    step = game(dims=dims, train=train, choice=choice, warmup=0.5)
    network = make_net(dims=dims)
    loss = make_loss(network.supervised_levels)
    supervised = SupervisedStep(network, loss, train, fabric=single(), choice=choice)
    for number in range(4):
        batch = batch_of(dims, batch=3, size=12, seed=number)
        figures, alone = (each.step(batch, 0.1 * number) for each in (step, supervised))
        assert figures["loss"] == alone["loss"]
        assert figures["gradient_norm"] == alone["gradient_norm"]
    ours, theirs = step.state_dict(), supervised.state_dict()
    assert all(same(ours[part], theirs[part]) for part in ("network", "optimiser", "average"))


@every_dims
@every_kind
def test_no_side_leaves_gradients_in_the_other(kind, dims):
    step = game(kind, dims)
    other = step.opponent.learner
    counts = []
    at_advance(step.generator, lambda: counts.append((len(gradients(step.network)), len(gradients(other.network)))))
    at_advance(other, lambda: counts.append((len(gradients(step.network)), len(gradients(other.network)))))
    step.step(batch_of(dims), HALFWAY)
    weights = [len(list(side.parameters())) for side in (step.network, other.network)]
    assert counts == [(weights[0], 0), (0, weights[1])]
    assert not gradients(step.network)
    assert not gradients(other.network)


def fail(*_) -> None:
    raise ArithmeticError


@every_kind
def test_the_discriminator_can_learn_again_after_the_generator_s_side_even_if_that_failed(kind):
    step = game(kind)
    network = step.opponent.learner.network
    fixed = next(network.parameters())
    fixed.requires_grad_(False)
    during = []
    handle = network.register_forward_hook(lambda *_: during.append(any(w.requires_grad for w in network.parameters())))
    failing = network.register_forward_hook(fail)
    with pytest.raises(ArithmeticError):
        step.step(batch_of(), HALFWAY)
    assert during == [False]
    free = [weight for weight in network.parameters() if weight.requires_grad]
    assert len(free) == len(list(network.parameters())) - 1
    handle.remove()
    failing.remove()
    step.step(batch_of(), HALFWAY)
    free = [weight for weight in network.parameters() if weight.requires_grad]
    assert len(free) == len(list(network.parameters())) - 1
    assert not fixed.requires_grad


@pytest.mark.parametrize("ratio", [0.5, 1, 3])
@every_accumulation
def test_the_generator_computes_each_patch_once_whatever_the_ratio(ratio, accumulate):
    step = game(ratio=ratio, train=tiny_train(accumulate=accumulate))
    computed = []
    step.network.encoder.register_forward_hook(lambda module, given, features: computed.append(len(given[0])))
    for number in range(2):
        step.step(batch_of(batch=4, unlabelled=2, seed=number), HALFWAY)
    assert len(computed) == 2 * accumulate
    assert sum(computed) == 2 * (4 + 2)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(1, [1, 2, 3, 4]), (2, [2, 4, 6, 8]), (3, [3, 6, 9, 12]), (0.5, [0, 1, 1, 2]), (1 / 3, [0, 0, 1, 1])],
)
def test_the_discriminator_takes_its_turns_across_a_resume(ratio, expected):
    step = game("pixel", ratio=ratio)
    steps_taken = []
    for number in range(4):
        if number == 2:
            again = game("pixel", ratio=ratio)
            again.load_state_dict(copy_of(step.state_dict()))
            step = again
        step.step(batch_of(seed=number), HALFWAY)
        steps_taken.append(learned_steps(step))
    assert steps_taken == expected


def test_turns_are_counted_from_the_end_of_the_warm_up():
    step = game("pixel", ratio=0.5, warmup=0.5)
    steps_taken = []
    for progress in (0.1, 0.5, 0.6):
        step.step(batch_of(), progress)
        steps_taken.append(learned_steps(step))
    assert steps_taken == [0, 0, 1]


# ---------------------------------------------------------------- the generator's gradient


def plain_gradients(network, discriminator, batch, *, loss, weights, accumulate):
    """By one autograd graph from the weighted sum to the weights, with nothing cut."""
    segmentation = make_loss(network.supervised_levels)
    images, labels = batch["image"].chunk(accumulate), batch["label"].chunk(accumulate)
    discriminator.requires_grad_(False)
    hidden = disguise("straight_through")
    for image, label in zip(images, labels, strict=True):
        logits = network.all_logits(image)
        reference, counted = reference_maps(label, LabelTargets(["wall", "scar"]))
        soft = logits[0].softmax(1)
        fake = discriminator(image, hidden.fake(soft, HALFWAY) * counted)
        real = discriminator(image, hidden.real(reference, soft, HALFWAY) * counted)
        total = weights[0] * segmentation(logits, label)
        if loss == "segan_l1":
            total = total + weights[1] * segan_generator_loss(real, fake)
        else:
            total = total + weights[1] * adversarial_loss(loss).generator(fake.decision)
            total = total + weights[2] * feature_matching_loss(real.features, fake.features)
        (total * (len(image) / len(batch["image"]))).backward()
    return gradients(network)


@pytest.mark.parametrize(("deep", "accumulate"), [(False, 1), (True, 2)], ids=["plain", "deep and accumulated"])
@every_game
def test_the_generator_s_gradient_is_that_of_the_weighted_sum(kind, loss, deep, accumulate):
    network = make_net(dims=2, deep_supervision=deep)
    train = tiny_train(accumulate=accumulate)
    weights = (0.7, 5.0, 0.0 if kind == "segan" else 2.0)
    names = ("segmentation_weight", "weight", "feature_matching")
    step = game(kind, network=network, train=train, loss=loss, **dict(zip(names, weights, strict=True)))
    step.opponent.learner.network.eval()  # spectral norm stands still, whose iteration goes on with each call
    networks = copy.deepcopy((step.network, step.opponent.learner.network))
    batch = batch_of(batch=3)
    expected = plain_gradients(*networks, batch, loss=loss, weights=weights, accumulate=accumulate)
    assert distance(gradients_in(step, "generator", batch), expected) <= 1e-6


def test_the_generator_s_gradient_in_3d_is_that_of_the_weighted_sum():
    step = game(dims=3, weight=5, feature_matching=2)
    step.opponent.learner.network.eval()
    networks = copy.deepcopy((step.network, step.opponent.learner.network))
    expected = plain_gradients(*networks, batch_of(3), loss="non_saturating", weights=(1, 5, 2), accumulate=1)
    assert distance(gradients_in(step, "generator", batch_of(3)), expected) <= 1e-6


class Undecided(nn.Module):
    """Equal probabilities of two classes everywhere."""

    out_channels = 2

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 2, 1, 1))

    def all_logits(self, image):
        return [self.logits + 0 * image]


class OneLevel(CrossEntropy):
    """Of the only level."""

    def forward(self, logits, labels):
        return super().forward(logits[0], labels)


@every_accumulation
def test_norms_at_the_logits_are_those_computed_by_hand(accumulate):
    # N = 2 * 4 * 4 voxels. Cross-entropy: (+-1/2) / N at both logits, norm sqrt(1 / 2N) = 1/8.
    # Decision 3 * p: 3 * (+-1/4) / N at both logits, norm 3/4 * sqrt(2 / N) = 3/16.
    step = game(
        network=Undecided(),
        discriminator=Formula(lambda image, maps: 3 * maps[:, 1:]),
        segmentation=OneLevel(),
        train=tiny_train(accumulate=accumulate),
        loss="wasserstein",
        gradient_penalty=0,
        segmentation_weight=2,
        weight=0.1,
    )
    label = (torch.arange(32).reshape(2, 4, 4) % 2).to(torch.uint8)
    figures = step.step({"image": torch.randn(2, 2, 4, 4), "label": label}, HALFWAY)
    assert figures["gradient_norm/segmentation"].item() == pytest.approx(2 / 8)
    assert figures["gradient_norm/adversarial"].item() == pytest.approx(0.1 * 3 / 16)


# ---------------------------------------------------------------- the trap


def knowing(kind: str, disguise: str):
    """A generator that knows every label, is as soft as 0.58 and does not learn; a discriminator that may."""
    torch.manual_seed(0)
    if kind == "pixel":
        discriminator = PixelDiscriminator(2 + CLASSES, (16, 16), classes=CLASSES, dims=2)
    else:
        encoder = PlainEncoder(2 + CLASSES, (16, 16), ((1, 1), (2, 2)), dims=2, blocks=1, norm="none")
        discriminator = {"patch": PatchDiscriminator, "image": ImageDiscriminator}[kind](encoder, classes=CLASSES)
    return game(
        kind,
        network=Certain(height=1.0),
        discriminator=discriminator,
        disguise=disguise,
        segmentation_weight=0,
        weight=0,
        learning_rate=0.01,
        train=tiny_train(schedule="constant"),
    )


def accuracies(step, steps: int) -> list[float]:
    """On batches whose first channel is the label."""
    values = []
    for seed in range(steps):
        label = torch.randint(0, CLASSES, (2, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        image = batch_of(seed=seed)["image"]
        image[:, 0] = label
        values.append(step.step({"image": image, "label": label}, HALFWAY)["discriminator/accuracy"].item())
    return values


@pytest.mark.parametrize("kind", KINDS[:3])
def test_no_discriminator_tells_perfect_maps_apart_behind_a_straight_through(kind):
    assert accuracies(knowing(kind, "straight_through"), 40) == [0.5] * 40


@pytest.mark.parametrize("kind", KINDS[:3])
def test_without_a_disguise_softness_alone_gives_perfect_maps_away(kind):
    by_step = accuracies(knowing(kind, "none"), 60)
    assert sum(by_step[:5]) / 5 < 0.6
    assert sum(by_step[-10:]) / 10 > 0.95
