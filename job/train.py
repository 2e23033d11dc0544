"""One training run from data to result: `train_and_evaluate`. `ray submit` runs this file.

TensorFlow is imported inside the functions: the command line, and later the driver of a cluster
run, can check everything and fail in a fraction of a second without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from job.datasets import CATALOGUE, test_split, training_splits
from job.download import obtain
from job.errors import Displaced, Interrupted, JobError, TrainingDiverged
from job.progress import Progress
from job.runs import REACHED_FILE, RESULT_FILE, Notes, Run, to_json
from job.state import RunState, sha256_of

if TYPE_CHECKING:
    from job.engine import Engine

# Importing TensorFlow and building a model on a busy machine.
STARTING_SECONDS = 120.0
# Evaluating and drawing, once.
FINISHING_SECONDS = 300.0
VERSIONED = ("lenet-on-ray", "tensorflow", "keras", "ray", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """A worker's place among the workers of a run.

    Attributes:
        rank: Its number; number 0 writes what the run leaves.
        world: How many there are.
        threads: Threads for computing; all processors by default.
    """

    rank: int = 0
    world: int = 1
    threads: int | None = None


class Outside(Protocol):
    """What a worker hears from outside its training loop."""

    def stop_requested(self) -> int:
        """The number of the signal that asks the run to stop, 0 for none."""

    def checkpoint_requested(self) -> bool:
        """Whether a checkpoint is wanted now, because a machine will be taken away."""

    def leave_requested(self) -> bool:
        """Whether training has to end here now and go on elsewhere, for the same reason."""

    def alive(self, limit: float) -> None:
        """Something was achieved; if nothing follows for `limit` seconds, this worker hangs."""


class Alone:
    """A run in this process hears signals only."""

    def __init__(self, stop_requested: Callable[[], int] = lambda: 0) -> None:
        self.stop_requested = stop_requested

    def checkpoint_requested(self) -> bool:
        return False

    def leave_requested(self) -> bool:
        return False

    def alive(self, limit: float) -> None:
        pass


@contextlib.contextmanager
def begun(run: Run, progress: Progress) -> Iterator[None]:
    """Checks everything that can be checked without TensorFlow, then holds the run's folder for
    the time of the block.

    Raises:
        InputError: The data given can't be used, or another process trains this run; nothing was
            written.
    """
    config = run.config
    contents = obtain(config.dataset, config.data)
    training_splits(contents, CATALOGUE[config.dataset], config.limit_train)
    with run.begun():
        progress.note(
            f"{config.name}: {config.model} on {config.dataset}, {config.epochs} epochs, "
            f"batch {config.batch_size}, {config.optimizer} {config.learning_rate:g}, "
            f"seed {config.seed}"
        )
        yield


def train_and_evaluate(
    run: Run,
    progress: Progress,
    outside: Outside | None = None,
    *,
    place: Place = Place(),
    verbose: bool = False,
) -> dict[str, Any] | None:
    """Trains a run, within `begun`, to its end, from its last checkpoint if it has one, and
    evaluates it. With several workers, each of them calls this with its place.

    Args:
        run: Where and how to train.
        progress: Follows the run.
        outside: What the worker hears from outside.
        place: This worker's place.
        verbose: Let the frameworks log.

    Returns:
        The content of the run's `result.json`; None on all workers but the first.

    Raises:
        Interrupted: A stop was requested; running again with the same name goes on.
        Displaced: A machine is being taken away; running again elsewhere goes on.
        TrainingDiverged: The loss became NaN or infinite.
        JobError: No checkpoint can be trusted, or the workers don't agree on one.
    """
    outside = outside or Alone()
    config, dataset = run.config, CATALOGUE[run.config.dataset]
    contents = obtain(config.dataset, config.data)
    train, validation = training_splits(contents, dataset, config.limit_train)
    saved = run.restore()

    from job.runtime import USE_XLA, device_name, distribution, start_tensorflow

    outside.alive(STARTING_SECONDS)
    device = start_tensorflow(verbose=verbose, threads=place.threads)
    strategy = distribution(place.world)
    from job import artifacts
    from job.engine import DeviceSplit, Engine
    from job.loop import End, Hooks, initial_state, run_epochs

    steps_per_epoch = -(-len(train) // config.batch_size)
    engine = Engine(
        config,
        total_steps=steps_per_epoch * config.epochs,
        classes=len(dataset.labels),
        strategy=strategy,
        rank=place.rank,
        world=place.world,
        jit=USE_XLA[device],
    )
    is_chief = place.rank == 0
    initial = initial_state(engine)
    state = saved or initial
    check_agreement(engine, state)
    notes = taken_up(run, state, progress)
    if is_chief:
        run.note(notes)
    if is_chief and not saved:
        artifacts.write_data_figures(run.storage, train, dataset, config.seed)

    def checkpoint(state: RunState) -> None:
        at_epoch_end = state.current.steps == 0 and state.history
        run.checkpoints.save(
            state.step,
            state.to_files(),
            val_loss=state.history[-1].val_loss if at_epoch_end else None,
        )

    def history(state: RunState) -> None:
        artifacts.write_history(run.storage, state.history, run.created)

    def reached(state: RunState) -> None:
        run.note(dataclasses.replace(notes, step=state.step))

    def chief_only(write: Callable[[RunState], None]) -> Callable[[RunState], None]:
        """All workers hold the same state; the first one keeps it."""
        return write if is_chief else lambda state: None

    hooks = Hooks(
        checkpoint=chief_only(checkpoint),
        epoch_end=chief_only(history),
        reached=chief_only(reached),
        stop_requested=lambda: bool(outside.stop_requested()),
        checkpoint_requested=outside.checkpoint_requested,
        leave_requested=outside.leave_requested,
        progress=progress,
        alive=outside.alive,
    )
    try:
        state, end = run_epochs(
            engine, state, DeviceSplit.load(train), DeviceSplit.load(validation), config, hooks
        )
    except TrainingDiverged as error:
        kept = run.checkpoints.entries()
        last = (
            f"the last good checkpoint is step {kept[-1].step:,}" if kept else "no checkpoint yet"
        )
        raise TrainingDiverged(f"{error}; {last} in {run.storage.uri}") from None
    if end is End.LEFT:
        raise Displaced(f"left a machine that is being taken away at step {state.step:,}")
    if end is End.STOPPED:
        raise Interrupted(
            f"stopped at step {state.step:,} with a checkpoint in {run.storage.uri}; "
            f"continue with: {run.command}",
            outside.stop_requested() or signal.SIGINT,
        )
    outside.alive(FINISHING_SECONDS)
    if not is_chief:
        return None
    hardware = f"{device} ({device_name(device, place.threads)})"
    return finish(run, state, initial, notes, contents, hardware, place.world)


def taken_up(run: Run, state: RunState, progress: Progress) -> Notes:
    """The notes of a new attempt from `state`: what the last one had reached beyond is lost."""
    last = run.notes()
    if last is None:
        return Notes()
    lost = max(0, last.step - state.step)
    progress.note(
        f"continuing {run.config.name} at step {state.step:,} (epoch {len(state.history) + 1})"
        + (f", {lost:,} steps after the last checkpoint are trained again" if lost else "")
    )
    return Notes(step=state.step, restarts=last.restarts + 1, lost_steps=last.lost_steps + lost)


def check_agreement(engine: Engine, state: RunState) -> None:
    """Raises JobError where workers restored different checkpoints: their sums would still look
    like training."""
    digest = sha256_of([*state.weights.values(), *state.optimizer.values()])
    mine = [state.step, *(int(digest[i : i + 8], 16) for i in (0, 8))]
    if engine.sum_over_workers(mine) != [engine.world * value for value in mine]:
        raise JobError(f"the workers restored different checkpoints; this one step {state.step:,}")


def finish(
    run: Run,
    state: RunState,
    initial: RunState,
    notes: Notes,
    contents: dict[str, bytes],
    device: str,
    workers: int,
) -> dict[str, Any]:
    """Reads the test set, once, and writes what a finished run leaves; `result.json` last."""
    from job import artifacts
    from job.engine import score
    from job.evaluate import model_with

    config, dataset = run.config, CATALOGUE[run.config.dataset]
    artifacts.write_history(run.storage, state.history, run.created)
    test = test_split(contents, dataset)
    baseline = score(model_with(run, initial.weights), test)
    model = model_with(run, state.best_weights)
    scores = score(model, test)
    artifacts.write_result_figures(run.storage, state, test, scores.probabilities, dataset)
    run.storage.write("model.keras", artifacts.keras_file(model))
    seconds = sum(row.seconds for row in state.history)
    examples = sum(row.seconds * row.images_per_second for row in state.history)
    result = {
        "name": config.name,
        "model": config.model,
        "dataset": config.dataset,
        "recipe": config.recipe,
        "parameters": model.count_params(),
        "baseline_accuracy": baseline.accuracy,
        "epochs": len(state.history),
        "best_epoch": state.best_epoch,
        "val_loss": state.best.val_loss,
        "val_accuracy": state.best.val_accuracy,
        "test_loss": scores.loss,
        "test_accuracy": scores.accuracy,
        "train_seconds": seconds,
        "images_per_second": examples / seconds,
        "workers": workers,
        "restarts": notes.restarts,
        "lost_steps": notes.lost_steps,
        "device": device,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "optimizer": config.optimizer,
        "learning_rate": config.learning_rate,
        "schedule": config.schedule,
        "precision": config.precision,
        "weights_sha256": sha256_of(state.weights.values()),
        "best_weights_sha256": sha256_of(state.best_weights.values()),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONED},
        },
    }
    run.storage.delete(REACHED_FILE)
    run.storage.write(RESULT_FILE, to_json(result))
    return result


@contextlib.contextmanager
def stop_on_signal(progress: Progress) -> Iterator[Callable[[], int]]:
    """Turns the first SIGINT or SIGTERM into a request to stop; a second one ends at once.

    Yields:
        A function that returns the number of the signal received, 0 for none.
    """
    received = 0

    def handler(number: int, frame: object) -> None:
        nonlocal received
        if received:
            # Once more: leave through Python, so that the terminal is put in order; and should that
            # hang, the next one ends the process.
            for other in before:
                signal.signal(other, signal.SIG_DFL)
            raise KeyboardInterrupt
        received = number
        progress.note("stopping after a checkpoint … (once more to stop at once)")

    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received
    finally:
        for number, old in before.items():
            signal.signal(number, old)


if __name__ == "__main__":
    from job.cli import main

    main(["train", *sys.argv[1:]])
