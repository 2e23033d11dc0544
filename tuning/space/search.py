"""How a sweep picks the next settings to try: at random, on a grid, or with Optuna.

Every searcher gives the point with a given number, and none that was given before: with the same
seed it would train to the same bits. Random and grid points depend on seed, number and those before
alone, so that a sweep which goes on tries what it would have tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from tuning.config import SweepConfig
from tuning.records import FAILED, FINISHED, Outcome, Plan, merit
from tuning.space.space import Point, SearchRange, Space, identity

# How often Optuna may ask for what was tried before something else is.
ASKS = 10
# And how many draws in a row without anything new mean that there is nothing.
DRAWS = 10_000


class Search(Protocol):
    """Picks points of a space."""

    def point(self, number: int) -> Point | None:
        """What the trial with this number is to try; None where there is no more to try."""

    def again(self, plan: Plan) -> None:
        """Told of a trial that was picked before this command began."""

    def ended(self, plan: Plan, outcome: Outcome) -> None:
        """Told what came of a trial."""


class RandomSearch:
    """Draws, each of settings that no trial before it had."""

    def __init__(self, space: Space, base: Mapping[str, Any], seed: int) -> None:
        self._space, self._base, self._seed = space, base, seed
        self._tried: set[str] = set()

    def point(self, number: int) -> Point | None:
        """Draws by the seed and this number until there is one that is new; None for no such."""
        # Raw Philox output stays the same between NumPy versions (NEP 19).
        bits = np.random.Philox(key=[self._seed, number])

        def draw(parameter: SearchRange) -> Any:
            return parameter.at(int(bits.random_raw() >> 11) * 2.0**-53)

        for _ in range(DRAWS):
            point = self._space.choose(draw, self._base)
            if self.is_new(point):
                return point
        return None

    def is_new(self, point: Point) -> bool:
        """Whether nothing like it was tried; now it is."""
        known = len(self._tried)
        self._tried.add(identity(point[1]))
        return len(self._tried) > known

    def again(self, plan: Plan) -> None:
        """Notes that this was tried."""
        self._tried.add(identity(plan.settings))

    def ended(self, plan: Plan, outcome: Outcome) -> None:
        """Does nothing: no draw depends on an outcome."""


class GridSearch:
    """Every combination once."""

    def __init__(self, space: Space, base: Mapping[str, Any]) -> None:
        self._points = list(space.grid(base))

    def __len__(self) -> int:
        return len(self._points)

    def point(self, number: int) -> Point | None:
        """The combination with this number; None after the last."""
        return self._points[number] if number < len(self._points) else None

    def again(self, plan: Plan) -> None:
        """Does nothing: a point's number says which it is."""

    def ended(self, plan: Plan, outcome: Outcome) -> None:
        """Does nothing: no point depends on an outcome."""


class OptunaSearch:
    """Optuna's tree-structured Parzen estimator, which learns from the trials that ended."""

    def __init__(self, space: Space, base: Mapping[str, Any], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._space, self._base = optuna, space, base
        # Others are in training while one is picked; they count as bad, so that not all of them
        # gather at one place.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._open: dict[int, Any] = {}
        # What to try where Optuna asks for nothing new, and what was tried.
        self._random = RandomSearch(space, base, seed)

    def point(self, number: int) -> Point | None:
        """What Optuna asks to try, given what it was told so far; None where nothing is left."""
        for _ in range(ASKS):
            point = self._ask(number)
            if self._random.is_new(point):
                return point
            self._study.tell(self._open.pop(number), state=self._optuna.trial.TrialState.FAIL)
        new = self._random.point(number)
        if new is not None:
            self._study.enqueue_trial(new[0])
            self._ask(number)
        return new

    def again(self, plan: Plan) -> None:
        """Opens a trial with the values that were drawn for it before."""
        self._random.again(plan)
        self._study.enqueue_trial(plan.drawn)
        self._ask(plan.number)

    def _ask(self, number: int) -> Point:
        trial = self._open[number] = self._study.ask()
        return self._space.choose(lambda parameter: self._suggest(trial, parameter), self._base)

    def ended(self, plan: Plan, outcome: Outcome) -> None:
        """Tells Optuna the accuracies, and the merit of a whole trial; or only that it failed."""
        trial = self._open.pop(plan.number)
        states = self._optuna.trial.TrialState
        if outcome.state == FAILED or outcome.best is None:
            self._study.tell(trial, state=states.FAIL)
            return
        for row in outcome.history:
            trial.report(row.val_accuracy, row.epoch)
        is_whole = outcome.state == FINISHED
        self._study.tell(
            trial,
            merit(outcome)[0] if is_whole else None,
            state=states.COMPLETE if is_whole else states.PRUNED,
        )

    def trials(self) -> list[Any]:
        """The trials as Optuna has them."""
        return self._study.trials

    def _suggest(self, trial: Any, parameter: SearchRange) -> Any:
        if parameter.values:
            return trial.suggest_categorical(parameter.key, parameter.values)
        suggest = trial.suggest_int if parameter.is_integer else trial.suggest_float
        return suggest(parameter.key, parameter.low, parameter.high, log=parameter.log)


def open_search(config: SweepConfig, space: Space, base: Mapping[str, Any], seed: int) -> Search:
    """The search that a sweep's settings name."""
    match config.search:
        case "random":
            return RandomSearch(space, base, seed)
        case "grid":
            return GridSearch(space, base)
        case "optuna":
            return OptunaSearch(space, base, seed)
    raise AssertionError(config.search)
