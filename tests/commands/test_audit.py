"""Audits of small data sets with planted faults, repairs of headers, and facts that can be checked by hand."""

from __future__ import annotations

import json
import os
import runpy
import signal
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from segmed.config import DataConfig, MsdLayout, PatternLayout
from segmed.data import audit as audit_module
from segmed.data import integrity
from segmed.data.audit import Audit, audit_dataset, fix_geometry
from segmed.data.cases import Dataset, guess_layout, read_dataset
from segmed.data.fingerprint import CaseFacts
from segmed.data.integrity import check_files, is_mirrored
from segmed.data.repair import disagreement
from segmed.errors import DatasetError
from segmed.volumes import Source

TOOL = Path(__file__).resolve().parents[2] / "tools" / "audit_data.py"
SHAPE = (12, 10, 8)
AFFINE = np.array([[0, -1.5, 0, 20], [2, 0, 0, -10], [0, 0, 3, 5], [0, 0, 0, 1.0]])  # X runs to A, Y to L
VOXEL_ML = 1.5 * 2 * 3 / 1000
LABELS = {"wall": [200, 1220], "scar": [2221]}


def an_image(seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(1, 90, SHAPE).astype(np.int16)
    image[3:9, 2:8, 1:7] += 900
    return image


def a_label() -> np.ndarray:
    label = np.zeros(SHAPE, np.int16)
    label[4:8, 3:6, 2:5] = 200
    label[4, 3:6, 2:5] = 1220
    label[5, 3, 2:5] = 2221
    return label


def load(path: Path) -> nib.Nifti1Image:
    return cast(nib.Nifti1Image, nib.load(path))


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, None)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    nib.save(image, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Four cases without fault."""
    for number in range(4):
        save(tmp_path / "set" / f"c{number}" / f"c{number}_image.nii.gz", an_image(number))
        save(tmp_path / "set" / f"c{number}" / f"c{number}_label.nii.gz", a_label())
    return tmp_path / "set"


def image_of(folder: Path, case: str = "c1") -> Path:
    return folder / case / f"{case}_image.nii.gz"


def label_of(folder: Path, case: str = "c1") -> Path:
    return folder / case / f"{case}_label.nii.gz"


LAYOUT = PatternLayout(images={"LGE": "{case}/{case}_image.nii.gz"}, label="{case}/{case}_label.nii.gz")
TWO = PatternLayout(images={**LAYOUT.images, "T2": "{case}/{case}_T2.nii.gz"}, label=LAYOUT.label)


def dataset_of(folder: Path, layout: PatternLayout | MsdLayout = LAYOUT, **data) -> Dataset:
    return read_dataset(DataConfig(root=folder, layout=layout, **{"labels": LABELS, **data}), complete=False)


def audit_of(folder: Path, layout: PatternLayout | MsdLayout = LAYOUT, **data) -> Audit:
    dataset = dataset_of(folder, layout, **data)
    return audit_dataset(dataset, other_findings=check_files(dataset))


# ---------------------------------------------------------------- facts


def test_facts_are_those_of_the_canonical_grid(folder):
    audit = audit_of(folder)
    assert audit.findings == ()
    fact = audit.facts[1]
    assert (fact.id, fact.orientation) == ("c1", "ALS")
    assert fact.shape == (10, 12, 8)
    assert fact.spacing_mm == pytest.approx((1.5, 2, 3))


def test_label_volumes_are_voxels_times_the_voxel(folder):
    fact = audit_of(folder).facts[0]
    assert fact.label_voxels == {"wall": 4 * 3 * 3 - 3, "scar": 3}
    assert fact.label_ml["wall"] == pytest.approx(33 * VOXEL_ML)
    assert fact.label_ml["scar"] == pytest.approx(3 * VOXEL_ML)


def test_intensities_are_those_of_numpy(folder):
    values = an_image(2).astype(float)
    values[values < 20] = 0
    save(image_of(folder, "c2"), values.astype(np.int16))
    found = audit_of(folder).facts[2].intensity["LGE"]
    assert (found["min"], found["max"]) == (values.min(), values.max())
    assert [found[key] for key in ("p0_5", "p50", "p99_5")] == pytest.approx(np.percentile(values, (0.5, 50, 99.5)))
    assert (found["mean"], found["sd"]) == pytest.approx((values.mean(), values.std()))
    assert found["zero_fraction"] == pytest.approx((values == 0).mean())


def test_the_body_of_a_masked_image_is_the_box_of_what_is_not_zero(folder):
    values = np.zeros(SHAPE, np.int16)
    values[3:9, 2:7, 1:5] = an_image()[3:9, 2:7, 1:5]
    save(image_of(folder), values)
    assert audit_of(folder).facts[1].body_shape == (5, 6, 4)


def test_the_box_of_the_labels_stands_in_canonical_axes_and_is_unknown_without_a_label(folder):
    values = np.zeros(SHAPE, np.int16)
    values[3:9, 2:4, 1:2] = 200
    values[4:5, 2:7, 1:4] = 2221
    save(label_of(folder, "c0"), values)
    label_of(folder, "c1").unlink()
    first, second, *_ = audit_of(folder).facts
    assert first.label_shape == (5, 6, 3)
    assert second.label_shape is None
    assert CaseFacts.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    earlier = {name: value for name, value in first.to_dict().items() if name != "label_shape"}
    assert CaseFacts.from_dict(earlier) == replace(first, label_shape=None)


def test_percentiles_of_a_large_volume_are_close_to_those_of_all_voxels(folder):
    values = np.random.default_rng(0).normal(100, 20, (160, 160, 100)).astype(np.float32)
    save(image_of(folder, "c0"), values)
    label_of(folder, "c0").unlink()
    found = audit_of(folder).facts[0].intensity["LGE"]
    assert [found["p0_5"], found["p50"], found["p99_5"]] == pytest.approx(
        np.percentile(values, (0.5, 50, 99.5)), abs=0.2
    )


def test_an_audit_comes_back_from_its_json(folder, tmp_path):
    label_of(folder).unlink()
    audit = audit_of(folder)
    audit.save_json(tmp_path / "audit.json")
    assert Audit.load(tmp_path / "audit.json") == audit
    assert json.loads((tmp_path / "audit.json").read_text())["errors"] == 1
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(DatasetError, match="is no audit"):
        Audit.load(tmp_path / "audit.json")


def test_two_workers_find_what_one_finds(folder):
    save(label_of(folder), np.zeros(SHAPE, np.uint8))
    dataset = dataset_of(folder)
    assert audit_dataset(dataset, workers=2) == audit_dataset(dataset, workers=1)


def killed(*args: object, **options: object) -> None:
    """Stands in for a check that runs out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(audit_module, "check_case", killed)
    with pytest.raises(DatasetError, match=r"a worker was killed.*fewer --workers"):
        audit_dataset(dataset_of(folder), workers=2)


def test_every_file_is_read_once(tmp_path, monkeypatch):
    """Also one that holds two modalities."""
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {
                "modality": {"0": "T2", "1": "ADC"},
                "labels": {"0": "background", "1": "zone"},
                "training": [{"image": "./imagesTr/p.nii.gz", "label": "./labelsTr/p.nii.gz"}],
            }
        )
    )
    save(tmp_path / "imagesTr" / "p.nii.gz", np.stack([an_image(), 2 * an_image(1)], axis=3))
    save(tmp_path / "labelsTr" / "p.nii.gz", (a_label() > 0).astype(np.uint8))
    reads: list[str] = []
    original = integrity.read_volume

    def counted(source: Path | Source) -> MetaTensor:
        reads.append(str(source))
        return original(source)

    monkeypatch.setattr(integrity, "read_volume", counted)
    audit = audit_of(tmp_path, MsdLayout(), labels="auto")
    assert len(reads) == 1
    assert audit.findings == ()
    assert audit.facts[0].intensity["ADC"]["max"] == 2 * an_image(1).max()
    assert audit.labels == ("zone",)


# ---------------------------------------------------------------- faults of a case


def _truncated(folder: Path) -> None:
    image_of(folder).write_bytes(image_of(folder).read_bytes()[:-400])


def _no_volume(folder: Path) -> None:
    image_of(folder).write_text("<html>not found</html>")


def _truncated_label(folder: Path) -> None:
    label_of(folder).write_bytes(label_of(folder).read_bytes()[:100])


def _nan(folder: Path) -> None:
    values = an_image().astype(np.float32)
    values[0, 0, :3] = np.nan
    values[1, 1, 1] = np.inf
    save(image_of(folder), values)


def _zero_spacing(folder: Path) -> None:
    path = save(folder / "plain.nii", an_image())
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 80, 0.0)
    struct.pack_into("<2h", content, 252, 1, 0)  # a qform, which needs pixdim, and no sform
    path.unlink()
    image_of(folder).write_bytes(bytes(content))


def _sheared(folder: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 2] = 1.0
    save(image_of(folder), an_image(), affine)
    save(label_of(folder), a_label(), affine)


def _shifted_label(folder: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 4
    save(label_of(folder), a_label(), affine)


def _smaller_label(folder: Path) -> None:
    save(label_of(folder), a_label()[:-1])


def _unknown_value(folder: Path) -> None:
    label = a_label()
    label[0, 0, :2] = 700
    save(label_of(folder), label)


def _fractions(folder: Path) -> None:
    save(label_of(folder), a_label() * np.float32(0.37))


def _no_label(folder: Path) -> None:
    label_of(folder).unlink()


def _no_image(folder: Path) -> None:
    image_of(folder).unlink()


def _constant(folder: Path) -> None:
    save(image_of(folder), np.full(SHAPE, 7, np.int16))


ERRORS = [
    (_truncated, "unreadable", "truncated", "copy it again"),
    (_no_volume, "unreadable", "is not a NIfTI file", "give a medical volume"),
    (_truncated_label, "unreadable", "c1_label.nii.gz", "copy it again"),
    (_nan, "unreadable", "4 of 960 voxels are NaN or infinite", "repair or leave out"),
    (_zero_spacing, "geometry", "spacing", "repair pixdim"),
    (_sheared, "geometry", "not orthogonal", "resample to a regular grid"),
    (_shifted_label, "grid", "voxels lie up to 4 mm apart", "--fix-geometry"),
    (_smaller_label, "grid", "shape (11, 10, 8) against (12, 10, 8)", "resample the label map"),
    (_unknown_value, "unknown_label", "700 (2 voxels)", "data.labels, data.ignore or data.background"),
    (_fractions, "unreadable", "not whole numbers", "not interpolated"),
    (_no_label, "partner", "no label map", "add it"),
    (_no_image, "partner", "no image 'LGE'", "add it"),
    (_constant, "constant", "every voxel is 7", "export the image again"),
]


@pytest.mark.parametrize(("spoil", "kind", "what", "fix"), ERRORS, ids=[e[0].__name__.strip("_") for e in ERRORS])
def test_a_fault_is_found_in_its_case_and_named(spoil, kind, what, fix, folder):
    spoil(folder)
    audit = audit_of(folder)
    assert {(finding.case, finding.kind) for finding in audit.errors} == {("c1", kind)}
    assert what in audit.errors[0].what
    assert fix in audit.errors[0].fix
    assert not any("\n" in finding.what + finding.fix for finding in audit.findings)
    assert {fact.id for fact in audit.facts} >= {"c0", "c2", "c3"}


def test_modalities_on_different_grids_are_found(folder):
    for number in range(4):
        affine = AFFINE @ np.diag([1, 1, 1.1 if number == 2 else 1, 1])
        save(folder / f"c{number}" / f"c{number}_T2.nii.gz", an_image(9), affine)
    audit = audit_of(folder, TWO)
    assert [(finding.case, finding.kind) for finding in audit.findings] == [("c2", "grid")]
    assert "image 'T2' is not on the grid of 'LGE'" in audit.findings[0].what


def test_a_missing_modality_is_found(folder):
    for number in range(3):
        save(folder / f"c{number}" / f"c{number}_T2.nii.gz", an_image(9))
    audit = audit_of(folder, TWO)
    assert [(finding.case, finding.what) for finding in audit.findings] == [("c3", "has no image 'T2'")]
    assert [fact.id for fact in audit.facts] == ["c0", "c1", "c2"]


def test_an_empty_label_map_is_a_warning(folder):
    save(label_of(folder), np.zeros(SHAPE, np.uint8))
    audit = audit_of(folder)
    assert [(f.severity, f.case, f.kind) for f in audit.findings] == [("warning", "c1", "empty_label")]
    assert audit.facts[1].label_ml == {"wall": 0.0, "scar": 0.0}


def test_a_label_map_of_ignored_voxels_counts_as_empty(folder):
    save(label_of(folder), np.where(a_label() > 0, 99, 0).astype(np.uint8))
    assert [f.kind for f in audit_of(folder, ignore=(99,)).findings] == ["empty_label"]


def test_several_faults_of_one_case_are_all_found(folder):
    _constant(folder)
    _unknown_value(folder)
    assert {finding.kind for finding in audit_of(folder).findings} == {"constant", "unknown_label"}


def test_a_data_set_without_any_labels_is_no_fault(folder):
    for case in folder.iterdir():
        label_of(folder, case.name).unlink()
    layout = PatternLayout(images=LAYOUT.images)
    audit = audit_of(folder, layout)
    assert audit.findings == ()
    assert audit.facts[0].label_ml == {}


# ---------------------------------------------------------------- faults among cases


def test_a_mirrored_case_stands_out(folder):
    mirrored = AFFINE @ np.array([[-1, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for path, voxels in ((image_of(folder), an_image()), (label_of(folder), a_label())):
        save(path, voxels[::-1], mirrored)
    audit = audit_of(folder)
    assert [(f.severity, f.case, f.kind) for f in audit.findings] == [("warning", "c1", "mixed_sides")]
    assert "PLS are mirrored against those of 3 of 4 cases (ALS)" in audit.findings[0].what


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PSR", "LSP", "SRA", "IRA", "ARS", "LPI"])
def test_mirrored_axes_are_those_with_a_negative_determinant(codes):
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(codes)), (5, 5, 5))[:3, :3]
    assert is_mirrored(codes) == (np.linalg.det(axes) < 0)


def test_an_unusual_spacing_stands_out_and_a_stack_that_points_elsewhere_does_not(folder):
    odd = AFFINE @ np.diag([1, 1, 2.5, 1])
    turned = AFFINE[:, [2, 0, 1, 3]]
    save(image_of(folder, "c1"), an_image(), odd)
    save(label_of(folder, "c1"), a_label(), odd)
    save(image_of(folder, "c2"), an_image(), turned)
    save(label_of(folder, "c2"), a_label(), turned)
    audit = audit_of(folder)
    assert [(f.severity, f.case, f.kind) for f in audit.findings] == [("warning", "c1", "spacing")]
    assert "1.5 × 2 × 7.5 mm, the median is 1.5 × 2 × 3 mm" in audit.findings[0].what


def test_a_label_that_no_case_has_is_a_warning(folder):
    audit = audit_of(folder, labels={**LABELS, "clot": [300]})
    assert [(f.severity, f.what) for f in audit.findings] == [
        ("warning", "label 'clot' is in none of the 4 label maps")
    ]


def test_an_id_that_stands_twice_is_an_error(folder):
    dataset = dataset_of(folder)
    twice = replace(dataset, cases=(*dataset.cases, dataset.cases[2]))
    assert [(f.severity, f.case, f.kind) for f in check_files(twice)] == [("error", "c2", "duplicate")]


def test_volumes_of_no_case_are_named(folder):
    save(folder / "c3" / "c3_mask.nii.gz", a_label())
    save(folder / "imagesTs" / "c9.nii.gz", an_image())
    (finding,) = audit_of(folder).findings
    assert (finding.severity, finding.kind) == ("warning", "unused")
    assert "1 volume belongs to no case: c3/c3_mask.nii.gz" in finding.what


def test_no_cases_are_an_error(folder):
    with pytest.raises(DatasetError, match="has no cases"):
        audit_dataset(replace(dataset_of(folder), cases=()))


# ---------------------------------------------------------------- repair


def test_a_wrong_header_is_repaired_and_the_voxels_stay(folder, tmp_path):
    _shifted_label(folder)
    images = {path: path.read_bytes() for path in folder.rglob("*_image.nii.gz")}
    others = {path: path.read_bytes() for path in folder.rglob("*_label.nii.gz") if path != label_of(folder)}
    old = load(label_of(folder)).affine
    (repair,) = fix_geometry(dataset_of(folder), log=tmp_path / "log.json")
    assert (repair.case, repair.change) == ("c1", "header")
    mended = load(label_of(folder))
    np.testing.assert_allclose(mended.affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(mended.dataobj), a_label())
    assert {**images, **others} == {path: path.read_bytes() for path in (*images, *others)}
    assert audit_of(folder).findings == ()
    (entry,) = json.loads((tmp_path / "log.json").read_text())
    np.testing.assert_array_equal(entry["old_affine"], old)


def test_a_second_repair_changes_nothing_and_a_later_one_is_added(folder, tmp_path):
    log = tmp_path / "log.json"
    _shifted_label(folder)
    fix_geometry(dataset_of(folder), log=log)
    before = label_of(folder).read_bytes()
    assert fix_geometry(dataset_of(folder), log=log) == ()
    assert label_of(folder).read_bytes() == before
    save(label_of(folder, "c2"), a_label(), AFFINE @ np.diag([1, 1, 1.2, 1]))
    fix_geometry(dataset_of(folder), log=log)
    assert [entry["case"] for entry in json.loads(log.read_text())] == ["c1", "c2"]


@pytest.mark.parametrize("spoil", [_smaller_label, _truncated_label, _no_label, _no_image, _truncated, _zero_spacing])
def test_what_is_no_matter_of_the_header_is_left_alone(spoil, folder, tmp_path):
    spoil(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*.nii.gz")}
    assert [repair.case for repair in fix_geometry(dataset_of(folder), log=tmp_path / "log.json")] == []
    assert before == {path: path.read_bytes() for path in folder.rglob("*.nii.gz")}


def test_a_log_that_is_none_is_never_overwritten(folder, tmp_path):
    _shifted_label(folder)
    (tmp_path / "log.json").write_text('{"mine": 1}')
    before = label_of(folder).read_bytes()
    with pytest.raises(DatasetError, match="no log of repairs"):
        fix_geometry(dataset_of(folder), log=tmp_path / "log.json")
    assert label_of(folder).read_bytes() == before


def test_nothing_is_rewritten_that_could_not_be_logged(folder, tmp_path):
    _shifted_label(folder)
    before = label_of(folder).read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        fix_geometry(dataset_of(folder), log=tmp_path / "file" / "log.json")
    assert label_of(folder).read_bytes() == before


CODES = st.permutations(["LR", "PA", "IS"]).flatmap(lambda pairs: st.tuples(*(st.sampled_from(pair) for pair in pairs)))


@settings(max_examples=25, deadline=None)
@given(codes=CODES)
def test_axes_in_another_order_are_the_same_place_in_the_world(codes):
    image = nib.Nifti1Image(a_label(), AFFINE)
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes))
    other = image.as_reoriented(turn)
    expected = None if codes == ("A", "L", "S") else "axes"
    assert disagreement((other.shape, other.affine), (image.shape, image.affine)) == expected


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "LAI", "SLA"])
def test_axes_in_another_order_are_brought_in_order_and_the_label_stays_where_it_was(codes, folder, tmp_path):
    image = nib.Nifti1Image(a_label(), AFFINE)
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(tuple(codes)))
    other = image.as_reoriented(turn)
    save(label_of(folder), np.asarray(other.dataobj), other.affine)
    (finding,) = audit_of(folder).errors
    assert "another order" in finding.fix
    (repair,) = fix_geometry(dataset_of(folder), log=tmp_path / "log.json")
    assert repair.change == "axes"
    np.testing.assert_array_equal(np.asarray(load(label_of(folder)).dataobj), a_label())
    assert audit_of(folder).findings == ()


# ---------------------------------------------------------------- the tool


def run_tool(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name="__main__")
    return int(stop.value.code or 0)


OPTIONS = ("--images", "LGE={case}/{case}_image.nii.gz", "--label", "{case}/{case}_label.nii.gz", "--workers", "1")
NAMES = ("--labels", "wall=200,1220", "scar=2221")


def test_the_tool_ends_with_0_where_nothing_must_be_mended(folder, tmp_path, monkeypatch, capsys):
    assert run_tool(monkeypatch, folder, "--output", tmp_path / "out", *OPTIONS, *NAMES) == 0
    shown = capsys.readouterr().out
    assert "4 readable cases" in shown
    assert "nothing to mend" in shown
    assert Audit.load(tmp_path / "out" / "audit.json").labels == ("wall", "scar")


def test_the_tool_guesses_the_layout_and_names_nameless_labels(folder, tmp_path, monkeypatch):
    assert run_tool(monkeypatch, folder, "--output", tmp_path / "out", "--workers", "1") == 0
    audit = Audit.load(tmp_path / "out" / "audit.json")
    assert audit.labels == ("label_200", "label_1220", "label_2221")
    assert len(audit.facts) == 4


def test_the_tool_ends_with_1_and_names_the_fault(folder, tmp_path, monkeypatch, capsys):
    _truncated_label(folder)
    assert run_tool(monkeypatch, folder, "--output", tmp_path / "out", *OPTIONS) == 1
    shown = capsys.readouterr().out
    assert "error: unreadable (1)" in shown
    assert "c1: " in shown
    assert "1 to mend" in shown
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["kinds"] == {
        "unreadable": 1,
        "subjects_unknown": 1,
    }


def test_the_tool_repairs_headers_only_when_asked(folder, tmp_path, monkeypatch, capsys):
    _shifted_label(folder)
    before = label_of(folder).read_bytes()
    arguments = (folder, "--output", tmp_path / "out", *OPTIONS, *NAMES)
    assert run_tool(monkeypatch, *arguments) == 1
    assert label_of(folder).read_bytes() == before
    assert run_tool(monkeypatch, *arguments, "--fix-geometry") == 0
    assert "c1_label.nii.gz (header): voxels lie up to 4 mm apart" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out" / "geometry_repairs.json").read_text())) == 1


def test_the_tool_takes_the_data_section_of_a_config(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "e.yaml").write_text(
        f"data:\n  root: {folder}\n  labels: {{wall: [200, 1220], scar: 2221}}\n"
        "  layout: {name: pattern, images: {LGE: '{case}/{case}_image.nii.gz'}, label: '{case}/{case}_label.nii.gz'}\n"
        "  spacing_known: false\n"
    )
    arguments = ("--config", tmp_path / "e.yaml", "--output", tmp_path / "out", "--workers", "1")
    assert run_tool(monkeypatch, *arguments) == 0
    assert Audit.load(tmp_path / "out" / "audit.json").modalities == ("LGE",)
    assert "spacings are nominal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["missing"], "missing is not a folder"),
        ([], "name the folder"),
        (["set", "--labels", "scar"], "--labels 'scar' is not NAME=VALUE"),
        (["set", "--labels", "scar=x"], "values are whole numbers"),
        (["set", "--label", "{case}.nii.gz"], "--label needs --images"),
        (["set", "--images", "a={case}.mha"], "nothing below set fits '{case}.mha'"),
        (["empty"], "empty"),
        (["set", "--fix-geometri"], "--fix-geometry"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments, line, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "empty").mkdir()
    assert run_tool(monkeypatch, *arguments, "--output", "out") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_one_file_a_structure_is_told_how_to_become_a_label_map(tmp_path, monkeypatch, capsys):
    for case in ("s0", "s1", "s2"):
        for name in ("mri", "segmentations/liver", "segmentations/spleen"):
            path = tmp_path / "set" / case / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(9, 1, (9, 9, 9)).astype("f4"), np.eye(4)), path)
    monkeypatch.chdir(tmp_path)
    run_tool(monkeypatch, "set", "--images", "MR={case}/mri.nii.gz", "--output", "out", "--workers", "1")
    assert "write one label map a case, of values 1, 2 and so on" in capsys.readouterr().out


# ---------------------------------------------------------------- real data


def test_the_first_hippocampi_are_without_fault_and_their_volumes_are_right(real_data):
    root = real_data("hippocampus")
    dataset = read_dataset(DataConfig(root=root, layout=guess_layout(root)))
    dataset = replace(dataset, cases=dataset.cases[:6])
    audit = audit_dataset(dataset)
    assert audit.findings == ()
    for case, fact in zip(dataset.cases, audit.facts, strict=True):
        assert case.label is not None
        stored = np.asarray(load(case.label.path).dataobj)
        assert fact.shape == stored.shape
        assert fact.label_ml == pytest.approx(
            {"Anterior": (stored == 1).sum() / 1e3, "Posterior": (stored == 2).sum() / 1e3}
        )


def test_a_label_value_that_the_config_forgot_is_found_in_real_infarcts(real_data):
    layout = PatternLayout(images={"LGE": "{case}/{case}_LGE.nii.gz"}, label="{case}/{case}_gd.nii.gz")
    labels: dict[str, int | list[int]] = {"wall": [200, 2221], "blood": 500, "rv": 600}
    dataset = read_dataset(DataConfig(root=real_data("myops_lge"), layout=layout, labels=labels))
    audit = audit_dataset(replace(dataset, cases=dataset.cases[:3]))
    assert [(f.case, f.kind) for f in audit.findings] == [(case.id, "unknown_label") for case in dataset.cases[:3]]
    assert "1220" in audit.findings[0].what
