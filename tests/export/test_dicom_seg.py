"""DICOM-SEG: read back by pydicom, highdicom and dcmqi, every voxel lies in the patient where it was drawn."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from made_dicom import write_frames, write_slices
from monai.data import MetaTensor

from segmed.config import DataConfig, PatternLayout
from segmed.config.label_codes import KNOWN_CODES, SegmentCode, code_of
from segmed.data.inputs import find_inputs
from segmed.errors import SegmenterError, VolumeError
from segmed.labels import LabelSet
from segmed.volumes import read_volume, write_volume

hd = pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from segmed.export.dicom_seg import DicomSegWriter, with_seg_names  # noqa: E402

LABELS = LabelSet.from_config({"myocardium": [200, 1220], "scar": 2221, "odd thing": 7})
DATA = DataConfig(layout=PatternLayout(), images=("image",))
SHAPE = (7, 6, 5)


def turned(*angles_deg: float) -> np.ndarray:
    """A rotation about X, then Y, then Z."""
    total = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_deg)):
        one, two = [n for n in range(3) if n != axis]
        step = np.eye(3)
        step[[one, one, two, two], [one, two, one, two]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        total = step @ total
    return total


def placed(rotation: np.ndarray, spacing=(1.5, 1.25, 4.0), origin=(40.0, 30.0, -20.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * spacing, origin
    return affine


AXIAL = np.diag([-1.0, -1, 1])
PLACES = {
    "axial": placed(AXIAL),
    "oblique": placed(turned(20, -35, 50) @ AXIAL),
    "mirrored": placed(np.diag([1.0, -1, 1])),
    "reversed": placed(AXIAL @ np.diag([1.0, 1, -1])),
    "oblique, mirrored and reversed": placed(turned(-70, 15, 100) @ np.diag([1.0, -1, -1])),
}


def drawn(volume: MetaTensor) -> MetaTensor:
    """A label map without any symmetry on the grid of a volume; the last slice is empty."""
    values = np.random.default_rng(4).choice([0, 0, 200, 2221, 7], volume.shape[1:]).astype(np.int32)
    values[:, :, -1] = 0
    return MetaTensor(torch.from_numpy(values)[None], affine=volume.affine)


def points(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Places of voxels in the patient, RAS mm, sorted."""
    places = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    return places[np.lexsort(places.round(2).T)]


def written(source: Path, folder: Path) -> tuple[Path, MetaTensor]:
    (item,) = with_seg_names(find_inputs(source, DATA))
    values = drawn(read_volume(source))
    path = folder / item.output
    DicomSegWriter(LABELS, {})(path, values, item)
    return path, values


def series(folder: Path, affine: np.ndarray, **options) -> Path:
    return write_slices(folder / "lge", np.arange(210, dtype=np.int16).reshape(SHAPE), affine, **options)


def frames_by_pydicom(path: Path) -> dict[int, np.ndarray]:
    """Segment -> places of its voxels, RAS mm, from each frame's own position."""
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    rows_mm, columns_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    places: dict[int, list[np.ndarray]] = {}
    for frame, group in zip(data.pixel_array, data.PerFrameFunctionalGroupsSequence, strict=True):
        start = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame)
        lps = start + columns[:, None] * columns_mm * cosines[:3] + rows[:, None] * rows_mm * cosines[3:]
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        places.setdefault(number, []).append(lps * (-1, -1, 1))
    joined = {number: np.concatenate(each) for number, each in places.items()}
    return {number: each[np.lexsort(each.round(2).T)] for number, each in joined.items()}


@pytest.mark.parametrize("place", PLACES)
def test_every_voxel_lies_in_the_patient_where_it_was_drawn(tmp_path, place):
    path, values = written(series(tmp_path, PLACES[place]), tmp_path / "out")
    assert path.name == "lge_seg.dcm"
    by_frames = frames_by_pydicom(path)
    volume = hd.seg.segread(path).get_volume(combine_segments=True)
    to_ras = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    for number, value in enumerate((200, 2221, 7), 1):
        expected = points(values[0].numpy() == value, values.affine.numpy())
        assert len(expected) > 10
        np.testing.assert_allclose(by_frames[number], expected, atol=1e-3)
        np.testing.assert_allclose(points(volume.array == number, to_ras), expected, atol=1e-3)
    assert volume.array.size == np.prod(SHAPE)  # empty slices too


@pytest.mark.parametrize("backwards", [False, True])
def test_frames_of_an_enhanced_object_are_referred_to_in_their_own_order(tmp_path, backwards):
    order = [(0, z) for z in (3, 0, 4, 1, 2)][:: -1 if backwards else 1]
    volume = np.arange(210, dtype=np.uint16).reshape(SHAPE)
    source = write_frames(tmp_path / "enhanced.dcm", [volume], PLACES["oblique"], order=order)
    path, values = written(source, tmp_path / "out")
    expected = points(values[0].numpy() == 2221, values.affine.numpy())
    np.testing.assert_allclose(frames_by_pydicom(path)[2], expected, atol=1e-3)
    source_places = [group.PlanePositionSequence[0].ImagePositionPatient
                     for group in pydicom.dcmread(source).PerFrameFunctionalGroupsSequence]  # fmt: skip
    for group in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        there = source_places[int(image.ReferencedFrameNumber) - 1]
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, there, atol=1e-3)


def test_it_refers_to_its_slices_and_keeps_patient_and_study(tmp_path):
    source = series(tmp_path, PLACES["oblique"])
    data = pydicom.dcmread(written(source, tmp_path / "out")[0])
    slices = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, source.iterdir())}
    one = next(iter(slices.values()))
    for tag in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert data[tag].value == one[tag].value
    assert data.SeriesInstanceUID != one.SeriesInstanceUID
    referenced = data.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == one.SeriesInstanceUID
    assert {each.ReferencedSOPInstanceUID for each in referenced.ReferencedInstanceSequence} == set(slices)
    for group in data.PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = slices[image.ReferencedSOPInstanceUID].ImagePositionPatient
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, place, atol=1e-3)


def test_segments_have_the_codes_of_the_config_or_known_ones_or_ones_own(tmp_path):
    (item,) = with_seg_names(find_inputs(series(tmp_path, PLACES["axial"]), DATA))
    given = {"scar": "SCT 1 Mark; region SCT 80891009 Heart; modifier SCT 255549009 Anterior"}
    writer = DicomSegWriter(LABELS, given)
    assert writer.unknown == ("odd thing",)
    writer(tmp_path / "a.dcm", drawn(read_volume(item.paths[0])), item)
    muscle, scar, odd = pydicom.dcmread(tmp_path / "a.dcm").SegmentSequence
    kinds = [each.SegmentedPropertyTypeCodeSequence[0] for each in (muscle, scar, odd)]
    assert [(kind.CodingSchemeDesignator, kind.CodeValue) for kind in kinds] == [
        ("SCT", "49848007"), ("SCT", "1"), ("99SEGMED", "odd_thing")]  # fmt: skip
    assert [each.SegmentLabel for each in (muscle, scar, odd)] == list(LABELS.names)
    assert scar.AnatomicRegionSequence[0].CodeValue == "80891009"
    assert kinds[1].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Anterior"


def test_known_codes_are_those_of_dicom():
    from pydicom.sr.codedict import Collection

    known = {(scheme, code.value) for scheme in ("SCT", "DCM") for code in Collection(scheme).concepts.values()}
    for text in KNOWN_CODES.values():
        code = SegmentCode.of(text)
        parts = [part for part in (code.type, code.category, code.region, code.modifier) if part]
        assert {(part.scheme, part.value) for part in parts} <= known, text
    assert code_of("White Matter", {}).type.value == "389080008"
    assert code_of("label_1", {}) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scar", "code 'scar' is not SCHEME VALUE MEANING"),
        ("SCT 1 Mark; place SCT 2 There", "'place' is no further part: parts are category, region, modifier"),
        ("SCT 1 Mark; region There", "code 'There' is not"),
    ],
)
def test_a_code_that_is_none_gives_one_line_in_the_config(text, said):
    with pytest.raises(ValueError, match=said):
        DataConfig(codes={"scar": text})


def test_a_source_that_is_gone_is_named_and_nothing_is_written(tmp_path):
    source = series(tmp_path, PLACES["axial"])
    (item,) = with_seg_names(find_inputs(source, DATA))
    values, writer = drawn(read_volume(source)), DicomSegWriter(LABELS, {})
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(VolumeError, match=r"the source .*lge is gone: .*put it back") as caught:
        writer(tmp_path / "out" / "a.dcm", values, item)
    assert "\n" not in str(caught.value)
    (tmp_path / "elsewhere").rename(source)
    next(iter(source.iterdir())).unlink()
    with pytest.raises(VolumeError):
        writer(tmp_path / "out" / "a.dcm", values, item)
    assert not (tmp_path / "out").exists()


def test_what_is_no_dicom_or_lies_nowhere_is_refused(tmp_path):
    write_volume(tmp_path / "a.nii.gz", MetaTensor(torch.zeros(1, 3, 3, 3), affine=torch.eye(4).double()))
    inputs = find_inputs(tmp_path / "a.nii.gz", DATA)
    with pytest.raises(SegmenterError, match=r"a\.nii\.gz is no DICOM series"):
        with_seg_names(inputs)

    def homeless(data, z):
        del data.FrameOfReferenceUID

    source = series(tmp_path, PLACES["axial"], change=homeless)
    with pytest.raises(VolumeError, match="names no frame of reference"):
        written(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def dcmqi_reader() -> str:
    """The independent reader, from its package where it is installed or from the path."""
    spec = find_spec("dcmqi")
    inside = Path(spec.origin).parent / "bin" / "segimage2itkimage" if spec and spec.origin else Path()
    reader = str(inside) if inside.is_file() else shutil.which("segimage2itkimage")
    if reader is None:
        pytest.skip("dcmqi is not installed: pip install dcmqi")
    return reader


@pytest.mark.parametrize("place", PLACES)
def test_dcmqi_reads_the_same_voxels_and_codes(tmp_path, place):
    reader = dcmqi_reader()
    path, values = written(series(tmp_path, PLACES[place]), tmp_path / "out")
    command = [reader, "--inputDICOM", path, "--outputDirectory", tmp_path, "--prefix", "back", "-t", "nifti"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=60)
    for number, value in enumerate((200, 2221, 7), 1):
        back = read_volume(tmp_path / f"back-{number}.nii.gz")
        expected = points(values[0].numpy() == value, values.affine.numpy())
        np.testing.assert_allclose(points(back[0].numpy() > 0, back.affine.numpy()), expected, atol=1e-2)
    attributes = json.loads((tmp_path / "back-meta.json").read_text())["segmentAttributes"]
    kinds = [each["SegmentedPropertyTypeCodeSequence"]["CodeValue"] for (each,) in attributes]
    assert kinds == ["49848007", "122113", "odd_thing"]


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match=r"pip install \"segmed-mri\[dicom\]\""):
        DicomSegWriter(LABELS, {})
