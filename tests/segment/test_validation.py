"""Validation measures what prediction would give, on the scanner's own grid."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from tiny_run import forked
from torch import nn

from segmed.config import EvaluateConfig, InferenceConfig, PatchConfig, PreprocessConfig
from segmed.data.cache import CachedVolume
from segmed.data.preprocess import prepare
from segmed.errors import TrainingError
from segmed.labels import LabelSet
from segmed.losses.segmentation_loss import CrossEntropy
from segmed.segment import validate as validation
from segmed.segment.settings_choice import Pieces
from segmed.segment.validate import ValidationCase, Validator, spread
from segmed.segmenters.trained_network import NetworkSegmenter
from segmed.training.ranks import Ranks
from segmed.volumes import Source, write_volume

LABELS = LabelSet.from_config({"blood": 500, "scar": 2221}, regions={"heart": ["blood", "scar"]})
VALUES = np.array([0, 500, 2221])
PREPROCESS = PreprocessConfig(
    spacing_mm="native", crop="none", intensity="none", interpolation="linear", separate_z=False, orientation="ras"
)


class Reader(nn.Module):
    """Reads the label from the intensity: 1 is blood, 2 is scar."""

    in_channels, out_channels = 1, 3

    def __init__(self, known: int = 3) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.arange(3.0))
        self.known = known

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = -10 * (image - self.levels.reshape(1, 3, 1, 1, 1)) ** 2
        logits[:, self.known :] -= 100
        return logits


def segmenter(network: nn.Module) -> NetworkSegmenter:
    return NetworkSegmenter(
        network,
        labels=LABELS,
        preprocess=PREPROCESS,
        patches=PatchConfig(dims=3, size=(8, 8, 8)),
        plane_axis=None,
        inference=InferenceConfig(windows=2),
    )


def make_case(folder, name: str, *, stray: bool = False) -> ValidationCase:
    """A box of blood with scar beside it, in an orientation of its own; a stray voxel of scar in the image alone."""
    truth = np.zeros((14, 12, 10), np.uint8)
    truth[3:8, 3:9, 2:7] = 1
    truth[8:10, 3:9, 2:7] = 2
    seen = truth.copy()
    if stray:
        seen[0:3, 0:2, 8:10] = 2
    affine = torch.tensor([[0, 2.0, 0, 5], [-1.5, 0, 0, 3], [0, 0, 3.0, -7], [0, 0, 0, 1]], dtype=torch.float64)
    path = folder / f"{name}.nii.gz"
    write_volume(path, MetaTensor(torch.from_numpy(VALUES[truth])[None].int(), affine=affine))
    image, label = prepare(
        MetaTensor(torch.from_numpy(seen)[None].float(), affine=affine),
        MetaTensor(torch.from_numpy(truth)[None], affine=affine),
        PREPROCESS,
    )
    volume = CachedVolume(
        name, image.numpy(), label.numpy()[0], np.asarray(image.affine), (2.0, 1.5, 3.0), (np.zeros((0, 3)),) * 2
    )
    return ValidationCase(volume, Source(path))


def validator(cases, *, labels: LabelSet = LABELS, **options) -> Validator:
    return Validator(cases, segmenter, labels, config=EvaluateConfig(bootstrap=10), ranks=Ranks(), **options)


def test_a_network_that_knows_scores_one_on_every_label_and_region(tmp_path):
    result = validator([make_case(tmp_path, "a"), make_case(tmp_path, "b")])(Reader())
    assert result.score == 1
    assert {name: value for name, value in result.metrics.items() if name.startswith("dice/")} == {
        "dice/blood": 1, "dice/scar": 1, "dice/heart": 1,
    }  # fmt: skip
    assert result.metrics["hd95_mm/scar"] == result.metrics["avd_ml/scar"] == result.metrics["missed/scar"] == 0


def test_a_missed_label_counts_as_zero_and_its_volume_is_in_ml(tmp_path):
    result = validator([make_case(tmp_path, "a")])(Reader(known=2))
    blood = 2 * 150 / (150 + 210)  # the scar's 60 voxels are taken for blood
    assert result.metrics["dice/blood"] == pytest.approx(blood)
    assert result.score == pytest.approx((blood + 0) / 2)
    assert result.metrics["missed/scar"] == 1
    assert result.metrics["avd_ml/scar"] == pytest.approx(2 * 6 * 5 * 2.0 * 1.5 * 3.0 / 1000)


@pytest.mark.parametrize("values", [2**25, 600])  # of a whole volume, and of slabs
def test_the_loss_of_a_validation_is_that_of_the_networks_logits_on_the_prepared_volumes(tmp_path, monkeypatch, values):
    monkeypatch.setattr(validation, "LOSS_VALUES", values)
    cases, loss = [make_case(tmp_path, "a"), make_case(tmp_path, "b", stray=True)], CrossEntropy()
    with torch.no_grad():
        expected = [
            loss(Reader()(torch.tensor(case.volume.image)[None]), torch.tensor(case.volume.label)[None])
            for case in cases
        ]
    result = validator(cases, loss=loss)(Reader())
    assert result.metrics["validation/loss"] == pytest.approx(float(sum(expected)) / 2, rel=1e-3, abs=1e-6)
    assert "validation/loss" not in validator(cases)(Reader()).metrics


def test_figures_are_of_the_same_cases_each_time(tmp_path):
    validate = validator([make_case(tmp_path, name) for name in "abc"], figures=2)
    for _ in range(2):
        figures = validate(Reader()).figures
        assert list(figures) == ["validation/a", "validation/b"]
        assert all(isinstance(figure, Figure) for figure in figures.values())


def test_label_maps_are_decoded_once(tmp_path, monkeypatch):
    read = []
    whole = validation.read_label_volume
    monkeypatch.setattr(validation, "read_label_volume", lambda source: read.append(source) or whole(source))
    validate = validator([make_case(tmp_path, "a")], figures=0)
    first, second = validate(Reader()), validate(Reader())
    assert len(read) == 1
    assert first == second


def test_without_room_label_maps_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "LARGEST_KEPT_SHARE", 0.0)
    validate = validator([make_case(tmp_path, "a")], figures=0)
    assert validate(Reader()).score == validate(Reader()).score == 1
    assert not validate._kept


def test_what_is_one_piece_in_the_references_is_one_unless_validation_loses(tmp_path):
    stray = [make_case(tmp_path, name, stray=True) for name in "ab"]
    validate = validator(stray, labels=replace(LABELS, regions={}))
    assert validate.worth_cleaning(Reader(), ("scar",)) == ("scar",)
    assert validate.worth_cleaning(Reader(), ("scar", "blood")) == ("blood", "scar")
    assert validate.worth_cleaning(Reader()) == (), "two cases are too few to tell a gain from chance"
    assert validator([make_case(tmp_path, "c")]).worth_cleaning(Reader(), ("scar",)) == ("scar",)


@pytest.mark.parametrize(("count", "chosen"), [(5, ()), (6, ("all labels",))])
def test_other_labels_must_gain_by_more_than_chance(tmp_path, count, chosen):
    stray = [make_case(tmp_path, name, stray=True) for name in "abcdef"[:count]]
    assert validator(stray, labels=replace(LABELS, regions={})).worth_cleaning(Reader()) == chosen


@pytest.mark.parametrize(
    ("smallest_ml", "dice"),
    [({}, 120 / 132), ({"blood": 0.2}, 120 / 132), ({"scar": 0.1}, 120 / 132), ({"scar": 0.11}, 1), ({"scar": 0.6}, 0)],
)
def test_pieces_that_prediction_drops_are_not_scored(tmp_path, smallest_ml, dice):
    """The stray piece of scar has 12 voxels of 9 mm3, 0.108 ml; the true one has 60, 0.54 ml."""
    result = validator([make_case(tmp_path, "a", stray=True)], pieces=Pieces(smallest_ml=tuple(smallest_ml.items())))(
        Reader()
    )
    assert result.metrics["dice/scar"] == pytest.approx(dice)
    assert result.metrics["dice/blood"] == 1


def test_where_only_the_largest_piece_is_predicted_it_alone_is_scored(tmp_path):
    case = make_case(tmp_path, "a", stray=True)
    assert validator([case], pieces=Pieces(largest=("scar",)))(Reader()).metrics["dice/scar"] == 1
    assert validator([case], pieces=Pieces(largest=("blood",)))(Reader()).metrics["dice/scar"] < 1


def test_all_labels_together_are_cleaned_before_regions_and_these_before_labels(tmp_path):
    """Scar apart from the heart goes with what is outer; nothing is left that cleaning scar alone would better."""
    validate = validator([make_case(tmp_path, name, stray=True) for name in "abcdef"])
    assert validate.worth_cleaning(Reader()) == ("all labels",)
    assert validate.worth_cleaning(Reader(), ("scar", "heart")) == ("all labels", "heart", "scar")


def test_what_validation_loses_is_not_cleaned(tmp_path):
    cases = [make_case(tmp_path, "a", stray=True), make_case(tmp_path, "b"), make_case(tmp_path, "c")]
    truth = np.zeros((14, 12, 10), np.uint8)
    truth[1:4, 1:4, 1:4] = truth[7:9, 7:9, 7:9] = 2  # scar in two pieces, as it is
    for case in cases[1:]:
        affine = torch.eye(4, dtype=torch.float64)
        write_volume(case.reference.path, MetaTensor(torch.from_numpy(VALUES[truth])[None].int(), affine=affine))
    two_pieces = [
        ValidationCase(
            CachedVolume(case.volume.id, truth[None].astype(np.float32), truth, np.eye(4), (1.0, 1.0, 1.0), ()),
            case.reference,
        )
        for case in cases[1:]
    ]
    labels = replace(LABELS, regions={})
    assert validator([cases[0], *two_pieces], labels=labels).worth_cleaning(Reader(), ("scar",)) == ()


def test_a_rehearsal_foresees_the_time_of_all_cases(tmp_path):
    validate = validator([make_case(tmp_path, name) for name in "abcd"], figures=0)
    assert validate.rehearse(Reader()) > 0


def test_without_spacing_there_is_no_figure_in_mm(tmp_path):
    metrics = validator([make_case(tmp_path, "a")], spacing_known=False)(Reader()).metrics
    assert metrics["dice/scar"] == 1
    assert not [name for name in metrics if "mm" in name or "ml" in name]


@pytest.mark.parametrize("number", [1, 3])
def test_two_processes_share_the_cases_and_get_the_result_of_one(tmp_path, number):
    cases = [make_case(tmp_path, name, stray=name == "b") for name in "abc"[:number]]
    alone = validator(cases, figures=0)
    expected = alone(Reader()), alone.worth_cleaning(Reader(), ("heart", "scar"))

    def shared(fabric) -> None:
        together = validator(cases, figures=0)
        assert len(together._own) < max(number, 2)
        assert (together(Reader()), together.worth_cleaning(Reader(), ("heart", "scar"))) == expected
        assert together.rehearse(Reader()) > 0

    assert forked(shared) == [0, 0]


def test_no_cases_is_one_line():
    with pytest.raises(TrainingError, match=r"no validation cases: raise split\.validation"):
        validator([])


def test_a_limit_spreads_over_the_list():
    assert spread(range(10), None) == list(range(10))
    assert spread(range(10), 3) == [1, 5, 8]
    assert spread(range(2), 5) == [0, 1]
