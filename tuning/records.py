"""What a sweep leaves in its folder, as values: what was tried, what came of it, and who won.

    NAME/sweep.json             settings, space, hardware, versions
    NAME/plans/0007.json        what trial 7 is to train; written before it starts
    NAME/trials/0007/           its run, like any other run
    NAME/outcomes/0007.json     what came of it; written once, when it has ended
    NAME/winner.json            the best settings, and the one look at the test set
    NAME/optuna-journal.log     the same for Optuna's programs, made from the others

Each file is written once and atomically, by the driver; so a sweep whose driver was killed goes on
from what is there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from job.config.recipes import STATE, at_the_time
from job.runs.run import CONFIG_FILE, run_at
from job.runs.state import EpochRow, best_row, rows_of
from job.storage.base import Storage
from job.storage.documents import read_document, to_json

SWEEP_FILE = "sweep.json"
WINNER_FILE = "winner.json"
PLANS, OUTCOMES, TRIALS = "plans", "outcomes", "trials"

SEARCH, REPEAT = "search", "repeat"
FINISHED, STOPPED, FAILED, UNFINISHED = "finished", "stopped", "failed", "unfinished"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a trial is to train.

    Attributes:
        number: The trial's number, from 0.
        kind: `search`, or `repeat` for a finalist with another seed.
        settings: The searched settings by field name; the rest is common to all trials.
        seed: The seed of its run.
        repeats: The number of the trial whose settings it repeats.
        drawn: What the sampler drew, by parameter, before it was scaled.
    """

    number: int
    kind: str = SEARCH
    settings: dict[str, Any]
    seed: int
    repeats: int | None = None
    drawn: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The number with four digits, by which its files and its run are named."""
        return f"{self.number:04d}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a trial.

    Attributes:
        state: `finished` (all its epochs), `stopped` (by the scheduler), `failed`, or `unfinished`
            (not recorded yet: it trains, or its driver is gone).
        error: Why it failed or was stopped, in one line.
        history: Its epochs.
        best_by: What makes one of them the best, the setting of its run.
        started: When it began, seconds since the epoch; None if it never did.
        seconds: Time it held its resources, start-up, validation and checkpoints included.
        restarts: How often training was taken up again, after a lost process or driver.
        device: What it was trained on.
    """

    state: str = UNFINISHED
    error: str = ""
    history: tuple[EpochRow, ...] = ()
    best_by: str = "loss"
    started: float | None = None
    seconds: float = 0.0
    restarts: int = 0
    device: str = ""

    @property
    def best(self) -> EpochRow | None:
        """The epoch whose weights are kept."""
        return best_row(self.history, self.best_by)

    @property
    def train_seconds(self) -> float:
        """Time in training steps and validation; the rest of `seconds` is overhead."""
        return sum(row.seconds + row.val_seconds for row in self.history)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What a trial is to train, and what came of it so far."""

    plan: Plan
    outcome: Outcome = Outcome()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Winner:
    """The best settings.

    Attributes:
        trial: The number of the search trial with these settings.
        members: The numbers of all trials with these settings whose test accuracy was read: the
            search trial and its repeats.
        val_accuracy, test_accuracy: Of each member, of its best weights.
        command: What trains the same again.
    """

    trial: int
    members: tuple[int, ...]
    val_accuracy: tuple[float, ...]
    test_accuracy: tuple[float, ...]
    command: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as it stands.

    Attributes:
        name: Its name.
        created: When it was first started, seconds since the epoch.
        config: The fields of `SweepConfig`.
        base: The settings of a run that were given for all trials.
        space: The searched parameters, as `Space.to_document` gives them.
        dataset: Name of the data set, and its files with their SHA-256.
        hardware: What the cluster holds, in words.
        versions: Of Python and the packages that compute.
        recipes: The state of the recipes when it began; `base` has the names of today for them
            (job/config/recipes.py).
        trials: By number.
        winner: None while it is not known.
    """

    name: str
    created: float
    config: dict[str, Any]
    base: dict[str, Any]
    space: dict[str, Any]
    dataset: dict[str, Any]
    hardware: str
    versions: dict[str, str]
    recipes: int = STATE
    trials: tuple[Trial, ...] = ()
    winner: Winner | None = None


def merit(outcome: Outcome) -> tuple[float, float]:
    """What decides between trials; greater is better.

    The validation accuracy of the weights that are kept, and between equals their validation loss.
    """
    best = outcome.best
    return (best.val_accuracy, -best.val_loss) if best else (-math.inf, -math.inf)


def document_of(sweep: Sweep) -> dict[str, Any]:
    """What `sweep.json` holds; trials and the winner have files of their own."""
    document = dataclasses.asdict(sweep)
    del document["trials"], document["winner"]
    return document


def write_plan(folder: Storage, plan: Plan) -> None:
    """Keeps a trial's plan as `plans/NUMBER.json` in the sweep's folder."""
    folder.write(f"{PLANS}/{plan.name}.json", to_json(dataclasses.asdict(plan)))


def write_outcome(folder: Storage, plan: Plan, outcome: Outcome) -> None:
    """Keeps a trial's outcome as `outcomes/NUMBER.json` in the sweep's folder."""
    folder.write(f"{OUTCOMES}/{plan.name}.json", to_json(dataclasses.asdict(outcome)))


def write_winner(folder: Storage, winner: Winner) -> None:
    """Keeps the winner as `winner.json` in the sweep's folder."""
    folder.write(WINNER_FILE, to_json(dataclasses.asdict(winner)))


def read_sweep(folder: Storage, known: Sweep | None = None) -> Sweep:
    """Reads what a sweep has left so far.

    Args:
        folder: The sweep's.
        known: What was read before. Of the same sweep only what is new is read then, since no file
            is ever written twice.

    Raises:
        FileNotFoundError: There is no sweep.
        ValueError: A file is not what a sweep writes; the message names it.
    """
    document = _read(folder, SWEEP_FILE, _sweep)
    before: dict[str, Trial] = {}
    if known is not None and document_of(known) == document_of(document):
        before = {f"{trial.plan.name}.json": trial for trial in known.trials}
    ended = set(folder.at(OUTCOMES).list())
    trials = []
    for name in folder.at(PLANS).list():
        trial = before.get(name) or Trial(
            plan=_read(folder, f"{PLANS}/{name}", lambda found: Plan(**found))
        )
        if name in ended and trial.outcome.state == UNFINISHED:
            trial = dataclasses.replace(trial, outcome=_outcome(folder, name))
        trials.append(trial)
    try:
        winner = _read(folder, WINNER_FILE, _winner)
    except FileNotFoundError:
        winner = None
    return dataclasses.replace(document, trials=tuple(trials), winner=winner)


def with_epochs(trial: Trial, folder: Storage) -> Trial:
    """A trial; one that has not ended with the epochs that its run has finished so far.

    Args:
        trial: As `read_sweep` has it.
        folder: The sweep's.

    Raises:
        JobError: What its run left can't be trusted.
    """
    place = folder.at(f"{TRIALS}/{trial.plan.name}")
    if trial.outcome.state != UNFINISHED or CONFIG_FILE not in place.list():
        return trial
    return dataclasses.replace(trial, outcome=Outcome(history=run_at(place).history()))


def _outcome(folder: Storage, name: str) -> Outcome:
    def parse(found: dict[str, Any]) -> Outcome:
        return Outcome(**{**found, "history": rows_of(found["history"])})

    return _read(folder, f"{OUTCOMES}/{name}", parse)


def _sweep(found: Mapping[str, Any]) -> Sweep:
    # Sweeps of before had a tracker of their own; now it is a setting of runs.
    config, base = dict(found["config"]), dict(found["base"])
    tracker = config.pop("tracker", None)
    if tracker:
        base.setdefault("tracker", tracker)
    state = found.get("recipes", 1)
    if state < STATE:
        base["recipe"] = at_the_time(base.get("recipe", "quick"), state)
    return Sweep(**{**found, "recipes": state, "config": config, "base": base})


def _winner(found: Mapping[str, Any]) -> Winner:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    return Winner(**fields)


def _read(folder: Storage, name: str, parse: Any) -> Any:
    try:
        return parse(read_document(folder, name))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.uri}/{name} is not what a sweep writes: {error}") from error
