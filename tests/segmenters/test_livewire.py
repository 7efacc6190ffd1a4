"""The live wire follows circles of known radius from a few points on them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_shapes import ball, distances_mm, radius_mm

from segmed.errors import SegmenterError
from segmed.segmenters.livewire import LiveWire, contour_mask, edge_cost, trace
from segmed.segmenters.region import Scene

RADIUS_MM = 20.0


def on_circle(shape, spacing_mm, count) -> np.ndarray:
    angles = np.arange(count) * 2 * np.pi / count
    places_mm = RADIUS_MM * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return places_mm / spacing_mm + (np.array(shape) - 1) / 2


@pytest.mark.parametrize(
    ("shape", "spacing_mm"), [((64, 64), (1.0, 1.0)), ((96, 96), (0.7, 0.7)), ((80, 40), (0.8, 1.6))], ids=str
)
@pytest.mark.parametrize("count", [3, 4, 8])
@pytest.mark.parametrize("noise", [0.0, 20.0])
def test_a_contour_through_points_on_a_disc_stays_on_its_edge(shape, spacing_mm, count, noise):
    scene = ball((*shape, 1), (*spacing_mm, 8.0), RADIUS_MM, noise=noise)
    contour = trace(scene.image[..., 0], on_circle(shape, spacing_mm, count), spacing_mm)
    distance = distances_mm((*shape, 1), (*spacing_mm, 8.0))[..., 0]
    assert np.abs(distance[tuple(contour.T)] - RADIUS_MM).max() <= np.hypot(*spacing_mm)
    mask = contour_mask(contour, shape)
    assert radius_mm(mask[..., None], spacing_mm) == pytest.approx(RADIUS_MM, abs=0.75 * max(spacing_mm))


def test_an_open_wire_goes_from_the_first_point_to_the_last_along_the_edge():
    scene = ball((64, 64, 1), (1.0, 1.0, 8.0), RADIUS_MM)
    first, last = on_circle((64, 64), (1.0, 1.0), 2)
    wire = trace(scene.image[..., 0], [first, last], (1.0, 1.0), closed=False)
    assert tuple(wire[0]) == tuple(np.rint(first))
    assert tuple(wire[-1]) == tuple(np.rint(last))
    assert len(wire) > 1.3 * (2 * RADIUS_MM)  # around the disc, not across it


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 23), st.integers(0, 19)), min_size=3, max_size=6, unique=True),
    st.integers(0, 2**16),
)
def test_a_contour_passes_every_point_in_steps_of_one_voxel(points, seed):
    image = np.random.default_rng(seed).normal(size=(24, 20))
    contour = trace(image, points, (1.0, 1.5))
    assert {tuple(point) for point in contour.tolist()} >= set(points)
    steps = np.abs(np.diff(contour, axis=0, append=contour[:1]))
    assert steps.max() <= 1
    mask = contour_mask(contour, image.shape)
    assert mask[tuple(contour.T)].all()


def test_edges_are_cheap_and_flat_parts_dear_on_any_scale():
    scene = ball((64, 64, 1), (1.0, 1.0, 8.0), RADIUS_MM)
    image = scene.image[..., 0]
    cost = edge_cost(image, (1.0, 1.0))
    distance = distances_mm((64, 64, 1), (1.0, 1.0, 8.0))[..., 0]
    assert cost[np.abs(distance - RADIUS_MM) < 0.5].mean() < 0.45
    assert cost[distance < 10] == pytest.approx(1.01)
    assert edge_cost(-7 * image + 3, (1.0, 1.0)) == pytest.approx(cost, abs=1e-5)


def test_a_square_contour_fills_to_a_square():
    corners = np.array([(2, 2), (2, 6), (6, 6), (6, 2)])
    mask = contour_mask(corners, (9, 9))
    expected = np.zeros((9, 9), bool)
    expected[2:7, 2:7] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_with_points_are_filled_and_the_others_empty(axis):
    disc = np.moveaxis(np.repeat(ball((64, 64, 1), (1.0, 1.0, 8.0), RADIUS_MM).image, 3, axis=2), 2, axis)
    spacing_mm = tuple(8.0 if other == axis else 1.0 for other in range(3))
    region = np.ones(disc.shape, bool)
    half = np.moveaxis(region, axis, 0)
    half[:, :32] = False
    method = LiveWire(points_voxels={1: on_circle((64, 64), (1.0, 1.0), 4)})
    probabilities = np.moveaxis(method.probability(Scene(disc, region, spacing_mm)), axis, 0)
    assert not probabilities[[0, 2]].any()
    assert not probabilities[1, :32].any()
    assert np.sqrt(2 * probabilities[1].sum() / np.pi) == pytest.approx(RADIUS_MM + 0.5, abs=0.25)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ({5: [(1, 1), (2, 2), (3, 1)]}, "there is no slice 5: they are 0 to 0"),
        ({0: [(1, 1), (2, 2)]}, "at least 3 places"),
        ({0: [(1, 1), (2, 64), (3, 1)]}, r"point \(2, 64\) is outside the slice of \(64, 64\)"),
        ({0: []}, "at least 3 places"),
    ],
    ids=["slice", "two points", "outside", "none"],
)
def test_points_that_make_no_contour_are_refused(points, said):
    scene = ball((64, 64, 1), (1.0, 1.0, 8.0), RADIUS_MM)
    with pytest.raises(SegmenterError, match=said):
        LiveWire(points_voxels=points).probability(scene)


def test_no_points_a_flat_slice_and_a_volume_are_refused():
    with pytest.raises(SegmenterError, match="no points"):
        LiveWire(points_voxels={})
    with pytest.raises(SegmenterError, match="one intensity"):
        edge_cost(np.ones((5, 5)), (1.0, 1.0))
    with pytest.raises(SegmenterError, match="is no slice"):
        edge_cost(np.ones((5, 5, 5)), (1.0, 1.0))
