"""Batches of classification: a sample is a function of (seed, number), so that a run goes on as if never stopped."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from segmed.config import AugmentConfig
from segmed.data.augment import Augmentation
from segmed.data.images.batches import ImageSamples, augmented, ordered_batches, steps_per_epoch, training_batches
from segmed.data.images.image_cache import ImageArrays
from segmed.data.images.image_dataset import Item
from segmed.errors import DatasetError
from segmed.labels import LabelSet

LABELS = [0] * 12 + [1] * 4 + [2] * 2
ITEMS = tuple(Item(f"i{number:02d}", Path(), label, f"s{number}") for number, label in enumerate(LABELS))


def random_arrays(shape=(1, 10, 12)) -> ImageArrays:
    values = np.random.default_rng(0).standard_normal((len(ITEMS), *shape)).astype(np.float16)
    return ImageArrays(tuple(item.id for item in ITEMS), values, Path())


def samples(*, shape=(1, 10, 12), items=ITEMS, **options) -> ImageSamples:
    return ImageSamples(random_arrays(shape), items, **options)


def changing(name="light", **fields) -> Augmentation:
    return Augmentation(AugmentConfig(name=name, **fields), dims=2, labels=LabelSet((), ()))


def test_a_sample_is_the_array_of_its_image():
    data = samples()
    sample = data[7]
    row = int(sample["case"][1:])
    np.testing.assert_array_equal(sample["image"], data.arrays.images[row].astype(np.float32))
    assert (sample["target"], sample["image"].dtype) == (LABELS[row], torch.float32)


def test_every_image_comes_once_a_round_in_another_order():
    data = samples()
    rounds = [[data[n]["case"] for n in range(start, start + 18)] for start in (0, 18, 36)]
    assert all(sorted(each) == [item.id for item in ITEMS] for each in rounds)
    assert rounds[0] != rounds[1]
    assert len(data) == 18


def test_only_the_given_items_are_drawn():
    data = samples(items=ITEMS[3:6])
    assert {data[n]["case"] for n in range(6)} == {"i03", "i04", "i05"}


def test_balanced_sampling_draws_classes_equally_and_images_of_a_class_too():
    data = samples(balanced=True)
    drawn = [(data[n]["target"], data[n]["case"]) for n in range(36)]
    assert Counter(target for target, _ in drawn) == {0: 12, 1: 12, 2: 12}
    assert set(Counter(case for target, case in drawn if target == 1).values()) == {3}
    assert all(sorted(t for t, _ in drawn[n : n + 3]) == [0, 1, 2] for n in range(0, 36, 3))
    assert len({tuple(t for t, _ in drawn[n : n + 3]) for n in range(0, 36, 3)}) > 1


@pytest.mark.parametrize("balanced", [False, True])
def test_a_sample_depends_on_the_seed_and_its_number_alone(balanced):
    one, other = (samples(augment=AugmentConfig(name="full"), balanced=balanced, seed=3) for _ in range(2))
    forward = [one[n]["image"] for n in range(9)]
    backward = [other[n]["image"] for n in reversed(range(9))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    different = samples(augment=AugmentConfig(name="full"), balanced=balanced, seed=4)
    assert [different[n]["case"] for n in range(9)] != [one[n]["case"] for n in range(9)]


def test_a_batch_holds_images_targets_and_ids():
    batch = next(iter(training_batches(samples(), batch_size=4)))
    assert batch["image"].shape == (4, 1, 10, 12)
    assert batch["image"].is_contiguous()
    assert (batch["target"].dtype, batch["target"].shape) == (torch.int64, (4,))
    assert batch["target"].tolist() == [LABELS[int(case[1:])] for case in batch["case"]]
    assert isinstance(batch["case"], list)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_goes_on_sees_the_batches_it_would_have_seen(workers):
    data = samples(augment=AugmentConfig(name="light", affine_probability=1.0), balanced=True)
    whole = list(training_batches(data, batch_size=4, total_steps=8))
    rest = list(training_batches(data, batch_size=4, start_step=5, total_steps=8, workers=workers))
    assert len(rest) == 3
    for before, after in zip(whole[5:], rest, strict=True):
        assert torch.equal(before["image"], after["image"])
        assert before["case"] == after["case"]


def test_two_processes_see_together_what_one_sees():
    data = samples()
    one = next(iter(training_batches(data, batch_size=6)))
    two = [next(iter(training_batches(data, batch_size=3, rank=rank, world=2))) for rank in (0, 1)]
    assert one["case"] == two[0]["case"] + two[1]["case"]


def test_the_sampler_has_no_set_epoch_for_fabric_to_call():
    loader = training_batches(samples(), batch_size=4)
    assert not hasattr(loader.sampler, "set_epoch")
    assert not hasattr(loader.dataset, "set_epoch")


def test_samples_can_be_sent_to_another_process(tmp_path):
    data = samples()
    data.arrays = None  # arrays have a test of their own
    assert pickle.loads(pickle.dumps(data))._chosen(40) == data._chosen(40)  # noqa: S301


@pytest.mark.parametrize(("batch_size", "world", "steps"), [(4, 1, 5), (18, 1, 1), (3, 2, 3), (32, 1, 1)])
def test_an_epoch_has_as_many_steps_as_it_takes(batch_size, world, steps):
    assert steps_per_epoch(samples(), batch_size, world) == steps


# ---------------------------------------------------------------- augmentation


@pytest.mark.parametrize("shape", [(1, 10, 12), (3, 10, 12), (1, 8, 9, 10)])
@pytest.mark.parametrize("name", ["none", "light", "full"])
def test_the_shape_is_kept(shape, name):
    data = samples(shape=shape, augment=AugmentConfig(name=name))
    assert all(data[n]["image"].shape == shape for n in range(6))


def test_no_augmentation_changes_nothing():
    image = torch.randn(1, 10, 12)
    assert torch.equal(augmented(image, changing("none"), np.random.default_rng(0)), image)


def test_a_flip_is_one_of_left_and_right():
    image = torch.arange(12.0).repeat(10, 1)[None]
    flipped = augmented(image, changing("none", flip_probability=1.0), np.random.default_rng(0))
    assert torch.equal(flipped, image.flip(2))


def test_a_rotation_turns_about_the_middle():
    image = torch.zeros(1, 33, 33)
    image[0, 16, 16], image[0, 4:10, 15:18] = 5.0, 1.0
    rotating = changing("none", affine_probability=1.0, rotation_deg=90.0)
    turned = augmented(image, rotating, np.random.default_rng(1))
    assert turned[0, 16, 16] == pytest.approx(5.0, abs=0.01)
    assert not torch.allclose(turned[0, 4:10, 15:18], image[0, 4:10, 15:18], atol=0.2)


def test_zoom_and_shear_move_the_border():
    image = torch.zeros(1, 40, 40)
    image[0, 10:30, 10:30] = 1.0
    zooming = changing("none", affine_probability=1.0, scale=0.3, shear=0.2)
    areas = [float(augmented(image, zooming, np.random.default_rng(seed)).sum()) for seed in range(12)]
    assert min(areas) < 360
    assert max(areas) > 440


# ---------------------------------------------------------------- validation and faults


def test_ordered_batches_give_every_item_once_and_unchanged():
    data, chosen = random_arrays(), ITEMS[5:12]
    batches = list(ordered_batches(data, chosen, batch_size=3))
    assert [len(batch["case"]) for batch in batches] == [3, 3, 1]
    assert [case for batch in batches for case in batch["case"]] == [item.id for item in chosen]
    together = torch.cat([batch["image"] for batch in batches])
    np.testing.assert_array_equal(together, data.images[5:12].astype(np.float32))
    assert torch.cat([batch["target"] for batch in batches]).tolist() == LABELS[5:12]


def test_no_items_and_unprepared_items_are_one_line():
    with pytest.raises(DatasetError, match="no training images"):
        samples(items=())
    with pytest.raises(DatasetError, match="'new' was not prepared"):
        samples(items=(Item("new", Path(), 0, "s"),))
    with pytest.raises(ValueError, match="start_step 5 lies beyond"):
        training_batches(samples(), batch_size=2, start_step=5, total_steps=4)
