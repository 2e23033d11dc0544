"""A trial as Ray Tune runs it: a process that is given one task after another."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Generator, Iterator
from typing import Any

from ray import tune

from job.data.catalogue import Dataset
from job.errors import JobError, NoGpuError
from job.models.architecture import source_of
from job.reasons import reason_of
from job.runs.run import open_run, prepare_run
from job.runs.start import kept_start
from job.runs.state import EpochRow, best_row, rows_of
from job.storage.open import open_storage
from job.text import one_line
from tuning.conductor import EVALUATE, RECALL, TRAIN, Task
from tuning.records import FAILED, FINISHED, UNFINISHED, Outcome
from tuning.trials.warm import Epoch, WarmProcess

# What a task gives, step by step; closed, it ends there.
Reports = Generator[dict[str, Any], None, None]

log = logging.getLogger(__name__)


def report_of(
    task: Task,
    history: tuple[EpochRow, ...],
    *,
    state: str = UNFINISHED,
    error: str = "",
    **others: Any,
) -> dict[str, Any]:
    """What Ray Tune is told after a step.

    `merit` is what its scheduler compares: the validation accuracy of the weights that are kept, 0
    before the first epoch and after a failure.
    """
    best_by = task.run["best_by"]
    best = best_row(history, best_by)
    return {
        "number": task.number,
        "kind": task.kind,
        "is_search": task.is_search,
        "epoch": len(history),
        "merit": best.val_accuracy if best and state != FAILED else 0.0,
        "val_loss": best.val_loss if best else None,
        "best_by": best_by,
        "history": [dataclasses.asdict(row) for row in history],
        "state": state,
        "error": error,
        "done": state != UNFINISHED,
        **others,
    }


class TrialProcess(tune.Trainable):
    """Does tasks, one after the other, and keeps what they share."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begins the process' first task."""
        self._warm: WarmProcess | None = None
        self._begin(Task.from_dict(config["task"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another task in the same process; True, since it always can."""
        self._end()
        self._begin(Task.from_dict(new_config["task"]))
        return True

    def step(self) -> dict[str, Any]:
        """The task's next report, for a run in training that of an epoch."""
        return next(self._reports)

    def cleanup(self) -> None:
        """Ends the task; a run in training stays at its last checkpoint."""
        self._end()

    def _begin(self, task: Task) -> None:
        doing = {TRAIN: self._train, RECALL: _recall, EVALUATE: self._evaluate}
        self._reports = doing[task.kind](task)

    def _end(self) -> None:
        # Leaves a run in training where it stands; its checkpoints are complete.
        self._reports.close()

    def _train(self, task: Task) -> Reports:
        began, seconds = time.time(), time.perf_counter()
        history: tuple[EpochRow, ...] = ()
        restarts = 0

        def report(**others: Any) -> dict[str, Any]:
            return report_of(
                task,
                history,
                started=began,
                seconds=time.perf_counter() - seconds,
                device=self._device(task),
                restarts=restarts,
                **others,
            )

        try:
            for epoch in self._epochs(task):
                history, restarts = epoch.history, epoch.restarts
                yield report(state=FINISHED if epoch.is_last else UNFINISHED)
        except JobError as error:
            # The other trials would do no better on these machines.
            yield report(state=FAILED, error=str(error), ends_sweep=isinstance(error, NoGpuError))
        except Exception as error:
            # It is this trial's failure, not that of the sweep: recorded, and the next one begins
            # with nothing that it may have spoilt, such as a GPU's memory.
            log.exception("trial %d failed", task.number)
            self._warm_for(task).forget()
            yield report(state=FAILED, error=reason_of(error) or one_line(error))

    def _epochs(self, task: Task) -> Iterator[Epoch]:
        run = prepare_run(task.run, source=source_of(task.architecture))
        if task.architecture and run.folder.is_new:
            run = run.with_architecture(task.architecture)
        if run.config.start_sha256 and run.folder.is_new:
            # The sweep keeps it, above its trials.
            above = open_storage(task.run["storage"].rpartition("/")[0])
            run = run.with_start(kept_start(above, run.config.start_sha256))
        if run.config.worker_limits == (1, 1):
            return self._warm_for(task).train(run)
        from tuning.trials.nested import train_nested

        return train_nested(run)

    def _evaluate(self, task: Task) -> Reports:
        try:
            run = open_run(task.run["name"], task.run["storage"])
            run = dataclasses.replace(run, source=source_of(task.architecture))
            result = self._warm_for(task).evaluate(run, task.outcome["device"])
        except JobError as error:
            # Ray Tune would try it again and again; whoever calls the command again does, too.
            why = f"the winner could not be evaluated: {error}"
            yield report_of(task, (), state=FAILED, error=why, ends_sweep=True)
        else:
            yield report_of(task, (), state=FINISHED, result=result)

    def _warm_for(self, task: Task) -> WarmProcess:
        self._warm = self._warm or WarmProcess(
            task.threads, task.gpus, Dataset.from_dict(task.dataset)
        )
        return self._warm

    def _device(self, task: Task) -> str:
        workers = int(task.run["workers"])
        return f"{workers} workers" if workers > 1 else self._warm_for(task).hardware


def _recall(task: Task) -> Reports:
    """Tells the scheduler again what came of a trial, so that it judges others as it would have."""
    rows = rows_of(task.outcome["history"])
    for i in range(len(rows)):
        is_last = i + 1 == len(rows)
        yield report_of(task, rows[: i + 1], state=FINISHED if is_last else UNFINISHED)


def outcome_of(report: dict[str, Any]) -> Outcome:
    """What came of a trial, from its last report."""
    return Outcome(
        state=report["state"],
        error=report["error"],
        history=rows_of(report["history"]),
        best_by=report["best_by"],
        started=report["started"],
        seconds=report["seconds"],
        restarts=report["restarts"],
        device=report["device"],
    )
