"""What a sweep comes to: its best trial, its fast ones, its time and cost, what stopping saved.

Repeats of finalists are counted with the time and the cost, but not with what the search found.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from job.config.config import TrainConfig
from job.config.resolve import command_of
from job.errors import InputError
from job.stats import mean_sd
from tuning.config import SweepConfig, trial_config
from tuning.records import (
    FINISHED,
    SEARCH,
    STOPPED,
    UNFINISHED,
    Outcome,
    Sweep,
    Trial,
    merit,
)
from tuning.report.frame import SECONDS_PER_HOUR, Price

# So much of the accuracy some would give for time: a tenth of a point.
NEAR = 0.001


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
    """What one trial holds, all its workers together."""

    workers: int
    cpus: float
    gpus: float

    def cpu_hours(self, seconds: float | None) -> float | None:
        """Hours of one processor in some time; None where that is not known."""
        return None if seconds is None else seconds / SECONDS_PER_HOUR * self.cpus

    def gpu_hours(self, seconds: float | None) -> float | None:
        """Hours of one GPU in some time; None where that is not known."""
        return None if seconds is None else seconds / SECONDS_PER_HOUR * self.gpus

    def __str__(self) -> str:
        parts = {"worker": self.workers, "CPU": self.cpus, "GPU": self.gpus}
        return ", ".join(f"{n:g} {unit}" + "s" * (n > 1) for unit, n in parts.items() if n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """The winner, or the trial that leads while there is none.

    Attributes:
        trial: The trial.
        is_final: It is the winner.
        val_accuracy, test_accuracy: Mean and standard deviation over the members; None where it is
            not known.
        members: How many test accuracies were read.
        command: What trains the same again; empty where the settings are not those of a run.
    """

    trial: Trial
    is_final: bool
    val_accuracy: tuple[float, float | None]
    test_accuracy: tuple[float, float | None] | None
    members: int
    command: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Savings:
    """What stopping trials early saved, over the search trials that ended without failing.

    Attributes:
        trained: Epochs that they trained.
        whole: Epochs that they would have trained if none had been stopped.
        stopped: How many were stopped.
        seconds: What the epochs saved would have taken, each trial at its own mean.
        unknown: Stopped before their first epoch; their time is not in `seconds`.
    """

    trained: int
    whole: int
    stopped: int
    seconds: float
    unknown: int

    @property
    def epochs(self) -> int:
        """Epochs that were not trained, since their trials were stopped."""
        return self.whole - self.trained

    @property
    def share(self) -> float:
        """The epochs saved as a share of `whole`, 0 to 1; 0 where that is none."""
        return self.epochs / self.whole if self.whole else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spent:
    """Time, and its price.

    Attributes:
        held: Seconds for which trials held their resources, added up.
        trained: Of these, seconds in training steps and validation.
        repeats: Of these, seconds held by repeats of finalists.
        first, last: When the first trial began and the last one recorded ended, seconds since the
            epoch; None before that.
        cost: `held` at the price; None without one.
        running: Trials without a record, whose time is not in any of these.
    """

    held: float
    trained: float
    repeats: float
    first: float | None
    last: float | None
    cost: float | None
    running: int


def best_of(sweep: Sweep) -> Best | None:
    """The winner, or the trial that leads so far; None before any trial's first epoch."""
    winner = sweep.winner
    if winner is not None:
        trial = next(t for t in sweep.trials if t.plan.number == winner.trial)
        return Best(
            trial=trial,
            is_final=True,
            val_accuracy=mean_sd(winner.val_accuracy),
            test_accuracy=mean_sd(winner.test_accuracy) if winner.test_accuracy else None,
            members=len(winner.test_accuracy),
            command=winner.command,
        )
    leading = max(search_trials(sweep), key=lambda t: merit(t.outcome), default=None)
    if leading is None or leading.outcome.best is None:
        return None
    config = config_of(sweep, leading)
    return Best(
        trial=leading,
        is_final=False,
        val_accuracy=(leading.outcome.best.val_accuracy, None),
        test_accuracy=None,
        members=0,
        command="" if config is None else command_of(config, leading.outcome.device),
    )


def search_trials(sweep: Sweep) -> list[Trial]:
    """The trials of the search, without the finalists' repeats."""
    return [trial for trial in sweep.trials if trial.plan.kind == SEARCH]


def config_of(sweep: Sweep, trial: Trial) -> TrainConfig | None:
    """The settings of a trial's run; None where this version does not know them."""
    name = f"{sweep.name}-{trial.plan.name}"
    try:
        config = SweepConfig(**sweep.config)
        return trial_config(
            config,
            sweep.base,
            trial.plan.settings,
            name=name,
            storage="runs",
            seed=trial.plan.seed,
        )
    except (InputError, TypeError):
        return None


def savings(sweep: Sweep) -> Savings:
    """What stopping trials early saved."""
    ended = [t for t in search_trials(sweep) if t.outcome.state in (FINISHED, STOPPED)]
    trained = whole = stopped = unknown = 0
    seconds = 0.0
    for trial in ended:
        rows = trial.outcome.history
        trained += len(rows)
        # A run that finished may have had fewer epochs than allowed, by its own --patience.
        missing = 0
        if trial.outcome.state == STOPPED:
            stopped += 1
            missing = max(0, epochs_of(sweep, trial) - len(rows))
        whole += len(rows) + missing
        if rows:
            seconds += missing * trial.outcome.train_seconds / len(rows)
        else:
            unknown += missing > 0
    return Savings(trained=trained, whole=whole, stopped=stopped, seconds=seconds, unknown=unknown)


def epochs_of(sweep: Sweep, trial: Trial) -> int:
    """How many epochs a trial would have had if nothing had stopped it."""
    config = config_of(sweep, trial)
    if config is not None:
        return config.epochs
    return max(len(t.outcome.history) for t in sweep.trials)


def front(sweep: Sweep) -> list[Trial]:
    """The search trials that no other beats in both accuracy and time, the fastest first.

    Only of those that were trained to their end: of the others neither is known.
    """
    finished = [t for t in search_trials(sweep) if t.outcome.state == FINISHED and t.outcome.best]
    found: list[Trial] = []
    for trial in sorted(finished, key=lambda t: (t.outcome.train_seconds, -merit(t.outcome)[0])):
        if not found or merit(trial.outcome)[0] > merit(found[-1].outcome)[0]:
            found.append(trial)
    return found


def near_best(of_front: Sequence[Trial]) -> Trial:
    """The fastest of a front whose accuracy is within `NEAR` of the best."""
    best = merit(of_front[-1].outcome)[0]
    # Accuracies are shares of a few thousand examples; a difference of NEAR itself is near.
    return next(t for t in of_front if best - merit(t.outcome)[0] <= NEAR + 1e-9)


def spent(sweep: Sweep, price: Price | None) -> Spent:
    """The time of all trials, repeats included, and what it cost."""
    outcomes = [trial.outcome for trial in sweep.trials]
    spans = [(o.started, o.started + o.seconds) for o in outcomes if o.started is not None]
    held = sum(outcome.seconds for outcome in outcomes)
    return Spent(
        held=held,
        trained=sum(train_seconds_of(outcome) or 0.0 for outcome in outcomes),
        repeats=sum(t.outcome.seconds for t in sweep.trials if t.plan.kind != SEARCH),
        first=min((began for began, _ in spans), default=None),
        last=max((ended for _, ended in spans), default=None),
        cost=price.of(held) if price else None,
        running=states(sweep.trials)[UNFINISHED],
    )


def seconds_of(outcome: Outcome) -> float | None:
    """For how long a trial held its resources; None where that is not recorded yet."""
    return None if outcome.state == UNFINISHED else outcome.seconds


def train_seconds_of(outcome: Outcome) -> float | None:
    """Seconds in training steps and validation; None where that is not recorded yet."""
    return None if outcome.state == UNFINISHED else outcome.train_seconds


def states(trials: Sequence[Trial]) -> Counter[str]:
    """How many trials are in each state."""
    return Counter(trial.outcome.state for trial in trials)


def held_by_one(config: dict[str, Any]) -> Held:
    """What one trial holds, from the sweep's settings."""
    workers = config.get("workers_per_trial") or 1
    return Held(
        workers=workers,
        cpus=config.get("cpus_per_trial") or workers,
        gpus=config.get("gpus_per_trial") or 0,
    )
