"""The training loop between the compiled spans: metrics, validation, checkpoints, stopping."""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from job.config.config import TrainConfig
from job.engine.device_split import DeviceSplit
from job.engine.engine import Engine, StepMetrics
from job.engine.randomness import batches, example_order
from job.errors import TrainingDivergedError
from job.runs.state import EpochProgress, EpochRow, RunState, best_row
from job.training.pace import STARTING_SECONDS, Pace
from job.training.profile import Profile
from job.training.progress import Progress, SpanReport
from job.training.supervisor import Supervisor
from job.training.writer import RunWriter
from job.waiting import waiting


class Ending(enum.Enum):
    """Why training ended: all done, asked to stop, or to go on elsewhere."""

    FINISHED = enum.auto()
    STOPPED = enum.auto()
    LEFT = enum.auto()


class Agreement(NamedTuple):
    """What all workers do after a span, decided together."""

    end: Ending | None
    checkpoint: bool
    report: bool
    next_span: int


def initial_state(engine: Engine) -> RunState:
    """The state before the first step: the engine's own weights and optimizer, no history."""
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
    supervisor: Supervisor,
    writer: RunWriter,
    progress: Progress,
    profile: Profile,
) -> tuple[RunState, Ending]:
    """Trains from `state` until the run is finished or a stop is requested.

    Args:
        engine: What computes; every worker has its own, like all that follows.
        state: Where to begin.
        train: The examples to learn from.
        validation: Those that tell which epoch is the best.
        config: How often, and how long.
        supervisor: What the worker hears from outside.
        writer: Keeps what is reached.
        progress: Follows the run.
        profile: Traces some of the steps, if that was asked for.

    Returns:
        The state reached, of which a checkpoint was taken, and why it goes no further.

    Raises:
        TrainingDivergedError: The loss or a weight became NaN or infinite.
    """
    with waiting("TensorFlow to compile, or to compute, the next steps") as heard:
        return _run_epochs(
            *(engine, state, train, validation, config, supervisor, writer, progress, profile),
            heard,
        )


def _run_epochs(
    engine: Engine,
    state: RunState,
    train: DeviceSplit,
    validation: DeviceSplit,
    config: TrainConfig,
    supervisor: Supervisor,
    writer: RunWriter,
    progress: Progress,
    profile: Profile,
    heard: Callable[[], None],
) -> tuple[RunState, Ending]:
    engine.restore(state.weights, state.optimizer)
    pace = Pace(config)
    supervisor.heartbeat(STARTING_SECONDS)
    while not is_finished(state, config):
        epoch = len(state.history)
        order = example_order(config.seed, epoch, len(train))
        rows = batches(order, config.batch_size)
        while state.current.steps < len(rows):
            done = state.current.steps
            steps = profile.limit(pace.next_span(state.step, len(rows) - done))
            began = time.perf_counter()
            with profile.span(steps):
                metrics = engine.train_span(train, rows[done : done + steps], state.step, epoch)
            seconds = time.perf_counter() - began
            supervisor.heartbeat(pace.patience)
            pace.measured(steps, seconds)
            state = _advance(state, metrics, rows[done : done + steps], seconds)
            writer.reached(state)
            progress.span(_report(state, config, len(rows)))
            heard()
            agreed = _agree(engine, pace, supervisor, state.step)
            pace.span_steps = agreed.next_span
            if state.current.steps < len(rows) and (agreed.end or agreed.checkpoint):
                state = _checkpoint(engine, state, writer)
                pace.checkpointed()
                supervisor.heartbeat(pace.patience)
                if agreed.end:
                    return state, agreed.end
        supervisor.heartbeat(pace.evaluation_patience)
        state = _end_epoch(engine, state, validation, config.best_by)
        pace.evaluated(state.history[-1].val_seconds)
        supervisor.heartbeat(pace.patience)
        row = state.history[-1]
        state = _checkpoint(engine, state, writer)
        pace.checkpointed()
        progress.epoch(row, config.epochs, state.best_epoch == row.epoch)
        heard()
        agreed = _agree(engine, pace, supervisor, state.step)
        if agreed.report:
            supervisor.report(row)
        if agreed.end and not is_finished(state, config):
            return state, agreed.end
        supervisor.heartbeat(pace.patience)
    return state, Ending.FINISHED


def _agree(engine: Engine, pace: Pace, supervisor: Supervisor, step: int) -> Agreement:
    """Adds up the workers' wishes; what only a clock can tell is left to the first worker."""
    is_chief = engine.rank == 0
    stop, leave, checkpoint, report, next_span = engine.sum_over_workers(
        [
            int(supervisor.stop_requested() > 0),
            int(supervisor.leave_requested()),
            int(supervisor.save_requested() or (is_chief and pace.checkpoint_due(step))),
            int(is_chief and supervisor.report_due()),
            pace.span_steps if is_chief else 0,
        ]
    )
    end = Ending.STOPPED if stop else Ending.LEFT if leave else None
    return Agreement(end, checkpoint > 0, report > 0, next_span)


def _advance(state: RunState, metrics: StepMetrics, rows: np.ndarray, seconds: float) -> RunState:
    bad = np.flatnonzero(~np.isfinite(metrics.loss_sum))
    if len(bad):
        raise TrainingDivergedError(
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


def _end_epoch(engine: Engine, state: RunState, validation: DeviceSplit, best_by: str) -> RunState:
    began = time.perf_counter()
    val_loss, val_accuracy = engine.evaluate(validation)
    val_seconds = time.perf_counter() - began
    if not np.isfinite(val_loss):
        raise TrainingDivergedError(
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
        val_seconds=val_seconds,
    )
    state = dataclasses.replace(state, current=EpochProgress(), history=(*state.history, row))
    if best_row(state.history, best_by) is row:
        state = dataclasses.replace(state, best_epoch=row.epoch, best_weights=engine.weights())
    return state


def _checkpoint(engine: Engine, state: RunState, writer: RunWriter) -> RunState:
    state = dataclasses.replace(
        state, weights=engine.weights(), optimizer=engine.optimizer_arrays()
    )
    # The loss of a step is computed before its update: weights can be lost while it is finite.
    if not state.is_finite():
        raise TrainingDivergedError(
            f"a weight became NaN or infinite before step {state.step + 1:,}; "
            "try a lower --learning-rate"
        )
    writer.checkpoint(state)
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
        accuracy=current.correct / current.examples,
        images_per_second=rate,
        eta_seconds=(total - state.step) * config.batch_size / rate,
        val_accuracy=state.history[-1].val_accuracy if state.history else None,
    )
