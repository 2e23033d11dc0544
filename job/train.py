"""One training run from data to result: `train_and_evaluate`. `ray submit` runs this file.

TensorFlow is imported inside the functions: the command line, and later the driver of a cluster
run, can check everything and fail in a fraction of a second without it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from job.datasets import CATALOGUE, test_split, training_splits
from job.download import obtain
from job.errors import Interrupted, TrainingDiverged
from job.progress import Progress
from job.runs import RESULT_FILE, Run
from job.state import RunState, sha256_of

VERSIONED = ("lenet-on-ray", "tensorflow", "keras", "ray", "numpy")


def train_and_evaluate(
    run: Run,
    progress: Progress,
    *,
    stop_requested: Callable[[], int] = lambda: 0,
    verbose: bool = False,
) -> dict[str, Any]:
    """Trains a run to its end, from its last checkpoint if it has one, and evaluates it.

    Args:
        run: Where and how to train.
        progress: Follows the run.
        stop_requested: Asked often; a signal's number ends the run after a checkpoint.
        verbose: Let the frameworks log.

    Returns:
        The content of the run's `result.json`.

    Raises:
        InputError: The data given can't be used; nothing was written.
        Interrupted: A stop was requested; running again with the same name goes on.
        TrainingDiverged: The loss became NaN or infinite.
    """
    config = run.config
    dataset = CATALOGUE[config.dataset]
    contents = obtain(config.dataset, config.data)
    train, validation = training_splits(contents, dataset, config.limit_train)
    saved = None if run.is_new else run.restore()
    run.begin()
    progress.note(
        f"{config.name}: {config.model} on {config.dataset}, {config.epochs} epochs, "
        f"batch {config.batch_size}, {config.optimizer} {config.learning_rate:g}, "
        f"seed {config.seed}"
    )

    from job.runtime import USE_XLA, device_name, start_tensorflow

    device = start_tensorflow(verbose=verbose)
    from job import artifacts
    from job.engine import DeviceSplit, Engine
    from job.loop import Hooks, initial_state, is_finished, run_epochs

    steps_per_epoch = -(-len(train) // config.batch_size)
    engine = Engine(
        config,
        total_steps=steps_per_epoch * config.epochs,
        classes=len(dataset.labels),
        jit=USE_XLA[device],
    )
    initial = initial_state(engine)
    state = saved or initial
    if saved:
        progress.note(
            f"continuing {config.name} at step {saved.step:,} (epoch {len(saved.history) + 1})"
        )
    else:
        artifacts.write_data_figures(run.storage, train, dataset, config.seed)

    def checkpoint(state: RunState) -> None:
        at_epoch_end = state.current.steps == 0 and state.history
        run.checkpoints.save(
            state.step,
            state.to_files(),
            val_loss=state.history[-1].val_loss if at_epoch_end else None,
        )

    hooks = Hooks(
        checkpoint=checkpoint,
        epoch_end=lambda state: artifacts.write_history(run.storage, state.history, run.created),
        stop_requested=lambda: bool(stop_requested()),
        progress=progress,
    )
    try:
        state = run_epochs(
            engine, state, DeviceSplit.load(train), DeviceSplit.load(validation), config, hooks
        )
    except TrainingDiverged as error:
        kept = run.checkpoints.entries()
        last = (
            f"the last good checkpoint is step {kept[-1].step:,}" if kept else "no checkpoint yet"
        )
        raise TrainingDiverged(f"{error}; {last} in {run.storage.uri}") from None
    if not is_finished(state, config):
        raise Interrupted(
            f"stopped at step {state.step:,} with a checkpoint in {run.storage.uri}; "
            f"the same command with --name {config.name} goes on from there",
            stop_requested(),
        )
    return finish(run, state, initial, contents, f"{device} ({device_name(device)})")


def finish(
    run: Run, state: RunState, initial: RunState, contents: dict[str, bytes], device: str
) -> dict[str, Any]:
    """Reads the test set, once, and writes what a finished run leaves; `result.json` last."""
    from job import artifacts
    from job.engine import predict
    from job.evaluate import model_with, score

    config, dataset = run.config, CATALOGUE[run.config.dataset]
    artifacts.write_history(run.storage, state.history, run.created)
    test = test_split(contents, dataset)
    baseline = score(test.labels, predict(model_with(run, initial.weights), test.images))
    model = model_with(run, state.best_weights)
    probabilities = predict(model, test.images)
    scores = score(test.labels, probabilities)
    artifacts.write_result_figures(run.storage, state, test, probabilities, dataset)
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
        "workers": 1,
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
    run.storage.write(RESULT_FILE, artifacts.to_json(result))
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
        received = number
        for other in before:
            signal.signal(other, signal.SIG_DFL)
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
