"""Runs, and winners of sweeps, as records that can stand side by side."""

from __future__ import annotations

from collections.abc import Sequence

from job.compare.record import FINISHED, Group, Record, groups_of, of_net
from job.config.resolve import command_of
from job.data.catalogue import Dataset
from job.errors import InputError
from job.runs.data import dataset_of
from job.runs.run import Run
from job.runs.state import EpochRow, best_row
from job.stats import mean_sd
from tuning.records import UNFINISHED, Sweep
from tuning.report.totals import config_of

SHOWN = ("baseline_accuracy", "test_loss", "parameters", "workers", "restarts", "lost_steps")
AGAIN = "Train the same again"


def record_of_run(run: Run) -> Record:
    """A run as it stands.

    Raises:
        InputError: It has no finished epoch yet.
        JobError: What it left can't be trusted.
    """
    history, result = run.history(), run.result()
    best = best_row(history, run.config.best_by)
    if best is None:
        raise InputError("NAME", run.name, "has no finished epoch yet; let it train on")
    result = result or {}
    device = result.get("device", "")
    commands = {AGAIN: command_of(run.config, device)}
    return of_net(
        run.name,
        run.config,
        dataset_of(run),
        state=FINISHED if result else UNFINISHED,
        history=history,
        val_accuracy=best.val_accuracy,
        test_accuracy=result.get("test_accuracy"),
        train_seconds=_seconds(history),
        device=device,
        created=run.created,
        commands=commands if result else {**commands, "Continue it": run.command},
        facts={name: result.get(name) for name in (*SHOWN, "versions", "best_weights_sha256")},
    )


def records_of_winner(sweep: Sweep) -> list[Record]:
    """The winner of a sweep: its trial and the repeats of it.

    Raises:
        InputError: It has no winner yet.
    """
    winner = sweep.winner
    if winner is None:
        raise InputError("NAME", sweep.name, "has no winner yet; let the sweep end")
    tested = dict(zip(winner.members, winner.test_accuracy, strict=False))
    found = []
    for trial in sweep.trials:
        outcome, best = trial.outcome, trial.outcome.best
        if trial.plan.number not in winner.members or best is None:
            continue
        config = config_of(sweep, trial)
        if config is None:
            raise InputError("NAME", sweep.name, "has settings that this version does not know")
        found.append(
            of_net(
                f"{sweep.name}/{trial.plan.name}",
                config,
                _dataset_of(sweep),
                state=outcome.state,
                history=outcome.history,
                val_accuracy=best.val_accuracy,
                test_accuracy=tested.get(trial.plan.number),
                train_seconds=_seconds(outcome.history),
                device=outcome.device,
                created=outcome.started,
                commands={AGAIN: command_of(config, outcome.device)},
                facts={"versions": sweep.versions},
            )
        )
    return found


def ranked(records: Sequence[Record]) -> list[Group]:
    """The records by settings, best validation accuracy first."""
    return sorted(
        groups_of(records), key=lambda g: mean_sd(g.values("val_accuracy"))[0], reverse=True
    )


def _dataset_of(sweep: Sweep) -> Dataset:
    try:
        return Dataset.from_dict(sweep.dataset)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("NAME", sweep.name, f"its data set can't be read: {error}") from error


def _seconds(history: Sequence[EpochRow]) -> float:
    return sum(row.seconds for row in history)
