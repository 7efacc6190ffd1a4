"""The discriminator's accuracy over many steps: one warning when it has won, one when it is at chance."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_adversary import HALFWAY, batch_of, game

from segmed.training.balance import Balance

STEPS = 10


@pytest.fixture
def said(caplog):
    """Function that gives the warnings so far."""
    caplog.set_level(logging.WARNING, logger="segmed.training.balance")
    return lambda: [record.getMessage() for record in caplog.records]


def add(balance: Balance, accuracy: float, times: int) -> None:
    for _ in range(times):
        balance.add(torch.tensor(accuracy))


def test_a_discriminator_that_has_won_is_told_of_once_with_what_to_change(said):
    balance = Balance(STEPS)
    add(balance, 0.99, STEPS - 1)
    assert said() == [], "not before the window is full"
    add(balance, 0.99, 1)
    assert said() == [
        "the discriminator was right in 99.0 % of its decisions over 10 steps: it has won and its gradient teaches "
        "little: lower adversary.learning_rate or adversary.ratio, or choose another adversary.disguise"
    ]
    add(balance, 1.0, 5 * STEPS)
    assert len(said()) == 1


@pytest.mark.parametrize("accuracy", [0.485, 0.5, 0.515])
def test_a_discriminator_at_chance_is_told_of_once_with_what_to_change(said, accuracy):
    balance = Balance(STEPS)
    add(balance, accuracy, 3 * STEPS)
    (message,) = said()
    assert f"{100 * accuracy:.1f} % of its decisions over 10 steps: it is at chance" in message
    for name in ("adversary.learning_rate", "adversary.ratio", "channels", "adversary.weight"):
        assert name in message
    assert "\n" not in message


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.47, 0.53, 0.75, 0.97, 0.979])
def test_nothing_is_said_in_between(said, accuracy):
    add(Balance(STEPS), accuracy, 5 * STEPS)
    assert said() == []


def test_each_of_the_two_is_said_once(said):
    balance = Balance(STEPS)
    for accuracy in (1.0, 0.5, 0.75, 1.0, 0.5):
        add(balance, accuracy, STEPS)
    assert ["won" in message for message in said()] == [True, False]


def test_the_mean_counts_not_single_steps(said):
    balance = Balance(STEPS)
    for _ in range(5 * STEPS):
        add(balance, 1.0, 1)
        add(balance, 0.6, 1)
    assert said() == []


def test_a_window_begins_anew_after_it_was_full(said):
    balance = Balance(STEPS)
    add(balance, 0.7, STEPS)
    add(balance, 1.0, STEPS - 1)
    assert said() == []
    add(balance, 1.0, 1)
    assert len(said()) == 1


def test_only_the_leading_process_speaks(said):
    add(Balance(STEPS, speaks=False), 1.0, 3 * STEPS)
    assert said() == []


@given(st.lists(st.sampled_from([0.5, 0.75, 1.0]), min_size=6, max_size=12), st.integers(0, 36))
def test_a_resume_changes_nothing(accuracies, cut):
    stream = [accuracy for accuracy in accuracies for _ in range(3)]
    unbroken, first, second = (Balance(4) for _ in range(3))
    for accuracy in stream:
        unbroken.add(torch.tensor(accuracy))
    for accuracy in stream[:cut]:
        first.add(torch.tensor(accuracy))
    second.load_state_dict(first.state_dict())
    for accuracy in stream[cut:]:
        second.add(torch.tensor(accuracy))
    assert second.state_dict() == unbroken.state_dict()


def test_what_was_said_is_not_said_again_after_a_resume(said):
    first, second = Balance(STEPS), Balance(STEPS)
    add(first, 1.0, STEPS)
    second.load_state_dict(first.state_dict())
    add(second, 1.0, STEPS)
    assert len(said()) == 1


def test_a_state_is_not_changed_by_what_comes_after_it():
    balance = Balance(STEPS)
    add(balance, 1.0, 3)
    state = balance.state_dict()
    add(balance, 1.0, 3)
    assert (state["total"].item(), state["count"]) == (3.0, 3)


def test_a_step_watches_over_the_stated_steps_of_the_game_alone(said):
    step = game("image", watch_steps=3, warmup=0.4, weight=0)
    step.opponent.loss = Right(step.opponent.loss)
    for number in range(5):
        step.step(batch_of(seed=number), 0.1)
    for number in range(2):
        step.step(batch_of(seed=number), HALFWAY)
    assert said() == []
    step.step(batch_of(), HALFWAY)
    assert len(said()) == 1
    assert "over 3 steps: it has won" in said()[0]


class Right:
    """A loss by which every decision is right."""

    def __init__(self, loss) -> None:
        self.loss = loss

    def __getattr__(self, name):
        return getattr(self.loss, name)

    def accuracy(self, real, fake):
        return torch.ones(())


def test_a_critic_without_accuracy_is_never_judged(said):
    step = game("segan", watch_steps=1)
    for number in range(3):
        step.step(batch_of(seed=number), HALFWAY)
    assert said() == []
