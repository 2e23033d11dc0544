"""Writes that training does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable

Job = Callable[[], None]


class Uploads:
    """Does writes one after the other, in a thread of its own.

    Of several that wait under one name only the newest is done: a checkpoint that was overtaken by
    a later one is of no use to anybody. So at most one of each name is in flight and one waits.

    Args:
        background: Do them in a thread; else each is done at once, where it is asked for.
    """

    def __init__(self, *, background: bool) -> None:
        self._background = background
        self._waiting: dict[str, Job] = {}
        self._is_busy = self._is_closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        if background:
            threading.Thread(target=self._work, name="uploads", daemon=True).start()

    def close(self) -> None:
        """Ends the thread; what waits is not done."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def submit(self, name: str, job: Job) -> None:
        """Asks for a write. Raises what an earlier one failed with."""
        if not self._background:
            job()
            return
        with self._changed:
            self._raise_failure()
            self._waiting[name] = job
            self._changed.notify_all()

    def wait(self) -> None:
        """Returns when nothing is left to do. Raises what a write failed with."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or not (self._waiting or self._is_busy))
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                name = next(iter(self._waiting))
                job = self._waiting.pop(name)
                self._is_busy = True
            try:
                job()
            except BaseException as error:
                # Kept for whoever asks next; after it nothing more is written.
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
