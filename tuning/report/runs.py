"""Runs, and winners of sweeps, as entries that can stand side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from job.config.config import command_of
from job.errors import InputError
from job.runs.run import Run
from job.runs.state import EpochRow
from job.stats import mean_sd
from tuning.records import Sweep, best_row
from tuning.report.totals import config_of

FINISHED, UNFINISHED = "finished", "unfinished"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One run of a comparison.

    Attributes:
        name: What it is called here.
        state: `finished`, or `unfinished`: it trains, or can be continued.
        settings: Those that decide the result, the seed among them.
        history: Its epochs; at least one.
        test_accuracy: None while the test set was not read.
        commands: What trains the same again, and what else can be done with it; by purpose.
        created: When it was started, seconds since the epoch.
        facts: What else is on record, by name.
    """

    name: str
    state: str
    settings: dict[str, Any]
    history: tuple[EpochRow, ...]
    test_accuracy: float | None
    commands: dict[str, str]
    created: float | None
    device: str = ""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> EpochRow:
        best = best_row(self.history)
        assert best is not None  # There is at least one epoch.
        return best

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def train_seconds(self) -> float:
        return sum(row.seconds for row in self.history)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Runs whose settings differ by the seed alone."""

    entries: tuple[Entry, ...]

    @property
    def first(self) -> Entry:
        return self.entries[0]

    @property
    def seeds(self) -> str:
        return ", ".join(str(entry.seed) for entry in self.entries)

    @property
    def val_accuracy(self) -> tuple[float, float | None]:
        return mean_sd(entry.best.val_accuracy for entry in self.entries)

    @property
    def tested(self) -> list[float]:
        return [e.test_accuracy for e in self.entries if e.test_accuracy is not None]

    @property
    def test_accuracy(self) -> tuple[float, float | None] | None:
        return mean_sd(self.tested) if self.tested else None

    @property
    def train_seconds(self) -> float:
        return mean_sd(entry.train_seconds for entry in self.entries)[0]


def entry_of_run(run: Run) -> Entry:
    """A run as it stands.

    Raises:
        InputError: It has no finished epoch yet.
        JobError: Its record can't be trusted.
    """
    state, result = run.restore(), run.result()
    if state is None or not state.history:
        raise InputError("NAME", run.name, "has no finished epoch yet; let it train on")
    result = result or {}
    commands = {"Train the same again": command_of(run.config, result.get("device", ""))}
    if not result:
        commands["Continue it"] = run.command
    shown = ("baseline_accuracy", "test_loss", "parameters", "workers", "restarts", "lost_steps")
    return Entry(
        name=run.name,
        state=FINISHED if result else UNFINISHED,
        settings=run.config.fixed_dict(),
        history=state.history,
        test_accuracy=result.get("test_accuracy"),
        commands=commands,
        created=run.created,
        device=result.get("device", ""),
        facts={name: result.get(name) for name in (*shown, "versions", "best_weights_sha256")},
    )


def entries_of_winner(sweep: Sweep) -> list[Entry]:
    """The winner of a sweep: its trial and the repeats of it.

    Raises:
        InputError: It has no winner yet.
    """
    winner = sweep.winner
    if winner is None:
        raise InputError("NAME", sweep.name, "has no winner yet; let the sweep end")
    tested = dict(zip(winner.members, winner.test_accuracy, strict=False))
    entries = []
    for trial in sweep.trials:
        config = config_of(sweep, trial)
        if trial.plan.number not in winner.members or not trial.outcome.history:
            continue
        if config is None:
            raise InputError("NAME", sweep.name, "has settings that this version does not know")
        entries.append(
            Entry(
                name=f"{sweep.name}/{trial.plan.name}",
                state=trial.outcome.state,
                settings=config.fixed_dict(),
                history=trial.outcome.history,
                test_accuracy=tested.get(trial.plan.number),
                commands={"Train the same again": command_of(config, trial.outcome.device)},
                created=trial.outcome.started,
                device=trial.outcome.device,
                facts={"versions": sweep.versions},
            )
        )
    return entries


def groups_of(entries: Sequence[Entry]) -> list[Group]:
    """The entries by settings, best validation accuracy first."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_without_seed(entry), []).append(entry)
    made = [Group(entries=tuple(sorted(g, key=lambda e: e.seed))) for g in groups.values()]
    return sorted(made, key=lambda group: group.val_accuracy[0], reverse=True)


def check_comparable(entries: Sequence[Entry]) -> None:
    """Raises InputError where accuracies would be set side by side that do not compare."""
    first = entries[0]
    for entry in entries:
        mine, other = entry.settings["dataset"], first.settings["dataset"]
        if mine != other:
            raise InputError(
                "NAME",
                entry.name,
                f"was trained on {mine}, but {first.name} on {other}; accuracies of different "
                "data do not compare",
            )


def differing(groups: Sequence[Group]) -> list[str]:
    """The settings in which the groups differ, in the order of a run's settings."""
    return [
        name
        for name in groups[0].first.settings
        if name != "seed" and len({json.dumps(g.first.settings.get(name)) for g in groups}) > 1
    ]


def _without_seed(entry: Entry) -> str:
    return json.dumps({k: v for k, v in entry.settings.items() if k != "seed"}, sort_keys=True)
