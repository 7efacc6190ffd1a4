"""Copies planted among heads that all look alike: what is found, and that nothing else is."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from made_heads import SIDE, heads, jpeg, resized, save
from scipy import ndimage

from segmed.data.images.picture import grey, read_picture
from segmed.data.leaks.alignment import likeness
from segmed.data.leaks.thumbnails import SIZE, pixel_key, thumbnail
from segmed.data.leaks.twins import (
    CUT,
    MOVES,
    NEAR,
    Twin,
    coarse,
    descriptors,
    moved,
    twin_groups,
    twins_of,
)

COPIES = {
    "resized to 0.6": lambda p: resized(p, 58, 58),
    "enlarged to 1.7": lambda p: resized(p, 163, 163),
    "another aspect": lambda p: resized(p, SIDE, 130),
    "JPEG 50": lambda p: jpeg(p, 50),
    "JPEG 20": lambda p: jpeg(p, 20),
    "flipped": lambda p: p[:, ::-1],
    "upside down": lambda p: p[::-1],
    "turned by 90": lambda p: np.rot90(p),
    "gamma 0.6": lambda p: p**0.6,
    "gamma 1.6": lambda p: p**1.6,
    "half as bright": lambda p: 0.5 * p,
    "cropped by 4 %": lambda p: p[4:-4, 4:-4],
    "padded": lambda p: np.pad(p, ((20, 20), (5, 12))),
    "turned by 8 degrees": lambda p: ndimage.rotate(p, 8, reshape=False, order=1),
    "shifted": lambda p: ndimage.shift(p, (3, -4), order=1),
    "flipped, JPEG 50, 0.7": lambda p: jpeg(resized(p[:, ::-1], 67, 67), 50),
}
PLANTED = 3  # heads that have a copy of each kind, and no other
HEADS = PLANTED * len(COPIES)


def find_twins(ids, pictures) -> tuple[Twin, ...]:
    return twins_of(ids, [thumbnail(picture) for picture in pictures])


@cache
def originals() -> np.ndarray:
    return heads(HEADS)[:, 0]


def kind_of(number: int) -> str:
    return list(COPIES)[number % len(COPIES)]


@cache
def planted_twins() -> tuple[Twin, ...]:
    """Twins among the heads and a copy of each."""
    copies = [np.ascontiguousarray(COPIES[kind_of(number)](head)) for number, head in enumerate(originals())]
    names = [f"{what} {number}" for what in ("head", "copy") for number in range(HEADS)]
    return find_twins(names, [*originals(), *copies])


# ---------------------------------------------------------------- precision and recall


@pytest.mark.parametrize("kind", COPIES)
def test_every_planted_copy_is_found(kind):
    pairs = {(twin.a, twin.b) for twin in planted_twins()}
    of_this_kind = [number for number in range(HEADS) if kind_of(number) == kind]
    assert {(f"head {number}", f"copy {number}") for number in of_this_kind} <= pairs
    assert len(of_this_kind) == PLANTED


def test_nothing_but_copies_is_found():
    assert len(planted_twins()) == HEADS
    assert all(twin.a.split()[1] == twin.b.split()[1] for twin in planted_twins())


def test_the_heads_look_alike_to_an_average_hash():
    """What makes the task hard, and such a hash useless: it links nearly all of them, as it does with real ones."""
    small = np.stack([resized(picture, 8, 8) for picture in originals()]).reshape(HEADS, -1)
    hashes = small > small.mean(axis=1, keepdims=True)
    distance = (hashes[:, None] != hashes[None]).sum(-1)[np.triu_indices(HEADS, 1)]
    assert (distance <= 5).mean() > 0.9  # the usual limit for duplicates
    whole = np.stack([thumbnail(picture).frames[0] for picture in originals()])
    features = descriptors(coarse(whole))
    assert (features @ features.T)[np.triu_indices(HEADS, 1)].max() < CUT


def test_neighbouring_slices_are_no_twins_though_more_alike_than_other_heads():
    slices = heads(3, slices=4, seed=3).reshape(-1, SIDE, SIDE)
    assert find_twins(list(map(str, range(12))), list(slices)) == ()
    features = descriptors(coarse(np.stack([thumbnail(picture).frames[1] for picture in slices])))
    products = (features @ features.T).reshape(3, 4, 3, 4)
    neighbours = [products[head, number, head, number + 1] for head in range(3) for number in range(3)]
    assert min(neighbours) > CUT > max(products[a, :, b].max() for a, b in ((0, 1), (0, 2), (1, 2)))


# ---------------------------------------------------------------- equal pixels


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_equal_pixels_in_another_format_are_twins_of_pixels(suffix, tmp_path):
    first = save(tmp_path / "a.png", originals()[0])
    options = {"lossless": True} if suffix == ".webp" else {}
    second = save(tmp_path / f"b{suffix}", originals()[0], **options)
    third = save(tmp_path / "c.png", originals()[1])
    assert first.read_bytes() != second.read_bytes() or suffix == ".png"
    pictures = [grey(read_picture(path)) for path in (first, second, third)]
    assert find_twins(["a", "b", "c"], pictures) == (Twin("a", "b", "pixels", 1.0),)


def test_the_key_of_pixels_is_that_of_grey_and_shape():
    picture = originals()[0]
    assert pixel_key(picture) == pixel_key(picture.astype(np.float64))
    assert pixel_key(picture) != pixel_key(picture[:, ::-1])
    assert pixel_key(np.zeros((2, 8))) != pixel_key(np.zeros((4, 4)))
    step = picture.copy()
    step[40, 40] += 1 / 255
    assert pixel_key(picture) != pixel_key(step)


def test_of_many_equal_pictures_each_is_linked_and_not_every_pair_is_listed():
    names = [str(number) for number in range(100)]
    twins = find_twins(names, [originals()[0]] * 100)
    assert len(twins) == 99
    assert len(set(twin_groups(names, twins).values())) == 1


def test_flat_pictures_are_twins_only_where_their_pixels_are():
    pictures = [np.full((40, 40), 0.5), np.full((40, 40), 0.5), np.full((50, 40), 0.5), np.zeros((40, 40))]
    assert find_twins("abcd", pictures) == (Twin("a", "b", "pixels", 1.0),)


@pytest.mark.parametrize(
    ("ids", "pictures", "line"),
    [
        (["a"], [np.zeros((3, 3)), np.ones((3, 3))], "1 ids of 2 pictures"),
        (["a", "a"], [np.zeros((3, 3)), np.ones((3, 3))], "an id of its own"),
        (["a"], [np.zeros((3, 3, 3))], "finite grey values"),
        (["a"], [np.full((3, 3), np.nan)], "finite grey values"),
    ],
)
def test_what_is_no_picture_or_has_no_id_is_refused(ids, pictures, line):
    with pytest.raises(ValueError, match=line):
        find_twins(ids, pictures)


def test_no_picture_and_one_picture_have_no_twins():
    assert find_twins([], []) == ()
    assert find_twins(["a"], [originals()[0]]) == ()


# ---------------------------------------------------------------- what was done to a copy


@pytest.mark.parametrize("move", MOVES[1:])
def test_the_move_that_makes_the_second_look_like_the_first_is_named(move):
    picture = originals()[5]
    (twin,) = find_twins(["a", "b"], [np.ascontiguousarray(moved(picture, move)), picture])
    assert (twin.kind, twin.transform) == ("near", move)
    assert twin.correlation > 0.999


@pytest.mark.parametrize(
    ("move", "same"),
    [
        ("", lambda p: p),
        ("flip_lr", np.fliplr),
        ("flip_ud", np.flipud),
        ("transpose", np.transpose),
        ("rot90", np.rot90),
        ("rot180", lambda p: np.rot90(p, 2)),
        ("rot270", lambda p: np.rot90(p, 3)),
        ("antitranspose", lambda p: np.rot90(p, 2).T),
    ],
)
def test_moves_are_those_of_numpy(move, same):
    picture = np.arange(16).reshape(4, 4)
    np.testing.assert_array_equal(moved(picture, move), same(picture))


def test_a_picture_turned_by_any_angle_is_named_so():
    picture = np.pad(originals()[2], 24)
    (twin,) = find_twins(["a", "b"], [picture, ndimage.rotate(picture, 33, reshape=False, order=1)])
    assert twin.transform.startswith("turned")


def test_likeness_does_not_change_with_brightness_contrast_and_a_shift():
    frames = torch.from_numpy(np.stack([thumbnail(p).frames[0] for p in originals()[:8]]).astype(np.float32))
    changed = 0.3 + 0.5 * torch.roll(frames, (1, 2), (1, 2))
    assert likeness(frames, changed).min() > NEAR
    assert likeness(frames, frames.flip(0)).max() < 0.8
    assert likeness(frames, torch.ones_like(frames)).abs().max() < 0.1


def test_small_copies_are_alike_however_much_black_is_around():
    picture = originals()[3]
    own, padded = thumbnail(picture).frames, thumbnail(np.pad(picture, ((50, 10), (0, 40)))).frames
    assert own.shape == (4, SIZE, SIZE)
    np.testing.assert_allclose(own[1:3].astype(float), padded[1:3].astype(float), atol=0.005)
    assert np.abs(own[0].astype(float) - padded[0]).max() > 0.3


# ---------------------------------------------------------------- groups


def test_groups_hang_together_through_twins_and_subjects():
    twins = [Twin("b", "a", "pixels", 1.0), Twin("b", "c", "near", 0.99), Twin("x", "d", "near", 0.99)]
    assert twin_groups("abcde", twins) == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e"}
    subjects = {"a": "1", "b": "2", "c": "3", "d": "3", "e": "4"}
    assert twin_groups("abcde", twins, subjects=subjects) == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e"}
    assert twin_groups("ab", []) == {"a": "a", "b": "b"}
    assert twin_groups("", []) == {}


# ---------------------------------------------------------------- real data


def test_127_of_the_179_published_test_images_stand_in_training_pixel_for_pixel(real_data):
    root = real_data("tumor_pituitary_224")
    keys = {part: [pixel_key(grey(read_picture(p))) for p in sorted((root / part).rglob("*.jpg"))] for part in
            ("Training", "Testing")}  # fmt: skip
    assert len(keys["Testing"]) == 179
    assert sum(key in set(keys["Training"]) for key in keys["Testing"]) == 127


def test_different_subjects_of_a_real_set_have_no_twins_at_the_same_slice(real_data):
    root = real_data("alzheimer_128")
    rows = [line.split(",") for line in (root / "manifest.csv").read_text().split()[1:]]
    same_slice = [row for row in rows if row[3] == "16"][:120]
    small = [thumbnail(grey(read_picture(root / row[0]))) for row in same_slice]
    assert len({row[2] for row in same_slice}) == len(same_slice) > 100
    assert twins_of([row[0] for row in same_slice], small) == ()
    features = descriptors(coarse(np.stack([each.frames[1] for each in small])))
    assert (features @ features.T)[np.triu_indices(len(small), 1)].max() < CUT
