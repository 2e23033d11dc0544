"""One training run from data to result: `train_and_evaluate`. `ray submit` runs this file.

TensorFlow is imported inside the functions: the command line, and later the driver of a cluster
run, can check everything and fail in a fraction of a second without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import math
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from cluster.checkpoints import Superseded
from cluster.storage import StoreError
from cluster.uploads import Uploads
from job.errors import Displaced, Interrupted, JobError, TrainingDiverged
from job.examples import Examples, examples_of, keep_dataset
from job.progress import Progress
from job.runs import REACHED_FILE, RESULT_FILE, Notes, Run, to_json
from job.state import RunState, sha256_of

if TYPE_CHECKING:
    from job.engine import Engine

# Importing TensorFlow and building a model on a busy machine.
STARTING_SECONDS = 120.0
# Evaluating and drawing, once.
FINISHING_SECONDS = 300.0
# How far the run got is noted so often where each note is a request that costs money.
NOTE_SECONDS = 1.0
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
    examples = examples_of(run)
    examples.training(config.limit_train)
    with run.begun():
        keep_dataset(run, examples.dataset)
        progress.note(
            f"{config.name}: {config.model} on {examples.dataset.name}, {config.epochs} epochs, "
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
        JobError: No checkpoint can be trusted, or the store stayed away for too long.
        Disagreement: The workers restored different checkpoints.
    """
    outside = outside or Alone()
    config = run.config
    examples = examples_of(run, patience=config.storage_timeout)
    dataset = examples.dataset
    train, validation = examples.training(config.limit_train)
    is_chief = place.rank == 0
    if is_chief:
        run.checkpoints.claim()
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
    initial = initial_state(engine)
    state = saved or initial
    check_agreement(engine, state)
    notes = taken_up(run, state, progress)
    if is_chief:
        run.note(notes)
    if is_chief and not saved:
        artifacts.write_data_figures(run.storage, train, dataset, config.seed)

    uploads = Uploads(background=is_chief and run.storage.is_remote)
    notes_due = Every(NOTE_SECONDS if run.storage.is_remote else 0.0)

    def checkpoint(state: RunState) -> None:
        at_epoch_end = state.current.steps == 0 and state.history
        val_loss = state.history[-1].val_loss if at_epoch_end else None
        uploads.submit(
            "checkpoint",
            lambda: run.checkpoints.save(state.step, state.to_files(), val_loss=val_loss),
        )

    def history(state: RunState) -> None:
        uploads.submit(
            "history",
            lambda: artifacts.write_history(run.storage, state.history, run.created),
        )

    def reached(state: RunState) -> None:
        if notes_due():
            here = dataclasses.replace(notes, step=state.step)
            uploads.submit("notes", lambda: run.note(here))

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
    with explained(run, uploads):
        state, end = run_epochs(
            engine, state, DeviceSplit.load(train), DeviceSplit.load(validation), config, hooks
        )
        outside.alive(config.storage_timeout + FINISHING_SECONDS)
        uploads.wait()
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
    with explained(run, uploads):
        return finish(run, state, initial, notes, examples, hardware, place.world)


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


@contextlib.contextmanager
def explained(run: Run, uploads: Uploads) -> Iterator[None]:
    """Adds to errors of training and of the store what is safe and how to go on."""
    try:
        yield
    except TrainingDiverged as error:
        uploads.wait()
        raise TrainingDiverged(f"{error}; {last_saved(run)}") from None
    except StoreError as error:
        raise JobError(
            f"{error}; {last_saved(run)}; when the store is back, continue with: {run.command}"
        ) from error
    except Superseded as error:
        raise JobError(f"{error}; this one ends") from error


def last_saved(run: Run) -> str:
    """What is safe, in words; known without asking the store."""
    step = run.checkpoints.last_committed
    where = run.storage.uri
    if step is None:
        return f"this attempt saved no checkpoint in {where}"
    return f"the last saved checkpoint is step {step:,} in {where}"


class Disagreement(Exception):
    """The workers did not begin from the same state."""


class Every:
    """True at most once in so many seconds, and the first time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = -math.inf

    def __call__(self) -> bool:
        now = time.monotonic()
        is_due = now - self._last >= self._seconds
        if is_due:
            self._last = now
        return is_due


def check_agreement(engine: Engine, state: RunState) -> None:
    """Raises Disagreement where workers restored different checkpoints: their sums would still look
    like training. It can happen when one was committed at that moment; another attempt helps."""
    digest = sha256_of([*state.weights.values(), *state.optimizer.values()])
    mine = [state.step, *(int(digest[i : i + 8], 16) for i in (0, 8))]
    if engine.sum_over_workers(mine) != [engine.world * value for value in mine]:
        raise Disagreement(
            f"the workers restored different checkpoints; this one step {state.step:,}"
        )


def finish(
    run: Run,
    state: RunState,
    initial: RunState,
    notes: Notes,
    examples: Examples,
    device: str,
    workers: int,
) -> dict[str, Any]:
    """Reads the test set, once, and writes what a finished run leaves; `result.json` last."""
    from job import artifacts
    from job.engine import score
    from job.evaluate import model_with

    config, dataset = run.config, examples.dataset
    artifacts.write_history(run.storage, state.history, run.created)
    test = examples.test()
    baseline = score(model_with(run, initial.weights, len(dataset.labels)), test)
    model = model_with(run, state.best_weights, len(dataset.labels))
    scores = score(model, test)
    artifacts.write_result_figures(run.storage, state, test, scores.probabilities, dataset)
    run.storage.write("model.keras", artifacts.keras_file(model))
    seconds = sum(row.seconds for row in state.history)
    examples = sum(row.seconds * row.images_per_second for row in state.history)
    result = {
        "name": config.name,
        "model": config.model,
        "dataset": dataset.name,
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
