"""DICOM: every frame lies where it says and has its own slope; a series that contradicts itself is refused by name."""

import io
import re
import shutil

import numpy as np
import pydicom
import pytest
from made_dicom import write_frames, write_slices
from monai.data import MetaTensor
from PIL import Image
from pydicom.encaps import encapsulate

from segmed.errors import GeometryError, VolumeError
from segmed.volumes import Source, read_header, read_volume, resample_onto

AFFINE = np.array([[-1.5, 0, 0, 40.0], [0, -1.25, 0, 30.0], [0, 0, 4.0, -20.0], [0, 0, 0, 1]])


def a_volume(kind=np.int16, shape=(6, 7, 5), top=1000):
    return np.random.default_rng(0).integers(0, top, shape).astype(kind)


def on_grid(volume: MetaTensor, shape=(6, 7, 5)) -> np.ndarray:
    """(C, X, Y, Z) where AFFINE places them."""
    return resample_onto(volume, affine=AFFINE, shape=shape, mode="nearest").numpy()


def only_in(slice_number, **tags):
    def change(data, z):
        if z == slice_number:
            for tag, value in tags.items():
                setattr(data, tag, value)

    return change


# ---------------------------------------------------------------- where frames lie and what they are worth


@pytest.mark.parametrize("backwards", [False, True])
def test_frames_of_one_file_lie_where_they_say_whatever_their_order(tmp_path, backwards):
    volume = a_volume(np.uint16)
    order = [(0, z) for z in (3, 0, 4, 1, 2)][:: -1 if backwards else 1]
    path = write_frames(tmp_path / "enhanced.dcm", [volume], AFFINE, order=order)
    assert read_header(path).shape == volume.shape
    assert read_header(path).spacing_mm == pytest.approx((1.5, 1.25, 4.0))
    assert np.array_equal(on_grid(read_volume(path))[0], volume)


def test_phases_of_one_file_are_components_in_time(tmp_path):
    volumes = [a_volume(np.uint16) + 1000 * time for time in range(3)]
    order = [(time, z) for z in range(5) for time in (2, 0, 1)]
    path = write_frames(tmp_path / "cine.dcm", volumes, AFFINE, order=order)
    assert read_header(path).components == 3
    assert np.array_equal(on_grid(read_volume(path)), np.stack(volumes))
    assert np.array_equal(on_grid(read_volume(Source(path, 1))), volumes[1][None])


def test_every_frame_of_one_file_has_its_own_slope(tmp_path):
    volume, slopes = a_volume(np.uint16), [1.0, 0.5, 2.0, 0.25, 3.0]
    path = write_frames(tmp_path / "a.dcm", [volume], AFFINE, order=[(0, z) for z in range(5)], slopes=slopes)
    assert np.allclose(on_grid(read_volume(path))[0], volume * np.array(slopes) - 3)


def test_every_slice_of_a_folder_has_its_own_slope_and_none_is_cut_to_the_type_of_the_first(tmp_path):
    volume, slopes = a_volume(np.uint16, top=60000), np.array([1, 0.37, 2.5, 1.125, 7])

    def scaled(data, z):
        data.RescaleSlope, data.RescaleIntercept = str(slopes[z]), "-0.5"

    folder = write_slices(tmp_path / "series", volume, AFFINE, change=scaled)
    assert np.allclose(on_grid(read_volume(folder))[0], volume * slopes - 0.5)
    assert read_header(folder).dtype == "float64"


@pytest.mark.parametrize("several", [False, True])
def test_inverted_grey_is_shown_as_a_viewer_shows_it(tmp_path, several):
    volume = a_volume(np.uint16)
    stored = (4095 - volume).astype(np.uint16)

    def inverted(data, z):
        data.PhotometricInterpretation, data.BitsStored, data.HighBit = "MONOCHROME1", 12, 11

    if several:
        slopes = [1.0, 2.0, 3.0, 4.0, 5.0]
        path = write_frames(
            tmp_path / "a.dcm", [stored], AFFINE, order=[(0, z) for z in range(5)], slopes=slopes, change=inverted
        )
        assert np.allclose(on_grid(read_volume(path))[0], volume * np.array(slopes) - 3)
    else:
        folder = write_slices(tmp_path / "series", stored, AFFINE, change=inverted)
        assert np.array_equal(on_grid(read_volume(folder))[0], volume)


def test_red_green_and_blue_are_components(tmp_path):
    colours = np.random.default_rng(1).integers(0, 255, (3, 6, 7, 5)).astype(np.uint8)

    def coloured(data, z):
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.PixelData = colours[:, :, :, z].transpose(2, 1, 0).tobytes()

    folder = write_slices(tmp_path / "series", colours[0], AFFINE, change=coloured)
    assert read_header(folder).components == 3
    assert np.array_equal(on_grid(read_volume(folder)), colours)
    assert np.array_equal(on_grid(read_volume(Source(folder, 2))), colours[2:])


def test_colours_that_are_not_understood_are_refused(tmp_path):
    def palette(data, z):
        data.PhotometricInterpretation = "PALETTE COLOR"

    folder = write_slices(tmp_path / "series", a_volume(np.uint8, top=250), AFFINE, change=palette)
    with pytest.raises(VolumeError, match=r"IM\d+\.dcm holds colours or grey as 'PALETTE COLOR'.*: convert it to grey"):
        read_header(folder)


def test_a_file_that_describes_fewer_frames_than_it_holds_is_refused(tmp_path):
    def more(data, z):
        data.NumberOfFrames = 6

    path = write_frames(
        tmp_path / "a.dcm", [a_volume(np.uint16)], AFFINE, order=[(0, z) for z in range(5)], change=more
    )
    with pytest.raises(VolumeError, match="describes 5 of its 6 frames"):
        read_header(path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80"], ids=["run lengths", "JPEG-LS"])
def test_compressed_slices_are_decoded(tmp_path, syntax):
    if syntax.endswith("80"):
        pytest.importorskip(
            "jpeg_ls", reason="pyjpegls, which comes with highdicom, compresses the slices of this test"
        )
    volume = a_volume(np.uint16, (32, 24, 5))
    folder = write_slices(tmp_path / "series", volume, AFFINE, change=lambda data, z: data.compress(syntax))
    assert np.array_equal(on_grid(read_volume(folder), volume.shape)[0], volume)


def test_slices_in_jpeg_2000_are_decoded_without_an_extra(tmp_path):
    """Compressed by Pillow, which knows it too; ITK decodes them."""

    def packed(data, z):
        stream = io.BytesIO()
        Image.fromarray(data.pixel_array).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
        data.PixelData = encapsulate([stream.getvalue()])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"

    volume = a_volume(np.uint16, (32, 24, 5))
    folder = write_slices(tmp_path / "series", volume, AFFINE, change=packed)
    assert np.array_equal(on_grid(read_volume(folder), volume.shape)[0], volume)


def test_a_report_beside_the_slices_is_left_alone(tmp_path):
    folder = write_slices(tmp_path / "series", a_volume(), AFFINE)
    report = pydicom.dcmread(next(folder.iterdir()))
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.SeriesInstanceUID = "1.2.3"
    del report.PixelData, report.Rows
    report.save_as(folder / "SR1.dcm")
    assert np.array_equal(on_grid(read_volume(folder))[0], a_volume())


# ---------------------------------------------------------------- series that contradict themselves


CONTRADICTIONS = {
    "pixel spacing": {"PixelSpacing": [2.0, 2.0]},
    "slope and intercept": {"RescaleSlope": "2", "RescaleIntercept": "0"},
    "bits": {"BitsStored": 12, "HighBit": 11},
    "sign": {"PixelRepresentation": 0},
    "photometric interpretation": {"PhotometricInterpretation": "MONOCHROME1"},
    "columns and rows": {"Rows": 6, "Columns": 7},
}


def file_of(folder, z):
    return next(path for path in folder.iterdir() if pydicom.dcmread(path).InstanceNumber == z + 1)


@pytest.mark.parametrize("what", CONTRADICTIONS)
@pytest.mark.parametrize("slice_number", [0, 3])
def test_a_slice_that_contradicts_its_series_is_named(tmp_path, what, slice_number):
    folder = write_slices(tmp_path / "s", a_volume(), AFFINE, change=only_in(slice_number, **CONTRADICTIONS[what]))
    named = file_of(folder, slice_number).name
    with pytest.raises(VolumeError, match=f"{named} contradicts its series: {what} ") as caught:
        read_volume(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tag", ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_two_patients_studies_or_frames_under_one_series_are_refused(tmp_path, tag):
    folder = write_slices(tmp_path / "s", a_volume(), AFFINE, change=only_in(2, **{tag: "1.2.3"}))
    with pytest.raises(VolumeError, match=f"{file_of(folder, 2).name} has another {tag} than the other slices"):
        read_header(folder)


def test_a_series_that_was_copied_into_its_folder_is_not_two_time_points(tmp_path):
    folder = write_slices(tmp_path / "s", a_volume(), AFFINE)
    for path in list(folder.iterdir()):
        shutil.copy(path, folder / f"{path.stem} copy.dcm")
    with pytest.raises(VolumeError, match=r"IM0000\.dcm and IM0000 copy\.dcm hold one slice, stored twice"):
        read_volume(folder)


def test_a_position_that_is_not_a_number_is_refused(tmp_path):
    folder = write_slices(tmp_path / "s", a_volume(), AFFINE)
    path = file_of(folder, 2)
    content = path.read_bytes()
    position = "\\".join(str(value) for value in pydicom.dcmread(path).ImagePositionPatient).encode()
    assert position in content
    path.write_bytes(content.replace(position, b"nan\\1\\2".ljust(len(position))))
    with pytest.raises(VolumeError, match=f"{path.name} does not say where its slice lies"):
        read_volume(folder)


def test_a_slice_beside_the_line_of_the_others_is_out_of_place(tmp_path):
    def aside(data, z):
        if z == 2:
            data.ImagePositionPatient = [data.ImagePositionPatient[0] + 1.0, *data.ImagePositionPatient[1:]]

    folder = write_slices(tmp_path / "s", a_volume(), AFFINE, change=aside)
    with pytest.raises(GeometryError, match="one is missing or out of place"):
        read_volume(folder)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"SamplesPerPixel": 0}, "has no pixels (7 columns"),
        ({"Rows": 0}, "has no pixels"),
        ({"BitsStored": 0}, "stores 0 of 16 bits"),
        ({"BitsAllocated": 7}, "stores 16 of 7 bits"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, "scales its values by 0"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 1, 0]}, "does not say where its slice lies"),
    ],
    ids=str,
)
def test_a_slice_without_usable_pixels_gives_one_line(tmp_path, tags, said):
    folder = write_slices(tmp_path / "s", a_volume(shape=(7, 6, 5)), AFFINE, change=only_in(1, **tags))
    with pytest.raises(VolumeError, match=re.escape(said)) as caught:
        read_volume(folder)
    assert file_of(folder, 1).name in str(caught.value)


def test_frames_that_do_not_say_where_they_lie_are_refused(tmp_path):
    def bare(data, z):
        del data.PerFrameFunctionalGroupsSequence, data.SharedFunctionalGroupsSequence

    path = write_frames(
        tmp_path / "a.dcm", [a_volume(np.uint16)], AFFINE, order=[(0, z) for z in range(5)], change=bare
    )
    with pytest.raises(VolumeError, match="does not say where its 5 frames lie"):
        read_volume(path)


def test_a_file_cut_anywhere_gives_one_line(tmp_path):
    folder = write_slices(tmp_path / "s", a_volume(), AFFINE)
    path = file_of(folder, 2)
    whole = path.read_bytes()
    for length in np.linspace(140, len(whole) - 1, 12).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(VolumeError) as caught:
            read_volume(folder)
        assert "\n" not in str(caught.value)
