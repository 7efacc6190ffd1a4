"""Subjects, slices and twins across a split, what they are worth, shortcuts, and the audit that says so."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_heads import SIDE, heads, jpeg, save, write_manifest

from segmed.config.images import ClassDataConfig, ClassManifestLayout, ClassVolumesLayout, FoldersLayout
from segmed.data.images.image_dataset import ClassDataset, read_classes
from segmed.data.leaks import survey as survey_module
from segmed.data.leaks.checks import check_classes
from segmed.data.leaks.image_audit import ClassAudit, audit_classes, features_of, groups_of
from segmed.data.leaks.image_facts import record
from segmed.data.leaks.leakage import find_leakage
from segmed.data.leaks.neighbour_classifier import neighbour_score
from segmed.data.leaks.neighbours import expected_across, most_alike, slices_across, subjects_across
from segmed.data.leaks.shortcuts import TOGETHER, find_shortcuts, one_hot
from segmed.data.leaks.survey import make_survey, survey_key
from segmed.data.leaks.thumbnails import thumbnail
from segmed.data.leaks.twins import CUT, coarse, descriptors
from segmed.errors import DatasetError
from segmed.reports.audit.leak_figures import leak_figure, worst_twins
from segmed.reports.drawing.slices import save_figure

SUBJECTS, SLICES = 8, 3
HEADS = heads(SUBJECTS, slices=SLICES, seed=11)


def class_of(subject: int) -> str:
    return "ill" if subject % 2 else "well"


@pytest.fixture
def folder(tmp_path):
    """Slices of subjects of two classes with a manifest; old enough to be remembered."""
    return make_set(tmp_path / "set")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The same, which no test changes, and a folder that remembers its survey."""
    root = tmp_path_factory.mktemp("clean")
    make_set(root / "set")
    make_survey(with_subjects(root / "set").items, cache=root / "cache")
    return root


def make_set(root: Path) -> Path:
    rows = []
    for subject in range(SUBJECTS):
        for number in range(SLICES):
            name = f"{class_of(subject)}/s{subject:02d}_{number}.png"
            save(root / name, HEADS[subject, number])
            rows.append({"image": name, "label": class_of(subject), "subject": f"s{subject:02d}", "slice": number})
    write_manifest(root, rows)
    return aged(root)


def aged(root: Path) -> Path:
    for path in root.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return root


def with_subjects(root: Path) -> ClassDataset:
    return read_classes(ClassDataConfig(root=root, layout=ClassManifestLayout()))


def without_subjects(root: Path) -> ClassDataset:
    (root / "manifest.csv").unlink(missing_ok=True)
    return read_classes(ClassDataConfig(root=root, layout=FoldersLayout()))


def parts_of(dataset: ClassDataset, *, by_subject: bool) -> dict[str, list[str]]:
    """A part tests: whole subjects, or the last slice of each."""
    parts: dict[str, list[str]] = {"train": [], "test": []}
    for item in dataset.items:
        subject, number = item.id[-8:-6], int(item.id[-5])
        tested = int(subject) >= 6 if by_subject else number == SLICES - 1
        parts["test" if tested else "train"].append(item.id)
    return parts


def findings_of(audit: ClassAudit, kind: str) -> list[str]:
    return [finding.what for finding in audit.findings if finding.kind == kind]


# ---------------------------------------------------------------- subjects and slices on two sides


SUBJECT_OF = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "c1": "c"}
PART_OF = {"a1": "train", "a2": "test", "a3": "train", "b1": "train", "b2": "train", "c1": "test"}


def test_subjects_in_several_parts_are_counted_part_by_part():
    assert subjects_across(SUBJECT_OF, PART_OF) == {"a": {"train": 2, "test": 1}}
    assert subjects_across(SUBJECT_OF, {**PART_OF, "a2": "train"}) == {}
    assert subjects_across(SUBJECT_OF, {"a1": "train", "b1": "test"}) == {}


def test_neighbouring_slices_are_those_one_apart_of_one_subject():
    slices = {"a1": 4, "a2": 5, "a3": 7, "b1": 4, "b2": 5, "c1": 5}
    assert slices_across(SUBJECT_OF, slices, PART_OF) == [("a1", "a2")]
    assert slices_across(SUBJECT_OF, {**slices, "a3": 6}, PART_OF) == [("a1", "a2"), ("a2", "a3")]
    assert slices_across(SUBJECT_OF, {**slices, "a2": 4}, PART_OF) == [("a1", "a2")]  # two scans of one slice
    assert slices_across(SUBJECT_OF, {}, PART_OF) == []


def test_a_random_split_of_images_puts_as_many_subjects_on_both_sides_as_drawing_shows():
    sizes = [1, 2, 5, 12]
    owner = np.repeat(np.arange(4), sizes)
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(owner) for _ in range(4000)]
    both = [len(set(order[:4]) & set(order[4:])) for order in drawn]
    assert expected_across(sizes, test=0.2) == pytest.approx(np.mean(both), abs=0.05)
    assert expected_across([1] * 50, test=0.2) == pytest.approx(0)
    assert expected_across([32] * 140, test=0.2) > 139.5


def test_the_most_alike_are_found_within_and_across_groups():
    features = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], dtype=np.float32)
    alike = most_alike(features, ["a", "a", "b", "c"])
    np.testing.assert_allclose(alike.within, [0.8, 0.8, np.nan, np.nan], atol=1e-6)
    np.testing.assert_allclose(alike.across, [0.6, 0.96, 0.96, 0.8], atol=1e-6)
    assert alike.nearest.tolist() == [2, 2, 1, 2]
    alone = most_alike(features, ["a"] * 4)
    assert np.isnan(alone.across).all()
    assert (alone.nearest == -1).all()


# ---------------------------------------------------------------- what the leak is worth


def test_the_nearest_neighbour_profits_from_slices_on_both_sides_and_not_from_heads():
    slices = heads(12, slices=4, seed=4)
    small = coarse(np.stack([thumbnail(picture).frames[0] for picture in slices.reshape(-1, SIDE, SIDE)]))
    labels = np.repeat(np.arange(12) % 2, 4)
    subjects = np.repeat([f"s{number}" for number in range(12)], 4)
    leaking, honest = neighbour_score(small, labels), neighbour_score(small, labels, subjects)
    assert leaking.accuracy > 0.95
    assert honest.accuracy < 0.75  # the classes mean nothing
    assert leaking.majority == 0.5


def test_the_nearest_neighbour_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    groups = [str(number) for number in range(30)]
    score = neighbour_score(values, labels, groups)
    assert score.folds == 5
    assert score.majority == pytest.approx(np.bincount(labels).max() / 30)
    assert 0 <= score.balanced_accuracy <= 1


def test_without_two_groups_of_two_classes_there_is_no_score():
    values = np.zeros((6, 2))
    assert neighbour_score(values, [0, 0, 0, 1, 1, 1], ["a", "a", "a", "b", "b", "b"]) is None
    assert neighbour_score(values, [0] * 6) is None


# ---------------------------------------------------------------- shortcuts


def random_features(count: int = 200) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], count // 2)
    told = labels * 10.0 + rng.normal(size=count)
    return {"told": told, "noise": rng.normal(size=count), "same": np.ones(count)}, labels, list(map(str, range(count)))


def test_a_feature_that_tells_the_class_is_named_and_noise_is_not():
    shortcuts = {each.feature: each for each in find_shortcuts(*random_features())}
    assert set(shortcuts) == {"told", "noise", TOGETHER}
    assert shortcuts["told"].balanced_accuracy > 0.98
    assert shortcuts["told"].tells
    assert shortcuts[TOGETHER].tells
    assert not shortcuts["noise"].tells
    assert shortcuts["noise"].chance_low < shortcuts["noise"].balanced_accuracy < shortcuts["noise"].chance_high + 0.03


def test_a_feature_of_the_subject_is_no_shortcut_when_subjects_stay_together():
    """Each subject has its own brightness: a split of images would learn it by heart."""
    rng = np.random.default_rng(3)
    labels, subjects = rng.permutation(np.repeat([0, 1], 10)).repeat(10), np.arange(20).repeat(10)
    brightness = {"brightness": rng.normal(size=20)[subjects] + 0.001 * rng.normal(size=200)}
    (apart,) = find_shortcuts(brightness, labels, [str(number) for number in range(200)])
    (together,) = find_shortcuts(brightness, labels, [f"s{number}" for number in subjects])
    assert apart.balanced_accuracy > 0.65
    assert not together.tells
    assert together.chance_high - together.chance_low > apart.chance_high - apart.chance_low


def test_chance_has_a_range_where_every_subject_is_in_both_classes():
    labels, subjects = np.tile([0, 0, 1, 1], 30), [f"s{number // 4}" for number in range(120)]
    noise = {"noise": np.random.default_rng(4).normal(size=120)}
    (shortcut,) = find_shortcuts(noise, labels, subjects)
    assert shortcut.chance_low < 0.45 < 0.55 < shortcut.chance_high
    assert not shortcut.tells


def test_one_class_and_too_few_groups_have_no_shortcuts():
    features, labels, groups = random_features()
    assert find_shortcuts(features, np.zeros(200), groups) == ()
    assert find_shortcuts(features, labels, ["a" if label else "b" for label in labels]) == ()
    assert find_shortcuts({"same": np.ones(200)}, labels, groups) == ()


def test_names_become_columns_of_zeros_and_ones():
    np.testing.assert_array_equal(one_hot(["b", "a", "b"]), [[0, 1], [1, 0], [0, 1]])


# ---------------------------------------------------------------- leakage of a split


def test_a_split_by_subject_has_nothing_in_common(clean):
    dataset = with_subjects(clean / "set")
    leakage = find_leakage(
        dataset, make_survey(dataset.items, cache=clean / "cache"), parts_of(dataset, by_subject=True)
    )
    assert not leakage.leaks
    assert leakage.findings == ()
    assert leakage.sizes == {"train": 18, "test": 6}
    assert leakage.alike["test"] == 0


def test_a_split_by_image_has_every_subject_and_its_neighbouring_slices_on_both_sides(clean):
    dataset = with_subjects(clean / "set")
    leakage = find_leakage(
        dataset, make_survey(dataset.items, cache=clean / "cache"), parts_of(dataset, by_subject=False)
    )
    assert leakage.leaks
    assert len(leakage.subjects) == SUBJECTS
    assert leakage.subjects["s00"] == {"train": 2, "test": 1}
    assert leakage.slices == SUBJECTS
    assert leakage.alike["test"] > 0.9
    (finding,) = leakage.findings
    assert (finding.severity, finding.kind) == ("error", "subjects_across_parts")
    assert "8 subjects have images in several parts: s00" in finding.what
    assert "8 pairs of neighbouring slices" in finding.what


def test_without_subjects_neighbouring_slices_can_not_be_excluded_and_how_alike_they_are_is_said(clean):
    dataset = read_classes(ClassDataConfig(root=clean / "set", layout=FoldersLayout()))
    leakage = find_leakage(
        dataset, make_survey(dataset.items, cache=clean / "cache"), parts_of(dataset, by_subject=False)
    )
    assert not leakage.leaks
    (finding,) = leakage.findings
    assert (finding.severity, finding.kind) == ("warning", "subjects_unknown")
    assert "can't be excluded" in finding.what
    assert f"{leakage.alike['test']:.0%} of the test images" in finding.what


def test_test_images_that_stand_in_training_are_listed_by_their_pixels_and_as_changed_copies(folder):
    save(folder / "ill" / "s99_2.bmp", HEADS[1, 0])
    save(folder / "well" / "s98_2.png", jpeg(HEADS[4, 0][:, ::-1], 50))
    dataset = without_subjects(folder)
    parts = parts_of(dataset, by_subject=True)
    leakage = find_leakage(dataset, make_survey(dataset.items), parts)
    assert leakage.leaks
    assert leakage.same_pixels == {"test": ("ill/s99_2.bmp",)}
    assert set(leakage.twins["test"]) == {"ill/s99_2.bmp", "well/s98_2.png"}
    assert list(leakage.pairs) == ["test + train"]
    line = leakage.findings[0].what
    assert "2 of 8 test images stand in the training part too, 1 pixel for pixel, the others changed" in line


def test_a_copy_of_a_copy_leads_back_to_training(folder):
    for name in ("ill/t1_0.png", "ill/t2_0.png"):
        save(folder / name, HEADS[1, 0])
    dataset = without_subjects(folder)
    parts = {"train": ["ill/s01_0.png"], "validation": ["ill/t1_0.png"], "test": ["ill/t2_0.png"]}
    leakage = find_leakage(dataset, make_survey(dataset.items), parts)
    assert leakage.same_pixels == {"validation": ("ill/t1_0.png",), "test": ("ill/t2_0.png",)}
    assert {finding.kind for finding in leakage.findings if finding.severity == "error"} == {"twins_across_parts"}
    assert any("stand in validation and test" in finding.what for finding in leakage.findings)


# ---------------------------------------------------------------- the survey, and what it remembers


def test_a_second_survey_reads_no_file_and_a_changed_file_is_seen(folder, tmp_path, monkeypatch):
    items = with_subjects(folder).items
    first = make_survey(items, cache=tmp_path / "cache")
    monkeypatch.setattr(survey_module, "record", lambda *_: pytest.fail("a file was read again"))
    again = make_survey(items, cache=tmp_path / "cache")
    assert (again.records, again.twins) == (first.records, first.twins)
    np.testing.assert_array_equal(again.small, first.small)
    monkeypatch.setattr(survey_module, "record", record)
    save(items[0].path, HEADS[3, 1])
    changed = make_survey(items, cache=tmp_path / "cache")
    assert changed.records[0] != first.records[0]
    assert [(twin.kind, twin.a) for twin in changed.twins] == [("pixels", items[0].id)]


def test_files_that_may_change_within_a_tick_and_torn_memory_are_not_trusted(folder, tmp_path):
    items = with_subjects(folder).items[:4]
    save(items[0].path, HEADS[0, 0])
    make_survey(items, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    aged(folder)
    whole = make_survey(items, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-200])
    assert make_survey(items, cache=tmp_path / "cache").records == whole.records


def test_the_key_depends_on_names_files_and_threshold(folder):
    items = with_subjects(folder).items
    assert survey_key(items) == survey_key(items)
    assert survey_key(items) != survey_key(items[1:])
    assert survey_key(items) != survey_key(items, near=0.9)
    os.utime(items[3].path, (1, 1))
    assert survey_key(items) != survey_key(with_subjects(folder).items[:-1])


def test_two_processes_find_what_one_finds(clean):
    items = with_subjects(clean / "set").items
    one, two = make_survey(items, cache=clean / "cache"), make_survey(items, workers=2)
    assert (one.records, one.twins) == (two.records, two.twins)
    np.testing.assert_array_equal(one.small, two.small)


def test_no_images_and_an_id_that_stands_twice_are_refused(folder):
    items = with_subjects(folder).items
    with pytest.raises(DatasetError, match="no pictures"):
        make_survey([])
    with pytest.raises(DatasetError, match="the same id"):
        make_survey([items[0], items[0]])


def test_volumes_are_compared_voxel_for_voxel(tmp_path):
    import nibabel as nib

    volume = heads(1, slices=8, side=32)[0].T
    for name, voxels in (("a", volume), ("b", volume), ("c", volume[::-1])):
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.diag([1, 1, 3, 1])), tmp_path / f"{name}.nii.gz")
    seen = {name: record(name, tmp_path / f"{name}.nii.gz") for name in "abc"}
    assert seen["a"][1].key == seen["b"][1].key != seen["c"][1].key
    assert (seen["a"][0].format, seen["a"][0].shape) == ("volume", (32, 32, 8))


def test_folders_of_volumes_are_audited_like_images(tmp_path):
    import nibabel as nib

    volumes = heads(6, slices=4, side=40, seed=9)
    for number in range(7):
        path = tmp_path / "set" / ("before", "after")[number % 2] / f"{number}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(volumes[number % 6].T.astype(np.float32), np.diag([1, 1, 3, 1])), path)
    (tmp_path / "set" / "after" / "1.nii.gz").write_bytes(b"no volume")
    dataset = read_classes(ClassDataConfig(root=tmp_path / "set", layout=ClassVolumesLayout()))
    audit = audit_classes(dataset)
    assert [finding.case for finding in audit.errors] == ["after/1.nii.gz"]
    assert [(twin.kind, twin.a, twin.b) for twin in audit.twins] == [("pixels", "before/0.nii.gz", "before/6.nii.gz")]


# ---------------------------------------------------------------- the audit


def test_a_clean_set_by_subject_has_nothing_to_mend(clean):
    dataset = with_subjects(clean / "set")
    audit = audit_classes(dataset, parts=parts_of(dataset, by_subject=True), cache=clean / "cache")
    assert audit.errors == ()
    assert {finding.kind for finding in audit.findings} == {"image_split", "few_subjects"}
    assert "of 8 subjects on both sides" in findings_of(audit, "image_split")[0]
    assert (audit.subjects, audit.classes, audit.parts) == (8, {"ill": 12, "well": 12}, {"train": 18, "test": 6})
    assert min(audit.within) > max(audit.across)
    assert audit.neighbours["images"].accuracy > audit.neighbours["subjects"].accuracy + 0.2


def test_every_fault_of_the_files_is_one_line(folder):
    (folder / "ill" / "s01_0.png").write_bytes((folder / "ill" / "s01_0.png").read_bytes()[:300])
    (folder / "ill" / "s01_1.png").write_bytes(b"no image")
    shutil.copy(save(folder / "x.bmp", HEADS[1, 2]), folder / "ill" / "s01_2.png")
    (folder / "x.bmp").unlink()
    save(folder / "well" / "s00_0.png", np.zeros((SIDE, SIDE)))
    save(folder / "well" / "s00_1.png", 0.1 * HEADS[0, 1])
    save(folder / "well" / "s00_2.png", HEADS[0, 2][:-8])
    audit = audit_classes(with_subjects(folder))
    unreadable = [finding for finding in audit.findings if finding.kind == "unreadable"]
    assert [finding.case for finding in unreadable] == ["ill/s01_0.png", "ill/s01_1.png"]
    assert "truncated" in unreadable[0].what
    assert findings_of(audit, "suffix") == ["1 images, ill/s01_2.png: 1 BMP named .png"]
    assert [finding.case for finding in audit.errors if finding.kind == "constant"] == ["well/s00_0.png"]
    assert findings_of(audit, "range")[0].startswith("1 images, well/s00_1.png")
    assert findings_of(audit, "sizes")[0].startswith("2 sizes, from 88 × 96 to 96 × 96; most common 96 × 96 (21 of 22)")
    assert not any("\n" in finding.what + finding.fix for finding in audit.findings)


def test_where_no_image_can_be_read_all_are_named(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    dataset = with_subjects(folder)
    audit = audit_classes(dataset, parts=parts_of(dataset, by_subject=True))
    assert len(findings_of(audit, "unreadable")) == SUBJECTS * SLICES
    assert (audit.twins, audit.shortcuts, audit.neighbours, audit.within) == ((), (), {}, ())


def test_colour_modes_and_depths_are_counted(folder):
    from PIL import Image

    Image.open(folder / "ill" / "s01_0.png").convert("RGB").save(folder / "ill" / "s01_0.png")
    Image.fromarray((HEADS[1, 1] * 60000).astype(np.uint16)).save(folder / "ill" / "s01_1.png")
    audit = audit_classes(with_subjects(folder))
    assert findings_of(audit, "colour_modes")[0].startswith("3 colour modes: L (22)")
    assert findings_of(audit, "bits") == ["2 depths: 8 bit (23), 16 bit (1)"]
    assert audit.twins == ()


def test_twins_of_two_classes_are_errors_and_twins_of_one_a_warning(folder):
    save(folder / "well" / "s50_0.png", jpeg(HEADS[1, 0], 60))
    save(folder / "ill" / "s51_0.png", HEADS[1, 1])
    audit = audit_classes(without_subjects(folder))
    (error,) = audit.errors
    assert (error.kind, error.case) == ("twins_of_two_classes", "ill/s01_0.png")
    assert "well/s50_0.png, but they are in 'ill' and 'well'" in error.what
    assert findings_of(audit, "twins_pixels")[0].startswith("1 of 26 images have the pixels of another one")
    assert findings_of(audit, "twins_near")[0].startswith("1 of 26 images are changed copies of another one")


def test_a_class_of_one_subject_is_an_error_and_of_few_a_warning(folder):
    dataset = with_subjects(folder)
    kept = [item for item in dataset.items if item.label == 1 or item.subject == "s01"]
    findings = check_classes(replace(dataset, items=tuple(kept)))
    assert next((f.severity, f.what) for f in findings) == (
        "error",
        "class 'ill' has one subject: it can't be trained and tested",
    )
    kept = [item for item in dataset.items if item.label == 1 or item.subject in ("s01", "s03")]
    assert check_classes(replace(dataset, items=tuple(kept)))[0].severity == "warning"


def test_a_class_that_was_saved_larger_is_a_shortcut(folder):
    for path in (folder / "ill").iterdir():
        number = int(path.stem[-1])
        save(path, np.pad(HEADS[int(path.stem[1:3]), number], 4))
    audit = audit_classes(with_subjects(folder))
    size = next(each for each in audit.shortcuts if each.feature == "size")
    assert size.balanced_accuracy == 1
    assert size.tells
    assert any(
        line.startswith("size alone tells the class: balanced accuracy 1.00") for line in findings_of(audit, "shortcut")
    )


def test_features_of_records_are_what_the_files_are_like(folder):
    dataset = with_subjects(folder)
    survey = make_survey(dataset.items[:3])
    features = features_of(survey.readable)
    np.testing.assert_array_equal(features["size"], [[SIDE, SIDE, 1]] * 3)
    np.testing.assert_allclose(features["mean intensity"], [r.mean for r in survey.records])
    assert features["border"].max() < 0.05 < features["mean intensity"].min()


def test_groups_join_subjects_that_share_a_twin(folder):
    shutil.copy(folder / "ill" / "s01_0.png", folder / "ill" / "s03_0.png")
    dataset = with_subjects(folder)
    groups = groups_of(dataset, make_survey(dataset.items).twins)
    assert groups["ill/s01_2.png"] == groups["ill/s03_2.png"]
    assert len(set(groups.values())) == SUBJECTS - 1


def test_an_audit_is_read_as_it_was_written_and_remembered(folder, tmp_path, monkeypatch):
    save(folder / "ill" / "s51_0.png", HEADS[1, 1])
    aged(folder)
    dataset = without_subjects(folder)
    audit = audit_classes(dataset, parts=parts_of(dataset, by_subject=False), cache=tmp_path / "cache")
    audit.save_json(tmp_path / "audit.json")
    assert ClassAudit.load(tmp_path / "audit.json") == audit
    assert json.loads((tmp_path / "audit.json").read_text())["errors"] == len(audit.errors)
    monkeypatch.setattr("segmed.data.leaks.image_audit.make_survey", lambda *_, **__: pytest.fail("audited again"))
    again = audit_classes(dataset, parts=parts_of(dataset, by_subject=False), cache=tmp_path / "cache")
    assert again == audit


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"findings": 3}'])
def test_what_is_no_audit_is_refused(text, tmp_path):
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(DatasetError, match=r"audit\.json is no audit of images with classes"):
        ClassAudit.load(tmp_path / "audit.json")


# ---------------------------------------------------------------- the figure


def test_the_worst_twins_come_first_and_not_all_are_of_equal_pixels(folder, tmp_path):
    for number in range(4):
        save(folder / "ill" / f"e{number}.png", HEADS[1, 0])
    save(folder / "well" / "wrong.png", HEADS[3, 0])
    for number in range(3):
        save(folder / "ill" / f"n{number}.png", jpeg(HEADS[5, 0], 40 + 5 * number))
    dataset = without_subjects(folder)
    audit = audit_classes(dataset)
    shown = worst_twins(audit.twins, dataset, {})
    assert {shown[0].a, shown[0].b} == {"ill/s03_0.png", "well/wrong.png"}
    assert [twin.kind for twin in shown].count("pixels") == 4
    figure = leak_figure(audit, dataset)
    pictures = [axes for sub in figure.subfigs for axes in sub.axes if axes.images]
    assert len(pictures) == 8
    save_figure(figure, tmp_path / "leaks.png")
    assert (tmp_path / "leaks.png").stat().st_size > 20_000


# ---------------------------------------------------------------- real data


def test_what_neighbouring_slices_of_a_real_set_are_like(real_data):
    """Neighbours lie above the cut, and slices of other subjects below: what the cut was chosen by."""
    root = real_data("alzheimer_128")
    rows = [line.split(",") for line in (root / "manifest.csv").read_text().split()[1:]]
    subjects = sorted({row[2] for row in rows})[::14]
    chosen = sorted((row[2], int(row[3]), row[0]) for row in rows if row[2] in subjects and int(row[3]) in (15, 16, 17))
    small = [record(name, root / name)[1] for _, _, name in chosen]
    features = descriptors(coarse(np.stack([each.frames[1] for each in small if each is not None])))
    alike = most_alike(features, [subject for subject, _, _ in chosen])
    assert np.nanmin(alike.within) > CUT > np.nanmax(alike.across)
