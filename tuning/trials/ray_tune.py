"""Ray Tune's part: processes that are reused, the scheduler, and what it is told."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from cluster.connection import variables
from job.errors import JobError
from job.runs.state import rows_of
from job.text import one_line
from tuning.conductor import EVALUATE, TRAIN, Conductor
from tuning.config import SweepConfig
from tuning.display import SweepDisplay
from tuning.records import FAILED, STOPPED, UNFINISHED, Outcome
from tuning.tracking import SweepTrackers
from tuning.trials.trial import TrialProcess, outcome_of

# Of the trials that reach an epoch of 1, 3, 9, ... the better third goes on (Li et al., "A system
# for massively parallel hyperparameter tuning", MLSys 2020).
FIRST_RUNG_EPOCHS = 1
REDUCTION_FACTOR = 3
# Ray Tune copies these into its processes' environment, and Ray writes that to its logs.
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
)


class ConductorSearcher(Searcher):
    """The conductor, as Ray Tune asks it."""

    def __init__(self, conductor: Conductor, is_stopped: Callable[[], bool]) -> None:
        super().__init__(metric="merit", mode="max")
        self._conductor, self._is_stopped = conductor, is_stopped

    def suggest(self, trial_id: str) -> Mapping[str, Any] | str | None:
        """The next task; None while that depends on others, `FINISHED` at the end or a stop."""
        if self._is_stopped():
            return Searcher.FINISHED
        try:
            task = self._conductor.next_task()
        except StopIteration:
            return Searcher.FINISHED
        return None if task is None else {"task": dataclasses.asdict(task)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """What came of it is kept by `Recorder`, which knows of errors too."""

    def save(self, checkpoint_path: str) -> None:
        """The sweep's own files say how it goes on."""

    def restore(self, checkpoint_path: str) -> None:
        """Raises NotImplementedError: a sweep goes on from its own files."""
        raise NotImplementedError("a sweep goes on from its own files")

    def __getstate__(self) -> dict[str, Any]:
        # Ray Tune pickles what it was given, for a way to resume that is not used.
        return {}


class SearchScheduler(ASHAScheduler):
    """ASHA for the trials of the search; the finalists' repeats are not compared with them."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """ASHA's decision; a trial that is not of the search goes on."""
        if not result["is_search"]:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """ASHA hears only of trials of the search."""
        if result["is_search"]:
            super().on_trial_complete(tune_controller, trial, result)


class SweepStopper(Stopper):
    """Stops trials of the search when the time is over, and everything when the sweep stops."""

    def __init__(self, is_over: Callable[[], bool], is_stopped: Callable[[], bool]) -> None:
        self._is_over, self._is_stopped = is_over, is_stopped

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to end this trial: it is of the search, and the time is over."""
        return result["is_search"] and self._is_over()

    def stop_all(self) -> bool:
        """Whether to end all of them: the sweep was asked to stop."""
        return self._is_stopped()

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Recorder(tune.Callback):
    """Keeps what came of each trial, and shows it.

    Args:
        conductor: Keeps it.
        display: Shows it.
        trackers: Are told of it.
        is_over: Whether the time for searching has run out.
        started: Called when a trial has its process.
    """

    def __init__(
        self,
        conductor: Conductor,
        display: SweepDisplay,
        trackers: SweepTrackers,
        is_over: Callable[[], bool],
        started: Callable[[], None],
    ) -> None:
        self._conductor, self._display, self._is_over = conductor, display, is_over
        self._trackers, self._started = trackers, started
        # Why the sweep can't go on.
        self.failure = ""

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Refreshes the display, after each of Ray Tune's steps."""
        self._display.refresh()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Shows that a trial has its process."""
        self._started()
        self._display.began(trial.config["task"]["number"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Shows an epoch that was trained."""
        if result["kind"] == TRAIN:
            self._display.report(result)
            history = rows_of(result["history"])
            self._trackers.reached(result["number"], history, result["started"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keeps a trial's outcome or the winner's evaluation; or `failure`, why neither came."""
        report = trial.last_result
        kind = report.get("kind")
        if report.get("ends_sweep"):
            # Not kept: when the sweep goes on elsewhere, this trial is trained.
            self.failure = report["error"]
        elif kind == TRAIN:
            outcome = outcome_of(report)
            if outcome.state == UNFINISHED:
                why = "the time was over" if self._is_over() else ""
                outcome = dataclasses.replace(outcome, state=STOPPED, error=why)
            self._ended(trial, outcome)
        elif kind == EVALUATE:
            self._conductor.evaluated(report["number"], report["result"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keeps a trial as failed; without the winner's evaluation the sweep fails."""
        task = trial.config["task"]
        error = _why(trial)
        if task["kind"] == TRAIN:
            report = trial.last_result
            outcome = Outcome(
                state=FAILED,
                error=error,
                history=rows_of(report.get("history", ())),
                best_by=task["run"]["best_by"],
                restarts=trial.num_failures - 1,
            )
            self._ended(trial, outcome)
        elif task["kind"] == EVALUATE:
            self.failure = f"the winner could not be evaluated: {error}"

    def _ended(self, trial: Any, outcome: Outcome) -> None:
        number = trial.config["task"]["number"]
        self._conductor.trained(number, outcome)
        self._display.ended(number)
        self._trackers.ended(number, outcome)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def tune_with(
    conductor: Conductor,
    config: SweepConfig,
    *,
    display: SweepDisplay,
    trackers: SweepTrackers,
    slots: int,
    epochs: int,
    max_failures: int,
    book: str,
    stop_requested: Callable[[], int],
    is_over: Callable[[], bool],
) -> None:
    """Lets Ray Tune do the tasks of a conductor, until none is left or a stop is requested.

    Args:
        conductor: Says what is to be done, and keeps what came of it.
        config: The sweep's settings, with the resources of a trial.
        display: Shows it.
        trackers: Are told of it.
        slots: How many trials run at once.
        epochs: Of a whole trial.
        max_failures: How often the process of one trial may be lost.
        book: A folder for Ray Tune's own files, from which nothing is restored.
        stop_requested: Asked often.
        is_over: Whether the time for searching has run out.

    Raises:
        JobError: A trial finds no GPU, or the winner could not be evaluated.
    """
    # Ray Tune reads them once, for the first process. Who stores the sweep's files has read them by
    # then, and may have to again; trials have those of their node.
    hidden = contextlib.ExitStack()
    recorder = Recorder(conductor, display, trackers, is_over, hidden.close)

    def is_stopped() -> bool:
        return bool(stop_requested() or recorder.failure)

    scheduler = FIFOScheduler()
    if config.scheduler == "asha":
        scheduler = SearchScheduler(
            time_attr="epoch",
            max_t=epochs,
            grace_period=FIRST_RUNG_EPOCHS,
            reduction_factor=REDUCTION_FACTOR,
        )
    if config.workers_per_trial == 1:
        resources = {"CPU": config.cpus_per_trial, "GPU": config.gpus_per_trial}
    else:
        # The workers ask for theirs themselves; Ray wants a trial to hold something.
        resources = {"memory": 1}
    tuner = tune.Tuner(
        tune.with_resources(TrialProcess, {k: v for k, v in resources.items() if v}),
        tune_config=tune.TuneConfig(
            metric="merit",
            mode="max",
            search_alg=ConductorSearcher(conductor, is_stopped),
            scheduler=scheduler,
            num_samples=-1,
            # Without a number, Ray Tune starts one process after the other. One trial more than
            # there is room for waits, so that no process does.
            max_concurrent_trials=slots + (config.workers_per_trial == 1),
            reuse_actors=True,
            # By default the whole task would be the name of a folder.
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=book,
            stop=SweepStopper(is_over, is_stopped),
            failure_config=tune.FailureConfig(max_failures=max_failures),
            # Runs have checkpoints of their own.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[recorder],
            verbose=0,
        ),
    )
    with hidden:
        hidden.enter_context(variables(dict.fromkeys(SECRETS)))
        tuner.fit()
    if recorder.failure:
        raise JobError(recorder.failure)


def _why(trial: Any) -> str:
    """Why a trial's process was lost or broke."""
    error = trial.get_pickled_error() or trial.get_error()
    return one_line(error.cause if isinstance(error, RayTaskError) else error)
