"""One contract for every classical method of the config: inside a wall on grids of every kind, and without one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation
from small_wall import dice, wall

from segmed.builders.classical import REST, TISSUE, build_method
from segmed.config.methods import ClassicalMethod, FullWidthConfig, OtsuConfig, VoxelClassifierConfig
from segmed.errors import SegmenterError
from segmed.labels import LabelSet
from segmed.segmenters.cascade import Cascade
from segmed.segmenters.combine import Vote
from segmed.segmenters.region import Everywhere, Inside, Known, Scene, TissueMethod
from segmed.segmenters.segmenter import Segmenter

FOUND = LabelSet(("wall", "pool", "rv"), ((1,), (2,), (3,)))
RESULT = LabelSet(("myocardium", "scar", "pool"), ((1,), (2,), (3,)))
MADE = {VoxelClassifierConfig: {"voxels": 1200, "neighbours": 15, "trees": 20, "landmarks": 60}}  # to be fast


def every_method() -> dict[str, ClassicalMethod]:
    """Every section of the union, under each name that it has and with each model of intensities."""
    methods: dict[str, ClassicalMethod] = {}
    for section in get_args(get_args(ClassicalMethod)[0]):
        models = get_args(section.model_fields["model"].annotation) if "model" in section.model_fields else (None,)
        for name in get_args(section.model_fields["name"].annotation):
            for model in models:
                options = MADE.get(section, {}) | ({} if model is None else {"model": model})
                methods[name if model is None else f"{name}, {model}"] = section(name=name, **options)
    return methods


METHODS = every_method()


@cache
def method(name: str) -> TissueMethod:
    """Built, and trained on three made walls where it learns."""
    return build_method(METHODS[name], _walls() if METHODS[name].needs_training else None)


@cache
def _walls() -> list[Scene]:
    walls = [wall(seed=seed) for seed in (10, 11, 12)]
    return [
        Scene(s.image, s.region, s.spacing_mm, {**s.masks, TISSUE: scar, REST: s.region & ~scar}) for s, scar in walls
    ]


@dataclass(frozen=True)
class Stored:
    """A heart on a grid: image (1, X, Y, Z), label map of FOUND, scar (X, Y, Z)."""

    image: MetaTensor
    labels: MetaTensor
    scar: np.ndarray

    @property
    def region(self) -> Known:
        return Known(self.labels, FOUND)


def stored(scene: Scene, scar: np.ndarray, *, turn: Rotation | None = None, order=(0, 1, 2), flips=()) -> Stored:
    """A scene in a file whose axes point any way, stored in any order and direction."""
    affine = np.eye(4)
    affine[:3, :3] = (turn.as_matrix() if turn else np.eye(3)) * scene.spacing_mm
    affine[:3, 3] = 5.0, -20.0, 33.0
    labels = np.select([scene.region, scene.masks["pool"], scene.masks["rv"]], [1, 2, 3]).astype(np.uint8)
    image, labels, scar = (np.flip(data.transpose(order), flips) for data in (scene.image, labels, scar))
    affine = affine[:, [*order, 3]]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
        affine[:3, axis] *= -1
    given = [
        MetaTensor(torch.from_numpy(data.copy())[None], affine=torch.from_numpy(affine)) for data in (image, labels)
    ]
    return Stored(*given, scar)


OBLIQUE = Rotation.from_euler("xyz", (35, -20, 50), degrees=True)
HEARTS: dict[str, Callable[[], Stored]] = {
    "thin": lambda: stored(*wall(seed=3, spacing=(1.5, 1.5, 1.5))),
    "thick, oblique": lambda: stored(*wall(seed=4), turn=OBLIQUE),
    "thick, oblique, slices first and reversed": lambda: stored(
        *wall(seed=4), turn=OBLIQUE, order=(2, 0, 1), flips=(0, 2)
    ),
    "one oblique slice": lambda: stored(*wall(seed=5, shape=(44, 44, 1)), turn=OBLIQUE),
}


def inside(name: str, region: Segmenter) -> Inside:
    return Inside(method(name), region, within=("wall",), target="scar", rest="myocardium", labels=RESULT)


def check_contract(segmenter: Segmenter, volume: MetaTensor) -> np.ndarray:
    """What every segmenter promises; its probabilities (L + 1, X, Y, Z)."""
    before = volume.as_tensor().clone()
    probabilities = segmenter.probabilities(volume)
    assert torch.equal(volume.as_tensor(), before)
    assert probabilities.dtype == torch.float32
    assert probabilities.shape == (segmenter.labels.classes, *volume.shape[1:])
    assert torch.equal(probabilities.affine, volume.affine)
    torch.testing.assert_close(probabilities.as_tensor().sum(0), torch.ones(volume.shape[1:]), atol=1e-5, rtol=0)
    assert probabilities.min() >= 0
    return probabilities.numpy()


@pytest.mark.parametrize("heart", HEARTS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_scar_in_the_known_wall_on_the_volume_s_own_grid(name, heart):
    heart_image = HEARTS[heart]()
    probabilities = check_contract(inside(name, heart_image.region), heart_image.image)
    labels = heart_image.labels.numpy()[0]
    assert not probabilities[1:3, labels != 1].any()  # neither muscle nor scar outside the wall
    assert not probabilities[0, labels == 1].any()
    assert (
        probabilities[3] == (labels == 2)
    ).all()  # the pool stays, the RV, which the result does not name, is background
    assert dice(probabilities[2] > 0.5, heart_image.scar) > 0.8


def test_a_file_s_orientation_changes_nothing_that_a_method_says():
    one, other = HEARTS["thick, oblique"](), HEARTS["thick, oblique, slices first and reversed"]()
    for name in ("otsu", "strm", "fwhm", "graph_cut, mixture", "random_forest"):
        a, b = (inside(name, stored.region).probabilities(stored.image).numpy() for stored in (one, other))
        back = np.flip(b, (1, 3)).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(back, a, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_no_method_finds_anything_where_there_is_no_wall(name):
    thin_slice = HEARTS["one oblique slice"]()
    nothing = Known(MetaTensor(torch.zeros_like(thin_slice.labels.as_tensor()), affine=thin_slice.labels.affine), FOUND)
    probabilities = check_contract(inside(name, nothing), thin_slice.image)
    assert (probabilities[0] == 1).all()


# ---------------------------------------------------------------- without a wall


def needs_wall(config: ClassicalMethod) -> bool:
    """Whether it learned from walls, or looks for remote myocardium, a sector of a ring."""
    return config.needs_training or "remote" in type(config).model_fields


ANYWHERE = [name for name, config in METHODS.items() if not needs_wall(config)]
NOTHING_ELSE = LabelSet(("bright",), ((1,),))


def ball(shape: tuple[int, int, int]) -> tuple[MetaTensor, np.ndarray]:
    """A bright ball, or a disk, in noise on an oblique grid of thick slices."""
    spacing_mm = (1.0, 1.0, 1.0 if shape[2] == 1 else 2.0)
    away = (np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2) * np.reshape(spacing_mm, (3, 1, 1, 1))
    bright = np.linalg.norm(away, axis=0) < 6.5
    image = 100 + 200 * bright + np.random.default_rng(0).normal(0, 20, shape)
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE.as_matrix() * spacing_mm
    return MetaTensor(torch.from_numpy(image.astype(np.float32))[None], affine=torch.from_numpy(affine)), bright


def everywhere(method: TissueMethod) -> Inside:
    return Inside(method, Everywhere(), within=("volume",), target="bright", rest=None, labels=NOTHING_ELSE)


@pytest.mark.parametrize("shape", [(24, 22, 10), (24, 22, 1)], ids=["3D", "2D"])
@pytest.mark.parametrize("name", ANYWHERE)
def test_methods_that_need_no_wall_find_what_is_bright_in_a_whole_volume(name, shape):
    volume, bright = ball(shape)
    assert dice(check_contract(everywhere(method(name)), volume)[1] > 0.5, bright) > 0.85


@pytest.mark.parametrize("shape", [(24, 22, 10), (24, 22, 1)], ids=["3D", "2D"])
def test_half_of_the_maximum_of_the_whole_volume_needs_no_wall_either(shape):
    volume, bright = ball(shape)
    method = build_method(FullWidthConfig(reference="maximum", baseline="minimum", percentile=99.0))
    assert dice(check_contract(everywhere(method), volume)[1] > 0.5, bright) > 0.95


# ---------------------------------------------------------------- nested


def test_methods_nest_in_votes_and_cascades():
    phantom = HEARTS["thick, oblique"]()
    vote = Vote([inside(name, phantom.region) for name in ("otsu", "kmeans", "strm")])
    assert dice(check_contract(vote, phantom.image)[2] > 0.5, phantom.scar) > 0.8
    fine = Inside(
        build_method(OtsuConfig()), phantom.region, within=("wall",), target="scar", rest=None,
        labels=LabelSet(("scar",), ((2,),)),
    )  # fmt: skip
    cascade = Cascade(phantom.region, fine, region=["wall"], rest="myocardium", labels=RESULT)
    assert dice(check_contract(cascade, phantom.image)[2] > 0.5, phantom.scar) > 0.8


def test_a_method_on_another_grid_than_its_wall_is_refused():
    thin, thick = HEARTS["thin"](), HEARTS["thick, oblique"]()
    with pytest.raises(SegmenterError, match="resample one onto the other's grid"):
        inside("otsu", thin.region).probabilities(thick.image)
