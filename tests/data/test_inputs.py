"""What a user points at becomes cases: files, folders of every arrangement, data sets."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from segmed.config import DataConfig, MsdLayout, NnunetLayout, PatternLayout, PhantomLayout
from segmed.data.inputs import find_inputs
from segmed.errors import DatasetError


def write(path: Path, *, shape=(4, 3, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4)), path)
    return path


def inputs_of(path: Path, **data) -> dict[str, list[str]]:
    """Output name -> names of the files, with the component where one is chosen."""
    inputs = find_inputs(path, DataConfig(**{"labels": {"scar": 1}, "images": ("T1",), "layout": MsdLayout(), **data}))
    return {
        str(item.output): [
            f"{source.path.name}" + ("" if source.component is None else f"[{source.component}]")
            for source in item.case.images.values()
        ]
        for item in inputs
    }


def test_files_of_one_name_keep_their_folders(tmp_path):
    for name in ("one/t1.nii.gz", "two/t1.nii.gz", "two/other.nii.gz"):
        write(tmp_path / name)
    assert sorted(inputs_of(tmp_path)) == ["one/t1.nii.gz", "other.nii.gz", "two/t1.nii.gz"]


def test_two_inputs_of_one_output_are_refused(tmp_path):
    for name in ("a.png", "a.jpg"):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 8), np.uint8)), str(tmp_path / name))
    with pytest.raises(DatasetError, match=r"both be written as a\.png"):
        inputs_of(tmp_path)


def test_nnunet_channels_are_the_modalities_of_a_case(tmp_path):
    for name in ("x_0000.nii.gz", "x_0001.nii.gz", "y_0001.nii.gz", "y_0000.nii.gz"):
        write(tmp_path / name)
    expected = {"x.nii.gz": ["x_0000.nii.gz", "x_0001.nii.gz"], "y.nii.gz": ["y_0000.nii.gz", "y_0001.nii.gz"]}
    inputs = inputs_of(tmp_path, images=("T1", "T2"), layout=NnunetLayout())
    assert {name: sorted(files) for name, files in inputs.items()} == expected
    alone = inputs_of(tmp_path / "x_0001.nii.gz", images=("T1", "T2"))
    assert alone == {"x.nii.gz": ["x_0000.nii.gz", "x_0001.nii.gz"]}


def test_an_nnunet_data_set_is_predicted_with_its_test_images_and_without_its_labels(tmp_path):
    for name in ("imagesTr/x_0000.nii.gz", "labelsTr/x.nii.gz", "imagesTs/z_0000.nii.gz"):
        write(tmp_path / name)
    assert sorted(inputs_of(tmp_path, images=("0000",), layout=NnunetLayout())) == ["x.nii.gz", "z.nii.gz"]
    assert sorted(inputs_of(tmp_path / "imagesTs", layout=NnunetLayout())) == ["z.nii.gz"]


def test_an_msd_data_set_is_read_by_its_names_of_channels(tmp_path):
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "ab"]
    (tmp_path / "dataset.json").write_text(
        json.dumps({"modality": {"0": "FLAIR", "1": "T1"}, "labels": {"1": "scar"}, "training": training})
    )
    # case b is listed, but it was not copied
    write(tmp_path / "imagesTr" / "a.nii.gz", shape=(6, 6, 4, 2))
    write(tmp_path / "labelsTr" / "a.nii.gz", shape=(6, 6, 4))
    assert inputs_of(tmp_path) == {"a.nii.gz": ["a.nii.gz[1]"]}


def test_a_4d_file_gives_its_components_by_name_or_in_order(tmp_path):
    path = write(tmp_path / "a.nii.gz", shape=(6, 6, 4, 2))
    assert inputs_of(path, images=("T2", "T1"), components={"T1": 0, "T2": 1}) == {
        "a.nii.gz": ["a.nii.gz[1]", "a.nii.gz[0]"]
    }
    assert inputs_of(path, images=("ED",), components={"ED": 0, "ES": 1}) == {"a.nii.gz": ["a.nii.gz[0]"]}
    assert inputs_of(path, images=("T1", "T2")) == {"a.nii.gz": ["a.nii.gz[0]", "a.nii.gz[1]"]}


@pytest.mark.parametrize("given", ["", "p1", "p1/p1_T1.nii.gz", "p1/p1_T2.nii.gz"])
def test_patterns_of_the_run_tell_images_from_label_maps(tmp_path, given):
    for case in ("p1", "p2"):
        for kind in ("T1", "T2", "gt"):
            write(tmp_path / case / f"{case}_{kind}.nii.gz")
    patterns = {"T1": "{case}/{case}_T1.nii.gz", "T2": "{case}/{case}_T2.nii.gz"}
    layout = PatternLayout(images=patterns, label="{case}/{case}_gt.nii.gz")
    inputs = inputs_of(tmp_path / given, images=("T1", "T2"), layout=layout)
    assert inputs["p1.nii.gz"] == ["p1_T1.nii.gz", "p1_T2.nii.gz"]
    assert len(inputs) == (1 if given else 2)


def test_one_modality_keeps_the_name_of_its_file(tmp_path):
    write(tmp_path / "p1" / "p1_LGE.nii.gz")
    write(tmp_path / "p1" / "p1_label.nii.gz")
    assert inputs_of(tmp_path, images=("LGE",), layout=PhantomLayout()) == {"p1_LGE.nii.gz": ["p1_LGE.nii.gz"]}


def test_volumes_in_another_layout_than_the_runs_are_found(tmp_path):
    write(tmp_path / "a" / "b" / "c.nii.gz")
    layout = PatternLayout(images={"T1": "{case}/{case}_T1.nii.gz"}, label="{case}/{case}_gt.nii.gz")
    assert inputs_of(tmp_path, layout=layout) == {"c.nii.gz": ["c.nii.gz"]}
