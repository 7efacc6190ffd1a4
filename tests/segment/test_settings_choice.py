"""Settings of prediction are chosen where they gain by more than chance, and only there."""

import numpy as np
import pytest

from segmed.config import EvaluateConfig
from segmed.labels import LabelSet
from segmed.segment.settings_choice import AS_TRAINED, PackedLabels, Pieces, SettingsChoice, Trial

LABELS = LabelSet.from_config({"wall": 1, "scar": 2}, regions={"heart": ["wall", "scar"]})
SPACING_MM = (1.0, 2.0, 5.0)  # a voxel has 0.01 ml


def truth() -> np.ndarray:
    indices = np.zeros((20, 16, 6), np.uint8)
    indices[3:11, 3:9, 1:4] = 1
    indices[11:13, 3:9, 1:4] = 2
    return indices


def trial(number: int, **label_maps: np.ndarray) -> Trial:
    packed = {name.replace("_", " "): PackedLabels.of(label_map) for name, label_map in label_maps.items()}
    return Trial(f"case_{number}", f"subject_{number}", PackedLabels.of(truth()), packed, SPACING_MM)


def with_stray_scar(size: int = 3) -> np.ndarray:
    indices = truth()
    indices[16 : 16 + size, 13:15, 4:6] = 2
    return indices


def choose(trials, **options):
    return SettingsChoice(LABELS, EvaluateConfig(), **options).choose(trials)


def test_the_largest_piece_is_kept_of_the_label_whose_stray_pieces_it_removes():
    choice = choose([trial(number, as_trained=with_stray_scar()) for number in range(6)])
    assert choice.setting == AS_TRAINED
    assert choice.pieces == Pieces(("all labels",))  # once all is one piece neither heart nor scar has a stray one
    (first, *_) = choice.tried
    assert (first.what, first.dice) == ("largest piece of all labels", 1.0)
    assert first.dice_before == pytest.approx((1 + 2 * 36 / (36 + 48)) / 2)
    assert first.hd95_mm == 0.0 < first.hd95_mm_before


@pytest.mark.parametrize("strays", [1, 5])
def test_a_few_lucky_cases_choose_nothing(strays):
    maps = [with_stray_scar() if number < strays else truth() for number in range(8)]
    assert choose([trial(number, as_trained=labels) for number, labels in enumerate(maps)]).pieces == Pieces()


def test_fewer_than_six_subjects_choose_nothing():
    assert choose([trial(number, as_trained=with_stray_scar()) for number in range(5)]).pieces == Pieces()


def test_cases_of_one_subject_count_once():
    trials = [trial(number // 2, as_trained=with_stray_scar()) for number in range(10)]
    assert choose(trials).pieces == Pieces()


def test_of_a_label_with_several_true_pieces_small_ones_alone_are_removed():
    def scars(number: int) -> Trial:
        reference = truth()
        reference[11:13] = 0
        reference[14:19, 3:9, 1:4] = 2  # two pieces of scar, both far from the wall, of 0.9 and 0.6 ml
        reference[14:18, 11:16, 1:4] = 2
        label_map = reference.copy()
        label_map[0:2, 0:1, 0:1] = 2  # a speck of 0.02 ml
        speckled = PackedLabels.of(label_map)
        return Trial(f"{number}", f"{number}", PackedLabels.of(reference), {AS_TRAINED: speckled}, SPACING_MM)

    choice = choose([scars(number) for number in range(6)], try_largest=False)
    assert dict(choice.pieces.smallest_ml) == {"scar": 0.075}  # 5 % of the median of 1.5 ml
    tried = {each.what: each for each in choice.tried}
    assert not tried["no piece of scar below 0.015 ml"].chosen  # 1 %: the speck is larger
    assert tried["no piece of scar below 0.075 ml"].dice == 1.0


def test_the_setting_of_the_networks_that_gains_most_is_taken():
    worse, better = truth(), truth()
    worse[3:6], better[3:4] = 0, 0
    trials = [trial(number, as_trained=worse, overlap_0=better, mirrored=truth()) for number in range(6)]
    choice = choose(trials)
    assert choice.setting == "mirrored"
    assert [each.gains for each in choice.tried[:2]] == [True, True]
    assert [each.chosen for each in choice.tried[:2]] == [False, True]


def test_a_gain_in_dice_that_costs_distance_is_refused():
    plain, gaining = truth(), truth()
    plain[3] = 0  # the first slice of the wall is missing
    gaining[16:20, 15, 5] = gaining[0, 0] = 1  # none is, but there are specks far away
    trials = [trial(number, as_trained=plain, overlap_0=gaining) for number in range(6)]
    assert choose(trials, try_largest=False).setting == AS_TRAINED
    assert choose(trials, try_largest=False, spacing_known=False).setting == "overlap 0"  # no distance is known


def test_pieces_that_the_experiment_names_are_cleaned_in_any_case():
    given = Pieces(("scar",), (("wall", 0.5),))
    choice = choose([trial(number, as_trained=truth()) for number in range(6)], given=given, try_largest=False)
    assert choice.pieces == given
    assert not any("wall" in each.what for each in choice.tried)


def test_without_trials_everything_is_as_trained():
    assert choose([]).setting == AS_TRAINED
    assert choose([]).tried == ()
