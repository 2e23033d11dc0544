"""Signals as requests to stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from job.training.progress import NoteTaker


@contextlib.contextmanager
def stop_on_signal(progress: NoteTaker) -> Iterator[Callable[[], int]]:
    """Turns the first SIGINT or SIGTERM into a request to stop; a second one ends at once.

    Yields:
        A function that returns the number of the signal received, 0 for none.
    """
    received = 0

    def handler(number: int, frame: object) -> None:
        nonlocal received
        if received:
            # Once more: leave through Python, so that the terminal is put in order; and should that
            # hang, the next one ends the process.
            for other in before:
                signal.signal(other, signal.SIG_DFL)
            raise KeyboardInterrupt
        received = number
        progress.note("stopping after a checkpoint … (once more to stop at once)")

    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received
    finally:
        for number, old in before.items():
            signal.signal(number, old)
