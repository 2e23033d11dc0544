"""One writer for a run in an object store: a lock that its holder has to renew.

    .lock.json          {"holder": …, "token": …, "beat": n, "released": false}

The holder writes it anew every few seconds, each time only over its own last version. Whoever finds
it untouched for `LEASE_SECONDS`, by the store's clock, takes it over, only over the version that
was seen; so of many that try, one succeeds. A holder that was away for so long (a suspended
machine, say) finds another's version; the index of checkpoints, which names another attempt then,
refuses what it would still commit, and that ends it before it writes a result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from job.storage.base import LockedError, StoreError, WriteConflictError, this_process

LOCK = ".lock.json"
LEASE_SECONDS = 15.0
BEAT_SECONDS = 3.0
WATCH_SECONDS = 0.5
MAX_BYTES = 4096

log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """A lock as it was found: content, version, and age in seconds by the store's own clock."""

    content: bytes
    version: str
    age: float


class Store(Protocol):
    """What a lease asks of its store."""

    @property
    def uri(self) -> str:
        """As `Storage.uri`."""

    def peek(self, path: str, *, limit: int) -> Seen:
        """A lock as it stands; raises FileNotFoundError where there is none."""

    def write_if(self, path: str, content: bytes, version: str | None) -> str:
        """As `Storage.write_if`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """What the lock says."""

    holder: str
    token: str
    beat: int = 0
    released: bool = False

    def to_bytes(self) -> bytes:
        """What `parse` reads."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def parse(cls, content: bytes) -> Claim:
        """Anything that is no claim counts as one by someone unknown."""
        try:
            document = json.loads(content)
            return cls(
                holder=str(document["holder"])[:200],
                token=str(document["token"]),
                beat=int(document["beat"]),
                released=document["released"] is True,
            )
        except (ValueError, KeyError, TypeError):
            return cls(holder="another process", token="")


class Lease:
    """The lock of one run.

    Args:
        store: The run's folder. It should fail rather than wait for longer than a beat or two.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock for the time of the block.

        Raises:
            LockedError: Another process does, and renews it.
        """
        claim = Claim(holder=this_process(), token=secrets.token_hex(8))
        version = self._acquire(claim)
        done = threading.Event()
        beating = _Heart(self._store, claim, version, done)
        beating.start()
        try:
            yield
        finally:
            done.set()
            beating.join()
            beating.release()

    def holder(self) -> str | None:
        """Who holds the lock, None for nobody."""
        try:
            seen = self._store.peek(LOCK, limit=MAX_BYTES)
        except FileNotFoundError:
            return None
        claim = Claim.parse(seen.content)
        return None if claim.released or seen.age > LEASE_SECONDS else claim.holder

    def _acquire(self, claim: Claim) -> str:
        watched: str | None = None
        since = time.monotonic()
        while True:
            try:
                seen = self._store.peek(LOCK, limit=MAX_BYTES)
            except FileNotFoundError:
                with contextlib.suppress(WriteConflictError):
                    return self._store.write_if(LOCK, claim.to_bytes(), None)
                continue
            found = Claim.parse(seen.content)
            if watched not in (None, seen.version) and not found.released:
                raise LockedError(found.holder)
            if watched is None:
                watched = seen.version
                if not found.released and seen.age <= LEASE_SECONDS:
                    log.warning("%s: waiting to see whether it is still at work", found.holder)
            # A store without a clock in its answers still shows whether the lock changes.
            age = max(seen.age, time.monotonic() - since)
            if found.released or age > LEASE_SECONDS:
                with contextlib.suppress(WriteConflictError):
                    return self._store.write_if(LOCK, claim.to_bytes(), seen.version)
                continue
            time.sleep(WATCH_SECONDS)


class _Heart(threading.Thread):
    """Renews a lock until it is told to stop, or finds that another has taken it."""

    def __init__(self, store: Store, claim: Claim, version: str, done: threading.Event) -> None:
        super().__init__(name="lease", daemon=True)
        self._store, self._claim, self._version = store, claim, version
        self._done = done
        self._is_ours = True

    def run(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            if not self._renew(released=False):
                return

    def release(self) -> None:
        # Written over, not deleted: a delete can't be made conditional everywhere, and could hit a
        # lock that has become another's.
        if self._is_ours:
            self._renew(released=True)

    def _renew(self, *, released: bool) -> bool:
        self._claim = dataclasses.replace(self._claim, beat=self._claim.beat + 1, released=released)
        try:
            self._version = self._store.write_if(LOCK, self._claim.to_bytes(), self._version)
        except StoreError as error:
            # The next beat tries again. Meanwhile nobody else reaches the store either, or the lock
            # goes to one who does, which the next beat then finds.
            log.info("the lock was not renewed: %s", error)
        except WriteConflictError:
            self._look()
        return self._is_ours

    def _look(self) -> None:
        """Who changed the lock: another process, or an earlier beat whose answer was lost?"""
        try:
            seen = self._store.peek(LOCK, limit=MAX_BYTES)
        except (StoreError, FileNotFoundError) as error:
            log.info("the lock could not be read: %s", error)
            return
        if Claim.parse(seen.content).token == self._claim.token:
            self._version = seen.version
            return
        self._is_ours = False
        log.warning(
            "%s: another process has taken this run over; this one can't save any more",
            self._store.uri,
        )
