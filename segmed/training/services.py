"""Services that record runs beside TensorBoard, and that a training never waits for or fails by."""

from __future__ import annotations

import io
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from segmed.config.training import Service
from segmed.errors import ConfigError
from segmed.training.tracking import Tracker, tagged

if TYPE_CHECKING:
    from PIL.Image import Image

CONNECT_SECONDS = 60.0
CLOSE_SECONDS = 60.0  # for what is left to send when a run ends
STOPPED_SECONDS = 10.0  # and when it is stopped: a scheduler kills soon after its signal
WAITING = 10_000  # records that wait for a service; with more it is taken for dead
PACKAGES = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
TITLES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """What a service does with records; any call may fail, and all come from one thread."""

    def connect(self) -> str:
        """Begin the run there, or go on with it; says where that is."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures by tag."""

    def picture(self, step: int, name: str, picture: Image) -> None:
        """One picture."""

    def text(self, name: str, text: str) -> None:
        """A text such as the config."""

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Hyper-parameters by dotted name."""

    def close(self, *, failed: bool) -> None:
        """Send what is left and end the run there."""


def check_services(names: Iterable[Service]) -> None:
    """See that the packages of services are there.

    Raises:
        ConfigError: one is not; its extra is named.
    """
    for name in names:
        specs = map(find_spec, PACKAGES[name])
        if any(spec is None or spec.origin is None for spec in specs):  # a folder ./wandb is no package
            raise ConfigError(f'train.trackers: {TITLES[name]} is not installed: pip install "segmed-mri[{name}]"')


def with_services(tracker: Tracker, names: Iterable[Service], folder: Path) -> Tracker:
    """A tracker that records in services, too.

    Args:
        tracker: of the run folder.
        names: of the services.
        folder: of the run, in which each keeps the name of its own run and what is not sent anywhere.

    Raises:
        ConfigError: a service is not installed.
    """
    names = tuple(names)
    check_services(names)
    return TrackerGroup((tracker, *(ServiceTracker(TITLES[name], _recorder(name, folder)) for name in names)))


def _recorder(name: Service, folder: Path) -> Recorder:
    if name == "wandb":
        from segmed.training.wandb_recorder import WandbRecorder

        return WandbRecorder(folder)
    from segmed.training.mlflow_recorder import MlflowRecorder

    return MlflowRecorder(folder)


class TrackerGroup(Tracker):
    """Several trackers as one.

    Args:
        trackers: the first one writes the run folder and speaks to the reader; the others end before it.
    """

    def __init__(self, trackers: tuple[Tracker, ...]) -> None:
        self.trackers = trackers
        self._open = ExitStack()

    def scalars(self, step: int, values: Mapping[str, float], *, minutes: float) -> None:
        """Figures of the training by name."""
        for tracker in self.trackers:
            tracker.scalars(step, values, minutes=minutes)

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
        for tracker in self.trackers:
            tracker.validation(step, metrics, minutes=minutes, figures=figures, note=note)

    def test(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of the test by name."""
        for tracker in self.trackers:
            tracker.test(step, metrics)

    def pictures(self, step: int, figures: Mapping[str, Any]) -> None:
        """Pictures by name, matplotlib figures."""
        for tracker in self.trackers:
            tracker.pictures(step, figures)

    def progress(self, share: float, step: int) -> None:
        """Where the run stands, in [0, 1]."""
        for tracker in self.trackers:
            tracker.progress(share, step)

    def text(self, name: str, text: str) -> None:
        """A text such as the config."""
        for tracker in self.trackers:
            tracker.text(name, text)

    def hyper_parameters(self, step: int, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Settings beside the final metrics."""
        for tracker in self.trackers:
            tracker.hyper_parameters(step, settings, metrics)

    def line(self, text: str) -> None:
        """A line for the reader."""
        for tracker in self.trackers:
            tracker.line(text)

    def flush(self) -> None:
        """Bring everything to disk."""
        for tracker in self.trackers:
            tracker.flush()

    def __enter__(self) -> Tracker:
        with ExitStack() as entered:
            for tracker in self.trackers:
                entered.enter_context(tracker)
            self._open = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all."""
        self._open.__exit__(kind, error, trace)


class ServiceTracker(Tracker):
    """Hands records to a service from a thread of its own; after the first failure it warns once and is silent.

    Args:
        title: of the service, for the reader.
        recorder: of the service.
    """

    def __init__(self, title: str, recorder: Recorder) -> None:
        self.title, self.recorder = title, recorder
        self._jobs: queue.Queue[Callable[[], object] | None] = queue.Queue(WAITING)
        self._answered, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"segmed {title}", daemon=True)

    def __enter__(self) -> Tracker:
        """Connect before the training begins; data workers are started when all of the service is imported."""
        self._thread.start()
        if not self._answered.wait(CONNECT_SECONDS):
            self._lose(f"no answer in {CONNECT_SECONDS:.0f} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is left, for a while."""
        if not self._lost.is_set():
            self._hand_on(partial(self.recorder.close, failed=error is not None))
            self._jobs.put(None)
            seconds = CLOSE_SECONDS if error is None else STOPPED_SECONDS
            self._thread.join(seconds)
            if self._thread.is_alive():
                self._lose(f"not everything was sent within {seconds:.0f} s of the end")

    def scalars(self, step: int, values: Mapping[str, float], *, minutes: float) -> None:
        """Figures of the training by name."""
        self._scalars(step, tagged("train", values))

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

    def test(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of the test by name."""
        self._scalars(step, tagged("test", metrics))

    def pictures(self, step: int, figures: Mapping[str, Any]) -> None:
        """Pictures by name, matplotlib figures; drawn here, as a figure may change afterwards."""
        for name, figure in figures.items():
            if not self._lost.is_set():
                self._hand_on(partial(self.recorder.picture, step, name, _drawn(figure)))

    def text(self, name: str, text: str) -> None:
        """A text such as the config."""
        self._hand_on(partial(self.recorder.text, name, text))

    def hyper_parameters(self, step: int, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Settings beside the final metrics."""
        self._hand_on(partial(self.recorder.settings, dict(settings)))
        self._scalars(step, metrics)

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        plain = {tag: float(value) for tag, value in values.items()}
        self._hand_on(partial(self.recorder.scalars, step, plain))

    # ------------------------------------------------------------ the thread

    def _hand_on(self, job: Callable[[], object]) -> None:
        if self._lost.is_set():
            return
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._lose(f"{WAITING} records wait for it")

    def _work(self) -> None:
        self._try(self._connect)
        self._answered.set()
        while (job := self._jobs.get()) is not None:
            if not self._lost.is_set():
                self._try(job)

    def _connect(self) -> None:
        logger.info("%s: %s", self.title, self.recorder.connect())

    def _try(self, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception as error:  # of any kind: of the network, of the package, of the account
            self._lose(" ".join(str(error).split()) or type(error).__name__)

    def _lose(self, reason: str) -> None:
        if not self._lost.is_set():
            self._lost.set()
            logger.warning("%s records no more of this run, which goes on: %s", self.title, reason[:300])


def _drawn(figure: Any) -> Image:
    from PIL import Image

    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file).convert("RGB")
