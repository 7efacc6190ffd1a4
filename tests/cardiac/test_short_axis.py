"""Facts about the short-axis view, the septum and the 17 segments, on ventricles whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from heart_phantom import ANTERIOR, APEX, EPI_MM, USUAL, Phantom, Sector, make, oblique, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from segmed.cardiac.aha import NAMES, segment_map
from segmed.cardiac.heart import HeartLabels, HeartPosition, point_mm
from segmed.cardiac.septum import find_septum
from segmed.cardiac.short_axis import short_axis_view
from segmed.errors import CardiacError

THICK = (1.6, 1.6, 8.0)
SEPTAL = USUAL[:, 1]
MIDDLES_DEG = {1: 0, 2: 60, 3: 120, 4: 180, 5: 240, 6: 300, 13: 0, 14: 90, 15: 180, 16: 270}


@pytest.fixture(scope="module")
def thick() -> Phantom:
    return make(THICK)


@pytest.fixture(scope="module")
def fine() -> Phantom:
    return make((2.0, 2.0, 2.0), turn=oblique(4))


def segments_of(phantom: Phantom, position: HeartPosition | None = None, **how) -> np.ndarray:
    view = short_axis_view(phantom.heart, position)
    return segment_map(phantom.heart, view, find_septum(view, position), **how)


def without(phantom: Phantom, *names: str) -> HeartLabels:
    return replace(phantom.heart, **dict.fromkeys(names))


def insertion_mm(height_mm: float, angle_deg: float) -> np.ndarray:
    """Where the RV meets the ventricle of `make`, RAS mm; its grid has the heart's axes in the middle."""
    angle = np.radians(angle_deg)
    return np.array([np.cos(angle), np.sin(angle), 0]) * 28.0 + (0, 0, height_mm)


def to_world(phantom: Phantom, at: np.ndarray) -> tuple[float, float, float]:
    spacing = np.array(phantom.heart.spacing_mm)
    half = np.array([46.0, 46.0, 45.0])
    return point_mm(phantom.heart.affine, (at - (0, 8, 39) + half) / spacing - 0.5)


# ---------------------------------------------------------------- the view


def test_the_long_axis_of_a_fine_volume_is_found_in_any_direction(fine):
    view = short_axis_view(fine.heart)
    assert view.interpolated
    assert np.degrees(np.arccos(view.long_axis @ APEX)) < 2


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_grid_of_a_fine_volume_makes_no_difference(seed):
    phantom = make((2.5, 2.5, 2.5), turn=oblique(seed), sectors=(Sector((35, 85), (0.36, 0.56)),))
    view = short_axis_view(phantom.heart)
    assert view.apex_from == "shape"
    assert np.degrees(np.arccos(view.long_axis @ APEX)) < 3
    assert (segments_of(phantom)[phantom.scar] == 8).mean() > 0.95


@pytest.mark.parametrize("thickness_mm", [8.0, 10.0, 12.0])
def test_a_thick_stack_keeps_its_slices_from_base_to_apex(thickness_mm):
    phantom = stored(make((1.6, 1.6, thickness_mm)), (0, 1, 2), (2,))
    view = short_axis_view(phantom.heart)
    assert not view.interpolated
    indices = [one.stored_index for one in view.slices]
    assert indices == sorted(indices, reverse=True)
    with_wall = np.flatnonzero(phantom.heart.wall.any(axis=(0, 1)))
    assert sorted(indices) == list(with_wall)
    np.testing.assert_allclose(view.long_axis, APEX, atol=1e-6)


def test_the_levels_are_thirds_of_the_cavity_and_the_cap_lies_beyond(fine):
    view = short_axis_view(fine.heart)
    heights = {level: [one.position_mm for one in view.slices if one.level == level] for level in ("basal", "apex")}
    assert max(heights["basal"]) == pytest.approx(70 / 3, abs=3)
    assert min(heights["apex"]) == pytest.approx(70, abs=3)
    assert all(one.kind == "cap" for one in view.slices if one.level == "apex")


def test_an_outflow_tract_makes_partial_slices_that_are_told_and_counted_as_basal():
    phantom = make(THICK, base_gap_deg=110)
    view = short_axis_view(phantom.heart)
    assert [one.kind for one in view.slices][:2] == ["partial", "ring"]
    assert view.slices[0].level == "basal"
    assert any("no full ring" in note for note in view.notes)
    numbers = segments_of(phantom)
    assert (numbers[phantom.heart.wall] > 0).all()


def test_a_cavity_that_is_not_labelled_is_what_the_wall_encloses(thick):
    with_pool, alone = (segments_of(Phantom(heart, thick.scar)) for heart in (thick.heart, without(thick, "pool")))
    assert (with_pool == alone)[thick.heart.wall].mean() > 0.99


def test_a_tube_without_orientation_has_no_apex_that_can_be_known():
    tube = make(THICK, taper=False)
    position = HeartPosition(oriented=False)
    view = short_axis_view(tube.heart, position)
    assert view.apex_from is None
    assert any("base and apex can't be told apart" in note for note in view.notes)
    assert all(one.level is None for one in view.slices if one.kind != "cap")


def test_a_point_near_the_apex_tells_it():
    tube = make(THICK, taper=False)
    far = point_mm(tube.heart.affine, (30, 30, 10))
    assert short_axis_view(tube.heart, HeartPosition(apex_mm=far)).long_axis @ APEX > 0.99
    near = point_mm(tube.heart.affine, (30, 30, 1))
    assert short_axis_view(tube.heart, HeartPosition(apex_mm=near)).long_axis @ APEX < -0.99


def test_the_affine_tells_the_apex_of_a_tube_and_the_notes_say_so():
    view = short_axis_view(make(THICK, taper=False).heart)
    assert view.apex_from == "body"
    assert view.long_axis @ APEX > 0.99
    assert any("by the affine alone" in note for note in view.notes)


# ---------------------------------------------------------------- the segments


@pytest.mark.parametrize("grid", ["thick", "fine"])
def test_a_direction_in_the_ring_is_its_segment(grid, request):
    phantom = request.getfixturevalue(grid)
    numbers = segments_of(phantom)
    affine = np.asarray(phantom.heart.affine)
    centre = np.argwhere(phantom.heart.pool).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    for number, middle_deg in MIDDLES_DEG.items():
        chosen = numbers == number if number > 12 else np.isin(numbers, (number, number + 6))
        middle = np.argwhere(chosen).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
        a, s, _ = (middle - centre) @ USUAL
        assert abs(np.mod(np.degrees(np.arctan2(s, a)) - middle_deg + 180, 360) - 180) < 4, number


def test_the_segments_of_a_level_are_equal_in_a_round_ventricle(fine):
    counts = np.bincount(segments_of(fine)[fine.heart.wall], minlength=18)
    assert counts[0] == 0
    for level in (slice(1, 7), slice(7, 13), slice(13, 17)):
        assert np.ptp(counts[level]) < 0.08 * counts[level].mean()


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), (0,)), ((2, 0, 1), (0, 2)), ((1, 2, 0), (1,))])
def test_how_the_axes_are_stored_makes_no_difference(thick, order, flips):
    other = stored(thick, order, flips)
    expected = np.flip(segments_of(thick).transpose(order), flips)
    assert (segments_of(other) == expected)[other.heart.wall].mean() > 0.995


def test_sixteen_segments_share_the_cap_of_the_apex_out(fine):
    of_17, of_16 = segments_of(fine), segments_of(fine, model=16)
    assert set(np.unique(of_16)) == set(range(17))
    assert set(np.unique(of_16[of_17 == 17])) == {13, 14, 15, 16}
    assert (of_16 == of_17)[of_17 != 17].all()
    assert list(NAMES) == list(range(1, 18))


def test_the_septum_is_found_where_the_rv_lies(thick):
    view = short_axis_view(thick.heart)
    septum = find_septum(view)
    assert septum.source == "rv"
    for angle_rad, angle_deg in ((septum.anterior_rad, 30), (septum.inferior_rad, 150)):
        direction = view.cut.axes @ (np.cos(angle_rad), np.sin(angle_rad), 0) @ USUAL
        assert np.degrees(np.arctan2(direction[1], direction[0])) == pytest.approx(angle_deg, abs=5)


def test_given_points_do_what_the_rv_does(thick):
    points = [to_world(thick, insertion_mm(30.0, angle)) for angle in (30, 150)]
    known = HeartPosition(anterior_mm=points[0], inferior_mm=points[1])
    bare = Phantom(without(thick, "rv"), thick.scar)
    by_rv = segments_of(thick)
    assert (segments_of(bare, known) == by_rv)[thick.heart.wall].mean() > 0.97
    assert (segments_of(bare, HeartPosition(anterior_mm=points[0])) == by_rv)[thick.heart.wall].mean() > 0.97
    unoriented = replace(known, oriented=False)
    assert (segments_of(bare, unoriented) == by_rv)[thick.heart.wall].mean() > 0.97


def test_segments_that_begin_at_the_anterior_insertion_are_those_of_a_septum_of_120_degrees(thick):
    by_middle, by_insertion = segments_of(thick), segments_of(thick, anchor="anterior")
    assert (by_middle == by_insertion)[thick.heart.wall].mean() > 0.95


# ---------------------------------------------------------------- what can't be known is said


def test_without_rv_and_points_the_septum_is_not_guessed(thick):
    bare = Phantom(without(thick, "rv"), thick.scar)
    with pytest.raises(CardiacError, match=r"RV is not labelled.*anterior_mm"):
        segments_of(bare)


def test_a_mirrored_heart_is_noticed(thick):
    mirrored = np.array(thick.heart.affine)
    mirrored[:3, :3] = (np.eye(3) - 2 * np.outer(SEPTAL, SEPTAL)) @ mirrored[:3, :3]
    with pytest.raises(CardiacError, match="mirrored"):
        segments_of(Phantom(replace(thick.heart, affine=mirrored), thick.scar))


def test_an_apex_that_points_up_and_back_is_noticed(thick):
    turned = np.array(thick.heart.affine)
    turned[:3, :3] = Rotation.from_rotvec(np.pi * ANTERIOR).as_matrix() @ turned[:3, :3]
    with pytest.raises(CardiacError, match="apex points up, back"):
        segments_of(Phantom(replace(thick.heart, affine=turned), thick.scar))


def test_an_orientation_that_was_lost_is_noticed(thick):
    lost = np.diag([*THICK, 1.0])
    with pytest.raises(CardiacError, match=r"scanner's axes.*give the RV insertion points"):
        segments_of(Phantom(replace(thick.heart, affine=lost), thick.scar))


def test_a_point_alone_needs_the_orientation(thick):
    known = HeartPosition(anterior_mm=to_world(thick, insertion_mm(30.0, 30)), oriented=False)
    with pytest.raises(CardiacError, match="give inferior_mm too"):
        segments_of(thick, known)


def test_a_stack_along_the_long_axis_is_refused():
    along = make(THICK, turn=Rotation.from_euler("x", 90, degrees=True))
    with pytest.raises(CardiacError, match="no short axis: the wall goes all around in 0 of"):
        short_axis_view(along.heart)


def only_slices(phantom, numbers):
    kept = np.isin(np.arange(phantom.heart.wall.shape[2]), numbers)
    masks = [mask[..., kept] for mask in (phantom.heart.wall, phantom.heart.pool, phantom.heart.rv)]
    affine = phantom.heart.affine.copy()
    affine[:3, 3] += affine[:3, 2] * min(numbers)
    return Phantom(HeartLabels(masks[0], affine, masks[1], masks[2]), masks[0])


@pytest.mark.parametrize("count", [2, 3])
def test_a_stack_has_levels_only_where_it_has_a_slice_for_each(count):
    """Two slices have no mid level, and which two of the three they are can't be known."""
    first = int(0.3 * EPI_MM[1] / 8)
    few = only_slices(make(THICK), range(first, first + count))
    position = HeartPosition(apex_mm=to_world(make(THICK), np.array([0.0, 0.0, 1.1 * EPI_MM[1]])))
    view = short_axis_view(few.heart, position)
    if count == 3:
        assert [one.level for one in view.slices] == ["basal", "mid", "apical"]
        return
    assert [one.level for one in view.slices] == [None, None]
    assert any("can't be known: fewer than three slices" in note for note in view.notes)
    with pytest.raises(CardiacError, match="can't be known: fewer than three slices"):
        segments_of(few, position)


def test_one_slice_has_segments_only_when_its_level_is_given():
    number = int(0.45 * EPI_MM[1] / 8)
    phantom = make(THICK)
    only = np.zeros(phantom.heart.wall.shape[2], bool)
    only[number] = True
    masks = [mask & only for mask in (phantom.heart.wall, phantom.heart.pool, phantom.heart.rv)]
    alone = Phantom(HeartLabels(masks[0], phantom.heart.affine, masks[1], masks[2]), masks[0])
    with pytest.raises(CardiacError, match="one slice can't be known: give its level"):
        segments_of(alone)
    with_level = segments_of(alone, HeartPosition(level="mid"))
    assert set(np.unique(with_level)) == {0, *range(7, 13)}
    assert (with_level == segments_of(phantom))[masks[0]].mean() > 0.97


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wall": np.zeros((4, 4, 4), bool)}, "no LV myocardium"),
        ({"wall": np.ones((4, 4, 4), np.uint8)}, "type uint8"),
        ({"wall": np.ones((4, 4), bool)}, "three dimensions"),
        ({"pool": np.ones((4, 4, 5), bool)}, r"LV pool has shape \(4, 4, 5\)"),
    ],
)
def test_labels_that_are_none_are_refused_in_one_line(change, message):
    masks = {"wall": np.ones((4, 4, 4), bool), "affine": np.eye(4)} | change
    with pytest.raises(CardiacError, match=message) as error:
        HeartLabels(**masks)
    assert "\n" not in str(error.value)


def test_a_wall_without_a_cavity_is_refused():
    solid = HeartLabels(np.ones((20, 20, 5), bool), np.diag([1.5, 1.5, 8.0, 1.0]))
    with pytest.raises(CardiacError, match="encloses no cavity"):
        short_axis_view(solid)
