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
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from job.config.config import TrainConfig
from job.config.xla import decided, launched
from job.engine.accelerator import has_device
from job.errors import Displaced, Interrupted
from job.runs.data import examples_of, keep_dataset
from job.runs.run import Notes, Run
from job.runs.state import RunState, sha256_of
from job.training.progress import Progress
from job.training.writer import Keeper
from job.versions import Device

if TYPE_CHECKING:
    from job.engine.engine import Engine

# Importing TensorFlow and building a model on a busy machine.
STARTING_SECONDS = 120.0
# Evaluating and drawing, once.
FINISHING_SECONDS = 300.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """A worker's place among the workers of a run.

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
def training_session(
    run: Run,
    progress: Progress,
    *,
    lock: bool = True,
    check_device: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Checks everything that can be checked without TensorFlow, then holds the run's folder for
    the time of the block.

    Args:
        run: The run.
        progress: Is told what begins.
        lock: As `Run.claimed`.
        check_device: Called before anything is written; raises what keeps the device from training.

    Raises:
        InputError: The data given can't be used, or another process trains this run; nothing was
            written.
    """
    config = run.config
    examples = examples_of(run)
    examples.training(config.limit_train)
    dataset = examples.dataset
    # A driver would hold the pixels for as long as its workers train.
    del examples
    check_device()
    with run.claimed(lock=lock):
        keep_dataset(run.storage, dataset)
        progress.note(
            f"{config.name}: {config.model} on {dataset.name}, {config.epochs} epochs, "
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
    evaluate: bool = True,
    verbose: bool = False,
) -> dict[str, Any] | None:
    """Trains a run, within `training_session`, to its end, from its last checkpoint if it has one,
    and evaluates it. With several workers, each of them calls this with its place.

    Args:
        run: Where and how to train.
        progress: Follows the run.
        outside: What the worker hears from outside.
        place: This worker's place.
        evaluate: Read the test set at the end. A trial of a sweep leaves it alone, and the run is
            not marked as finished.
        verbose: Let the frameworks log.

    Returns:
        The content of the run's `result.json`; None on all workers but the first, and without
        `evaluate`.

    Raises:
        Interrupted: A stop was requested; running again with the same name goes on.
        Displaced: A machine is being taken away; running again elsewhere goes on.
        TrainingDiverged: The loss became NaN or infinite.
        JobError: No checkpoint can be trusted, or the store stayed away for too long.
        NoGpu: One is expected and TensorFlow finds none.
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

    from job.engine.runtime import (
        accelerator_record,
        compute_capability,
        distribution,
        hardware,
        idle_gpus,
    )
    from job.engine.shared_sum import shared_sum

    # Only an object store is waited for; a hang must not last longer because one could be.
    waiting = config.storage_timeout if run.storage.is_remote else 0.0
    outside.alive(STARTING_SECONDS + waiting)
    device = start(config, place, verbose=verbose)
    if place.gpus == 0 and config.device == "auto" and config.gpus_per_worker is None:
        note_unused(progress)
    if device == "gpu" and place.gpus is None and (idle := idle_gpus()):
        progress.note(f"1 of {1 + idle} GPUs trains; --workers {1 + idle} uses all of them")
    config = launched(decided(run.config), device, compute_capability())
    # GPUs have NCCL, which goes through memory by itself.
    shared = shared_sum() if place.world > 1 and device == "cpu" else None
    strategy = distribution(place.world, place.gpus)
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.results import artifacts
    from job.results.result import finish
    from job.training.loop import End, Hooks, initial_state, run_epochs

    steps_per_epoch = -(-len(train) // config.batch_size)
    engine = Engine(
        config,
        total_steps=steps_per_epoch * config.epochs,
        classes=len(dataset.labels),
        image_shape=dataset.image_shape,
        strategy=strategy,
        rank=place.rank,
        world=place.world,
        shared_sum=shared,
    )
    initial = initial_state(engine)
    state = saved or initial
    check_agreement(engine, state)
    where = hardware(device, place.threads)
    notes = taken_up(run, state, progress, where, accelerator_record())
    if is_chief:
        run.note(notes)
    if is_chief and not saved:
        artifacts.write_data_figures(run.storage, train, dataset, config.seed)

    keeper = Keeper(run, notes, is_active=is_chief)
    hooks = Hooks(
        checkpoint=keeper.checkpoint,
        epoch_end=keeper.history,
        reached=keeper.reached,
        stop_requested=lambda: bool(outside.stop_requested()),
        checkpoint_requested=outside.checkpoint_requested,
        leave_requested=outside.leave_requested,
        progress=progress,
        alive=outside.alive,
    )
    with keeper.explaining():
        state, end = run_epochs(
            engine, state, DeviceSplit.load(train), DeviceSplit.load(validation), config, hooks
        )
        outside.alive(FINISHING_SECONDS + waiting)
        keeper.wait()
    if end is End.LEFT:
        raise Displaced(f"left a machine that is being taken away at step {state.step:,}")
    if end is End.STOPPED:
        raise Interrupted(
            f"stopped at step {state.step:,} with a checkpoint in {run.storage.uri}; "
            f"continue with: {run.command}",
            outside.stop_requested() or signal.SIGINT,
        )
    outside.alive(FINISHING_SECONDS + waiting)
    if not (is_chief and evaluate):
        return None
    with keeper.explaining():
        return finish(run, state, initial, notes, examples, where, place.world)


def note_unused(progress: Progress) -> None:
    """Says that this machine has a GPU which Ray knows nothing of."""
    if has_device():
        progress.note(
            "there is an NVIDIA device here, and Ray has no GPU to give: processors train; "
            "ray start --num-gpus tells it, --device cpu agrees"
        )


def start(config: TrainConfig, place: Place, *, verbose: bool = False) -> str:
    """Starts TensorFlow as a run has it, and returns the kind of device that trains. Again it does
    nothing more. Raises NoGpu where a GPU is expected and not found."""
    from job.engine.runtime import start_tensorflow

    return start_tensorflow(
        verbose=verbose,
        threads=place.threads,
        gpus=place.gpus,
        device=config.device,
        deterministic=config.deterministic,
    )


def taken_up(
    run: Run,
    state: RunState,
    progress: Progress,
    device: str,
    accelerator: Mapping[str, Any] | None,
) -> Notes:
    """The notes of a new attempt from `state`: what the last one had reached beyond is lost.

    Args:
        run: The run.
        state: Where the attempt begins.
        progress: Is told of it.
        device, accelerator: What trains, as `Device` has it.
    """
    here = Device(from_step=state.step, device=device, accelerator=accelerator)
    last = run.notes()
    if last is None:
        return Notes(devices=(here,))
    before = tuple(one for one in last.devices if one.from_step < state.step)
    is_same = before and dataclasses.replace(here, from_step=before[-1].from_step) == before[-1]
    lost = max(0, last.step - state.step)
    progress.note(
        f"continuing {run.name} at step {state.step:,} (epoch {len(state.history) + 1})"
        + (f", {lost:,} steps after the last checkpoint are trained again" if lost else "")
    )
    return Notes(
        step=state.step,
        restarts=last.restarts + 1,
        lost_steps=last.lost_steps + lost,
        devices=before if is_same else (*before, here),
    )


class Disagreement(Exception):
    """The workers did not begin from the same state."""


def check_agreement(engine: Engine, state: RunState) -> None:
    """Raises Disagreement where workers restored different checkpoints: their sums would still look
    like training. It can happen when one was committed at that moment; another attempt helps."""
    digest = sha256_of([*state.weights.values(), *state.optimizer.values()])
    mine = [state.step, *(int(digest[i : i + 8], 16) for i in (0, 8))]
    if engine.sum_over_workers(mine) != [engine.world * value for value in mine]:
        raise Disagreement(
            f"the workers restored different checkpoints; this one step {state.step:,}"
        )
