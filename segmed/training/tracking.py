"""The records of a training run: TensorBoard, history.csv, log.txt, a progress bar."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from segmed.files import disk_errors, printable
from segmed.training.history import History
from segmed.training.time_left import TimeLeft

LINE_SECONDS = 30.0  # between two plain lines of a run without a terminal
FLUSH_SECONDS = 20
SHOWN = ("loss", "score", "patches_per_second")  # beside the progress bar
SPOKEN = ("score", "dice/", "validation/")  # of a validation, in the log
FILE_ONLY = "segmed_file_only"


class Tracker:
    """Records nothing: for the processes that do not lead, and for tests."""

    def scalars(self, step: int, values: Mapping[str, float], *, minutes: float) -> None:
        """Figures of the training by name."""

    def validation(
        self,
        step: int,
        metrics: Mapping[str, float],
        *,
        minutes: float,
        figures: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> None:
        """Figures and pictures of a validation; `score` among the metrics chooses the weights."""

    def test(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of the test by name."""

    def pictures(self, step: int, figures: Mapping[str, Any]) -> None:
        """Pictures by name, matplotlib figures."""

    def progress(self, share: float, step: int) -> None:
        """Where the run stands, in [0, 1]."""

    def text(self, name: str, text: str) -> None:
        """A text such as the config."""

    def hyper_parameters(self, step: int, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Settings beside the final metrics, for TensorBoard's table of runs."""

    def line(self, text: str) -> None:
        """A line for the reader."""

    def flush(self) -> None:
        """Bring everything to disk."""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""


class RunTracker(Tracker):
    """Writes `tensorboard/`, `history.csv` and `log.txt` of a run; use as a context.

    What the loggers below `segmed` say goes into the log and to the console, too.

    Args:
        folder: of the run.
        step: last step of the checkpoint that the run goes on from; what was written after it is cut.
        console: where to print; none: standard output.
        time_left: how long the run, or the whole that it is a part of, goes on.
    """

    def __init__(
        self, folder: Path, *, step: int = 0, console: Console | None = None, time_left: TimeLeft | None = None
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.board = self.folder / "tensorboard"
        went_on = self.board.is_dir() and any(self.board.iterdir())
        self._written = {(tag, step) for tag in tags_at(self.board, step)} if went_on and step else set()
        with disk_errors(self.board):
            self._writer = SummaryWriter(
                str(self.board), purge_step=step + 1 if went_on else None, flush_secs=FLUSH_SECONDS
            )
        self.history = History(self.folder / "history.csv", step=step)
        self.console = console or Console()
        self._logger = logging.getLogger("segmed")
        self._handlers = _handlers(self.folder / "log.txt", self.console)
        self._level = self._logger.level
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._latest: dict[str, float] = {}
        self._time_left = time_left or TimeLeft()

    def __enter__(self) -> RunTracker:
        self._hook = threading.excepthook
        threading.excepthook = partial(_overlook_full_disk, self._hook)
        self._logger.setLevel(logging.INFO)
        for handler in self._handlers:
            self._logger.addHandler(handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything; what ended the run goes into the log."""
        if self._bar is not None:
            self._bar.stop()
        if error is not None:
            words = " ".join(str(error).split()) or type(error).__name__
            self._logger.error("stopped: %s", words, extra={FILE_ONLY: True})
        for handler in self._handlers:
            self._logger.removeHandler(handler)
            handler.close()
        self._logger.setLevel(self._level)
        try:
            self._board(self._writer.close)
        except OSError:
            if error is None:
                raise
        finally:
            threading.excepthook = self._hook

    # ------------------------------------------------------------ figures

    def scalars(self, step: int, values: Mapping[str, float], *, minutes: float) -> None:
        """Figures of the training by name."""
        self._scalars(step, tagged("train", values))
        self.history.record(step, {"minutes": minutes, **values})
        self._latest.update(values)
        if not self.console.is_terminal and time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            self.line(f"step {step}, {minutes:.1f} min{self._time_left.comma}: {_words(values)}")

    def validation(
        self,
        step: int,
        metrics: Mapping[str, float],
        *,
        minutes: float,
        figures: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> None:
        """Figures and pictures of a validation."""
        self._scalars(step, tagged("validation", metrics))
        self.pictures(step, figures or {})
        self.history.record(step, {"minutes": minutes, **metrics})
        self._latest["score"] = metrics.get("score", float("nan"))
        shown = {name: value for name, value in metrics.items() if name.startswith(SPOKEN)} or metrics
        self.line(f"step {step}, {minutes:.1f} min, validation: {_words(shown)}" + (f" ({note})" if note else ""))

    def test(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of the test by name."""
        self._scalars(step, tagged("test", metrics))

    def pictures(self, step: int, figures: Mapping[str, Any]) -> None:
        """Pictures by name, matplotlib figures."""
        for name, figure in figures.items():
            if (name, step) not in self._written:
                self._board(partial(self._writer.add_figure, name, figure, step))

    def text(self, name: str, text: str) -> None:
        """A text such as the config, shown as it is."""
        quoted = "\n".join(f"    {line}" for line in text.splitlines())
        self._board(lambda: self._writer.add_text(name, quoted, 0))

    def hyper_parameters(self, step: int, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Settings beside the final metrics; they stand in the run's own event file, not in a folder of their own.

        The metrics are points of their own tags: TensorBoard drops what a tag holds from the step of a new point on.

        Args:
            step: the last one of the run.
            settings: by dotted name.
            metrics: by tag; no tag of a curve.
        """

        def write() -> None:
            for summary in hparams(dict(settings), dict(metrics)):
                self._writer._get_file_writer().add_summary(summary)

        self._board(write)
        self._scalars(step, metrics)

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            if (tag, step) not in self._written:
                self._board(partial(self._writer.add_scalar, tag, value, step))

    def _board(self, write: Callable[[], object]) -> None:
        with disk_errors(self.board):
            write()

    # ------------------------------------------------------------ lines

    def progress(self, share: float, step: int) -> None:
        """Move the bar, in a terminal."""
        self._time_left.at(share)
        if not self.console.is_terminal:
            return
        if self._bar is None:
            columns = (TextColumn("training"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}"), console=self.console, transient=True)
            self._bar.add_task("", total=1.0)
            self._bar.start()
        shown = {name: value for name, value in self._latest.items() if name in SHOWN}
        self._bar.update(
            self._bar.task_ids[0], completed=share, description=f"step {step}{self._time_left.comma}  {_words(shown)}"
        )

    def line(self, text: str) -> None:
        """A line for the reader, in the log, too."""
        self._logger.info(text)

    def flush(self) -> None:
        """Bring everything to disk."""
        self._board(self._writer.flush)


# ---------------------------------------------------------------- parts


def tagged(part: str, values: Mapping[str, float]) -> dict[str, float]:
    """Figures by tag, below what they belong to: `train`, `validation` or `test`."""
    return {f"{part}/{name.removeprefix(part + '/')}": value for name, value in values.items()}


def tags_at(board: Path, step: int) -> set[str]:
    """What TensorBoard's files hold of a step: a run killed between a validation and its checkpoint validates again."""
    tags: set[str] = set()
    for path in sorted(board.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            if event.session_log.status == SessionLog.START and event.step <= step:
                tags.clear()  # a start drops what was written from its step on
            elif event.step == step:
                tags |= {value.tag for value in event.summary.value}
    return tags


def _overlook_full_disk(before: Callable[[Any], object], failed: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread prints a stack of what the next call of its writer raises, and what then is one line."""
    if not (type(failed.thread).__name__ == "_AsyncWriterThread" and isinstance(failed.exc_value, OSError)):
        before(failed)


class _ConsoleHandler(logging.Handler):
    """Prints above the progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.setFormatter(logging.Formatter("%(message)s"))
        self.addFilter(lambda record: not getattr(record, FILE_ONLY, False))

    def emit(self, record: logging.LogRecord) -> None:
        text = "\n".join(map(printable, self.format(record).splitlines()))
        text = text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class _FileHandler(logging.FileHandler):
    """A log file that, on a full disk, fails without a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def _handlers(log: Path, console: Console) -> tuple[logging.Handler, logging.Handler]:
    with disk_errors(log):
        file = _FileHandler(log, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    return file, _ConsoleHandler(console)


def _words(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
