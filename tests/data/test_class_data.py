"""Data sets of classification: folders, parts, tables and volumes give items; what does not fit gives one line."""

import os

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError
from tiny_pictures import put_folders, put_picture, put_table, subjects_table

from segmed.config.images import ClassDataConfig, ClassManifestLayout, ClassVolumesLayout, FoldersLayout
from segmed.data.images.image_dataset import read_classes
from segmed.errors import DatasetError

HEADER = ("image", "label", "subject", "slice", "split")


def folders(root, **fields):
    parts = {"parts": fields.pop("parts")} if "parts" in fields else {}
    return read_classes(ClassDataConfig(root=root, layout=FoldersLayout(**parts), **fields))


def manifest(root, *, layout=None, **fields):
    return read_classes(ClassDataConfig(root=root, layout=ClassManifestLayout(**(layout or {})), **fields))


def refusal(read, *args, **fields) -> str:
    with pytest.raises(DatasetError) as caught:
        read(*args, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- folders


def test_folders_are_classes_in_alphabetical_order(tmp_path):
    put_folders(tmp_path, {"yes": 3, "no": 2, "no/deeper": 1})
    (tmp_path / "no" / "Thumbs.db").write_text("")
    (tmp_path / "no" / ".hidden.png").write_text("")
    dataset = folders(tmp_path)
    assert dataset.classes == ("no", "yes")
    assert dataset.counts() == {"no": 3, "yes": 3}
    assert dataset.items[0].id == "no/deeper/im_000.png"
    assert [item.id for item in dataset.items] == sorted(item.id for item in dataset.items)
    assert not dataset.subjects_known
    assert dataset.parts is None
    assert all(item.subject == item.id and item.path.is_file() for item in dataset.items)
    assert "no subjects given" in dataset.describe()


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "test"), ("TRAIN", "val")])
def test_published_parts_are_recognised(tmp_path, names):
    put_folders(tmp_path, {f"{part}/{label}": 2 for part in names for label in "ab"})
    dataset = folders(tmp_path)
    other = "validation" if names[1] == "val" else "test"
    assert {part: len(ids) for part, ids in dataset.parts.items()} == {"train": 4, other: 4}
    assert {item.part for item in dataset.items if item.id.startswith(names[0])} == {"train"}
    assert dataset.classes == ("a", "b")


def test_parts_of_any_name_are_told(tmp_path):
    put_folders(tmp_path, {f"{part}/{label}": 1 for part in ("learn", "exam") for label in "ab"})
    dataset = folders(tmp_path, parts={"learn": "train", "exam": "test"})
    assert dataset.parts == {"train": ("learn/a/im_000.png", "learn/b/im_000.png"), "test": dataset.parts["test"]}
    assert "no folder 'leanr'" in refusal(folders, tmp_path, parts={"leanr": "train", "exam": "test"})


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 2, "b": 0}, "class folder b holds no images: fill it, or leave 'b' out of data.classes"),
        ({"Training/a": 1, "Training/b": 1, "Testing/a": 1, "Testing/b": 0}, "class folder Testing/b holds no images"),
        ({"a": 2}, "leaves only class 'a': classification needs two"),
        ({"Mild": 1, "mild ": 1}, "classes 'Mild' and 'mild ', which differ in spelling alone"),
        ({"train/a": 1, "Training/a": 1, "test/a": 1}, "the part train twice, Training and train"),
        ({"train/a": 1, "test/a": 1, "more/a": 1}, "folder 'more' beside those of the parts"),
        ({".": 3}, "holds images but no class folders"),
        ({"a": 1, "b": 1, ".": 2}, "2 images lie beside the class folders"),
        ({}, "no class folders"),
    ],
)
def test_folders_that_do_not_fit_are_one_line(tmp_path, counts, message):
    assert message in refusal(folders, put_folders(tmp_path, counts))


def test_a_missing_root_is_one_line(tmp_path):
    assert "set data.root" in refusal(folders, tmp_path / "gone")


def test_an_empty_folder_that_no_class_names_is_no_matter(tmp_path):
    put_folders(tmp_path, {"a": 1, "b": 1, "empty": 0})
    assert folders(tmp_path, classes={"a": "a", "b": "b"}).dropped == {}


# ---------------------------------------------------------------- classes


def test_classes_are_merged_dropped_and_counted(tmp_path):
    put_folders(tmp_path, {"Non": 4, "Mild": 2, "Moderate": 1, "Other": 3})
    dataset = folders(tmp_path, classes={"none": "Non", "demented": ("Mild", "Moderate")})
    assert dataset.classes == ("none", "demented")
    assert dataset.counts() == {"none": 4, "demented": 3}
    assert dataset.dropped == {"Other": 3}
    assert "3 of 'Other' left out" in dataset.describe()


def test_an_unknown_class_is_answered_with_the_nearest(tmp_path):
    put_folders(tmp_path, {"Mild_Demented": 1, "Non_Demented": 1})
    message = refusal(folders, tmp_path, classes={"mild": "Mild_Dementd", "non": "Non_Demented"})
    assert "unknown class 'Mild_Dementd': did you mean 'Mild_Demented'?" in message


@pytest.mark.parametrize(
    ("classes", "message"),
    [({}, "leaves no class"), ({"a": "a"}, "leaves only class 'a'"), ({"a": "a", "b": ()}, "'b' names no folder")],
)
def test_too_few_classes_are_one_line(tmp_path, classes, message):
    assert message in refusal(folders, put_folders(tmp_path, {"a": 1, "b": 1}), classes=classes)


def test_a_folder_may_stand_in_one_class_only():
    with pytest.raises(ValidationError, match="'x' stands in 'a' and in 'b'"):
        ClassDataConfig(classes={"a": ("x", "y"), "b": ("x",)})


def test_one_image_linked_into_two_classes_is_found(tmp_path):
    put_folders(tmp_path, {"a": 2, "b": 1})
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "a" / "im_001.png")
    message = refusal(folders, tmp_path)
    assert "one image stands in two classes: 'a/im_001.png' in 'a', 'b/link.png' in 'b'" in message
    assert folders(put_folders(tmp_path, {"c": 1}), classes={"ab": ("a", "b"), "c": "c"}).counts() == {"ab": 4, "c": 1}


# ---------------------------------------------------------------- subjects


def test_subjects_are_found_in_the_ids(tmp_path):
    put_picture(tmp_path / "a" / "P01_left.png")
    put_picture(tmp_path / "a" / "P01_right.png")
    put_picture(tmp_path / "b" / "P02_left.png")
    dataset = folders(tmp_path, subject=r"(P\d+)_")
    assert [item.subject for item in dataset.items] == ["P01", "P01", "P02"]
    assert dataset.subjects_known
    assert "is not found in the id 'a/P01_left.png'" in refusal(folders, tmp_path, subject=r"S(\d+)")
    assert not folders(tmp_path, subject="twins").subjects_known


def test_a_column_of_subjects_counts_even_where_each_has_one_image(tmp_path):
    put_table(tmp_path, [("1.png", "a", "1.png"), ("2.png", "b", "2.png")], ("image", "label", "subject"))
    assert manifest(tmp_path).subjects_known


def test_a_broken_expression_is_refused_by_the_config():
    with pytest.raises(ValidationError, match="not a regular expression"):
        ClassDataConfig(subject="(P")


# ---------------------------------------------------------------- tables


def test_a_table_gives_subject_slice_and_part(tmp_path):
    rows = [("x/1.png", "b", "s1", 7, "Training"), ("x/2.png", "a", "s2", "", "val"), ("x/3.png", "a", "s2", 1, "test")]
    dataset = manifest(put_table(tmp_path, rows, HEADER))
    first, second, third = dataset.items
    assert (first.id, first.label, first.subject, first.slice, first.part) == ("x/1.png", 1, "s1", 7, "train")
    assert (second.slice, second.part, third.part) == (None, "validation", "test")
    assert dataset.parts == {"train": ("x/1.png",), "validation": ("x/2.png",), "test": ("x/3.png",)}


def test_columns_may_have_other_names(tmp_path):
    put_table(tmp_path, [("1.png", "a", "s1"), ("2.png", "b", "s2")], ("file", "diagnosis", "patient"))
    columns = {"image": "file", "label": "diagnosis", "subject": "patient"}
    assert [item.subject for item in manifest(tmp_path, layout=columns).items] == ["s1", "s2"]
    message = refusal(manifest, tmp_path, layout=columns | {"image": "fil"})
    assert "no column 'fil': set data.layout.image: did you mean 'file'?" in message


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("gone1.png", "a", "s", 1, "train"), ("gone2.png", "b", "t", 1, "train")], "names 2 files that are not"),
        ([(f"gone{n}.png", "a", "s", 1, "test") for n in range(7)], "gone4.png (row 5) and 2 more: copy them again"),
        ([("1.png", "a", "s", 1, "train"), ("./1.png", "b", "s", 1, "train")], "'./1.png' in 'a' and in 'b', rows 1"),
        ([("1.png", "a", "s", 1, "train"), ("1.png", "a", "s", 1, "train")], "'1.png' twice, rows 1 and 2"),
        ([("1.png", "", "s", 1, "train")], "row 1 has no label"),
        ([("1.png", "a", "", 1, "train")], "row 1 has no subject"),
        ([("1.png", "a", "s", 1, "exam")], "row 1 has the split 'exam': write train, validation or test"),
        ([("1.png", "a", "s", 1, "")], "row 1 has no split"),
        ([("1.png", "a", "s", "first", "train")], "row 1 has the slice 'first': give a whole number"),
        ([("", "a", "s", 1, "train")], "row 1 has no image"),
        ([], "has no rows"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_one_line(tmp_path, rows, message):
    assert message in refusal(manifest, put_table(tmp_path, rows, HEADER))


def test_a_missing_table_is_one_line(tmp_path):
    assert "manifest.csv does not exist" in refusal(manifest, tmp_path)


def test_unknown_labels_of_a_table_are_counted(tmp_path):
    subjects_table(tmp_path, {"a": 2, "b": 2, "artefact": 1})
    assert manifest(tmp_path, classes={"a": "a", "b": "b"}).dropped == {"artefact": 3}


# ---------------------------------------------------------------- volumes


def test_volumes_in_class_folders_are_items(tmp_path):
    for name in ("old/p1.nii.gz", "old/p2.nii.gz", "young/p3.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / name)
    dataset = read_classes(ClassDataConfig(root=tmp_path, layout=ClassVolumesLayout()))
    assert [item.id for item in dataset.items] == ["old/p1.nii.gz", "old/p2.nii.gz", "young/p3.nii"]
    assert dataset.counts() == {"old": 2, "young": 1}
    assert "but volumes: choose data.layout volumes" in refusal(folders, tmp_path)
    put_folders(tmp_path / "flat", {"a": 1, "b": 1})
    with pytest.raises(DatasetError, match=r"but images: choose data\.layout folders"):
        read_classes(ClassDataConfig(root=tmp_path / "flat", layout=ClassVolumesLayout()))


def test_a_link_in_a_circle_ends(tmp_path):
    put_folders(tmp_path, {"a": 1, "b": 1})
    os.symlink(tmp_path / "a", tmp_path / "a" / "again")
    assert folders(tmp_path).counts() == {"a": 1, "b": 1}


def test_items_are_found_by_id(tmp_path):
    dataset = folders(put_folders(tmp_path, {"a": 2, "b": 1}))
    assert [item.id for item in dataset.of(["b/im_000.png", "a/im_001.png"])] == ["b/im_000.png", "a/im_001.png"]
    assert dataset.counts(["b/im_000.png"]) == {"a": 0, "b": 1}
    with pytest.raises(DatasetError, match=r"image 'c.png' of the split is not in .* any more \(1 missing\)"):
        dataset.of(["c.png", "b/im_000.png"])


# ---------------------------------------------------------------- real sets


def test_tumor_yesno_has_155_with_and_98_without(real_data):
    dataset = folders(real_data("tumor_yesno"))
    assert dataset.counts() == {"no": 98, "yes": 155}


def test_tumor_pituitary_has_its_published_parts(real_data):
    dataset = folders(real_data("tumor_pituitary_224"))
    assert dataset.counts(dataset.parts["train"]) == {"no_tumor": 395, "pituitary_tumor": 827}
    assert dataset.counts(dataset.parts["test"]) == {"no_tumor": 105, "pituitary_tumor": 74}


def test_alzheimer_has_140_subjects(real_data):
    stages = {"none": "Non_Demented", "very_mild": "Very_Mild_Demented", "mild": ("Mild_Demented", "Moderate_Demented")}
    dataset = manifest(real_data("alzheimer_128"), classes=stages)
    assert dataset.counts() == {"none": 2240, "very_mild": 1568, "mild": 672}
    assert len({item.subject for item in dataset.items}) == 140
    assert dataset.subjects_known
