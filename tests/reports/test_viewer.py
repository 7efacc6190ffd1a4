"""What a page holds of a case: 8 bits that are the arrays, true places, a bound on bytes, and what was left out."""

import base64
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from segmed.errors import GeometryError, VolumeError
from segmed.reports.viewer import viewer as viewer_module
from segmed.reports.viewer.layers import HeatMap, Layers, layers_of_files
from segmed.reports.viewer.payload import pack
from segmed.reports.viewer.viewer import Column, Viewer, ViewerCase, write_page_with_viewer
from segmed.volumes import Source
from segmed.volumes.slice_stack import SliceStack, open_stack

PLENTY = 10_000_000
SHORT_AXIS = np.diag([1.5, 1.5, 8.0, 1.0])


def unpacked(payload, layer: str) -> np.ndarray:
    """The voxels as a page's script has them."""
    differences = np.frombuffer(zlib.decompress(base64.b64decode(payload.voxels[layer])), np.uint8)
    return np.cumsum(differences, dtype=np.uint8).reshape(payload.about["shape"], order="F")


def ramp(shape=(20, 18, 6)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def cube(shape=(20, 18, 6), label=1) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[5:9, 4:12, 2:5] = label
    return labels


def test_voxels_come_back_in_8_bits_of_the_window_that_is_noted():
    image, labels = ramp(), cube(label=3)
    payload = pack(Layers(SliceStack.of(image, SHORT_AXIS), result=SliceStack.of(labels, SHORT_AXIS)), PLENTY)
    low, high = payload.about["window"]
    assert (low, high) == pytest.approx(np.percentile(image, (0.1, 99.9)))
    back = low + unpacked(payload, "image") / 255 * (high - low)
    np.testing.assert_allclose(back, image.clip(low, high), atol=(high - low) / 509)
    np.testing.assert_array_equal(unpacked(payload, "result"), labels)
    assert payload.about["centre"] == [5, 4, 2]
    assert payload.about["said"] == []


def test_a_heat_map_reaches_255_at_its_highest_value():
    shares = np.zeros((4, 4, 4), np.float32)
    shares[1, 2, 3] = 0.5
    heat = HeatMap("uncertainty", SliceStack.of(shares, np.eye(4)), 0.5, "nats")
    payload = pack(Layers(SliceStack.of(shares, np.eye(4)), heat=(heat,)), PLENTY)
    assert unpacked(payload, "heat0")[1, 2, 3] == 255
    assert np.count_nonzero(unpacked(payload, "heat0")) == 1


def test_a_file_in_any_orientation_lies_as_its_affine_says_and_keeps_its_slice_numbers(tmp_path):
    """Axes of the file: posterior, left, inferior; the page's: right, anterior, superior."""
    affine = np.array([[0, -2.0, 0, 9], [-1.0, 0, 0, 5], [0, 0, -6.0, 7], [0, 0, 0, 1]])
    voxels = np.random.default_rng(0).integers(0, 200, (7, 9, 4)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    about = (payload := pack(Layers(open_stack(Source(tmp_path / "a.nii.gz"))), PLENTY)).about
    assert about["shape"] == [9, 7, 4]
    assert about["spacing"] == [2, 1, 6]
    assert about["ends"] == [["L", "R"], ["P", "A"], ["I", "S"]]
    assert all(axis["flipped"] and axis["first"] == 1 and axis["step"] == 1 for axis in about["file"])
    assert [axis["slices"] for axis in about["file"]] == [9, 7, 4]
    low, high = about["window"]
    place = np.array([2, 3, 1, 1])  # of the page's grid
    x, y, z = np.rint(np.linalg.solve(affine, [*(np.array(about["affine"]) @ place), 1])).astype(int)[:3]
    assert low + unpacked(payload, "image")[2, 3, 1] / 255 * (high - low) == pytest.approx(voxels[x, y, z], abs=1)


def test_oblique_stacks_say_so_and_name_both_sides():
    affine = SHORT_AXIS.copy()
    affine[:3, :3] = Rotation.from_euler("y", 40, degrees=True).as_matrix() @ affine[:3, :3]
    about = pack(Layers(SliceStack.of(ramp(), affine)), PLENTY).about
    assert about["planes"] == ["sagittal, oblique by 40°", "coronal", "axial, oblique by 40°"]
    assert about["ends"][0] == ["LS", "RI"]
    assert about["spacing"] == pytest.approx([1.5, 1.5, 8])


def test_what_is_too_large_is_cut_around_the_labels_then_made_coarser_and_both_are_said():
    image, labels = ramp((60, 60, 20)), cube((60, 60, 20))
    layers = Layers(SliceStack.of(image, np.eye(4)), SliceStack.of(labels, np.eye(4)))
    cut = pack(layers, 2_000)
    assert cut.about["shape"] == [8, 12, 7]  # 4 x 8 x 3 and two voxels on each side
    assert cut.about["said"] == ["Cut to 8 × 12 × 7 of 60 × 60 × 20 voxels, what is labelled and a margin around it."]
    np.testing.assert_array_equal(unpacked(cut, "reference"), labels[3:11, 2:14, :7])
    assert cut.about["file"][0] == {"first": 4, "step": 1, "slices": 60, "flipped": False}
    coarse = pack(layers, 100)
    assert np.prod(coarse.about["shape"]) <= 100 / 0.8 / 1.1
    assert coarse.about["said"][1].startswith("Voxels of 1 × 1 × 1 mm are shown as 2 × 2 × 2 mm")
    np.testing.assert_array_equal(unpacked(coarse, "reference"), labels[4:11:2, 3:14:2, 1:7:2][..., [0, 1, 2, 2]])


def test_a_coarse_image_is_the_mean_of_its_blocks_also_of_those_that_are_not_full():
    image = np.array([0, 10, 20, 30, 99], np.float32)[:, None, None] * np.ones((1, 1, 1), np.float32)
    payload = pack(Layers(SliceStack.of(image, np.eye(4))), 2)
    assert payload.about["shape"] == [2, 1, 1]
    assert payload.about["window"] == pytest.approx(((0 + 10 + 20) / 3, (30 + 99) / 2), rel=0.01)


def test_a_volume_larger_than_the_memory_for_it_is_read_slice_by_slice(tmp_path):
    shape = (400, 400, 200)  # 64 MB as it is stored, 128 MB as float32
    voxels = np.broadcast_to(np.arange(400, dtype=np.int16)[:, None, None], shape)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "large.nii")
    tracemalloc.start()
    payload = pack(layers_of_files(Source(tmp_path / "large.nii"), encode=lambda values: values), 500_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6
    assert payload.size < 500_000
    assert payload.about["said"] == [
        "Voxels of 1 × 1 × 1 mm are shown as 4 × 4 × 4 mm: the image's mean, of labels the voxel in the middle."
    ]


def test_layers_on_different_grids_are_refused():
    with pytest.raises(GeometryError, match="different grids"):
        Layers(SliceStack.of(ramp(), np.eye(4)), SliceStack.of(cube(), SHORT_AXIS))


# ---------------------------------------------------------------- the page


def page_of(tmp_path, viewer: Viewer) -> str:
    content = {"title": "x", "key": [], "facts": [], "head": ["case"], "failed": [], "flagged": False, "told": ""}
    cases = [{"name": case.name, "cells": [], "note": case.note, "flag": None} for case in viewer.cases]
    return write_page_with_viewer(
        tmp_path / "report.html", "prediction.html", viewer, cases=cases, **content
    ).read_text()


def noise(_: str) -> Layers:
    return Layers(SliceStack.of(np.random.default_rng(0).integers(0, 255, (30, 30, 30)), np.eye(4)))


def test_a_page_keeps_to_its_bytes_shows_worst_median_and_best_first_and_says_what_it_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(viewer_module, "MOST_BYTES", 220_000)
    cases = tuple(ViewerCase(f"case_{n}", {"a": (n / 10,)}) for n in range(9))
    viewer = Viewer(("a",), noise, cases, (Column("Dice", "low"),), ("a",), elsewhere="the folder")
    page = page_of(tmp_path, viewer)
    assert len(page.encode()) < 220_000
    shown = [case for case in (f"case_{n}" for n in range(9)) if f'data-case="{case}"' in page]
    assert shown[0] == "case_0"
    assert {"case_4", "case_8"} <= set(shown)
    assert f"{len(shown)} of 9 cases are in this page" in page
    assert "The others are in the folder." in page


def test_a_case_that_cannot_be_read_costs_itself_alone(tmp_path):
    def load(name: str) -> Layers:
        if name == "bad":
            raise VolumeError("/x/bad.nii.gz is truncated:\n copy it again")
        return noise(name)

    page = page_of(tmp_path, Viewer(("a",), load, (ViewerCase("bad"), ViewerCase("good"))))
    assert "bad can&#39;t be shown: /x/bad.nii.gz is truncated: copy it again" in page
    assert 'data-case="good"' in page
    assert 'data-case="bad"' not in page


def test_names_end_no_script_and_a_page_without_cases_has_no_viewer(tmp_path):
    hostile = "</script><script>alert(1)</script>"
    page = page_of(tmp_path, Viewer((hostile,), noise, (ViewerCase(hostile, note=hostile),)))
    assert "alert(1)</script>" not in page
    assert 'id="viewer"' not in page_of(tmp_path, Viewer(("a",), noise, ()))
