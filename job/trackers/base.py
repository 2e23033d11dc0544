"""The small interface between a run and a tracker.

A module beside this one, named like the tracker, has a class `Tracked`. The tracker's library is
imported in it, in the process that serves the tracker (`job/trackers/serve.py`), and nowhere else.
What a method raises is told as a warning, and it is called again later.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.results.events import Point

# Where a tracker files runs, unless its own environment variable names a place.
PROJECT = "lenet-on-ray"
# How a run ended; stopped is what could go on.
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a tracker is told of a run before its first point.

    Attributes:
        name: The run's name there.
        settings: Those that runs are compared by.
        folder: The URI of the run's folder.
        known: What the tracker called the run when it began, if it goes on.
        group: The sweep that it belongs to.
        parent: What the tracker calls that sweep's own run.
    """

    name: str
    settings: Mapping[str, Any]
    folder: str
    known: str | None = None
    group: str | None = None
    parent: str | None = None


class TrackedRun(abc.ABC):
    """A run in a tracker, which has begun there, or goes on, when this is made.

    Args:
        told: What the tracker is told first.

    Attributes:
        id: What the tracker calls it.
    """

    id: str

    @abc.abstractmethod
    def __init__(self, told: Beginning) -> None: ...

    @abc.abstractmethod
    def log(self, points: Sequence[Point]) -> None:
        """Adds points, whose steps never fall."""

    @abc.abstractmethod
    def finish(self, state: str, last: Point, files: Path | None) -> None:
        """Ends the run.

        Args:
            state: `finished`, `stopped` or `failed`.
            last: What it came to; without values where nothing is known.
            files: A folder of what it left, if it left anything.
        """
