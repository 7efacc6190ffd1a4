"""Segmentation and classification on one encoder: the network, the step, the classes of cases, whole runs."""

import csv
import importlib.util
import json
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from small_networks import CHANNELS, STRIDES, every_dims, image_of, make_net
from tiny_data import Lines, Stop, make_balls, names, tiny, trained, training_of
from torch import nn

from segmed.builders.architectures import build_classifier
from segmed.builders.losses import build_case_class_loss
from segmed.builders.trained import load_case_classifier, load_run
from segmed.commands.command_line import parse_as, run_tool
from segmed.compose import run as compose_run
from segmed.config import (
    CaseClassConfig,
    InferenceConfig,
    PatchConfig,
    PreprocessConfig,
    Section,
    SegmentationConfig,
    TrainConfig,
)
from segmed.config.classifier import EncoderClassifierConfig
from segmed.data.case import Case
from segmed.data.class_column import UNKNOWN, class_indices, class_names, classes_of, with_targets
from segmed.data.splits import Split
from segmed.errors import ConfigError, DatasetError, RunError, SegmenterError
from segmed.evaluate.answers import read_answers
from segmed.labels import LabelSet
from segmed.losses.segmentation_loss import DeepSupervisionLoss, segmentation_loss
from segmed.metrics.class_figures import figures
from segmed.networks.encoders.plain_convolutions import PlainEncoder
from segmed.networks.two_heads import SegmentationAndClass
from segmed.runs import Run, new_folds, read_config
from segmed.segment.prepare import prepare
from segmed.segment.test import sum_up_classes
from segmed.segmenters.case_class import CaseClassifier
from segmed.segmenters.trained_network import NetworkSegmenter
from segmed.training.checkpoint import read_weights
from segmed.training.encoder_transfer import take_encoder
from segmed.training.interruption import Interrupted
from segmed.training.multitask_step import MultiTaskStep
from segmed.training.precision import Choice
from segmed.training.steps import SupervisedStep
from segmed.training.tracking import Tracker
from segmed.volumes import Source, read_volume

CASES = 12
KINDS = ("bright", "dark")
TOOL = Path(__file__).resolve().parents[2] / "tools" / "predict.py"


def two_heads(dims: int = 2, **options) -> SegmentationAndClass:
    torch.manual_seed(0)
    return SegmentationAndClass(PlainEncoder(2, CHANNELS, STRIDES["isotropic", dims], dims=dims), 3, 4, **options)


# ---------------------------------------------------------------- the network


@every_dims
def test_the_segmentation_is_that_of_its_twin_without_a_second_head(dims):
    twin, network, image = make_net(PlainEncoder, dims), two_heads(dims), image_of(dims)
    own = network.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in twin.state_dict().items())
    assert {name.partition(".")[0] for name in own.keys() - twin.state_dict().keys()} == {"class_head"}
    assert torch.equal(network(image), twin(image))


@every_dims
@pytest.mark.parametrize("pooling", ["average", "max", "attention"])
def test_one_pass_gives_what_each_head_gives_alone(dims, pooling):
    network, image = two_heads(dims, pooling=pooling), image_of(dims)
    levels, logits = network.both(image)
    assert logits.shape == (2, 4)
    assert torch.equal(logits, network.classify(image))
    assert all(torch.equal(one, other) for one, other in zip(levels, network.all_logits(image), strict=True))


def test_its_classes_are_those_of_a_classifier_with_the_same_weights():
    network, image = two_heads(2, pooling="max"), image_of(2)
    model = EncoderClassifierConfig(
        encoder={"name": "plain", "channels": CHANNELS, "strides": STRIDES["isotropic", 2]}, pooling="max"
    )
    twin = build_classifier(model, in_channels=2, classes=4, size=(8, 8))
    twin.encoder.load_state_dict(network.encoder.state_dict())
    twin.head.load_state_dict(network.class_head.state_dict())
    assert torch.equal(network.classify(image), twin(image))


# ---------------------------------------------------------------- the step


def step_of(
    network: nn.Module, *, weight: float = 0.5, accumulate: int = 1, head: Mapping | None = None
) -> MultiTaskStep:
    loss = DeepSupervisionLoss(segmentation_loss("dice_ce", batch=False, ce_weight=1.0), network.supervised_levels)
    class_loss = build_case_class_loss(CaseClassConfig(**(head or {})), [1, 1, 1, 3])
    train = TrainConfig(learning_rate=0.01, ema=0.0, accumulate=accumulate, warmup=0.0, schedule="constant")
    fabric = Fabric(accelerator="cpu", devices=1)
    return MultiTaskStep(network, loss, class_loss, train, weight=weight, fabric=fabric, choice=Choice())


def batch_of(*targets: int, dims: int = 2) -> dict[str, torch.Tensor]:
    label = torch.randint(0, 3, (len(targets), *[8] * dims), generator=torch.Generator().manual_seed(1))
    return {"image": image_of(dims, batch=len(targets)), "label": label, "target": torch.tensor(targets)}


@every_dims
def test_the_loss_is_that_of_the_segmentation_and_a_share_of_that_of_the_classes(dims):
    batch, step = batch_of(1, 3, dims=dims), step_of(two_heads(dims), weight=0.3)
    levels, logits = two_heads(dims).both(batch["image"])
    segmentation = step.loss(levels, batch["label"])
    classification = nn.functional.cross_entropy(logits, batch["target"])
    figures = step.step(batch, 0.5)
    torch.testing.assert_close(figures["loss/segmentation"], segmentation.detach())
    torch.testing.assert_close(figures["loss/classification"], classification.detach())
    torch.testing.assert_close(figures["loss"], (segmentation + 0.3 * classification).detach())


def moved_by(step: MultiTaskStep, batch: Mapping) -> dict[str, float]:
    """How far a step moves the weights of each part of the network."""
    before = {name: tensor.clone() for name, tensor in step.network.state_dict().items()}
    step.step(batch, 0.5)
    parts: dict[str, float] = {}
    for name, tensor in step.network.state_dict().items():
        part = name.partition(".")[0]
        parts[part] = max(parts.get(part, 0.0), float((tensor - before[name]).abs().max()))
    return parts


def test_both_losses_teach_the_encoder():
    class OnlyClasses(nn.Module):
        def forward(self, levels, label):
            return 0.0 * torch.stack([level.sum() for level in levels]).sum()

    step = step_of(two_heads())
    step.train = step.learner.train = step.train.model_copy(update={"weight_decay": 0.0})
    step.learner.optimiser.param_groups[0]["weight_decay"] = 0.0
    step.loss = OnlyClasses()
    moved = moved_by(step, batch_of(1, 3))
    assert moved["encoder"] > 0
    assert moved["class_head"] > 0
    assert moved["decoder"] == moved["heads"] == 0


def test_patches_without_a_class_teach_the_segmentation_alone():
    half, alone = step_of(two_heads()), step_of(two_heads())
    known = batch_of(2, UNKNOWN)
    _, logits = two_heads().both(known["image"])
    loss = half.step(known, 0.5)["loss/classification"]
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits[:1], torch.tensor([2])).detach())
    none = batch_of(UNKNOWN, UNKNOWN)
    network = two_heads()
    supervised = SupervisedStep(network, alone.loss, alone.train, fabric=alone.fabric, choice=Choice())
    assert alone.step(none, 0.5)["loss/classification"] == 0
    supervised.step(none, 0.5)
    shared = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("class_head")}
    assert all(torch.equal(tensor, alone.network.state_dict()[name]) for name, tensor in shared.items())


def test_a_batch_in_pieces_gives_the_gradient_of_the_whole():
    whole, pieces = step_of(two_heads()), step_of(two_heads(), accumulate=4)
    batch = batch_of(1, UNKNOWN, 3, 0)
    totals = [step._gradients(*(batch[name] for name in ("image", "label", "target"))) for step in (whole, pieces)]
    torch.testing.assert_close(totals[0], totals[1])
    for one, other in zip(whole.network.parameters(), pieces.network.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_rare_classes_count_more_where_they_are_balanced():
    counts = [1, 1, 1, 3]
    loss = build_case_class_loss(CaseClassConfig(balanced=True), counts)
    torch.testing.assert_close(loss.weights, torch.tensor([6 / 4, 6 / 4, 6 / 4, 6 / 12]))
    assert build_case_class_loss(CaseClassConfig(), counts).weights is None


def test_a_step_that_is_gone_on_with_ends_where_one_never_stopped_does():
    whole, part = step_of(two_heads()), step_of(two_heads())
    for step in (whole, part):
        step.step(batch_of(1, 3), 0.2)
    resumed = step_of(make_other := two_heads())
    assert make_other is resumed.network
    resumed.load_state_dict(part.state_dict())
    for step in (whole, resumed):
        step.step(batch_of(0, UNKNOWN), 0.4)
    ends = [step.network.state_dict() for step in (whole, resumed)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    with pytest.raises(RunError, match="of supervised training, this run segments and classifies"):
        resumed.load_state_dict({**part.state_dict(), "method": "supervised"})


# ---------------------------------------------------------------- classes of cases


def case(name: str, **meta: str) -> Case:
    return Case(name, name, {"MR": Source(Path(f"{name}.nii"))}, None, meta)


def parts(train: str, validation: str = "", test: str = "") -> dict[str, list[str]]:
    return {"train": list(train), "validation": list(validation), "test": list(test)}


def test_the_column_of_the_manifest_names_the_classes():
    class_of_case = classes_of(
        [case("a", grade="low"), case("b", grade="high"), case("c", grade=""), case("d")], "grade"
    )
    assert class_of_case == {"a": "low", "b": "high"}
    assert class_names(class_of_case, parts("abcd")) == ("high", "low")
    assert class_names(class_of_case, parts("abcd"), ("low", "high")) == ("low", "high")
    batch = with_targets({"case": ["b", "d", "a"]}, class_indices(class_of_case, ("low", "high")))
    assert batch["target"].tolist() == [1, UNKNOWN, 0]
    assert batch["target"].dtype == torch.int64


@pytest.mark.parametrize(
    ("train", "test", "wanted", "said"),
    [
        ("aa", "b", None, "two or more different classes in the training part, it has low"),
        ("ab", "c", None, "test case c is of class 'odd', which no training case has"),
        ("ab", "", ("low", "none"), "class 'none' of classification.classes has no training case, there are high, low"),
        ("ab", "", ("low", "low"), "two or more different classes"),
    ],
)
def test_classes_that_can_not_be_learnt_are_one_line(train, test, wanted, said):
    class_of_case = {"a": "low", "b": "high", "c": "odd"}
    with pytest.raises(DatasetError, match=said) as caught:
        class_names(class_of_case, parts(train, test=test), wanted)
    assert "\n" not in str(caught.value)


def test_a_class_that_is_not_asked_for_trains_the_segmentation_alone():
    class_of_case = {"a": "low", "b": "high", "c": "odd"}
    names_ = class_names(class_of_case, parts("ab", test="c"), ("high", "low"))
    assert class_indices(class_of_case, names_) == {"a": 1, "b": 0}


def test_a_column_that_is_not_there_is_one_line_with_those_that_are():
    with pytest.raises(DatasetError, match=r"'grad' .* is absent or empty in every case: did you mean 'grade'"):
        classes_of([case("a", grade="low", site="x")], "grad")
    with pytest.raises(DatasetError, match=r"no case has a column 'grade'.*use the layout manifest"):
        classes_of([case("a")], "grade")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"adversary": {}}, "leave adversary out"),
        ({"ensemble": {}}, "leave ensemble and cascade out"),
        ({"network": {"name": "segresnet"}}, r"segresnet has none: choose --network\.name unet"),
    ],
)
def test_what_does_not_go_with_a_second_head_is_refused_before_the_data_are_read(sections, said):
    with pytest.raises(ConfigError, match=said):
        prepare(SegmentationConfig.model_validate({"classification": {}, **sections}))


def test_one_option_turns_the_second_head_on():
    class Arguments(Section):
        config: Path | None = None

    assert parse_as(SegmentationConfig, Arguments, [])[1].classification is None
    given = parse_as(SegmentationConfig, Arguments, ["--classification.column", "grade"])[1].classification
    assert given == CaseClassConfig(column="grade")


# ---------------------------------------------------------------- a volume's class


class Recorder(nn.Module):
    """Tells the class of a window by its mean: class 1 where it is above zero, for sure."""

    in_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def classify(self, image: torch.Tensor) -> torch.Tensor:
        self.seen += list(image)
        above = image.flatten(1).mean(1) > 0
        return torch.stack([~above, above], dim=1) * 100.0


def classifier_of(network: nn.Module, dims: int, plane_axis: int | None = None) -> CaseClassifier:
    plain = PreprocessConfig(
        orientation="ras", spacing_mm="native", crop="none", intensity="none", interpolation="linear", separate_z=False
    )
    inference = InferenceConfig(overlap=0.0, windows=3)
    segmenter = NetworkSegmenter(
        network, labels=LabelSet(("a",), ((1,),)), preprocess=plain, patches=PatchConfig(dims=dims, size=(4,) * dims),
        plane_axis=plane_axis, inference=inference,
    )  # fmt: skip
    return CaseClassifier(segmenter)


@pytest.mark.parametrize(("dims", "plane_axis", "windows"), [(3, None, 4), (2, 0, 16), (2, 1, 16), (2, 2, 16)])
def test_the_probabilities_of_a_volume_are_the_mean_over_its_windows(dims, plane_axis, windows):
    image = torch.full((1, 8, 4, 8), -1.0) + 0.01 * torch.rand((1, 8, 4, 8), generator=torch.Generator().manual_seed(0))
    image[:, :3] += 5.0  # in a window of four along the first axis three quarters of the voxels
    network = Recorder()
    probabilities = classifier_of(network, dims, plane_axis).prepared(image)
    assert len(network.seen) == windows
    share = 3 / 8 if plane_axis == 0 else 1 / 2
    np.testing.assert_allclose(probabilities, [1 - share, share], atol=1e-6)


def test_windows_outside_of_the_patient_do_not_count():
    image = torch.zeros((1, 8, 4, 8))
    image[:, :4, :, :4] = 1 + torch.rand((1, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    network = Recorder()
    np.testing.assert_allclose(classifier_of(network, 3).prepared(image), [0, 1], atol=1e-6)
    assert len(network.seen) == 1
    empty = Recorder()
    classifier_of(empty, 3).prepared(torch.zeros((1, 8, 4, 8)))
    assert len(empty.seen) == 4, "of an empty volume all windows do"


def test_a_network_without_a_second_head_tells_no_class():
    with pytest.raises(SegmenterError, match="has no head for classes"):
        classifier_of(make_net(PlainEncoder, 3), 3)


# ---------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    """Bright balls and dark ones, and a manifest that says which; the class of one is not known."""
    folder = make_balls(tmp_path_factory.mktemp("kinds"), cases=CASES)
    rows = [("image", "label", "subject", "kind")]
    for number, name in enumerate(names(CASES)):
        if number % 2:
            path = folder / f"{name}.nii.gz"
            nib.save(nib.Nifti1Image(-np.asarray(nib.load(path).dataobj), np.eye(4)), path)
        kind = "" if number == 0 else KINDS[number % 2]
        rows.append((f"{name}.nii.gz", f"{name}_label.nii.gz", f"s{number}", kind))
    (folder / "manifest.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    part = dict(
        zip(("train", "validation", "test"), (names(CASES)[:6], names(CASES)[6:8], names(CASES)[8:]), strict=True)
    )
    Split(**{name: tuple(cases) for name, cases in part.items()}).save(folder / "split.json")
    return folder


def config_of(balls: Path, runs: Path, dims: int = 3, **sections) -> SegmentationConfig:
    given = {
        "data": {"layout": {"name": "manifest", "file": "manifest.csv"}},
        "split": {"file": balls / "split.json"},
        "patches": {"dims": dims, "size": [16] * dims, "plane": "axial"},
        "network": {"encoder": {"blocks": 1}},
        "classification": {"column": "kind", "pooling": "max", "balanced": True},
        "train": {"steps_per_epoch": 20, "learning_rate": 0.02, "ema": 0.5},
        **sections,
    }
    return tiny(balls, runs, **given)


@pytest.fixture(scope="module")
def finished(balls, tmp_path_factory) -> Run:
    """A 3D run that is trained and tested."""
    folder = tmp_path_factory.mktemp("finished")
    compose_run.run(config_of(balls, folder), folder / "run")
    return Run(folder / "run")


def test_a_2d_run_tells_the_class_of_a_volume_from_its_slices(balls, tmp_path):
    run = trained(config_of(balls, tmp_path, 2), tmp_path / "run")
    classify = load_case_classifier(run.path, device="cpu")
    for number, name in enumerate(names(CASES)):
        if name in Split.load(run.split).test:
            assert classify(read_volume(Source(balls / f"{name}.nii.gz"))).argmax() == number % 2


def test_a_run_learns_both_and_writes_classes_with_probabilities_and_intervals(finished, balls):
    tested = read_answers(finished.test / "classes.csv")
    assert tested.ids == Split.load(finished.split).test
    assert tested.subjects == ("s8", "s9", "s10", "s11")
    assert tested.classes == KINDS
    assert tested.truth.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(tested.probabilities.sum(1), 1)
    summary = json.loads((finished.test / "classes.json").read_text())["image"]
    assert (
        summary["overall"]["accuracy"]["value"]
        == figures(tested.truth, tested.probabilities, KINDS).overall["accuracy"]
    )
    assert summary["overall"]["accuracy"]["value"] == 1
    assert summary["overall"]["log_loss"]["ci95"] is None  # of four subjects
    assert summary["overall"]["log_loss"]["ci95_method"].startswith("none")
    assert json.loads((finished.test / "summary.json").read_text())["labels"]["shell"]["dice"]["mean"] > 0.3
    assert (finished.test / "classes_confusion.png").is_file()
    assert summary["threshold"]["chosen_on"]["cases"] == len(Split.load(finished.split).validation)
    assert "accuracy" in (finished.path / "log.txt").read_text()


def test_the_classes_stand_in_the_config_with_their_reason_and_in_the_history(finished):
    assert read_config(finished).classification.classes == KINDS
    assert "what the column kind says of the training part" in finished.config.read_text()
    with (finished.path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"loss/segmentation", "loss/classification", "accuracy", "dice/shell"} <= rows[0].keys()
    assert [row["accuracy"] for row in rows if row["accuracy"]][-1] == "1"


def test_the_run_comes_back_as_a_segmenter_and_as_a_classifier_of_cases(finished, balls):
    tested = read_answers(finished.test / "classes.csv")
    volume = read_volume(Source(balls / f"{tested.ids[1]}.nii.gz"))
    probabilities = load_case_classifier(finished.path, device="cpu")(volume)
    np.testing.assert_allclose(probabilities, tested.probabilities[1], atol=1e-6)
    label = load_run(finished.path, device="cpu")(volume)
    written = read_volume(Source(next(finished.predictions.glob(f"{tested.ids[1]}*"))))
    assert torch.equal(label.as_tensor().float(), written.as_tensor().float())


def test_predict_writes_the_classes_of_new_volumes(finished, balls, tmp_path, monkeypatch, capsys):
    new = tmp_path / "new"
    new.mkdir()
    for number in (8, 9):
        shutil.copy(balls / f"{names(CASES)[number]}.nii.gz", new)
    spec = importlib.util.spec_from_file_location("predict", TOOL)
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "predict", tool)
    options = ["--run", finished.path, "--input", new, "--output", tmp_path / "out", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", [str(TOOL), *map(str, options)])
    spec.loader.exec_module(tool)
    with pytest.raises(SystemExit) as ended:
        run_tool(tool.main)
    assert not ended.value.code
    with (tmp_path / "out" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    tested = read_answers(finished.test / "classes.csv")
    assert [(row["id"], row["predicted"]) for row in rows] == [(tested.ids[0], "bright"), (tested.ids[1], "dark")]
    assert float(rows[1]["probability dark"]) == pytest.approx(tested.probabilities[1, 1], abs=1e-5)


def test_a_run_that_segments_alone_has_no_classes(balls, tmp_path):
    run = compose_run.start(config_of(balls, tmp_path, classification=None), tmp_path / "run")
    with pytest.raises(RunError, match="segments alone"):
        load_case_classifier(run.path)


def test_a_stopped_run_goes_on_to_the_weights_of_one_that_never_was(balls, tmp_path):
    short = {"train": {"steps_per_epoch": 2, "checkpoint_minutes": 1e-9}}
    lines = Lines()
    whole = trained(config_of(balls, tmp_path, **short), tmp_path / "whole", lines)
    with pytest.raises(Interrupted):
        trained(config_of(balls, tmp_path, **short), tmp_path / "part", Stop(3, signal.SIGTERM))
    part = Run(tmp_path / "part")
    training_of(part).fit(Tracker(), resume=True)
    one, other = (read_weights(run.weights("last")) for run in (whole, part))
    assert one.keys() == other.keys()
    assert any(name.startswith("class_head") for name in one)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert lines.figures["loss"] == pytest.approx(
        lines.figures["loss/segmentation"] + 0.5 * lines.figures["loss/classification"], rel=1e-5
    )


def test_folds_sum_up_the_classes_of_all_cases(finished, balls, tmp_path):
    config = config_of(balls, tmp_path, split={"folds": 2, "file": None})
    folds = new_folds(config, tmp_path / "folds")
    for fold, part in enumerate(folds.runs()):
        part.test.mkdir(parents=True)
        text = (finished.test / "classes.csv").read_text().replace("ball_", f"ball_{fold}_")
        (part.test / "classes.csv").write_text(text)
    sum_up_classes(config, folds, title="two folds")
    one, all_ = read_answers(finished.test / "classes.csv"), read_answers(folds.test / "classes.csv")
    assert len(set(all_.ids)) == 2 * len(one.ids)
    np.testing.assert_array_equal(all_.probabilities, np.concatenate([one.probabilities] * 2))
    assert json.loads((folds.test / "classes.json").read_text())["title"] == "two folds"


def test_the_shared_encoder_moves_on_to_a_classifier(finished):
    network = read_config(finished).network
    shape = {"channels": network.encoder.channels, "strides": network.encoder.strides, "blocks": 1}
    classifier = build_classifier(
        EncoderClassifierConfig(encoder={"name": "plain", **shape}), in_channels=1, classes=2, size=(16, 16, 16)
    )
    moved = take_encoder(classifier, finished.path)
    assert not moved.left
    assert {"class_head.weight", "class_head.bias"} <= set(moved.unused)
