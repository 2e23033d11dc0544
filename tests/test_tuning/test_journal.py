"""A sweep in Optuna's own form: what its programs see is what the sweep has kept."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from job.storage.open import open_storage
from tests.kit.report_data import realistic_sweep
from tuning import journal as module
from tuning.journal import JOURNAL_FILE, Journal, journal
from tuning.records import FAILED, FINISHED, STOPPED, Outcome, Sweep, Trial

STATES = {FINISHED: TrialState.COMPLETE, STOPPED: TrialState.PRUNED, FAILED: TrialState.FAIL}


def opened(content: bytes, folder: Path, name: str) -> optuna.Study:
    path = folder / "some.log"
    path.write_bytes(content)
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    """Fifteen trials that ended, one that has not, and repeats behind it."""
    return realistic_sweep()


def ended(sweep: Sweep) -> list[Trial]:
    return [trial for trial in sweep.trials if trial.plan.number < 15]


def test_optuna_sees_each_trial_as_it_ended(sweep, tmp_path):
    study = opened(journal(sweep, sweep.trials), tmp_path, sweep.name)
    assert {trial.outcome.state for trial in ended(sweep)} == {FINISHED, STOPPED, FAILED}
    for found, trial in zip(study.trials, ended(sweep), strict=True):
        assert found.number == trial.plan.number
        assert found.state is STATES[trial.outcome.state]
        assert found.params == trial.plan.drawn
        assert found.user_attrs["settings"] == trial.plan.settings
        assert found.duration.total_seconds() == pytest.approx(trial.outcome.seconds, abs=1e-5)
        assert found.intermediate_values == {
            row.epoch: row.val_accuracy for row in trial.outcome.history
        }
        if trial.outcome.state == FINISHED:
            assert found.value == trial.outcome.best.val_accuracy
    best = max(
        (trial for trial in ended(sweep) if trial.outcome.state == FINISHED),
        key=lambda trial: trial.outcome.best.val_accuracy,
    )
    assert study.best_params == best.plan.drawn


def test_accuracy_and_time_are_a_study_of_their_own(sweep, tmp_path):
    """In which only those are that were trained to their end."""
    study = opened(journal(sweep, sweep.trials), tmp_path, f"{sweep.name}: accuracy and time")
    assert study.metric_names == ["validation accuracy", "training time, seconds"]
    finished = {t.plan.number: t.outcome for t in ended(sweep) if t.outcome.state == FINISHED}
    assert [trial.user_attrs["trial"] for trial in study.trials] == list(finished)
    for trial, outcome in zip(study.trials, finished.values(), strict=True):
        assert trial.values == [outcome.best.val_accuracy, outcome.train_seconds]
    # Of nine epochs with fewer steps each, trial 0 is the fastest and trial 2 the best.
    assert {trial.user_attrs["trial"] for trial in study.best_trials} == {0, 2}


def test_a_dashboard_that_is_open_reads_on(sweep, tmp_path, recwarn):
    """A later journal begins with an earlier one, though trials end in another order."""
    out_of_turn = [
        dataclasses.replace(trial, outcome=Outcome()) if trial.plan.number == 5 else trial
        for trial in sweep.trials
    ]
    earlier, later = journal(sweep, out_of_turn), journal(sweep, sweep.trials)
    # Optuna's words about itself are none for who trains.
    assert not recwarn
    assert later.startswith(earlier)
    study = opened(earlier, tmp_path, sweep.name)
    assert len(study.trials) == 5
    (tmp_path / "some.log").write_bytes(later)
    assert [t.params for t in study.trials] == [t.plan.drawn for t in ended(sweep)]


def test_it_is_written_whole_when_it_is_time_to(sweep, tmp_path, monkeypatch):
    folder = open_storage(str(tmp_path / "s"))
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    kept = Journal(folder, sweep)

    def trials() -> int:
        content = folder.read(JOURNAL_FILE, limit=10**7)
        return len(opened(content, tmp_path, sweep.name).trials)

    kept.update(sweep.trials[:1])
    assert folder.list() == []
    clock[0] = module.PAUSE_SECONDS
    kept.update(sweep.trials[:2])
    assert trials() == 2
    kept.update(sweep.trials[:3])
    assert trials() == 2
    kept.write(sweep.trials[:3])
    assert trials() == 3


def test_without_optuna_there_is_none(sweep, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    folder = open_storage(str(tmp_path / "s"))
    Journal(folder, sweep).write(sweep.trials)
    assert folder.list() == []
