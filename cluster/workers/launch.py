"""A run on the workers of a Ray cluster.

The driver checks, connects and shows progress; it imports no TensorFlow. Each worker runs
`job.train.train_and_evaluate`. Ray Train replaces lost workers and starts the group again; the run
itself goes on from its own last checkpoint, which only this project's storage layer writes and
reads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluster import ray_private
from cluster.autoscaling import autoscaled
from cluster.capacity import Share, shares
from cluster.connection import connected, variables
from job.errors import (
    DisplacedError,
    JobError,
    NoGpuError,
    StopRequestedError,
    TrainingDivergedError,
)
from job.models.architecture import source_of
from job.runs.folder import absolute
from job.runs.run import Run
from job.text import duration
from job.train import training_session
from job.training.pace import STARTING_SECONDS
from job.training.progress import Progress
from job.waiting import QUIET_SECONDS

if TYPE_CHECKING:
    from cluster.workers.mailbox import Event

# What Ray's dashboard knows of a run: a process on the head that remembers it, and metrics.
SHOWN = ("RAY_TRAIN_ENABLE_STATE_TRACKING", "RAY_TRAIN_METRICS_ENABLED")
POLL_SECONDS = 0.2
# How a fit ends whose group lost a worker in the moment when training was about to begin.
BROKEN = "broken at start"
# Ray Train needs about a second to see that its workers have ended.
END_SECONDS = 10.0
# So long after a request to stop workers that have not begun to train are given up.
STOP_SECONDS = 15.0


def launch(
    run: Run,
    progress: Progress,
    *,
    stop_requested: Callable[[], int] = lambda: 0,
    is_trial: bool = False,
    verbose: bool = False,
) -> dict[str, Any] | None:
    """Trains a run on a Ray cluster: the one that this process belongs to already, if it does.

    Args:
        run: Where and how to train.
        progress: Follows the run.
        stop_requested: Asked often; a signal's number ends the run after a checkpoint.
        is_trial: It belongs to a sweep, whose lock covers it, and which reads the test set for its
            winner alone.
        verbose: Let the frameworks log to the terminal.

    Returns:
        The content of the run's `result.json`, None for a trial.

    Raises:
        InputError: The cluster can't be reached or does not hold the workers, or as
            `training_session`; nothing was written.
        StopRequestedError, TrainingDivergedError: As `train_and_evaluate`.
        NoGpuError: A worker that has a share of a GPU finds none; there was no other attempt.
        JobError: Workers failed more often than `max_failures`.
    """
    least, most = run.config.worker_limits
    if not is_trial:
        # Asked again, with certainty, in `training_session`; this spares a start of Ray in vain.
        run.folder.check_free()
    with (
        connected(
            run.config.address,
            elastic=least < most,
            verbose=verbose,
            meanwhile=_import_ray_train,
        ) as is_own,
        # The machines of a sweep are the sweep's business.
        contextlib.nullcontext() if is_trial else autoscaled(run.config, progress, stop_requested),
    ):
        share = shares(run.config, is_own=is_own)
        run = run.launched("gpu" if share.gpus else "cpu")
        threads = None if share.gpus else share.threads
        with (
            # A cluster of the run's own has no dashboard; a trial is its sweep's business.
            variables(_shown(not (is_own or is_trial))),
            training_session(run, progress, threads=threads, lock=not is_trial) as (run, examples),
            # Ray Train keeps a little book of its own; nothing is ever restored from it.
            tempfile.TemporaryDirectory(prefix="lenet-ray-train-") as book,
        ):
            # Its workers read their own.
            del examples
            progress.note(f"workers log to {_logs()} on their nodes")
            trainer = functools.partial(_trainer, run, share, book, not is_trial, is_own, verbose)
            return _supervise(run, trainer, progress, stop_requested)


def _shown(is_shown: bool) -> dict[str, str]:
    """What is to be set for Ray's dashboard to show the run, or not, where its user has not."""
    return {name: str(int(is_shown)) for name in SHOWN if name not in os.environ}


def _import_ray_train() -> None:
    """Imports what the driver needs of Ray Train, which takes more than a second."""
    from ray.train.v2.api import data_parallel_trainer  # noqa: F401


def _supervise(
    run: Run,
    trainer: Callable[[Any], Any],
    progress: Progress,
    stop_requested: Callable[[], int],
) -> dict[str, Any] | None:
    import ray

    from cluster.workers.mailbox import open_mailbox

    mailbox = open_mailbox()
    breaks_left = run.config.max_failures
    while True:
        kind, value = _fit(run, trainer, mailbox, progress, stop_requested)
        if kind == BROKEN and breaks_left:
            breaks_left -= 1
            continue
        if kind != DisplacedError.__name__:
            return _result(kind, value)
        # A planned move, which Ray Train can't tell from a failure; so it is not its business.
        progress.note(value[0])
        # The other workers' words about the same.
        ray.get(mailbox.take.remote(0))


def _fit(
    run: Run,
    trainer: Callable[[Any], Any],
    mailbox: Any,
    progress: Progress,
    stop_requested: Callable[[], int],
) -> Event:
    """One run of Ray Train, with as many restarts as it makes; returns how it ended."""
    import ray

    from cluster.workers.mailbox import tell

    failure: list[BaseException] = []

    def fit() -> None:
        try:
            trainer(mailbox).fit()
        except BaseException as error:
            # Its frames would keep the controller alive, and with it what it holds.
            failure.append(error.with_traceback(None))

    # Ray Train's `fit` takes over SIGINT when it runs in the main thread, and aborts without a
    # checkpoint.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    moved: Event | None = None
    controller: Any = None
    has_trained = False
    asked: float | None = None
    heard = time.monotonic()
    try:
        while True:
            thread.join(POLL_SECONDS)
            if time.monotonic() - heard >= QUIET_SECONDS:
                heard = time.monotonic()
                progress.note(_silence(run, has_trained=has_trained))
            is_over = not thread.is_alive()
            for kind, value in ray.get(mailbox.take.remote(stop_requested())):
                heard = time.monotonic()
                if kind == "controller":
                    controller = _controller(value)
                elif kind != "outcome":
                    has_trained |= kind == "span"
                    tell(progress, (kind, value))
                elif value[0] == DisplacedError.__name__:
                    # Ray Train may still start workers anew; what they say later counts.
                    moved = value
                else:
                    _end(thread, controller)
                    return value
            if is_over and moved:
                return moved
            if is_over:
                error = failure[0] if failure else None
                return BROKEN if _broke_at_start(error) else JobError.__name__, (
                    _explanation(error, run),
                )
            if stop_requested() and asked is None:
                asked = time.monotonic()
            # Who has trained answers after a span, and then may have to wait for its last upload.
            if asked and not has_trained and time.monotonic() - asked > STOP_SECONDS:
                raise StopRequestedError(
                    f"stopped while no worker was training; continue with: {run.command}",
                    stop_requested(),
                )
    except BaseException:
        # In its thread, Ray Train would train on.
        _end(thread, controller, patience=0)
        raise


def _silence(run: Run, *, has_trained: bool) -> str:
    """What is waited for where workers say nothing, and how long it will."""
    if has_trained:
        return "waiting for the workers: one that hangs, or has lost its machine, is started anew"
    seconds = STARTING_SECONDS + run.config.storage_timeout
    return (
        "waiting for the workers to be placed and to start TensorFlow: those that are placed "
        f"have {duration(seconds)}"
    )


def _controller(value: list[Any]) -> Any:
    """The actor in the list; None where it has ended by now."""
    import ray
    from ray.exceptions import RayError

    with contextlib.suppress(RayError):
        return ray.get(value[0], timeout=END_SECONDS)
    return None


def _end(thread: threading.Thread, controller: Any, *, patience: float = END_SECONDS) -> None:
    """Waits for Ray Train to see that its workers have ended, and ends it after `patience` seconds.

    A thread that still asks Ray for something when it is shut down takes the whole process with it,
    with exit code 1; and after the loss of a node Ray Train may wait for workers that are gone.
    """
    thread.join(patience)
    if thread.is_alive() and controller:
        ray_private.abort_training(controller, END_SECONDS)
        thread.join(END_SECONDS)


def _trainer(
    run: Run, share: Share, book: str, evaluate: bool, is_own: bool, verbose: bool, mailbox: Any
) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from cluster.workers.backend import TensorflowBackend, callbacks
    from cluster.workers.worker import WorkOrder, work

    least, most = run.config.worker_limits
    order = WorkOrder(
        config=dataclasses.replace(run.config, storage=absolute(run.config.storage)),
        created=run.created,
        source=source_of(run.architecture),
        threads=share.threads,
        gpus=share.gpus,
        evaluate=evaluate,
        may_leave=not is_own,
        verbose=verbose,
        mailbox=mailbox,
    )
    backend = TensorflowBackend()
    return DataParallelTrainer(
        work,
        # The settings are for who looks at Ray's own record of the run.
        train_loop_config={"order": order, "settings": order.config.to_dict()},
        backend_config=backend,
        scaling_config=ScalingConfig(
            num_workers=most if least == most else (least, most),
            use_gpu=share.gpus > 0,
            resources_per_worker={"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})},
            elastic_resize_monitor_interval_s=5.0,
        ),
        run_config=RunConfig(
            name=run.name,
            storage_path=book,
            failure_config=FailureConfig(max_failures=run.config.max_failures),
            callbacks=callbacks(backend, mailbox),
        ),
    )


def _result(kind: str, value: Any) -> dict[str, Any] | None:
    match kind:
        case "result":
            return value
        case "StopRequestedError":
            raise StopRequestedError(value[0], value[1] - 128)
        case "TrainingDivergedError":
            raise TrainingDivergedError(value[0])
        case "NoGpuError":
            raise NoGpuError(value[0])
    raise JobError(value[0])


def _broke_at_start(failure: BaseException | None) -> bool:
    """Whether Ray Train gave up for a worker that died between its group's start and training's.

    2.60 takes it for a defect of its controller, and does not try again.
    """
    from ray.exceptions import RayActorError
    from ray.train import ControllerError

    return isinstance(failure, ControllerError) and isinstance(
        failure.controller_failure, RayActorError
    )


def _explanation(failure: BaseException | None, run: Run) -> str:
    """Why the workers ended without an outcome, in one line, and where to read more."""
    lines = [line for line in str(failure).strip().splitlines() if line.strip()] or ["no reason"]
    return (
        f"the workers failed more often than --max-failures {run.config.max_failures} allows: "
        f"{lines[-1].strip()}; their logs are in {_logs()} (on their nodes); "
        f"continue from the last checkpoint with: {run.command}"
    )


def _logs() -> str:
    """The folder in which Ray keeps what workers write, the same on all nodes."""
    import ray

    context = ray.get_runtime_context()
    return os.path.join(context.get_temp_dir(), context.get_session_name(), "logs")
