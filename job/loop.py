"""The training loop between the compiled spans: metrics, validation, checkpoints, stopping."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from job.config import TrainConfig
from job.engine import DeviceSplit, Engine, StepMetrics
from job.errors import TrainingDiverged
from job.progress import Progress, SpanReport
from job.randomness import batches, example_order
from job.state import EpochProgress, EpochRow, RunState

# Spans are as long as this, so that the display moves and a signal is answered at once, while
# Python is met a few times a second only. Their length has no influence on the numbers.
SPAN_SECONDS = 0.5
FIRST_SPAN_STEPS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop asks of its surroundings.

    Attributes:
        checkpoint: Keeps a state.
        epoch_end: Told of the state after each epoch.
        stop_requested: Whether to stop at the next chance.
        progress: Follows the run.
    """

    checkpoint: Callable[[RunState], None]
    epoch_end: Callable[[RunState], None]
    stop_requested: Callable[[], bool]
    progress: Progress


def initial_state(engine: Engine) -> RunState:
    return RunState(weights=engine.weights(), optimizer=engine.optimizer_arrays())


def is_finished(state: RunState, config: TrainConfig) -> bool:
    """Whether all epochs are done, or `patience` epochs passed without a better one."""
    epochs = len(state.history)
    stalled = config.patience is not None and epochs - state.best_epoch >= config.patience
    return epochs >= config.epochs or stalled


def run_epochs(
    engine: Engine,
    state: RunState,
    train: DeviceSplit,
    validation: DeviceSplit,
    config: TrainConfig,
    hooks: Hooks,
) -> RunState:
    """Trains from `state` until the run is finished or a stop is requested.

    Returns:
        The state reached; `is_finished` tells which of the two it was. A checkpoint of it was
        taken.

    Raises:
        TrainingDiverged: The loss or a weight became NaN or infinite.
    """
    engine.restore(state.weights, state.optimizer)
    pace = _Pace(config)
    while not is_finished(state, config):
        epoch = len(state.history)
        order = example_order(config.seed, epoch, int(train.labels.shape[0]))
        rows = batches(order, config.batch_size)
        while state.current.steps < len(rows):
            done = state.current.steps
            steps = pace.next_span(state.step, len(rows) - done)
            began = time.perf_counter()
            metrics = engine.train_span(train, rows[done : done + steps], state.step)
            seconds = time.perf_counter() - began
            pace.measured(steps, seconds)
            state = _advance(state, metrics, rows[done : done + steps], seconds)
            hooks.progress.span(_report(state, config, len(rows)))
            stop = hooks.stop_requested()
            if state.current.steps < len(rows) and (stop or pace.checkpoint_due(state.step)):
                state = _checkpoint(engine, state, hooks)
                pace.checkpointed()
            if stop and state.current.steps < len(rows):
                return state
        state = _end_epoch(engine, state, validation)
        row = state.history[-1]
        state = _checkpoint(engine, state, hooks)
        pace.checkpointed()
        hooks.progress.epoch(row, config.epochs, state.best_epoch == row.epoch)
        hooks.epoch_end(state)
        if hooks.stop_requested():
            return state
    return state


def _advance(state: RunState, metrics: StepMetrics, rows: np.ndarray, seconds: float) -> RunState:
    bad = np.flatnonzero(~np.isfinite(metrics.loss_sum))
    if len(bad):
        raise TrainingDiverged(
            f"the loss became {metrics.loss_sum[bad[0]]} at step {state.step + bad[0] + 1:,} "
            f"(epoch {len(state.history) + 1}); try a lower --learning-rate"
        )
    # Added up step by step: the total must not depend on where the spans were cut.
    loss_sum = state.current.loss_sum
    for value in metrics.loss_sum:
        loss_sum += float(value)
    current = state.current
    return dataclasses.replace(
        state,
        step=state.step + len(rows),
        current=EpochProgress(
            steps=current.steps + len(rows),
            loss_sum=loss_sum,
            correct=current.correct + int(metrics.correct.sum()),
            examples=current.examples + int((rows >= 0).sum()),
            seconds=current.seconds + seconds,
        ),
    )


def _end_epoch(engine: Engine, state: RunState, validation: DeviceSplit) -> RunState:
    val_loss, val_accuracy = engine.evaluate(validation)
    if not np.isfinite(val_loss):
        raise TrainingDiverged(
            f"the validation loss became {val_loss} in epoch {len(state.history) + 1}; "
            "try a lower --learning-rate"
        )
    current = state.current
    row = EpochRow(
        epoch=len(state.history) + 1,
        loss=current.loss_sum / current.examples,
        accuracy=current.correct / current.examples,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        seconds=current.seconds,
        images_per_second=current.examples / current.seconds,
    )
    state = dataclasses.replace(state, current=EpochProgress(), history=(*state.history, row))
    if state.best is None or row.val_loss < state.best.val_loss:
        state = dataclasses.replace(state, best_epoch=row.epoch, best_weights=engine.weights())
    return state


def _checkpoint(engine: Engine, state: RunState, hooks: Hooks) -> RunState:
    state = dataclasses.replace(
        state, weights=engine.weights(), optimizer=engine.optimizer_arrays()
    )
    # The loss of a step is computed before its update: weights can be lost while it is finite.
    if not state.is_finite():
        raise TrainingDiverged(
            f"a weight became NaN or infinite before step {state.step + 1:,}; "
            "try a lower --learning-rate"
        )
    hooks.checkpoint(state)
    return state


def _report(state: RunState, config: TrainConfig, steps_per_epoch: int) -> SpanReport:
    current = state.current
    rate = current.examples / current.seconds
    total = config.epochs * steps_per_epoch
    return SpanReport(
        epoch=len(state.history) + 1,
        epochs=config.epochs,
        step=current.steps,
        steps_per_epoch=steps_per_epoch,
        loss=current.loss_sum / current.examples,
        images_per_second=rate,
        eta_seconds=(total - state.step) * config.batch_size / rate,
        val_accuracy=state.history[-1].val_accuracy if state.history else None,
    )


class _Pace:
    """Chooses span lengths and the moments of checkpoints."""

    def __init__(self, config: TrainConfig) -> None:
        self._every_steps = config.checkpoint_steps
        self._every_seconds = config.checkpoint_seconds
        self._span = FIRST_SPAN_STEPS
        self._is_first = True
        self.checkpointed()

    def next_span(self, step: int, left_in_epoch: int) -> int:
        steps = min(self._span, left_in_epoch)
        if self._every_steps:
            steps = min(steps, self._every_steps - step % self._every_steps)
        return steps

    def measured(self, steps: int, seconds: float) -> None:
        # The first call includes tracing and compiling.
        if not self._is_first:
            wanted = steps * SPAN_SECONDS / seconds
            self._span = max(1, min(round(wanted), 2 * self._span))
        self._is_first = False

    def checkpoint_due(self, step: int) -> bool:
        if self._every_steps:
            return step % self._every_steps == 0
        return time.monotonic() - self._last >= self._every_seconds

    def checkpointed(self) -> None:
        self._last = time.monotonic()
