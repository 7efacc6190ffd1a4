"""The learning rate that a short trial finds: where the loss falls fastest, without a trace on the run."""

import json

import numpy as np
import pytest
import torch
from tiny_classes import config_of, write_classes
from tiny_data import Lines, make_balls, tiny, trained
from tiny_run import TinyLoss, TinyNet, tiny_train
from torch import nn

from segmed.classify.run import run as classify
from segmed.runs import Run, read_class_config, read_config
from segmed.training.checkpoint import weights_of
from segmed.training.precision import Choice
from segmed.training.ranks import Ranks
from segmed.training.rate_search import FEWEST, STEPS, fastest_fall, find_rate, smoothed
from segmed.training.steps import AllLogits


def batches(accumulate=1):
    generator = torch.Generator().manual_seed(3)
    while True:
        image = torch.randn(2 * accumulate, 1, 8, 8, 8, generator=generator)
        yield {"image": image, "label": (image[:, 0] > 0).to(torch.uint8)}


def length(**fields):
    """A train section: ten times ten steps, if nothing else is said."""
    return tiny_train(**{"steps_per_epoch": 10, "epochs": 10, "learning_rate": "find", "optimiser": "adamw"} | fields)


def find(network=None, loss=None, train=None, stream=None, *, usual=1e-3, call=AllLogits, **given):
    train = train or length()
    return find_rate(
        network or TinyNet(), loss or TinyLoss(), stream or batches(train.accumulate), train, usual=usual,
        choice=Choice(), ranks=Ranks(), call=call, **given,
    )  # fmt: skip


def test_the_rate_is_where_a_known_curve_falls_fastest():
    rates = np.geomspace(3e-5, 3e-2, 61)
    losses = 1 - 1 / (1 + (2e-3 / rates) ** 4)  # steepest in log rate at 2e-3
    losses = [float(loss) for loss in losses]
    assert fastest_fall(rates, losses) == pytest.approx(2e-3, rel=0.6)  # smoothing looks back a few steps


class Falling(nn.Module):
    """A loss that is known step by step, whatever the network says."""

    def __init__(self, losses):
        super().__init__()
        self.losses = iter(losses)

    def forward(self, levels, labels):
        return levels[0].mean() * 0 + next(self.losses)


@pytest.mark.parametrize("shift", [0.0, -10.0])  # a loss may be negative
@pytest.mark.parametrize(
    ("step", "rate", "said"),
    [
        (2, 2.5e-4, "falls fastest at 3.8e-05, in 60 steps from 3e-05 to 0.03; taken is 0.25 times the usual peak"),
        (30, 1e-3, "falls fastest here, in 60 steps from 3e-05 to 0.03"),
        (58, 4e-3, "falls fastest at 0.027, in 60 steps from 3e-05 to 0.03; taken is 4 times the usual peak"),
    ],
)
def test_what_is_found_stays_within_a_quarter_and_four_times_of_the_usual_peak(step, rate, said, shift):
    peak = find(loss=Falling([shift + (1.0 if number < step else 0.9) for number in range(STEPS)]))
    assert peak.rate == rate
    assert peak.reason == f"found: the loss {said}"


@pytest.mark.parametrize("usual", [4e-3, 1e-2])
def test_the_trial_lies_around_the_rate_that_auto_would_give(usual):
    peak = find(loss=Falling([1.0 if number < 30 else 0.9 for number in range(STEPS)]), usual=usual)
    assert peak.rate == pytest.approx(usual, rel=0.05)
    assert f"from {0.03 * usual:.2g} to {30 * usual:.2g}" in peak.reason


def test_a_smoothed_constant_is_that_constant_from_its_first_step_on():
    assert smoothed([2.5] * 7) == pytest.approx([2.5] * 7)


def test_the_same_run_finds_the_same_rate_and_keeps_weights_and_random_state():
    torch.manual_seed(0)
    network = TinyNet()
    before, state = {k: v.clone() for k, v in weights_of(network).items()}, torch.get_rng_state()
    first, second = find(network), find(network)
    assert first.rate == second.rate
    assert 2.5e-4 <= first.rate <= 4e-3
    assert f"in {STEPS} steps from 3e-05 to 0.03" in first.reason
    assert first.seconds > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(network).items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_can_only_learn_slowly_gets_a_lower_rate():
    class Steep(nn.Module):
        """Its logits hang on one weight, a thousand times over, so that larger steps overshoot."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, image):
            return [1000 * (self.weight - 2e-3) + 0 * image[:, :1]]

    class Square(nn.Module):
        def forward(self, levels, label):
            return levels[0].square().mean()

    peak = find(Steep(), Square(), call=lambda network: network)
    assert peak.rate == pytest.approx(3e-4, rel=0.5)
    assert "60 steps" not in peak.reason  # the loss rose again: the trial ended


class Breaking(nn.Module):
    """A loss that is not finite from some call on."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def forward(self, logits, labels):
        self.left -= 1
        loss = TinyLoss()(logits, labels)
        return loss if self.left >= 0 else loss * float("nan")


def test_a_loss_that_is_not_finite_ends_the_trial_and_does_not_choose_its_own_rate():
    torch.manual_seed(0)
    early = find(loss=Breaking(20))  # after 20 steps the rate is 2.8e-4
    assert early.rate == pytest.approx(2.5e-4, rel=0.2)
    assert "in 20 steps from 3e-05 to 0.00028" in early.reason


@pytest.mark.parametrize("number", [0, 4, 19])
def test_a_loss_that_is_soon_not_finite_gives_the_usual_peak(number):
    peak = find(loss=Breaking(number), usual=4e-3)
    assert peak.rate == 4e-3
    assert peak.reason == (
        f"usual peak: the loss was finite in {number} of the 20 steps that a trial needs: look at the data, or give "
        "a lower rate"
    )


def test_a_run_shorter_than_the_trial_still_tries_the_whole_range():
    short = find(train=length(epochs=4, steps_per_epoch=6))
    assert "in 24 steps from 3e-05 to 0.03" in short.reason


def test_a_run_of_too_few_steps_makes_none_and_gets_the_usual_peak():
    def none():
        yield pytest.fail("a batch was drawn")

    peak = find(train=length(epochs=1, steps_per_epoch=FEWEST - 1), stream=none(), usual=4e-3)
    assert peak.rate == 4e-3
    assert peak.reason == "usual peak: the run has 19 of the 20 steps that a trial needs: train longer, or give a rate"


class Clock:
    """Goes on by the seconds of each batch that is drawn."""

    def __init__(self, *seconds):
        self.now, self.seconds = 0.0, seconds

    def __call__(self):
        return self.now

    def batches(self):
        for number, batch in enumerate(batches()):
            self.now += self.seconds[min(number, len(self.seconds) - 1)]
            yield batch


def find_in_a_minute(*seconds):
    """In 5 % of a minute, with the seconds of each step; the last ones go on for ever."""
    clock = Clock(*seconds)
    return find(train=length(budget_minutes=1.0), stream=clock.batches(), usual=4e-3, clock=clock)


@pytest.mark.parametrize(("seconds", "steps"), [((0.01,), 60), ((1.0, 0.0625), 31), ((0.125,), 22)])
def test_in_a_run_of_minutes_the_whole_range_is_tried_in_a_twentieth_of_them(seconds, steps):
    peak = find_in_a_minute(*seconds)
    assert f"in {steps} steps from 0.00012 to 0.12" in peak.reason
    assert peak.seconds <= 3.0


@pytest.mark.parametrize(
    ("seconds", "spent", "said"),
    [
        ((0.25,), 0.5, "5% of the run's 1 min hold 10 of the 20 steps that a trial needs"),
        ((2.0, 1.5), 3.5, "5% of the run's 1 min hold 0 of the 20 steps that a trial needs"),
        ((5.0,), 5.0, "5% of the run's 1 min hold 0 of the 20 steps that a trial needs"),
        ((0.0625, 0.0625, 0.25), 3.125, "5% of the run's 1 min were over when the rate had come to 0.00065 alone"),
        (
            (0.125, 0.125, 0.15625),
            3.0625,
            "5% of the run's 1 min were over after 18 of the 20 steps that a trial needs",
        ),
    ],
)
def test_a_trial_that_does_not_fit_into_a_twentieth_of_a_run_gives_the_usual_peak(seconds, spent, said):
    peak = find_in_a_minute(*seconds)
    assert peak.rate == 4e-3
    assert peak.reason == f"usual peak: {said}: train longer, or give a rate"
    assert peak.seconds == pytest.approx(spent)


def test_of_batches_that_are_accumulated_the_first_piece_is_seen():
    seen = []

    class Looking(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, image):
            seen.append(len(image))
            return self.network.all_logits(image)

    find(train=length(accumulate=3), call=Looking)
    assert set(seen) == {2}


def test_a_run_writes_down_what_it_found_and_rises_to_it(tmp_path):
    config = tiny(make_balls(tmp_path / "data"), tmp_path / "runs", train={"learning_rate": "find", "epochs": 10})
    told = Lines()
    run = trained(config, tmp_path / "run", told)
    rate = read_config(run).train.learning_rate
    assert isinstance(rate, float)
    assert 1e-3 <= rate <= 1.6e-2  # around the 4e-3 that `auto` gives a U-Net with random weights
    reason = json.loads(run.plan.read_text())["reasons"]["train.learning_rate"]
    assert "steps from 0.00012 to" in reason
    assert f"learning_rate: {rate:g}  # found" in run.config.read_text()
    assert f"learning rate {rate:g}: {reason}" in told.lines
    assert 0 < told.figures["learning_rate"] <= rate


@pytest.mark.parametrize(
    ("steps", "lowest", "highest", "said"),
    [(20, 2.5e-4, 4e-3, "in 20 steps from 3e-05 to"), (19, 1e-3, 1e-3, "usual peak: the run has 19 of the 20 steps")],
)
def test_a_classifier_finds_its_rate_too(tmp_path, steps, lowest, highest, said):
    length = {"learning_rate": "find", "epochs": 1, "steps_per_epoch": steps}
    config = config_of(tmp_path, write_classes(tmp_path / "data"), train=length)
    classify(config, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert lowest <= read_class_config(run).train.learning_rate <= highest
    assert said in json.loads(run.plan.read_text())["reasons"]["train.learning_rate"]
