"""The loop that every training runs in; it knows none of the methods."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from segmed.errors import TrainingError
from segmed.training.checkpoint import Checkpoints, is_finite, random_state, set_random_state
from segmed.training.fit_settings import FitSettings
from segmed.training.fit_state import Batch, Draw, FitState, Validate, ValidationResult
from segmed.training.interruption import Interrupted, StopSignals, one_line_faults
from segmed.training.journal import Journal
from segmed.training.overfitting import LATE, overfits
from segmed.training.schedule import Budget
from segmed.training.steps import Step
from segmed.training.tracking import Tracker

ALMOST = 1e-9  # so that 3 / 10 of a run counts as three tenths


def fit(
    step: Step,
    batches: Callable[[int], Iterable[Batch]],
    budget: Budget,
    *,
    settings: FitSettings,
    checkpoints: Checkpoints,
    tracker: Tracker,
    validate: Validate | None = None,
    draw: Draw | None = None,
    broader: Sequence[Callable[[int], Iterable[Batch]]] = (),
) -> FitState:
    """Train until the budget is used up, and leave the best and the last weights.

    A run that is stopped and resumed takes the same steps as one that never was.

    Args:
        step: the method, with its networks.
        batches: step number -> the batches from there on; each has `image` (B, C, ...) and `case`.
        budget: how long, in steps or in minutes.
        settings: how often to validate and to save.
        checkpoints: files to write and to go on from.
        tracker: records of the run.
        validate: scores a network in evaluation mode; with several processes the leading one's result counts.
        draw: shows a training batch, once at the beginning and at each validation.
        broader: as `batches`, each more varied than the one before: the answers to overfitting that validation sees.

    Raises:
        Interrupted: SIGTERM or Ctrl-C; the checkpoint is written.
        TrainingError: a loss became NaN; the last good checkpoint is kept.
        TrainingError: the batches ended or a process that prepares them died.
        TrainingError: the GPU has too little memory.
        DiskError: a file could not be written; the ones before it are kept.
    """
    keeper = _Bookkeeper(
        step, budget, settings=settings, checkpoints=checkpoints, tracker=tracker, validate=validate, draw=draw
    )
    with StopSignals() as stop, one_line_faults(settings.resume_command):
        resumed = keeper.restore() if settings.resume else None
        state, journal = keeper.state, keeper.journal
        streams = [batches, *broader]
        data = iter(()) if state.ended else iter(streams[min(state.breadth, len(broader))](state.step))
        keeper.seed(resumed)  # after the loader was made: it draws a seed of its own
        budget.start()
        try:
            while not state.ended:
                ended = budget.finished(state.step)
                if keeper.validation_is_due(ended):
                    keeper.run_validation(ended, stop, answers=len(broader))
                    if keeper.answered:
                        data = keeper.undrawn(lambda: iter(streams[state.breadth](state.step)))
                    continue
                if ended:
                    keeper.end()
                    continue
                began = time.monotonic()
                batch = keeper.fetch(data, stop)
                if batch is not None:
                    values = step.step(batch, budget.progress(state.step))
                    state.step += 1
                    journal.add(state.step, batch, values)
                stopping = keeper.tick(stop.requested, time.monotonic() - began)
                keeper.show(batch)
                if stopping or keeper.checkpoint_is_due:
                    keeper.save()
                if stopping:
                    raise Interrupted(f"stopped after step {state.step}; go on with: {settings.resume_command}")
        except Interrupted:
            raise
        except KeyboardInterrupt:
            raise Interrupted(f"stopped at once; {keeper.kept()}; go on with: {settings.resume_command}") from None
    return state


class _Bookkeeper:
    """What happens beside the steps: logging, validating, saving."""

    def __init__(
        self,
        step: Step,
        budget: Budget,
        *,
        settings: FitSettings,
        checkpoints: Checkpoints,
        tracker: Tracker,
        validate: Validate | None,
        draw: Draw | None,
    ) -> None:
        self.step, self.budget, self.settings = step, budget, settings
        self.checkpoints, self.tracker, self.validate, self.draw = checkpoints, tracker, validate, draw
        self.ranks = checkpoints.ranks
        self.state = FitState()
        self.journal = Journal(self.ranks, kept=self.kept)
        self._saved_step: int | None = None
        self._saved_seconds = 0.0
        self._last_batch: Batch | None = None
        self.answered = False

    # ------------------------------------------------------------ start

    def restore(self) -> dict[str, Any]:
        """Load the checkpoint into step, budget and state; returns it."""
        saved = self.checkpoints.load()
        with self.checkpoints.reading():
            self.step.load_state_dict(saved["step"])
            self.budget.load_state_dict(saved["budget"])
            self.state = FitState(**saved["fit"])
            self.state.step = int(self.state.step)
            len(saved["random"])
        if self.state.ended and self.ranks.lead(lambda: not self.checkpoints.weights("last").is_file()):
            self.keep_weights()  # of a run of an earlier version, which was killed between its checkpoint and them
        self._saved_step, self._saved_seconds = self.state.step, self.budget.seconds
        self.tracker.line(f"going on after step {self.state.step}")
        if len(saved["random"]) != self.ranks.world:
            self.tracker.line(
                f"resumed on {self.ranks.world} processes instead of {len(saved['random'])}:"
                " the weights will differ from those of an unbroken run"
            )
        return saved

    def seed(self, saved: Mapping[str, Any] | None) -> None:
        """Set torch's generators, differently on each process."""
        if saved is not None and len(saved["random"]) == self.ranks.world:
            with self.checkpoints.reading():
                set_random_state(saved["random"][self.ranks.rank])
        else:
            torch.manual_seed(self.settings.seed * self.ranks.world + self.ranks.rank)

    def undrawn(self, make: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
        """Make a stream of batches, torch's generators as they were: a resumed run sets them after it made its own."""
        state = random_state()
        stream = make()
        set_random_state(state)
        return stream

    # ------------------------------------------------------------ around a step

    def fetch(self, data: Iterator[Batch], stop: StopSignals) -> Batch | None:
        """The next batch; none where the signal that stops the run took the data workers with it.

        Raises:
            TrainingError: there are no more.
        """
        try:
            return self.journal.waiting(lambda: next(data))
        except StopIteration:
            raise TrainingError(f"the batches ended at step {self.state.step}, before the run did") from None
        except (RuntimeError, ValueError):
            if not stop.requested or self.ranks.world > 1:
                raise
            return None

    def tick(self, stop: bool, step_seconds: float) -> bool:
        """Agree between the processes on the time and on whether to stop."""
        mine = [self.budget.elapsed(), step_seconds] if self.ranks.leads else [0.0, 0.0]
        seconds, step_seconds, stopping = self.ranks.maximum([*mine, float(stop)])
        self.budget.advance(seconds, step_seconds=step_seconds)
        return bool(stopping)

    def show(self, batch: Batch | None) -> None:
        """Pictures of the first batch, a row of figures now and then, the progress bar."""
        if self._last_batch is None and batch is not None:
            self._picture(batch, {})
        self._last_batch = batch or self._last_batch
        if self.journal.row_is_due:
            self.log()
        self.tracker.progress(self.budget.progress(self.state.step), self.state.step)

    def log(self) -> None:
        """Write what came together since the last row.

        Raises:
            TrainingError: something in it is NaN.
        """
        steps = self.journal.steps
        row = self.journal.row()
        if row:
            self.state.loss_sum += steps * row.get("loss", 0.0)
            self.state.loss_steps += steps
            self.tracker.scalars(self.state.step, {**row, **self.step.rates}, minutes=self.budget.seconds / 60)

    # ------------------------------------------------------------ saving

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the last checkpoint is old enough; the same on all processes."""
        return self.budget.seconds - self._saved_seconds >= 60 * self.settings.checkpoint_minutes

    def save(self) -> None:
        """Write the checkpoint, once all losses so far and all weights are known to be finite."""
        self.log()
        self.journal.excluding(self._save)

    def _save(self) -> None:
        method = self.step.state_dict()
        if not is_finite(method):
            raise TrainingError(f"a weight is not finite at step {self.state.step}: lower learning_rate; {self.kept()}")
        self.state.seconds = self.budget.seconds
        self.tracker.flush()
        self.checkpoints.save({"step": method, "fit": asdict(self.state), "budget": self.budget.state_dict()})
        self._saved_step, self._saved_seconds = self.state.step, self.budget.seconds

    def kept(self) -> str:
        """Which checkpoint there is, in words."""
        if self._saved_step is None:
            return "no checkpoint was written yet"
        return f"the checkpoint of step {self._saved_step} is kept"

    # ------------------------------------------------------------ validation and the end

    def validation_is_due(self, ended: bool) -> bool:
        """Whether to validate before the next step."""
        if self.validate is None or self.state.validated_step == self.state.step:
            return False
        number = self.budget.validations(self.settings.validations)
        now, then = self.budget.progress(self.state.step), self.state.validated_at
        return ended or math.floor(now * number + ALMOST) > math.floor(then * number + ALMOST)

    def run_validation(self, ended: bool, stop: StopSignals, *, answers: int = 0) -> None:
        """Save, validate, keep the weights if they are the best, answer overfitting, save again.

        Args:
            ended: whether this is the last validation.
            stop: the signals, which may come while it runs.
            answers: that there are to overfitting, those that were given included.
        """
        self.save()
        began = time.monotonic()
        with stop.at_once(self.ranks.world == 1):
            result = self.journal.excluding(self._validate)
        (seconds,) = self.ranks.maximum([time.monotonic() - began])
        self.state.validated_at = self.budget.progress(self.state.step)
        self.state.validated_step = self.state.step
        self.budget.validation_seconds = seconds
        self.tick(False, self.budget.step_seconds)
        self._judge(result)
        self.answered = not ended and self.state.breadth < answers and self._overfits()
        if self.answered:
            self.state.begin_anew()
        patience = self.settings.patience
        if ended or (patience is not None and self.state.worse >= patience):
            self.end()
        else:
            self.save()

    def _overfits(self) -> bool:
        """Whether validation shows it while there is time for an answer; said in the log."""
        state = self.state
        seen = overfits(state.losses, state.trained) if state.worse >= 2 and state.validated_at <= LATE else ""
        if seen:
            self.tracker.line(f"overfitting: {seen}: from here on patches are changed more")
        return bool(seen)

    def _validate(self) -> ValidationResult:
        if self.validate is None:
            raise RuntimeError("no validation was given")
        network = self.step.evaluation_network
        training = network.training
        network.eval()
        try:
            with torch.no_grad():
                return self.validate(network)
        finally:
            network.train(training)

    def _judge(self, result: ValidationResult) -> None:
        state = self.state
        score, metrics = self.ranks.lead(lambda: (float(result.score), dict(result.metrics)))
        score = -math.inf if math.isnan(score) else score
        if "validation/loss" in metrics:
            state.losses.append(float(metrics["validation/loss"]))
            state.trained.append(state.loss_sum / max(state.loss_steps, 1))
            state.loss_sum, state.loss_steps = 0.0, 0
        better = state.best_score is None or score > state.best_score
        if better:
            self.checkpoints.save_weights("best", self.step.evaluation_network, step=state.step, score=f"{score:.6f}")
            state.best_score, state.best_step, state.worse = score, state.step, 0
            state.best_metrics = {name: float(value) for name, value in metrics.items()}
        else:
            state.worse += 1
        self.tracker.validation(
            state.step,
            {"score": score, **metrics},
            minutes=self.budget.seconds / 60,
            figures=result.figures,
            note="best so far" if better else f"best {state.best_score:.4f} at step {state.best_step}",
        )
        if self._last_batch is not None and self.ranks.leads:
            self._picture(self._last_batch, self.step.views(self._last_batch))

    def _picture(self, batch: Batch, views: Mapping[str, Any]) -> None:
        if self.draw is not None and self.ranks.leads:
            self.tracker.pictures(self.state.step, {"train/patches": self.draw(batch, views)})

    def keep_weights(self) -> None:
        """Write the weights as they are as the last ones."""
        network, step = self.step.evaluation_network, self.state.step
        self.checkpoints.save_weights("last", network, step=step)
        if self.state.best_score is None:
            self.checkpoints.save_weights("best", network, step=step)

    def end(self) -> None:
        """Write the last weights; where nothing was validated they are the best, too.

        The checkpoint that says so is written after them, so that a run killed in between ends with the same weights.
        """
        self.save()
        self.keep_weights()
        self.state.ended = True
        self.save()
        self.tracker.line(f"trained {self.state.step} steps in {self.budget.seconds / 60:.1f} minutes")
