"""Weights & Biases: https://docs.wandb.ai/.

WANDB_API_KEY or `wandb login`, WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE say where; with
WANDB_MODE=offline it writes to `wandb/` here. Runs of a sweep are a group.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from job.results.events import Point
from job.trackers.base import FAILED, PROJECT, Beginning, TrackedRun


class Tracked(TrackedRun):
    """A run of Weights & Biases'."""

    def __init__(self, told: Beginning) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=told.name,
            group=told.group,
            config=dict(told.settings),
            id=told.known,
            resume="allow",
            # Runs of a sweep are open side by side.
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.id = self._run.id

    def log(self, points: Sequence[Point]) -> None:
        """As `TrackedRun`."""
        for point in points:
            self._run.log(dict(point.values), step=point.step)

    def finish(self, state: str, last: Point, files: Path | None) -> None:
        """As `TrackedRun`."""
        import wandb

        self._run.summary.update(dict(last.values))
        if files:
            artifact = wandb.Artifact(f"run-{self.id}", type="run")
            artifact.add_dir(str(files))
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=int(state == FAILED))
