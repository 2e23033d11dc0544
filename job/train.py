"""One training run from data to result: `train_and_evaluate`. `ray submit` runs this file.

TensorFlow is imported inside the functions: the command line, and later the driver of a cluster
run, can check everything and fail in a fraction of a second without it.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

if __name__ == "__main__":
    # `ray submit` runs a file: this one is a door to the command, wherever it is installed.
    installed = entry_points(group="console_scripts", name="lenet")
    if not installed:
        print("error: lenet is not installed here; `make venv` installs it", file=sys.stderr)
        sys.exit(2)
    [command] = installed
    command.load()(["train", *sys.argv[1:]])

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from job.config.config import TrainConfig
from job.data.examples import Examples
from job.errors import DisplacedError, StopRequestedError
from job.runs.data import examples_of, keep_dataset
from job.runs.run import Run
from job.text import counted
from job.training.attempt import Attempt, TrainingProcess
from job.training.beginning import with_start
from job.training.building import architecture_of
from job.training.progress import NoteTaker, Progress
from job.training.supervisor import Supervisor, Unsupervised

# In fewer steps than this hardly anything is learned, and a net of a few pictures takes a second
# for as many as are advised then.
FEW_STEPS, ENOUGH_STEPS = 50, 400
SMALL_BATCH = 16


def few_steps(config: TrainConfig, rows: int) -> str:
    """What to say where a run of so many rows has too few steps to learn from; else nothing.

    Who trains on fewer rows than there are wants it so.
    """
    steps = -(-rows // config.batch_size) * config.epochs
    if steps >= FEW_STEPS or config.limit_train is not None:
        return ""
    batch = min(config.batch_size, SMALL_BATCH)
    epochs = -(-ENOUGH_STEPS // -(-rows // batch))
    return (
        f"{counted(rows, 'row')} in batches of {config.batch_size} make "
        f"{counted(steps, 'step')}, in which little is learned; more: "
        f"--batch-size {batch} --epochs {epochs}"
    )


@contextlib.contextmanager
def training_session(
    run: Run,
    progress: NoteTaker,
    *,
    threads: int | None = None,
    lock: bool = True,
    check_device: Callable[[], object] = lambda: None,
) -> Iterator[tuple[Run, Examples]]:
    """Checks what can be checked without TensorFlow, then holds the run's folder for the block.

    Args:
        run: The run.
        progress: Is told what begins.
        threads: Those of each worker, where processors train it.
        lock: As `Run.claimed`.
        check_device: Called before anything is written; raises what keeps the device from training.

    Yields:
        The run, with its model known, and what it is trained on, verified. A driver, whose workers
        read their own, lets the latter go.

    Raises:
        InputError: The data or the model given can't be used, or another process trains this run;
            nothing was written.
    """
    examples = examples_of(run)
    rows = len(examples.training(run.config.limit_train)[0])
    if run.folder.is_new:
        examples.check_classes(run.config.data)
    if run.source and run.folder.is_new and run.built is None:
        run = run.with_architecture(architecture_of(run.source, run.config, examples.dataset))
    if run.folder.is_new:
        run = with_start(run, examples.dataset)
    if threads:
        run = run.with_lanes(threads, examples.dataset)
    check_device()
    config = run.config
    with run.claimed(lock=lock):
        keep_dataset(run.storage, examples.dataset)
        if examples.description:
            progress.note(examples.description)
        progress.note(
            f"{config.name}: {config.model} on {examples.dataset.name}, "
            f"{counted(config.epochs, 'epoch')}, batch {config.batch_size}, {config.optimizer} "
            f"{config.learning_rate:g}, seed {config.seed}"
        )
        few = few_steps(config, rows)
        if few and run.folder.is_new:
            progress.note(few)
        # Else a driver would hold the pixels here for as long as its workers train.
        given = [examples]
        del examples
        yield run, given.pop()


def train_and_evaluate(
    run: Run,
    examples: Examples,
    progress: Progress,
    supervisor: Supervisor | None = None,
    *,
    process: TrainingProcess | None = None,
    evaluate: bool = True,
) -> dict[str, Any] | None:
    """Trains a run to its end, from its last checkpoint if it has one, and evaluates it.

    Call it within `training_session`. With several workers, each of them calls this.

    Args:
        run: Where and how to train.
        examples: What `training_session` gave, or on a worker `examples_of`.
        progress: Follows the run.
        supervisor: What the worker hears from outside.
        process: What trains; by default it does so alone, on the whole machine.
        evaluate: Read the test set at the end. A trial of a sweep leaves it alone, and the run is
            not marked as finished.

    Returns:
        The content of the run's `result.json`; None on all workers but the first, and without
        `evaluate`.

    Raises:
        StopRequestedError: A stop was requested; running again with the same name goes on.
        DisplacedError: A machine is being taken away; running again elsewhere goes on.
        TrainingDivergedError: The loss became NaN or infinite.
        JobError: No checkpoint can be trusted, or the store stayed away for too long.
        NoGpuError: One is expected and TensorFlow finds none.
        DisagreementError: The workers restored different checkpoints.
    """
    process, supervisor = process or TrainingProcess(), supervisor or Unsupervised()
    attempt = Attempt(run, examples, process, supervisor, progress)
    with contextlib.closing(attempt):
        from job.training.loop import Ending

        ending, step = attempt.go_on(), f"{attempt.state.step:,}"
        if ending is Ending.LEFT:
            raise DisplacedError(f"left a machine that is being taken away at step {step}")
        if ending is Ending.STOPPED:
            raise StopRequestedError(
                f"stopped at step {step} with a checkpoint in {run.storage.uri}; "
                f"continue with: {run.command}",
                supervisor.stop_requested() or signal.SIGINT,
            )
        return attempt.finish() if evaluate and process.worker.rank == 0 else None
