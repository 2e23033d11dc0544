"""One training as a call: what `lenet train` does, from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from job.errors import JobError
from job.reasons import reason_of
from job.runs.run import Run, open_run, prepare_run
from job.runs.state import EpochRow
from job.trackers.tracked import tracked
from job.training.progress import Progress, Silent


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run that came to its end.

    Attributes:
        result: The content of its `result.json`.
        history: Its epochs.
        folder: Where everything is that it left: a path, or an `s3://` URI.
    """

    result: dict[str, Any]
    history: list[EpochRow]
    folder: str


def train(
    *, overwrite: bool = False, progress: Progress | None = None, **settings: Any
) -> FinishedRun:
    """Trains a run to its end and evaluates it: in this process, or on Ray.

    On Ray where `workers` is more than one or an `address` is given. A run of that `name` that was
    interrupted goes on.

        from cluster import train
        run = train(model="lenet5", epochs=3, workers=2)

    In this process only the first call decides how TensorFlow starts (device, threads,
    determinism), as in any process that imports it.

    Args:
        overwrite: Start anew where a run of that name exists.
        progress: Follows the run; without it nothing is printed. It may print to standard error;
            while a cluster is held, standard output goes nowhere, for the sake of what Ray says.
        settings: Those of a run, by field name (`TrainConfig`), over its recipe.

    Raises:
        InputError: A setting is unusable, or the name is taken; nothing was written.
        JobError: As `train_and_evaluate` and `launch`.
    """
    run = prepare_run(settings, overwrite=overwrite)
    run.storage.probe()
    result = train_run(run, progress or Silent())
    # As it was launched: what the device decides is among what its checkpoints are known by.
    ended = open_run(run.name, run.config.storage)
    return FinishedRun(result=result, history=list(ended.history()), folder=run.storage.uri)


def train_run(
    run: Run,
    progress: Progress,
    stop_requested: Callable[[], int] = lambda: 0,
    *,
    verbose: bool = False,
) -> dict[str, Any]:
    """Trains a run where its settings say.

    Args:
        run: As `prepare_run` found it.
        progress: Follows the run.
        stop_requested: Asked often; a signal's number ends the run after a checkpoint.
        verbose: Let the frameworks log.

    Returns:
        The content of its `result.json`.

    Raises:
        InputError: A tracker of its settings is not installed; nothing was written.
        JobError: As `train_and_evaluate` and `launch`.
    """
    with tracked(run, progress) as follower:
        if run.config.worker_limits == (1, 1) and run.config.address is None:
            try:
                result = _train_here(run, follower, stop_requested, verbose)
            except OSError as error:
                again = f"after that, continue with: {run.command}"
                raise JobError(f"{reason_of(error)}; {again}") from error
        else:
            from cluster.workers.launch import launch

            result = launch(run, follower, stop_requested=stop_requested, verbose=verbose)
        # Only a trial of a sweep, and a worker that is not the first, have none.
        assert result is not None
        follower.finished(result)
    return result


def _train_here(
    run: Run, progress: Progress, stop_requested: Callable[[], int], verbose: bool
) -> dict[str, Any] | None:
    from job.engine.accelerator import greatest_capability, is_expected
    from job.engine.runtime import processors
    from job.train import train_and_evaluate, training_session
    from job.training.attempt import TrainingProcess, Worker
    from job.training.supervisor import Unsupervised

    # Without Ray a share is none or the whole: nobody else is kept from the rest.
    worker = Worker(gpus=0.0 if run.config.gpus_per_worker == 0 else None)
    process = TrainingProcess(worker, verbose=verbose)
    expects_gpu = is_expected(run.config.device, worker.gpus)
    capability = greatest_capability() if expects_gpu else None
    run = run.launched("gpu" if expects_gpu else "cpu", capability)

    def check() -> None:
        if expects_gpu:
            process.start(run.config)

    threads = None if expects_gpu else processors()
    with training_session(run, progress, threads=threads, check_device=check) as (run, examples):
        supervisor = Unsupervised(stop_requested)
        return train_and_evaluate(run, examples, progress, supervisor, process=process)
