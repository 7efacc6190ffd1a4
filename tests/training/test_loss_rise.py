"""How far a loss lies above the least one before it."""

import math

import pytest

from segmed.training.loss_rise import relative_rise


@pytest.mark.parametrize(
    ("loss", "before", "rise"),
    [
        (0.51, [0.5], 0.02),
        (0.45, [0.6, 0.5], -0.1),
        (-0.49, [-0.5], 0.02),
        (-0.6, [-0.5, -0.4], -0.2),
        (0.02, [1.0, 0.0], 0.2),  # of a tenth of the fall
        (0.6, [math.nan, math.inf, 0.5], 0.2),
        (3.0, [], 0.0),
        (0.0, [0.0], 0.0),
        (0.1, [0.0, 0.0], math.inf),
    ],
)
def test_a_rise_is_a_share_of_the_least_loss_whatever_its_sign(loss, before, rise):
    assert relative_rise(loss, before) == pytest.approx(rise)
