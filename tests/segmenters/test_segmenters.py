"""One contract for every segmenter, on grids of every kind; and what each of them promises beyond it."""

from collections.abc import Callable
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import nn

from segmed.config import InferenceConfig, PatchConfig, PreprocessConfig
from segmed.errors import SegmenterError, VolumeError
from segmed.geometry import resample_onto
from segmed.labels import LabelSet
from segmed.segmenters import trained_network as network_module
from segmed.segmenters.cascade import Cascade
from segmed.segmenters.combine import LargestComponent, Mean, Tidied, Vote, loose_pieces
from segmed.segmenters.native import WayHome
from segmed.segmenters.segmenter import Segmenter, most_probable, on_grid_of
from segmed.segmenters.trained_network import NetworkSegmenter, evaluating
from segmed.volumes import Source, grid_difference, read_volume

LABELS = LabelSet(("left", "right"), ((1,), (2,)))
NATIVE = PreprocessConfig(
    orientation="ras", spacing_mm="native", crop="none", intensity="none", interpolation="linear", separate_z=False
)
WINDOW = (8, 8, 8)


class Threshold(nn.Module):
    """Class 1 above 1, class 2 above 2, of each voxel alone: a network whose result is known."""

    in_channels = 1

    def __init__(self, sharpness: float = 100.0) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, image):
        zero = torch.zeros_like(image)
        return self.sharpness * torch.cat([zero, image - 1, 2 * image - 3], 1)


def random_network(dims: int = 3) -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Conv3d if dims == 3 else nn.Conv2d
    return nn.Sequential(convolution(1, 4, 3, padding=1), nn.ReLU(), convolution(4, 3, 3, padding=1))


def segmenter(network: nn.Module | None = None, *, plane_axis: int | None = None, **changes) -> NetworkSegmenter:
    """A segmenter of the native grid, but for `changes` to its preprocessing and inference."""
    inference = {name: changes.pop(name) for name in ("overlap", "window", "windows", "mirror") if name in changes}
    options = {name: changes.pop(name) for name in ("precision", "mirror_pairs") if name in changes}
    dims = 3 if plane_axis is None else 2
    return NetworkSegmenter(
        network or random_network(dims),
        labels=LABELS,
        preprocess=NATIVE.model_copy(update=changes),
        patches=PatchConfig(dims=dims, size=WINDOW[:dims]),
        plane_axis=plane_axis,
        inference=InferenceConfig(**inference),
        **options,
    )


# ---------------------------------------------------------------- volumes


def rotation(degrees: float, axis: int = 2) -> np.ndarray:
    angle, (i, j) = np.radians(degrees), [k for k in range(3) if k != axis]
    matrix = np.eye(3)
    matrix[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return matrix


def affine_of(columns: np.ndarray, spacing_mm=(1.0, 1.0, 1.0), origin=(5.0, -20.0, 33.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = columns * np.array(spacing_mm)
    affine[:3, 3] = origin
    return affine


def volume_of(affine: np.ndarray, shape=(12, 10, 9), seed: int = 0) -> MetaTensor:
    data = np.random.default_rng(seed).normal(1.0, 1.0, (1, *shape)).astype(np.float32)
    return MetaTensor(torch.from_numpy(data), affine=torch.from_numpy(affine))


OBLIQUE = rotation(20) @ rotation(-15, 0)
VOLUMES: dict[str, Callable[[], MetaTensor]] = {
    "canonical": lambda: volume_of(affine_of(np.eye(3))),
    "flipped": lambda: volume_of(affine_of(np.diag([-1, -1, 1]), (0.8, 0.9, 1.5))),
    "permuted": lambda: volume_of(affine_of(np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]]), (1.0, 2.0, 0.7))),
    "oblique": lambda: volume_of(affine_of(OBLIQUE, (0.75, 0.75, 1.2))),
    "oblique stack": lambda: volume_of(affine_of(rotation(50, 1) @ rotation(30), (0.75, 0.75, 12)), (24, 20, 4)),
    "one slice": lambda: volume_of(affine_of(OBLIQUE, (1, 1, 8)), (11, 13, 1)),
    "two sagittal slices": lambda: volume_of(affine_of(np.eye(3), (10, 1, 1)), (2, 17, 13)),
    "tiny": lambda: volume_of(affine_of(np.diag([1, -1, -1])), (3, 1, 2)),
    "nothing in it": lambda: on_grid_of(volume_of(affine_of(np.eye(3))), torch.zeros(1, 12, 10, 9)),
}

# Whatever segments is listed here.
SEGMENTERS: dict[str, Callable[[], Segmenter]] = {
    "network": lambda: segmenter(),
    "network, respaced and cropped": lambda: segmenter(
        spacing_mm=(1.3, 0.9, 2.0), crop="nonzero", intensity="zscore", interpolation="cubic", separate_z=True
    ),
    "network, body only": lambda: segmenter(crop="body", intensity="percentile", spacing_mm=(1.5, 1.5, 1.5)),
    "network, mirrored": lambda: segmenter(mirror=True, overlap=0.25, windows=3),
    "network, bf16": lambda: segmenter(precision="bf16"),
    "slices, axial": lambda: segmenter(plane_axis=2),
    "slices, sagittal": lambda: segmenter(plane_axis=0, spacing_mm=(0.0, 1.1, 1.1)),
    "slices, of thick stacks": lambda: segmenter(
        plane_axis=2, orientation="slices_last", spacing_mm=(1.0, 1.0, 0.0), mirror=True
    ),
    "slices, each at once": lambda: segmenter(plane_axis=2, window="slice", spacing_mm=(0.8, 0.8, 0.0)),
    "mean": lambda: Mean([segmenter(), segmenter(Threshold(1.0))]),
    "vote": lambda: Vote([segmenter(), segmenter(Threshold(1.0)), segmenter(plane_axis=0)]),
    "vote of one in two": lambda: Vote([segmenter(), segmenter(plane_axis=2)], at_least=1),
    "tidied": lambda: Tidied(segmenter(), smallest_ml=0.02, closing_mm=1.5),
    "cascade": lambda: Cascade(
        segmenter(), segmenter(Threshold(1.0)), region=["left"], rest="left", labels=LABELS, margin_mm=1.5
    ),
    "cascade, cropped, of a vote": lambda: Cascade(
        Vote([segmenter(), segmenter(plane_axis=1), segmenter(Threshold(1.0))]),
        segmenter(spacing_mm=(1.3, 0.9, 2.0)),
        region=["left", "right"],
        rest=None,
        labels=LABELS,
        roi="crop",
    ),
    "largest component": lambda: LargestComponent(segmenter(), ("left", "right")),
    "largest component of a mean": lambda: LargestComponent(Mean([segmenter(), segmenter(plane_axis=1)]), ["left"]),
}


@pytest.fixture(params=SEGMENTERS)
def any_segmenter(request):
    return SEGMENTERS[request.param]()


@pytest.fixture(params=VOLUMES)
def any_volume(request):
    return VOLUMES[request.param]()


@given(levels=st.lists(st.integers(0, 2), min_size=24, max_size=24), classes=st.sampled_from([1, 2, 4]))
def test_the_most_probable_is_the_first_of_the_largest(levels, classes):
    probabilities = torch.tensor(levels, dtype=torch.float32).reshape(classes, -1, 2, 1)
    assert most_probable(probabilities).dtype == torch.uint8
    assert torch.equal(most_probable(probabilities).long(), probabilities.argmax(0))


def test_contract(any_segmenter, any_volume):
    """Probabilities on the volume's own grid that sum to one; the label map is the most probable class."""
    before = any_volume.as_tensor().clone()
    probabilities = any_segmenter.probabilities(any_volume)
    labels = any_segmenter(any_volume)

    assert torch.equal(any_volume.as_tensor(), before)
    assert probabilities.dtype == torch.float32
    assert probabilities.shape == (any_segmenter.labels.classes, *any_volume.shape[1:])
    assert torch.equal(probabilities.affine, any_volume.affine)
    torch.testing.assert_close(probabilities.as_tensor().sum(0), torch.ones(any_volume.shape[1:]), atol=1e-5, rtol=0)
    assert probabilities.min() >= 0
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.affine, any_volume.affine)
    assert torch.equal(labels.as_tensor()[0], probabilities.as_tensor().argmax(0).to(torch.uint8))
    assert torch.equal(any_segmenter(any_volume).as_tensor(), labels.as_tensor())


# ---------------------------------------------------------------- the way home


def expected(volume: MetaTensor) -> torch.Tensor:
    """What `Threshold` finds on the volume itself."""
    return (volume.as_tensor() > 1).to(torch.uint8) + (volume.as_tensor() > 2).to(torch.uint8)


@pytest.mark.parametrize("name", VOLUMES)
@pytest.mark.parametrize("options", [{}, {"plane_axis": 2}, {"plane_axis": 0, "orientation": "slices_last"}])
def test_nothing_is_blurred_where_spacing_stays(name, options):
    volume = VOLUMES[name]()
    labels = segmenter(Threshold(), **options)(volume)
    assert torch.equal(labels.as_tensor(), expected(volume))


@pytest.mark.parametrize("name", ["canonical", "permuted", "oblique"])
def test_what_was_cropped_is_background_and_the_rest_is_exact(name):
    volume = VOLUMES[name]()
    volume.as_tensor()[:, :3] = 0
    volume.as_tensor()[..., -2:] = 0
    probabilities = segmenter(Threshold(), crop="nonzero").probabilities(volume)
    assert (probabilities[0, :3] == 1).all()
    assert (probabilities[0, :, :, -2:] == 1).all()
    assert (probabilities[1:, :3] == 0).all()
    assert torch.equal(probabilities.as_tensor().argmax(0, keepdim=True).to(torch.uint8), expected(volume))


@pytest.mark.parametrize("name", ["canonical", "flipped", "permuted", "oblique"])
@pytest.mark.parametrize("spacing_mm", [(0.7, 0.9, 0.8), (1.5, 1.5, 1.5)])
def test_a_ball_keeps_its_volume_on_the_way_to_another_spacing_and_back(name, spacing_mm):
    affine = VOLUMES[name]().affine.numpy()
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    shape = np.ceil(36 / voxel_mm).astype(int)
    positions = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) - ((shape - 1) / 2)[:, None, None, None]
    distance_mm = np.sqrt(((positions * voxel_mm[:, None, None, None]) ** 2).sum(0))
    ball = torch.from_numpy(1.5 * np.clip(12.5 - distance_mm, 0, 1) + 0.25).float()  # the edge lies at 12 mm
    labels = segmenter(Threshold(4.0), spacing_mm=spacing_mm)(MetaTensor(ball[None], affine=torch.from_numpy(affine)))
    volume_mm3 = float((labels == 1).sum() * voxel_mm.prod())
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)
    truth = torch.from_numpy(distance_mm < 12)
    assert ((labels.as_tensor()[0] == 1) != truth).float().sum() < 0.06 * truth.sum()


@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    first=st.tuples(*[st.integers(0, 3)] * 3),
    size=st.tuples(*[st.integers(1, 4)] * 3),
)
@settings(max_examples=50, deadline=None)
def test_a_crop_in_any_orientation_comes_home_to_its_place(order, signs, first, size):
    """Voxels that hold their own number are cropped, permuted and flipped, and come back where they were."""
    native_affine = affine_of(OBLIQUE, (0.7, 1.1, 3.0))
    native = torch.arange(8 * 8 * 8.0).reshape(1, 8, 8, 8) / 512
    box = tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
    moved = native[(slice(None), *box)].permute(0, *(axis + 1 for axis in order))
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for new, old in enumerate(order):
        step[old, new] = signs[new]
        step[old, 3] = first[old] + (size[old] - 1 if signs[new] < 0 else 0)
    moved = moved.flip([axis + 1 for axis in range(3) if signs[axis] < 0])
    home = WayHome(native_affine @ step, moved.shape[1:], native_affine=native_affine, native_shape=(8, 8, 8))
    assert home.box == box
    probabilities = home.probabilities(torch.cat([1 - moved, moved]))
    kept = torch.zeros_like(native)
    kept[(slice(None), *box)] = native[(slice(None), *box)]
    assert torch.equal(probabilities[1:], kept)
    assert torch.equal(probabilities[0], torch.where(kept[0] > 0, 1 - kept[0], torch.ones(8, 8, 8)))


def test_grids_oblique_to_each_other_are_interpolated():
    """A network's grid along the patient's axes, a volume across them: the reference is one interpolation."""
    prepared, native = affine_of(np.eye(3), (1.5, 1.5, 1.5)), affine_of(OBLIQUE)
    share = torch.rand(1, 10, 10, 10, generator=torch.Generator().manual_seed(0))
    home = WayHome(prepared, (10, 10, 10), native_affine=native, native_shape=(12, 11, 10))
    probabilities = home.probabilities(torch.cat([1 - share, share]))
    source = MetaTensor(share, affine=torch.from_numpy(prepared))
    direct = resample_onto(source, affine=native, shape=(12, 11, 10)).as_tensor()
    torch.testing.assert_close(probabilities[1:], direct)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(12, 11, 10), atol=1e-5, rtol=0)


def test_the_orientation_in_the_file_does_not_matter():
    volume = VOLUMES["canonical"]()
    turned = nib.as_closest_canonical(nib.Nifti1Image(volume.numpy()[0], volume.affine.numpy()))
    axes = nib.orientations.axcodes2ornt(("P", "I", "L"))
    turned = turned.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(turned.affine), axes))
    other = MetaTensor(torch.from_numpy(turned.get_fdata(dtype=np.float32).copy())[None], affine=turned.affine)
    one, two = segmenter()(volume), segmenter()(other)
    back = resample_onto(two, affine=volume.affine, shape=volume.shape[1:], mode="nearest")
    assert torch.equal(back.as_tensor(), one.as_tensor())


# ---------------------------------------------------------------- networks


class Sides(nn.Module):
    """Label 1 in the first half of the first axis, label 2 in the second, whatever is shown."""

    def forward(self, image):
        side = torch.linspace(-1, 1, image.shape[2]).reshape(1, 1, -1, *[1] * (image.ndim - 3))
        side = side.expand(len(image), 1, *image.shape[2:])
        return 9 * torch.cat([torch.zeros_like(side), -side, side], 1)


@pytest.mark.parametrize("name", ["canonical", "permuted"])
def test_mirrored_copies_swap_labels_of_two_sides_along_left_and_right(name):
    """The first prepared axis runs from left to right in either file, so mirroring changes nothing."""
    volume = on_grid_of(VOLUMES[name](), torch.rand(1, 8, 8, 8))
    plain = segmenter(Sides()).probabilities(volume)
    paired = segmenter(Sides(), mirror=True, mirror_pairs=[("left", "right")]).probabilities(volume)
    unpaired = segmenter(Sides(), mirror=True).probabilities(volume)
    torch.testing.assert_close(paired.as_tensor(), plain.as_tensor())
    torch.testing.assert_close(unpaired.as_tensor(), torch.full_like(plain.as_tensor(), 1 / 3))


def test_slices_from_left_to_right_have_no_mirror_image():
    volume = VOLUMES["canonical"]()
    plain = segmenter(plane_axis=0).probabilities(volume)
    mirrored = segmenter(plane_axis=0, mirror=True).probabilities(volume)
    assert torch.equal(plain.as_tensor(), mirrored.as_tensor())


def test_mirroring_a_flipped_volume_flips_the_result():
    volume = VOLUMES["canonical"]()
    flipped = on_grid_of(volume, volume.as_tensor().flip(1))
    mirrored = segmenter(mirror=True)
    one, two = mirrored.probabilities(volume).as_tensor(), mirrored.probabilities(flipped).as_tensor()
    torch.testing.assert_close(two.flip(1), one, atol=1e-5, rtol=0)


def test_prepared_probabilities_are_those_before_the_way_home():
    volume = VOLUMES["canonical"]()
    threshold = segmenter()
    torch.testing.assert_close(
        threshold.prepared_probabilities(volume.as_tensor()), threshold.probabilities(volume).as_tensor()
    )


def test_a_network_in_training_stays_in_training_and_is_used_as_in_evaluation():
    net = nn.Sequential(nn.Dropout(0.9), random_network(), nn.BatchNorm3d(3))
    net[2].eval()
    trained = segmenter(net.train())
    net[2].eval()
    volume = VOLUMES["canonical"]()
    assert torch.equal(trained(volume).as_tensor(), trained(volume).as_tensor())
    assert (net.training, net[0].training, net[2].training) == (True, True, False)
    with evaluating(net):
        assert not any(module.training for module in net.modules())


def test_windows_that_show_air_are_not_asked():
    class Counting(Threshold):
        windows = 0

        def forward(self, image):
            self.windows += len(image)
            return super().forward(image)

    volume = on_grid_of(VOLUMES["canonical"](), torch.zeros(1, 64, 8, 8))
    volume.as_tensor()[:, 20] = 5.0
    network = Counting()
    labels = segmenter(network, overlap=0.0)(volume)
    assert network.windows == 1
    assert (labels[0, 20] == 2).all()
    assert labels.sum() == 2 * 64


def test_a_volume_with_other_channels_is_refused():
    volume = on_grid_of(VOLUMES["canonical"](), torch.zeros(2, 12, 10, 9))
    with pytest.raises(SegmenterError, match="has 2 channels, the network takes 1"):
        segmenter(Threshold())(volume)


def test_what_does_not_fit_in_memory_is_refused_before_it_starts(monkeypatch):
    monkeypatch.setattr(network_module, "free_ram_bytes", lambda: 10_000)
    with pytest.raises(SegmenterError, match=r"\(12, 10, 9\) voxels of 3 classes need .* GiB"):
        segmenter()(VOLUMES["canonical"]())


def test_windows_in_a_batch_are_as_many_as_fit_in_half_the_free_memory(monkeypatch):
    threshold = segmenter(Threshold())
    assert threshold.windows() == 8
    monkeypatch.setattr(network_module, "free_ram_bytes", lambda: 4 * threshold.window_bytes)
    assert threshold.windows() == 2
    monkeypatch.setattr(network_module, "free_ram_bytes", lambda: 0)
    assert threshold.windows() == 1
    assert segmenter(windows=5).windows() == 5


@pytest.mark.parametrize(
    ("patches", "plane_axis"),
    [({"dims": 3, "size": (8, 8)}, None), ({"dims": 2, "size": (8, 8)}, None), ({"dims": 3, "size": "auto"}, None)],
)
def test_a_window_that_does_not_fit_is_refused(patches, plane_axis):
    with pytest.raises(SegmenterError, match="patches"):
        NetworkSegmenter(
            Threshold(),
            labels=LABELS,
            preprocess=NATIVE,
            patches=PatchConfig(**patches),
            plane_axis=plane_axis,
            inference=InferenceConfig(),
        )


# ---------------------------------------------------------------- combinations


class Fixed(Segmenter):
    """Gives what it was given."""

    def __init__(self, probabilities: torch.Tensor, labels: LabelSet = LABELS) -> None:
        self.labels = labels
        self.given = probabilities

    def probabilities(self, volume):
        return on_grid_of(volume, self.given.clone())


def one_hot(indices: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return nn.functional.one_hot(indices.long(), classes).permute(3, 0, 1, 2).float()


def test_the_mean_is_the_mean():
    one, two = torch.rand(2, 3, 4, 4, 4).softmax(1)
    volume = volume_of(affine_of(np.eye(3)), (4, 4, 4))
    probabilities = Mean([Fixed(one), Fixed(two)]).probabilities(volume)
    torch.testing.assert_close(probabilities.as_tensor(), (one + two) / 2)


def test_a_mean_of_other_labels_is_refused():
    nothing = torch.zeros(3, 1, 1, 1)
    for other in (replace(LABELS, names=("left", "scar")), replace(LABELS, values=((1,), (7,)))):
        with pytest.raises(ValueError, match="the same labels"):
            Mean([Fixed(nothing), Fixed(nothing, other)])
    with pytest.raises(ValueError, match="no segmenter"):
        Mean([])


def label_maps(*maps: list[int]) -> list[Fixed]:
    return [Fixed(one_hot(torch.tensor(map).view(-1, 1, 1))) for map in maps]


@pytest.mark.parametrize(("at_least", "expected"), [(1, [1, 1, 1, 1, 2]), (2, [1, 1, 0, 0, 2]), (3, [1, 0, 0, 0, 0])])
def test_a_label_needs_enough_votes(at_least, expected):
    maps = label_maps([1, 1, 0, 1, 2], [1, 1, 0, 2, 2], [1, 0, 1, 0, 0])
    labels = Vote(maps, at_least)(volume_of(affine_of(np.eye(3)), (5, 1, 1)))
    assert labels.flatten().tolist() == expected


def test_a_vote_is_of_more_than_half_and_its_probabilities_are_shares():
    maps = label_maps([1, 1], [1, 2], [0, 0])
    vote = Vote(maps)
    assert vote.at_least == 2
    probabilities = vote.probabilities(volume_of(affine_of(np.eye(3)), (2, 1, 1))).as_tensor()[:, :, 0, 0]
    torch.testing.assert_close(probabilities, torch.tensor([[1 / 3, 1.0], [2 / 3, 0.0], [0.0, 0.0]]))


def test_a_vote_that_nobody_can_win_is_refused():
    with pytest.raises(ValueError, match="can't need 4 votes: give 1 to 3"):
        Vote(label_maps([1], [1], [1]), at_least=4)


def test_only_the_largest_piece_stays_and_the_rest_becomes_background():
    indices = torch.zeros(12, 6, 6)
    indices[0:3, 0:3, 0:3] = 1  # 27 voxels
    indices[6:8, 0:2, 0:2] = 1  # 8 voxels
    indices[9:11, 4:6, 4:6] = 2
    indices[9, 0, 0] = 2
    blurred = 0.9 * one_hot(indices) + 0.1 / 3
    volume = volume_of(affine_of(np.eye(3)), (12, 6, 6))
    cleaned = LargestComponent(Fixed(blurred), ["left"])
    probabilities = cleaned.probabilities(volume).as_tensor()
    expected_map = indices.clone()
    expected_map[6:8] = 0
    assert torch.equal(probabilities.argmax(0), expected_map.long())
    assert torch.equal(cleaned(volume).as_tensor()[0].long(), expected_map.long())
    torch.testing.assert_close(probabilities.sum(0), torch.ones(12, 6, 6))
    assert torch.equal(probabilities[2], blurred[2])
    assert (LargestComponent(Fixed(blurred), LABELS.names)(volume) == 2).sum() == 8


def test_the_largest_piece_of_a_region_keeps_its_labels_pieces_and_drops_what_lies_apart():
    """A wall with two scars of its own, and stray scar and stray wall elsewhere."""
    wall = LabelSet(("wall", "scar", "pool"), ((1,), (2,), (3,)), regions={"whole": ("wall", "scar")})
    indices = torch.zeros(14, 6, 6)
    indices[0:5, 0:3, 0:3] = 1
    indices[0, 0, 0] = indices[4, 2, 2] = 2
    expected_map = indices.clone()
    indices[12:, 5, 5] = 1
    indices[7, 5, 5] = expected_map[7, 5, 5] = 3
    indices[8, 0:3, 0:3] = 2  # more than the wall's own scar
    volume = volume_of(affine_of(np.eye(3)), (14, 6, 6))
    cleaned = LargestComponent(Fixed(one_hot(indices, 4), wall), ["whole"])
    assert torch.equal(cleaned(volume).as_tensor()[0].long(), expected_map.long())
    assert torch.equal(cleaned.probabilities(volume).as_tensor(), one_hot(expected_map, 4))


def test_of_all_labels_together_the_largest_piece_is_kept_before_those_of_each():
    """A small right ventricle beside its left one, and a stomach that passes for a larger right one elsewhere."""
    heart = LabelSet(("rv", "lv"), ((1,), (2,)))
    indices = torch.zeros(14, 6, 6)
    indices[0:2, 0:2, 0:2] = 1
    indices[2:6, 0:4, 0:4] = 2
    expected_map = indices.clone()
    indices[9:12, 3:6, 3:6] = 1
    volume = volume_of(affine_of(np.eye(3)), (14, 6, 6))
    assert indices.eq(1).sum() - expected_map.eq(1).sum() > expected_map.eq(1).sum()
    for names in (["all labels"], ["rv", "all labels"]):
        cleaned = LargestComponent(Fixed(one_hot(indices, 3), heart), names)
        assert torch.equal(cleaned(volume).as_tensor()[0].long(), expected_map.long())


def test_tidying_removes_small_pieces_and_closes_gaps_narrower_than_twice_the_radius():
    indices = torch.zeros(14, 6, 6)
    indices[1:4, 1:5, 1:5] = indices[5:8, 1:5, 1:5] = 1  # a gap of one voxel
    indices[11, 1:3, 1] = 1  # 2 voxels
    indices[12, 5, 5] = 2
    volume = volume_of(affine_of(np.eye(3)), (14, 6, 6))
    tidied = Tidied(Fixed(0.9 * one_hot(indices) + 0.1 / 3), smallest_ml=0.003, closing_mm=1.0)
    labels = tidied(volume).as_tensor()[0]
    assert (labels[1:8, 2:4, 2:4] == 1).all()
    assert not labels[8:].any()
    assert not labels[0].any()
    untouched = Tidied(Fixed(one_hot(indices)), smallest_ml=0.001)(volume).as_tensor()[0]
    assert torch.equal(untouched.long(), indices.long())


def test_small_pieces_are_removed_of_the_labels_that_are_named():
    indices = torch.zeros(14, 6, 6)
    indices[1:4, 1:5, 1:5] = 1
    indices[11, 1:3, 1] = 1  # 2 voxels
    indices[12, 5, 5] = 2
    inside = Fixed(one_hot(indices))
    names = inside.labels.names
    tidied = Tidied(inside, smallest_ml={names[0]: 0.003})(volume_of(affine_of(np.eye(3)), (14, 6, 6))).as_tensor()[0]
    assert [int((tidied == index).sum()) for index in (1, 2)] == [48, 1]
    with pytest.raises(ValueError, match="label 'nothing' is unknown"):
        Tidied(inside, smallest_ml={"nothing": 1.0})


def test_closing_knows_millimetres_and_leaves_other_labels_alone():
    indices = torch.zeros(9, 9, 9)
    indices[:, 2], indices[:, 6], indices[:, 4] = 1, 1, 2
    across = volume_of(affine_of(np.eye(3), (1.0, 2.0, 1.0)), (9, 9, 9))
    assert torch.equal(Tidied(Fixed(one_hot(indices)), closing_mm=3.9)(across)[0].long().as_tensor(), indices.long())
    closed = Tidied(Fixed(one_hot(indices)), closing_mm=4.0)(across)[0].as_tensor()
    assert closed[4, :, 4].tolist() == [0, 0, 1, 1, 2, 1, 1, 0, 0]


def test_negative_tidying_is_refused():
    with pytest.raises(ValueError, match="tidying by -1 ml and 0 mm"):
        Tidied(Fixed(torch.zeros(3, 1, 1, 1)), smallest_ml=-1)


def test_pieces_that_touch_at_a_corner_are_one():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert np.argwhere(loose_pieces(mask)).tolist() == [[3, 3, 3]]
    assert not loose_pieces(np.zeros((2, 2, 2), bool)).any()


def test_cleaning_an_unknown_label_is_refused():
    with pytest.raises(VolumeError, match="did you mean 'left'"):
        LargestComponent(Fixed(torch.zeros(3, 1, 1, 1)), ["lefd"])


# ---------------------------------------------------------------- real volumes


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("hippocampus", "imagesTr/*.nii.gz"),
        ("myops_lge", "*/*_LGE.nii.gz"),
        ("acdc", "*/*_frame01.nii.gz"),
        ("oasis_tissue", "*/*_T1.nii.gz"),
    ],
)
def test_real_volumes_come_back_on_their_own_grid(real_data, folder, pattern):
    path = sorted(real_data(folder).glob(pattern))[0]
    volume = read_volume(Source(path))
    network_segmenter = segmenter(
        Threshold(3.0),
        crop="body",
        spacing_mm=(2.0, 2.0, 0.0),
        orientation="slices_last",
        intensity="zscore",
        overlap=0.0,
    )
    labels, probabilities = network_segmenter(volume), network_segmenter.probabilities(volume)
    assert grid_difference((labels.shape, labels.affine), (volume.shape, volume.affine)) is None
    torch.testing.assert_close(probabilities.as_tensor().sum(0), torch.ones(volume.shape[1:]), atol=1e-5, rtol=0)
    values = volume.as_tensor()[0]
    bright = values[labels.as_tensor()[0] > 0].mean()
    assert bright > values.mean() + values.std()  # what is above 1 SD was found where it is
