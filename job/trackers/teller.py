"""The command's side of trackers: whom they are told of, and what was told already."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from job.errors import StopRequestedError
from job.results.events import Point
from job.storage.base import Storage
from job.storage.documents import read_document, to_json
from job.trackers.base import FAILED, FINISHED, STOPPED, Beginning
from job.trackers.serve import BEGIN, FINISH, LOG
from job.waiting import waiting

# Of a run's folder: what it is called in each tracker.
FOLDER = "trackers"
# Points are told together that come within the first; after a failure it is tried again later.
PAUSE_SECONDS, RETRY_SECONDS = 2.0, 30.0
# For one answer, and at the end for all that is left.
ANSWER_SECONDS = 120.0
# Of those that wait for a tracker that is away: days of steps.
MOST_POINTS = 100_000
LATE = f"no answer within {ANSWER_SECONDS:.0f} s"
# In the process of a tracker, which finds modules where this one does.
START = (
    "import sys; sys.path[:] = sys.argv.pop().splitlines(); "
    "from job.trackers.serve import main; main(*sys.argv[1:])"
)

log = logging.getLogger(__name__)


class TrackerError(Exception):
    """A tracker could not be told; the message says why."""


@dataclasses.dataclass(frozen=True)
class Told:
    """What a tracker knows of a run, kept in the run's folder.

    Attributes:
        id: What it calls the run; None before it has begun there.
        step, epoch: The last ones that it was told.
    """

    id: str | None = None
    step: int = 0
    epoch: int = 0

    def is_new(self, point: Point) -> bool:
        """Whether it has not been told a point: a resumed run passes some once more."""
        epoch = point.values.get("epoch")
        return point.step > self.step if epoch is None else epoch > self.epoch

    def after(self, points: Iterable[Point]) -> Told:
        """What it knows when it is told these."""
        steps = (point.step for point in points)
        epochs = (int(point.values.get("epoch", 0)) for point in points)
        return Told(self.id, max(self.step, *steps), max(self.epoch, *epochs))


@dataclasses.dataclass
class Followed:
    """A run, what is to be told of it, and how it ended."""

    beginning: Beginning
    storage: Storage
    parent: str | None
    told: Told | None = None
    points: list[Point] = dataclasses.field(default_factory=list)
    end: tuple[str, Point, Sequence[str]] | None = None


class Process:
    """The process that serves a tracker.

    Args:
        tracker: Its name.
    """

    def __init__(self, tracker: str) -> None:
        self._connection, other = multiprocessing.Pipe()
        with other:
            descriptor = other.fileno()
            path = "\n".join(sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, tracker, str(descriptor), path],
                stdin=subprocess.DEVNULL,
                # What libraries say is theirs, and not a result.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[descriptor],
                # Ctrl-C is this process' business.
                start_new_session=True,
            )

    def ask(self, *request: Any) -> Any:
        """The answer to a request.

        Raises:
            TrackerError: It could not be done.
            OSError: It does not answer, and never will.
        """
        try:
            self._connection.send(request)
            if not self._connection.poll(ANSWER_SECONDS):
                raise TimeoutError(LATE)
            is_done, answer = self._connection.recv()
        except (EOFError, ConnectionError):
            raise ConnectionError("its process ended") from None
        if not is_done:
            raise TrackerError(answer)
        return answer

    def close(self, patience: float) -> None:
        """Lets it end what it has begun, and ends it after so many seconds."""
        self._connection.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it now."""
        self._process.kill()
        self._process.wait()


class Teller:
    """Tells one tracker, in a thread that nobody waits for before the end.

    Args:
        tracker: Its name.
    """

    def __init__(self, tracker: str) -> None:
        self._tracker = tracker
        self._runs: dict[str, Followed] = {}
        # Those that the process knows of, and what the tracker calls them.
        self._begun: dict[str, str] = {}
        self._process: Process | None = None
        self._is_closing = threading.Event()
        self._has_warned = self._has_given_up = False
        self._thread = threading.Thread(target=self._work, name=f"tracker-{tracker}", daemon=True)
        self._thread.start()

    def follow(
        self, key: str, beginning: Beginning, storage: Storage, parent: str | None = None
    ) -> None:
        """Begins with a run.

        Args:
            key: What it is called here.
            beginning: What the tracker is told of it first.
            storage: Its folder.
            parent: What the sweep's own run is called here, that it belongs to.
        """
        self._runs[key] = Followed(beginning, storage, parent)

    def add(self, key: str, points: Iterable[Point]) -> None:
        """Tells of points later."""
        held = self._runs[key].points
        held.extend(point for point in points if len(held) < MOST_POINTS)

    def end(self, key: str, state: str, last: Point, names: Sequence[str]) -> None:
        """Tells of the end later, and of the files of these names, as `TrackedRun.finish`."""
        self._runs[key].end = state, last, names

    def close(self, state: str) -> None:
        """Returns when all is told, or was tried. Runs without an end have come to this one."""
        for followed in list(self._runs.values()):
            followed.end = followed.end or (state, Point(0, 0.0, {}), ())
        self._is_closing.set()
        with waiting(f"{self._tracker} to take what is left", ANSWER_SECONDS):
            self._thread.join(ANSWER_SECONDS)
        if self._thread.is_alive():
            self._warn(LATE)
            self._has_given_up = True
            # Its thread may let go of it just now.
            process = self._process
            if process:
                process.kill()

    def _work(self) -> None:
        pause, is_last = PAUSE_SECONDS, False
        while not is_last:
            is_last = self._is_closing.wait(pause)
            pause = PAUSE_SECONDS
            for key in list(self._runs):
                try:
                    self._tell(key, self._runs[key])
                except Exception as error:
                    # Whatever it is: training goes on.
                    self._warn(str(error) or type(error).__name__)
                    pause = RETRY_SECONDS
                    # What is wrong with one may not be wrong with the others.
                    self._runs[key] = self._runs.pop(key)
                    if not is_last or self._has_given_up:
                        break
        if self._process:
            self._process.close(ANSWER_SECONDS)

    def _tell(self, key: str, followed: Followed) -> None:
        # In this order: what comes before an end is told before it.
        end, count = followed.end, len(followed.points)
        self._begin(key)
        told = followed.told
        assert told is not None  # it has begun
        points = [point for point in followed.points[:count] if told.is_new(point)]
        if points:
            self._ask(LOG, key, points)
            followed.told = told.after(points)
            self._keep(followed)
        del followed.points[:count]
        if end:
            self._ask(FINISH, key, *end)
            del self._runs[key]

    def _begin(self, key: str) -> str:
        """What the tracker calls a run, which has begun there now."""
        if key in self._begun:
            return self._begun[key]
        followed = self._runs[key]
        told = followed.told or self._known(followed)
        parent = followed.parent and self._begin(followed.parent)
        beginning = dataclasses.replace(followed.beginning, known=told.id, parent=parent)
        self._begun[key] = found = self._ask(BEGIN, key, beginning)
        # One that it does not know any more is told anew.
        followed.told = told if told.id == found else Told(found)
        self._keep(followed)
        return found

    def _known(self, followed: Followed) -> Told:
        try:
            return Told(**read_document(followed.storage, f"{FOLDER}/{self._tracker}.json"))
        except FileNotFoundError:
            return Told()

    def _keep(self, followed: Followed) -> None:
        assert followed.told is not None  # it has begun
        content = to_json(dataclasses.asdict(followed.told))
        followed.storage.write(f"{FOLDER}/{self._tracker}.json", content)

    def _ask(self, *request: Any) -> Any:
        self._process = self._process or Process(self._tracker)
        try:
            return self._process.ask(*request)
        except OSError:
            self._process.kill()
            # Another one knows of nothing.
            self._process = None
            self._begun.clear()
            raise

    def _warn(self, why: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "--tracker %s: %s; training goes on, and it is told later if it answers",
                self._tracker,
                why,
            )


class Tellers:
    """Those of several trackers, each told the same; the methods are those of `Teller`.

    Args:
        trackers: Their names.
    """

    def __init__(self, trackers: Iterable[str]) -> None:
        self._all = [Teller(tracker) for tracker in trackers]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._all)

    def follow(
        self, key: str, beginning: Beginning, storage: Storage, parent: str | None = None
    ) -> None:
        """Begins with a run."""
        for teller in self._all:
            teller.follow(key, beginning, storage, parent)

    def add(self, key: str, points: Sequence[Point]) -> None:
        """Tells of points later."""
        for teller in self._all:
            teller.add(key, points)

    def end(self, key: str, state: str, last: Point, names: Sequence[str] = ()) -> None:
        """Tells of the end later."""
        for teller in self._all:
            teller.end(key, state, last, names)

    def close(self, state: str) -> None:
        """Returns when all is told, or was tried."""
        for teller in self._all:
            teller.close(state)


@contextlib.contextmanager
def telling(trackers: Iterable[str]) -> Iterator[Tellers]:
    """Tells trackers of the runs of the block; how it ends is how those end that have no end."""
    tellers = Tellers(trackers)
    state = FAILED
    try:
        yield tellers
        state = FINISHED
    except (StopRequestedError, KeyboardInterrupt):
        state = STOPPED
        raise
    finally:
        tellers.close(state)
