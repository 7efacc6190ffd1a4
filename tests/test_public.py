"""`segmed.NAME`: every public name is documented by an example that runs; nothing is imported before it is used."""

import doctest
import inspect
import subprocess
import sys
from importlib.util import find_spec

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import segmed
from segmed import public
from segmed.config import SegmentationConfig
from segmed.errors import ConfigError, GeometryError, VolumeError
from segmed.public.experiments import experiment_of
from segmed.reports.drawing.label_colours import label_colours
from segmed.volumes import write_volume


class Loosely(doctest.OutputChecker):
    """An example that shows no output says nothing about it."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def test_the_examples_of_all_public_names_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {"np": np, "torch": torch, "MetaTensor": MetaTensor}
    flags = doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST
    runner = doctest.DocTestRunner(Loosely(), optionflags=flags, verbose=False)
    complaints: list[str] = []
    sources = {"segmed.public": public} | {name: getattr(segmed, name) for name in segmed.PUBLIC}
    if find_spec("ipyniivue") is None:
        del sources["view"]
    without = []
    for name, source in sources.items():
        test = doctest.DocTestParser().get_doctest(inspect.getdoc(source), known, name, None, None)
        test.globs = known
        without += [] if test.examples else [name]
        runner.run(test, out=complaints.append, clear_globs=False)
        if complaints:
            break
    assert not complaints, "".join(complaints)
    assert not without, f"without an example: {without}"


def test_importing_segmed_imports_nothing_heavy():
    script = (
        "import sys, segmed\n"
        "heavy = {'torch', 'monai', 'pydantic', 'numpy', 'tyro', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "segmed.config.SegmentationConfig\n"
        "assert 'torch' not in sys.modules\n"
        "segmed.reports\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_what_is_promised_is_there_and_nothing_else():
    assert set(segmed.PUBLIC) == set(public.__all__)
    assert len(set(segmed.PUBLIC)) == len(segmed.PUBLIC) < 40
    assert set(segmed.PUBLIC) <= set(dir(segmed))
    listed = segmed.__doc__.replace(",", " ").replace(":", " ").split()
    assert set(segmed.PUBLIC) <= set(listed)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        segmed.trian  # noqa: B018


def test_figures_are_found_by_name_and_only_when_they_are_used():
    assert set(segmed.reports.FIGURES) <= set(dir(segmed.reports))
    assert all(callable(getattr(segmed.reports, name)) for name in segmed.reports.FIGURES)
    with pytest.raises(AttributeError, match="no attribute 'figure_of_speech'"):
        segmed.reports.figure_of_speech  # noqa: B018


def test_a_file_is_scored_like_its_array_with_the_spacing_of_its_header(tmp_path):
    truth = np.zeros((12, 10, 8), np.int32)
    truth[3:8, 3:7, 2:6] = 7
    found = np.roll(truth, 1, axis=2)
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    for name, values in (("truth", truth), ("found", found)):
        write_volume(tmp_path / f"{name}.nii.gz", MetaTensor(torch.from_numpy(values)[None], affine=affine))
    (row,) = segmed.score(tmp_path / "found.nii.gz", tmp_path / "truth.nii.gz", {"lesion": 7})
    assert row == segmed.score(found, truth, {"lesion": 7}, spacing=(1, 1, 4))[0]
    assert row["hd_mm"] == pytest.approx(4)
    moved = affine.copy()
    moved[0, 3] = 5
    write_volume(tmp_path / "moved.nii.gz", MetaTensor(torch.from_numpy(found)[None], affine=moved))
    with pytest.raises(VolumeError, match="other grids"):
        segmed.score(tmp_path / "moved.nii.gz", tmp_path / "truth.nii.gz", {"lesion": 7})


def test_overrides_of_a_config_object_are_those_of_a_file(monkeypatch):
    asked = []
    monkeypatch.setattr("segmed.compose.run.show_plan", asked.append)
    changes = {"train.epochs": 7, "loss.name": "tversky"}
    segmed.plan("acdc", overrides=changes)
    segmed.plan(experiment_of("acdc", None), overrides=changes)
    assert asked[0] == asked[1]
    assert (asked[0].train.epochs, asked[0].loss.name) == (7, "tversky")
    with pytest.raises(ConfigError, match=r"'train\.epochs'"):
        segmed.plan(SegmentationConfig(), overrides={"train.epochs": 0})


def test_a_view_has_the_label_map_on_its_grid_in_the_colours_of_the_pages():
    pytest.importorskip("ipyniivue")
    affine = np.diag([1.0, 2.0, 4.0, 1.0])
    affine[:3, 3] = 7, -3, 5
    image = MetaTensor(torch.rand(1, 6, 5, 4), affine=torch.from_numpy(affine))
    labels = np.zeros((6, 5, 4), np.int32)
    labels[1:4], labels[4:] = 200, 2221
    shown, over = segmed.view(image, labels).volumes
    for volume, values in ((shown, image[0].numpy()), (over, labels)):
        nifti = nib.Nifti1Image.from_bytes(bytes(volume.data))
        np.testing.assert_array_equal(np.asarray(nifti.dataobj), values)
        np.testing.assert_array_equal(nifti.affine, affine)
    colours = np.reshape(over.colormap_label.lut, (-1, 4)).tolist()
    first, second = ([int(code[at : at + 2], 16) for at in (1, 3, 5)] for code in label_colours((), 2))
    assert colours[0][3] == 0
    assert (colours[200], colours[2221]) == ([*first, 255], [*second, 255])


def test_a_view_refuses_another_grid_and_names_the_missing_extra(monkeypatch):
    pytest.importorskip("ipyniivue")
    image = MetaTensor(torch.rand(1, 6, 5, 4), affine=torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0])))
    with pytest.raises(GeometryError, match="lie on different grids"):
        segmed.view(image, np.zeros((6, 5, 3), np.uint8))
    with pytest.raises(GeometryError, match="lie on different grids"):
        segmed.view(image, MetaTensor(torch.zeros(1, 6, 5, 4), affine=torch.eye(4)))
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(ConfigError, match=r'pip install "segmed-mri\[notebooks\]"'):
        segmed.view(image)
