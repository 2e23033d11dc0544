"""Who decides what is done next in a sweep, and keeps what came of it.

Ray Tune asks for one task after another, wherever a process is free: trials of the search first,
then the finalists with other seeds, then the test set for the winner. Nothing here knows of Ray,
whose import takes longer than to say what is wrong with a setting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from job.config.config import TrainConfig
from job.config.resolve import command_of, over_recipe
from job.models.architecture import Architecture
from job.runs.folder import absolute
from job.stats import mean_sd
from job.storage.base import Storage
from tuning.config import SweepConfig, trial_config
from tuning.journal import Journal
from tuning.records import (
    FAILED,
    REPEAT,
    SEARCH,
    TRIALS,
    UNFINISHED,
    Outcome,
    Plan,
    Sweep,
    Trial,
    Winner,
    merit,
    write_outcome,
    write_plan,
    write_winner,
)
from tuning.space.search import Search

TRAIN, RECALL, EVALUATE = "train", "recall", "evaluate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What Ray Tune takes for a trial.

    Attributes:
        kind: `train` a run; `recall` to the scheduler how one went before this command began; or
            `evaluate` a run on the test set.
        is_search: The scheduler may stop it.
        number: The trial's number.
        run: Settings of its run.
        outcome: What is known of it.
        dataset: What it is trained on, as `Dataset.to_dict` gives it.
        architecture: Of the user's own model; None for a built-in one.
        threads: Threads for computing.
        gpus: The share of a GPU that the process has.
    """

    kind: str
    is_search: bool
    number: int
    run: dict[str, Any]
    outcome: dict[str, Any]
    dataset: dict[str, Any]
    architecture: Architecture | None = None
    threads: int
    gpus: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """What `dataclasses.asdict` made a dict of, as Ray Tune passes it on."""
        model = values["architecture"]
        architecture = None if model is None else Architecture.from_dict(model)
        return cls(**{**values, "architecture": architecture})


class Conductor:
    """The plan of a sweep.

    Args:
        folder: The sweep's folder.
        sweep: What was done before.
        config: The sweep's settings.
        search: Picks what to try.
        architecture: Of the user's own model; None for a built-in one.
        trials: How many settings to try.
        threads: Threads of each trial.
        gpus: The share of a GPU of each trial's process.
        journal: Is told of each trial that has ended.
        is_over: Whether the time for searching has run out.
    """

    def __init__(
        self,
        folder: Storage,
        sweep: Sweep,
        config: SweepConfig,
        search: Search,
        *,
        architecture: Architecture | None = None,
        trials: int,
        threads: int,
        gpus: float,
        journal: Journal | None = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._folder, self._sweep, self._config = folder, sweep, config
        self._search, self._trials = search, trials
        self._architecture = architecture
        self._threads, self._gpus = threads, gpus
        self._journal, self._is_over = journal, is_over
        self.plans = {trial.plan.number: trial.plan for trial in sweep.trials}
        self.outcomes = {
            trial.plan.number: trial.outcome
            for trial in sweep.trials
            if trial.outcome.state != UNFINISHED
        }
        self.winner: Winner | None = None
        self._results: dict[int, dict[str, Any]] = {}
        self._is_searching = not any(plan.kind == REPEAT for plan in self.plans.values())
        # A scheduler that compares trials has to know those of before, while others are to come.
        self._is_compared = config.scheduler == "asha" and self._is_searching
        for plan in self._of(SEARCH):
            search.again(plan)
            if plan.number in self.outcomes:
                search.ended(plan, self.outcomes[plan.number])
        self._ahead = self._tasks()

    def next_task(self) -> Task | None:
        """What to do next; None where that depends on what is under way.

        Raises:
            StopIteration: Nothing is left to do.
        """
        return next(self._ahead)

    def trained(self, number: int, outcome: Outcome) -> None:
        """Keeps what came of a trial."""
        plan = self.plans[number]
        write_outcome(self._folder, plan, outcome)
        self.outcomes[number] = outcome
        if plan.kind == SEARCH:
            self._search.ended(plan, outcome)
        if self._journal is not None:
            self._journal.update(self.trials)

    @property
    def trials(self) -> list[Trial]:
        """All that were planned, with what is known of them."""
        return [Trial(plan=p, outcome=self.outcome(n)) for n, p in sorted(self.plans.items())]

    def evaluated(self, number: int, result: dict[str, Any]) -> None:
        """Takes what the test set says of a trial."""
        self._results[number] = result

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self._sweep.name

    @property
    def planned_repeats(self) -> int:
        """How many trials the finalists will be trained again in, at most."""
        return self._config.repeats * min(self._config.finalists, self._trials)

    def outcome(self, number: int) -> Outcome:
        """What is known of a trial."""
        return self.outcomes.get(number, Outcome())

    def run_config(self, plan: Plan) -> TrainConfig:
        """The settings of a trial's run."""
        return trial_config(
            self._config,
            self._sweep.base,
            plan.settings,
            name=plan.name,
            # Trials stand elsewhere.
            storage=absolute(self._folder.at(TRIALS).uri),
            seed=plan.seed,
        )

    def _tasks(self) -> Iterator[Task | None]:
        yield from self._search_tasks()
        while self._under_way():
            yield None
        if self._sound():
            yield from self._repeats()
            while self._under_way():
                yield None
            yield from self._look_at_test_set()

    def _search_tasks(self) -> Iterator[Task]:
        for plan in self._of(SEARCH):
            if plan.number not in self.outcomes:
                yield self._task(TRAIN, plan)
            elif self._is_compared and self.outcomes[plan.number].best:
                yield self._task(RECALL, plan)
        while self._is_searching and not self._is_over():
            number = len(self.plans)
            point = self._search.point(number) if number < self._trials else None
            if point is None:
                break
            drawn, settings = point
            plan = Plan(number=number, settings=settings, seed=self._seed, drawn=drawn)
            yield self._task(TRAIN, self._planned(plan))
        self._is_searching = False

    def _repeats(self) -> Iterator[Task]:
        for plan in self._of(REPEAT):
            if plan.number not in self.outcomes:
                yield self._task(TRAIN, plan)
        for finalist in self._finalists():
            have = [plan for plan in self._of(REPEAT) if plan.repeats == finalist.number]
            for i in range(len(have), self._config.repeats):
                again = dataclasses.replace(
                    finalist,
                    number=len(self.plans),
                    kind=REPEAT,
                    seed=self._seed + 1 + i,
                    repeats=finalist.number,
                )
                yield self._task(TRAIN, self._planned(again))

    def _look_at_test_set(self) -> Iterator[Task | None]:
        """The only look at the test set, for the winner."""
        members = max(map(self._members, self._candidates()), key=self._mean_merit)
        for plan in members:
            yield self._task(EVALUATE, plan)
        while not all(plan.number in self._results for plan in members):
            yield None
        self.winner = Winner(
            trial=members[0].number,
            members=tuple(plan.number for plan in members),
            val_accuracy=tuple(self._results[p.number]["val_accuracy"] for p in members),
            test_accuracy=tuple(self._results[p.number]["test_accuracy"] for p in members),
            command=command_of(
                self.run_config(members[0]), self._results[members[0].number]["device"]
            ),
        )
        write_winner(self._folder, self.winner)

    @property
    def _seed(self) -> int:
        """The seed of all search trials: what differs between them is their settings."""
        return over_recipe(self._sweep.base).seed

    def _of(self, kind: str) -> list[Plan]:
        return [plan for _, plan in sorted(self.plans.items()) if plan.kind == kind]

    def _planned(self, plan: Plan) -> Plan:
        write_plan(self._folder, plan)
        self.plans[plan.number] = plan
        return plan

    def _under_way(self) -> bool:
        return self.plans.keys() != self.outcomes.keys()

    def _candidates(self) -> list[Plan]:
        """Search trials that can win: of those with repeats, if there are any."""
        sound = self._sound()
        repeated = {plan.repeats for plan in self._of(REPEAT) if self._is_sound(plan)}
        return [plan for plan in sound if plan.number in repeated] or sound

    def _sound(self) -> list[Plan]:
        """Search trials whose weights could be used."""
        return [plan for plan in self._of(SEARCH) if self._is_sound(plan)]

    def _is_sound(self, plan: Plan) -> bool:
        outcome = self.outcome(plan.number)
        return outcome.state != FAILED and outcome.best is not None

    def _finalists(self) -> list[Plan]:
        ranked = sorted(
            self._sound(), key=lambda plan: merit(self.outcomes[plan.number]), reverse=True
        )
        return ranked[: self._config.finalists]

    def _members(self, plan: Plan) -> list[Plan]:
        """A search trial and its repeats."""
        repeats = [again for again in self._of(REPEAT) if again.repeats == plan.number]
        return [plan, *filter(self._is_sound, repeats)]

    def _mean_merit(self, members: list[Plan]) -> tuple[float, float]:
        merits = [merit(self.outcomes[plan.number]) for plan in members]
        return mean_sd(m[0] for m in merits)[0], mean_sd(m[1] for m in merits)[0]

    def _task(self, kind: str, plan: Plan) -> Task:
        return Task(
            kind=kind,
            is_search=plan.kind == SEARCH and kind != EVALUATE,
            number=plan.number,
            run=self.run_config(plan).to_dict(),
            outcome=dataclasses.asdict(self.outcome(plan.number)),
            dataset=self._sweep.dataset,
            architecture=self._architecture,
            threads=self._threads,
            gpus=self._gpus,
        )
