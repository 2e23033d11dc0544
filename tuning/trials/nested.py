"""A trial of several workers: a run of Ray Train within one of Ray Tune."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator

from cluster.workers.launch import launch
from job.runs.run import Run
from job.runs.state import EpochRow
from job.training.progress import Silent
from tuning.trials.warm import Epoch


class Epochs(Silent):
    """Passes a run's epochs on, from the thread in which it is followed."""

    def __init__(self) -> None:
        self.said: queue.Queue[EpochRow | BaseException | None] = queue.Queue()

    def epoch(self, row: EpochRow, epochs: int, is_best: bool) -> None:
        """Puts the epoch where the trial's own thread waits for it."""
        self.said.put(row)


def train_nested(run: Run) -> Iterator[Epoch]:
    """Trains a run on workers of the cluster that this process belongs to, an epoch at a time.

    Epochs that it has already are yielded first. Whoever stops asking stops the run. Unlike a warm
    process it does not wait for anybody between epochs.

    Raises:
        TrainingDivergedError, InputError, JobError: As `launch`.
    """
    history = () if run.folder.is_new else run.history()
    for i, _ in enumerate(history):
        yield Epoch(history[: i + 1], False, _restarts(run))
    epochs, stop = Epochs(), threading.Event()

    def follow() -> None:
        try:
            launch(
                run,
                epochs,
                stop_requested=lambda: signal.SIGTERM if stop.is_set() else 0,
                is_trial=True,
            )
            epochs.said.put(None)
        except BaseException as error:
            epochs.said.put(error)

    thread = threading.Thread(target=follow, name="nested-run", daemon=True)
    thread.start()
    try:
        while (said := epochs.said.get()) is not None:
            if isinstance(said, BaseException):
                raise said
            history = (*history[: said.epoch - 1], said)
            # The last one is over when the run is.
            if said.epoch < run.config.epochs:
                yield Epoch(history, False, _restarts(run))
        yield Epoch(history, True, _restarts(run))
    finally:
        stop.set()
        thread.join()


def _restarts(run: Run) -> int:
    reached = run.reached()
    return reached.restarts if reached else 0
