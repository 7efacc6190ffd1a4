"""Function from label maps of all phases: a tube whose volumes are known, and curves that no heart has."""

import json

import numpy as np
import pytest
from beating_heart import AFFINE, BEAT_MM, POOL, RV, WALL, beating, tube_ml

from segmed.cardiac.cine_labels import CineValues, cine_values
from segmed.cardiac.end_phases import end_phases, implausible
from segmed.cardiac.function import CineOptions, cine_report
from segmed.cardiac.volume_interval import NO_INTERVAL, ejected_percent
from segmed.errors import CardiacError
from segmed.labels import LabelSet

MEANING = CineValues(pool=(POOL,), wall=(WALL,), rv=(RV,))
TIMES_MS = tuple(70.0 * phase for phase in range(len(BEAT_MM)))
ACDC = LabelSet(("rv", "myocardium", "lv_cavity"), ((1,), (2,), (3,)))


def measured(values=None, *, meaning=MEANING, times_ms=TIMES_MS, **options):
    values = beating() if values is None else values
    return cine_report(values, AFFINE, meaning, times_ms=times_ms, options=CineOptions(**options))


def test_volumes_of_a_tube_are_pi_r_squared_h():
    report = measured()
    assert (report.diastole, report.systole) == (0, 4)
    assert report.figures["edv"].value == pytest.approx(tube_ml(24), rel=0.01)
    assert report.figures["esv"].value == pytest.approx(tube_ml(16), rel=0.01)
    assert report.figures["sv"].value == pytest.approx(tube_ml(24) - tube_ml(16), rel=0.02)
    assert report.figures["ef"].value == pytest.approx(100 * (1 - (16 / 24) ** 2), abs=0.5)
    assert report.figures["mass"].value == pytest.approx(1.05 * 1000 * 48 / 1000, rel=0.02)
    assert report.lv[3] == pytest.approx(tube_ml(17.5), rel=0.01)


def test_output_is_stroke_volume_times_the_rate_of_the_times():
    report = measured()
    assert report.figures["heart_rate"].value == pytest.approx(60_000 / 840)
    output = report.figures["sv"].value * 60_000 / 840 / 1000
    assert report.figures["cardiac_output"].value == pytest.approx(output)
    assert "heart_rate" not in measured(times_ms=None).figures


def test_a_right_ventricle_has_figures_of_its_own_at_the_phases_of_the_left():
    figures = measured().figures
    assert figures["rv_ef"].value == pytest.approx(100 * (1 - figures["rv_esv"].value / figures["rv_edv"].value))
    assert not any(name.startswith("rv") for name in measured(meaning=CineValues((POOL,), (WALL,))).figures)


def test_mass_needs_a_wall_and_a_cavity_without_a_label_is_what_the_wall_encloses():
    assert measured(meaning=CineValues((POOL,))).unknown["mass"] == "the LV's wall is not labelled"
    enclosed = measured(meaning=CineValues(pool=(), wall=(WALL,)))
    assert enclosed.figures["ef"].value == pytest.approx(measured().figures["ef"].value)


def test_without_a_spacing_there_is_an_ejection_fraction_and_no_ml():
    report = measured(spacing_known=False)
    assert report.curve_unit == "% of EDV"
    assert report.lv[0] == pytest.approx(100)
    assert {name for name, one in report.figures.items() if one.value is not None} == {"ef", "rv_ef", "heart_rate"}
    assert report.figures["ef"].value == pytest.approx(measured().figures["ef"].value)


# ---------------------------------------------------------------- intervals


def test_an_interval_of_the_ejection_fraction_holds_with_those_of_both_volumes():
    asked = []

    def tenth(label, phase, ml, level):
        assert phase in (0, 4)
        asked.append((label, level))
        return 0.9 * ml, 1.1 * ml

    report = measured(meaning=cine_values(None, None, None, labels=ACDC), interval=tenth, level=0.9)
    edv, esv = report.figures["edv"], report.figures["esv"]
    assert edv.interval == pytest.approx((0.9 * edv.value, 1.1 * edv.value))
    assert report.figures["sv"].interval == pytest.approx(
        (0.9 * edv.value - 1.1 * esv.value, 1.1 * edv.value - 0.9 * esv.value)
    )
    ratio = esv.value / edv.value
    assert report.figures["ef"].interval == pytest.approx((100 * (1 - ratio * 11 / 9), 100 * (1 - ratio * 9 / 11)))
    assert report.figures["mass"].interval[0] == pytest.approx(0.9 * report.figures["mass"].value)
    assert {label for label, _ in asked} == {"rv", "myocardium", "lv_cavity"}
    assert sorted({level for _, level in asked}) == pytest.approx([0.9, 0.95])  # both volumes at once: Bonferroni


def test_a_run_that_is_not_calibrated_gives_no_interval_and_says_so():
    report = measured()
    assert report.intervals == NO_INTERVAL
    assert all(one.interval is None for one in report.figures.values())


def test_nothing_more_than_all_can_be_ejected():
    assert ejected_percent((100, 120), (-5, 10)) == (90, 100)


# ---------------------------------------------------------------- phases that are no phases of a heart


def curve(**changed):
    volumes = np.array([tube_ml(radius) for radius in BEAT_MM])
    for phase, ml in changed.items():
        volumes[int(phase[1:])] = ml
    return volumes


def test_a_phase_without_a_cavity_or_far_from_both_beside_it_is_neither_end():
    diastole, systole, left_out = end_phases(curve(p6=1.0, p9=np.nan))
    assert (diastole, systole) == (0, 4)
    assert left_out[9] == "has no LV cavity in its label map"
    assert "below both phases beside it" in left_out[6]


def test_the_last_phase_is_beside_the_first():
    assert end_phases(curve(p11=95.0))[:2] == (11, 4)


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        (np.full(12, 80.0), "the same volume in all 12 phases"),
        (np.where(np.arange(12) < 4, np.nan, 80.0), "4 of 12 phases have no LV cavity"),
        (np.array([80.0, np.nan]), "1 of 2 phases have no LV cavity"),
    ],
)
def test_a_curve_that_is_no_beat_is_refused(volumes, message):
    with pytest.raises(CardiacError, match=message):
        end_phases(volumes)


def test_implausible_ends_are_said():
    assert implausible(curve(), 0, 4) == ()
    assert "ejection fraction of 3.0 %" in implausible(np.array([100.0] * 11 + [97.0]), 0, 11)[0]
    assert any("92 % of the cycle" in line for line in implausible(curve(p11=40.0), 0, 11))
    assert "2 phases are few" in implausible(np.array([100.0, 50.0]), 0, 1)[0]


def test_one_phase_is_refused():
    with pytest.raises(CardiacError, match="1 phase shows no beat"):
        measured(beating((24.0,)), times_ms=None)


def test_phases_that_somebody_chose_are_taken_and_checked():
    report = measured(diastole=1, systole=3)
    assert (report.diastole, report.systole) == (1, 3)
    with pytest.raises(CardiacError, match="phases 1 to 12"):
        measured(systole=12)
    with pytest.raises(CardiacError, match="no larger in phase 5 than in phase 1"):
        measured(diastole=4, systole=0)


# ---------------------------------------------------------------- what the slices look like


def test_an_open_ring_is_named_by_its_slice_and_its_cavity_is_counted_where_it_is_labelled():
    values = beating()
    values[0, :, 45:, 6][values[0, :, 45:, 6] == WALL] = 0
    (note,) = [note for note in measured(values).notes if "ring" in note]
    assert note == "end-diastole: the ring of the wall is open in slice 7; its cavity is as labelled"
    unlabelled = measured(values, meaning=CineValues(pool=(), wall=(WALL,)))
    assert any("open in slice 7 in 1 of 12 phases (first 1)" in note for note in unlabelled.notes)
    assert unlabelled.lv[0] == pytest.approx(5 / 6 * tube_ml(24), rel=0.01)
    assert unlabelled.diastole == 11  # the first phase is too small for what it is


def test_a_stack_that_ends_in_the_cavity_or_holds_two_slices_is_doubted():
    values = beating()
    assert not measured(values).notes
    values[..., 7] = values[..., 6]
    assert any("cut the LV off" in note for note in measured(values).notes)
    values[..., 3:] = 0
    assert any("2 slices with LV cavity" in note for note in measured(values).notes)


def test_muscle_that_changes_its_mass_and_ventricles_that_eject_differently_are_doubted():
    values = beating()
    values[4, ..., 5:][values[4, ..., 5:] == WALL] = 0
    values[4][values[4] == RV] = 0
    values[4, 94:100, 40, 3] = RV
    notes = " ".join(measured(values).notes)
    assert "though muscle keeps its volume" in notes
    values[0][values[0] == RV] = 0
    values[0, 94:100, 38:44, 3] = RV
    assert "the LV ejects" in " ".join(measured(values).notes)


def test_values_are_those_of_usual_names_or_refused():
    named = cine_values(None, None, None, labels=ACDC)
    assert (named.pool, named.wall, named.rv) == ((3,), (2,), (1,))
    scar = LabelSet(("myocardium", "blood_pool", "rv", "scar"), ((1,), (2,), (3,), (4,)))
    both = cine_values(None, None, None, labels=scar)
    assert both.wall == (1, 4)
    assert both.label_of("wall") is None  # no one label has both values: no interval of its volume is known
    with pytest.raises(CardiacError, match="give --pool"):
        cine_values(None, None, "1")
    with pytest.raises(CardiacError, match="stands for pool and wall"):
        cine_values("2", "2", None)


def test_a_report_is_json_with_phases_from_one():
    content = json.loads(json.dumps(measured().to_dict()))
    assert (content["diastole"], content["systole"]) == (1, 5)
    assert content["figures"]["ef"]["unit"] == "%"
