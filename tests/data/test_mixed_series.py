"""Folders in which slices of several DICOM series lie, as exports from a PACS do."""

import numpy as np
import pytest
from made_dicom import SERIES, write_slices

from segmed.config import DataConfig, PatternLayout
from segmed.data.inputs import find_inputs
from segmed.errors import VolumeError
from segmed.volumes import read_volume

AFFINE = np.diag([-1.5, -1.25, 4.0, 1.0])
DATA = DataConfig(layout=PatternLayout(), images=("image",))


def of_series(number, description):
    def change(data, z):
        data.SeriesInstanceUID, data.SeriesNumber, data.SeriesDescription = f"{SERIES}.{number}", number, description

    return change


def test_series_of_one_folder_are_cases_of_their_own(tmp_path):
    volumes = {7: np.full((6, 7, 5), 7, np.int16), 12: np.full((6, 7, 3), 12, np.int16)}
    write_slices(tmp_path / "study", volumes[12], AFFINE, change=of_series(12, "T2 SAX"))
    folder = write_slices(tmp_path / "study", volumes[7], AFFINE, change=of_series(7, "LGE/SAX"), first=50)
    items = find_inputs(folder, DATA)
    assert [item.output.name for item in items] == ["study_007_LGE_SAX.nii.gz", "study_012_T2_SAX.nii.gz"]
    for item, (number, volume) in zip(items, volumes.items(), strict=True):
        read = read_volume(item.case.images["image"])
        assert read.shape[1:] == volume.shape
        assert (read == number).all()
    with pytest.raises(VolumeError, match=r"holds 2 DICOM series \(007_LGE_SAX, 012_T2_SAX\): put each"):
        read_volume(folder)


def test_the_place_of_a_missing_slice_and_a_slice_of_another_plane_are_named(tmp_path):
    folder = write_slices(tmp_path / "s", np.zeros((6, 7, 5), np.int16), AFFINE)
    named = [f"IM{(number * 7919) % 1009:04d}.dcm" for number in range(5)]
    (folder / named[2]).unlink()
    with pytest.raises(VolumeError, match=f"one is missing or out of place between {named[1]} and {named[3]}"):
        read_volume(folder)

    def sagittal(data, z):
        if z == 1:
            data.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    folder = write_slices(tmp_path / "t", np.zeros((6, 7, 5), np.int16), AFFINE, change=sagittal)
    with pytest.raises(VolumeError, match=f"point in different directions: .* other planes, as {named[1]}"):
        read_volume(folder)
