"""What a person sees of a sweep while it runs; everything goes to stderr.

One live table on a terminal, a line for each trial that ended elsewhere.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from job.stats import mean_sd
from job.text import counted, duration
from job.waiting import QUIET_SECONDS
from tuning.conductor import Conductor
from tuning.records import (
    FAILED,
    FINISHED,
    REPEAT,
    SEARCH,
    STOPPED,
    Outcome,
    Plan,
    Winner,
    merit,
)

REFRESH_SECONDS = 0.5


def settings_text(settings: dict[str, Any]) -> str:
    """Settings in a line."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:g}"
        if isinstance(value, float)
        else f"{name.replace('_', ' ')} {value}"
        for name, value in settings.items()
    )


def outcome_line(plan: Plan, outcome: Outcome) -> str:
    """A trial that ended, in a line."""
    best = outcome.best
    accuracy = f"val_accuracy {best.val_accuracy:.2%}  " if best else ""
    said = f"  {outcome.error}" if outcome.error else ""
    again = f" (trial {plan.repeats} with seed {plan.seed})" if plan.kind == REPEAT else ""
    return (
        f"trial {plan.number}{again} {outcome.state}: {accuracy}{settings_text(plan.settings)}  "
        f"{counted(len(outcome.history), 'epoch')}, {duration(outcome.seconds)}{said}"
    )


def winner_lines(plan: Plan, winner: Winner) -> str:
    """The last lines of a sweep."""

    def accuracy(values: tuple[float, ...]) -> str:
        mean, sd = mean_sd(values)
        return f"{mean:.2%}" + (f" ± {sd:.2%} (n = {len(values)})" if sd is not None else "")

    return "\n".join(
        [
            "",
            f"winner          trial {winner.trial}: {settings_text(plan.settings)}",
            f"validation      {accuracy(winner.val_accuracy)}",
            f"test accuracy   {accuracy(winner.test_accuracy)}",
            f"train it again  {winner.command}",
        ]
    )


class SweepDisplay:
    """Follows a sweep.

    Args:
        trials: How many settings are to be tried.
        epochs: Of a whole trial.
    """

    def __init__(self, trials: int, epochs: int) -> None:
        self._trials, self._epochs = trials, epochs
        self._began = self._said = time.monotonic()
        self._running: set[int] = set()
        self._reports: dict[int, dict[str, Any]] = {}

    def follow(self, conductor: Conductor, slots: int) -> None:
        """What is followed, and how many trials run at once."""
        self.conductor, self._slots = conductor, slots
        trials, epochs = counted(self._trials, "trial"), counted(self._epochs, "epoch")
        self.note(f"{trials} of at most {epochs}, {slots} at once")

    def note(self, message: str) -> None:
        """Prints a line to stderr."""
        self._said = time.monotonic()
        print(message, file=sys.stderr, flush=True)

    def began(self, number: int) -> None:
        """A trial has its process."""
        self._running.add(number)

    def report(self, report: dict[str, Any]) -> None:
        """A trial has trained an epoch."""
        self._reports[report["number"]] = report

    def ended(self, number: int) -> None:
        """A trial's outcome is known."""
        self._running.discard(number)
        self._reports.pop(number, None)
        plan, outcome = self.conductor.plans[number], self.conductor.outcome(number)
        if self._says(outcome):
            self.note(outcome_line(plan, outcome))

    def _says(self, outcome: Outcome) -> bool:
        return True

    def refresh(self) -> None:
        """Prints how far all of it is, where nothing was printed for `QUIET_SECONDS`."""
        if time.monotonic() - self._said >= QUIET_SECONDS:
            self.note(self._title())

    def _title(self) -> str:
        states = [outcome.state for outcome in self.conductor.outcomes.values()]
        counts = "  ".join(
            f"{name} {states.count(name)}" for name in (FINISHED, STOPPED, FAILED) if name in states
        )
        eta, count = self.eta(), len(self._running)
        running = f"running {count}" if count else "waiting for room on the cluster"
        return (
            f"{len(states)}/{self._trials + self.conductor.planned_repeats} trials  {counts}  "
            f"{running}  {self.rate():,.0f} images/s  "
            f"{duration(time.monotonic() - self._began)}"
            + (f"  ETA {duration(eta)}" if eta is not None else "")
        )

    def rate(self) -> float:
        """Images per second over all trials in training, by their last epochs."""
        rows = (report["history"][-1] for report in self._reports.values() if report["history"])
        return sum(row["images_per_second"] for row in rows)

    def eta(self) -> float | None:
        """Expected rest in seconds, from the mean time of the trials that ended; None before."""
        found = self.conductor.outcomes.values()
        times = [outcome.seconds for outcome in found if outcome.seconds]
        if not times:
            return None
        repeats = self.conductor.planned_repeats
        left = self._trials + repeats - len(found)
        running = sum(len(report["history"]) / self._epochs for report in self._reports.values())
        return max(0.0, (left - running) * (sum(times) / len(times)) / self._slots)


class LiveDisplay(SweepDisplay):
    """One table that is drawn again and again, with failures scrolling above it."""

    def __init__(self, live: Any, console: Any, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._live, self._console = live, console
        self._drawn = 0.0

    def note(self, message: str) -> None:
        """Prints a line above the table."""
        self._console.print(message, highlight=False, markup=False)

    def _says(self, outcome: Outcome) -> bool:
        return outcome.state == FAILED

    def refresh(self) -> None:
        """Draws the table anew where it is `REFRESH_SECONDS` old."""
        if time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Any:
        from rich.table import Table

        conductor = self.conductor
        look: dict[str, Any] = {"title_justify": "left", "title_style": "", "box": None}
        table = Table(title=self._title(), padding=(0, 2), **look)
        for name, right in (("", False), ("trial", True), ("settings", False)):
            table.add_column(name, justify="right" if right else "left")
        for name in ("epoch", "val_accuracy", "images/s"):
            table.add_column(name, justify="right")
        ended = conductor.outcomes.items()
        best = max(
            ((n, o) for n, o in ended if o.best and conductor.plans[n].kind == SEARCH),
            key=lambda pair: merit(pair[1]),
            default=None,
        )
        if best:
            number, outcome = best
            table.add_row(
                *("best", str(number), settings_text(conductor.plans[number].settings)),
                *(str(len(outcome.history)), f"{merit(outcome)[0]:.2%}", ""),
                style="bold",
            )
        for number, report in sorted(self._reports.items()):
            rows = report["history"]
            table.add_row(
                *("running", str(number), settings_text(conductor.plans[number].settings)),
                f"{len(rows)}/{self._epochs}",
                f"{report['merit']:.2%}" if rows else "",
                f"{rows[-1]['images_per_second']:,.0f}" if rows else "",
            )
        return table


@contextlib.contextmanager
def sweep_display(trials: int, epochs: int) -> Iterator[SweepDisplay]:
    """Shows a sweep for the time of the block."""
    if not sys.stderr.isatty():
        yield SweepDisplay(trials, epochs)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live("starting …", console=console, transient=True, auto_refresh=False) as live:
        yield LiveDisplay(live, console, trials, epochs)
