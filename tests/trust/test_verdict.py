"""What a prediction shows of a case, and what evidence makes of it: intervals, expected Dice, a flag."""

import json

import numpy as np
import pytest
from made_evidence import AXES, VOXEL_ML, distance, made_case, made_evidence, signs_of
from scipy import stats

from segmed.errors import MetricError, RunError
from segmed.metrics.mask_metrics import overlaps
from segmed.trust.evidence import FILE, Evidence, read_evidence, save_evidence
from segmed.trust.verdict import Judge

SCAN = {"median 0": 0.1}


def judge_of(case, judge: Judge):
    signs = signs_of(case)
    volumes = {name: each["volume"] for name, each in signs.items()}
    return judge.judge(SCAN, [signs] * len(judge.evidence.weights), volumes)


@pytest.fixture(scope="module")
def judge():
    return Judge(made_evidence(80))


# ---------------------------------------------------------------- signs


def test_signs_of_two_balls_are_those_that_can_be_counted():
    large, small = distance((8, 12, 12)) < 5, distance((19, 12, 12)) < 2
    mask = large | small
    probability = np.where(mask, 0.8, 0.0).astype(np.float32)
    image = 100.0 + 50.0 * mask[None]
    probabilities = np.stack([1 - probability, probability])
    signs = structure_signs_of(probabilities, mask, image)
    count = mask.sum()
    assert signs["volume"] == pytest.approx(count * VOXEL_ML)
    assert signs["soft_volume"] == pytest.approx(0.8 * count * VOXEL_ML, rel=1e-5)
    assert signs["overlap"] == pytest.approx(2 * 0.8 * count / (count + 0.8 * count), rel=1e-5)
    assert signs["pieces"] == pytest.approx(small.sum() / count)
    assert signs["contrast 0"] == pytest.approx(1.0)  # of the scan's range, from 100 to 150
    assert signs["brightness 0"] == pytest.approx(1.0)


def structure_signs_of(probabilities, mask, image):
    return signs_of((image, probabilities, mask.astype(np.uint8), None))["ball"]


def test_a_label_that_nothing_has_expects_to_be_absent():
    nothing = np.stack([np.ones(AXES.shape[1:]), np.zeros(AXES.shape[1:])]).astype(np.float32)
    signs = structure_signs_of(nothing, nothing[1] > 0, np.zeros((1, *AXES.shape[1:])))
    assert signs["overlap"] == 1.0
    assert (signs["volume"], signs["pieces"], signs["contrast 0"]) == (0.0, 0.0, 0.0)
    assert np.isfinite(list(signs.values())).all()


# ---------------------------------------------------------------- verdicts


def test_intervals_and_lower_bounds_hold_as_often_as_they_say(judge):
    rng, inside, above = np.random.default_rng(7), 0, 0
    new = [made_case(rng) for _ in range(120)]
    for case in new:
        ball = judge_of(case, judge).structures["ball"]
        truth = case[3]
        inside += ball.interval.low <= truth.sum() * VOXEL_ML <= ball.interval.high
        above += overlaps(case[2] == 1, truth)["dice"] >= ball.dice.lower
    for hits in (inside, above):
        assert stats.binomtest(hits, len(new), judge.level).pvalue > 0.01, hits


def test_a_case_like_the_others_is_good_and_says_why(judge):
    trust = judge_of(made_case(np.random.default_rng(3), error=0.1), judge)
    assert trust.flag == "good"
    assert trust.reason.startswith("every Dice is above 0.7 with 90 %")
    assert trust.structures["ball"].dice.mean > 0.9


def test_an_unsure_label_map_is_not_to_be_used(judge):
    rng = np.random.default_rng(5)
    trust = judge_of(made_case(rng, error=4.0), judge)
    assert trust.flag == "do not use"
    assert trust.risk > judge_of(made_case(rng, error=0.1), judge).risk


def test_a_scan_of_another_contrast_is_named(judge):
    """The network is sure of a ball that is darker than its surroundings: only its appearance gives it away."""
    trust = judge_of(made_case(np.random.default_rng(3), error=0.1, contrast=-1.0), judge)
    assert trust.flag != "good"
    assert "unlike all calibration cases: ball: its " in trust.reason
    assert "of the 80 calibration cases" in trust.reason


def test_folds_give_each_calibration_case_its_own_network():
    """With two members a case is judged by both, and agrees with the verdict of one where both say the same."""
    evidence = made_evidence(40, members=2)
    one = Evidence.model_validate(
        evidence.model_dump()
        | {"weights": ["0"], "cases": [case.model_dump() | {"member": 0} for case in evidence.cases]}
    )
    case = made_case(np.random.default_rng(9))
    assert judge_of(case, Judge(evidence)) == judge_of(case, Judge(one))


def test_three_cases_bear_no_interval():
    with pytest.raises(MetricError, match=r"^3 subjects bear a level of 75 % at most, 90 % needs 9"):
        Judge(made_evidence(3))


# ---------------------------------------------------------------- the file


def test_evidence_comes_back_as_it_was_written(tmp_path):
    evidence = made_evidence(5)
    save_evidence(evidence, tmp_path)
    assert read_evidence(tmp_path) == evidence
    assert read_evidence(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "is damaged: calibrate anew"),
        (lambda text: "[]", "is damaged: calibrate anew"),
        (lambda text: json.dumps(json.loads(text) | {"version": 99}), "is of version 99, this segmed reads 1: "),
        (lambda text: json.dumps(json.loads(text) | {"cases": [{}]}), r"is damaged at cases\.0\.subject: "),
        (lambda text: json.dumps(json.loads(text) | {"cases": []}), "is damaged at cases: "),
    ],
)
def test_a_file_that_is_damaged_or_of_another_version_is_one_line(tmp_path, damage, message):
    path = save_evidence(made_evidence(5), tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunError, match=message) as error:
        read_evidence(tmp_path)
    assert str(error.value).startswith(str(tmp_path / FILE))
    assert "\n" not in str(error.value)
