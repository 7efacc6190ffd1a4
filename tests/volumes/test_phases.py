"""Phases of a beat and their times: from 4D files, from one series, from a series a slice."""

import nibabel as nib
import numpy as np
import pytest
from beating_heart import AFFINE, put
from made_dicom import SERIES, write_frames, write_slices
from pydicom.dataset import Dataset

from segmed.errors import VolumeError
from segmed.volumes import resample_onto
from segmed.volumes.phases import read_phase_labels, read_phases

PHASES = np.random.default_rng(0).integers(0, 1000, (4, 6, 7, 3)).astype(np.int16)


def on_grid(phases) -> np.ndarray:
    """(T, X, Y, Z) where AFFINE places them."""
    return resample_onto(phases.volume, affine=AFFINE, shape=PHASES.shape[1:], mode="nearest").numpy()


def triggered(phase, *, step_ms=100.0, series=None):
    """Change of a slice: its trigger time and, where the slices are series of their own, its series."""

    def change(data, z):
        data.TriggerTime = str(12.0 + step_ms * phase)
        data.InstanceNumber = 1 + phase
        if series is not None:
            data.SeriesInstanceUID = f"{SERIES}.{series}.{z}"

    return change


def series(folder, phases=PHASES, **options):
    for phase, volume in enumerate(phases):
        write_slices(folder, volume, AFFINE, first=phase * volume.shape[2], change=triggered(phase, **options))
    return folder


def test_times_of_a_file_are_those_of_its_header(tmp_path):
    phases = read_phases(put(tmp_path / "a.nii.gz", PHASES, step_ms=100.0))
    assert phases.times_ms == pytest.approx((0, 100, 200, 300))
    assert np.array_equal(phases.volume.numpy(), PHASES)
    assert phases.step_ms == pytest.approx(100)


def test_seconds_become_milliseconds_and_no_heart_beats_once_in_half_a_minute(tmp_path):
    path = put(tmp_path / "a.nii.gz", PHASES, step_ms=None)
    for step, times in ((0.1, (0, 100, 200, 300)), (30.0, None)):
        image = nib.load(path)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = step
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), tmp_path / "b.nii.gz")
        phases = read_phases(tmp_path / "b.nii.gz")
        assert phases.times_ms == (None if times is None else pytest.approx(times))
    assert "which no heart has" in phases.remark


def test_times_that_are_not_there_can_be_given(tmp_path):
    path = put(tmp_path / "a.nii.gz", PHASES, step_ms=None)
    assert read_phases(path).times_ms is None
    assert read_phases(path).remark == "the file does not say the time between its phases"
    assert read_phases(path, step_ms=90.0).times_ms == pytest.approx((0, 90, 180, 270))


def test_a_series_is_sorted_by_its_trigger_times(tmp_path):
    phases = read_phases(series(tmp_path / "a"))
    assert np.array_equal(on_grid(phases), PHASES)
    assert phases.times_ms == pytest.approx((0, 100, 200, 300))


def test_slices_that_are_series_of_their_own_are_one_cine(tmp_path):
    for z in range(3):
        for phase in range(4):
            affine = AFFINE.copy()
            affine[:3, 3] += z * AFFINE[:3, 2]
            change = triggered(phase, step_ms=100 + z, series=z)
            part = PHASES[phase, :, :, z : z + 1]
            write_slices(tmp_path / "a" / f"sax_{z}", part, affine, first=10 * z + phase, change=change)
    phases = read_phases(tmp_path / "a")
    assert np.array_equal(on_grid(phases), PHASES)
    assert phases.times_ms == pytest.approx((0, 101, 202, 303))  # the mean over slices whose beats differ a little
    (tmp_path / "a" / "sax_2" / next((tmp_path / "a" / "sax_2").iterdir()).name).unlink()
    with pytest.raises(VolumeError, match="3 series of 3 to 4 images"):
        read_phases(tmp_path / "a")


def test_an_enhanced_object_says_the_trigger_time_of_every_frame(tmp_path):
    order = [(time, z) for z in range(3) for time in (2, 0, 3, 1)]

    def beat(data, _):
        for group, (time, _) in zip(data.PerFrameFunctionalGroupsSequence, order, strict=True):
            del group.FrameContentSequence
            item = Dataset()
            item.NominalCardiacTriggerDelayTime = 20.0 + 50 * time
            group.CardiacSynchronizationSequence = [item]

    path = write_frames(tmp_path / "a.dcm", list(PHASES), AFFINE, order=order, change=beat)
    phases = read_phases(path)
    assert np.array_equal(on_grid(phases), PHASES)
    assert phases.times_ms is None  # 200 ms are no beat
    assert "a beat of 200 ms" in phases.remark


def test_one_phase_is_no_cine(tmp_path):
    with pytest.raises(VolumeError, match="holds one phase"):
        read_phases(put(tmp_path / "a.nii.gz", PHASES[:1]))
    with pytest.raises(VolumeError, match="holds one phase"):
        read_phases(series(tmp_path / "b", PHASES[:1]))


def test_label_maps_have_the_phases_and_the_grid_of_their_cine(tmp_path):
    cine = read_phases(put(tmp_path / "a.nii.gz", PHASES))
    labels = PHASES % 4
    assert np.array_equal(read_phase_labels(put(tmp_path / "l.nii.gz", labels), cine), labels)
    with pytest.raises(VolumeError, match="has 2 phases, its cine 4"):
        read_phase_labels(put(tmp_path / "m.nii.gz", labels[:2]), cine)
    with pytest.raises(VolumeError, match="another grid"):
        read_phase_labels(put(tmp_path / "n.nii.gz", labels, affine=2 * AFFINE), cine)
    with pytest.raises(VolumeError, match="not whole numbers"):
        read_phase_labels(put(tmp_path / "o.nii.gz", labels.astype(np.float32) + 0.3), cine)
