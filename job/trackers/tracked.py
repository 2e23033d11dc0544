"""A run that trackers follow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from job.config.config import TrainConfig
from job.config.schedule import rate_of
from job.extras import check_installed
from job.results.events import Point
from job.runs.folder import absolute
from job.runs.run import Run
from job.runs.state import EpochRow, last_rate, steps_of
from job.trackers.base import FINISHED, Beginning
from job.trackers.teller import Tellers, telling
from job.training.progress import Progress, SpanReport

# What a finished run gives: its result, its model, its report.
LEFT = ("config.json", "result.json", "history.csv", "model.keras", "README.md", "figures/")


def check_trackers(config: TrainConfig) -> None:
    """Raises InputError where the library of a tracker is not installed."""
    for name in config.trackers:
        if name != "tensorboard":
            check_installed("trackers", "--tracker", name, [name])


def epoch_points(rows: Iterable[EpochRow], config: TrainConfig, created: float) -> list[Point]:
    """What trackers are told of epochs of before, as if no time had been lost since `created`."""
    points = []
    for row in rows:
        created += row.seconds + row.val_seconds
        points.append(epoch_point(row, config, created))
    return points


def epoch_point(row: EpochRow, config: TrainConfig, ended: float) -> Point:
    """What trackers are told of a finished epoch.

    Args:
        row: The epoch.
        config: The run's settings.
        ended: When, seconds since the epoch.
    """
    values = {
        "epoch": row.epoch,
        "loss": row.loss,
        "accuracy": row.accuracy,
        "val_loss": row.val_loss,
        "val_accuracy": row.val_accuracy,
        "images_per_second": row.images_per_second,
        "learning_rate": last_rate(row, config),
    }
    return Point(row.epoch * steps_of(row, config.batch_size), ended, values)


class TrackedProgress(Progress):
    """Passes on what is said of a run, and has trackers told of it.

    Args:
        run: The run.
        progress: Follows it, too.
        tellers: Tell the trackers.
    """

    def __init__(self, run: Run, progress: Progress, tellers: Tellers) -> None:
        self._run, self._progress, self._tellers = run, progress, tellers
        # A tracker may not have been told of all that was before.
        self._before = run.history() if tellers and not run.folder.is_new else ()
        self._has_begun = False
        self._step = 0

    def span(self, report: SpanReport) -> None:
        """Tells of the steps of an epoch so far."""
        self._progress.span(report)
        step, steps = report.run_step, report.epochs * report.steps_per_epoch
        values = {
            "loss": report.loss,
            "accuracy": report.accuracy,
            "images_per_second": report.images_per_second,
            "learning_rate": rate_of(self._run.config, step - 1, steps),
        }
        self._add([Point(step, time.time(), values)])

    def epoch(self, row: EpochRow, epochs: int, is_best: bool) -> None:
        """Tells of a finished epoch."""
        self._progress.epoch(row, epochs, is_best)
        step, _, values = epoch_point(row, self._run.config, time.time())
        # The rest was said of its last steps.
        new = {name: values[name] for name in ("epoch", "val_loss", "val_accuracy")}
        self._add([Point(step, time.time(), new)])

    def note(self, message: str) -> None:
        """Passes the message on."""
        self._progress.note(message)

    def finished(self, result: Mapping[str, Any]) -> None:
        """Tells of the end, with the content of the run's `result.json` and what else it left."""
        self._begin()
        values = {
            "best_epoch": result["best_epoch"],
            "best_val_accuracy": result["val_accuracy"],
            "best_val_loss": result["val_loss"],
            "test_accuracy": result["test_accuracy"],
            "test_loss": result["test_loss"],
            "train_seconds": result["train_seconds"],
        }
        self._tellers.end(self._run.name, FINISHED, Point(self._step, time.time(), values), LEFT)

    def _add(self, points: Sequence[Point]) -> None:
        self._begin()
        self._step = points[-1].step
        self._tellers.add(self._run.name, points)

    def _begin(self) -> None:
        """Begins with the first word of training: by then the run's folder is this process'."""
        if self._has_begun:
            return
        self._has_begun = True
        run = self._run
        settings, folder = run.config.hyperparameters(), absolute(run.storage.uri)
        beginning = Beginning(name=run.name, settings=settings, folder=folder)
        self._tellers.follow(run.name, beginning, run.storage)
        if self._before:
            self._add(epoch_points(self._before, run.config, run.created))


@contextlib.contextmanager
def tracked(run: Run, progress: Progress) -> Iterator[TrackedProgress]:
    """Has the trackers of a run's settings follow it, for the time of the block.

    Args:
        run: The run.
        progress: Follows it, too.

    Yields:
        What is to follow the run, and to be told of its end.

    Raises:
        InputError: A tracker's library is not installed; nothing was written.
        JobError: As `Run.history`.
    """
    check_trackers(run.config)
    with telling(run.config.trackers) as tellers:
        yield TrackedProgress(run, progress, tellers)
