"""MLflow: https://mlflow.org/docs/latest/ml/tracking/.

MLFLOW_TRACKING_URI says where (without it MLflow makes `mlflow.db` here), MLFLOW_EXPERIMENT_NAME or
MLFLOW_EXPERIMENT_ID in which experiment. Runs of a sweep are nested in the sweep's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from job.results.events import Point
from job.trackers.base import FAILED, FINISHED, PROJECT, STOPPED, Beginning, TrackedRun

STATES = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
# The most that one request may hold.
MOST_METRICS = 1000
# By default MLflow tries for minutes before it says that a server is away; here it is called again.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class Tracked(TrackedRun):
    """A run of MLflow's."""

    def __init__(self, told: Beginning) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        import mlflow

        self._client = mlflow.MlflowClient()
        self.id = told.known if told.known and self._goes_on(told.known) else self._new(told)

    def log(self, points: Sequence[Point]) -> None:
        """As `TrackedRun`."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, round(point.time * 1000), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for first in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self.id, metrics=metrics[first : first + MOST_METRICS])

    def finish(self, state: str, last: Point, files: Path | None) -> None:
        """As `TrackedRun`."""
        self.log([last])
        if files:
            self._client.log_artifacts(self.id, str(files))
        self._client.set_terminated(self.id, STATES[state])

    def _goes_on(self, run_id: str) -> bool:
        """Whether the run is there; it was perhaps begun in another place."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def _new(self, told: Beginning) -> str:
        import mlflow
        from mlflow.entities import Param

        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if not experiment:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
            experiment = mlflow.set_experiment(name).experiment_id
        tags = {"mlflow.parentRunId": told.parent, "sweep": told.group}
        given = {name: value for name, value in tags.items() if value}
        run = self._client.create_run(experiment, run_name=told.name, tags=given)
        params = [Param(name, str(value)) for name, value in told.settings.items()]
        self._client.log_batch(run.info.run_id, params=params)
        return run.info.run_id
