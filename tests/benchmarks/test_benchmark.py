"""python -m benchmarks: every row runs at small sizes and gives ratios; how figures are made of times."""

import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.adversarial import (
    DISCRIMINATORS,
    SLICES,
    VOLUMES,
    adversarial_2d_row,
    adversarial_3d_row,
    planned,
    share_percent,
)
from benchmarks.distances import distances_row
from benchmarks.patches import one_core
from benchmarks.processes import PeerError, Worker
from benchmarks.report import duration, markdown, verdict
from benchmarks.rows import ROWS, measure
from benchmarks.steps import TASKS, StepSize
from benchmarks.synthetic import LABELS, PLAIN, heart, stored
from benchmarks.timing import Outcome, Setting, Target, Timing, alternate, ratio, timed
from benchmarks.training import training_step_row
from benchmarks.windows import dice_in_bf16
from segmed.builders.architectures import build_network
from segmed.config import SegmentationConfig
from segmed.data.splits import Split
from segmed.metrics.mask_metrics import overlaps
from segmed.runs import Run, write_config
from segmed.training.checkpoint import save_weights
from segmed.training.precision import Choice

MAIN = Path(__file__).resolve().parents[2] / "benchmarks" / "__main__.py"
SEPARATE = (  # the others have a test of their own
    "windows", "epoch", "augmentation", "patch", "maxflow", "cascade", "thresholds", "classification", "engines",
    "help",
)  # fmt: skip


def setting(scratch: Path, **changes) -> Setting:
    return Setting(**{"quick": True, "threads": 1, "rounds": 1, "scratch": scratch, **changes})


def run_tool(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(MAIN), run_name="__main__")
    return left.value.code


# ---------------------------------------------------------------- rows


def check(outcome: Outcome) -> None:
    assert outcome.ratio(outcome.ours) == 1
    for name in outcome.timings:
        assert math.isfinite(outcome.ratio(name))
        assert outcome.ratio(name) > 0
    assert all(math.isfinite(target.value) for target in outcome.targets)
    line = markdown([outcome], "machine", judged=False)
    assert outcome.work in line
    assert all(f"| {name} |" in line for name in outcome.timings)


@pytest.mark.parametrize("row", SEPARATE)
def test_every_row_gives_finite_ratios_to_its_peers(row, tmp_path):
    outcome = measure(row, setting(tmp_path))
    assert outcome.row == row
    assert len(outcome.timings) > 1 or row == "help"
    assert outcome.targets
    check(outcome)


def test_distances_equal_monais(tmp_path):
    outcome = distances_row(setting(tmp_path))
    check(outcome)
    difference = outcome.targets[-1]
    assert difference.unit == "mm"
    assert difference.met


def test_the_step_is_measured_with_its_memory_and_without_nnunet_says_why(tmp_path):
    outcome = training_step_row(setting(tmp_path, nnunet_python=Path(sys.executable)))
    check(outcome)
    assert all(timing.memory_bytes > 2**20 for timing in outcome.timings.values())
    assert "nnU-Net was not measured: benchmarks.nnunet_process stopped: ModuleNotFoundError" in outcome.notes[-1]


def test_all_rows_of_the_tool_are_tested():
    assert set(ROWS) == {*SEPARATE, "distances", "step", "adversarial_3d", "adversarial_2d"}


# ---------------------------------------------------------------- adversarial training


@pytest.fixture(scope="module")
def adversarial(tmp_path_factory) -> Outcome:
    return adversarial_3d_row(setting(tmp_path_factory.mktemp("scratch"), generator=(4, 8)))


def test_the_adversarial_row_tells_time_memory_and_share_beside_supervised(adversarial):
    check(adversarial)
    assert adversarial.ours == "supervised"
    assert all(timing.memory_bytes > 2**20 for timing in adversarial.timings.values())
    share = adversarial.targets[0]
    assert share.value == pytest.approx(100 * (1 - 1 / adversarial.ratio("patch")))
    assert (share.bound, share.limit, share.unit) == ("below", 35, "%")


def test_the_adversarial_row_takes_the_generator_that_it_is_given(adversarial):
    assert "U-Net of 2 levels, 4–8 maps, patch 16³" in adversarial.work


def test_the_generator_runs_once_in_a_step_of_the_adversarial_row(adversarial):
    assert str(adversarial.targets[1]) == "forward passes of the generator: 1 a step, at most 1 a step"
    assert adversarial.targets[1].met


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_the_generator_runs_once_in_a_step_against_every_discriminator(kind, dims):
    size = StepSize((4, 8), patch=16, dims=dims)
    options = {
        "channels": size.channels,
        "patch": size.shape[2:],
        "batch": size.batch,
        "threads": 1,
        "precision": "bf16",
        "memory_format": "contiguous",
        "adversary": planned(kind, size).model_dump(mode="json"),
    }
    work = TASKS["adversarial"](options)
    assert [work(), work()] == [1, 1]


@pytest.mark.parametrize("size", [VOLUMES, SLICES])
def test_the_measured_patch_discriminator_has_four_halving_levels_from_16_maps(size):
    discriminator = planned("patch", size).discriminator
    assert discriminator.encoder.channels == (16, 32, 64, 128)
    assert discriminator.encoder.strides == ((2,) * size.dims,) * 4


def test_the_row_of_slices_measures_slices(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("benchmarks.adversarial.Worker", fake_worker(asked))
    monkeypatch.setattr("benchmarks.adversarial.chosen", lambda size: Choice())
    outcome = adversarial_2d_row(setting(tmp_path, quick=False, rounds=2, generator=(8, 16)))
    check(outcome)
    assert list(outcome.timings) == ["supervised", *DISCRIMINATORS]
    assert all(options["patch"] == (192, 192) and options["batch"] == 8 for options in asked)
    assert [target.value for target in outcome.targets] == [1]
    assert outcome.notes[0] == "patch: 16, 32, 64, 128 maps, 50 % of the step, +0 MiB"


def fake_worker(asked: list):
    """Processes that do no work: the one that is asked for third takes three seconds."""

    class Fake:
        memory_bytes, found = 5, 1

        def __init__(self, module, options):
            asked.append(options)
            self.seconds = len(asked)

        def __call__(self):
            return float(self.seconds)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    return Fake


@pytest.mark.parametrize(("adversarial", "share"), [((4.0, 40.0, 4.0), 75), ((1.0, 10.0, 1.0), 0)])
def test_the_share_is_what_the_step_takes_beyond_the_supervised_one(adversarial, share):
    timings = {"supervised": Timing((1.0, 10.0, 1.0)), "patch": Timing(adversarial)}
    assert share_percent(timings, "patch") == share


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with random weights whose one test case lies on disk."""
    data = stored(tmp_path, (24, 24, 16)).image.parent
    config = SegmentationConfig.model_validate(
        {
            "data": {
                "root": data,
                "layout": {
                    "name": "pattern",
                    "images": {"LGE": "{case}_LGE.nii.gz"},
                    "label": "{case}_label.nii.gz",
                },
                "images": ("LGE",),
                "labels": {name: list(values) for name, values in zip(LABELS.names, LABELS.values, strict=True)},
            },
            "preprocess": PLAIN.model_dump(),
            "patches": {"dims": 3, "size": (16, 16, 16)},
            "network": {
                "name": "unet",
                "encoder": {"channels": (4, 8), "strides": ((1, 1, 1), (2, 2, 2)), "blocks": 1},
            },
            "train": {"batch_size": 2, "precision": "fp32"},
            "inference": {"largest_component": ()},
        }
    )
    made = Run(tmp_path / "run")
    made.weights().parent.mkdir(parents=True)
    write_config(made, config, {})
    Split(train=(), validation=(), test=("heart",), seed=0, by="subject", fold=None, folds=None).save(made.split)
    torch.manual_seed(0)
    save_weights(made.weights(), build_network(config.network, in_channels=1, out_channels=4, dims=3), {})
    return made.path


def test_dice_of_a_run_in_bf16_is_close_to_that_in_fp32(run):
    target, note = dice_in_bf16(run)
    assert 0 <= target.value < 0.05
    assert "1 test cases: mean Dice 0." in note


# ---------------------------------------------------------------- times and ratios


def test_contenders_take_turns_and_the_warm_up_is_not_counted():
    order = []

    def contender(name, seconds):
        def work():
            order.append(name)
            return next(seconds)

        return work

    contenders = {"a": contender("a", iter((9.0, 1.0, 2.0))), "b": contender("b", iter((9.0, 3.0, 8.0)))}
    timings = alternate(contenders, rounds=2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert timings["a"].seconds == (1.0, 2.0)
    assert ratio(timings["b"], timings["a"]) == 3.5


def test_a_load_that_hits_both_leaves_the_ratio_as_it_is():
    assert ratio(Timing((2.0, 20.0, 2.0)), Timing((1.0, 10.0, 1.0))) == 2


def test_memory_is_given_where_all_contenders_have_it():
    class Counted:
        memory_bytes = 5

        def __call__(self):
            return 1.0

    assert alternate({"a": Counted(), "b": Counted()}, rounds=1)["a"].memory_bytes == 5
    assert alternate({"a": Counted(), "b": timed(int)}, rounds=1)["a"].memory_bytes is None


def test_work_that_is_done_many_times_counts_once():
    calls = []
    assert timed(lambda: calls.append(0), times=7)() < 1
    assert len(calls) == 7


@pytest.mark.parametrize(
    ("bound", "met"),
    [("at least", (False, True, True)), ("at most", (True, True, False)), ("below", (True, False, False))],
)
def test_a_target_is_met_on_its_side_of_the_limit(bound, met):
    assert tuple(Target("x", value, bound, 2.0).met for value in (1.0, 2.0, 3.0)) == met


def test_small_sizes_are_not_judged():
    missed = Target("x", 1.0, "at least", 2.0)
    assert verdict(missed, judged=True) == "MISSED: "
    assert verdict(missed, judged=False) == ""


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (0.0123, "12.3 ms"), (4.56e-5, "45.6 µs")])
def test_durations_have_three_figures(seconds, text):
    assert duration(seconds) == text


def test_one_core_is_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_core():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_the_two_hearts_differ_by_their_surfaces_alone():
    a, b = heart((48, 48, 24), 1), heart((48, 48, 24), 2)
    assert set(a.flat) == {0, 1, 2, 3}
    for label in (1, 2, 3):
        assert 0.8 < overlaps(a == label, b == label)["dice"] < 1


# ---------------------------------------------------------------- processes and the tool


def test_a_contender_that_can_not_start_says_why():
    with pytest.raises(PeerError, match=r"no_python can't be started: No such file"):
        Worker("benchmarks.steps", {}, python="no_python")
    with pytest.raises(PeerError, match=r"benchmarks\.no_such stopped: .*No module named"):
        Worker("benchmarks.no_such", {})


def test_the_tool_writes_markdown_and_json(tmp_path, monkeypatch, capsys):
    threads = torch.get_num_threads()
    assert run_tool(monkeypatch, "--rows", "patch", "--quick", "--threads", 1, "--output", tmp_path / "out") == 0
    torch.set_num_threads(threads)
    assert "nibabel" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
    assert row["row"] == "patch"
    assert row["contenders"][row["ours"]]["ratio_to_ours"] == 1
    assert "| nibabel" in (tmp_path / "out" / "benchmark.md").read_text()


def test_a_row_or_an_interpreter_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    assert run_tool(monkeypatch, "--rows", "speed") == 2
    assert run_tool(monkeypatch, "--nnunet-python", tmp_path / "python") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "speed" in lines[0]
    assert lines[1] == f"error: --nnunet-python {tmp_path / 'python'} is not there: name a Python interpreter"


def test_help_needs_no_torch():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['benchmarks', '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(MAIN)!r}, run_name='__main__')\n"
        "except SystemExit as left:\n"
        "    assert not left.code and 'torch' not in sys.modules\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--nnunet-python" in shown.stdout
