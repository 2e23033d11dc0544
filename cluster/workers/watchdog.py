"""Ends a worker process that shows no sign of life, so that a hang becomes a failure that can be
recovered from."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time

EXIT_CODE = 86


class Watchdog:
    """Watches over the process that makes it.

    A peer that is stopped or unreachable leaves the others inside a collective operation, from
    which no exception can fetch them; so the process ends itself. Its supervisor starts it anew.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def alive(self, limit: float) -> None:
        """A sign of life; the next one is due within `limit` seconds."""
        with self._condition:
            self._deadline = time.monotonic() + limit
            self._condition.notify()

    def close(self) -> None:
        """Nothing is due any more."""
        with self._condition:
            self._deadline = None
            self._condition.notify()

    def _watch(self) -> None:
        with self._condition:
            while True:
                if self._deadline is None:
                    self._condition.wait()
                    continue
                left = self._deadline - time.monotonic()
                if left > 0:
                    self._condition.wait(left)
                    continue
                print("watchdog: no sign of life, ending this worker", file=sys.stderr, flush=True)
                faulthandler.dump_traceback()
                os._exit(EXIT_CODE)
