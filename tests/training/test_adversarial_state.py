"""The state of both sides across a resume, what is refused, and what is shown of a batch."""

import copy

import pytest
import torch
from small_adversary import (
    HALFWAY,
    KINDS,
    batch_of,
    copy_of,
    every_decider,
    every_dims,
    every_kind,
    game,
    make_discriminator,
    same,
)
from small_networks import make_net
from tiny_run import TinyLoss, TinyNet, single, tiny_train
from torch import nn

from segmed.errors import RunError
from segmed.labels import IGNORE
from segmed.training.checkpoint import Checkpoints, set_random_state
from segmed.training.precision import Choice
from segmed.training.ranks import Ranks
from segmed.training.steps import SupervisedStep

# ---------------------------------------------------------------- resume


def lively(kind: str, **settings):
    """A game in 3D whose generator has dropout and, but with SegAN, batch normalisation."""
    torch.manual_seed(3)
    if kind == "segan":
        return game(kind, 3, network=make_net(dims=3, dropout=0.2), **settings)
    discriminator = make_discriminator(kind, 3, image_channels=1)
    return game(kind, network=TinyNet(), discriminator=discriminator, segmentation=TinyLoss(), **settings)


def batch_for(kind: str, number: int) -> dict:
    """With images without labels where the discriminator gives a confidence: not for SegAN, nor for wasserstein."""
    unlabelled = 2 if kind in ("pixel", "patch") else 0
    batch = batch_of(3, seed=number, channels=2 if kind == "segan" else 1, unlabelled=unlabelled)
    return {**batch, "label": batch["label"].clamp(max=2)}


GAMES = [
    ("pixel", {"loss": "hinge", "ratio": 2}),
    ("patch", {"r1": 1.0, "feature_matching": 1.0, "ratio": 0.5}),
    ("image", {"loss": "wasserstein", "optimiser": "sgd"}),
    ("segan", {"ratio": 0.5}),
]


@pytest.mark.parametrize("disguise", ["noise", "straight_through"])
@pytest.mark.parametrize(("kind", "settings"), GAMES)
def test_a_game_goes_on_from_its_checkpoint_to_the_bit(kind, settings, disguise, tmp_path):
    settings = {**settings, "disguise": disguise, "watch_steps": 4}
    batches = [batch_for(kind, number) for number in range(6)]
    train = tiny_train(accumulate=2)
    step, again = lively(kind, train=train, **settings), lively(kind, train=train, **settings)
    checkpoints = Checkpoints(tmp_path, ranks=Ranks())
    torch.manual_seed(5)
    for number, batch in enumerate(batches):
        if number == 3:
            checkpoints.save({"step": step.state_dict()})
        figures = step.step(batch, 0.3 + number / 10)
    saved = checkpoints.load()
    torch.manual_seed(77)
    again.step(batches[5], 0.9)  # of which nothing may be left
    again.load_state_dict(saved["step"])
    set_random_state(saved["random"][0])
    for number in (3, 4, 5):
        figures_again = again.step(batches[number], 0.3 + number / 10)
    assert same(figures_again, figures)
    assert same(again.state_dict(), step.state_dict())
    assert again.state_dict()["turns"] == 6
    assert again.rates == step.rates
    assert same(again.evaluation_network.state_dict(), step.evaluation_network.state_dict())


def test_a_state_holds_both_networks_both_optimisers_the_average_and_the_turns():
    state = game().state_dict()
    assert set(state) == {"method", "network", "optimiser", "average", "discriminator", "turns", "balance"}
    assert set(state["discriminator"]) == {"network", "optimiser"}


# ---------------------------------------------------------------- refusals


def supervised(dims: int = 2) -> SupervisedStep:
    return SupervisedStep(make_net(dims=dims), nn.Identity(), tiny_train(), fabric=single(), choice=Choice())


def refusal(step, state) -> str:
    with pytest.raises(RunError) as error:
        step.load_state_dict(state)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_supervised_checkpoint_has_no_discriminator_to_go_on_with():
    assert refusal(game(), supervised().state_dict()) == (
        "the checkpoint is of supervised training and holds no discriminator: start a new run, or go on without the "
        "adversary section"
    )


def test_supervised_training_does_not_go_on_from_an_adversarial_checkpoint():
    assert refusal(supervised(), game().state_dict()).startswith(
        "the checkpoint is of adversarial training, this run is supervised"
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "first"),
    [
        ("patch", "pixel", "blocks.0.conv.bias is missing there and (4,) here"),
        ("patch", "image", "head.parametrizations.weight.original is (1, 8, 1, 1) there and (1, 8) here"),
    ],
)
def test_a_checkpoint_with_another_discriminator_names_the_first_weight(theirs, ours, first):
    message = refusal(game(ours), game(theirs).state_dict())
    assert message.startswith(f"the checkpoint's discriminator holds another network: {first}")


def test_a_checkpoint_of_another_generator_names_the_first_weight():
    wide = make_net(dims=2, kind="anisotropic", blocks=3)
    assert refusal(game(), game(network=wide).state_dict()).startswith("the checkpoint holds another network: ")


def test_a_network_of_one_class_is_refused_in_one_line():
    network = TinyNet()
    network.out_channels = 1
    with pytest.raises(ValueError, match="needs a network with a multi-class output, TinyNet gives 1: use") as error:
        game(network=network, segmentation=TinyLoss())
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- what is shown of a batch


@every_dims
@every_decider
def test_views_are_the_result_and_where_the_discriminator_believes(kind, dims):
    step = game(kind, dims)
    views = step.views(batch_of(dims, batch=3))
    assert list(views) == ["result", "D(reference)", "D(result)"]
    assert all(view.shape == (3, *[8] * dims) and view.device.type == "cpu" for view in views.values())
    assert views["result"].dtype == torch.uint8
    for name in ("D(reference)", "D(result)"):
        assert views[name].is_floating_point()
        assert 0 <= views[name].min() <= views[name].max() <= 1


@pytest.mark.parametrize(("kind", "loss"), [("segan", "segan_l1"), ("patch", "wasserstein")])
def test_an_adversary_without_confidence_shows_the_result_alone(kind, loss):
    assert list(game(kind, loss=loss).views(batch_of())) == ["result"]


def test_views_are_of_four_patches_at_most_and_by_the_averaged_network():
    step = game()
    for number in range(3):
        step.step(batch_of(seed=number), HALFWAY)
    batch = batch_of(batch=6)
    views = step.views(batch)
    assert {len(view) for view in views.values()} == {4}
    with torch.no_grad():
        expected = step.evaluation_network.eval()(batch["image"][:4]).argmax(1)
    assert torch.equal(views["result"].long(), expected)


def test_a_view_of_the_discriminator_is_its_probability_on_the_patch():
    step = game("pixel", disguise="none")
    batch = batch_of()
    views = step.views(batch)
    network = copy.deepcopy(step.opponent.learner.network).eval()
    reference = nn.functional.one_hot(batch["label"].long() % IGNORE, 3).movedim(-1, 1)
    shown = reference * (batch["label"] != IGNORE)[:, None]
    with torch.no_grad():
        expected = network(batch["image"], shown.float()).decision.sigmoid()[:, 0]
    torch.testing.assert_close(views["D(reference)"], expected)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("disguise", ["noise", "straight_through"])
@every_kind
def test_looking_changes_nothing(kind, disguise, ema):
    step = game(kind, network=make_net(dims=2, dropout=0.2), disguise=disguise, train=tiny_train(ema=ema))
    step.step(batch_of(), HALFWAY)
    sides = [step.network, step.evaluation_network, step.opponent.learner.network]
    state, modes = copy_of(step.state_dict()), [[each.training for each in side.modules()] for side in sides]
    random = torch.get_rng_state()
    step.views(batch_of(seed=1))
    assert torch.equal(torch.get_rng_state(), random)
    assert same(step.state_dict(), state)
    assert [[each.training for each in side.modules()] for side in sides] == modes


@pytest.mark.parametrize("kind", KINDS)
def test_modes_are_back_after_a_look_that_failed(kind):
    step = game(kind, train=tiny_train(ema=0))
    with pytest.raises(ValueError, match="does not fit"):
        step.views({"image": torch.zeros(1, 5, 8, 8), "label": torch.zeros(1, 8, 8, dtype=torch.uint8)})
    assert step.network.training
    assert step.opponent.learner.network.training
