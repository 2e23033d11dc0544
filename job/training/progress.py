"""What a person sees while something runs: one live line on a terminal, plain lines elsewhere.

Everything goes to stderr; stdout is kept for results.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from job.runs.state import EpochRow
from job.text import duration
from job.waiting import QUIET_SECONDS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanReport:
    """Where training stands after a span; `epoch` from 1, `eta_seconds` the run's expected rest.

    `loss`, `accuracy` and `images_per_second` are those of the epoch so far.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    loss: float
    accuracy: float
    images_per_second: float
    eta_seconds: float
    val_accuracy: float | None

    @property
    def run_step(self) -> int:
        """Steps since the run began."""
        return (self.epoch - 1) * self.steps_per_epoch + self.step


class NoteTaker(Protocol):
    """Shows messages beside whatever else it shows."""

    def note(self, message: str) -> None:
        """Shows one message, as a line of its own."""


class Progress(NoteTaker, Protocol):
    """Follows a run."""

    def span(self, report: SpanReport) -> None:
        """Some steps of an epoch are done."""

    def epoch(self, row: EpochRow, epochs: int, is_best: bool) -> None:
        """One of `epochs` is done; `is_best` if none was better so far."""


class Silent:
    """For workers other than the first: all of them would say the same."""

    def span(self, report: SpanReport) -> None:
        """Shows nothing."""

    def epoch(self, row: EpochRow, epochs: int, is_best: bool) -> None:
        """Shows nothing."""

    def note(self, message: str) -> None:
        """Shows nothing."""


class PlainProgress:
    """A line for each epoch, for logs and pipes; a long one says where it stands."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def span(self, report: SpanReport) -> None:
        """Prints `span_line` where nothing was for `QUIET_SECONDS`."""
        if time.monotonic() - self._said >= QUIET_SECONDS:
            self.note(span_line(report))

    def epoch(self, row: EpochRow, epochs: int, is_best: bool) -> None:
        """Prints `epoch_line` to stderr."""
        self.note(epoch_line(row, epochs, is_best))

    def note(self, message: str) -> None:
        """Prints the message to stderr at once."""
        self._said = time.monotonic()
        print(message, file=sys.stderr, flush=True)


class LiveProgress:
    """One line that is redrawn, with the finished epochs scrolling above it."""

    def __init__(self, live: Live, console: Console) -> None:
        self._live, self._console = live, console

    def span(self, report: SpanReport) -> None:
        """Draws `span_line` in place of the last one."""
        self._live.update(span_line(report), refresh=True)

    def epoch(self, row: EpochRow, epochs: int, is_best: bool) -> None:
        """Prints `epoch_line` above the live line, where it stays."""
        self.note(epoch_line(row, epochs, is_best))

    def note(self, message: str) -> None:
        """Prints the message above the live line, where it stays."""
        self._console.print(message, highlight=False, markup=False)


@contextlib.contextmanager
def training_progress() -> Iterator[Progress]:
    """A live line for the time of the block where stderr is a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield PlainProgress()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live("starting …", console=console, transient=True, auto_refresh=False) as live:
        yield LiveProgress(live, console)


@contextlib.contextmanager
def warnings_to(progress: NoteTaker) -> Iterator[None]:
    """Shows what is logged as a warning as a note of the run, wherever its display is."""
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [_NoteHandler(progress)]
    try:
        yield
    finally:
        root.handlers[:] = before


class _NoteHandler(logging.Handler):
    def __init__(self, progress: NoteTaker) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.note(record.getMessage())


def epoch_line(row: EpochRow, epochs: int, is_best: bool) -> str:
    """A finished epoch in one line; the best so far ends with `best`."""
    return (
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  "
        f"loss {row.loss:.4f}  accuracy {row.accuracy:.2%}  "
        f"val_loss {row.val_loss:.4f}  val_accuracy {row.val_accuracy:.2%}  "
        f"{row.images_per_second:,.0f} images/s{'  best' if is_best else ''}"
    )


def span_line(report: SpanReport) -> str:
    """The epoch so far in one line: a bar, steps, images a second, time left and loss."""
    width = 20
    done = round(width * report.step / report.steps_per_epoch)
    validation = "" if report.val_accuracy is None else f"  val_accuracy {report.val_accuracy:.2%}"
    return (
        f"epoch {report.epoch}/{report.epochs} {'━' * done}{'╌' * (width - done)} "
        f"step {report.step}/{report.steps_per_epoch}  {report.images_per_second:,.0f} images/s  "
        f"ETA {duration(report.eta_seconds)}  loss {report.loss:.4f}{validation}"
    )
