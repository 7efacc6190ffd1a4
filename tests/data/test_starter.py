"""Folders that nobody described: what is guessed of them, and the YAML that says so."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.config import ManifestLayout, PatternLayout
from segmed.config.classification import ClassificationConfig
from segmed.config.reading import load_as, load_config
from segmed.data.cases import guess_layout, read_dataset
from segmed.data.leaks.guess_classes import guess_class_layout
from segmed.data.leaks.starter import starter_config
from segmed.data.manifest import csv_rows, read_manifest
from segmed.data.subjects import shared_prefixes
from segmed.errors import DatasetError
from segmed.volumes import write_volume


def volumes(folder, *names):
    """Label maps of two values, for images too: names are what matters."""
    voxels = torch.from_numpy(np.indices((4, 4, 3)).sum(0)[None] % 3).int()
    for name in names:
        write_volume(folder / name, MetaTensor(voxels, affine=torch.eye(4).double()))


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def bids(root):
    for subject in range(1, 6):
        for session in (1, 2):
            stem = f"sub-{subject:02d}_ses-{session}_T1w"
            inner = f"sub-{subject:02d}/ses-{session}/anat"
            volumes(root, f"{inner}/{stem}.nii.gz", f"derivatives/labels/{inner}/{stem}_dseg.nii.gz")
    return root


def test_images_and_contours_below_each_case_are_no_classes(tmp_path):
    for n in range(1, 6):
        volumes(tmp_path, f"P{n}/Images/P{n}.nii.gz", f"P{n}/Contours/P{n}.nii.gz")
    assert guess_class_layout(tmp_path) is None
    assert guess_layout(tmp_path) == PatternLayout(
        images={"image": "{case}/Images/{case}.nii.gz"}, label="{case}/Contours/{case}.nii.gz"
    )


def test_pictures_below_images_and_contours_are_no_classes(tmp_path):
    pictures(tmp_path, *(f"P{n}/{kind}/{k}.png" for n in range(3) for kind in ("Images", "Contours") for k in range(3)))
    assert guess_class_layout(tmp_path) is None


def test_numbered_folders_of_few_pictures_are_no_classes_and_grades_with_many_are(tmp_path):
    pictures(tmp_path / "cases", *(f"P{n}/{k}.png" for n in range(9) for k in range(2)))
    pictures(tmp_path / "grades", *(f"grade{n}/{n}_{k}.png" for n in range(5) for k in range(9)))
    assert guess_class_layout(tmp_path / "cases") is None
    assert guess_class_layout(tmp_path / "grades") is not None


def test_sessions_of_bids_are_cases_of_their_subjects(tmp_path):
    assert guess_class_layout(bids(tmp_path)) is None
    (tmp_path / "x.yaml").write_text(starter_config(tmp_path))
    dataset = read_dataset(load_config(tmp_path / "x.yaml").data)
    assert (len(dataset.cases), len({case.subject for case in dataset.cases}), dataset.subjects_known) == (10, 5, True)
    assert dataset.labels.names == ("label_1", "label_2")


def test_frames_with_label_maps_are_cases_and_the_whole_cine_beside_them_is_not(tmp_path):
    for n in range(1, 4):
        name = f"patient{n:03d}"
        volumes(
            tmp_path,
            *(f"{name}/{name}_{end}.nii.gz" for end in ("frame01", "frame01_gt", "frame12", "frame12_gt", "4d")),
        )
    layout = guess_layout(tmp_path)
    assert layout.images == {"image": "{subject}/{subject}_frame{case}.nii.gz"}
    assert layout.label == "{subject}/{subject}_frame{case}_gt.nii.gz"


def test_a_copy_of_the_classes_within_them_is_refused(tmp_path):
    names = [f"{label}/{n}.png" for label in ("yes", "no") for n in range(3)]
    pictures(tmp_path, *names, *(f"brain_tumor_dataset/{name}" for name in names))
    with pytest.raises(DatasetError, match=r"brain_tumor_dataset holds the folders no, yes again.*take it away"):
        guess_class_layout(tmp_path)


def test_beginnings_that_ids_share_are_written_as_subjects(tmp_path):
    volumes(tmp_path, *(f"p{n}_{scan}{end}.nii.gz" for n in range(4) for scan in "ab" for end in ("", "_seg")))
    (tmp_path / "x.yaml").write_text(starter_config(tmp_path))
    dataset = read_dataset(load_config(tmp_path / "x.yaml").data)
    assert sorted({case.subject for case in dataset.cases}) == ["p0", "p1", "p2", "p3"]


@pytest.mark.parametrize(
    ("ids", "expression"),
    [
        (["p1_s1", "p1_s2", "p2_s1", "p2_s2"], "^[^_]+"),
        (["P01a", "P01b", "P02a", "P02b"], "^.*[0-9]"),
        ([f"heart_{n:03d}" for n in range(20)], None),
        ([f"{site}_{n}" for site in "ab" for n in range(20)], None),
    ],
)
def test_shared_prefixes_are_those_of_few_cases_each(ids, expression):
    shared = shared_prefixes(ids)
    assert (shared and shared[0]) == expression


def test_a_folder_of_classes_becomes_a_config_of_classification_with_yes_and_no_as_words(tmp_path):
    pictures(tmp_path, *(f"{label}/{label}{n}.png" for label in ("yes", "no") for n in range(3)))
    (tmp_path / "x.yaml").write_text(starter_config(tmp_path))
    assert load_as(ClassificationConfig, tmp_path / "x.yaml").data.merges == {"no": ("no",), "yes": ("yes",)}
    (tmp_path / "y.yaml").write_text("data: {classes: [no, yes], layout: {name: folders}}\nleaks: {check: no}\n")
    config = load_as(ClassificationConfig, tmp_path / "y.yaml")
    assert (config.data.classes, config.leaks.check) == ({"no": "no", "yes": "yes"}, False)


def test_a_table_from_excel_is_read_with_its_first_line_empty_rows_and_backslashes(tmp_path):
    volumes(tmp_path, "scans/a b.nii.gz", "scans/a b_seg.nii.gz")
    text = "sep=;\r\nimage;label;subject\r\nscans\\a b.nii.gz;scans\\a b_seg.nii.gz;P1\r\n;;\r\n;;;\r\n"
    (tmp_path / "manifest.csv").write_bytes(text.encode("utf-8-sig"))
    assert len(csv_rows(tmp_path / "manifest.csv")) == 1
    content = read_manifest(tmp_path, ManifestLayout())
    assert (content.cases[0].label.path, content.subjects_known) == (tmp_path / "scans/a b_seg.nii.gz", True)


def test_two_rows_with_one_label_map_are_refused(tmp_path):
    (tmp_path / "manifest.csv").write_text("image,label\na.nii,x_seg.nii\nb.nii,x_seg.nii\n")
    with pytest.raises(DatasetError, match="rows 1 and 2 one label map"):
        read_manifest(tmp_path, ManifestLayout())


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.yaml").write_text("data: {root: ~/set}\n")
    assert load_config(tmp_path / "x.yaml").data.root == tmp_path / "set"
