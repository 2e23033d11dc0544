"""One attempt to train a run, done alike by a run alone, a worker and a trial of a sweep.

It is claimed, restored from its last checkpoint, agreed upon by all workers, and goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from job.config.config import TrainConfig
from job.config.xla import decided, launched
from job.data.examples import Examples
from job.engine.accelerator import has_device
from job.models.architecture import Architecture, sees_whole_batch
from job.runs.run import Reached, Run
from job.runs.start import begun_with
from job.runs.state import RunState, sha256_of
from job.training.pace import STARTING_SECONDS
from job.training.profile import Profile
from job.training.progress import NoteTaker, Progress
from job.training.supervisor import Supervisor
from job.training.writer import RunWriter
from job.versions import Device

if TYPE_CHECKING:
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.training.loop import Ending

# Evaluating and drawing, once.
FINISHING_SECONDS = 300.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """A process among the workers of a run.

    Attributes:
        rank: Its number; number 0 writes what the run leaves.
        world: How many there are.
        threads: Threads for computing; all processors by default.
        gpus: The share of a GPU that Ray gave it, 0 for none; None without Ray.
    """

    rank: int = 0
    world: int = 1
    threads: int | None = None
    gpus: float | None = None


class TrainingProcess:
    """What a process keeps from run to run: TensorFlow, examples on the device, compiled functions.

    A process for each run would spend 10 s on them.

    Args:
        worker: Which of a run's workers it is.
        verbose: Let the frameworks log.

    Attributes:
        device: The kind of device that trains, `gpu` or `cpu`; empty before the start.
        hardware: The same in words.
        accelerator: What a GPU's bits depend on beside its name.
    """

    def __init__(self, worker: Worker = Worker(), *, verbose: bool = False) -> None:
        self.worker, self._verbose = worker, verbose
        self.device = self.hardware = ""
        self.accelerator: Mapping[str, Any] | None = None
        self._strategy: Any = None
        self._engines: list[Engine] = []
        self._splits: tuple[Examples, int | None, DeviceSplit, DeviceSplit] | None = None

    def start(self, config: TrainConfig, architecture: Architecture | None = None) -> None:
        """Starts TensorFlow for a run, once.

        Args:
            config: The run's settings.
            architecture: Its model, if that is the user's own.

        Raises:
            NoGpuError: An expected GPU is missing.
        """
        if self.device:
            return
        from job.engine import runtime

        threads, gpus = self.worker.threads, self.worker.gpus
        in_one = architecture is not None and sees_whole_batch(architecture)
        if in_one:
            # They share the work of each operation, which is cut by their number.
            threads = config.lanes or threads
        self.device = runtime.start_tensorflow(
            verbose=self._verbose,
            threads=threads,
            gpus=gpus,
            device=config.device,
            deterministic=config.deterministic,
            in_one=in_one,
        )
        # Before any other operation.
        self._strategy = runtime.distribution(self.worker.world, gpus)
        self.hardware = runtime.hardware(self.device, threads)
        self.accelerator = runtime.accelerator_record()

    def launched(self, config: TrainConfig) -> TrainConfig:
        """The settings as they are trained here."""
        from job.engine.runtime import compute_capability

        return launched(config, self.device, compute_capability())

    def splits(
        self, examples: Examples, limit_train: int | None
    ) -> tuple[DeviceSplit, DeviceSplit]:
        """Training and validation examples on the device."""
        from job.engine.device_split import DeviceSplit

        kept = self._splits
        if kept is None or kept[0] is not examples or kept[1] != limit_train:
            train, validation = map(DeviceSplit.load, examples.training(limit_train))
            kept = self._splits = (examples, limit_train, train, validation)
        return kept[2:]

    def engine(
        self, config: TrainConfig, examples: Examples, architecture: Architecture | None = None
    ) -> Engine:
        """An engine for a new run; one that was compiled for a like run before, if there is.

        Args:
            config: The run's settings.
            examples: Its data set.
            architecture: Its model, if that is the user's own.
        """
        from job.engine.engine import Engine

        train, _ = self.splits(examples, config.limit_train)
        steps = -(-len(train) // config.batch_size) * config.epochs
        classes, image_shape = len(examples.dataset.labels), examples.dataset.image_shape
        for engine in self._engines:
            if engine.fits(config, classes, image_shape):
                engine.restart(config, steps)
                return engine
        engine = Engine(
            config,
            total_steps=steps,
            classes=classes,
            image_shape=image_shape,
            architecture=architecture,
            strategy=self._strategy,
            rank=self.worker.rank,
            world=self.worker.world,
        )
        self._engines.append(engine)
        return engine

    def forget(self) -> None:
        """Lets go of everything on the device, after an error that may have left it unusable."""
        self._engines.clear()
        self._splits = None


class Attempt:
    """An attempt, taken up where the run's last checkpoint stands; it is to be closed.

    Args:
        run: The run, held by who makes this.
        examples: What it is trained on.
        process: What trains.
        supervisor: What the worker hears from outside.
        progress: Follows the run.

    Attributes:
        state: Where the run stands.
        reached: How far it had come before.

    Raises:
        NoGpuError: One is expected and TensorFlow finds none.
        JobError: No checkpoint can be trusted.
        DisagreementError: The workers restored different checkpoints.
    """

    def __init__(
        self,
        run: Run,
        examples: Examples,
        process: TrainingProcess,
        supervisor: Supervisor,
        progress: Progress,
    ) -> None:
        self._run, self._examples, self._process = run, examples, process
        self._supervisor, self._progress = supervisor, progress
        is_chief = process.worker.rank == 0
        if is_chief:
            run.checkpoints.claim()
        saved = run.restore()
        # Only an object store is waited for; a hang must not last longer because one could be.
        is_remote = run.storage.is_remote or "://" in str(run.config.data)
        self._waiting = run.config.storage_timeout if is_remote else 0.0
        supervisor.heartbeat(STARTING_SECONDS + self._waiting)
        process.start(run.config, run.architecture)
        _note_unused(run.config, process, progress)
        self._config = process.launched(decided(run.config))
        self._engine = process.engine(self._config, examples, run.architecture)
        from job.training.loop import initial_state

        self._initial = initial_state(self._engine)
        given = run.start()
        if given:
            weights, said = begun_with(self._initial.weights, given)
            self._initial = dataclasses.replace(self._initial, weights=weights)
            if saved is None:
                progress.note(said)
        if self._engine.frozen and saved is None:
            progress.note(f"froze {', '.join(self._engine.frozen)}")
        self.state = saved or self._initial
        check_agreement(self._engine, self.state)
        self.reached = reached_before(
            run, self.state, progress, process.hardware, process.accelerator
        )
        if is_chief:
            run.note(self.reached)
        self._writer = RunWriter(run, self.reached, is_active=is_chief)
        self._profile = Profile(run, is_active=is_chief)

    def close(self) -> None:
        """Ends keeping; what still waits is not kept."""
        self._profile.close()
        self._writer.close()

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or `patience` epochs passed without a better one."""
        from job.training.loop import is_finished

        return is_finished(self.state, self._config)

    def go_on(self, epochs: int | None = None) -> Ending:
        """Trains to the end of the run, or of so many epochs.

        After so many, an object store may still be at what was reached.

        Raises:
            TrainingDivergedError: The loss became NaN or infinite.
            JobError: The store stayed away for too long.
        """
        from job.training.loop import Ending, run_epochs

        with self._writer.explaining():
            try:
                self.state, ending = run_epochs(
                    self._engine,
                    self.state,
                    *self._process.splits(self._examples, self._config.limit_train),
                    dataclasses.replace(self._config, epochs=epochs or self._config.epochs),
                    self._supervisor,
                    self._writer,
                    self._progress,
                    self._profile,
                )
            finally:
                # Also after a divergence what was reached is waited for.
                self._supervisor.heartbeat(FINISHING_SECONDS + self._waiting)
            if ending is not Ending.FINISHED or self.is_finished:
                self._writer.wait()
        return ending

    def finish(self) -> dict[str, Any]:
        """Evaluates the run, and returns the content of its `result.json`."""
        from job.results.result import finish

        self._supervisor.heartbeat(FINISHING_SECONDS + self._waiting)
        hardware, world = self._process.hardware, self._process.worker.world
        with self._writer.explaining():
            return finish(
                *(self._run, self.state, self._initial, self.reached),
                *(self._examples, hardware, world),
            )


def _note_unused(config: TrainConfig, process: TrainingProcess, progress: NoteTaker) -> None:
    """Says which GPUs of this machine take no part."""
    from job.engine.runtime import idle_gpus

    gpus = process.worker.gpus
    is_open = config.device == "auto" and config.gpus_per_worker is None
    if gpus == 0 and is_open and has_device():
        progress.note(
            "there is an NVIDIA device here, and Ray has no GPU to give: processors train; "
            "ray start --num-gpus tells it, --device cpu agrees"
        )
    if process.device == "gpu" and gpus is None and (idle := idle_gpus()):
        progress.note(f"1 of {1 + idle} GPUs trains; --workers {1 + idle} uses all of them")


def reached_before(
    run: Run,
    state: RunState,
    progress: NoteTaker,
    device: str,
    accelerator: Mapping[str, Any] | None,
) -> Reached:
    """How far a run got before an attempt that begins at `state`: what lies beyond is lost.

    Args:
        run: The run.
        state: Where the attempt begins.
        progress: Is told of it.
        device: What trains, in words.
        accelerator: What its bits depend on beside that, as `Device` has it.
    """
    here = Device(from_step=state.step, device=device, accelerator=accelerator)
    last = run.reached()
    if last is None:
        return Reached(devices=(here,))
    before = tuple(one for one in last.devices if one.from_step < state.step)
    is_same = before and dataclasses.replace(here, from_step=before[-1].from_step) == before[-1]
    lost = max(0, last.step - state.step)
    progress.note(
        f"continuing {run.name} at step {state.step:,} (epoch {len(state.history) + 1})"
        + (f", {lost:,} steps after the last checkpoint are trained again" if lost else "")
    )
    return Reached(
        step=state.step,
        restarts=last.restarts + 1,
        lost_steps=last.lost_steps + lost,
        devices=before if is_same else (*before, here),
    )


class DisagreementError(Exception):
    """The workers did not begin from the same state."""


def check_agreement(engine: Engine, state: RunState) -> None:
    """Raises DisagreementError where workers restored different checkpoints.

    Their sums would still look like training. It can be that one was committed just then; another
    attempt helps.
    """
    digest = sha256_of([*state.weights.values(), *state.optimizer.values()])
    mine = [state.step, *(int(digest[i : i + 8], 16) for i in (0, 8))]
    if engine.sum_over_workers(mine) != [engine.world * value for value in mine]:
        raise DisagreementError(
            f"the workers restored different checkpoints; this one step {state.step:,}"
        )
