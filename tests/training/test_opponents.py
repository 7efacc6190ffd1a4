"""Both sides' losses: figures by name, penalties, what is shown, and what images without labels teach."""

import copy

import pytest
import torch
import torch.nn.functional as F
from small_adversary import (
    DISGUISES,
    HALFWAY,
    LOSSES,
    Formula,
    Voxelwise,
    batch_of,
    distance,
    every_decider,
    every_dims,
    every_kind,
    game,
    gradients,
    gradients_in,
    make_discriminator,
)
from small_networks import make_net
from tiny_run import tiny_train

from segmed.labels import IGNORE
from segmed.losses.adversarial import adversarial_loss, gradient_penalty, r1_penalty, segan_critic_loss
from segmed.training.precision import Choice

ALONE = {"loss", "loss/segmentation", "gradient_norm", "gradient_norm/segmentation"}
PLAYING = ALONE | {"loss/adversarial", "gradient_norm/adversarial"}
LEARNING = {"loss/discriminator", "discriminator/gradient_norm"}
DECIDING = LEARNING | {"discriminator/real", "discriminator/fake", "discriminator/accuracy"}


def exhibits_of(step, batch) -> list:
    """What the discriminator is shown in one step."""
    shown, learn = [], step.opponent.discriminator_losses

    def watched(exhibit):
        shown.append(exhibit)
        return learn(exhibit)

    step.opponent.discriminator_losses = watched
    step.step(batch, HALFWAY)
    return shown


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("patch", {"warmup": 0.6}, ALONE),
        ("segan", {"warmup": 0.6}, ALONE),
        ("pixel", {}, PLAYING | DECIDING),
        ("image", {"ratio": 3}, PLAYING | DECIDING),
        ("patch", {"ratio": 0.5}, PLAYING),
        ("patch", {"ratio": 0.5, "disguise": "noise"}, PLAYING | {"discriminator/noise_sd"}),
        ("patch", {"disguise": "noise"}, PLAYING | DECIDING | {"discriminator/noise_sd"}),
        ("patch", {"r1": 1}, PLAYING | DECIDING | {"loss/r1"}),
        ("patch", {"loss": "wasserstein"}, PLAYING | DECIDING | {"loss/gradient_penalty"}),
        ("patch", {"loss": "wasserstein", "gradient_penalty": 0}, PLAYING | DECIDING),
        ("patch", {"feature_matching": 1}, PLAYING | DECIDING | {"loss/feature_matching"}),
        ("segan", {}, PLAYING | LEARNING | {"discriminator/distance"}),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_figures_are_reported_when_there_is_something_to_report(kind, settings, expected, accumulate):
    step = game(kind, train=tiny_train(accumulate=accumulate), **settings)
    figures = step.step(batch_of(), HALFWAY)
    assert set(figures) == expected
    assert all(value.shape == () and not value.requires_grad and value.isfinite() for value in figures.values())


@pytest.mark.parametrize("kind", ["patch", "segan"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loss_is_the_weighted_sum_of_its_parts(kind, accumulate):
    weights = {"segmentation_weight": 0.5, "weight": 3.0, "feature_matching": 0.0 if kind == "segan" else 2.0}
    step = game(kind, train=tiny_train(accumulate=accumulate), **weights)
    figures = step.step(batch_of(batch=3), HALFWAY)
    expected = 0.5 * figures["loss/segmentation"] + 3 * figures["loss/adversarial"]
    expected += 2 * figures.get("loss/feature_matching", torch.tensor(0.0))
    torch.testing.assert_close(figures["loss"], expected)


def test_the_noise_that_is_reported_fades():
    step = game(disguise={"name": "noise", "sd": 2.0, "until": 0.8})
    noise_sds = [step.step(batch_of(), progress)["discriminator/noise_sd"].item() for progress in (0.0, 0.4, 0.9)]
    assert noise_sds == pytest.approx([2.0, 1.0, 0.0])


@pytest.mark.parametrize(("loss", "scale"), [("non_saturating", torch.sigmoid), ("wasserstein", torch.clone)])
def test_mean_answers_and_accuracy_are_those_of_a_known_discriminator(loss, scale):
    step = game(  # references: 2; results, whatever they are: -1
        discriminator=Formula(lambda image, maps: torch.tensor([2.0, 2.0, -1.0, -1.0])[-len(maps) :, None, None, None]),
        loss=loss,
        gradient_penalty=0,
        weight=0,
        network=Voxelwise(),
    )
    step.opponent.generator_losses = lambda exhibit: {"adversarial": exhibit.fake.sum()}
    figures = step.step(batch_of(), HALFWAY)
    assert figures["discriminator/real"].item() == pytest.approx(scale(torch.tensor(2.0)).item())
    assert figures["discriminator/fake"].item() == pytest.approx(scale(torch.tensor(-1.0)).item())
    assert figures["discriminator/accuracy"].item() == 1


# ---------------------------------------------------------------- the discriminator's gradient


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *(("patch", {"loss": name, "gradient_penalty": 0}) for name in LOSSES),
        ("patch", {"smoothing": 0.1}),
        ("pixel", {"r1": 3.0}),
        ("image", {"loss": "hinge", "gradient_penalty": 2.0}),
        ("patch", {"loss": "wasserstein"}),
        ("segan", {}),
    ],
)
def test_the_discriminator_s_gradient_is_that_of_its_loss_and_penalties(kind, settings, accumulate):
    step = game(kind, train=tiny_train(accumulate=accumulate), **settings)
    network = copy.deepcopy(step.opponent.learner.network.eval())  # spectral norm stands still
    exhibits = []
    learn = step.opponent.discriminator_losses
    step.opponent.discriminator_losses = lambda exhibit: (exhibits.append(exhibit), learn(exhibit))[1]
    torch.manual_seed(4)
    own_gradients = gradients_in(step, "discriminator", batch_of(batch=3))
    torch.manual_seed(4)
    for exhibit in exhibits:
        real, fake = network(exhibit.image, exhibit.real), network(exhibit.image, exhibit.fake)
        if kind == "segan":
            loss = segan_critic_loss(real, fake)
        else:
            name = settings.get("loss", "non_saturating")
            options = {"smoothing": settings["smoothing"]} if "smoothing" in settings else {}
            loss = adversarial_loss(name, **options).discriminator(real.decision, fake.decision)

        def decide(maps, image=exhibit.image):
            return network(image, maps).decision

        weight = settings.get("gradient_penalty", 10 if settings.get("loss") == "wasserstein" else 0)
        if weight:
            loss = loss + weight * gradient_penalty(decide, exhibit.real, exhibit.fake)
        if "r1" in settings:
            loss = loss + settings["r1"] * r1_penalty(decide, exhibit.real)
        (loss * len(exhibit.image) / 3).backward()
    assert distance(own_gradients, gradients(network)) <= 2e-6


@pytest.mark.parametrize("penalty", ["r1", "gradient_penalty"])
@every_dims
@every_decider
def test_a_penalty_changes_the_discriminator_s_gradient(kind, dims, penalty):
    own_gradients = [gradients_in(game(kind, dims, **{penalty: w}), "discriminator", batch_of(dims)) for w in (0, 10)]
    assert distance(*own_gradients) > 1e-4


@every_dims
@every_decider
def test_feature_matching_changes_the_generator_s_gradient(kind, dims):
    own_gradients = [gradients_in(game(kind, dims, feature_matching=w), "generator", batch_of(dims)) for w in (0, 10)]
    assert distance(*own_gradients) > 1e-3


# ---------------------------------------------------------------- what is shown


@every_dims
@pytest.mark.parametrize("disguise", DISGUISES)
def test_voxels_that_nobody_annotated_are_empty_in_both_maps(disguise, dims):
    batch = batch_of(dims)
    (exhibit,) = exhibits_of(game(dims=dims, disguise=disguise), batch)
    unknown = (batch["label"] == IGNORE)[:, None].expand(exhibit.fake.shape)
    assert unknown.any()
    assert not exhibit.fake[unknown].any()
    assert not exhibit.real[unknown].any()
    assert exhibit.fake[~unknown].any()
    assert exhibit.real[~unknown].any()


def test_where_nothing_is_annotated_the_two_maps_are_the_same_and_teach_the_generator_nothing():
    batch = batch_of()
    batch["label"].fill_(IGNORE)
    step = game(segmentation_weight=0)
    (exhibit,) = exhibits_of(step, batch)
    assert torch.equal(exhibit.fake, exhibit.real)
    assert not any(each.any() for each in gradients_in(step, "generator", batch).values())


@every_dims
@every_kind
def test_bf16_in_channels_last_learns_like_fp32(kind, dims):
    norms = {"gradient_norm", "gradient_norm/segmentation", "gradient_norm/adversarial", "discriminator/gradient_norm"}
    settings = {} if kind == "segan" else {"feature_matching": 1, "r1": 1, "gradient_penalty": 1}
    batch = batch_of(dims, size=12, unlabelled=0 if kind == "segan" else 2)
    exact, rounded = (
        (step := game(kind, dims, choice=choice, **settings), step_seeded(step, batch))
        for choice in (Choice(), Choice("bf16", "channels_last"))
    )
    for name in norms:
        torch.testing.assert_close(rounded[1][name], exact[1][name], rtol=0.1, atol=1e-3, msg=name)
    for step, _ in (exact, rounded):
        sides = (step.network, step.opponent.learner.network)
        assert all(w.dtype == torch.float32 and w.isfinite().all() for side in sides for w in side.parameters())


def step_seeded(step, batch) -> dict:
    torch.manual_seed(0)
    return step.step(batch, HALFWAY)


# ---------------------------------------------------------------- images without labels


def trusting(**unlabelled):
    """A game whose discriminator is certain where the image's first channel is above 0."""
    settings = {"weight": 0.0, "pseudo_weight": 1.0, "confidence": 0.5, "start": 0.0, **unlabelled}
    return game(
        network=Voxelwise(),
        discriminator=Formula(lambda image, maps: 5 * image[:, :1] + 0 * maps[:, :1]),
        segmentation_weight=0,
        weight=0,
        unlabelled=settings,
    )


def test_own_labels_teach_where_the_discriminator_is_confident_and_nowhere_else():
    step = trusting(pseudo_weight=0.3)
    batch = batch_of(unlabelled=2)
    network, image = copy.deepcopy(step.network), batch["unlabelled"]
    trusted = image[:, 0] > 0
    logits = network(image)
    expected = F.cross_entropy(logits, logits.argmax(1), reduction="none")[trusted].mean()
    (0.3 * expected).backward()
    own_gradients = gradients_in(step, "generator", batch)
    assert distance(own_gradients, gradients(network)) <= 1e-6
    figures = trusting(pseudo_weight=0.3).step(batch, HALFWAY)
    torch.testing.assert_close(figures["loss/own_labels"], expected.detach())
    assert figures["unlabelled/trusted"].item() == pytest.approx(trusted.float().mean().item())
    torch.testing.assert_close(figures["loss"], 0.3 * expected.detach())


def test_own_labels_of_which_none_is_trusted_are_a_loss_of_0_without_a_gradient():
    batch = batch_of(unlabelled=2)
    batch["unlabelled"][:, 0] = -1
    step = trusting()
    assert not any(each.any() for each in gradients_in(step, "generator", batch).values())
    figures = trusting().step(batch, HALFWAY)
    assert figures["loss/own_labels"] == figures["unlabelled/trusted"] == 0


def test_own_labels_count_from_their_start_on():
    step = trusting(start=0.6)
    early, late = (step.step(batch_of(unlabelled=2), progress) for progress in (0.5, 0.6))
    assert "loss/adversarial_unlabelled" in early
    assert "loss/own_labels" not in early
    assert "loss/own_labels" in late


@every_dims
@every_decider
def test_the_discriminator_does_not_learn_from_images_without_labels(kind, dims):
    own_gradients = []
    for unlabelled in (0, 2):
        # spectral norm would go on by an iteration in between
        discriminator = make_discriminator(kind, dims, spectral_norm=False)
        step = game(kind, dims, discriminator=discriminator)
        own_gradients.append(gradients_in(step, "discriminator", batch_of(dims, unlabelled=unlabelled)))
    assert distance(*own_gradients) <= 1e-6


@every_decider
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_adversarial_loss_on_images_without_labels_has_its_own_weight(kind, accumulate):
    batch = batch_of(batch=4, unlabelled=4)
    train = tiny_train(accumulate=accumulate)
    settings = {"segmentation_weight": 0, "weight": 0, "unlabelled": {"weight": 0.2, "start": 1.0}}
    step = game(kind, network=make_net(dims=2), train=train, **settings)
    discriminator = step.opponent.learner.network.eval()
    network = copy.deepcopy(step.network)
    soft = network.all_logits(batch["unlabelled"])[0].softmax(1)
    shown = F.one_hot(soft.argmax(1), 3).movedim(-1, 1) + soft - soft.detach()
    (0.2 * F.softplus(-discriminator(batch["unlabelled"], shown).decision).mean()).backward()
    expected = gradients(network)
    own_gradients = gradients_in(step, "generator", batch)
    assert distance({name: own_gradients[name] for name in expected}, expected) <= 1e-5


@pytest.mark.parametrize(("accumulate", "unlabelled"), [(2, 1), (2, 3), (3, 2), (1, 5)])
def test_any_number_of_images_without_labels_weighs_the_same(accumulate, unlabelled):
    settings = {"weight": 0, "segmentation_weight": 0, "unlabelled": {"weight": 1.0, "start": 1.0}}
    own_gradients = []
    for pieces in (accumulate, 1):
        step = game(train=tiny_train(accumulate=pieces), **settings)
        step.opponent.learner.network.eval()
        own_gradients.append(gradients_in(step, "generator", batch_of(batch=4, unlabelled=unlabelled)))
    assert distance(*own_gradients) <= 1e-5


@pytest.mark.parametrize(("kind", "loss"), [("segan", "segan_l1"), ("patch", "wasserstein")])
def test_an_adversary_without_confidence_refuses_images_without_labels_in_one_line(kind, loss):
    with pytest.raises(ValueError, match=r"unlabelled cases need|gives no probability: choose") as error:
        game(kind, loss=loss).step(batch_of(unlabelled=2), HALFWAY)
    assert "\n" not in str(error.value)


@every_kind
def test_images_without_labels_wait_for_the_end_of_the_warm_up(kind):
    batch = batch_of(unlabelled=2)
    alone = {name: batch[name] for name in ("image", "label")}
    own_gradients = [gradients_in(game(kind, warmup=0.6), "generator", each) for each in (batch, alone)]
    assert distance(*own_gradients) == 0
