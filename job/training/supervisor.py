"""What a worker hears from outside its training loop, and tells those who watch over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from job.runs.state import EpochRow


class Supervisor(Protocol):
    """Watches over a worker. Of what it requests, one worker's yes is enough."""

    def stop_requested(self) -> int:
        """The number of the signal that asks the run to stop, 0 for none."""

    def save_requested(self) -> bool:
        """Whether a checkpoint is wanted now, because a machine will be taken away."""

    def leave_requested(self) -> bool:
        """Whether training has to end here now and go on elsewhere, for the same reason."""

    def report_due(self) -> bool:
        """Whether those who watch are to hear of an epoch that ends now; the first worker's yes."""

    def report(self, row: EpochRow) -> None:
        """Tells them of it. After the same epochs it is called on every worker."""

    def heartbeat(self, limit: float) -> None:
        """Something was achieved; if nothing follows for `limit` seconds, this worker hangs."""


class Unsupervised:
    """A run in this process hears signals only."""

    def __init__(self, stop_requested: Callable[[], int] = lambda: 0) -> None:
        self.stop_requested = stop_requested

    def save_requested(self) -> bool:
        """Never: nobody announces that the machine goes."""
        return False

    def leave_requested(self) -> bool:
        """Never, for the same reason."""
        return False

    def report_due(self) -> bool:
        """Never: who follows the run in this process hears of every epoch."""
        return False

    def report(self, row: EpochRow) -> None:
        """Nobody watches, so nothing is told."""

    def heartbeat(self, limit: float) -> None:
        """Nobody watches, so nothing is told."""
