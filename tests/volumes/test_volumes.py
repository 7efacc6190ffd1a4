"""Volumes: every format gives the same voxels at the same place, and bad files give one line."""

import gzip
import locale
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from segmed.errors import VolumeError
from segmed.volumes import (
    Header,
    Source,
    grid_difference,
    is_volume_file,
    orientation,
    read_header,
    read_label_volume,
    read_volume,
    resample_onto,
    spacing_mm,
    strip_suffix,
    to_canonical,
    write_volume,
)

FORMATS = [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"]
quick = settings(max_examples=15, deadline=None)


def make_affine(*, angles_deg=(0, 0, 0), spacing=(1, 1, 1), flips=(1, 1, 1), order=(0, 1, 2), origin=(0, 0, 0)):
    axes = np.diag(np.array(spacing, float) * flips)[:, list(order)]
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() @ axes
    affine[:3, 3] = origin
    return affine


def make_volume(shape, affine=None, *, channels=1, seed=0):
    data = np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32)
    return MetaTensor(torch.from_numpy(data), affine=torch.from_numpy(np.eye(4) if affine is None else affine))


def world_of(shape, affine):
    """World coordinates of every voxel: (X, Y, Z, 3)."""
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return indices @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]


def grid_of(volume):
    return tuple(volume.shape[1:]), volume.affine


affines = st.builds(
    make_affine,
    angles_deg=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 25)] * 3),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    order=st.permutations([0, 1, 2]),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
)
shapes = st.tuples(*[st.integers(1, 7)] * 3)


# ---------------------------------------------------------------- geometry of files


@pytest.mark.parametrize("suffix", FORMATS)
@quick
@given(affine=affines, shape=shapes)
def test_voxels_and_grid_survive_a_round_trip(suffix, affine, shape, tmp_path_factory):
    path = tmp_path_factory.mktemp("trip") / f"volume{suffix}"
    volume = make_volume(shape, affine)
    write_volume(path, volume)
    back = read_volume(path)
    assert torch.equal(back.as_tensor(), volume.as_tensor())
    assert grid_difference(grid_of(back), grid_of(volume), tolerance_mm=1e-2) is None
    assert back.affine.dtype == torch.float64
    assert back.meta["path"] == str(path)
    assert read_header(path).shape == shape
    assert np.allclose(read_header(path).affine, back.affine)


@quick
@given(affine=affines)
def test_formats_agree_on_world_coordinates_with_nibabel_and_simpleitk(affine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    volume = make_volume((4, 5, 6), affine)
    corner = np.array([3.0, 4.0, 5.0])
    expected = affine[:3, :3] @ corner + affine[:3, 3]
    for suffix in FORMATS:
        path = folder / f"volume{suffix}"
        write_volume(path, volume)
        assert np.allclose(read_header(path).affine[:3] @ [*corner, 1], expected, atol=1e-2)
        if suffix.startswith(".nii"):
            by_other = nib.load(path).affine[:3] @ [*corner, 1]
        else:
            lps = sitk.ReadImage(str(path)).TransformContinuousIndexToPhysicalPoint(corner.tolist())
            by_other = np.array(lps) * [-1, -1, 1]
        assert np.allclose(by_other, expected, atol=1e-2)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_components_of_a_file_are_channels_and_can_be_chosen(tmp_path, suffix):
    path = tmp_path / f"cine{suffix}"
    volume = make_volume((3, 4, 5), channels=4)
    write_volume(path, volume)
    assert read_header(path).components == 4
    assert torch.equal(read_volume(path).as_tensor(), volume.as_tensor())
    third = read_volume(Source(path, 2))
    assert torch.equal(third.as_tensor(), volume.as_tensor()[2:3])
    with pytest.raises(VolumeError, match=r"no component 4: it has 4, counted from 0"):
        read_volume(Source(path, 4))


def test_a_4d_metaimage_holds_time_points(tmp_path):
    frames = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)  # T, Z, Y, X
    image = sitk.GetImageFromArray(frames, isVector=False)
    image.SetSpacing((1.5, 1.5, 8.0, 1.0))
    sitk.WriteImage(image, str(tmp_path / "cine.mha"))
    header = read_header(tmp_path / "cine.mha")
    assert (header.shape, header.components) == ((6, 5, 4), 3)
    assert header.spacing_mm == (1.5, 1.5, 8.0)
    assert np.array_equal(read_volume(Source(tmp_path / "cine.mha", 1))[0].numpy(), frames[1].transpose(2, 1, 0))


def test_header_tells_orientation_spacing_and_stored_type(tmp_path):
    affine = make_affine(spacing=(1.5, 2, 8), flips=(-1, 1, 1))
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine), tmp_path / "a.nii.gz")
    header = read_header(tmp_path / "a.nii.gz")
    assert isinstance(header, Header)
    assert (header.orientation, header.spacing_mm, header.dtype) == ("LAS", (1.5, 2.0, 8.0), "int16")
    assert (orientation(affine), spacing_mm(affine)) == ("LAS", (1.5, 2.0, 8.0))


def test_sform_is_preferred_to_qform_and_qform_to_nothing(tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4))
    image.set_sform(make_affine(spacing=(2, 2, 2)), 1)
    image.set_qform(make_affine(spacing=(3, 3, 3)), 1)
    nib.save(image, tmp_path / "both.nii")
    assert read_header(tmp_path / "both.nii").spacing_mm == (2, 2, 2)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "qform.nii")
    assert read_header(tmp_path / "qform.nii").spacing_mm == (3, 3, 3)
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = 4
    nib.save(image, tmp_path / "none.nii")
    assert np.allclose(read_header(tmp_path / "none.nii").affine, nib.load(tmp_path / "none.nii").affine)


@pytest.mark.parametrize(("unit", "factor"), [("micron", 0.001), ("meter", 1000), ("mm", 1)])
def test_other_units_become_millimetres(tmp_path, unit, factor):
    image = nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), make_affine(spacing=(5, 5, 5)))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    assert read_header(tmp_path / "a.nii").spacing_mm == pytest.approx((5 * factor,) * 3)
    write_volume(tmp_path / "b.nii", read_volume(tmp_path / "a.nii"), like=tmp_path / "a.nii")
    assert read_header(tmp_path / "b.nii").spacing_mm == pytest.approx((5 * factor,) * 3)


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_both_nifti_versions_and_byte_orders_are_read(tmp_path, image_class, byteorder):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    header = image_class.header_class(endianness=byteorder)
    header.set_data_dtype(np.int16)
    image = image_class(data, make_affine(spacing=(1, 2, 3)), header=header)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz")[0].numpy(), data)
    assert read_header(tmp_path / "a.nii.gz").dtype == "int16"


def test_slope_and_intercept_scale_the_stored_numbers(tmp_path):
    stored = np.array([0, 1, 2, 1000], np.int16).reshape(4, 1, 1)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, -10)
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([0.5, -10], "<f4").tobytes()  # scl_slope and scl_inter, as they are stored
    (tmp_path / "a.nii").write_bytes(content)
    assert read_volume(tmp_path / "a.nii")[0, :, 0, 0].tolist() == [-10, -9.5, -9, 490]
    assert np.allclose(read_volume(tmp_path / "a.nii")[0].numpy(), nib.load(tmp_path / "a.nii").get_fdata())


def test_a_2d_nifti_is_one_slice_and_a_5d_one_has_components(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((4, 5), np.uint8), np.eye(4)), tmp_path / "flat.nii")
    assert tuple(read_volume(tmp_path / "flat.nii").shape) == (1, 4, 5, 1)
    vectors = np.random.default_rng(0).normal(size=(3, 4, 5, 1, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(vectors, np.eye(4)), tmp_path / "vectors.nii")
    assert np.array_equal(read_volume(tmp_path / "vectors.nii").numpy(), vectors[:, :, :, 0].transpose(3, 0, 1, 2))


def test_a_file_is_read_by_its_content_whether_it_is_gzipped_or_not(tmp_path):
    volume = make_volume((3, 4, 5))
    write_volume(tmp_path / "a.nii", volume)
    (tmp_path / "plain.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    (tmp_path / "packed.nii").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    for name in ("plain.nii.gz", "packed.nii"):
        assert torch.equal(read_volume(tmp_path / name).as_tensor(), volume.as_tensor())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.uint8])
def test_voxels_are_given_in_the_type_that_is_asked_for(tmp_path, dtype):
    write_volume(tmp_path / "a.nii.gz", MetaTensor(torch.arange(8).reshape(1, 2, 2, 2), affine=torch.eye(4)))
    volume = read_volume(tmp_path / "a.nii.gz", dtype=dtype)
    assert volume.dtype == dtype
    assert volume.flatten().tolist() == list(range(8))


# ---------------------------------------------------------------- canonical axes and resampling


@quick
@given(affine=affines, shape=shapes)
def test_canonical_axes_move_no_voxel_in_the_world(affine, shape):
    volume = make_volume(shape, affine)
    volume = MetaTensor(torch.from_numpy(world_of(shape, affine)).permute(3, 0, 1, 2), affine=volume.affine)
    canonical = to_canonical(volume)
    nearest = np.abs(canonical.affine.numpy()[:3, :3] / spacing_mm(canonical.affine)).argmax(0)
    places = world_of(canonical.shape[1:], canonical.affine)
    assert np.allclose(canonical.numpy(), places.transpose(3, 0, 1, 2), atol=1e-9)
    if sorted(nearest) == [0, 1, 2]:
        assert orientation(canonical.affine) == "RAS"
    again = to_canonical(canonical)
    assert torch.equal(again.affine, canonical.affine)


@quick
@given(affine=affines, shape=shapes)
def test_a_canonical_volume_goes_home_bit_by_bit(affine, shape):
    volume = make_volume(shape, affine)
    for mode in ("nearest", "linear"):
        home = resample_onto(to_canonical(volume), affine=affine, shape=shape, mode=mode)
        assert torch.equal(home.as_tensor(), volume.as_tensor())
        assert np.allclose(home.affine, affine)


@quick
@given(affine=affines, target=affines, mode=st.sampled_from(["linear", "nearest", "cubic"]))
def test_resampling_agrees_with_interpolation_at_world_coordinates(affine, target, mode):
    source, shape = make_volume((5, 6, 7), affine, channels=2), (4, 3, 5)
    target = target.copy()  # both grids have the same centre, so that they overlap
    target[:3, 3] = affine[:3, :3] @ [2, 2.5, 3] + affine[:3, 3] - target[:3, :3] @ [1.5, 1, 2]
    result = resample_onto(source, affine=target, shape=shape, mode=mode)
    places = (world_of(shape, target) - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    if mode == "nearest":
        if (np.abs(places - np.floor(places) - 0.5) < 1e-3).any():
            return  # a tie may go either way
        places = np.floor(places + 0.5)
    order = {"nearest": 0, "linear": 1, "cubic": 3}[mode]
    for channel in range(2):
        expected = map_coordinates(
            source[channel].numpy().astype(np.float64), places.transpose(3, 0, 1, 2), order=order, mode="nearest"
        )
        assert np.allclose(result[channel].numpy(), expected, atol=2e-3)


def test_parallel_grids_are_interpolated_exactly():
    ramp = MetaTensor(torch.arange(8.0).reshape(1, 8, 1, 1), affine=torch.eye(4, dtype=torch.float64))
    finer = resample_onto(ramp, affine=make_affine(spacing=(0.5, 1, 1)), shape=(15, 1, 1))
    assert finer[0, :, 0, 0].tolist() == [step / 2 for step in range(15)]


@pytest.mark.parametrize("angles_deg", [(0, 0, 0), (10, 20, 30)])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_outside_lies_the_value_of_the_border(angles_deg, mode):
    volume = MetaTensor(torch.full((1, 4, 4, 4), 7.0), affine=torch.eye(4, dtype=torch.float64))
    target = make_affine(angles_deg=angles_deg, origin=(-20, -20, -20))
    result = resample_onto(volume, affine=target, shape=(9, 9, 9), mode=mode)
    assert torch.allclose(result.as_tensor(), torch.tensor(7.0))


@pytest.mark.parametrize("angles_deg", [(0, 0, 0), (10, 20, 30)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool, torch.float64])
def test_nearest_keeps_the_type_and_invents_no_value(angles_deg, dtype):
    labels = (torch.rand(1, 6, 6, 6, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    volume = MetaTensor(labels, affine=torch.eye(4, dtype=torch.float64))
    result = resample_onto(volume, affine=make_affine(angles_deg=angles_deg), shape=(5, 7, 4), mode="nearest")
    assert result.dtype == dtype
    assert set(result.unique().tolist()) <= set(labels.unique().tolist())


def test_an_unknown_resampling_mode_is_named():
    with pytest.raises(ValueError, match="'spline' is unknown: use linear, nearest or cubic"):
        resample_onto(make_volume((2, 2, 2)), affine=np.eye(4), shape=(2, 2, 2), mode="spline")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (((4, 5, 7), np.eye(4)), "shape (4, 5, 6) against (4, 5, 7)"),
        (((4, 5, 6), make_affine(origin=(0, 0, 3))), "up to 3 mm apart (origin (0, 0, 0) against (0, 0, 3) mm)"),
        (((4, 5, 6), make_affine(flips=(-1, 1, 1))), "orientation RAS against LAS"),
        (((4, 5, 6), make_affine(spacing=(1, 1, 2))), "spacing (1, 1, 1) against (1, 1, 2) mm"),
        (((4, 5, 6), make_affine(angles_deg=(0, 0, 3))), "rotated"),
    ],
)
def test_a_difference_of_grids_is_described(other, said):
    assert said in (grid_difference(((4, 5, 6), np.eye(4)), other) or "")


def test_grids_within_tolerance_are_the_same():
    shifted = make_affine(origin=(0.05, 0, 0))
    assert grid_difference(((4, 5, 6), np.eye(4)), ((4, 5, 6), shifted), tolerance_mm=0.1) is None
    assert grid_difference(((4, 5, 6), np.eye(4)), ((4, 5, 6), shifted), tolerance_mm=0.01) is not None


# ---------------------------------------------------------------- DICOM and 2D images


def write_dicom(folder: Path, data, affine, *, times=1, skip=(), first=0, series="1.2.826.0.1.3680043.2.1125.1"):
    """One file a slice, as a scanner writes it; data: (T, X, Y, Z) int16, affine RAS mm."""
    folder.mkdir(parents=True, exist_ok=True)
    locale_before = locale.setlocale(locale.LC_ALL)  # GDCM's writer leaves the process in the C locale
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = (lps[:3, :2] / spacing[:2]).T.ravel()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    number = first
    for time in range(times):
        for z in range(data.shape[3]):
            number += 1
            if z in skip:
                continue
            image = sitk.GetImageFromArray(np.ascontiguousarray(data[time, :, :, z].T)[None])
            image.SetSpacing(spacing.tolist())
            position = lps[:3, 3] + z * lps[:3, 2]
            tags = {
                "0008|0060": "MR",
                "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
                "0020|000e": series,
                "0020|0013": str(number),
                "0020|0032": "\\".join(f"{value:.8g}" for value in position),
                "0020|0037": "\\".join(f"{value:.10g}" for value in cosines),
                "0008|0018": f"{series}.{number}",
            }
            for tag, value in tags.items():
                image.SetMetaData(tag, value)
            # names in an order that is not that of the slices
            writer.SetFileName(str(folder / f"IM{(number * 7919) % 1009:04d}.dcm"))
            writer.Execute(image)
    locale.setlocale(locale.LC_ALL, locale_before)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


OBLIQUE = make_affine(angles_deg=(20, -35, 10), spacing=(1.4, 1.4, 8), origin=(-120, 33, 71))


def test_a_dicom_series_agrees_with_nifti_on_world_coordinates(tmp_path):
    data = np.random.default_rng(0).integers(0, 2000, (1, 8, 10, 5)).astype(np.int16)
    right_handed = OBLIQUE if np.linalg.det(OBLIQUE[:3, :3]) > 0 else OBLIQUE @ np.diag([-1, 1, 1, 1])
    write_dicom(tmp_path / "series", data, right_handed)
    encoding = locale.getencoding()
    volume = read_volume(tmp_path / "series")
    header = read_header(tmp_path / "series")
    assert locale.getencoding() == encoding
    assert (header.shape, header.components, header.dtype) == ((8, 10, 5), 1, "int16")
    write_volume(tmp_path / "same.nii.gz", volume)
    for path in (tmp_path / "series", tmp_path / "same.nii.gz"):
        onto = resample_onto(read_volume(path), affine=right_handed, shape=data.shape[1:], mode="nearest")
        assert np.array_equal(onto.numpy(), data)
    canonical, expected = to_canonical(volume), to_canonical(MetaTensor(data, affine=torch.from_numpy(right_handed)))
    assert grid_difference(grid_of(canonical), grid_of(expected)) is None
    assert np.array_equal(canonical.numpy(), expected.numpy())


def test_time_points_of_a_dicom_series_are_components(tmp_path):
    data = np.random.default_rng(0).integers(0, 2000, (3, 6, 7, 4)).astype(np.int16)
    write_dicom(tmp_path / "cine", data, OBLIQUE, times=3)
    assert read_header(tmp_path / "cine").components == 3
    second = read_volume(Source(tmp_path / "cine", 1))
    onto = resample_onto(second, affine=OBLIQUE, shape=data.shape[1:], mode="nearest")
    assert np.array_equal(onto.numpy(), data[1:2])


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (lambda folder, data: write_dicom(folder, data, OBLIQUE, skip=(2,)), "one is missing or out of place"),
        (
            lambda folder, data: [write_dicom(folder / f"{n}", data, OBLIQUE, series=f"1.2.3.{n}") for n in (1, 2)],
            "no DICOM series",
        ),
        (lambda folder, data: folder.mkdir(), "holds no DICOM series"),
        (
            lambda folder, data: (
                write_dicom(folder, data, OBLIQUE),
                write_dicom(folder, data, make_affine(spacing=(1.4, 1.4, 8)), first=100),
            ),
            "slices point in different directions",
        ),
        (
            lambda folder, data: (
                write_dicom(folder, data, OBLIQUE),
                write_dicom(folder, data, OBLIQUE, first=100, skip=(1,)),
            ),
            "9 slices at 5 places: some are missing or stored twice",
        ),
        (
            lambda folder, data: (write_dicom(folder, data, OBLIQUE), cut(sorted(folder.iterdir())[0])),
            r"IM\d+\.dcm is truncated, damaged or no image",
        ),
    ],
    ids=["missing slice", "series below", "empty folder", "two planes", "missing time point", "truncated slice"],
)
def test_a_folder_that_is_no_whole_series_is_refused(tmp_path, arrange, said):
    arrange(tmp_path / "series", np.zeros((1, 6, 7, 5), np.int16))
    with pytest.raises(VolumeError, match=said):
        read_volume(tmp_path / "series")


def test_two_series_in_one_folder_are_refused(tmp_path):
    for n, spot in ((1, (0, 0, 0)), (2, (0, 0, 500))):
        affine = make_affine(spacing=(1, 1, 4), origin=spot)
        write_dicom(tmp_path / f"{n}", np.zeros((1, 6, 7, 3), np.int16), affine, series=f"1.2.3.{n}")
        for path in (tmp_path / f"{n}").iterdir():
            (tmp_path / "both").mkdir(exist_ok=True)
            path.rename(tmp_path / "both" / f"{n}_{path.name}")
    with pytest.raises(VolumeError, match=r"holds 2 DICOM series \(.*\): put each into a folder of its own"):
        read_volume(tmp_path / "both")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp"])
def test_a_2d_image_is_a_volume_of_one_slice(tmp_path, suffix):
    pixels = np.full((6, 9), 100, np.uint8)
    pixels[:3] = 200
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    volume = read_volume(tmp_path / f"a{suffix}")
    assert tuple(volume.shape) == (1, 9, 6, 1)
    assert np.abs(volume[0, :, :, 0].numpy().T - pixels).max() <= (8 if suffix == ".jpg" else 0)
    assert torch.equal(volume.affine, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK", "L", "1"])
def test_every_colour_mode_becomes_grey(tmp_path, mode):
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(tmp_path / "a.tif")
    volume = read_volume(tmp_path / "a.tif")
    assert tuple(volume.shape) == (1, 5, 4, 1)
    assert volume.unique().tolist() == [255]


def test_a_16_bit_png_keeps_its_values_there_and_back(tmp_path):
    values = torch.tensor([[0, 1000], [40000, 65535]], dtype=torch.int32).reshape(1, 2, 2, 1)
    write_volume(tmp_path / "a.png", MetaTensor(values, affine=torch.eye(4)))
    assert torch.equal(read_label_volume(tmp_path / "a.png").as_tensor(), values)
    assert read_header(tmp_path / "a.png").dtype == "uint16"


def test_a_palette_label_map_gives_its_indices(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.putdata([0, 1, 2, 1])
    image.save(tmp_path / "a.png")
    assert read_label_volume(tmp_path / "a.png")[0, :, :, 0].tolist() == [[0, 2], [1, 1]]


def test_a_colour_label_map_is_refused_unless_it_is_grey(tmp_path):
    Image.new("RGB", (3, 3), (2, 2, 2)).save(tmp_path / "grey.png")
    assert read_label_volume(tmp_path / "grey.png").unique().tolist() == [2]
    Image.new("RGB", (3, 3), (255, 0, 0)).save(tmp_path / "red.png")
    with pytest.raises(VolumeError, match=r"red\.png is a colour image: save the label map as PNG"):
        read_label_volume(tmp_path / "red.png")


# ---------------------------------------------------------------- label maps and writing


def test_label_values_are_whole_numbers_of_any_size(tmp_path):
    values = torch.tensor([0, 200, 1220, 2221, -3, 100000], dtype=torch.int64).reshape(1, 6, 1, 1)
    write_volume(tmp_path / "a.nii.gz", MetaTensor(values, affine=torch.eye(4)))
    labels = read_label_volume(tmp_path / "a.nii.gz")
    assert labels.dtype == torch.int32
    assert labels.flatten().tolist() == [0, 200, 1220, 2221, -3, 100000]


def test_label_maps_stored_as_floats_are_read_and_interpolated_ones_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 3, np.float64), np.eye(4)), tmp_path / "whole.nii.gz")
    assert read_label_volume(tmp_path / "whole.nii.gz").unique().tolist() == [3]
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 2**40, np.int64), np.eye(4), dtype=np.int64), tmp_path / "large.nii.gz")
    with pytest.raises(VolumeError, match=r"8 voxels are not whole numbers of 32 bits \(e\.g\. 1\.09951e\+12\)"):
        read_label_volume(tmp_path / "large.nii.gz")
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), np.nan), np.eye(4)), tmp_path / "nan.nii.gz")
    with pytest.raises(VolumeError, match="8 of 8 voxels are NaN or infinite"):
        read_label_volume(tmp_path / "nan.nii.gz")
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 0.5, np.float32), np.eye(4)), tmp_path / "half.nii.gz")
    with pytest.raises(VolumeError, match=r"half\.nii\.gz: 8 voxels are not whole numbers of 32 bits \(e\.g\. 0\.5\)"):
        read_label_volume(tmp_path / "half.nii.gz")


def test_a_label_map_of_several_components_is_refused(tmp_path):
    write_volume(tmp_path / "a.nii.gz", MetaTensor(torch.zeros(3, 2, 2, 2, dtype=torch.uint8), affine=torch.eye(4)))
    with pytest.raises(VolumeError, match="has 3 components: a label map has one"):
        read_label_volume(tmp_path / "a.nii.gz")
    assert read_label_volume(Source(tmp_path / "a.nii.gz", 1)).shape == (1, 2, 2, 2)


@pytest.mark.parametrize(
    ("highest", "stored"), [(3, "uint8"), (255, "uint8"), (256, "int16"), (40000, "uint16"), (70000, "int32")]
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_whole_numbers_are_stored_in_the_smallest_type(tmp_path, highest, stored, suffix):
    data = torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    data[0, 0, 0, 0] = highest
    write_volume(tmp_path / f"a{suffix}", MetaTensor(data, affine=torch.eye(4)))
    assert read_header(tmp_path / f"a{suffix}").dtype == stored
    assert read_label_volume(tmp_path / f"a{suffix}").max() == highest


def test_a_result_keeps_the_header_of_its_image(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.set_qform(OBLIQUE, 1)
    image.set_sform(None, 0)
    image.header["descrip"] = b"LGE 20 min"
    image.header.set_xyzt_units("mm", "sec")
    image.header["cal_max"] = 900
    nib.save(image, tmp_path / "image.nii.gz")
    volume = read_volume(tmp_path / "image.nii.gz")
    labels = MetaTensor((volume.as_tensor() > 0).to(torch.uint8) + 2, affine=volume.affine)
    write_volume(tmp_path / "labels.nii.gz", labels, like=tmp_path / "image.nii.gz")
    result = nib.load(tmp_path / "labels.nii.gz")
    assert (int(result.header["qform_code"]), int(result.header["sform_code"])) == (1, 0)
    assert result.header["descrip"].item() == b"LGE 20 min"
    assert result.header.get_xyzt_units() == ("mm", "sec")
    assert result.header["cal_max"] == 0
    assert result.get_data_dtype() == np.uint8
    assert np.array_equal(result.affine, nib.load(tmp_path / "image.nii.gz").affine)
    assert np.unique(np.asanyarray(result.dataobj)).tolist() == [2]


def test_a_result_on_another_grid_than_its_image_keeps_its_own(tmp_path):
    write_volume(tmp_path / "image.nii.gz", make_volume((4, 5, 6), OBLIQUE))
    write_volume(tmp_path / "result.nii.gz", make_volume((3, 3, 3)), like=tmp_path / "image.nii.gz")
    assert np.allclose(read_header(tmp_path / "result.nii.gz").affine, np.eye(4))
    assert read_header(tmp_path / "result.nii.gz").shape == (3, 3, 3)


def test_like_a_file_of_another_format_keeps_the_grid(tmp_path):
    write_volume(tmp_path / "image.nrrd", make_volume((4, 5, 6), OBLIQUE))
    volume = read_volume(tmp_path / "image.nrrd")
    write_volume(tmp_path / "result.nii.gz", volume, like=tmp_path / "image.nrrd")
    assert grid_difference(grid_of(read_volume(tmp_path / "result.nii.gz")), grid_of(volume)) is None


@pytest.mark.parametrize("suffix", [*FORMATS, ".png"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"a{suffix}"
    write_volume(path, MetaTensor(torch.ones(1, 3, 3, 1, dtype=torch.uint8), affine=torch.eye(4)))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_volume(path, MetaTensor(torch.zeros(1, 3, 3, 1, dtype=torch.uint8), affine=torch.eye(4)))
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jpg", torch.zeros(1, 2, 2, 1), r"can't be written as '\.jpg': use \.nii\.gz"),
        ("a.xyz", torch.zeros(1, 2, 2, 1), r"can't be written as '\.xyz'"),
        ("a.png", torch.zeros(1, 2, 2, 1), "don't fit a 2D image of whole numbers"),
        ("a.png", torch.zeros(1, 2, 2, 2, dtype=torch.uint8), "don't fit a 2D image"),
        ("a.nii.gz", torch.zeros(2, 2, 2), r"a volume has the shape \(C, X, Y, Z\)"),
    ],
)
def test_what_a_format_can_not_hold_is_refused(tmp_path, name, data, said):
    with pytest.raises(VolumeError, match=said):
        write_volume(tmp_path / name, MetaTensor(data, affine=torch.eye(4)))
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "stripped", "is_volume"),
    [
        ("a.nii.gz", "a", True),
        ("a.b.NII.GZ", "a.b", True),
        ("folder/x_0000.nrrd", "x_0000", True),
        ("slice [1](2).PNG", "slice [1](2)", True),
        ("._a.nii.gz", "._a", False),
        ("notes.txt", "notes.txt", False),
        ("1.2.840.113", "1.2.840.113", False),
        ("a.gz", "a.gz", False),
    ],
)
def test_names_of_volumes(name, stripped, is_volume):
    assert (strip_suffix(name), is_volume_file(name)) == (stripped, is_volume)


# ---------------------------------------------------------------- bad files


def nifti_bytes(shape=(4, 4, 4), affine=None, **fields):
    """A NIfTI file with header fields as given, which nibabel itself would repair."""
    image = nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4) if affine is None else affine)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for field, value in fields.items():
        header[field] = value
    content[:348] = header.binaryblock
    return bytes(content)


def sheared(by):
    affine = np.eye(4)
    affine[0, 1] = by
    return affine


def without_sform(*steps):
    return nifti_bytes(sform_code=0, pixdim=[1, *steps, 1, 1, 1, 1])


NAN_AFFINE = np.diag([1, np.nan, 1, 1])
BAD_NIFTI = {
    "empty": (b"", "is not a NIfTI file"),
    "text": (b"hello " * 100, "is not a NIfTI file"),
    "gzipped text": (gzip.compress(b"hello " * 100), "is not a NIfTI file"),
    "damaged gzip": (b"\x1f\x8b" + b"x" * 500, "truncated or damaged"),
    "truncated": (nifti_bytes()[:-40], r"truncated: 216 of 256 bytes"),
    "truncated gzip": (gzip.compress(nifti_bytes((20, 20, 20)))[:-30], "truncated"),
    "zero pixdim": (without_sform(1, 1, 0), r"spacing \(1, 1, 0\) mm is not positive"),
    "negative pixdim": (without_sform(1, 1, -2), r"spacing \(1, 1, -2\) mm is not positive"),
    "NaN pixdim": (without_sform(np.nan, 1, 1), r"spacing \(nan, 1, 1\) mm is not positive"),
    "zero column": (nifti_bytes(srow_x=[0, 0, 0, 0]), "is not positive"),
    "NaN affine": (nifti_bytes(srow_x=[np.nan, 0, 0, 0]), "not finite"),
    "sheared": (nifti_bytes(affine=sheared(0.05)), r"axes are not orthogonal \(off by 2\.9 degrees\)"),
    "no axes": (nifti_bytes(dim=[0, 1, 1, 1, 1, 1, 1, 1]), "has no voxels"),
    "no length": (nifti_bytes(dim=[3, 4, 0, 4, 1, 1, 1, 1]), r"has no voxels \(dimensions \[4, 0, 4\]\)"),
    "negative length": (nifti_bytes(dim=[3, 4, -4, 4, 1, 1, 1, 1]), "has no voxels"),
    "terabytes": (nifti_bytes(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), "is truncated"),
    "complex": (nifti_bytes(datatype=32, bitpix=64), "holds voxels of type complex64"),
    "colour": (nifti_bytes(datatype=128, bitpix=24), "holds voxels of type"),
    "unknown type": (nifti_bytes(datatype=999), r"damaged header \(its data type 999 is unknown\)"),
    "voxels in the header": (nifti_bytes(vox_offset=340), "voxels begin at byte 340, before its end at 352"),
    "voxels at no byte": (nifti_bytes(vox_offset=np.nan), "voxels begin at byte nan"),
    "voxels between bytes": (nifti_bytes(vox_offset=352.5), "damaged header"),
    "bytes beyond": (nifti_bytes(dim=[3, 4, 4, 3, 1, 1, 1, 1]), "more bytes than the 192 of its header's 48 voxels"),
    "infinite slope": (nifti_bytes(scl_slope=1.0, scl_inter=np.inf), "damaged header"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_NIFTI)
def test_a_bad_nifti_file_gives_one_line_that_names_it(tmp_path, kind):
    content, said = BAD_NIFTI[kind]
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=said) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_nifti_file_cut_anywhere_is_refused(tmp_path):
    write_volume(tmp_path / "a.nii.gz", make_volume((12, 12, 12)))
    whole = (tmp_path / "a.nii.gz").read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25).astype(int):
        (tmp_path / "cut.nii.gz").write_bytes(whole[:length])
        with pytest.raises(VolumeError, match=r"cut\.nii\.gz"):
            read_volume(tmp_path / "cut.nii.gz")


def test_a_flipped_bit_of_a_gzipped_file_is_noticed(tmp_path):
    write_volume(tmp_path / "a.nii.gz", make_volume((12, 12, 12)))
    content = (tmp_path / "a.nii.gz").read_bytes()
    for place in np.linspace(20, len(content) - 5, 25).astype(int):
        damaged = bytearray(content)
        damaged[place] ^= 4
        (tmp_path / "a.nii.gz").write_bytes(damaged)
        with pytest.raises(VolumeError, match=r"a\.nii\.gz"):
            read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd", ".png", ".jpg", ".tif"])
@pytest.mark.parametrize("content", ["empty", "text", "truncated"])
def test_a_bad_file_of_another_format_gives_one_line(tmp_path, suffix, content, capfd):
    path = tmp_path / f"bad{suffix}"
    if content == "truncated":
        if suffix == ".jpg":
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8)).save(path)
        else:
            data = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, 90, 90, 1), np.uint8))
            write_volume(path, MetaTensor(data, affine=torch.eye(4)))
        voxels = path.with_suffix(".raw") if suffix == ".mhd" else path
        voxels.write_bytes(voxels.read_bytes()[: voxels.stat().st_size // 2])
    else:
        path.write_bytes(b"" if content == "empty" else b"hello " * 100)
    with pytest.raises(VolumeError) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted(tmp_path, suffix, value):
    volume = make_volume((4, 4, 4))
    volume[0, :3, 0, 0] = value
    write_volume(tmp_path / f"a{suffix}", volume)
    with pytest.raises(VolumeError, match="3 of 64 voxels are NaN or infinite"):
        read_volume(tmp_path / f"a{suffix}")


def test_large_finite_voxels_are_not_taken_for_infinite(tmp_path):
    data = torch.full((1, 4, 4, 4), 3e38)
    write_volume(tmp_path / "a.nii.gz", MetaTensor(data, affine=torch.eye(4)))
    assert torch.equal(read_volume(tmp_path / "a.nii.gz").as_tensor(), data)


MHA = """ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False
TransformMatrix = {matrix}\nOffset = 0 0 0\nElementSpacing = {spacing}\nDimSize = 2 2 2\nElementType = MET_UCHAR
ElementDataFile = LOCAL\n"""
NRRD = """NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2
space directions: {directions}\nencoding: raw\nspace origin: (0,0,0)\n\n"""


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mha", MHA.format(matrix="1 0 0 0 1 0 0 0 1", spacing="1 0 1")),
        ("a.mha", MHA.format(matrix="1 0 0 0 1 0 0 0 1", spacing="1 -1 1")),
        ("a.mha", MHA.format(matrix="1 0 0 0.1 1 0 0 0 1", spacing="1 1 1")),
        ("a.nrrd", NRRD.format(directions="(1,0,0) (0.2,1,0) (0,0,1)")),
        ("a.nrrd", NRRD.format(directions="(1,0,0) (0,0,0) (0,0,1)")),
        ("a.nrrd", NRRD.format(directions="(1,0,0) (0,nan,0) (0,0,1)")),
    ],
    ids=["zero mha", "negative mha", "sheared mha", "sheared nrrd", "zero nrrd", "NaN nrrd"],
)
def test_spacing_and_axes_of_other_formats_are_checked(tmp_path, name, header):
    (tmp_path / name).write_bytes(header.encode() + bytes(8))
    with pytest.raises(VolumeError, match=r"spacing|orthogonal|finite") as caught:
        read_volume(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("by", [0.0, 1e-5, 5e-4])
def test_float_noise_in_the_axes_is_no_shear(tmp_path, by):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(affine=sheared(by)))
    assert read_volume(tmp_path / "a.nii").shape == (1, 4, 4, 4)
    (tmp_path / "b.nii").write_bytes(nifti_bytes(affine=sheared(0.01)))
    with pytest.raises(VolumeError, match="not orthogonal"):
        read_header(tmp_path / "b.nii")


def test_missing_files_and_forbidden_ones_are_named(tmp_path):
    with pytest.raises(VolumeError, match=r"no\.nii\.gz does not exist: check the path"):
        read_volume(tmp_path / "no.nii.gz")
    with pytest.raises(VolumeError, match=r"gone\.nrrd does not exist"):
        read_header(tmp_path / "gone.nrrd")


def test_an_mhd_without_its_voxels_says_which_file_is_missing(tmp_path):
    write_volume(tmp_path / "a.mhd", make_volume((3, 3, 3)))
    (tmp_path / "a.raw").unlink()
    with pytest.raises(VolumeError, match=r"a\.mhd names a file of voxels that is not there \(a\.raw\): copy it too"):
        read_volume(tmp_path / "a.mhd")


def test_a_pickle_in_disguise_is_not_executed(tmp_path):
    payload = b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR."
    for name in ("a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.tif"):
        (tmp_path / name).write_bytes(payload)
        with pytest.raises(VolumeError):
            read_volume(tmp_path / name)
    assert not (tmp_path / "owned").exists()


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize(
    ("name", "pattern", "labels"),
    [
        ("hippocampus", "imagesTr/*.nii.gz", "labelsTr/*.nii.gz"),
        ("myops_lge", "*/*_LGE.nii.gz", "*/*_gd.nii.gz"),
        ("acdc", "*/*_frame01.nii.gz", "*/*_frame01_gt.nii.gz"),
        ("la2018", "*/lgemri.nii.gz", "*/laendo.nii.gz"),
        ("oasis_tissue", "*/*_T1.nii.gz", "*/*_tissues.nii.gz"),
        ("brats2013", "*/Flair*.nii.gz", "*/OTMultiClass.nii.gz"),
    ],
)
def test_real_volumes_agree_with_nibabel(real_data, name, pattern, labels):
    root = real_data(name)
    for path, label_path in list(zip(sorted(root.glob(pattern)), sorted(root.glob(labels)), strict=False))[:2]:
        volume, reference = read_volume(path), nib.load(path)
        assert np.array_equal(volume[0].numpy(), reference.get_fdata(dtype=np.float32))
        assert np.allclose(volume.affine, reference.affine, atol=1e-6)
        assert read_header(path).orientation == "".join(nib.aff2axcodes(reference.affine))
        label = read_label_volume(label_path)
        assert np.array_equal(label[0].numpy(), np.asanyarray(nib.load(label_path).dataobj))
        assert grid_difference(grid_of(label), grid_of(volume)) is None
        home = resample_onto(to_canonical(label), affine=label.affine, shape=label.shape[1:], mode="nearest")
        assert torch.equal(home.as_tensor(), label.as_tensor())
