"""Words between the driver and the workers: progress one way, a request to stop the other."""

from __future__ import annotations

import dataclasses
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from job.runs.state import EpochRow
from job.training.progress import Progress, SpanReport

Event = tuple[str, Any]


class Mailbox:
    """A small actor beside the driver. It holds what was said until the other side asks."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = 0

    def post(self, events: list[Event]) -> int:
        """A worker says something, and hears the number of the signal that asks it to stop."""
        self._events += events
        return self._stop

    def take(self, stop: int) -> list[Event]:
        """The driver hears what was said since it last asked, and passes a signal on."""
        self._stop = stop
        events, self._events = self._events, []
        return events


def open_mailbox() -> ray.actor.ActorHandle:
    """Starts a mailbox on the driver's node, so that it lives as long as the driver does."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()


class WorkerEnd(Progress):
    """The first worker's end. It never waits for the driver, but to say the last word."""

    def __init__(self, mailbox: ray.actor.ActorHandle) -> None:
        self._mailbox = mailbox
        self._answer: ray.ObjectRef | None = None
        self._stop = 0

    def span(self, report: SpanReport) -> None:
        """Posts where training stands after a span of steps."""
        self._post("span", dataclasses.asdict(report))

    def epoch(self, row: EpochRow, epochs: int, is_best: bool) -> None:
        """Posts an epoch that ended, of how many, and whether it is the best so far."""
        self._post("epoch", (dataclasses.asdict(row), epochs, is_best))

    def note(self, message: str) -> None:
        """Posts a message that the driver shows."""
        self._post("note", message)

    def outcome(self, kind: str, value: Any) -> None:
        """How the run ended; returns when the mailbox has it."""
        ray.get(self._mailbox.post.remote([("outcome", (kind, value))]))

    def stop_requested(self) -> int:
        """The number of the signal that asks to stop, by the last answer that came; else 0."""
        if self._answer is not None:
            ready, _ = ray.wait([self._answer], timeout=0)
            if ready:
                self._stop = ray.get(self._answer)
                self._answer = None
        return self._stop

    def _post(self, kind: str, value: Any) -> None:
        answer = self._mailbox.post.remote([(kind, value)])
        if self._answer is None:
            self._answer = answer


def tell(progress: Progress, event: Event) -> None:
    """Passes a worker's event on to the driver's display."""
    kind, value = event
    match kind:
        case "span":
            progress.span(SpanReport(**value))
        case "epoch":
            row, epochs, is_best = value
            progress.epoch(EpochRow(**row), epochs, is_best)
        case "note":
            progress.note(value)
