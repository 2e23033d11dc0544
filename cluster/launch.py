"""A run on the workers of a Ray cluster.

The driver checks, connects and shows progress; it imports no TensorFlow. Each worker runs
`job.train.train_and_evaluate` with its place. Ray Train replaces lost workers and starts the group
again; the run itself goes on from its own last checkpoint, which only this project's storage layer
writes and reads.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from cluster.session import Share, connected, shares
from job.config import TrainConfig
from job.errors import Interrupted, JobError, TrainingDiverged
from job.progress import Progress
from job.runs import Run

POLL_SECONDS = 0.2


def launch(
    run: Run,
    progress: Progress,
    *,
    stop_requested: Callable[[], int] = lambda: 0,
    on_start: Callable[[], None] = lambda: None,
    verbose: bool = False,
) -> dict[str, Any]:
    """Trains a run on a Ray cluster.

    Args:
        run: Where and how to train.
        progress: Follows the run.
        stop_requested: Asked often; a signal's number ends the run after a checkpoint.
        on_start: Called once the cluster is known to hold the workers, before anything is written.
        verbose: Let the frameworks log to the terminal.

    Returns:
        The content of the run's `result.json`.

    Raises:
        InputError: The cluster can't be reached or does not hold the workers.
        Interrupted, TrainingDiverged: As `train_and_evaluate`.
        JobError: Workers failed more often than `max_failures`.
    """
    with connected(run.config.address, verbose=verbose):
        share = shares(run.config)
        on_start()
        return _supervise(run, share, progress, stop_requested, verbose)


def _supervise(
    run: Run,
    share: Share,
    progress: Progress,
    stop_requested: Callable[[], int],
    verbose: bool,
) -> dict[str, Any]:
    import ray

    from cluster.mailbox import open_mailbox, tell

    mailbox = open_mailbox()
    failure: list[BaseException] = []
    outcome: tuple[str, Any] | None = None

    def fit() -> None:
        try:
            _trainer(run, share, mailbox, verbose).fit()
        except BaseException as error:
            failure.append(error)

    # Ray Train's `fit` takes over SIGINT when it runs in the main thread, and aborts without a
    # checkpoint.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    running = True
    while running:
        thread.join(POLL_SECONDS)
        running = thread.is_alive()
        for event in ray.get(mailbox.take.remote(stop_requested())):
            if event[0] == "outcome":
                outcome = event[1]
            else:
                tell(progress, event)
    if outcome is None:
        raise JobError(_explanation(failure[0] if failure else None, run.config))
    return _result(*outcome)


def _trainer(run: Run, share: Share, mailbox: Any, verbose: bool) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from cluster.backend import TensorflowBackend

    least, most = run.config.worker_limits
    payload = {
        "config": run.config.to_dict(),
        "created": run.created,
        "storage": os.path.abspath(run.config.storage),
        "cpus": share.cpus,
        "verbose": verbose,
        "mailbox": mailbox,
    }
    return DataParallelTrainer(
        _work,
        train_loop_config=payload,
        backend_config=TensorflowBackend(),
        scaling_config=ScalingConfig(
            num_workers=most if least == most else (least, most),
            use_gpu=share.gpus > 0,
            resources_per_worker={"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})},
            elastic_resize_monitor_interval_s=5.0,
        ),
        run_config=RunConfig(
            name=run.config.name,
            # Ray Train keeps a little book of its own; nothing is ever restored from it.
            storage_path=tempfile.mkdtemp(prefix="lenet-ray-train-"),
            failure_config=FailureConfig(max_failures=run.config.max_failures),
        ),
    )


def _work(payload: dict[str, Any]) -> None:
    """What each worker does; Ray Train runs it in a process of its own."""
    import ray.train

    from cluster.mailbox import WorkerEnd
    from cluster.storage import open_storage
    from cluster.watchdog import Watchdog
    from job.progress import Silent
    from job.train import Place, train_and_evaluate

    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        threads=max(1, int(payload["cpus"])),
    )
    config = TrainConfig(**{**payload["config"], "storage": payload["storage"]})
    run = Run(
        config=config,
        storage=open_storage(config.storage).at(config.name),
        created=payload["created"],
    )
    mail = WorkerEnd(payload["mailbox"])
    watchdog = Watchdog()
    outside = WorkerOutside(mail if place.rank == 0 else None, watchdog)
    progress = mail if place.rank == 0 else Silent()
    try:
        result = train_and_evaluate(run, progress, outside, place=place, verbose=payload["verbose"])
    except (Interrupted, JobError) as end:
        # An end that another attempt would not change. All workers meet it at the same step, so it
        # is not a failure in the eyes of Ray Train.
        if place.rank == 0:
            mail.outcome(type(end).__name__, (str(end), end.exit_code))
        return
    finally:
        watchdog.close()
    if place.rank == 0:
        mail.outcome("result", result)


@dataclasses.dataclass
class WorkerOutside:
    """What a worker of a cluster hears: signals through the driver, preemption through Ray."""

    mail: Any
    watchdog: Any
    _notice: Any = None

    def stop_requested(self) -> int:
        return self.mail.stop_requested() if self.mail else 0

    def checkpoint_requested(self) -> bool:
        """Once for each notice. Ray wants every worker to ask equally often."""
        import ray.train

        notice = ray.train.get_preemption_info()
        is_new = notice is not None and notice != self._notice
        self._notice = notice
        return is_new

    def alive(self, limit: float) -> None:
        self.watchdog.alive(limit)


def _result(kind: str, value: Any) -> dict[str, Any]:
    match kind:
        case "result":
            return value
        case "Interrupted":
            raise Interrupted(value[0], value[1] - 128)
        case "TrainingDiverged":
            raise TrainingDiverged(value[0])
    raise JobError(value[0])


def _explanation(failure: BaseException | None, config: TrainConfig) -> str:
    """Why the workers ended without an outcome, in one line, and where to read more."""
    import ray

    lines = [line for line in str(failure).strip().splitlines() if line.strip()] or ["no reason"]
    logs = os.path.join(ray._private.worker._global_node.get_session_dir_path(), "logs")
    return (
        f"the workers failed more often than --max-failures {config.max_failures} allows: "
        f"{lines[-1].strip()}; their logs are in {logs} (on their nodes); "
        f"the same command with --name {config.name} goes on from the last checkpoint"
    )
