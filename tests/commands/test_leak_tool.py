"""tools/audit_data.py on images with classes, what it takes for such, and equal volumes under two names."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from made_heads import heads, save, write_manifest
from matplotlib.figure import Figure
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter, zoom

from segmed.config import DataConfig, PatternLayout
from segmed.config.images import ClassManifestLayout, ClassVolumesLayout, FoldersLayout
from segmed.data.audit import audit_dataset
from segmed.data.cases import Dataset, read_dataset
from segmed.data.leaks.guess_classes import guess_class_layout
from segmed.data.leaks.image_audit import ClassAudit
from segmed.data.leaks.volume_twins import check_volumes, leaking, volume_twins
from segmed.data.splits import Split
from segmed.volumes import write_volume

TOOL = Path(__file__).resolve().parents[2] / "tools" / "audit_data.py"
HEADS = heads(8, seed=21, side=64)[:, 0]


@pytest.fixture
def folder(tmp_path):
    """Published parts with class folders; two test images stand in training."""
    root = tmp_path / "set"
    for number, picture in enumerate(HEADS):
        kind = "tumour" if number % 2 else "none"
        save(root / ("Testing" if number >= 6 else "Training") / kind / f"{number}.png", picture)
    save(root / "Testing" / "none" / "again.png", HEADS[0])
    save(root / "Testing" / "tumour" / "other.bmp", HEADS[1])
    for path in root.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return root


def run_tool(monkeypatch, *arguments: object, figure: bool = False) -> int:
    """Exit code; drawing takes as long as all else, and is done where it is looked at."""
    if not figure:
        monkeypatch.setattr("segmed.reports.audit.leak_figures.leak_figure", lambda *_, **__: Figure())
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments), "--workers", "1"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name="__main__")
    return int(stop.value.code or 0)


# ---------------------------------------------------------------- images with classes


def test_published_parts_that_share_images_end_with_1_and_are_listed(folder, tmp_path, monkeypatch, capsys):
    assert run_tool(monkeypatch, folder, "--output", tmp_path / "out", figure=True) == 1
    shown = capsys.readouterr().out
    assert "10 images, subjects not known" in shown
    assert "2 of 4 test images stand in the training part too, 2 pixel for pixel" in shown
    assert "1 to mend" in shown
    audit = ClassAudit.load(tmp_path / "out" / "audit.json")
    assert audit.same_pixels == {"test": ("Testing/none/again.png", "Testing/tumour/other.bmp")}
    assert (tmp_path / "out" / "leaks.png").stat().st_size > 10_000


def test_a_second_audit_gives_the_same_without_reading_an_image(folder, tmp_path, monkeypatch):
    run_tool(monkeypatch, folder, "--output", tmp_path / "out")
    first = json.loads((tmp_path / "out" / "audit.json").read_text())
    monkeypatch.setattr(
        "segmed.data.leaks.image_facts.read_picture", lambda path: pytest.fail(f"{path} was read again")
    )
    assert run_tool(monkeypatch, folder, "--output", tmp_path / "out") == 1
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == first


def test_a_split_of_a_run_is_audited_instead_of_the_published_parts(folder, tmp_path, monkeypatch, capsys):
    ids = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    twins = {"Testing/none/again.png", "Testing/tumour/other.bmp"}
    split = {"train": [name for name in ids if name not in twins], "validation": [], "test": sorted(twins)}
    (tmp_path / "split.json").write_text(json.dumps(split))
    arguments = (folder, "--output", tmp_path / "out", "--split", tmp_path / "split.json")
    assert run_tool(monkeypatch, *arguments) == 1
    assert "2 of 2 test images stand in the training part too" in capsys.readouterr().out
    clean = {"train": [name for name in ids if name not in twins], "validation": [], "test": []}
    (tmp_path / "split.json").write_text(json.dumps(clean))
    assert run_tool(monkeypatch, *arguments) == 0


def test_a_config_of_classification_says_what_the_classes_are(folder, tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text(
        f"data: {{root: {folder}, layout: {{name: folders}}, classes: {{ill: tumour, well: none}}}}\n"
        "network: {name: logistic}\n"
    )
    assert run_tool(monkeypatch, "--config", tmp_path / "c.yaml", "--output", tmp_path / "out") == 1
    assert ClassAudit.load(tmp_path / "out" / "audit.json").classes == {"ill": 5, "well": 5}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda root: shutil.rmtree(root / "Testing" / "none") or (root / "Testing" / "none").mkdir(),
            "holds no images",
        ),
        (lambda root: save(root / "Training" / "None" / "x.png", HEADS[0]), "differ in spelling alone"),
    ],
    ids=["empty class", "two spellings"],
)
def test_what_is_no_data_set_is_one_line_and_exit_code_2(change, line, folder, tmp_path, monkeypatch, capsys):
    change(folder)
    assert run_tool(monkeypatch, folder, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_geometry_is_not_mended_in_images_with_classes(folder, tmp_path, monkeypatch, capsys):
    assert run_tool(monkeypatch, folder, "--output", tmp_path / "out", "--fix-geometry") == 2
    assert "--fix-geometry is for label maps" in capsys.readouterr().err


# ---------------------------------------------------------------- what is taken for classes


def volume(path: Path, seed: int = 0, *, flip: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(1, 900, (8, 9, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels[::-1] if flip else voxels, np.diag([1.0, 1, 2, 1])), path)


def test_folders_of_images_tables_and_folders_of_volumes_are_classes(folder, tmp_path):
    assert guess_class_layout(folder) == FoldersLayout()
    assert guess_class_layout(folder / "Training") == FoldersLayout()
    table = tmp_path / "table"
    for name in ("a", "b"):
        save(table / f"{name}.png", HEADS[0])
    write_manifest(table, [{"image": f"{name}.png", "label": label} for name, label in (("a", "ill"), ("b", "well"))])
    assert guess_class_layout(table) == ClassManifestLayout()
    for number in range(6):
        volume(tmp_path / "volumes" / ("before", "after")[number % 2] / f"scan{number}.nii.gz")
    assert guess_class_layout(tmp_path / "volumes") == ClassVolumesLayout()


def test_a_table_of_classes_counts_beside_the_settings_of_a_phantom(tmp_path):
    save(tmp_path / "a.png", HEADS[0])
    write_manifest(tmp_path, [{"image": "a.png", "label": "before"}])
    (tmp_path / "phantom.json").write_text("{}")
    assert guess_class_layout(tmp_path) == ClassManifestLayout()


def test_label_maps_cases_and_tables_of_label_maps_are_none(tmp_path):
    for number in range(3):
        save(tmp_path / "pairs" / "images" / f"{number}.png", HEADS[0])
        save(tmp_path / "pairs" / "masks" / f"{number}.png", HEADS[0])
        save(tmp_path / "cases" / f"c{number}" / "image.png", HEADS[0])
        save(tmp_path / "cases" / f"c{number}" / "label.png", HEADS[0] > 0.5)
        volume(tmp_path / "scans" / f"p{number}" / f"p{number}_T1.nii.gz")
        volume(tmp_path / "scans" / f"p{number}" / f"p{number}_T2.nii.gz", 1)
        volume(tmp_path / "table" / f"{number}.nii.gz")
    write_manifest(tmp_path / "table", [{"image": "0.nii.gz", "label": "1.nii.gz"}])
    for name in ("pairs", "cases", "scans", "table", "absent"):
        assert guess_class_layout(tmp_path / name) is None


@pytest.mark.parametrize("name", ["tumor_yesno", "tumor_pituitary_224", "alzheimer_128"])
def test_real_sets_with_classes_are_taken_for_such(name, real_data):
    assert guess_class_layout(real_data(name)) is not None


@pytest.mark.parametrize("name", ["hippocampus", "myops_lge", "acdc", "la2018"])
def test_real_sets_with_label_maps_are_not(name, real_data):
    assert guess_class_layout(real_data(name)) is None


# ---------------------------------------------------------------- equal volumes


LAYOUT = PatternLayout(images={"MR": "{case}.nii.gz"})


@pytest.fixture
def volumes(tmp_path):
    """Four cases: b has the voxels of a, c those of a flipped, d its own."""
    for name, seed, flip in (("a", 1, False), ("b", 1, False), ("c", 1, True), ("d", 2, False)):
        volume(tmp_path / "volumes" / f"{name}.nii.gz", seed, flip=flip)
    return tmp_path / "volumes"


def dataset_of(root: Path) -> Dataset:
    return read_dataset(DataConfig(root=root, layout=LAYOUT), complete=False)


def test_equal_volumes_are_found_and_flipped_ones_too(volumes):
    dataset = dataset_of(volumes)
    twins = volume_twins(dataset, audit_dataset(dataset))
    assert [(twin.a, twin.b, twin.transform) for twin in twins] == [
        ("a", "b", ""),
        ("a", "c", "flip x"),
        ("b", "c", "flip x"),
    ]


def test_equal_volumes_in_two_parts_are_errors_and_a_subject_in_two_parts_is(volumes):
    dataset = dataset_of(volumes)
    twins = volume_twins(dataset, audit_dataset(dataset))
    assert {finding.severity for finding in check_volumes(dataset, twins)} == {"error"}
    findings = check_volumes(dataset, twins, Split(train=("a", "b"), validation=(), test=("c", "d")))
    assert [(f.severity, f.case) for f in findings] == [("error", "a"), ("error", "b"), ("error", "a")]
    assert "has the voxels of c (flip x), one in train, one in test" in findings[0].what


def test_cases_of_one_subject_may_be_alike_but_not_in_two_parts(tmp_path):
    for name in ("p1_a", "p1_b", "p2_a"):
        volume(tmp_path / f"{name}.nii.gz", seed=int(name[1]))
    layout = LAYOUT.model_copy(update={"subject": r"^p\d"})
    dataset = read_dataset(DataConfig(root=tmp_path, layout=layout), complete=False)
    twins = volume_twins(dataset, audit_dataset(dataset))
    assert len(twins) == 1
    assert check_volumes(dataset, twins) == ()
    (finding,) = check_volumes(dataset, twins, Split(train=("p1_a", "p2_a"), validation=(), test=("p1_b",)))
    assert (finding.severity, finding.kind) == ("error", "subjects_across_parts")


def test_the_tool_names_equal_volumes(volumes, tmp_path, monkeypatch, capsys):
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "d"], "validation": [], "test": ["b", "c"]}))
    arguments = (volumes, "--output", tmp_path / "out", "--images", "MR={case}.nii.gz")
    assert run_tool(monkeypatch, *arguments) == 1
    assert "has the voxels of b, under another subject" in capsys.readouterr().out
    assert run_tool(monkeypatch, *arguments, "--split", tmp_path / "split.json") == 1
    assert "has the voxels of b, one in train, one in test" in capsys.readouterr().out


def test_a_resampled_and_flipped_copy_is_found_and_another_scan_is_not(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        voxels = gaussian_filter(rng.normal(size=(40, 36, 16)), 1.2).astype(np.float32)
        write_volume(
            tmp_path / f"{name}.nii.gz", MetaTensor(torch.from_numpy(voxels)[None], affine=torch.eye(4).double())
        )
        if name == "a":
            small = zoom(voxels[::-1], (0.6, 0.6, 1), order=1)
            copy = MetaTensor(
                torch.from_numpy(3 * small + 7)[None], affine=torch.diag(torch.tensor([1.7, 1.7, 1, 1])).double()
            )
            write_volume(tmp_path / "c.nii.gz", copy)
    dataset = dataset_of(tmp_path)
    (twin,) = volume_twins(dataset, audit_dataset(dataset), memory=tmp_path / "memory")
    assert (twin.a, twin.b, twin.kind, twin.transform) == ("a", "c", "near", "flip x")
    assert volume_twins(dataset, audit_dataset(dataset), memory=tmp_path / "memory") == (twin,)
    split = Split(train=("a",), validation=("b",), test=("c",))
    assert "1 of 1 test cases stand in another part too: a (train) shows the same as c" in str(leaking((twin,), split))
    assert leaking((twin,), Split(train=("a", "c"), validation=(), test=("b",))) is None
