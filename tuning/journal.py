"""A sweep as Optuna's programs read it: `optuna-journal.log` in its folder.

`optuna-dashboard optuna-journal.log` shows it, `optuna.load_study` opens it. It is made from the
sweep's own records and nothing is ever read from it; it is written whole, since object stores don't
append. A later one begins with the bytes of an earlier one, so that a dashboard that is open reads
on where it was. Where Optuna is not installed there is none.
"""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import json
import math
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from job.storage.base import Storage
from tuning.records import FAILED, FINISHED, STOPPED, SWEEP_FILE, UNFINISHED, Sweep, Trial
from tuning.space.space import SearchRange, parse_space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

JOURNAL_FILE = "optuna-journal.log"
# Of the study with two objectives: behind the sweep's name.
BOTH = ": accuracy and time"
OBJECTIVES = ["validation accuracy", "training time, seconds"]
# Who wrote a line, which is random otherwise.
WRITER = "lenet"
# Between two that are written while trials are in training.
PAUSE_SECONDS = 60.0


class Journal:
    """Keeps the journal of a sweep in its folder.

    Args:
        folder: The sweep's.
        sweep: Its settings; trials are given with each call.
    """

    def __init__(self, folder: Storage, sweep: Sweep) -> None:
        self._folder, self._sweep = folder, sweep
        self._is_wanted = importlib.util.find_spec("optuna") is not None
        self._after = time.monotonic() + PAUSE_SECONDS

    def update(self, trials: Iterable[Trial]) -> None:
        """Writes it if it is time to."""
        if time.monotonic() >= self._after:
            self.write(trials)

    def write(self, trials: Iterable[Trial]) -> None:
        """Writes it now."""
        if self._is_wanted:
            self._folder.write(JOURNAL_FILE, journal(self._sweep, trials))
        self._after = time.monotonic() + PAUSE_SECONDS


def journal(sweep: Sweep, trials: Iterable[Trial]) -> bytes:
    """Optuna's journal of a sweep, with two studies.

    That of the sweep's name has the validation accuracy of the weights that are kept for its value,
    and that of each epoch beside it. The other has two objectives, that accuracy and the seconds in
    training and validation; only trials that finished are in it, since nobody knows either of the
    others.

    Args:
        sweep: Its settings.
        trials: By number. Those behind one that has not ended are left out, so that a trial's
            number is the same here and there.
    """
    import optuna
    from optuna.storages import JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parameters = {
        one.key: one for one in parse_space(sweep.space, SWEEP_FILE, is_kept=True).parameters
    }
    lines = _lines()
    storage = JournalStorage(lines)
    study, both = (
        optuna.create_study(storage=storage, study_name=name, directions=directions)
        for name, directions in (
            (sweep.name, ["maximize"]),
            (sweep.name + BOTH, ["maximize", "minimize"]),
        )
    )
    for one in (study, both):
        one.set_user_attr("data set", sweep.dataset["name"])
        with warnings.catch_warnings():
            # That names of objectives may yet change in Optuna is no news for who trains.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            one.set_metric_names(OBJECTIVES[: len(one.directions)])
    for trial in itertools.takewhile(lambda one: one.outcome.state != UNFINISHED, trials):
        outcome = trial.outcome
        values = (
            [outcome.best.val_accuracy, outcome.train_seconds]
            if outcome.state == FINISHED and outcome.best
            else None
        )
        study.add_trial(_frozen(trial, parameters, values and values[:1]))
        if values:
            both.add_trial(_frozen(trial, parameters, values))
    return b"".join(
        json.dumps({**log, "worker_id": WRITER}, separators=(",", ":")).encode() + b"\n"
        for log in lines.logs
    )


def _lines() -> Any:
    """A list that Optuna keeps its journal in; its own file is synced line by line."""
    from optuna.storages.journal import BaseJournalBackend

    class Lines(BaseJournalBackend):
        def __init__(self) -> None:
            self.logs: list[dict[str, Any]] = []

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self.logs += logs

        def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
            return self.logs[log_number_from:]

    return Lines()


def _frozen(
    trial: Trial, parameters: dict[str, SearchRange], values: list[float] | None
) -> FrozenTrial:
    from optuna.trial import FrozenTrial, TrialState

    plan, outcome = trial.plan, trial.outcome
    states = {FINISHED: TrialState.COMPLETE, STOPPED: TrialState.PRUNED, FAILED: TrialState.FAIL}
    best = outcome.best
    began = datetime.datetime.fromtimestamp(outcome.started or 0.0)
    told: dict[str, Any] = {
        "trial": plan.number,
        "kind": plan.kind,
        "settings": plan.settings,
        "seed": plan.seed,
        "val_loss": best and best.val_loss,
        "train_seconds": outcome.train_seconds,
        "error": outcome.error,
    }
    drawn = {key: value for key, value in plan.drawn.items() if key in parameters}
    return FrozenTrial(
        number=plan.number,
        trial_id=plan.number,
        state=states[outcome.state],
        value=None,
        values=values,
        datetime_start=began,
        datetime_complete=began + datetime.timedelta(seconds=outcome.seconds),
        params=drawn,
        distributions={key: _distribution(parameters[key]) for key in drawn},
        user_attrs={key: value for key, value in told.items() if value not in (None, "")},
        system_attrs={},
        intermediate_values={
            row.epoch: row.val_accuracy
            for row in outcome.history
            if math.isfinite(row.val_accuracy)
        },
    )


def _distribution(parameter: SearchRange) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if parameter.values:
        return CategoricalDistribution(parameter.values)
    kind = IntDistribution if parameter.is_integer else FloatDistribution
    return kind(parameter.low, parameter.high, log=parameter.log)
