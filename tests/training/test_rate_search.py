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
from segmed.training.rate_search import STEPS, fastest_fall, find_rate, smoothed
from segmed.training.steps import AllLogits


def batches(accumulate=1):
    generator = torch.Generator().manual_seed(3)
    while True:
        image = torch.randn(2 * accumulate, 1, 8, 8, 8, generator=generator)
        yield {"image": image, "label": (image[:, 0] > 0).to(torch.uint8)}


def find(network=None, train=None, stream=None, **given):
    train = train or tiny_train(steps_per_epoch=10, learning_rate="find", optimiser="adamw")
    network = network or TinyNet()
    return find_rate(
        network, TinyLoss(), stream or batches(train.accumulate), train, choice=Choice(), ranks=Ranks(),
        call=AllLogits, **given,
    )  # fmt: skip


def test_the_rate_is_where_a_known_curve_falls_fastest():
    rates = np.geomspace(3e-5, 3e-2, 61)
    losses = 1 - 1 / (1 + (2e-3 / rates) ** 4)  # steepest in log rate at 2e-3
    losses = [float(loss) for loss in losses]
    assert fastest_fall(rates, losses, usual=1e-3) == pytest.approx(2e-3, rel=0.6)  # smoothing looks back a few steps


@pytest.mark.parametrize(("losses", "rate"), [([1.0, 1.0 - 1e-3, 5.0], 0.25), ([3.0, 2.9, 0.1], 4.0)])
def test_what_is_found_stays_within_a_quarter_and_four_times_of_the_usual_peak(losses, rate):
    assert fastest_fall([1e-4, 2e-4, 1e2], losses, usual=1.0) == rate


def test_too_few_steps_say_nothing():
    assert fastest_fall([1e-4, 1e-3], [1.0, 0.5], usual=1e-3) == 1e-3


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

    peak = find_rate(
        Steep(),
        Square(),
        batches(),
        tiny_train(steps_per_epoch=10, optimiser="adamw", learning_rate="find"),
        choice=Choice(),
        ranks=Ranks(),
        call=lambda network: network,
    )
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
    network, train = TinyNet(), tiny_train(steps_per_epoch=10, learning_rate="find", optimiser="adamw")
    common = {"choice": Choice(), "ranks": Ranks(), "call": AllLogits}
    early = find_rate(network, Breaking(20), batches(), train, **common)  # after 20 steps the rate is 2.8e-4
    assert early.rate == pytest.approx(2.5e-4, rel=0.2)
    assert "in 20 steps from 3e-05 to 0.00028" in early.reason
    never = find_rate(network, Breaking(0), batches(), train, **common)
    assert never.rate == 1e-3
    assert never.reason == "usual peak: the loss was finite in 0 steps alone, too few to find another"


def test_a_run_shorter_than_the_trial_still_tries_the_whole_range():
    short = find(train=tiny_train(learning_rate="find", optimiser="adamw", epochs=4, steps_per_epoch=3))
    assert "in 12 steps from 3e-05 to 0.03" in short.reason


def test_of_batches_that_are_accumulated_the_first_piece_is_seen():
    seen = []

    class Looking(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, image):
            seen.append(len(image))
            return self.network.all_logits(image)

    train = tiny_train(steps_per_epoch=10, learning_rate="find", optimiser="adamw", accumulate=3)
    find_rate(
        TinyNet(), TinyLoss(), batches(3), train, choice=Choice(), ranks=Ranks(), call=Looking
    )  # fmt: skip
    assert set(seen) == {2}


def test_a_run_writes_down_what_it_found_and_rises_to_it(tmp_path):
    config = tiny(make_balls(tmp_path / "data"), tmp_path / "runs", train={"learning_rate": "find", "epochs": 10})
    told = Lines()
    run = trained(config, tmp_path / "run", told)
    rate = read_config(run).train.learning_rate
    assert isinstance(rate, float)
    assert "the loss falls fastest here" in json.loads(run.plan.read_text())["reasons"]["train.learning_rate"]
    assert f"learning_rate: {rate:g}  # found" in run.config.read_text()
    assert any(line.startswith(f"learning rate {rate:g}: found: the loss falls fastest here") for line in told.lines)
    assert 0 < told.figures["learning_rate"] <= rate


def test_a_classifier_finds_its_rate_too(tmp_path):
    config = config_of(tmp_path, write_classes(tmp_path / "data"), train={"learning_rate": "find", "epochs": 1})
    classify(config, tmp_path / "run")
    assert isinstance(read_class_config(Run(tmp_path / "run")).train.learning_rate, float)
