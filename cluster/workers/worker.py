"""What each worker of a run does, in a process that Ray Train starts."""

from __future__ import annotations

import dataclasses
import faulthandler
import math
import os
import time
from typing import Any

from cluster.connection import LOOKS_SECONDS
from job.config.config import TrainConfig
from job.errors import (
    DisplacedError,
    JobError,
    NoGpuError,
    StopRequestedError,
    TrainingDivergedError,
)
from job.models.source import Source
from job.runs.run import begun_run
from job.runs.state import EpochRow

# Training leaves a machine so long before it is taken away: enough for a span of steps and a
# checkpoint, while the rest of the time that was granted is still used.
LEAVE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class WorkOrder:
    """What each worker is told.

    Attributes:
        config: The run's settings, with a storage that is called so from anywhere.
        created: When the run was first started.
        source: The file of the user's own model, if parts of that come from it.
        threads: Threads for computing.
        gpus: The share of a GPU.
        evaluate: As for `train_and_evaluate`.
        may_leave: As for `RaySupervisor`.
        verbose: Let the frameworks log.
        mailbox: Where the driver hears of it.
    """

    config: TrainConfig
    created: float
    source: Source | None
    threads: int
    gpus: float
    evaluate: bool
    may_leave: bool
    verbose: bool
    mailbox: Any


def work(told: dict[str, Any]) -> None:
    """What each worker does; Ray Train, which wants a dict, runs it in a process of its own."""
    import ray.train

    from cluster.workers.gauges import Gauges
    from cluster.workers.mailbox import WorkerEnd
    from job.runs.data import examples_of
    from job.train import train_and_evaluate
    from job.training.attempt import TrainingProcess, Worker
    from job.training.progress import Silent, warnings_to

    order: WorkOrder = told["order"]
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        threads=order.threads,
        gpus=order.gpus,
    )
    run = begun_run(order.config, order.created, source=order.source)
    is_chief = worker.rank == 0
    mail = WorkerEnd(order.mailbox)
    progress = Gauges(run.name, mail) if is_chief else Silent()
    try:
        # Every worker's: only the first one's progress goes anywhere.
        with warnings_to(progress):
            result = train_and_evaluate(
                run,
                examples_of(run, patience=order.config.storage_timeout),
                progress,
                RaySupervisor(mail if is_chief else None, order.may_leave),
                process=TrainingProcess(worker, verbose=order.verbose),
                evaluate=order.evaluate,
            )
    except (StopRequestedError, DisplacedError, TrainingDivergedError) as end:
        # All workers come to this end at the same step, but the first one has to save before it.
        if is_chief:
            mail.outcome(type(end).__name__, (str(end), end.exit_code))
        return
    except NoGpuError as end:
        mail.outcome(NoGpuError.__name__, (end.reason, end.exit_code))
        return
    except JobError as end:
        # Another attempt would not change it, so it is no failure for Ray Train. One worker may be
        # the only one that can't read its data.
        mail.outcome(JobError.__name__, (str(end), end.exit_code))
        return
    finally:
        # Nothing is due any more.
        faulthandler.cancel_dump_traceback_later()
    if is_chief:
        mail.outcome("result", result)


@dataclasses.dataclass
class RaySupervisor:
    """What a worker of a cluster hears: signals through the driver, preemption through Ray.

    `may_leave` is off in a cluster that was started for the run: nobody takes its machine away.
    """

    mail: Any
    may_leave: bool = True
    _notice: Any = None
    _reported: float = -math.inf

    def stop_requested(self) -> int:
        """The number of the signal that the driver passed on; 0 if none, or without `mail`."""
        return self.mail.stop_requested() if self.mail else 0

    def save_requested(self) -> bool:
        """Once for each notice. Ray wants every worker to ask equally often."""
        if not self.may_leave:
            return False
        import ray.train

        notice = ray.train.get_preemption_info()
        is_new = notice is not None and notice != self._notice
        self._notice = notice
        return is_new

    def leave_requested(self) -> bool:
        """Whether the noticed preemption is less than `LEAVE_SECONDS` away, or has no deadline."""
        if self._notice is None:
            return False
        deadline = self._notice.deadline_ms
        return deadline is None or time.time() > deadline / 1000 - LEAVE_SECONDS

    def report_due(self) -> bool:
        """Whether Ray Train has had the time to take the last report away.

        It takes one each time that it looks at the workers. Where epochs are shorter than that,
        reports would pile up, and the end of training would wait for all of them.
        """
        return time.monotonic() - self._reported >= 2 * float(os.environ[LOOKS_SECONDS])

    def report(self, row: EpochRow) -> None:
        """Tells Ray Train of an epoch, which waits for all workers, without a limit of its own.

        The last `heartbeat` has one. No checkpoint goes with it: the run has its own.
        """
        import ray.train

        self._reported = time.monotonic()
        # A report is left with a thread: it may not wait for the controller beside the driver.
        ray.train.report(
            dataclasses.asdict(row), checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC
        )

    def heartbeat(self, limit: float) -> None:
        """Ends this process with a traceback if it is not called again within `limit` seconds.

        A peer that is stopped or unreachable leaves the others inside a collective operation, from
        which no exception can fetch them. Ray Train starts them anew. Python's own threads would
        not do: they can't run while a call into a library holds the interpreter's lock.
        """
        faulthandler.dump_traceback_later(limit, exit=True)
