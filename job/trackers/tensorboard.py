"""TensorBoard: event files in the run's folder, a new one each time.

TensorBoard reads all of a folder; so a file is whole when it is there, in an object store as well,
and none is written twice. Epochs, settings and results are in other files, which every run leaves
(`job/results/artifacts.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from job.results.events import FOLDER, Point, event_file
from job.storage.open import open_storage
from job.trackers.base import Beginning, TrackedRun

# Each file is a request where a run is kept in an object store.
PAUSE_SECONDS = 30.0


class Tracked(TrackedRun):
    """Steps of a run in its folder `tensorboard/steps/`."""

    def __init__(self, told: Beginning) -> None:
        self._storage, self.id = open_storage(told.folder), FOLDER
        self._began, self._written = round(time.time()), time.monotonic()
        self._points: list[Point] = []

    def log(self, points: Sequence[Point]) -> None:
        """As `TrackedRun`; it writes what has come where the last time is a while ago."""
        self._points += points
        if time.monotonic() - self._written >= PAUSE_SECONDS:
            self._write()

    def finish(self, state: str, last: Point, files: Path | None) -> None:
        """As `TrackedRun`."""
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        if not self._points:
            return
        # TensorBoard reads them in the order of their names.
        name = f"events.out.tfevents.{self._began}.{self._points[0].step:010d}.lenet"
        content = event_file(self._points)
        self._storage.write(f"{FOLDER}/steps/{name}", content)
        self._points = []
