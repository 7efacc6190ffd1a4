"""Adversarial runs: beside their supervised twins, in prediction, stopped and gone on with, broken, refused."""

import csv
import importlib.util
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_data import ADVERSARY, Lines, Stop, make_balls, tiny, trained, training_of

from segmed.builders.trained import load_run, load_run_config
from segmed.commands.command_line import run_tool
from segmed.compose import run as compose_run
from segmed.config import SegmentationConfig
from segmed.data.splits import Split
from segmed.errors import TrainingError
from segmed.runs import Run
from segmed.segment import train as session
from segmed.training.checkpoint import load_state
from segmed.training.fit_state import FitState
from segmed.training.interruption import Interrupted
from segmed.training.opponents import Decider
from segmed.training.tracking import Tracker
from segmed.volumes import read_volume

TOOL = Path(__file__).resolve().parents[2] / "tools" / "train_seg.py"
EACH_STEP = 1e-9  # minutes between checkpoints
STEPS = 4


@pytest.fixture(scope="module")
def balls(tmp_path_factory) -> Path:
    return make_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture(scope="module")
def supervised(balls, tmp_path_factory) -> Run:
    """The twin without an adversary."""
    folder = tmp_path_factory.mktemp("supervised")
    return trained(tiny(balls, folder), folder / "run")


def train_seg(monkeypatch, *options: object) -> int:
    """Exit code of tools/train_seg.py in this process."""
    spec = importlib.util.spec_from_file_location("train_seg", TOOL)
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_seg", tool)
    monkeypatch.setattr("sys.argv", [str(TOOL), *map(str, options)])
    spec.loader.exec_module(tool)
    with pytest.raises(SystemExit) as ended:
        run_tool(tool.main)
    return int(ended.value.code or 0)


def written(config: SegmentationConfig, path: Path) -> Path:
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return path


def weights(run: Run, which: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run.weights(which))


def same(first, second) -> bool:
    """Whether two trees of tensors, numbers and text agree bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def same_end(first: Run, second: Run) -> bool:
    """Whether weights, and everything that the last checkpoint holds of both sides, agree bit for bit."""
    ends = [load_state(run.checkpoint) for run in (first, second)]
    return (
        all(same(weights(first, which), weights(second, which)) for which in ("best", "last"))
        and same(ends[0]["step"], ends[1]["step"])
        and same(ends[0]["random"], ends[1]["random"])
    )


# ---------------------------------------------------------------- from the command line to the report


@pytest.fixture(scope="module")
def finished(balls, tmp_path_factory) -> Run:
    """A run that the tool made from a config with an adversary."""
    folder = tmp_path_factory.mktemp("runs")
    config = written(tiny(balls, folder, adversary=ADVERSARY), folder / "gan.yaml")
    with pytest.MonkeyPatch.context() as patch:
        assert train_seg(patch, "--config", config, "--run-dir", folder / "run") == 0
    return Run(folder / "run")


def test_the_tool_trains_against_the_adversary_of_a_config_and_tests(finished):
    with finished.path.joinpath("history.csv").open() as file:
        row = next(csv.DictReader(file))
    shown = {
        "loss/segmentation", "loss/adversarial", "loss/discriminator", "discriminator/real", "discriminator/fake",
        "discriminator/accuracy", "discriminator/learning_rate", "gradient_norm/segmentation",
        "gradient_norm/adversarial",
    }  # fmt: skip
    assert shown <= row.keys()
    assert all(row[name] for name in shown)
    assert json.loads((finished.test / "summary.json").read_text())["cases"] == 1
    assert load_state(finished.checkpoint)["step"]["method"] == "adversarial"


def test_the_resolved_config_of_an_adversarial_run_says_why(finished):
    config = load_run_config(finished.path)
    assert config.adversary is not None
    assert (config.adversary.loss, config.adversary.gradient_penalty) == ("non_saturating", 0)
    assert config.adversary.discriminator.encoder.strides == ((2, 2, 2),)
    reasons = json.loads(finished.plan.read_text())["reasons"]
    lines = finished.config.read_text().splitlines()
    for key in ("adversary.loss", "adversary.gradient_penalty", "adversary.discriminator.encoder.strides"):
        assert any(key.split(".")[-1] in line and line.endswith(f"# {reasons[key]}") for line in lines), key


def test_the_report_of_an_adversarial_run_shows_both_sides(finished):
    page = (finished.path / "report.html").read_text()
    assert "Losses and validation over the steps" in page
    assert "adversary.discriminator.encoder.strides" in page


def test_the_board_shows_patches_of_training(finished):
    events = b"".join(path.read_bytes() for path in (finished.path / "tensorboard").glob("events*"))
    assert b"train/patches" in events


def test_the_weights_are_those_of_the_generator_alone(finished, supervised):
    for which in ("best", "last"):
        own, other = weights(finished, which), weights(supervised, which)
        assert {name: value.shape for name, value in own.items()} == {n: value.shape for n, value in other.items()}


def test_a_run_predicts_without_checkpoint_and_without_a_discriminator(finished, balls, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a discriminator was built")

    copy = Run(tmp_path / "copy")
    shutil.copytree(finished.path, copy.path)
    copy.checkpoint.unlink()
    for module in ("segmed.builders.architectures", "segmed.segment.train", "segmed.segment.memory"):
        monkeypatch.setattr(f"{module}.build_discriminator", refuse)
    (name,) = Split.load(copy.split).test
    labels = load_run(copy.path, device="cpu")(read_volume(balls / f"{name}.nii.gz"))
    kept = read_volume(finished.predictions / f"{name}.nii.gz")
    torch.testing.assert_close(labels.as_tensor().float(), kept.as_tensor().float(), rtol=0, atol=0)


def test_run_folders_are_named_after_the_discriminator(balls, tmp_path):
    run = compose_run.start(tiny(balls, tmp_path / "runs", adversary={"discriminator": {"name": "pixel"}}), None)
    assert run.path.name.startswith("tiny-pixel-")


# ---------------------------------------------------------------- beside the supervised twin


def test_a_config_without_its_adversary_is_the_supervised_run_bit_for_bit(balls, supervised, tmp_path):
    given = tiny(balls, tmp_path, adversary=ADVERSARY).model_dump(mode="json")
    del given["adversary"]
    without = trained(SegmentationConfig.model_validate(given), tmp_path / "without")
    assert same_end(without, supervised)


class Parts:
    """What a session hands to `fit`."""

    def __init__(self, run: Run, monkeypatch) -> None:
        def keep(method, batches, budget, **options):
            self.method, self.batches = method, batches
            return FitState()

        monkeypatch.setattr(session, "fit", keep)
        training_of(run).fit(Tracker(), resume=False)


def test_the_adversary_changes_neither_patches_nor_split_nor_the_first_weights(balls, tmp_path, monkeypatch):
    given = {"augment": {"name": "light"}, "inference": {"largest_component": []}}
    runs = [
        compose_run.start(tiny(balls, tmp_path, adversary=adversary, **given), tmp_path / name)
        for name, adversary in (("supervised", None), ("adversarial", ADVERSARY))
    ]
    assert runs[0].split.read_text() == runs[1].split.read_text()
    supervised, adversarial = (Parts(run, monkeypatch) for run in runs)
    assert same(supervised.method.network.state_dict(), adversarial.method.network.state_dict())
    batches = list(zip(supervised.batches(0), adversarial.batches(0), strict=True))
    assert len(batches) == STEPS
    assert all(same(first, second) for first, second in batches)


def test_before_the_warm_up_ends_an_adversarial_run_is_the_supervised_one(balls, supervised, tmp_path):
    warming = trained(tiny(balls, tmp_path, adversary={**ADVERSARY, "warmup": 0.9}), tmp_path / "warming")
    playing = trained(tiny(balls, tmp_path, adversary={**ADVERSARY, "warmup": 0.5}), tmp_path / "playing")
    assert same(weights(warming), weights(supervised))
    assert not same(weights(playing), weights(supervised))


# ---------------------------------------------------------------- stopped and gone on with


RESUMED = {
    "noise, ratio 2, accumulation, EMA, instance norm": {
        "train": {"accumulate": 2, "ema": 0.9, "checkpoint_minutes": EACH_STEP},
        "adversary": {
            "discriminator": {"name": "patch", "encoder": {"channels": [4], "norm": "instance"}},
            "ratio": 2,
            "disguise": {"name": "noise", "sd": 2.0},
            "warmup": 0.25,
            "watch_steps": 2,
        },
    },
    "every second step, unlabelled cases": {
        "train": {"checkpoint_minutes": EACH_STEP},
        "split": {"withhold": 0.5},
        "adversary": {**ADVERSARY, "ratio": 0.5, "warmup": 0, "unlabelled": {"start": 0.5, "confidence": 0.3}},
    },
}


@pytest.fixture(scope="module", params=RESUMED.values(), ids=RESUMED)
def sections(request) -> dict:
    return request.param


@pytest.fixture(scope="module")
def unbroken(balls, sections, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("unbroken")
    return trained(tiny(balls, folder, **sections), folder / "run")


def test_a_run_killed_or_stopped_in_its_middle_ends_as_one_never_stopped(balls, sections, unbroken, tmp_path):
    killed, config = Run(tmp_path / "killed"), tiny(balls, tmp_path, **sections)
    child = os.fork()
    if child == 0:
        try:
            trained(config, killed.path, Stop(3, signal.SIGKILL))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert load_state(killed.checkpoint)["fit"]["step"] == 1  # that of step 2 was about to be written
    with pytest.raises(Interrupted, match=r"stopped after step 3; go on with: .*--resume"):
        trained(None, killed.path, Stop(3, signal.SIGTERM))
    saved = load_state(killed.checkpoint)
    assert saved["fit"]["step"] == 3
    assert not same(saved["step"], load_state(unbroken.checkpoint)["step"])
    assert same_end(trained(None, killed.path), unbroken)


def test_a_checkpoint_holds_both_sides_with_their_optimisers(unbroken):
    state = load_state(unbroken.checkpoint)["step"]
    for side in (state, state["discriminator"]):
        assert side["network"]
        assert side["optimiser"]["state"]


def test_a_supervised_checkpoint_in_an_adversarial_run_is_one_line(finished, supervised, tmp_path, monkeypatch, capsys):
    copy = Run(tmp_path / "copy")
    shutil.copytree(finished.path, copy.path)
    shutil.copy(supervised.checkpoint, copy.checkpoint)
    shutil.rmtree(copy.test)  # else it is finished, and nothing is loaded
    before = weights(copy, "best")
    assert train_seg(monkeypatch, "--resume", copy.path) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "error: the checkpoint is of supervised training and holds no discriminator: start a new run, or go on without "
        "the adversary section"
    )
    assert same(weights(copy, "best"), before)


def test_an_adversarial_checkpoint_in_a_supervised_run_is_one_line(finished, supervised, tmp_path, monkeypatch, capsys):
    copy = Run(tmp_path / "copy")
    shutil.copytree(supervised.path, copy.path)
    shutil.copy(finished.checkpoint, copy.checkpoint)
    assert train_seg(monkeypatch, "--resume", copy.path) == 2
    assert "error: the checkpoint is of adversarial training, this run is supervised" in capsys.readouterr().err


# ---------------------------------------------------------------- broken


def test_nan_of_the_discriminator_stops_the_run_and_keeps_what_was_good(balls, tmp_path, monkeypatch):
    losses, calls = Decider.discriminator_losses, []

    def third_is_nan(self, exhibit):
        loss, figures = losses(self, exhibit)
        calls.append(1)
        if len(calls) < 3:
            return loss, figures
        return loss * float("nan"), {**figures, "loss/discriminator": loss.detach() * float("nan")}

    monkeypatch.setattr(Decider, "discriminator_losses", third_is_nan)
    config = tiny(
        balls,
        tmp_path,
        train={"checkpoint_minutes": EACH_STEP, "validations": 2},
        adversary={**ADVERSARY, "warmup": 0},
    )
    said = r"loss/discriminator is nan at step 3 \(cases ball_0\d.*; last finite values: .*loss/discriminator \d"
    with pytest.raises(TrainingError, match=said) as error:
        trained(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("the checkpoint of step 2 is kept")
    run = Run(tmp_path / "run")
    saved = load_state(run.checkpoint)
    assert (saved["fit"]["step"], saved["fit"]["best_step"]) == (2, 2)
    assert all(value.isfinite().all() for value in saved["step"]["discriminator"]["network"].values())
    assert same(weights(run, "best"), saved["step"]["average"]["network"])
    assert not run.weights("last").exists()


def test_nan_of_one_unlabelled_image_names_its_case(balls, tmp_path, monkeypatch):
    config = tiny(
        balls, tmp_path, data={"unlabelled": ["ball_05"]}, split={"test": 0.2}, adversary={**ADVERSARY, "warmup": 0}
    )
    sample = session.UnlabelledPatches.__getitem__

    def poisoned(self, index):
        patch = sample(self, index)
        if index >= 4:
            patch["image"][:] = float("nan")
        return patch

    monkeypatch.setattr(session.UnlabelledPatches, "__getitem__", poisoned)
    with pytest.raises(TrainingError, match=r"at step 3 \(cases .*ball_05"):
        trained(config, tmp_path / "run")


# ---------------------------------------------------------------- the plan, in words


def test_plan_only_prints_the_adversarys_values_with_their_reasons(balls, tmp_path, monkeypatch, capsys):
    config = written(tiny(balls, tmp_path / "runs"), tmp_path / "config.yaml")
    options = ("--config", config, "--plan-only", "--adversary.discriminator.name", "image")
    assert train_seg(monkeypatch, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  adversary.loss = non_saturating: usual with the discriminator image" in lines
    assert "  adversary.gradient_penalty = 0.0: not needed" in lines
    assert any(line.startswith("  adversary.discriminator.encoder.strides = ((2, 2, 2),): ") for line in lines)
    assert any(line.startswith("  adversary.discriminator.encoder.channels = (16,): ") for line in lines)
    assert not (tmp_path / "runs").exists()


def test_a_discriminator_too_deep_for_the_patch_is_refused_and_leaves_no_folder(balls, tmp_path, monkeypatch, capsys):
    config = written(tiny(balls, tmp_path, adversary=ADVERSARY), tmp_path / "config.yaml")
    options = (
        "--config",
        config,
        "--run-dir",
        tmp_path / "run",
        "--adversary.discriminator.encoder.channels",
        4,
        8,
        16,
    )
    assert train_seg(monkeypatch, *options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "adversary.discriminator.encoder.channels has 3 levels, 1 fits a patch of 8 x 8 x 8: give 1" in line
    assert not (tmp_path / "run").exists()


def test_lines_and_figures_of_a_run_with_unlabelled_cases(balls, tmp_path):
    lines = Lines()
    config = tiny(
        balls, tmp_path, split={"withhold": 0.5}, adversary={**ADVERSARY, "warmup": 0, "unlabelled": {"start": 0}}
    )
    run = trained(config, tmp_path / "run", lines)
    split = Split.load(run.split)
    assert len(split.unlabelled) == len(split.train) == 2
    assert "2 unlabelled cases train beside 2 labelled ones" in lines.lines
    assert {"loss/adversarial_unlabelled", "loss/own_labels", "unlabelled/trusted"} <= lines.figures.keys()
