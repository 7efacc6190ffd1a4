"""`tools/predict.py`: inputs of every kind, label maps on their own grids, ensembles, and what happens to bad files."""

import json
import os
import pickle
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from made_bids import make_bids
from made_dicom import write_slices

from segmed.builders.architectures import build_network
from segmed.builders.trained import load_run
from segmed.commands.program import main_of
from segmed.config import DataConfig, MsdLayout, NnunetLayout, PatternLayout, SegmentationConfig
from segmed.data.inputs import find_inputs
from segmed.errors import DiskError
from segmed.labels import LabelSet
from segmed.runs import Run, write_config
from segmed.segment.outputs import sole_writer
from segmed.segment.predict import entropy, predict_cases
from segmed.segmenters.combine import LargestComponent
from segmed.segmenters.segmenter import Segmenter, on_grid_of
from segmed.training.checkpoint import save_weights
from segmed.volumes import read_header, read_volume

TOOL = Path(__file__).resolve().parents[2] / "tools" / "predict.py"
OBLIQUE = np.array([[-0.7, 0.1, 2.0, 40], [0.2, 0.9, 0.6, -7], [-0.3, 0.4, -6.0, 12], [0, 0, 0, 1]])
OBLIQUE[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] * np.array([0.8, 0.9, 7.0])
LABELS = {"myocardium": [200, 1220], "scar": [2221]}


def make_run(folder: Path, *, images=("LGE",), labels=LABELS, seed=0, layout=None, components=None, **sections) -> Path:
    """A run with random weights: all that prediction reads of one."""
    config = SegmentationConfig.model_validate(
        {
            "name": folder.name,
            "data": {
                "layout": (layout or MsdLayout()).model_dump(),
                "images": images,
                "labels": labels,
                "components": components or {},
            },
            "preprocess": {
                "orientation": "ras", "spacing_mm": "native", "crop": "none", "intensity": "zscore",
                "interpolation": "linear", "separate_z": False,
            },
            "patches": {"dims": 3, "size": (16, 16, 8)},
            "network": {
                "name": "unet",
                "encoder": {"channels": (4, 8), "strides": ((1, 1, 1), (2, 2, 1)), "blocks": 1},
            },
            "train": {"batch_size": 2, "precision": "fp32"},
            "inference": {"largest_component": ()},
            **sections,
        }
    )  # fmt: skip
    run = Run(folder)
    run.weights().parent.mkdir(parents=True)
    write_config(run, config, {})
    torch.manual_seed(seed)
    channels = {"in_channels": len(images), "out_channels": len(labels) + 1}
    network = build_network(config.network, dims=config.patches.dims, **channels)
    save_weights(run.weights(), network, {})
    return folder


def write(path: Path, *, shape=(18, 14, 5), affine=OBLIQUE, seed=0) -> Path:
    """A volume of noise; its format is that of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)
    if path.name.endswith((".nii.gz", ".nii")):
        image = nib.Nifti1Image(voxels, affine)
        image.header["descrip"] = b"scanner 7"
        nib.save(image, path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(voxels.T), str(path))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "lge")


@pytest.fixture
def predict(capsys, monkeypatch):
    """Call the tool in this process; gives the exit code, stdout and stderr."""

    def call(*options):
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, options)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(TOOL), run_name="__main__")
        for number, handler in handlers.items():
            signal.signal(number, handler)
        printed = capsys.readouterr()
        return stop.value.code, printed.out, printed.err

    return call


def record_of(folder: Path) -> dict:
    return json.loads((folder / "prediction.json").read_text())


def statuses(folder: Path) -> dict[str, str]:
    return {Path(case["inputs"][0]).name: case["status"] for case in record_of(folder)["cases"]}


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- what is written


def test_a_label_map_has_the_grid_the_header_the_name_and_the_values_of_the_data_set(run, predict, tmp_path):
    path = write(tmp_path / "in" / "patient.7.nii.gz")
    code, out, _ = predict("--run", run, "--input", path, "--output", tmp_path / "out")
    assert code == 0
    assert "1 of 1" in out
    found = nib.load(tmp_path / "out" / "patient.7.nii.gz")
    assert found.shape == (18, 14, 5)
    np.testing.assert_allclose(found.affine, OBLIQUE, atol=1e-5)
    assert bytes(found.header["descrip"]).startswith(b"scanner 7")
    expected = load_run(run)(read_volume(path)).numpy()[0]
    values = np.asarray(found.dataobj)
    assert values.dtype.kind in "iu"
    np.testing.assert_array_equal(values, np.array([0, 200, 2221])[expected])
    assert len(np.unique(values)) == 3


def test_the_record_says_how_a_label_map_was_made(run, predict, tmp_path):
    write(tmp_path / "in" / "a.nii.gz")
    predict("--run", run, "--input", tmp_path / "in", "--output", tmp_path / "out", "--overlap", 0.25, "--mirror")
    record = record_of(tmp_path / "out")
    assert record["runs"][0]["run"] == str(run)
    assert len(record["runs"][0]["sha256"]) == 64
    assert record["runs"][0]["inference"]["overlap"] == 0.25
    assert record["runs"][0]["inference"]["mirror"] is True
    assert record["classes"] == ["background", "myocardium", "scar"]
    assert record["values"] == [0, 200, 2221]
    assert "torch" in record["versions"]
    case = record["cases"][0]
    values = np.asarray(nib.load(tmp_path / "out" / "a.nii.gz").dataobj)
    assert case["voxels"] == {"myocardium": int((values == 200).sum()), "scar": int((values == 2221).sum())}
    assert case["volume_ml"]["scar"] == pytest.approx(case["voxels"]["scar"] * 0.8 * 0.9 * 7 / 1000, abs=1e-3)
    assert case["seconds"] > 0


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha", ".mhd"])
def test_every_format_comes_back_as_itself(run, predict, tmp_path, suffix):
    path = write(tmp_path / "in" / f"a{suffix}")
    assert predict("--run", run, "--input", tmp_path / "in", "--output", tmp_path / "out")[0] == 0
    one, two = read_header(path), read_header(tmp_path / "out" / f"a{suffix}")
    assert one.shape == two.shape
    np.testing.assert_allclose(two.affine, one.affine, atol=1e-5)


def test_a_picture_becomes_a_picture(predict, tmp_path):
    network = {"name": "unet", "encoder": {"channels": (4, 8), "strides": ((1, 1), (2, 2)), "blocks": 1}}
    run = make_run(
        tmp_path / "run",
        labels={"tumour": 255},
        patches={"dims": 2, "plane": "axial", "size": (16, 16)},
        network=network,
    )
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
    for name in ("a.png", "b.jpg"):
        (tmp_path / "in").mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(tmp_path / "in" / name))
    assert predict("--run", run, "--input", tmp_path / "in", "--output", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == ["a.png", "b.png", "prediction.json", "report.html"]
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "a.png")))
    assert found.shape == (20, 30)
    assert set(np.unique(found)) == {0, 255}


def test_a_dicom_series_becomes_a_nifti_file_of_its_folders_name(run, predict, tmp_path):
    series = tmp_path / "in" / "study_4"
    series.mkdir(parents=True)
    write_dicom(series, np.random.default_rng(0).integers(0, 900, (18, 14, 5)))
    for given in (series, tmp_path / "in"):
        output = tmp_path / f"out of {given.name}"
        assert predict("--run", run, "--input", given, "--output", output)[0] == 0
        assert names(output) == ["prediction.json", "report.html", "study_4.nii.gz"]
        one, two = read_header(series), read_header(output / "study_4.nii.gz")
        assert one.shape == two.shape
        np.testing.assert_allclose(two.affine, one.affine, atol=1e-4)


def write_dicom(folder: Path, voxels: np.ndarray) -> None:
    image = sitk.GetImageFromArray(voxels.astype(np.int16).T)
    image.SetSpacing((0.8, 0.9, 7.0))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number in range(image.GetDepth()):
        piece = image[:, :, number]
        tags = {
            "0008|0060": "MR", "0020|000e": "1.2.826.0.1.3680043.2.1125.1", "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.3.{number}", "0020|0013": str(number), "0010|0010": "a",
            "0020|0032": f"0\\0\\{7 * number}", "0020|0037": "1\\0\\0\\0\\1\\0", "0018|0050": "7",
        }  # fmt: skip
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{number}.dcm"))
        writer.Execute(piece)


def test_probabilities_and_uncertainty_are_written_on_request(run, predict, tmp_path):
    path = write(tmp_path / "in" / "a.nii.gz")
    predict(
        "--run", run, "--input", path, "--output", tmp_path / "out", "--probabilities", "--uncertainty"
    )  # fmt: skip
    output = tmp_path / "out"
    assert names(output) == [
        "a.nii.gz",
        "prediction.json",
        "probabilities/a_probabilities.nii.gz",
        "report.html",
        "uncertainty/a_uncertainty.nii.gz",
    ]
    found = read_volume(output / "probabilities" / "a_probabilities.nii.gz")
    expected = load_run(run).probabilities(read_volume(path))
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), atol=1e-6, rtol=0)
    uncertainty = read_volume(output / "uncertainty" / "a_uncertainty.nii.gz").as_tensor()
    torch.testing.assert_close(uncertainty[0], torch.special.entr(expected.as_tensor()).sum(0), atol=1e-5, rtol=0)
    np.testing.assert_allclose(nib.load(output / "uncertainty" / "a_uncertainty.nii.gz").affine, OBLIQUE, atol=1e-5)


def test_a_name_that_leaves_no_room_for_what_is_written_of_it_is_told_before_the_work(run, predict, tmp_path):
    name = "ü" * 120 + "n.nii.gz"  # 248 bytes
    write(tmp_path / "in" / name)
    code, _, err = predict("--run", run, "--input", tmp_path / "in", "--output", tmp_path / "out", "--probabilities")
    assert code == 2
    assert "has a name of more than 255 bytes: shorten it, or leave out the probabilities" in err
    assert not names(tmp_path / "out")
    assert predict("--run", run, "--input", tmp_path / "in", "--output", tmp_path / "out")[0] == 0
    assert name in names(tmp_path / "out")


def test_entropy_is_zero_where_certain_and_ln_classes_where_not():
    volume = read_volume_of_ones()
    certain = torch.zeros(3, 2, 2, 2)
    certain[1] = 1
    assert (entropy(on_grid_of(volume, certain)).as_tensor() == 0).all()
    undecided = entropy(on_grid_of(volume, torch.full((3, 2, 2, 2), 1 / 3))).as_tensor()
    torch.testing.assert_close(undecided, torch.full((1, 2, 2, 2), float(np.log(3))))


def read_volume_of_ones():
    from monai.data import MetaTensor

    return MetaTensor(torch.ones(1, 2, 2, 2), affine=torch.eye(4, dtype=torch.float64))


# ---------------------------------------------------------------- ensembles and settings


def test_an_ensemble_is_the_mean_of_its_runs(run, predict, tmp_path):
    other = make_run(tmp_path / "other", seed=1)
    path = write(tmp_path / "in" / "a.nii.gz")
    options = ("--input", path, "--output", tmp_path / "out", "--probabilities")
    assert predict("--run", run, "--run", other, *options)[0] == 0
    volume = read_volume(path)
    expected = (load_run(run).probabilities(volume) + load_run(other).probabilities(volume)) / 2
    found = read_volume(tmp_path / "out" / "probabilities" / "a_probabilities.nii.gz")
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), atol=1e-6, rtol=0)
    assert [entry["name"] for entry in record_of(tmp_path / "out")["runs"]] == ["lge", "other"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": {"myocardium": [200], "scar": [2221]}}, "have different labels: myocardium [200, 1220]"),
        ({"labels": {"scar": [2221], "myocardium": [200, 1220]}}, "have different labels"),
        ({"images": ("T2",)}, "have different images: LGE and T2"),
    ],
)
def test_an_ensemble_of_other_labels_or_images_is_refused(run, predict, tmp_path, changes, words):
    other = make_run(tmp_path / "other", **changes)
    path = write(tmp_path / "in" / "a.nii.gz")
    code, _, err = predict("--run", run, "--run", other, "--input", path, "--output", tmp_path / "out")
    assert code == 2
    assert words in err
    assert one_line(err)
    assert not (tmp_path / "out").exists()


def test_a_run_that_lost_its_weights_is_told(run, predict, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    weights = tmp_path / "copy" / "weights" / "best.safetensors"
    weights.unlink()
    path = write(tmp_path / "in" / "a.nii.gz")
    code, _, err = predict("--run", tmp_path / "copy", "--input", path, "--output", tmp_path / "out")
    assert code == 2
    assert err == f"error: weights {weights} are not there: train first, or name another run\n"


def test_several_runs_after_one_option_are_told_how_they_are_given(run, predict, tmp_path):
    path = write(tmp_path / "in" / "a.nii.gz")
    code, _, err = predict("--run", run, tmp_path / "other", "--input", path, "--output", tmp_path / "out")
    assert code == 2
    assert f"'{tmp_path / 'other'}' lacks its option: give --run before each value" in err
    assert one_line(err)


def one_line(err: str) -> bool:
    return err.startswith("error: ") and err.count("\n") == 1


def test_pieces_are_cleaned_as_the_run_says_or_as_the_command_line_says(predict, tmp_path):
    cleaning = make_run(tmp_path / "cleaning", inference={"largest_component": ["scar"]})
    path = write(tmp_path / "in" / "a.nii.gz")
    raw = load_run(make_run(tmp_path / "plain"))
    for options, labels in (((), ["scar"]), (("--largest-component",), []), (("--largest-component", "myocardium"),
                            ["myocardium"])):  # fmt: skip
        output = tmp_path / f"out {labels}"
        assert predict("--run", cleaning, "--input", path, "--output", output, *options)[0] == 0
        expected = raw.labels.decode(LargestComponent(raw, labels)(read_volume(path)).numpy())
        np.testing.assert_array_equal(np.asarray(nib.load(output / "a.nii.gz").dataobj), expected[0])
        assert record_of(output)["settings"]["largest_component"] == labels


def test_mirroring_a_run_that_was_trained_without_flips_is_warned_of(run, predict, tmp_path):
    path = write(tmp_path / "in" / "a.nii.gz")
    _, _, err = predict("--run", run, "--input", path, "--output", tmp_path / "out", "--mirror")
    assert "trained without flips" in err


def test_several_modalities_are_predicted_in_the_order_of_the_run(predict, tmp_path):
    run = make_run(tmp_path / "two", images=("T2", "T1"), layout=NnunetLayout())
    t2, t1 = write(tmp_path / "in" / "x_0000.nii.gz"), write(tmp_path / "in" / "x_0001.nii.gz", seed=1)
    assert predict("--run", run, "--input", tmp_path / "in", "--output", tmp_path / "out")[0] == 0
    volume = on_grid_of(read_volume(t2), torch.cat([read_volume(t2).as_tensor(), read_volume(t1).as_tensor()]))
    made = load_run(run)
    expected = made.labels.decode(made(volume).numpy())[0]
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out" / "x.nii.gz").dataobj), expected)


# ---------------------------------------------------------------- bad files


def test_bad_files_are_reported_and_the_others_are_predicted(run, predict, tmp_path):
    folder = tmp_path / "in"
    good = [write(folder / name) for name in ("a.nii.gz", "z.nii.gz")]
    truncated = write(folder / "m.nii.gz", shape=(40, 40, 20))
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    (folder / "text.nii.gz").write_text("not a volume at all")
    write(folder / "time.nii.gz", shape=(8, 8, 4, 3))
    nan = np.full((4, 4, 4), np.nan, np.float32)
    nib.save(nib.Nifti1Image(nan, np.eye(4)), folder / "nan.nii.gz")
    code, out, err = predict("--run", run, "--input", folder, "--output", tmp_path / "out")
    assert code == 1
    assert "2 of 6 label maps" in out
    assert statuses(tmp_path / "out") == {
        "a.nii.gz": "done", "z.nii.gz": "done",
        "m.nii.gz": "failed", "text.nii.gz": "failed", "time.nii.gz": "failed", "nan.nii.gz": "failed",
    }  # fmt: skip
    lines = err.splitlines()
    assert lines[0] == "4 failed:"
    assert len(lines) == 5
    assert all(any(word in line for line in lines) for word in ("m.nii.gz", "text.nii.gz", "3 components", "NaN"))
    assert "Traceback" not in err
    assert names(tmp_path / "out") == ["a.nii.gz", "prediction.json", "report.html", "z.nii.gz"]
    assert np.array_equal(*(np.asarray(nib.load(tmp_path / "out" / path.name).dataobj) for path in good))


def test_a_case_with_a_wrong_number_of_channels_is_reported(predict, tmp_path):
    two = make_run(tmp_path / "two", images=("T2", "T1"), layout=NnunetLayout())
    for name in ("x_0000", "x_0001", "y_0000", "z_0000", "z_0001", "z_0002"):
        write(tmp_path / "in" / f"{name}.nii.gz")
    code, _, err = predict("--run", two, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 1
    assert "case y has 1 channel (T2), the run takes 2 (T2, T1)" in err
    assert "case z has 3 channels" in err
    assert names(tmp_path / "out") == ["prediction.json", "report.html", "x.nii.gz"]


def test_a_run_that_learned_to_do_without_says_what_was_missing(predict, tmp_path):
    options = {"images": ("T2", "T1"), "layout": NnunetLayout(), "augment": {"modality_dropout": 0.2}}
    two = make_run(tmp_path / "two", **options)
    for name in ("x_0000", "x_0001", "y_0000", "z_0001"):
        write(tmp_path / "in" / f"{name}.nii.gz")
    code, _, err = predict("--run", two, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 0
    assert err.splitlines() == ["y lacks T1: predicted without", "z lacks T2: predicted without"]
    cases = {case["case"]: case for case in record_of(tmp_path / "out")["cases"]}
    assert [cases[name].get("missing") for name in "xyz"] == [None, ["T1"], ["T2"]]
    assert predict("--run", two, "--input", tmp_path / "in", "--output", tmp_path / "out")[0] == 0
    assert set(statuses(tmp_path / "out").values()) == {"kept"}
    strict = make_run(tmp_path / "strict", images=("T2", "T1"), layout=NnunetLayout())
    code, _, err = predict("--run", two, "--run", strict, "--input", tmp_path / "in", "--output", tmp_path / "both")
    assert code == 1
    assert "y has 1 channel (T2), the run takes 2 (T2, T1)" in err
    assert "only a run that was trained with augment.modality_dropout does without one" in err


def test_a_lone_file_does_not_say_which_image_it_is(predict, tmp_path):
    options = {"images": ("T2", "T1"), "augment": {"modality_dropout": 0.2}}
    two = make_run(tmp_path / "two", **options)
    image = write(tmp_path / "a.nii.gz")
    code, _, err = predict("--run", two, "--input", image, "--output", tmp_path / "out")
    assert code == 1
    assert "has 1 channel (of unknown kind), the run takes 2 (T2, T1)" in err


def test_modalities_on_two_grids_are_reported(predict, tmp_path):
    two = make_run(tmp_path / "two", images=("T2", "T1"), layout=NnunetLayout())
    write(tmp_path / "in" / "x_0000.nii.gz")
    write(tmp_path / "in" / "x_0001.nii.gz", shape=(18, 14, 6))
    code, _, err = predict("--run", two, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 1
    assert "is not on the grid of" in err


class Failing(Segmenter):
    """Fails in its own way on every second case."""

    labels = LabelSet(("scar",), ((1,),))
    calls = 0

    def probabilities(self, volume):
        self.calls += 1
        if self.calls % 2:
            raise RuntimeError("DefaultCPUAllocator: can't\nallocate memory")
        return on_grid_of(volume, torch.full((2, *volume.shape[1:]), 0.5))


def test_an_error_in_one_case_stops_no_other(tmp_path):
    for name in "abcd":
        write(tmp_path / f"{name}.nii.gz")
    inputs = find_inputs(tmp_path, DataConfig(labels={"scar": 1}, images=("LGE",), layout=MsdLayout()))
    reports = list(predict_cases(Failing(), inputs, tmp_path / "out", modalities=("LGE",)))
    assert [report.status for report in reports] == ["failed", "done", "failed", "done"]
    assert reports[0].error == "RuntimeError: DefaultCPUAllocator: can't allocate memory"


@pytest.mark.parametrize("spacing_known", [True, False])
def test_volumes_in_ml_are_reported_where_the_spacing_is_known(tmp_path, spacing_known):
    write(tmp_path / "a.nii.gz")
    write(tmp_path / "b.nii.gz")
    inputs = find_inputs(tmp_path, DataConfig(labels={"scar": 1}, images=("LGE",), layout=MsdLayout()))
    *_, report = predict_cases(Failing(), inputs, tmp_path / "out", modalities=("LGE",), spacing_known=spacing_known)
    assert report.voxels == {"scar": 0}
    assert report.volume_ml == ({"scar": 0.0} if spacing_known else {})


def test_a_full_disk_stops_with_what_was_written_whole(run, tmp_path):
    """A limit on the size of files is what a quota does."""
    write(tmp_path / "a.nii.gz", shape=(64, 64, 40))
    inputs = find_inputs(tmp_path / "a.nii.gz", DataConfig(labels=LABELS, images=("LGE",), layout=MsdLayout()))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(DiskError, match="no space left"):
            list(predict_cases(load_run(run), inputs, tmp_path / "out", modalities=("LGE",)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path / "out") == []


# ---------------------------------------------------------------- bad usage


def test_missing_empty_and_labels_only_inputs_are_one_line(run, predict, tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "labels" / "labelsTr" / "a.nii.gz")
    for name, words in (("nowhere", "does not exist"), ("empty", "holds no volumes"), ("labels", "but label maps")):
        code, _, err = predict("--run", run, "--input", tmp_path / name, "--output", tmp_path / "out")
        assert code == 2
        assert words in err
        assert one_line(err)
    assert not (tmp_path / "out").exists()


def test_an_output_that_can_not_be_written_is_one_line(run, predict, tmp_path):
    path = write(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        code, _, err = predict("--run", run, "--input", path, "--output", output)
        assert code == 2
        assert "can't be written" in err
        assert one_line(err)


def test_an_input_is_never_replaced(run, predict, tmp_path):
    path = write(tmp_path / "in" / "a.nii.gz")
    before = path.read_bytes()
    code, _, err = predict("--run", run, "--input", path.parent, "--output", path.parent, "--overwrite")
    assert code == 2
    assert "would replace its input" in err
    assert path.read_bytes() == before


def test_label_maps_that_are_there_are_replaced_only_on_request(run, predict, tmp_path):
    path = write(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii.gz").write_text("somebody's work")
    options = ("--run", run, "--input", path, "--output", tmp_path / "out")
    code, _, err = predict(*options)
    assert code == 2
    assert "1 of 1 label maps exist" in err
    assert (tmp_path / "out" / "a.nii.gz").read_text() == "somebody's work"
    assert predict(*options, "--overwrite")[0] == 0
    assert nib.load(tmp_path / "out" / "a.nii.gz").shape == (18, 14, 5)


def test_the_same_call_goes_on_where_it_was_stopped(run, predict, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate("abc"):
        write(folder / f"{name}.nii.gz", seed=seed)
    options = ("--run", run, "--input", folder, "--output", output)
    predict(*options)
    stamp = (output / "a.nii.gz").stat().st_mtime_ns
    (output / "b.nii.gz").unlink()
    write(folder / "c.nii.gz", seed=9)
    os.utime(folder / "c.nii.gz", (1, 1))
    write(folder / "d.nii.gz")
    assert predict(*options)[0] == 0
    assert statuses(output) == {"a.nii.gz": "kept", "b.nii.gz": "done", "c.nii.gz": "done", "d.nii.gz": "done"}
    assert (output / "a.nii.gz").stat().st_mtime_ns == stamp
    assert predict(*options, "--overwrite")[0] == 0
    assert set(statuses(output).values()) == {"done"}


def test_label_maps_of_other_weights_are_not_mixed(run, predict, tmp_path):
    other = make_run(tmp_path / "other", seed=5)
    one, two = write(tmp_path / "one" / "a.nii.gz"), write(tmp_path / "two" / "b.nii.gz")
    predict("--run", run, "--input", one, "--output", tmp_path / "out")
    code, _, err = predict("--run", other, "--input", two, "--output", tmp_path / "out")
    assert code == 2
    assert "of other runs or settings" in err
    assert names(tmp_path / "out") == ["a.nii.gz", "prediction.json", "report.html"]


def test_with_overwrite_no_label_map_of_other_weights_stays(run, predict, tmp_path):
    other, folder, out = make_run(tmp_path / "other", seed=5), tmp_path / "in", tmp_path / "out"
    for name in "ab":
        write(folder / f"{name}.nii.gz")
    predict("--run", run, "--input", folder, "--output", out)
    before = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
    given = ("--run", other, "--output", out, "--overwrite")
    code, _, err = predict(*given, "--input", folder / "b.nii.gz")
    assert code == 2
    assert f"1 label maps of other runs or settings would stay in {out}, first a.nii.gz" in err
    assert {path.name: path.read_bytes() for path in out.glob("*.nii.gz")} == before
    assert predict(*given, "--input", folder)[0] == 0
    assert statuses(out) == {"a.nii.gz": "done", "b.nii.gz": "done"}


@pytest.mark.parametrize("gone", [False, True])
def test_another_image_of_one_name_size_and_time_is_not_done_before(run, predict, tmp_path, gone):
    one, two = (write(tmp_path / folder / "a.nii", seed=seed) for seed, folder in enumerate(("monday", "tuesday")))
    for path in (one, two):
        os.utime(path, (1, 1))
    out = tmp_path / "out"
    predict("--run", run, "--input", one.parent, "--output", out)
    before = (out / "a.nii").read_bytes()
    if gone:
        one.unlink()
    given = ("--run", run, "--input", two.parent, "--output", out)
    code, _, err = predict(*given)
    assert code == 2
    assert f"{two} and {one}, done before, have one name in {out}" in err
    assert (out / "a.nii").read_bytes() == before
    assert predict(*given, "--overwrite")[0] == 0
    assert (out / "a.nii").read_bytes() != before


def test_two_calls_never_write_one_record_at_a_time(run, predict, tmp_path, monkeypatch):
    monkeypatch.setattr("segmed.segment.outputs.WAIT_S", 0)
    given = ("--run", run, "--input", write(tmp_path / "in" / "a.nii.gz"), "--output", tmp_path / "out")
    with sole_writer(tmp_path / "out", tmp_path / "out" / "prediction.json"):
        code, _, err = predict(*given)
    assert code == 2
    assert "another segmed predict writes into" in err
    assert predict(*given)[0] == 0
    assert names(tmp_path / "out") == ["a.nii.gz", "prediction.json", "report.html"]


def test_earlier_label_maps_in_the_input_folder_are_no_inputs(run, predict, tmp_path):
    write(tmp_path / "a.nii.gz")
    for _ in range(2):
        assert predict("--run", run, "--input", tmp_path, "--output", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == ["a.nii.gz", "prediction.json", "report.html"]


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return Path.touch, (self.proof,)


def test_a_pickle_in_place_of_weights_is_never_executed(run, predict, tmp_path):
    proof, hostile = tmp_path / "executed", tmp_path / "hostile"
    shutil.copytree(run, hostile)
    path = write(tmp_path / "in" / "a.nii.gz")
    for dump in (lambda file: pickle.dump(Malicious(proof), file), lambda file: torch.save(Malicious(proof), file)):
        with open(hostile / "weights" / "best.safetensors", "wb") as file:
            dump(file)
        code, _, err = predict("--run", hostile, "--input", path, "--output", tmp_path / "out")
        assert code == 2
        assert one_line(err)
        assert "best.safetensors" in err
    assert not proof.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--overlap", "1.5"), "overlap"),
        (("--overlap", "half"), "overlap"),
        (("--device", "tpu"), "device"),
        (("--precision", "fp8"), "precision"),
        (("--largest-component", "skar"), "did you mean 'scar'"),
        (("--overwite",), "did you mean --overwrite"),
    ],
)
def test_wrong_options_are_one_line(run, predict, tmp_path, options, words):
    path = write(tmp_path / "in" / "a.nii.gz")
    code, _, err = predict("--run", run, "--input", path, "--output", tmp_path / "out", *options)
    assert code == 2
    assert words in err
    assert one_line(err)


def test_a_gpu_that_is_not_there_is_one_line(run, predict, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = write(tmp_path / "in" / "a.nii.gz")
    code, _, err = predict("--run", run, "--input", path, "--output", tmp_path / "out", "--device", "cuda:1")
    assert code == 2
    assert "there is no GPU" in err


def test_a_folder_that_is_no_run_is_one_line(predict, tmp_path):
    path = write(tmp_path / "in" / "a.nii.gz")
    for folder in (tmp_path / "nowhere", tmp_path / "in"):
        code, _, err = predict("--run", folder, "--input", path, "--output", tmp_path / "out")
        assert code == 2
        assert one_line(err)
    code, _, err = predict("--input", path, "--output", tmp_path / "out")
    assert code == 2
    assert "give --run" in err


def test_sigterm_leaves_whole_files_and_says_that_the_same_call_goes_on(run, tmp_path):
    for number in range(200):
        write(tmp_path / "in" / f"{number:03}.nii.gz")
    command = [sys.executable, TOOL, "--run", run, "--input", tmp_path / "in", "--output", tmp_path / "out"]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / "prediction.json").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same call goes on" in err
    written = [name for name in names(tmp_path / "out") if name not in ("prediction.json", "report.html")]
    recorded = [Path(case["output"]).name for case in record_of(tmp_path / "out")["cases"]]
    assert set(recorded) <= set(written)
    assert len(written) <= len(recorded) + 1 < 200
    assert all(nib.load(tmp_path / "out" / name).get_fdata().shape == (18, 14, 5) for name in written)


# ---------------------------------------------------------------- real volumes


@pytest.mark.parametrize(
    ("folder", "pattern", "layout"),
    [
        ("myops_lge", "*/*_LGE.nii.gz", PatternLayout(images={"LGE": "{case}/{case}_LGE.nii.gz"})),
        ("hippocampus", "imagesTr/*.nii.gz", MsdLayout()),
        ("brats2013", "*/*lair*.nii.gz", MsdLayout()),
    ],
)
def test_real_volumes_are_predicted_on_their_own_grid(real_data, predict, tmp_path, folder, pattern, layout):
    run = make_run(tmp_path / "run", layout=layout, patches={"dims": 3, "size": (64, 64, 8)})
    path = sorted(real_data(folder).glob(pattern))[0]
    assert predict("--run", run, "--input", path, "--output", tmp_path / "out", "--overlap", 0)[0] == 0
    before, after = nib.load(path), nib.load(tmp_path / "out" / path.name)
    assert after.shape == before.shape
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
    assert after.header["qform_code"] == before.header["qform_code"]
    assert set(np.unique(np.asarray(after.dataobj))) <= {0, 200, 2221}


def test_format_decides_between_dicom_seg_and_bids_derivatives(tmp_path, monkeypatch):
    pytest.importorskip("highdicom", reason="the extra dicom is not installed")
    run = make_run(tmp_path / "run")
    volume = np.random.default_rng(0).integers(0, 900, (18, 14, 5)).astype(np.int16)
    series = write_slices(tmp_path / "in/lge", volume, np.diag([-1.5, -1.25, 4.0, 1.0]))
    root = make_bids(tmp_path / "raw", subjects=("01",), sessions=(), modalities=("T1w",))
    for source, output, form in (
        (series, tmp_path / "seg", "dicom-seg"),
        (root, root / "derivatives/segmed", "bids"),
    ):
        options = ["--run", run, "--input", source, "--output", output, "--format", form, "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["segmed predict", *map(str, options)])
        assert main_of("predict")() == 0
    segments = pydicom.dcmread(tmp_path / "seg/lge_seg.dcm").SegmentSequence
    assert [each.SegmentLabel for each in segments] == ["myocardium", "scar"]
    values = read_volume(root / "derivatives/segmed/sub-01/anat/sub-01_desc-segmed_dseg.nii.gz").numpy()
    assert set(np.unique(values)) <= {0, 200, 2221}
