"""Where a run stands, among Ray's metrics."""

from __future__ import annotations

from ray.util.metrics import Gauge

from job.runs.state import EpochRow
from job.training.progress import Progress, SpanReport

# As in Ray Train's own metrics, so that both are chosen by the same name.
RUN = "ray_train_run_name"


class Gauges(Progress):
    """Sets a run's gauges after each span of steps, and passes on what it is told.

    Ray's agent on each node has them for Prometheus, `ray_` before their names, for as long as the
    process lives that set them. Without an agent, which is of `ray[default]`, they go nowhere.

    Args:
        run: The run's name.
        then: Follows the run too.
    """

    def __init__(self, run: str, then: Progress) -> None:
        self._then = then
        self._rate = _gauge("images_per_second", "Images trained in a second, in this epoch.", run)
        self._loss = _gauge("loss", "Mean training loss of this epoch so far.", run)
        self._step = _gauge("step", "Steps trained since the run began.", run)

    def span(self, report: SpanReport) -> None:
        """Sets them to what is true of the epoch so far."""
        self._rate.set(report.images_per_second)
        self._loss.set(report.loss)
        self._step.set(report.run_step)
        self._then.span(report)

    def epoch(self, row: EpochRow, epochs: int, is_best: bool) -> None:
        """Passes an epoch on; `ray.train.report` is told of it."""
        self._then.epoch(row, epochs, is_best)

    def note(self, message: str) -> None:
        """Passes a message on."""
        self._then.note(message)


def _gauge(name: str, description: str, run: str) -> Gauge:
    return Gauge(f"lenet_{name}", description, tag_keys=(RUN,)).set_default_tags({RUN: run})
