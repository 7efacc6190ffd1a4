"""Headers: what contradicts itself is read as other tools do, and said; what promises too much is refused."""

import gzip
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from segmed.config import DataConfig, PatternLayout, PreprocessConfig
from segmed.data.audit import audit_dataset
from segmed.data.cache import VolumeCache
from segmed.data.cases import read_dataset
from segmed.data.images.picture import read_picture
from segmed.data.inputs import find_inputs
from segmed.data.preprocess import read_case
from segmed.errors import GeometryError, VolumeError
from segmed.volumes import (
    Source,
    grid_difference,
    header_remarks,
    is_volume_file,
    read_header,
    read_label_volume,
    read_volume,
    write_volume,
)

SHAPE = (4, 5, 6)
AFFINE = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, 15], [0, 0, 3, 30], [0, 0, 0, 1.0]])


def content_of(*, sform=None, qform=None, shape=SHAPE, **fields) -> bytes:
    """A NIfTI file with the forms and, after them, header fields as given."""
    image = nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), None)
    image.set_sform(sform, 0 if sform is None else 2)
    image.set_qform(qform, 0 if qform is None else 1)
    image.header.set_xyzt_units("mm")
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for field, value in fields.items():
        header[field] = value
    content[:348] = header.binaryblock
    return bytes(content)


def sheared(by):
    affine = AFFINE.copy()
    affine[0, 1] = by
    return affine


def moved(by_mm):
    affine = AFFINE.copy()
    affine[0, 3] += by_mm
    return affine


# ---------------------------------------------------------------- one place, said twice


CHOSEN = {
    "sheared sform, rigid qform": (content_of(sform=sheared(0.2), qform=AFFINE), "its qform counts"),
    "negative pixdim": (content_of(sform=AFFINE, pixdim=[1, -1.5, 1.5, 3, 0, 0, 0, 0]), "the sform's counts"),
    "pixdim of zeros": (content_of(sform=AFFINE, pixdim=[1, 0, 0, 0, 0, 0, 0, 0]), "the sform's counts"),
    "pixdim of no numbers": (content_of(sform=AFFINE, pixdim=[1, np.nan, 1.5, 3, 0, 0, 0, 0]), "the sform's counts"),
    "long quaternion": (content_of(qform=AFFINE, quatern_d=1.00002), "quaternion is 1.00002 long"),
}


@pytest.mark.parametrize("kind", CHOSEN)
def test_what_other_tools_read_is_read_with_a_warning_and_written_clean(tmp_path, kind, caplog):
    content, said = CHOSEN[kind]
    (tmp_path / "a.nii").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        volume = read_volume(tmp_path / "a.nii")
        read_volume(tmp_path / "a.nii")
    assert [said in record.getMessage() for record in caplog.records] == [True]
    assert said in header_remarks(Source(tmp_path / "a.nii"))[0]
    if kind != "long quaternion":
        assert np.allclose(volume.affine, AFFINE, atol=1e-5)
    write_volume(tmp_path / "b.nii.gz", volume, like=tmp_path / "a.nii")
    back = read_volume(tmp_path / "b.nii.gz")
    assert grid_difference((back.shape, back.affine), (volume.shape, volume.affine), tolerance_mm=1e-3) is None
    assert header_remarks(Source(tmp_path / "b.nii.gz")) == ()


def test_a_quaternion_a_little_too_long_is_the_rotation_that_it_rounds(tmp_path):
    half_turn = np.diag([-1.5, -1.5, 3.0, 1.0])  # its quaternion is (0, 0, 1)
    (tmp_path / "a.nii").write_bytes(content_of(qform=half_turn, quatern_d=1.000002))
    assert np.allclose(read_header(tmp_path / "a.nii").affine, half_turn, atol=1e-4)
    (tmp_path / "b.nii").write_bytes(content_of(qform=half_turn, quatern_d=1.5))
    with pytest.raises(VolumeError, match="damaged header"):
        read_header(tmp_path / "b.nii")


def test_one_slice_without_thickness_is_one_millimetre_thick_and_several_are_refused(tmp_path):
    (tmp_path / "one.nii").write_bytes(content_of(shape=(4, 5, 1), pixdim=[1, 1.5, 1.5, 0, 0, 0, 0, 0]))
    assert read_header(tmp_path / "one.nii").spacing_mm == (1.5, 1.5, 1.0)
    assert "thickness of its one slice is not known" in header_remarks(Source(tmp_path / "one.nii"))[0]
    (tmp_path / "two.nii").write_bytes(content_of(shape=(4, 5, 2), pixdim=[1, 1.5, 1.5, 0, 0, 0, 0, 0]))
    with pytest.raises(GeometryError, match=r"spacing \(1\.5, 1\.5, 0\) mm is not positive"):
        read_header(tmp_path / "two.nii")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (content_of(sform=moved(25), qform=AFFINE), "sform and qform place voxels up to 25 mm apart"),
        (
            content_of(sform=np.diag([1, 1, 1, 1.0]), pixdim=[1, 1.5, 1.5, 3, 0, 0, 0, 0]),
            "the sform says voxels of 1 × 1 × 1 mm, pixdim says 1.5 × 1.5 × 3 mm",
        ),
    ],
)
def test_forms_that_disagree_are_said(tmp_path, content, said):
    (tmp_path / "a.nii").write_bytes(content)
    assert any(said in remark for remark in header_remarks(Source(tmp_path / "a.nii")))


@pytest.mark.parametrize(
    "content", [content_of(sform=AFFINE, qform=AFFINE), content_of(sform=moved(0.1), qform=AFFINE)]
)
def test_forms_that_agree_up_to_a_tenth_of_a_voxel_are_not_said(tmp_path, content):
    (tmp_path / "a.nii").write_bytes(content)
    assert header_remarks(Source(tmp_path / "a.nii")) == ()


def test_any_byte_of_a_header_may_be_wrong(tmp_path):
    whole, path = content_of(sform=AFFINE, qform=AFFINE, shape=(2, 3, 2)), tmp_path / "a.nii"
    lines = refused = 0
    for place in range(348):
        for value in (7, 255):
            damaged = bytearray(whole)
            damaged[place] = value
            path.write_bytes(damaged)
            try:
                volume = read_volume(path)
                header_remarks(Source(path))
            except VolumeError as error:
                lines += str(error).count("\n") + 1
                refused += 1
                continue
            write_volume(tmp_path / "b.nii", volume, like=path)
            back = read_volume(tmp_path / "b.nii")
            assert grid_difference((back.shape, back.affine), (volume.shape, volume.affine)) is None, place
    assert lines == refused > 20


# ---------------------------------------------------------------- a grid, rounded


@pytest.mark.parametrize(
    ("by_voxels", "same"), [(0.0, True), (0.09, True), (-0.09, True), (0.11, False), (-0.11, False)]
)
@pytest.mark.parametrize("axis", [0, 2])
def test_a_tenth_of_a_voxel_apart_is_another_grid(by_voxels, same, axis):
    other = AFFINE.copy()
    other[:3, 3] += by_voxels * AFFINE[:3, axis]
    assert (grid_difference((SHAPE, AFFINE), (SHAPE, other)) is None) == same


def test_a_spacing_rounded_to_four_digits_is_the_same_grid():
    fine, rounded = np.diag([0.683594, 0.683594, 1, 1]), np.diag([0.6836, 0.6836, 1, 1])
    fine[:2, 3], rounded[:2, 3] = -174.316, -174.3
    assert grid_difference(((256, 256, 12), fine), ((256, 256, 12), rounded)) is None
    assert grid_difference(((256, 256, 12), fine), ((256, 256, 12), np.diag([0.684, 0.684, 1, 1]))) is not None


# ---------------------------------------------------------------- pairs and .mgz


def test_pairs_and_mgz_are_read_as_nifti_is(tmp_path):
    data = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Pair(data, AFFINE), tmp_path / "pair.img")
    nib.save(nib.MGHImage(data.astype(np.float32), AFFINE.astype(np.float32)), tmp_path / "orig.mgz")
    for name in ("pair.img", "pair.hdr", "orig.mgz"):
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume[0].numpy(), data)
        assert np.allclose(volume.affine, AFFINE)
        assert read_header(tmp_path / name).shape == SHAPE
    assert read_label_volume(tmp_path / "pair.img").shape == (1, *SHAPE)
    assert [is_volume_file(tmp_path / name) for name in ("pair.img", "pair.hdr", "orig.mgz")] == [True, False, True]


def test_half_a_pair_names_the_other_half(tmp_path):
    nib.save(nib.Nifti1Pair(np.zeros(SHAPE, np.int16), AFFINE), tmp_path / "pair.img")
    (tmp_path / "pair.hdr").rename(tmp_path / "lost.hdr")
    assert not is_volume_file(tmp_path / "pair.img")
    for name, other in (("pair.img", "pair.hdr"), ("lost.hdr", "lost.img")):
        with pytest.raises(VolumeError, match=f"half of a pair, {other} is not there"):
            read_volume(tmp_path / name)


def test_analyze_is_read_and_its_unknown_sides_are_said(tmp_path):
    nib.save(nib.AnalyzeImage(np.ones(SHAPE, np.int16), AFFINE), tmp_path / "old.img")
    assert read_volume(tmp_path / "old.img").shape == (1, *SHAPE)
    assert "does not say where left and right are" in header_remarks(Source(tmp_path / "old.img"))[0]


@pytest.mark.parametrize("name", ["a.mgz", "a.img"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_damaged_pairs_and_mgz_give_one_line(tmp_path, name, kept):
    data = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    kind = nib.MGHImage if name == "a.mgz" else nib.Nifti1Pair
    nib.save(kind(data, AFFINE.astype(np.float32)), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(VolumeError, match=name) as caught:
        read_volume(tmp_path / name)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- NaN outside the brain


def test_nan_is_zero_where_that_is_asked_for_and_infinity_never_is(tmp_path):
    data = np.full(SHAPE, 5, np.float32)
    data[0] = np.nan
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(VolumeError, match=r"30 of 120 voxels are NaN or infinite.*data\.nan to zero"):
        read_volume(tmp_path / "a.nii.gz")
    assert read_volume(Source(tmp_path / "a.nii.gz", nan="zero"))[0, :, 0, 0].tolist() == [0, 5, 5, 5]
    data[1] = np.inf
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "b.nii.gz")
    with pytest.raises(VolumeError, match="30 of 120 voxels are NaN or infinite"):
        read_volume(Source(tmp_path / "b.nii.gz", nan="zero"))


# ---------------------------------------------------------------- more than memory holds


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr("segmed.volumes.room.free_ram_bytes", lambda: 1 << 20)


def test_a_small_gzip_of_many_zeros_is_refused_by_its_header(tmp_path, little_memory):
    header = content_of(sform=AFFINE, dim=[3, 200, 200, 100, 1, 1, 1, 1])[:352]
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header + bytes(2 * 200 * 200 * 100)))
    assert (tmp_path / "a.nii.gz").stat().st_size < 20_000
    with pytest.raises(VolumeError, match=r"a\.nii\.gz needs 0\.0 GiB of memory by its header") as caught:
        read_volume(tmp_path / "a.nii.gz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha", ".mgz", ".img", ".png"])
def test_what_does_not_fit_into_free_memory_is_refused_in_every_format(tmp_path, little_memory, suffix):
    data = np.zeros((700, 700, 1), np.uint8)
    path = tmp_path / f"a{suffix}"
    if suffix == ".mgz":
        nib.save(nib.MGHImage(data, AFFINE.astype(np.float32)), path)
    elif suffix == ".img":
        nib.save(nib.Nifti1Pair(data, AFFINE), path)
    else:
        write_volume(path, MetaTensor(torch.from_numpy(data)[None], affine=torch.from_numpy(AFFINE)))
    with pytest.raises(VolumeError, match=r"needs 0\.0 GiB of memory by its header, 0\.0 GiB are free"):
        read_volume(path)


def test_a_nrrd_that_claims_gigabytes_is_truncated_before_room_is_made(tmp_path):
    header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2048 2048 2048\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(100))
    with pytest.raises(VolumeError, match=r"a\.nrrd (is truncated: .* can't hold|needs)"):
        read_volume(tmp_path / "a.nrrd")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii"])
def test_nrrd_of_every_encoding_is_read(tmp_path, encoding):
    header = f"NRRD0004\ntype: float\ndimension: 3\nsizes: 9 9 9\nendian: little\nencoding: {encoding}\n\n"
    voxels = {"raw": bytes(4 * 729), "gzip": gzip.compress(bytes(4 * 729)), "ascii": b"0 " * 729}[encoding]
    (tmp_path / "a.nrrd").write_bytes(header.encode() + voxels)
    assert not read_volume(tmp_path / "a.nrrd").any()


def test_a_picture_that_does_not_fit_into_free_memory_is_refused(tmp_path, little_memory):
    Image.new("RGB", (400, 400)).save(tmp_path / "a.png")
    with pytest.raises(VolumeError, match="of memory by its header"):
        read_picture(tmp_path / "a.png")


def test_nan_of_a_data_set_is_zero_from_the_audit_to_the_network(tmp_path):
    data = np.random.default_rng(0).normal(100, 9, (6, 6, 6)).astype(np.float32)
    data[0] = np.nan
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii.gz")
    layout = PatternLayout(images={"T1": "{case}.nii.gz"})
    strict = audit_dataset(read_dataset(DataConfig(root=tmp_path, layout=layout)))
    assert [finding.kind for finding in strict.errors] == ["unreadable"]
    dataset = read_dataset(DataConfig(root=tmp_path, layout=layout, nan="zero"))
    assert not audit_dataset(dataset).findings
    image, _ = read_case(dataset.cases[0], dataset)
    assert np.array_equal(image[0].numpy(), np.nan_to_num(data))
    (only,) = find_inputs(tmp_path / "a.nii.gz", DataConfig(images=("T1",), layout=layout, nan="zero"))
    assert only.case.images["T1"].nan == "zero"


def test_another_treatment_of_nan_is_another_entry_of_the_cache(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), AFFINE), tmp_path / "a.nii.gz")
    layout = PatternLayout(images={"T1": "{case}.nii.gz"})
    cache = VolumeCache(tmp_path / "cache")
    keys = set()
    for nan in ("error", "zero"):
        dataset = read_dataset(DataConfig(root=tmp_path, layout=layout, nan=nan))
        keys.add(cache.key(dataset.cases[0], dataset, PreprocessConfig()))
    assert len(keys) == 2
