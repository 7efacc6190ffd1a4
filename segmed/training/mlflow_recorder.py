"""Records of a run in MLflow: on the server that is named, else in a file of the run folder."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmed.files import atomic_write_text

if TYPE_CHECKING:
    from PIL.Image import Image

EXPERIMENT = "segmed"


class MlflowRecorder:
    """One run of MLflow; `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` are heeded.

    Args:
        folder: of the run; `mlflow/` in it keeps the id and, without a server, all records.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.absolute().name
        self.place = folder.absolute() / "mlflow"
        self._client: Any = None
        self._run = ""
        self._last: dict[str, int] = {}  # tag -> step up to which the run has it from before

    def connect(self) -> str:
        """Begin the run, or go on with the one whose id the run folder keeps."""
        for talkative in ("mlflow", "alembic"):
            logging.getLogger(talkative).setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        server = os.environ.get("MLFLOW_TRACKING_URI")
        known = self.place / "run_id.txt"
        self.place.mkdir(exist_ok=True)
        uri = server or f"sqlite:///{(self.place / 'mlflow.db').as_posix()}"
        self._client = MlflowClient(tracking_uri=uri)
        if known.is_file():
            self._run = known.read_text(encoding="utf-8").strip()
            self._go_on()
        else:
            artifacts = None if server else (self.place / "artifacts").as_uri()
            self._run = self._client.create_run(self._experiment(artifacts), run_name=self.name).info.run_id
            atomic_write_text(known, self._run + "\n")
        return f"run {self._run} in {server or self.place}"

    def _experiment(self, artifacts: str | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        there = self._client.get_experiment_by_name(name)
        if there is not None:
            return str(there.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=artifacts))

    def _go_on(self) -> None:
        self._client.update_run(self._run, status="RUNNING")
        for tag in self._client.get_run(self._run).data.metrics:
            self._last[tag] = max(point.step for point in self._client.get_metric_history(self._run, tag))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures by tag; those of a step that was sent before are not taken again."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        new = {tag: value for tag, value in values.items() if step > self._last.get(tag, -1)}
        self._client.log_batch(self._run, metrics=[Metric(tag, value, now, step) for tag, value in new.items()])

    def picture(self, step: int, name: str, picture: Image) -> None:
        """One picture."""
        self._client.log_image(self._run, picture, key=name, step=step, synchronous=True)

    def text(self, name: str, text: str) -> None:
        """A text, as a file."""
        self._client.log_text(self._run, text, f"{name}.yaml")

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Hyper-parameters by dotted name."""
        from mlflow.entities import Param

        self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in settings.items()])

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._run, status="FAILED" if failed else "FINISHED")
