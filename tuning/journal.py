"""A sweep as Optuna's programs read it: `optuna-journal.log` in its folder.

`optuna-dashboard optuna-journal.log` shows it, `optuna.load_study` opens it. It is made from the
sweep's own records and nothing is ever read from it; it is written whole, since object stores don't
append. Where Optuna is not installed there is none.
"""

from __future__ import annotations

import datetime
import importlib.util
import math
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.storage.base import Storage
from tuning.records import FAILED, FINISHED, STOPPED, SWEEP_FILE, UNFINISHED, Sweep, Trial
from tuning.space.space import SearchRange, parse_space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

JOURNAL_FILE = "optuna-journal.log"
# Between two that are written while trials are in training: a thousand trials take some seconds.
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
    """Optuna's journal of a sweep, with one study of its name.

    Its value is the validation accuracy of the weights that are kept; that of each epoch stands
    beside it. Trials that are in training are left out.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parameters = {
        one.key: one for one in parse_space(sweep.space, SWEEP_FILE, is_kept=True).parameters
    }
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, JOURNAL_FILE)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=sweep.name,
            direction="maximize",
        )
        study.set_user_attr("data set", sweep.dataset["name"])
        for trial in trials:
            if trial.outcome.state != UNFINISHED:
                study.add_trial(_frozen(trial, parameters))
        return path.read_bytes()


def _frozen(trial: Trial, parameters: dict[str, SearchRange]) -> FrozenTrial:
    from optuna.trial import FrozenTrial, TrialState

    plan, outcome = trial.plan, trial.outcome
    states = {FINISHED: TrialState.COMPLETE, STOPPED: TrialState.PRUNED, FAILED: TrialState.FAIL}
    best = outcome.best
    began = datetime.datetime.fromtimestamp(outcome.started or 0.0)
    told: dict[str, Any] = {
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
        value=best.val_accuracy if best and outcome.state == FINISHED else None,
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
