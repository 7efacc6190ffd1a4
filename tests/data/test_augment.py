"""Augmentation: what moves moves rigidly and with its label, artefacts are scanners', and nothing global is touched."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmed.config import AugmentConfig
from segmed.data.augment import Augmentation, volume_floor
from segmed.data.spatial import Deformation, draw_deformation, own_generators, resample_patch
from segmed.labels import IGNORE, LabelSet

LABELS = LabelSet.from_config({"left": 1, "right": 2, "middle": 3})
MOVING = {"affine_probability": 1, "rotation_deg": 25, "scale": 0.2, "shear": 0.05, "translation_mm": 3}
ELASTIC = {"elastic_probability": 1, "elastic_mm": 3}
CASES = {  # name: dims, size, spacing_mm, axes that move
    "3D": (3, (20, 24, 22), (1.0, 1.0, 1.0), (0, 1, 2)),
    "3D, unequal spacing": (3, (20, 12, 22), (1.0, 2.0, 1.2), (0, 1, 2)),
    "thick slices": (3, (24, 20, 6), (1.0, 1.0, 8.0), (0, 1)),
    "sagittal slice": (2, (1, 24, 22), (1.0, 1.5, 1.0), (1, 2)),
    "axial slice": (2, (24, 22, 1), (1.0, 1.5, 8.0), (0, 1)),
}
each_case = pytest.mark.parametrize(("dims", "size", "spacing_mm", "axes"), CASES.values(), ids=CASES)


def augmentation(dims=3, *, mirror_pairs=(), **changes) -> Augmentation:
    return Augmentation(AugmentConfig(name="none", **changes), dims=dims, labels=LABELS, mirror_pairs=mirror_pairs)


def volume(shape=(40, 44, 42), channels=1, seed=0):
    generator = np.random.default_rng(seed)
    image = generator.standard_normal((channels, *shape)).astype(np.float32)
    return image, generator.integers(0, 4, shape).astype(np.uint8)


def coordinates(shape) -> np.ndarray:
    """An image whose channels are the voxel coordinates: where it is sampled can be read off its values."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)


def offsets_mm(size, spacing_mm) -> np.ndarray:
    middle = (np.asarray(size) - 1) / 2
    return (coordinates(size) - middle[:, None, None, None]) * np.asarray(spacing_mm)[:, None, None, None]


# ---------------------------------------------------------------- plain patches


@given(
    start=st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)),
)
@settings(max_examples=40, deadline=None)
def test_without_augmentation_a_patch_is_the_slice_of_the_volume(start, size):
    image, label = volume(channels=2)
    centre = np.array(start) + (np.array(size) - 1) / 2
    values, marks = augmentation().patch(
        image, label, centre=centre, size=size, spacing_mm=(1, 2, 3), generator=np.random.default_rng(0)
    )
    where = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    assert values.dtype == torch.float32
    assert marks.dtype == torch.uint8
    assert np.array_equal(values.numpy(), image[(slice(None), *where)])
    assert np.array_equal(marks.numpy(), label[where])


def test_a_patch_of_a_memory_mapped_volume_owns_its_memory(tmp_path):
    image, label = volume()
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    values, _ = augmentation().patch(
        mapped, label, centre=(20, 20, 20), size=(9, 9, 9), spacing_mm=(1, 1, 1), generator=np.random.default_rng(0)
    )
    values += 1
    assert np.array_equal(values.numpy()[0], image[0, 16:25, 16:25, 16:25] + 1)


@pytest.mark.parametrize("changes", [{}, {"affine_probability": 1}], ids=["copied", "resampled"])
def test_outside_the_volume_the_image_goes_on_and_the_label_is_background(changes):
    image, label = volume((10, 10, 10))
    label[:] = 3
    values, marks = augmentation(**changes).patch(
        image, label, centre=(1.5, 4.5, 4.5), size=(8, 10, 10), spacing_mm=(1, 1, 1), generator=np.random.default_rng(0)
    )
    assert np.allclose(values[0, 2:], image[0, :6], atol=1e-4)
    assert np.allclose(values[0, :2], image[0, :1], atol=1e-4)
    assert (marks[:2] == 0).all()
    assert (marks[2:] == 3).all()


def test_a_volume_smaller_than_the_patch_lies_in_its_middle():
    image, label = volume((6, 8, 4))
    values, marks = augmentation().patch(
        image, label, centre=(2.5, 3.5, 1.5), size=(10, 8, 8), spacing_mm=(1, 1, 1), generator=np.random.default_rng(0)
    )
    assert np.array_equal(values[0, 2:8, :, 2:6], image[0])
    assert np.array_equal(marks[2:8, :, 2:6], label)
    assert marks.numpy().astype(bool).sum() == label.astype(bool).sum()


# ---------------------------------------------------------------- spatial


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (0, 2)])
@pytest.mark.parametrize("in_plane", [False, True])
def test_a_quarter_turn_is_rot90(axes, in_plane):
    a, b = axes
    turn = np.eye(3)
    turn[a, a] = turn[b, b] = 0
    turn[a, b], turn[b, a] = 1, -1
    normal = ({0, 1, 2} - {a, b}).pop() if in_plane else None
    image, label = volume()
    values, marks = resample_patch(
        image,
        label,
        Deformation(turn, np.zeros(3), normal=normal),
        centre=(20, 22, 21),
        size=(15,) * 3,
        spacing_mm=(1,) * 3,
    )
    where = (slice(13, 28), slice(15, 30), slice(14, 29))
    assert np.allclose(values[0], np.rot90(image[0][where], axes=axes), atol=1e-4)
    assert np.array_equal(marks, np.rot90(label[where], axes=axes))


@each_case
def test_every_voxel_comes_from_where_the_matrix_says(dims, size, spacing_mm, axes):
    shape, spacing = (90, 90, 90), np.array(spacing_mm)
    normal = None if len(axes) == 3 else ({0, 1, 2} - set(axes)).pop()
    config = AugmentConfig(name="none", **MOVING)
    deformation = draw_deformation(
        config, size=size, spacing_mm=spacing_mm, normal=normal, own=own_generators(np.random.default_rng(3))
    )
    centre = np.array([45.0, 44.0, 46.0]) + (np.array(size) % 2 == 0) / 2
    values, _ = resample_patch(coordinates(shape), None, deformation, centre=centre, size=size, spacing_mm=spacing_mm)
    moved = np.einsum("ab,bxyz->axyz", deformation.matrix, offsets_mm(size, spacing))
    expected = (moved + deformation.shift_mm[:, None, None, None]) / spacing[:, None, None, None]
    assert np.allclose(values, expected + centre[:, None, None, None], atol=2e-3)
    still = [axis for axis in range(3) if axis not in axes]
    assert np.array_equal(deformation.matrix[still][:, still], np.eye(len(still)))
    assert (deformation.shift_mm[still] == 0).all()


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.5)])
def test_a_rotation_keeps_distances_in_mm(spacing_mm):
    size = (12, 12, 12)
    config = AugmentConfig(name="none", affine_probability=1, rotation_deg=40)
    deformation = draw_deformation(
        config, size=size, spacing_mm=spacing_mm, normal=None, own=own_generators(np.random.default_rng(1))
    )
    values, _ = resample_patch(
        coordinates((60, 60, 60)), None, deformation, centre=(29.5,) * 3, size=size, spacing_mm=spacing_mm
    )
    from_mm = (values.numpy() * np.array(spacing_mm)[:, None, None, None]).reshape(3, -1)[:, ::37]
    to_mm = offsets_mm(size, spacing_mm).reshape(3, -1)[:, ::37]
    distances = [np.linalg.norm(x[:, :, None] - x[:, None], axis=0) for x in (from_mm, to_mm)]
    assert not np.allclose(from_mm - from_mm[:, :1], to_mm - to_mm[:, :1], atol=0.5)
    assert np.allclose(*distances, atol=5e-3)


@each_case
def test_elastic_displacement_is_bounded_smooth_and_does_not_fold(dims, size, spacing_mm, axes):
    spacing, size = np.array(spacing_mm), tuple(n if n == 1 else 2 * n for n in size)
    normal = None if len(axes) == 3 else ({0, 1, 2} - set(axes)).pop()
    centre = np.array([45.0, 44.0, 46.0])
    config = AugmentConfig(name="none", **ELASTIC)
    for seed in range(3):
        deformation = draw_deformation(
            config, size=size, spacing_mm=spacing_mm, normal=normal, own=own_generators(np.random.default_rng(seed))
        )
        values, _ = resample_patch(
            coordinates((96, 96, 96)), None, deformation, centre=centre, size=size, spacing_mm=spacing_mm
        )
        from_mm = (values.numpy() - values.numpy().mean(axis=(1, 2, 3), keepdims=True)) * spacing[:, None, None, None]
        moved = (values.numpy() - centre[:, None, None, None]) * spacing[:, None, None, None] - offsets_mm(
            size, spacing
        )
        moved = moved[list(axes)]
        assert 0.3 < np.abs(moved).max() <= config.elastic_mm + 1e-3
        steps = [[np.gradient(from_mm[a], spacing[b], axis=b) for b in axes] for a in axes]
        determinant = np.linalg.det(np.moveaxis(np.array(steps), (0, 1), (-2, -1)))
        assert determinant.min() > 0.2


def test_equal_control_points_shift_the_patch():
    control = np.full((3, 6, 6, 6), 2.0)
    deformation = Deformation(np.eye(3), np.zeros(3), control_mm=control, knot_mm=10.0)
    image, _ = volume()
    values, _ = resample_patch(image, None, deformation, centre=(19.5,) * 3, size=(20,) * 3, spacing_mm=(1, 1, 1))
    assert np.allclose(values, image[:, 12:32, 12:32, 12:32], atol=1e-4)


@each_case
def test_a_blob_stays_where_its_label_is(dims, size, spacing_mm, axes):
    shape = np.array([64, 64, 30])
    middle = np.array([30.0, 33.0, 15.0])
    distance = (coordinates(shape) - middle[:, None, None, None]) * np.array(spacing_mm)[:, None, None, None]
    image = np.exp(-(distance**2).sum(axis=0, keepdims=True) / (2 * 36)).astype(np.float32)
    label = (image[0] > 0.5).astype(np.uint8)
    augment = augmentation(dims, **MOVING, **ELASTIC)
    for seed in range(6):
        values, marks = augment.patch(
            image,
            label,
            centre=middle + [n > 1 for n in size] * np.random.default_rng(seed).uniform(-2, 2, 3),
            size=size,
            spacing_mm=spacing_mm,
            generator=np.random.default_rng(seed),
        )
        assert marks.any()
        overlap = ((values[0] > 0.5) & (marks == 1)).sum() * 2 / ((values[0] > 0.5).sum() + (marks == 1).sum())
        assert overlap > 0.9


def test_resampled_labels_follow_the_true_shape_more_closely_than_the_nearest_voxel():
    axes_mm, middle = np.array([14.0, 6.0, 6.0]), 39.5
    inside = lambda offset: ((offset / axes_mm[:, None, None, None]) ** 2).sum(axis=0) <= 1  # noqa: E731
    label = inside(coordinates((80, 80, 80)) - middle).astype(np.uint8)
    config = AugmentConfig(name="full", affine_probability=1, elastic_probability=0)
    dice = []
    for seed in range(5):
        deformation = draw_deformation(
            config, size=(40,) * 3, spacing_mm=(1, 1, 1), normal=None, own=own_generators(np.random.default_rng(seed))
        )
        _, marks = resample_patch(
            np.zeros((1, 80, 80, 80), np.float32),
            label,
            deformation,
            centre=(middle,) * 3,
            size=(40,) * 3,
            spacing_mm=(1,) * 3,
        )
        true = inside(np.einsum("ab,bxyz->axyz", deformation.matrix, offsets_mm((40,) * 3, (1, 1, 1))))
        dice.append(2 * (marks.numpy() & true).sum() / (marks.numpy().sum() + true.sum()))
    assert np.mean(dice) > 0.96  # the nearest voxel: 0.947


def test_many_labels_in_one_patch_stay_themselves():
    label = np.repeat(np.arange(1, 13, dtype=np.uint8), 4)[:, None, None] * np.ones((1, 30, 30), np.uint8)
    shift = Deformation(np.eye(3), np.array([4.0, 0, 0]))
    _, marks = resample_patch(
        np.zeros((1, *label.shape), np.float32),
        label,
        shift,
        centre=(19.5, 15, 15),
        size=(32, 9, 9),
        spacing_mm=(1,) * 3,
    )
    assert np.array_equal(marks, label[8:40, 11:20, 11:20])


@each_case
def test_ignored_voxels_stay_ignored_and_no_value_appears(dims, size, spacing_mm, axes):
    image, label = volume((50, 50, 50))
    label[:] = np.where(label == 1, IGNORE, label)
    label[:25] = IGNORE
    _, marks = augmentation(dims, **MOVING, **ELASTIC).patch(
        image, label, centre=(25, 25, 25), size=size, spacing_mm=spacing_mm, generator=np.random.default_rng(0)
    )
    assert set(np.unique(marks)) <= {0, 2, 3, IGNORE}
    assert (marks == IGNORE).any()


# ---------------------------------------------------------------- flips


def test_a_flip_mirrors_left_and_right_and_swaps_their_labels():
    image, label = volume()
    label[0, 0, 0] = IGNORE
    values, marks = augmentation(flip_probability=1, mirror_pairs=[("left", "right")]).patch(
        image, label, centre=(9.5, 9.5, 9.5), size=(20,) * 3, spacing_mm=(1,) * 3, generator=np.random.default_rng(0)
    )
    assert np.array_equal(values[0], image[0, 19::-1, :20, :20])
    swapped = np.array([0, 2, 1, 3, *[IGNORE] * 252], np.uint8)[label[19::-1, :20, :20]]
    assert np.array_equal(marks, swapped)
    assert marks[-1, 0, 0] == IGNORE


def test_a_flip_with_a_rotation_is_the_mirrored_rotation():
    image, label = volume()
    place = {"centre": (20, 20, 20), "size": (16,) * 3, "spacing_mm": (1,) * 3}
    straight, _ = augmentation(**MOVING).patch(image, label, **place, generator=np.random.default_rng(5))
    mirrored, _ = augmentation(**MOVING, flip_probability=1).patch(
        image, label, **place, generator=np.random.default_rng(5)
    )
    assert torch.equal(mirrored, straight.flip(1))


def test_a_sagittal_slice_has_no_left_and_right_to_flip():
    image, label = volume()
    values, marks = augmentation(2, flip_probability=1, mirror_pairs=[("left", "right")]).patch(
        image, label, centre=(7, 9.5, 9.5), size=(1, 20, 20), spacing_mm=(1,) * 3, generator=np.random.default_rng(0)
    )
    assert np.array_equal(values[0, 0], image[0, 7, :20, :20])
    assert np.array_equal(marks[0], label[7, :20, :20])


def test_a_preset_that_nobody_has_chosen_yet_is_an_error():
    with pytest.raises(ValueError, match="plan the experiment first"):
        Augmentation(AugmentConfig(name="auto"), dims=3, labels=LABELS)


@pytest.mark.parametrize("pairs", [[("left", "lefft")], [("left", "right"), ("left", "middle")], [("left", "left")]])
def test_impossible_mirror_pairs_are_errors(pairs):
    with pytest.raises(ValueError, match=r"mirror_pairs: .*lef"):
        augmentation(mirror_pairs=pairs)


# ---------------------------------------------------------------- randomness


@each_case
@pytest.mark.parametrize("preset", ["none", "light", "full", "wide"])
def test_the_same_generator_gives_the_same_patch_and_another_a_different_one(preset, dims, size, spacing_mm, axes):
    image, label = volume((50, 50, 50), channels=2)
    changes = {"flip_probability": 0.5, "affine_probability": 0.5} if preset != "none" else {}
    augment = Augmentation(AugmentConfig(name=preset, **changes), dims=dims, labels=LABELS)
    place = {"centre": (25, 25, 25), "size": size, "spacing_mm": spacing_mm}
    first, again = (
        [augment.patch(image, label, **place, generator=np.random.default_rng(seed)) for seed in range(8)]
        for _ in range(2)
    )
    for (values, marks), (values2, marks2) in zip(first, again, strict=True):
        assert torch.equal(values, values2)
        assert torch.equal(marks, marks2)
    different = {values.numpy().tobytes() for values, _ in first}
    assert len(different) == 1 if preset == "none" else len(different) > 2


CHANGES = [name.removesuffix("_probability") for name in AugmentConfig.model_fields if name.endswith("_probability")]
RARE = ("spike", "histogram", "contrast", "synthetic")  # with the preset full they hardly come, or never
EVERYTHING = AugmentConfig(name="full", flip_probability=0.3, **{f"{name}_probability": 0.2 for name in RARE})


def forty_patches(config) -> list[bytes]:
    image, label = volume((24, 24, 24))
    augment = Augmentation(config, dims=3, labels=LABELS)
    place = {"centre": (12,) * 3, "size": (8,) * 3, "spacing_mm": (1,) * 3}
    return [
        augment.patch(image, label, **place, generator=np.random.default_rng(n))[0].numpy().tobytes() for n in range(40)
    ]


@pytest.fixture(scope="module")
def everything_changed() -> list[bytes]:
    return forty_patches(EVERYTHING)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_is_taken_away_alters_only_the_patches_that_it_changed(change, everything_changed):
    field = f"{change}_probability"
    without = forty_patches(EVERYTHING.model_copy(update={field: 0.0}))
    altered = {n for n in range(40) if everything_changed[n] != without[n]}
    own = [own_generators(np.random.default_rng(n))(change) for n in range(40)]
    drawn = {n for n in range(40) if own[n].random() < getattr(EVERYTHING, field)}
    assert altered
    assert altered <= drawn  # a blur of no width alters nothing


def test_no_global_generator_is_touched():
    image, label = volume()
    changes = {name: 1 for name in AugmentConfig.model_fields if name.endswith("_probability")}
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    Augmentation(AugmentConfig(name="full", **changes), dims=3, labels=LABELS).patch(
        image, label, centre=(20,) * 3, size=(16,) * 3, spacing_mm=(1,) * 3, generator=np.random.default_rng(0)
    )
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_a_patch_does_not_depend_on_the_number_of_threads():
    image, label = volume((50, 50, 50))
    changes = {name: 1 for name in AugmentConfig.model_fields if name.endswith("_probability")}
    augment = Augmentation(AugmentConfig(name="full", **changes), dims=3, labels=LABELS)
    place = {"centre": (24.5,) * 3, "size": (36,) * 3, "spacing_mm": (1,) * 3}
    patches = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            patches.append(augment.patch(image, label, **place, generator=np.random.default_rng(0)))
        finally:
            torch.set_num_threads(1)
    assert torch.equal(patches[0][0], patches[1][0])
    assert torch.equal(patches[0][1], patches[1][1])


def test_a_synthetic_contrast_follows_the_moved_labels_and_changes_none():
    image, _ = volume()
    label = np.zeros(image.shape[1:], np.uint8)
    label[10:22, 10:34, 10:34], label[22:30, 10:34, 10:34] = 1, 2
    plain = {"synthetic_noise": 0, "synthetic_blur_sd_voxels": 0, "synthetic_bias": 0}
    place = {"centre": (20, 22, 21), "size": (24,) * 3, "spacing_mm": (1,) * 3}
    drawn = augmentation(synthetic_probability=1, **plain, **MOVING)
    for seed in range(4):
        patch, marks = drawn.patch(image, label, **place, generator=np.random.default_rng(seed))
        _, moved = augmentation(**MOVING).patch(image, label, **place, generator=np.random.default_rng(seed))
        assert torch.equal(marks, moved)
        within = [patch[0][marks == index] for index in (1, 2)]
        assert all(len(values) > 500 and float(values.max() - values.min()) < 1e-4 for values in within)
    alone, nothing = drawn.patch(image, None, **place, generator=np.random.default_rng(0))
    assert nothing is None
    assert len(alone.mul(1e3).round().unique()) == 4  # steps of intensity, where nobody labelled


def test_each_change_comes_as_often_as_its_probability_says():
    image, label = volume()
    augment = augmentation(noise_probability=0.3)
    place = {"centre": (8,) * 3, "size": (4,) * 3, "spacing_mm": (1,) * 3}
    plain = torch.from_numpy(image[:, 7:11, 7:11, 7:11])
    changed = [
        not torch.equal(augment.patch(image, label, **place, generator=np.random.default_rng(n))[0], plain)
        for n in range(600)
    ]
    assert 0.24 < np.mean(changed) < 0.36


def test_the_floor_of_a_volume_is_its_air():
    image, _ = volume((70, 80, 90), channels=2)
    image[1] += 10
    image[:, :20] = np.array([-3.0, 2.0])[:, None, None, None]
    image = np.maximum(image, np.array([-3.0, 2.0])[:, None, None, None]).astype(np.float32)
    assert volume_floor(image).tolist() == [-3.0, 2.0]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("dims", "centre", "size", "message"),
    [
        (3, (100, 5, 5), (8, 8, 8), "outside the volume"),
        (3, (5, 5, 5), (8, 8), "three numbers"),
        (3, (5, 5, 5), (8, 0, 8), "at least 1"),
        (2, (5, 5, 5), (8, 8, 8), "must be 1"),
    ],
)
def test_a_patch_that_can_not_be_is_an_error_of_one_line(dims, centre, size, message):
    image, label = volume()
    with pytest.raises(ValueError, match=message) as error:
        augmentation(dims).patch(
            image, label, centre=centre, size=size, spacing_mm=(1,) * 3, generator=np.random.default_rng(0)
        )
    assert "\n" not in str(error.value)


def test_an_image_and_a_label_of_different_grids_are_an_error():
    image, label = volume()
    with pytest.raises(ValueError, match="share one grid"):
        augmentation().patch(
            image, label[1:], centre=(9,) * 3, size=(4,) * 3, spacing_mm=(1,) * 3, generator=np.random.default_rng(0)
        )


def test_four_dimensions_are_an_error():
    with pytest.raises(ValueError, match="2 or 3"):
        augmentation(4)
