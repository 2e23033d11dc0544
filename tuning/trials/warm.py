"""A process that trains one run after another and keeps what they share: TensorFlow, the examples
on the device, and compiled functions. A process for each run would spend 10 s on them.

Nothing here knows of Ray. Each run is an ordinary one: the same engine, the same checkpoints, and
to the bit the weights of `lenet train` with the same settings and as many threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from job.config.config import TrainConfig
from job.data.catalogue import Dataset
from job.data.examples import Examples, check_same, open_examples
from job.runs.data import keep_dataset
from job.runs.run import Run
from job.runs.state import EpochRow
from job.train import taken_up
from job.training.progress import Silent
from job.training.writer import Keeper

if TYPE_CHECKING:
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine


class Epoch(NamedTuple):
    """A run after one of its epochs: all epochs so far, whether it is the last, and how often
    training was taken up again."""

    history: tuple[EpochRow, ...]
    is_last: bool
    restarts: int


class Loaded(NamedTuple):
    """Examples, verified and on the device; `source` says which."""

    source: tuple[Any, ...]
    examples: Examples
    train: DeviceSplit
    validation: DeviceSplit


class Warm:
    """What a process keeps from run to run.

    Args:
        threads: Threads for computing.
        gpus: The share of a GPU that Ray gave this process.
        dataset: What all runs are trained on.
    """

    def __init__(self, threads: int, gpus: float, dataset: Dataset) -> None:
        self._threads, self._gpus, self._dataset = threads, gpus, dataset
        # What the runs are trained on, in words; empty before the first.
        self.hardware = ""
        self._loaded: Loaded | None = None
        self._engines: list[Engine] = []

    def train(self, run: Run) -> Iterator[Epoch]:
        """Trains a run from its last checkpoint, an epoch at a time; epochs that it has already are
        yielded first. Whoever stops asking stops the run: it has a checkpoint of each epoch.

        Raises:
            TrainingDiverged: The loss became NaN or infinite.
            InputError, JobError: As `train_and_evaluate`.
        """
        loaded = self._load(run.config)
        from job.engine.runtime import compute_capability

        run = run.launched(self._device, compute_capability())
        config = run.config
        from job.training.loop import Hooks, initial_state, is_finished, run_epochs

        with run.claimed(lock=False), contextlib.ExitStack() as stack:
            keep_dataset(run.storage, loaded.examples.dataset)
            run.checkpoints.claim()
            state = run.restore()
            engine = self._engine(loaded, config)
            state = state or initial_state(engine)
            notes = taken_up(run, state, Silent(), self.hardware, self._accelerator)
            run.note(notes)
            for i in range(len(state.history)):
                is_last = i + 1 == len(state.history) and is_finished(state, config)
                yield Epoch(state.history[: i + 1], is_last, notes.restarts)
            keeper = stack.enter_context(
                contextlib.closing(Keeper(run, notes, is_active=True)),
            )
            hooks = Hooks(
                checkpoint=keeper.checkpoint,
                epoch_end=keeper.history,
                reached=keeper.reached,
                stop_requested=lambda: False,
                progress=Silent(),
            )
            while not is_finished(state, config):
                one_more = dataclasses.replace(config, epochs=len(state.history) + 1)
                with keeper.explaining():
                    state, _ = run_epochs(
                        engine, state, loaded.train, loaded.validation, one_more, hooks
                    )
                    is_last = is_finished(state, config)
                    if is_last:
                        keeper.wait()
                yield Epoch(state.history, is_last, notes.restarts)

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
        loaded = self._load(run.config)
        from job.results.result import finish
        from job.training.loop import initial_state

        run.checkpoints.claim()
        state = run.restore()
        initial = initial_state(self._engine(loaded, run.config))
        notes = run.notes()
        # A trained run has left both.
        assert state is not None and notes is not None
        workers = run.config.worker_limits[1]
        return finish(run, state, initial, notes, loaded.examples, hardware, workers)

    def forget(self) -> None:
        """Lets go of everything on the device, after an error that may have left it unusable."""
        self._engines.clear()
        self._loaded = None

    def _load(self, config: TrainConfig) -> Loaded:
        source = (config.dataset, config.data, config.limit_train)
        if self._loaded is None or self._loaded.source != source:
            examples = open_examples(config.dataset, config.data, patience=config.storage_timeout)
            check_same(examples.dataset, self._dataset, config.data, "the sweep")
            from job.engine.runtime import accelerator_record, hardware, start_tensorflow

            self._device = start_tensorflow(
                threads=self._threads,
                gpus=self._gpus,
                device=config.device,
                deterministic=config.deterministic,
            )
            self.hardware = hardware(self._device, self._threads)
            self._accelerator = accelerator_record()
            from job.engine.device_split import DeviceSplit

            train, validation = examples.training(config.limit_train)
            self._loaded = Loaded(
                source, examples, DeviceSplit.load(train), DeviceSplit.load(validation)
            )
        return self._loaded

    def _engine(self, loaded: Loaded, config: TrainConfig) -> Engine:
        """An engine for a new run; one that was compiled for a like run before, if there is."""
        from job.engine.engine import Engine

        dataset = loaded.examples.dataset
        classes, image_shape = len(dataset.labels), dataset.image_shape
        steps = -(-int(loaded.train.labels.shape[0]) // config.batch_size) * config.epochs
        for engine in self._engines:
            if engine.fits(config, classes, image_shape):
                engine.restart(config, steps)
                return engine
        engine = Engine(
            config,
            total_steps=steps,
            classes=classes,
            image_shape=image_shape,
        )
        self._engines.append(engine)
        return engine
