"""Overfitting that validation sees is answered with more varied batches, and a resumed run goes on with them."""

from itertools import count

import pytest
import torch
from safetensors.torch import load_file
from tiny_data import make_balls, tiny, training_of
from tiny_run import TinyPatches, batches_of, single, tiny_step

from segmed.compose import run as compose_run
from segmed.config import AugmentConfig
from segmed.runs import read_config
from segmed.training.checkpoint import Checkpoints
from segmed.training.fit_settings import FitSettings
from segmed.training.fit_state import ValidationResult
from segmed.training.interruption import Interrupted
from segmed.training.loop import fit
from segmed.training.overfitting import overfits
from segmed.training.ranks import Ranks
from segmed.training.schedule import StepBudget
from segmed.training.tracking import Tracker

RISING = [0.5, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]  # losses of ten validations


@pytest.mark.parametrize(
    ("losses", "seen"),
    [
        ([], False),
        ([0.3, 0.4], False),
        ([0.5, 0.3, 0.4], False),  # once may be chance
        ([0.5, 0.3, 0.4, 0.35], True),
        ([0.3, 0.4, 0.29], False),
        ([0.300, 0.302, 0.303], False),  # a rise of less than a hundredth is noise
        ([0.3678, 0.3389, 0.3183, 0.3216], False),  # a fold of MyoPS
        ([0.3678, 0.3389, 0.3183, 0.3216, 0.3234], True),
        ([0.5, 0.4, 0.3, 0.2], False),
        ([-0.5, -0.7, -0.6, -0.65], True),  # a loss may be negative, or cross 0
        ([-0.5, -0.7, -0.8, -0.9], False),
        ([-0.700, -0.697, -0.696], False),
        ([0.5, -0.3, -0.2, -0.1], True),
        ([0.5, -0.001, -0.0005, -0.0004], False),
        ([float("inf"), 0.3, 0.4, 0.45], True),
    ],
)
def test_two_losses_above_the_least_one_show_overfitting(losses, seen):
    assert bool(overfits(losses)) is seen


@pytest.mark.parametrize(
    ("losses", "trained", "seen"),
    [
        ([0.8, 0.553, 0.554, 0.559], [0.5, 0.12, 0.11, 0.10], True),  # three patients of MyoPS
        ([0.8, 0.553, 0.548, 0.549], [0.5, 0.12, 0.11, 0.10], True),  # a fall of less than a hundredth is none
        ([0.8, 0.553, 0.554, 0.540], [0.5, 0.12, 0.11, 0.10], False),
        ([0.8, 0.553, 0.554, 0.559], [0.5, 0.12, 0.121, 0.119], False),  # nothing is learnt any more, by heart or not
        ([0.8, 0.553, 0.554], [0.12, 0.11], False),  # a run of an earlier version
        ([-0.5, -0.553, -0.554, -0.551], [-0.6, -0.7, -0.75, -0.8], True),
    ],
)
def test_a_validation_loss_that_stands_still_while_that_of_training_falls_shows_it_too(losses, trained, seen):
    assert bool(overfits(losses, trained)) is seen
    assert not overfits(losses)


class Told(Tracker):
    """Keeps the lines."""

    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


class Scripted:
    """Validation with losses that are known; the score is their opposite."""

    def __init__(self, losses, first=0):
        self.losses, self.number = losses, first

    def __call__(self, network):
        loss = self.losses[self.number]
        self.number += 1
        return ValidationResult(-loss, {"validation/loss": loss})


def stream(name, seen, dataset=None):
    """Batches that write down who gave them."""
    make = batches_of(dataset or TinyPatches())

    def note(number, batch):
        seen.append((name, number))
        return batch

    return lambda start: map(note, count(start), make(start))  # the loader draws its seed when it is made


def train(folder, *, losses=RISING, others=("full", "wide"), resume=False, first=0, stop_at=None, patience=None):
    seen = []
    brake = Told()
    validate = Scripted(losses, first)
    if stop_at is not None:

        class Stops(Told):
            def progress(self, share, step):
                if step == stop_at:
                    raise KeyboardInterrupt

        brake = Stops()
    state = fit(
        tiny_step(fabric=single()),
        stream("light", seen),
        StepBudget(20),
        settings=FitSettings(validations=10, patience=patience, checkpoint_minutes=1e-9, seed=5, resume=resume),
        checkpoints=Checkpoints(folder, ranks=Ranks()),
        tracker=brake,
        validate=validate,
        broader=[stream(name, seen) for name in others],
    )
    return state, seen, brake


def test_batches_become_more_varied_from_the_step_at_which_it_is_seen(tmp_path):
    state, seen, told = train(tmp_path)
    used = {number: name for name, number in seen}
    assert [used[number] for number in range(20)] == ["light"] * 8 + ["full"] * 6 + ["wide"] * 6
    assert state.breadth == 2
    said = [line for line in told.lines if line.startswith("overfitting")]
    assert said[0] == (
        "overfitting: the validation loss lay above its least twice (0.3, then 0.4 and 0.45): from here on patches "
        "are changed more"
    )
    assert len(said) == 2


@pytest.mark.parametrize(
    "losses",
    [
        [0.9 - 0.05 * n for n in range(10)],  # it falls
        [0.9, 0.5, 0.6, 0.4, 0.6, 0.3, 0.4, 0.2, 0.3, 0.1],  # it never rises twice
        [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.5, 0.6],  # it rises at the end, too late to learn more
    ],
)
def test_nothing_changes_where_it_is_not_seen_or_too_late(tmp_path, losses):
    state, seen, told = train(tmp_path, losses=losses)
    assert {name for name, _ in seen} == {"light"}
    assert state.breadth == 0
    assert told.lines == ["trained 20 steps in 0.0 minutes"]


def test_a_run_without_an_answer_keeps_its_batches(tmp_path):
    state, seen, _ = train(tmp_path, others=())
    assert state.breadth == 0
    assert len(seen) == 20


@pytest.mark.parametrize(("stop_at", "validated"), [(9, 4), (11, 5)])  # right after the answer, and later
def test_a_run_that_is_stopped_after_an_answer_ends_with_the_weights_of_an_unbroken_one(tmp_path, stop_at, validated):
    train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", stop_at=stop_at)
    state, seen, _ = train(tmp_path / "broken", resume=True, first=validated)
    assert {name for name, number in seen if number < 14} == {"full"}
    assert state.breadth == 2
    whole, broken = (load_file(tmp_path / name / "weights" / "last.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(tensor, broken[name]) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("patience", "others", "presets", "end"),
    [
        (2, ("full", "wide"), "full", 12),  # answered at step 8; two worse ones later the second is not yet due
        (3, ("full",), "full", 14),
        (3, ("full", "wide"), "full wide", 20),  # answered at steps 8 and 14
    ],
)
def test_an_answer_to_overfitting_gives_patience_a_new_start(tmp_path, patience, others, presets, end):
    state, seen, _ = train(tmp_path, patience=patience, others=others)
    assert list(dict.fromkeys(name for name, number in seen if number < end)) == ["light", *presets.split()]
    assert {name for name, number in seen if number < 8} == {"light"}
    assert (state.step, state.ended, state.breadth) == (end, True, len(presets.split()))


def test_a_run_that_is_stopped_after_an_answer_has_the_patience_of_an_unbroken_one(tmp_path):
    whole, *_ = train(tmp_path / "whole", patience=2)
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", patience=2, stop_at=11)
    broken, *_ = train(tmp_path / "broken", patience=2, resume=True, first=5)
    assert (broken.step, broken.worse, broken.breadth) == (whole.step, whole.worse, whole.breadth)
    assert whole.step == 12


def test_a_run_whose_preset_the_plan_chose_has_the_broader_ones_at_hand(tmp_path):
    data = make_balls(tmp_path / "data")
    chosen = tiny(data, tmp_path / "runs", augment={"name": "auto"}, train={"epochs": 1, "validations": 4})
    training = training_of(compose_run.start(chosen, tmp_path / "chosen"))
    assert (training.config.augment.name, training.config.augment.broaden) == ("light", True)
    volumes = training._volumes(training.split.train)
    light, full, wide = (next(iter(batches(0))) for batches in training._streams(volumes, []))
    assert light["case"] == full["case"] == wide["case"]
    assert not any(torch.equal(light["image"], other["image"]) for other in (full, wide))
    given = tiny(data, tmp_path / "runs", augment={"name": "light"})
    assert len(training_of(compose_run.start(given, tmp_path / "given"))._streams(volumes, [])) == 1


def test_the_broader_presets_follow_the_own_one_and_keep_numbers_of_ones_own():
    own = AugmentConfig(name="light", broaden=True, rotation_deg=90.0)
    full, wide = own.broader()
    assert full == AugmentConfig(name="full", broaden=True, rotation_deg=90.0)
    assert wide.rotation_deg == 90.0
    assert wide.scale == AugmentConfig(name="wide").scale
    assert AugmentConfig(name="wide", broaden=True).broader() == ()
    assert AugmentConfig(name="light", broaden=False).broader() == ()
    assert AugmentConfig(name="none", broaden=True).broader() == ()


def test_a_number_that_is_given_stays_in_broader_presets_even_where_it_is_the_own_presets(tmp_path):
    data = make_balls(tmp_path / "data")
    own = {"name": "auto", "elastic_probability": 0, "rotation_deg": 15.0}  # as in the preset light
    chosen = tiny(data, tmp_path / "runs", augment=own, train={"epochs": 1, "validations": 4})
    run = compose_run.start(chosen, tmp_path / "chosen")
    augment = read_config(run).augment  # as a resumed run reads it, every field given
    assert (augment.name, augment.affine_probability) == ("light", 0.3)
    full, wide = augment.broader()
    for each in (full, wide):
        assert (each.elastic_probability, each.rotation_deg) == (0.0, 15.0)
        assert each.elastic_mm == 4.0
    assert AugmentConfig.model_validate(full.model_dump()).broader() == (wide,)


def test_a_run_of_an_earlier_version_keeps_what_differs_from_its_preset():
    written = AugmentConfig(name="light", broaden=True, rotation_deg=90.0).model_dump(exclude={"keep"})
    full, _ = AugmentConfig.model_validate(written).broader()
    assert full == AugmentConfig(name="full", broaden=True, rotation_deg=90.0)
