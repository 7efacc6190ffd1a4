"""Splits of classification: groups stay whole, every class is in every part, and a leak is found where there is one."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmed.config.images import ClassDataConfig, ClassManifestLayout, ClassSplitConfig, FoldersLayout
from segmed.data.images.image_dataset import ClassDataset, Item, read_classes
from segmed.data.images.image_splits import ClassSplit, leaks, make_class_split, split_groups
from segmed.errors import DatasetError

PARTS = ("train", "validation", "test")


def class_dataset(subjects, *, slices=(3,), known=True, parts=None) -> ClassDataset:
    """Class -> number of subjects; the slices of each in turn."""
    items = []
    for label, (name, count) in enumerate(subjects.items()):
        for subject in range(count):
            for number in range(slices[subject % len(slices)]):
                key = f"{name}{subject:03d}_{number:02d}.png"
                part = parts[subject % len(parts)] if parts else None
                items.append(Item(key, Path(key), label, f"{name}{subject:03d}" if known else key, number, part))
    items.sort(key=lambda item: item.id)
    given_parts = {p: tuple(i.id for i in items if i.part == p) for p in PARTS if any(i.part == p for i in items)}
    return ClassDataset("made", Path("made"), tuple(items), tuple(subjects), given_parts or None, {}, known)


def sides(split: ClassSplit) -> list[tuple[str, ...]]:
    return [getattr(split, part) for part in PARTS]


configs = st.builds(
    ClassSplitConfig, test=st.floats(0.05, 0.4), validation=st.floats(0.05, 0.4), seed=st.integers(0, 9)
)


@settings(max_examples=30, deadline=None)
@given(
    config=configs,
    counts=st.lists(st.integers(3, 30), min_size=2, max_size=4),
    slices=st.lists(st.integers(1, 6), min_size=1, max_size=3),
)
def test_subjects_stay_whole_and_every_class_is_in_every_part(config, counts, slices):
    dataset = class_dataset({f"c{index}": count for index, count in enumerate(counts)}, slices=tuple(slices))
    split = make_class_split(dataset, config)
    assert sorted(sum(sides(split), ())) == [item.id for item in dataset.items]
    assert leaks(split, {item.id: item.subject for item in dataset.items}) == ()
    for part in sides(split):
        assert all(dataset.counts(part).values())
        assert list(part) == sorted(part)


@settings(max_examples=30, deadline=None)
@given(rare=st.integers(3, 6), common=st.integers(6, 60), seed=st.integers(0, 9))
def test_over_all_folds_every_image_is_tested_once_and_no_fold_misses_a_rare_class(rare, common, seed):
    dataset = class_dataset({"rare": rare, "common": common}, slices=(2, 5, 1))
    splits = [make_class_split(dataset, ClassSplitConfig(folds=3, fold=fold, seed=seed)) for fold in range(3)]
    tested = [name for split in splits for name in split.test]
    assert sorted(tested) == [item.id for item in dataset.items]
    assert all(dataset.counts(split.test)["rare"] for split in splits)
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 2 * 5
    assert [(split.fold, split.folds) for split in splits] == [(fold, 3) for fold in range(3)]


def test_shares_are_as_asked_in_every_class():
    dataset = class_dataset({"a": 100, "b": 40}, slices=(4,))
    split = make_class_split(dataset, ClassSplitConfig(test=0.2, validation=0.25))
    assert dataset.counts(split.test) == {"a": 80, "b": 32}
    assert dataset.counts(split.validation) == {"a": 80, "b": 32}
    assert dataset.counts(split.train) == {"a": 240, "b": 96}


def test_the_same_seed_gives_the_same_parts_and_another_seed_others():
    dataset = class_dataset({"a": 20, "b": 20})
    first, again, other = (make_class_split(dataset, ClassSplitConfig(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.test != other.test


def test_the_validation_share_does_not_change_the_test_part():
    dataset = class_dataset({"a": 20, "b": 20})
    few, many = (make_class_split(dataset, ClassSplitConfig(validation=share)) for share in (0.1, 0.4))
    assert few.test == many.test


def test_shares_of_zero_leave_parts_empty():
    dataset = class_dataset({"a": 3, "b": 3})
    split = make_class_split(dataset, ClassSplitConfig(test=0, validation=0))
    assert [len(part) for part in sides(split)] == [18, 0, 0]


@pytest.mark.parametrize(
    ("subjects", "config", "message"),
    [
        ({"a": 9, "b": 1}, {}, "class 'b' has 1 subject, but 3 parts or folds: merge it with another"),
        ({"a": 9, "b": 2}, {}, "class 'b' has 2 subjects, but 3 parts"),
        ({"a": 9, "b": 4}, {"fold": 0, "folds": 5}, "class 'b' has 4 subjects, but 5 parts or folds"),
        ({"a": 9, "b": 1}, {"by": "image", "test": 0.5}, None),
        ({"a": 9, "b": 2}, {"validation": 0.0}, None),
    ],
)
def test_a_class_with_too_few_subjects_is_one_line(subjects, config, message):
    dataset = class_dataset(subjects)
    if message is None:
        assert all(dataset.counts(make_class_split(dataset, ClassSplitConfig(**config)).test).values())
        return
    with pytest.raises(DatasetError, match=message):
        make_class_split(dataset, ClassSplitConfig(**config))


# ---------------------------------------------------------------- twins


def test_twins_stay_together():
    dataset = class_dataset({"a": 12, "b": 12}, slices=(1,), known=False)
    twins = {item.id: f"g{index // 3}" for index, item in enumerate(dataset.items)}
    for by in ("twins", "auto"):
        split = make_class_split(dataset, ClassSplitConfig(by=by), twins=twins)
        assert leaks(split, twins) == ()
    apart = make_class_split(dataset, ClassSplitConfig(by="image"))
    assert leaks(apart, twins)


def test_subjects_that_share_a_twin_become_one_group():
    dataset = class_dataset({"a": 4, "b": 4}, slices=(2,))
    twins = {"a000_01.png": "g", "b003_00.png": "g", "a001_00.png": "h", "a001_01.png": "h"}
    groups = split_groups(dataset, "auto", twins=twins)
    assert groups["a000_00.png"] == groups["b003_01.png"] == "a000"
    assert len(set(groups.values())) == 7
    assert split_groups(dataset, "subject", twins=twins)["b003_00.png"] == "b003"
    assert len(set(split_groups(dataset, "twins", twins=twins).values())) == 14


def test_leaks_name_the_groups_on_two_sides():
    split = ClassSplit(train=("1", "2"), validation=("3",), test=("4", "5"))
    assert leaks(split, {"1": "x", "4": "x", "2": "y", "3": "y", "5": "z"}) == ("x", "y")
    assert leaks(split, {}) == ()


def test_a_random_split_of_slices_leaks_nearly_every_subject():
    dataset = class_dataset({"a": 20, "b": 20}, slices=(30,))
    split = make_class_split(dataset, ClassSplitConfig(by="image"))
    assert len(leaks(split, {item.id: item.subject for item in dataset.items})) == 40


@pytest.mark.parametrize(
    ("by", "message"), [("subject", "says nothing of subjects"), ("twins", "that the audit finds")]
)
def test_there_must_be_something_to_split_by(by, message):
    with pytest.raises(DatasetError, match=message):
        make_class_split(class_dataset({"a": 9, "b": 9}, known=False), ClassSplitConfig(by=by))


# ---------------------------------------------------------------- published parts and files


def test_published_parts_are_kept_and_validation_comes_from_training():
    dataset = class_dataset({"a": 12, "b": 12}, parts=("train", "train", "test"))
    split = make_class_split(dataset, ClassSplitConfig(by="given", validation=0.25))
    assert split.test == tuple(sorted(dataset.parts["test"]))
    assert sorted((*split.train, *split.validation)) == sorted(dataset.parts["train"])
    assert dataset.counts(split.validation) == {"a": 6, "b": 6}
    assert leaks(split, {item.id: item.subject for item in dataset.items}) == ()


def test_a_published_validation_part_is_kept():
    dataset = class_dataset({"a": 6, "b": 6}, parts=PARTS)
    split = make_class_split(dataset, ClassSplitConfig(by="given"))
    assert {part: tuple(sorted(ids)) for part, ids in dataset.parts.items()} == dict(
        zip(PARTS, sides(split), strict=True)
    )


def test_parts_that_are_not_there_are_one_line():
    with pytest.raises(DatasetError, match="no published train part"):
        make_class_split(class_dataset({"a": 6, "b": 6}), ClassSplitConfig(by="given"))
    with pytest.raises(DatasetError, match="no published test part"):
        make_class_split(class_dataset({"a": 6, "b": 6}, parts=("train", "validation")), ClassSplitConfig(by="given"))


def test_a_test_class_that_training_never_saw_is_one_line():
    dataset = class_dataset({"a": 6, "b": 1}, parts=("test", "train", "train"))
    with pytest.raises(DatasetError, match="class 'b' is in the test part, but training never saw it"):
        make_class_split(dataset, ClassSplitConfig(by="given"))


def test_a_split_comes_back_from_its_file(tmp_path):
    dataset = class_dataset({"a": 6, "b": 6})
    split = make_class_split(dataset, ClassSplitConfig(fold=1, folds=3, seed=4))
    split.save(tmp_path / "split.json")
    assert ClassSplit.load(tmp_path / "split.json") == split
    assert make_class_split(dataset, ClassSplitConfig(file=tmp_path / "split.json")) == split


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": ["gone.png"]}, "names 1 unknown images, e.g. 'gone.png'"),
        ({"test": []}, "leaves out 9 images|leaves out 6 images"),
        ({"validation": "all"}, "is not a split"),
        ({"by": "luck"}, "makes no sense"),
        ({"fold": "one"}, "makes no sense"),
    ],
)
def test_files_that_do_not_fit_are_one_line(tmp_path, change, message):
    dataset = class_dataset({"a": 6, "b": 6})
    path = tmp_path / "split.json"
    make_class_split(dataset, ClassSplitConfig()).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DatasetError, match=message):
        make_class_split(dataset, ClassSplitConfig(file=path))


def test_an_image_in_two_parts_of_a_file_is_one_line(tmp_path):
    dataset = class_dataset({"a": 6, "b": 6})
    split = make_class_split(dataset, ClassSplitConfig())
    ClassSplit(split.train, split.validation, (*split.test, split.train[0])).save(tmp_path / "s.json")
    with pytest.raises(DatasetError, match="twice: every image belongs to one part"):
        make_class_split(dataset, ClassSplitConfig(file=tmp_path / "s.json"))
    with pytest.raises(DatasetError, match=r"gone\.json does not exist"):
        make_class_split(dataset, ClassSplitConfig(file=tmp_path / "gone.json"))


# ---------------------------------------------------------------- real sets


def test_alzheimer_splits_by_subject_and_an_image_split_leaks(real_data):
    classes = {
        "none": "Non_Demented",
        "very_mild": "Very_Mild_Demented",
        "mild": ("Mild_Demented", "Moderate_Demented"),
    }
    config = ClassDataConfig(root=real_data("alzheimer_128"), layout=ClassManifestLayout(), classes=classes)
    dataset = read_classes(config)
    subjects = {item.id: item.subject for item in dataset.items}
    split = make_class_split(dataset, ClassSplitConfig(by="subject"))
    assert leaks(split, subjects) == ()
    shares = np.array(list(dataset.counts(split.test).values())) / list(dataset.counts().values())
    np.testing.assert_allclose(shares, 0.2, atol=0.02)
    images = make_class_split(dataset, ClassSplitConfig(by="image"))
    assert len(leaks(images, subjects)) == 140
    sizes = [len(make_class_split(dataset, ClassSplitConfig(fold=fold)).test) for fold in range(5)]
    assert sum(sizes) == 4480
    assert max(sizes) - min(sizes) <= 32


def test_moderate_dementia_alone_has_too_few_subjects(real_data):
    dataset = read_classes(ClassDataConfig(root=real_data("alzheimer_128"), layout=ClassManifestLayout()))
    with pytest.raises(DatasetError, match=r"class 'Moderate_Demented' has [12] subjects?, but 3 parts"):
        make_class_split(dataset, ClassSplitConfig(by="subject"))


def test_the_published_split_of_tumor_pituitary_is_kept(real_data):
    dataset = read_classes(ClassDataConfig(root=real_data("tumor_pituitary_224"), layout=FoldersLayout()))
    split = make_class_split(dataset, ClassSplitConfig(by="given"))
    assert (len(split.train) + len(split.validation), len(split.test)) == (1222, 179)
