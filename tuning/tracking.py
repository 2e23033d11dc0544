"""A sweep as experiment trackers show it: a run of its own, and its trials in one group with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from job.config.config import is_fixed
from job.results.events import Point
from job.runs.folder import absolute
from job.runs.state import EpochRow
from job.stats import mean_sd
from job.storage.base import Storage
from job.trackers.base import FINISHED, Beginning
from job.trackers.teller import Tellers
from job.trackers.tracked import LEFT, epoch_points
from tuning.conductor import Conductor
from tuning.records import SWEEP_FILE, TRIALS, WINNER_FILE, Outcome, Sweep, Winner


class SweepTrackers:
    """Has trackers told of a sweep.

    Args:
        tellers: Tell them.
        sweep: The sweep.
        folder: Its folder.
        conductor: Knows its trials.
    """

    def __init__(
        self, tellers: Tellers, sweep: Sweep, folder: Storage, conductor: Conductor
    ) -> None:
        self._tellers, self._name = tellers, sweep.name
        self._folder, self._conductor = folder, conductor
        # How many epochs of each trial they are told of.
        self._told: dict[int, int] = {}
        common = {k: v for k, v in sweep.base.items() if is_fixed(k)}
        settings = {k: v for k, v in {**sweep.config, **common}.items() if v is not None}
        self._follow(sweep.name, settings, folder)

    def reached(self, number: int, history: Sequence[EpochRow], began: float) -> int:
        """Tells of a trial's epochs, of which some may be known.

        Args:
            number: The trial's.
            history: Its epochs so far.
            began: When it began, seconds since the epoch.

        Returns:
            Its last step.
        """
        plan, key = self._conductor.plans[number], self._key(number)
        config = self._conductor.run_config(plan)
        if number not in self._told:
            folder = self._folder.at(f"{TRIALS}/{plan.name}")
            self._follow(key, config.hyperparameters(), folder, self._name)
        points, told = epoch_points(history, config, began), self._told.get(number, 0)
        self._tellers.add(key, points[told:])
        self._told[number] = max(told, len(points))
        return points[-1].step if points else 0

    def ended(self, number: int, outcome: Outcome) -> None:
        """Tells what came of a trial."""
        step = self.reached(number, outcome.history, outcome.started or time.time())
        best, values = outcome.best, {}
        if best:
            values = {
                "best_epoch": best.epoch,
                "best_val_accuracy": best.val_accuracy,
                "best_val_loss": best.val_loss,
            }
        self._end(self._key(number), outcome.state, step, values)

    def won(self, winner: Winner) -> None:
        """Tells of the winner, with its model."""
        place = f"{TRIALS}/{self._conductor.plans[winner.trial].name}"
        values = {
            "trial": winner.trial,
            "best_val_accuracy": mean_sd(winner.val_accuracy)[0],
            "test_accuracy": mean_sd(winner.test_accuracy)[0],
        }
        names = (SWEEP_FILE, WINNER_FILE, *(f"{place}/{name}" for name in LEFT))
        self._end(self._name, FINISHED, 0, values, names)

    def _key(self, number: int) -> str:
        return f"{self._name}-{self._conductor.plans[number].name}"

    def _follow(
        self, key: str, settings: Mapping[str, Any], folder: Storage, parent: str | None = None
    ) -> None:
        beginning = Beginning(
            name=key, settings=settings, folder=absolute(folder.uri), group=self._name
        )
        self._tellers.follow(key, beginning, folder, parent)

    def _end(
        self,
        key: str,
        state: str,
        step: int,
        values: Mapping[str, float],
        names: Sequence[str] = LEFT,
    ) -> None:
        self._tellers.end(key, state, Point(step, time.time(), values), names)
