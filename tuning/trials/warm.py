"""A process that trains one run after another and keeps what they share.

That is TensorFlow, the examples on the device, and compiled functions.

Nothing here knows of Ray. Each run is an ordinary one: the same engine, the same checkpoints, and
to the bit the weights of `lenet train` with the same settings and as many threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from job.config.config import TrainConfig
from job.data.catalogue import Dataset
from job.data.convert import Conversion
from job.data.examples import Examples, check_same, open_examples
from job.runs.data import keep_dataset
from job.runs.run import Run
from job.runs.state import EpochRow
from job.training.attempt import Attempt, TrainingProcess, Worker
from job.training.progress import Silent
from job.training.supervisor import Unsupervised


class Epoch(NamedTuple):
    """A run after an epoch: all epochs so far, whether it is the last, how often it was resumed."""

    history: tuple[EpochRow, ...]
    is_last: bool
    restarts: int


class WarmProcess:
    """What a process keeps from run to run.

    Args:
        threads: Threads for computing.
        gpus: The share of a GPU that Ray gave this process.
        dataset: What all runs are trained on.
    """

    def __init__(self, threads: int, gpus: float, dataset: Dataset) -> None:
        self._threads = threads
        self._process = TrainingProcess(Worker(threads=threads, gpus=gpus))
        self._dataset = dataset
        self._loaded: tuple[tuple[str, str | None, Conversion], Examples] | None = None

    @property
    def hardware(self) -> str:
        """What the runs are trained on, in words; empty before the first."""
        return self._process.hardware

    def train(self, run: Run) -> Iterator[Epoch]:
        """Trains a run from its last checkpoint, an epoch at a time.

        Epochs that it has already are yielded first. Whoever stops asking stops the run: it has a
        checkpoint of each epoch.

        Raises:
            TrainingDivergedError: The loss became NaN or infinite.
            InputError, JobError: As `train_and_evaluate`.
        """
        examples, process = self._examples(run.config), self._process
        process.start(run.config, run.architecture)
        run = dataclasses.replace(run, config=process.launched(run.config))
        if process.device == "cpu":
            run = run.with_lanes(self._threads, examples.dataset)
        with run.claimed(lock=False):
            keep_dataset(run.storage, examples.dataset)
            attempt = Attempt(run, examples, process, Unsupervised(), Silent())
            with contextlib.closing(attempt):
                restarts, before = attempt.reached.restarts, attempt.state.history
                for i in range(1, len(before) + 1):
                    is_last = i == len(before) and attempt.is_finished
                    yield Epoch(before[:i], is_last, restarts)
                while not attempt.is_finished:
                    attempt.go_on(len(attempt.state.history) + 1)
                    yield Epoch(attempt.state.history, attempt.is_finished, restarts)

    def evaluate(self, run: Run, hardware: str) -> dict[str, Any]:
        """Reads the test set for a trained run, once, and leaves what a finished run leaves.

        Args:
            run: The run.
            hardware: What it was trained on.

        Returns:
            The content of its `result.json`.
        """
        result = run.result()
        if result is not None:
            return result
        examples = self._examples(run.config)
        self._process.start(run.config, run.architecture)
        from job.results.result import finish
        from job.training.loop import initial_state

        run.checkpoints.claim()
        state, reached = run.restore(), run.reached()
        # A trained run has left both.
        assert state is not None
        assert reached is not None
        initial = initial_state(self._process.engine(run.config, examples, run.architecture))
        workers = run.config.worker_limits[1]
        return finish(run, state, initial, reached, examples, hardware, workers)

    def forget(self) -> None:
        """Lets go of everything on the device, after an error that may have left it unusable."""
        self._process.forget()

    def _examples(self, config: TrainConfig) -> Examples:
        source = (config.dataset, config.data, Conversion.of(config))
        if self._loaded is None or self._loaded[0] != source:
            examples = open_examples(*source, patience=config.storage_timeout)
            check_same(examples.dataset, self._dataset, config.data, "the sweep")
            self._loaded = source, examples
        return self._loaded[1]
