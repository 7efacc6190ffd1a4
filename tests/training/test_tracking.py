"""What a run leaves to look at, and that a resumed run goes on with it."""

import csv
import io
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from tiny_run import EACH_STEP, train_tiny

from segmed.errors import DiskError
from segmed.runs import read_history
from segmed.training.checkpoint import Checkpoints
from segmed.training.history import History
from segmed.training.ranks import Ranks
from segmed.training.time_left import TimeLeft
from segmed.training.tracking import RunTracker, Tracker


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def board(folder) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def steps_of(events: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in events.Scalars(tag)]


def drawn(batch, views) -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().imshow(batch["image"][0, 0, 0])
    return figure


def after_training(tracker: Tracker, step: int) -> None:
    """What follows a training."""
    tracker.test(step, {"dice/left": 0.25})
    metrics = {"test/dice": 0.25, "validation/best_dice": 0.5}
    tracker.hyper_parameters(step, {"train.learning_rate": 0.01, "network.name": "tiny"}, metrics)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    console = quiet()
    with RunTracker(folder, console=console) as tracker:
        tracker.text("config", "name: tiny\nseed: 5")
        state = train_tiny(folder, steps=30, tracker=tracker, draw=drawn)
        after_training(tracker, state.step)
    return folder, state, printed(console)


def test_tensorboard_has_losses_speed_and_metrics_by_name(run):
    folder, *_ = run
    tags = set(board(folder).Tags()["scalars"])
    assert tags == {
        "train/loss", "train/gradient_norm", "train/learning_rate", "train/patches_per_second",
        "train/data_wait_share", "validation/score", "validation/dice/left", "validation/dice/right",
        "test/dice/left", "test/dice", "validation/best_dice",
    }  # fmt: skip
    assert steps_of(board(folder), "train/loss") == [10, 20, 30]


def test_tensorboard_has_patches_the_config_and_hyper_parameters(run):
    folder, *_ = run
    tags = board(folder).Tags()
    assert tags["images"] == ["train/patches"]
    assert "config/text_summary" in tags["tensors"]
    assert "_hparams_/experiment" in board(folder).summary_metadata


def test_hyper_parameters_make_no_folder_of_their_own(run):
    folder, *_ = run
    files = list((folder / "tensorboard").iterdir())
    assert len(files) == 1
    assert files[0].is_file()


def test_the_log_says_how_the_validations_went(run):
    folder, state, shown = run
    lines = (folder / "log.txt").read_text().splitlines()
    assert sum("validation: score" in line for line in lines) == 3
    assert f"trained 30 steps in {state.seconds / 60:.1f} minutes" in lines[-1]
    assert [line.split("INFO ", 1)[1] for line in lines] == shown.splitlines()


def test_history_is_a_table_that_reports_read(run):
    folder, state, _ = run
    columns = read_history(folder / "history.csv")
    assert [step for step, _ in columns["loss"]] == [10, 20, 30]
    assert max(value for _, value in columns["score"]) == pytest.approx(state.best_score, rel=1e-5)


def test_a_resumed_run_leaves_no_step_twice(tmp_path):
    """The checkpoint is of step 8; rows and points up to step 13 lie there when the run is killed."""
    with RunTracker(tmp_path, console=quiet()) as tracker:
        train_tiny(tmp_path, steps=8, tracker=tracker, settings={"validations": 1, "checkpoint_minutes": EACH_STEP})
        for step in range(9, 14):
            tracker.scalars(step, {"loss": 99.0}, minutes=1)
    with RunTracker(tmp_path, step=8, console=quiet()) as tracker:
        assert [int(row["step"]) for row in tracker.history.rows()] == list(range(1, 9))
        for step in range(9, 12):
            tracker.scalars(step, {"loss": 1.0}, minutes=1)
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(1, 12))
    assert [float(row["loss"]) for row in rows[8:]] == [1.0, 1.0, 1.0]
    points = sorted(board(tmp_path).Scalars("train/loss"), key=lambda event: event.step)
    assert [event.step for event in points] == list(range(1, 12))
    assert [event.value for event in points][8:] == [1.0, 1.0, 1.0]


VALIDATED = [10, 20, 30]


def curves(folder) -> dict[str, list[int]]:
    """Tag -> steps of its points, as TensorBoard shows them: what a restart orphaned is dropped."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=True)
    events.Reload()
    return {tag: steps_of(events, tag) for tag in events.Tags()["scalars"]}


def whole(folder) -> bool:
    """Whether every curve of a finished run has one point a validation, and the test one at the last step."""
    known = curves(folder)
    assert {tag: steps for tag, steps in known.items() if tag.startswith("validation/") and "best" not in tag} == {
        f"validation/{name}": VALIDATED for name in ("score", "dice/left", "dice/right")
    }
    assert {tag: steps for tag, steps in known.items() if tag.startswith("test/")} == {
        "test/dice/left": [30], "test/dice": [30],
    }  # fmt: skip
    assert known["train/loss"][-1] == known["validation/best_dice"][0] == 30
    assert len(set(known["train/loss"])) == len(known["train/loss"])
    return True


def test_every_curve_of_a_finished_run_has_a_point_a_validation(run):
    assert whole(run[0])


class Killed(BaseException):
    pass


class KilledAt(RunTracker):
    """Dies right after a call, with all of it on disk and no checkpoint that knows."""

    def __init__(self, folder, *, after: str, step: int) -> None:
        super().__init__(folder, console=quiet())
        self.after, self.at = after, step

    def validation(self, step, metrics, **given) -> None:
        super().validation(step, metrics, **given)
        self.die("validation", step)

    def scalars(self, step, values, **given) -> None:
        super().scalars(step, values, **given)
        self.die("scalars", step)

    def test(self, step, metrics) -> None:
        super().test(step, metrics)
        self.die("test", step)

    def die(self, name: str, step: int) -> None:
        if (name, step) == (self.after, self.at):
            raise Killed


@pytest.mark.parametrize(
    ("after", "step"), [("validation", 10), ("validation", 20), ("validation", 30), ("scalars", 20), ("test", 30)]
)
def test_a_run_that_was_killed_and_resumed_has_the_curves_of_one_that_was_not(tmp_path, monkeypatch, after, step):
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))  # see below
    with pytest.raises(Killed), KilledAt(tmp_path, after=after, step=step) as tracker:
        after_training(tracker, train_tiny(tmp_path, steps=30, tracker=tracker, draw=drawn).step)
    last = Checkpoints(tmp_path, ranks=Ranks()).last_step()
    with RunTracker(tmp_path, step=last, console=quiet()) as tracker:
        state = train_tiny(tmp_path, steps=30, tracker=tracker, draw=drawn, resume=last > 0)
        after_training(tracker, state.step)
    assert whole(tmp_path)
    pictures = board(tmp_path).Images("train/patches")
    assert [picture.step for picture in pictures] == sorted({picture.step for picture in pictures})


def test_a_run_killed_before_its_first_checkpoint_starts_with_an_empty_slate(tmp_path, monkeypatch):
    # files of one second are told apart by a counter of this process, and read as text: 10 before 9
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    for value in (99.0, 1.0):
        with RunTracker(tmp_path, console=quiet()) as tracker:
            tracker.scalars(1, {"loss": value}, minutes=1)
    assert [event.value for event in board(tmp_path).Scalars("train/loss")] == [1.0]
    assert (tmp_path / "history.csv").read_text() == "step,minutes,loss\n1,1,1\n"


def test_what_ended_a_run_stands_in_its_log_but_is_printed_by_the_tool(tmp_path):
    console = quiet()
    with pytest.raises(ValueError, match="no luck"), RunTracker(tmp_path, console=console):
        raise ValueError("no luck:\nat all")
    assert "ERROR stopped: no luck: at all" in (tmp_path / "log.txt").read_text()
    assert printed(console) == ""


def test_words_of_other_modules_go_to_log_and_console_while_the_run_lasts(tmp_path):
    console = quiet()
    logger = logging.getLogger("segmed.data.cache")
    handlers = list(logging.getLogger("segmed").handlers)
    with RunTracker(tmp_path, console=console):
        logger.warning("a case was [bold] prepared again")
    logger.warning("too late")
    assert printed(console) == "warning: a case was [bold] prepared again\n"
    assert "WARNING a case was [bold] prepared again" in (tmp_path / "log.txt").read_text()
    assert logging.getLogger("segmed").handlers == handlers


def test_in_a_terminal_there_is_a_bar_with_the_step(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with RunTracker(tmp_path, console=console) as tracker:
        tracker.scalars(7, {"loss": 0.5}, minutes=0.1)
        tracker.progress(0.25, 7)
    assert "25 %" in printed(console)
    assert "step 7" in printed(console)
    assert "loss 0.5" in printed(console)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ({}, ", 3 min left"),
        ({"name": "network 2 of 4", "before": 0.25, "share": 0.25}, ", network 2 of 4, 11 min left of all"),
    ],
    ids=["alone", "one of four"],
)
def test_the_time_left_follows_from_the_speed_so_far_and_counts_the_whole(left, words):
    seconds = iter((0.0, 60.0))
    time_left = TimeLeft(**left, clock=lambda: next(seconds))
    time_left.at(0.0)
    time_left.at(0.25)  # a quarter a minute
    assert time_left.comma == words


def test_a_run_that_goes_on_from_the_middle_is_as_fast_as_it_is_now():
    seconds = iter((0.0, 60.0))
    time_left = TimeLeft(clock=lambda: next(seconds))
    time_left.at(0.8)
    assert time_left.comma == ""
    time_left.at(0.9)
    assert time_left.comma == ", 60 s left"


def test_figures_of_a_validation_are_images(tmp_path):
    figure = Figure()
    figure.subplots().plot([1, 2])
    with RunTracker(tmp_path, console=quiet()) as tracker:
        tracker.validation(4, {"score": 0.5}, minutes=0.1, figures={"validation/case_1": figure})
    assert board(tmp_path).Tags()["images"] == ["validation/case_1"]


# ---------------------------------------------------------------- history


def test_values_of_one_step_share_a_row_and_new_names_become_columns(tmp_path):
    history = History(tmp_path / "history.csv")
    history.record(1, {"loss": 0.5})
    history.record(2, {"loss": 0.25})
    history.record(2, {"score": 0.9})
    history.record(3, {"loss": 0.125, "score": 0.8})
    history.record(3, {"loss": 0.1})
    assert (tmp_path / "history.csv").read_text() == "step,loss,score\n1,0.5,\n2,0.25,0.9\n3,0.1,0.8\n"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.dictionaries(st.sampled_from("abc"), st.integers(0, 99), min_size=1))),
    st.integers(0, 12),
    st.integers(0, 40),
)
def test_history_holds_what_was_recorded_up_to_the_checkpoint(tmp_path_factory, records, checkpoint, torn):
    path = tmp_path_factory.mktemp("history") / "history.csv"
    history, step, expected = History(path), 1, {}
    for advance, values in records:
        step += advance
        history.record(step, values)
        expected.setdefault(step, {}).update(values)
    if path.exists():
        with path.open("a") as file:
            file.write("9999,1"[: torn % 7])  # a kill in the middle of a line
    kept = {int(row.pop("step")): row for row in History(path, step=checkpoint).rows()}
    texts = {step: {name: str(value) for name, value in values.items()} for step, values in expected.items()}
    assert kept == {step: values for step, values in texts.items() if step <= checkpoint}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_names_the_history(tmp_path):
    history = History(tmp_path / "history.csv")
    history.record(1, {"loss": 1.0})
    history.path = Path("/dev/full")
    with pytest.raises(DiskError, match=r"no space left for /dev/full"):
        history.record(2, {"loss": 1.0})
