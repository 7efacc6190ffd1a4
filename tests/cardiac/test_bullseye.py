"""Facts about the bullseye: what lies where, in which colour, and what is hatched."""

import numpy as np
import pytest
from heart_phantom import Sector, make
from matplotlib import pyplot
from matplotlib.colors import to_hex

from segmed.cardiac.bullseye import NOTHING, bullseye, scar_bullseyes
from segmed.cardiac.scar import scar_report
from segmed.errors import CardiacError


def patches(axes) -> dict[int, object]:
    return {int(patch.get_gid().split()[1]): patch for patch in axes.patches}


def texts(axes) -> dict[int, object]:
    return {int(text.get_gid().split()[1]): text for text in axes.texts if text.get_gid()}


def test_every_segment_has_its_place():
    """Front above, septum on the left, base outside: Cerqueira et al. 2002, figure 4."""
    places = {number: text.get_position() for number, text in texts(bullseye({}).axes[0]).items()}
    assert set(places) == set(range(1, 18))
    angles = {number: np.degrees(np.arctan2(y, x)) % 360 for number, (x, y) in places.items()}
    expected = {1: 90, 2: 150, 3: 210, 4: 270, 5: 330, 6: 30, 13: 90, 14: 180, 15: 270, 16: 0}
    for number, angle in expected.items():
        assert np.cos(np.radians(angles[number] - angle)) == pytest.approx(1)
    radii = {number: np.hypot(*place) for number, place in places.items()}
    assert radii[1] > radii[7] > radii[13] > radii[17] == 0


def test_segments_without_a_value_are_hatched_in_grey():
    axes = bullseye({1: 30.0, 2: None, 3: float("nan")}).axes[0]
    drawn = patches(axes)
    assert drawn[1].get_hatch() is None
    for number in (2, 3, 17):
        assert drawn[number].get_hatch()
        assert to_hex(drawn[number].get_facecolor()) == NOTHING
    assert [texts(axes)[number].get_text() for number in (1, 2, 3)] == ["30", "–", "–"]


def test_a_colour_is_that_of_the_scale_and_values_beyond_take_its_ends():
    drawn = patches(bullseye({1: 0.0, 2: 50.0, 3: 100.0, 4: 500.0}, limits=(0, 100), colours="viridis").axes[0])
    map_ = pyplot.get_cmap("viridis")
    for number, share in ((1, 0.0), (2, 0.5), (3, 1.0), (4, 1.0)):
        np.testing.assert_allclose(drawn[number].get_facecolor(), map_(share), atol=0.01)


def test_extent_and_transmurality_of_a_report_stand_beside_each_other():
    phantom = make((1.6, 1.6, 8.0), sectors=(Sector((215, 265), (0.36, 0.5), (0.0, 0.5)),))
    report = scar_report(phantom.heart, phantom.scar)
    before = pyplot.get_fignums()
    figure = scar_bullseyes(report, title="case")
    assert pyplot.get_fignums() == before
    left, right = (texts(axes) for axes in figure.axes[:2])
    eleven = report.segments[10]
    assert left[11].get_text() == f"{eleven.scar_percent:.0f}"
    assert right[11].get_text() == f"{eleven.transmurality_mean_percent:.0f}"
    assert right[17].get_text() == "–"
    assert left[8].get_text() == "0"


@pytest.mark.parametrize(
    ("values", "limits", "message"),
    [({18: 1.0}, (0, 1), "segment 18 is unknown"), ({1: 1.0}, (1, 1), "no range")],
)
def test_what_can_not_be_drawn_is_refused(values, limits, message):
    with pytest.raises(CardiacError, match=message):
        bullseye(values, limits=limits)


def test_no_bullseye_without_segments():
    phantom = make((1.6, 1.6, 10.0))
    report = scar_report(phantom.heart, phantom.scar, position=None)
    bare = type(report)(**{**vars(report), "segments": None, "unknown": {"segments": "the RV is not labelled"}})
    with pytest.raises(CardiacError, match="the RV is not labelled"):
        scar_bullseyes(bare)
