"""Trackio: https://huggingface.co/docs/trackio/.

It writes to a database in TRACKIO_DIR, or sends to TRACKIO_SERVER_URL or TRACKIO_SPACE_ID. Runs of
a sweep are a group. Of a server that is away it keeps what was for it, and sends it later.
"""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from job.results.events import Point
from job.trackers.base import PROJECT, Beginning, TrackedRun


class Tracked(TrackedRun):
    """A run of Trackio's; one that goes on is the last of its name."""

    def __init__(self, told: Beginning) -> None:
        # Trackio ends the run that it knows of as the current one when another begins.
        self._run = contextvars.Context().run(_begin, told)
        self.id = self._run.id

    def log(self, points: Sequence[Point]) -> None:
        """As `TrackedRun`."""
        for point in points:
            self._run.log(dict(point.values), step=point.step)

    def finish(self, state: str, last: Point, files: Path | None) -> None:
        """As `TrackedRun`."""
        import trackio

        if last.values:
            self.log([last])
        if files:
            artifact = trackio.Artifact(f"run-{self.id}", type="run")
            artifact.add_dir(files)
            self._run.log_artifact(artifact)
        self._run.finish()


def _begin(told: Beginning) -> Any:
    import trackio

    return trackio.init(
        PROJECT,
        name=told.name,
        group=told.group,
        config=dict(told.settings),
        resume="allow" if told.known else "never",
        embed=False,
        auto_log_cpu=False,
        auto_log_gpu=False,
    )
