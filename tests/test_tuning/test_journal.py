"""A sweep in Optuna's own form: what its programs see is what the sweep has kept."""

from __future__ import annotations

import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from job.storage.open import open_storage
from tests.kit.report_data import realistic_sweep
from tuning import journal as module
from tuning.journal import JOURNAL_FILE, Journal, journal
from tuning.records import FAILED, FINISHED, STOPPED, UNFINISHED, Sweep

STATES = {FINISHED: TrialState.COMPLETE, STOPPED: TrialState.PRUNED, FAILED: TrialState.FAIL}


def opened(content: bytes, folder: Path, name: str) -> optuna.Study:
    path = folder / "some.log"
    path.write_bytes(content)
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))


def test_optuna_sees_each_trial_as_it_ended(tmp_path):
    sweep: Sweep = realistic_sweep()
    study = opened(journal(sweep, sweep.trials), tmp_path, sweep.name)
    ended = [trial for trial in sweep.trials if trial.outcome.state != UNFINISHED]
    assert {trial.outcome.state for trial in sweep.trials} >= {FINISHED, STOPPED, FAILED}
    assert len(study.trials) == len(ended)
    for found, trial in zip(study.trials, ended, strict=True):
        assert found.state is STATES[trial.outcome.state]
        assert found.params == trial.plan.drawn
        assert found.user_attrs["settings"] == trial.plan.settings
        assert found.intermediate_values == {
            row.epoch: row.val_accuracy for row in trial.outcome.history
        }
        if trial.outcome.state == FINISHED:
            assert found.value == trial.outcome.best.val_accuracy
    best = max(
        (trial for trial in ended if trial.outcome.state == FINISHED),
        key=lambda trial: trial.outcome.best.val_accuracy,
    )
    assert study.best_params == best.plan.drawn


def test_it_is_written_whole_when_it_is_time_to(tmp_path, monkeypatch):
    sweep, folder = realistic_sweep(), open_storage(str(tmp_path / "s"))
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


def test_without_optuna_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    sweep, folder = realistic_sweep(), open_storage(str(tmp_path / "s"))
    Journal(folder, sweep).write(sweep.trials)
    assert folder.list() == []
