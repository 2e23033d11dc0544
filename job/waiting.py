"""A word where something takes long, so that nobody has to guess whether it hangs."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from job.text import duration

# After so long without a word nobody knows whether something hangs.
QUIET_SECONDS = 30.0

log = logging.getLogger(__name__)


@contextlib.contextmanager
def waiting(what: str, limit: float | None = None) -> Iterator[Callable[[], None]]:
    """Warns, for the time of the block, each time that it was quiet for `QUIET_SECONDS`.

    Also a decorator. A thread does it: what is waited for is seldom ours.

    Args:
        what: What is waited for, as in "waiting for …".
        limit: Seconds after which the block gives up; None where it does not.

    Yields:
        A function to call where there was a sign of life: from then on it is waited anew.
    """
    began = said = time.monotonic()
    is_over = threading.Event()
    bound = "without a limit" if limit is None else f"at most {duration(limit)}"

    def alive() -> None:
        nonlocal began, said
        began = said = time.monotonic()

    def watch() -> None:
        nonlocal said
        while not is_over.wait(max(0.0, said + QUIET_SECONDS - time.monotonic())):
            now = time.monotonic()
            if now - said >= QUIET_SECONDS:
                log.warning("waiting for %s: %s so far, %s", what, duration(now - began), bound)
                said = now

    watching = threading.Thread(target=watch, name="waiting", daemon=True)
    watching.start()
    try:
        yield alive
    finally:
        is_over.set()
        watching.join()
