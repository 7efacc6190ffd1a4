"""Facts about preprocessing: grids, crops, respacing, intensities, and the way home."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial.transform import Rotation

from segmed.config import PreprocessConfig
from segmed.data import preprocess
from segmed.data.cases import Case, Dataset
from segmed.data.crop import body_mask, crop_box
from segmed.data.preprocess import prepare, read_case
from segmed.errors import VolumeError
from segmed.labels import IGNORE, LabelSet
from segmed.volumes import Source, orientation, resample_onto, spacing_mm

RESOLVED = PreprocessConfig(
    orientation="ras", spacing_mm="native", crop="none", intensity="none", interpolation="linear", separate_z=False
)
STRAIGHT = np.eye(3)
ROTATION = Rotation.from_euler("xyz", (25, -20, 35), degrees=True).as_matrix()
CODES = ("RAS", "LPS", "ASR", "SPL", "PIR")


def settings_with(**changes) -> PreprocessConfig:
    return PreprocessConfig(**{**RESOLVED.model_dump(), **changes})


def grid(codes: str, spacing, *, rotation=STRAIGHT) -> np.ndarray:
    """Affine of a grid whose axes point to `codes` and are then rotated; the origin lies off zero."""
    axes = nib.orientations.axcodes2ornt(tuple(codes), (("L", "R"), ("P", "A"), ("I", "S")))
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(axes):
        affine[int(world), axis] = sign * spacing[axis]
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = (12.5, -30.0, 7.0)
    return affine


def world(affine: np.ndarray, shape) -> np.ndarray:
    """World coordinates of every voxel: (3, X, Y, Z)."""
    voxels = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ voxels + affine[:3, 3:]).reshape(3, *shape)


def volume(values, affine) -> MetaTensor:
    values = torch.as_tensor(np.ascontiguousarray(values))
    return MetaTensor(values if values.ndim == 4 else values[None], affine=torch.as_tensor(affine))


def blobs(affine, shape, *, seed=0) -> np.ndarray:
    """A label map with two smooth labels of random shape, in voxels of about the finest spacing."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    widths = 8 / np.array(spacing_mm(affine))
    smooth = ndimage.gaussian_filter(noise, widths, mode="nearest")
    levels = np.quantile(smooth, (0.6, 0.85))
    return np.digitize(smooth, levels).astype(np.uint8)


def dice(a, b) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


# ---------------------------------------------------------------- geometry


@pytest.mark.parametrize("rotation", [np.eye(3), ROTATION], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_prepared_image_lies_where_its_affine_says(codes, rotation, interpolation):
    affine = grid(codes, (1.0, 1.5, 2.0), rotation=rotation)
    image = volume(world(affine, (22, 18, 16)).astype(np.float32), affine)
    prepared, _ = prepare(image, None, settings_with(spacing_mm=(0.8, 0.9, 1.1), interpolation=interpolation))
    where = world(np.asarray(prepared.affine), prepared.shape[1:])
    inner = (slice(None), *(slice(8, -8),) * 3)
    np.testing.assert_allclose(prepared.numpy()[inner], where[inner], atol=0.03)
    np.testing.assert_allclose(spacing_mm(np.asarray(prepared.affine)), (0.8, 0.9, 1.1), atol=1e-6)
    if np.array_equal(rotation, np.eye(3)):
        assert orientation(np.asarray(prepared.affine)) == "RAS"


@pytest.mark.parametrize("spacing", [2.0, 0.5])
@pytest.mark.parametrize("rotation", [np.eye(3), ROTATION], ids=["straight", "oblique"])
@pytest.mark.parametrize("origin", [(0, 0, 0), (0.3, -0.3, 0.4), (-0.2, 0.2, -30)])
def test_a_respaced_grid_covers_what_the_image_covers(origin, rotation, spacing):
    affine = grid("RAS", (1, 1, 1), rotation=rotation)
    affine[:3, 3] = origin
    prepared, _ = prepare(
        volume(np.ones((8, 10, 12), np.float32), affine), None, settings_with(spacing_mm=(spacing,) * 3)
    )
    ends = [
        matrix[:3, :3] @ end + matrix[:3, 3]
        for matrix, shape in ((affine, (8, 10, 12)), (np.asarray(prepared.affine), prepared.shape[1:]))
        for end in (np.full(3, -0.5), np.array(shape) - 0.5)
    ]
    np.testing.assert_allclose(ends[2:], ends[:2], atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    codes=st.sampled_from(CODES),
    angles=st.tuples(*[st.floats(-40, 40)] * 3),
    spacing=st.tuples(st.floats(0.7, 2.0), st.floats(0.7, 2.0), st.floats(0.7, 6.0)),
    separate=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_label_map_comes_home(codes, angles, spacing, separate, seed):
    affine = grid(codes, spacing, rotation=Rotation.from_euler("xyz", angles, degrees=True).as_matrix())
    native = blobs(affine, (26, 24, 12), seed=seed)
    image = volume(np.ones(native.shape, np.float32), affine)
    config = settings_with(spacing_mm=(0.7, 0.7, 0.7), separate_z=separate)
    _, label = prepare(image, volume(native, affine), config)
    home = resample_onto(label, affine=affine, shape=native.shape, mode="nearest").numpy()[0]
    for index in (1, 2):
        assert dice(home == index, native == index) > 0.95


@pytest.mark.parametrize("codes", CODES)
def test_at_native_spacing_voxels_are_only_moved(codes):
    affine = grid(codes, (1.0, 1.5, 8.0), rotation=ROTATION)
    values = np.random.default_rng(0).standard_normal((9, 8, 7)).astype(np.float32)
    label = np.random.default_rng(1).integers(0, 4, (9, 8, 7)).astype(np.uint8)
    image, indices = prepare(volume(values, affine), volume(label, affine), settings_with(separate_z=True))
    home = resample_onto(image, affine=affine, shape=values.shape, mode="nearest").numpy()[0]
    np.testing.assert_array_equal(home, values)
    home = resample_onto(indices, affine=affine, shape=values.shape, mode="nearest").numpy()[0]
    np.testing.assert_array_equal(home, label)


def test_the_spacing_that_is_there_already_resamples_nothing():
    affine = grid("LPS", (1.0, 1.0002, 3.0))
    values = np.random.default_rng(0).standard_normal((9, 8, 7)).astype(np.float32)
    image, _ = prepare(volume(values, affine), None, settings_with(spacing_mm=(1.0, 1.0, 0.0)))
    np.testing.assert_array_equal(image.numpy()[0], values[::-1, ::-1])


def test_spacing_zero_leaves_an_axis_as_it_is():
    affine = grid("RAS", (1.0, 1.0, 9.0))
    image, _ = prepare(volume(np.ones((10, 10, 5), np.float32), affine), None, settings_with(spacing_mm=(2.0, 2.0, 0)))
    assert image.shape == (1, 5, 5, 5)
    np.testing.assert_allclose(spacing_mm(np.asarray(image.affine)), (2, 2, 9))


@pytest.mark.parametrize("codes", ["RAS", "LSP", "PSR", "SRA"])
def test_slices_last_puts_the_thick_axis_last_in_a_right_handed_frame(codes):
    affine = grid(codes, (1.0, 1.1, 12.0))
    values = np.zeros((6, 7, 4), np.float32) + np.arange(4)
    image, _ = prepare(volume(values, affine), None, settings_with(orientation="slices_last"))
    assert image.shape[3] == 4
    assert len(np.unique(image.numpy()[0, 0, 0])) == 4
    assert np.linalg.det(np.asarray(image.affine)[:3, :3]) > 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0001, 1.0, 1.0), (1.0, 0.4, 1.0)])
def test_slices_last_leaves_a_volume_without_slices_in_ras(spacing):
    image, _ = prepare(
        volume(np.ones((6, 7, 4), np.float32), grid("RAS", spacing)), None, settings_with(orientation="slices_last")
    )
    assert image.shape == (1, 6, 7, 4)


def test_stacks_on_both_sides_of_the_diagonal_get_the_same_frame():
    frames = []
    for angle in (40, 50):
        turn = Rotation.from_euler("z", angle, degrees=True).as_matrix()
        affine = turn @ grid("RSP", (1.0, 1.0, 12.0))[:3, :3]
        full = np.eye(4)
        full[:3, :3] = affine
        image, _ = prepare(volume(np.ones((6, 6, 4), np.float32), full), None, settings_with(orientation="slices_last"))
        frames.append(np.asarray(image.affine)[:3, :3] / spacing_mm(np.asarray(image.affine)))
    assert (np.sum(frames[0] * frames[1], axis=0) > 0.98).all()


def test_one_slice_passes_whatever_the_spacing():
    values = np.random.default_rng(0).random((40, 30, 1)).astype(np.float32)
    config = settings_with(spacing_mm=(2.0, 2.0, 5.0), crop="body", intensity="zscore", separate_z=True)
    image, label = prepare(volume(values, np.eye(4)), volume((values > 0.5).astype(np.uint8), np.eye(4)), config)
    assert image.shape == label.shape == (1, 20, 15, 1)


# ---------------------------------------------------------------- respacing


def test_labels_are_never_mixed():
    affine = grid("RAS", (1.0, 1.0, 4.0))
    values = np.random.default_rng(0).choice([0, 1, 3, IGNORE], (20, 20, 6)).astype(np.uint8)
    for spacing in ((0.7, 0.7, 1.3), (1.7, 1.7, 5.0)):
        image, label = prepare(
            volume(np.ones(values.shape, np.float32), affine), volume(values, affine), settings_with(spacing_mm=spacing)
        )
        assert label.dtype == torch.uint8
        assert label.shape == image.shape
        assert set(label.unique().tolist()) == {0, 1, 3, IGNORE}


@pytest.mark.parametrize(
    "spacing", [(0.5, 0.5, 0.5), (0.7, 1.3, 0.9), (2.0, 2.0, 2.0), (1.5, 1.5, 3.0), (2.0, 1.0, 1.0)]
)
def test_respacing_keeps_the_volume_of_a_label(spacing):
    affine = np.eye(4)
    radius = np.sqrt(((np.indices((40, 40, 40)) - 19.7) ** 2).sum(0))
    sphere = (radius < 13).astype(np.uint8)
    _, label = prepare(
        volume(radius.astype(np.float32), affine), volume(sphere, affine), settings_with(spacing_mm=spacing)
    )
    assert label.sum().item() * np.prod(spacing) == pytest.approx(sphere.sum(), rel=0.03)


def test_thick_slices_are_not_blended():
    affine = grid("RAS", (1.5, 1.5, 10.0))
    values = np.zeros((20, 20, 5), np.float32) + np.array([0, 10, 20, 40, 80], np.float32)
    config = settings_with(spacing_mm=(1.0, 1.0, 3.0), separate_z=True)
    image, _ = prepare(volume(values, affine), None, config)
    assert image.shape == (1, 30, 30, 17)
    assert set(image.unique().round().tolist()) == {0, 10, 20, 40, 80}
    blended, _ = prepare(volume(values, affine), None, settings_with(spacing_mm=(1.0, 1.0, 3.0)))
    assert len(blended.unique()) > 5


def test_in_plane_interpolation_goes_on_where_slices_are_kept_apart():
    affine = grid("RAS", (2.0, 2.0, 10.0))
    values = (np.arange(20, dtype=np.float32)[:, None, None]) * np.ones((1, 20, 4), np.float32)
    image, _ = prepare(volume(values, affine), None, settings_with(spacing_mm=(1.0, 1.0, 10.0), separate_z=True))
    np.testing.assert_allclose(np.diff(image.numpy()[0, 4:-4, 20, 2]), 0.5, atol=1e-3)


def test_a_reduction_averages_noise_instead_of_aliasing():
    noise = np.random.default_rng(0).standard_normal((48, 48, 48)).astype(np.float32)
    image, _ = prepare(volume(noise, np.eye(4)), None, settings_with(spacing_mm=(3.0, 3.0, 3.0)))
    assert image.std() < 0.25


def test_cubic_interpolation_stays_within_the_intensities_that_were_there():
    step = np.zeros((20, 20, 20), np.float32)
    step[10:] = 100
    image, _ = prepare(volume(step, np.eye(4)), None, settings_with(spacing_mm=(0.6, 0.6, 0.6), interpolation="cubic"))
    assert image.min() >= 0
    assert image.max() <= 100


# ---------------------------------------------------------------- crop


def body_image(shape=(60, 50, 40), *, noise=4.0) -> tuple[np.ndarray, tuple[slice, ...]]:
    """A body of tissue, fat and lung in Rician noise, and the box that it fills."""
    box = (slice(15, 45), slice(10, 38), slice(0, 40))
    signal = np.zeros(shape)
    signal[box] = 100
    signal[15:18, 10:38] = 600
    signal[25:35, 18:30] = 12
    rng = np.random.default_rng(0)
    return np.hypot(signal + noise * rng.standard_normal(shape), noise * rng.standard_normal(shape)), box


def test_the_body_is_found_in_noise_beside_bright_fat():
    values, box = body_image()
    first, after = crop_box(volume(values.astype(np.float32), np.diag([2.0, 2.0, 5.0, 1.0])), "body")
    for begin, stop, side in zip(first, after, box, strict=True):
        assert max(side.start - 8, 0) <= begin <= side.start
        assert side.stop <= stop <= side.stop + 8


def test_a_flat_image_is_not_cropped():
    flat = volume(np.full((9, 9, 9), 7, np.float32), np.eye(4))
    assert crop_box(flat, "body") is None
    assert crop_box(volume(np.zeros((9, 9, 9), np.float32), np.eye(4)), "nonzero") is None


def test_the_nonzero_box_is_exact_and_holds_every_channel():
    values = np.zeros((2, 20, 20, 20), np.float32)
    values[0, 3:9, 5, 5] = 1
    values[1, 12, 5:8, 7] = -1
    assert crop_box(volume(values, np.eye(4)), "nonzero") == ((3, 5, 5), (13, 8, 8))


def test_body_mask_has_the_image_s_shape_when_it_is_large():
    assert body_mask(torch.rand(2, 203, 197, 5)).shape == (2, 203, 197, 5)


def test_a_cropped_result_comes_home():
    values, box = body_image()
    affine = grid("LSP", (1.0, 1.0, 1.0), rotation=ROTATION)
    native = np.zeros(values.shape, np.uint8)
    native[box] = 1
    config = settings_with(crop="body", spacing_mm=(1.2, 1.2, 1.2))
    image, label = prepare(volume(values.astype(np.float32), affine), volume(native, affine), config)
    assert image[0].numel() * 1.2**3 < values.size
    home = resample_onto(label, affine=affine, shape=native.shape, mode="nearest").numpy()[0]
    assert dice(home == 1, native == 1) > 0.97


# ---------------------------------------------------------------- intensities


def test_zscore_has_mean_zero_and_sd_one_in_each_channel():
    values = np.random.default_rng(0).gamma(2, 100, (2, 20, 20, 20)).astype(np.float32)
    values[1] *= 50
    image, _ = prepare(volume(values, np.eye(4)), None, settings_with(intensity="zscore"))
    np.testing.assert_allclose(image.mean(dim=(1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(image.std(dim=(1, 2, 3)), 1, atol=1e-3)


def test_zscore_nonzero_leaves_zeros_and_scales_the_rest():
    values = np.zeros((20, 20, 20), np.float32)
    values[5:15] = np.random.default_rng(0).normal(300, 20, (10, 20, 20))
    image, _ = prepare(volume(values, np.eye(4)), None, settings_with(intensity="zscore_nonzero"))
    assert (image.numpy()[0][values == 0] == 0).all()
    inside = image.numpy()[0][values != 0]
    assert inside.mean() == pytest.approx(0, abs=1e-3)
    assert inside.std() == pytest.approx(1, abs=1e-3)


def test_one_hot_voxel_does_not_squeeze_the_rest():
    values = np.random.default_rng(0).normal(100, 10, (20, 20, 20)).astype(np.float32)
    values[3, 3, 3] = 1e6
    for intensity in ("zscore", "zscore_nonzero", "percentile"):
        image, _ = prepare(volume(values, np.eye(4)), None, settings_with(intensity=intensity))
        assert image.std() > 0.15


def test_percentile_runs_from_zero_to_one():
    values = np.random.default_rng(0).normal(100, 10, (20, 20, 20)).astype(np.float32)
    image, _ = prepare(volume(values, np.eye(4)), None, settings_with(intensity="percentile"))
    assert image.min() == 0
    assert image.max() == 1


@pytest.mark.parametrize("intensity", ["zscore", "zscore_nonzero", "percentile"])
def test_few_bright_voxels_in_a_dark_volume_are_not_clipped_away(intensity):
    values = np.zeros((20, 20, 20), np.float32)
    values[4:6, 4:6, 4:7] = np.arange(12).reshape(2, 2, 3) + 5
    image, _ = prepare(volume(values, np.eye(4)), None, settings_with(intensity=intensity))
    assert len(image.unique()) > 8


@pytest.mark.parametrize("intensity", ["zscore", "zscore_nonzero", "percentile", "none"])
def test_a_constant_image_stays_finite(intensity):
    image, _ = prepare(volume(np.full((8, 8, 8), 5, np.float32), np.eye(4)), None, settings_with(intensity=intensity))
    assert torch.isfinite(image).all()


def test_an_unresolved_config_is_refused():
    with pytest.raises(ValueError, match=r"preprocess\.orientation is still 'auto'"):
        prepare(volume(np.ones((4, 4, 4), np.float32), np.eye(4)), None, PreprocessConfig())


# ---------------------------------------------------------------- files -> a case

LABELS = LabelSet(("myocardium", "blood"), ((200, 1220), (500,)), (77,))


def save(path, values, affine) -> Source:
    nib.save(nib.Nifti1Image(values, affine), path)
    return Source(path)


def case_of(tmp_path, *, label_affine=None, label_values=(0, 200, 500)) -> tuple[Case, Dataset]:
    affine = grid("LSP", (1.0, 1.0, 8.0), rotation=ROTATION)
    rng = np.random.default_rng(0)
    images = {
        name: save(tmp_path / f"c1_{name}.nii.gz", rng.random((8, 7, 4)).astype(np.float32), affine)
        for name in ("t1", "t2")
    }
    values = rng.choice(label_values, (8, 7, 4)).astype(np.int16)
    label = save(tmp_path / "c1_label.nii.gz", values, affine if label_affine is None else label_affine)
    case = Case("c1", "c1", images, label, {})
    return case, Dataset("test", tmp_path, (case,), ("t2", "t1"), LABELS)


def test_read_case_stacks_modalities_in_the_data_set_s_order_and_encodes_labels(tmp_path):
    case, dataset = case_of(tmp_path, label_values=(0, 200, 1220, 500, 77))
    image, label = read_case(case, dataset)
    second = nib.load(case.images["t2"].path)
    np.testing.assert_allclose(image.numpy()[0], second.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(image.affine), second.affine, atol=1e-5)
    stored = np.asarray(nib.load(case.label.path).dataobj)
    np.testing.assert_array_equal(label.numpy()[0] == 1, np.isin(stored, (200, 1220)))
    np.testing.assert_array_equal(label.numpy()[0] == IGNORE, stored == 77)
    assert label.dtype == torch.uint8


def test_a_label_on_another_grid_is_named_with_the_way_out(tmp_path):
    shifted = grid("LSP", (1.0, 1.0, 8.0), rotation=ROTATION)
    shifted[0, 3] += 5
    case, dataset = case_of(tmp_path, label_affine=shifted)
    with pytest.raises(VolumeError, match=r"case c1: .*c1_label.* 5 mm.*--fix-geometry") as caught:
        read_case(case, dataset)
    assert "\n" not in str(caught.value)


def test_an_unknown_label_value_is_named_with_the_file(tmp_path):
    case, dataset = case_of(tmp_path, label_values=(0, 200, 4711))
    with pytest.raises(ValueError, match=r"c1_label.*4711"):
        read_case(case, dataset)


def test_a_missing_modality_is_named(tmp_path):
    case, dataset = case_of(tmp_path)
    lacking = Case("c1", "c1", {"t1": case.images["t1"]}, None, {})
    with pytest.raises(VolumeError, match="case c1 has no image 't2'"):
        read_case(lacking, dataset)


def test_channels_of_one_file_are_decoded_once(tmp_path, monkeypatch):
    values = np.random.default_rng(0).random((6, 5, 4, 3)).astype(np.float32)
    source = save(tmp_path / "four.nii.gz", values, np.eye(4))
    images = {"flair": Source(source.path, 0), "t1": Source(source.path, 2)}
    case = Case("four", "four", images, None, {})
    dataset = Dataset("test", tmp_path, (case,), ("flair", "t1"), LABELS)
    reads = []
    original = preprocess.read_volume
    monkeypatch.setattr(preprocess, "read_volume", lambda *a, **k: reads.append(a) or original(*a, **k))
    image, label = read_case(case, dataset)
    np.testing.assert_array_equal(image.numpy(), np.moveaxis(values, -1, 0)[[0, 2]])
    assert label is None
    assert len(reads) == 1


def test_a_file_of_several_components_asks_for_one(tmp_path):
    source = save(tmp_path / "four.nii.gz", np.ones((6, 5, 4, 3), np.float32), np.eye(4))
    case = Case("four", "four", {"image": source}, None, {})
    with pytest.raises(VolumeError, match=r"case four: image 'image' .* has 3 components.*data\.components"):
        read_case(case, Dataset("test", tmp_path, (case,), ("image",), LABELS))


# ---------------------------------------------------------------- real data


def test_real_short_axis_stacks_keep_every_label_and_come_home(real_data):
    root = real_data("myops_lge")
    labels = LabelSet(("myocardium", "blood", "rv"), ((200, 1220, 2221), (500,), (600,)))
    config = settings_with(
        orientation="slices_last", spacing_mm=(1.0, 1.0, 0), crop="body", intensity="zscore", separate_z=True
    )
    for name in ("Case3001", "Case3002"):
        case = Case(
            name,
            name,
            {"lge": Source(root / name / f"{name}_LGE.nii.gz")},
            Source(root / name / f"{name}_gd.nii.gz"),
            {},
        )
        image, label = read_case(case, Dataset("myops", root, (case,), ("lge",), labels))
        prepared, indices = prepare(image, label, config)
        assert prepared.shape[3] == image.shape[3]
        assert prepared[0].numel() < 0.8 * image[0].numel()
        home = resample_onto(indices, affine=image.affine, shape=image.shape[1:], mode="nearest").numpy()
        for index in (1, 2, 3):
            assert dice(home == index, label.numpy() == index) > 0.96
