"""What the process that tells one tracker does.

That is what it is asked on a connection, one request after the other, until that is closed.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from job.results.events import Point
from job.storage.open import open_storage
from job.text import one_line
from job.trackers.base import Beginning, TrackedRun

BEGIN, LOG, FINISH = "begin", "log", "finish"


class Server:
    """Runs in one tracker.

    Args:
        tracker: Its name.
    """

    def __init__(self, tracker: str) -> None:
        self._tracker = tracker
        self._runs: dict[str, tuple[Beginning, TrackedRun]] = {}

    def begin(self, key: str, told: Beginning) -> str:
        """Begins a run, and returns what the tracker calls it."""
        module = importlib.import_module(f"job.trackers.{self._tracker}")
        run = module.Tracked(told)
        self._runs[key] = told, run
        return run.id

    def log(self, key: str, points: Sequence[Point]) -> None:
        """Adds points to a run."""
        self._runs[key][1].log(points)

    def finish(self, key: str, state: str, last: Point, names: Sequence[str]) -> None:
        """Ends a run, with the files of these names that are in its folder."""
        told, run = self._runs[key]
        storage = open_storage(told.folder)
        sizes = storage.files() if names else {}
        with tempfile.TemporaryDirectory(prefix="lenet-tracker-") as scratch:
            found = [path for path in sizes if path.startswith(tuple(names))]
            for path in found:
                copy = Path(scratch, path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(storage.read(path, limit=sizes[path]))
            run.finish(state, last, Path(scratch) if found else None)
        del self._runs[key]


def serve(server: Server, connection: Connection) -> None:
    """Answers requests: whether it was done, and what came of it or what went wrong."""
    do: dict[str, Callable[..., Any]] = {
        BEGIN: server.begin,
        LOG: server.log,
        FINISH: server.finish,
    }
    while True:
        try:
            kind, *values = connection.recv()
        except EOFError:
            return
        try:
            answer = True, do[kind](*values)
        except Exception as error:
            answer = False, one_line(error)
        connection.send(answer)


def main(tracker: str, descriptor: str) -> None:
    """Serves a tracker at a connection, by its descriptor."""
    serve(Server(tracker), Connection(int(descriptor)))
