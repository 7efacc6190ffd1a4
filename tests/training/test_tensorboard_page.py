"""TensorBoard in a real browser draws every curve of a run with all its points."""

import io
import subprocess
import sys

import pytest
from browser import Browser, browser, fetch, free_port  # noqa: F401  browser is a fixture
from rich.console import Console
from tensorboard.summary.writer import event_file_writer
from tiny_run import train_tiny

from segmed.training.checkpoint import Checkpoints
from segmed.training.ranks import Ranks
from segmed.training.tracking import RunTracker

pytestmark = pytest.mark.slow
CURVES = ["validation/best_dice", "validation/dice/left", "validation/dice/right", "validation/score"]
POINTS = """[...document.querySelectorAll('scalar-card')].map(card => {
  const own = [...card.querySelectorAll('line-chart path, line-chart circle')]
    .filter(drawn => !drawn.closest('mat-icon'));
  const lines = own.filter(drawn => drawn.tagName == 'path')
    .map(path => path.getAttribute('d').split(/[ML]/).length - 1);
  const single = own.filter(drawn => drawn.tagName == 'circle').length;
  return [card.querySelector('.tag').textContent.trim(), Math.max(single, ...lines)];
})"""


class KilledAfterAValidation(RunTracker):
    def validation(self, step, metrics, **given):
        super().validation(step, metrics, **given)
        if step == 20:
            raise KeyError("killed")


def finish(folder, *, resume: bool, kind: type[RunTracker] = RunTracker) -> None:
    step = Checkpoints(folder, ranks=Ranks()).last_step() if resume else 0
    with kind(folder, step=step, console=Console(file=io.StringIO())) as tracker:
        state = train_tiny(folder, steps=30, tracker=tracker, resume=resume)
        tracker.test(state.step, {"dice/left": 0.5})
        metrics = {"test/dice": 0.5, "validation/best_dice": 0.4}
        tracker.hyper_parameters(state.step, {"network.name": "tiny"}, metrics)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a TensorBoard that shows a finished run, and one that was killed after a validation and resumed."""
    folder = tmp_path_factory.mktemp("runs")
    finish(folder / "finished", resume=False)
    event_file_writer._global_uid = event_file_writer.AtomicCounter(0)  # files of one second are read as text
    with pytest.raises(KeyError):
        finish(folder / "resumed", resume=False, kind=KilledAfterAValidation)
    finish(folder / "resumed", resume=True)
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port"]
    server = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(30)


@pytest.mark.parametrize("run", ["finished", "resumed"])
def test_every_curve_is_drawn_with_a_point_a_validation(browser: Browser, address, run):  # noqa: F811
    while len(fetch(f"{address}/data/runs")) < 2:
        pass
    chosen = f"{address}/?runFilter={run}&tagFilter=validation%2F&smoothing=0#timeseries"
    browser.open(chosen, width=1400, height=2000)
    browser.wait_for(f"document.querySelectorAll('scalar-card').length == {len(CURVES)}")
    browser.wait_for(
        "[...document.querySelectorAll('scalar-card')].every(card => card.querySelector('line-chart svg'))"
    )
    browser.wait_for(f"({POINTS}).every(([tag, points]) => points > 0)")
    assert dict(browser.value(POINTS)) == {tag: 1 if "best" in tag else 3 for tag in CURVES}
