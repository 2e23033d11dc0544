"""Where runs are kept: the interface that everything a run writes goes through.

So a local folder (`job/storage/disk.py`) and an object store (`job/storage/s3.py`) behave alike.

Paths are relative, with `/` between parts. A write is atomic and durable: a reader sees the old
content or the new, also after a crash, and an acknowledged write stays.
"""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager
from typing import Protocol

from job.errors import JobError

WRITING = ".writing-"
# How long a command waits for a store that does not answer; a run in training waits longer.
QUICK_SECONDS = 10.0


class LockedError(Exception):
    """Another writer holds the lock; the message names it."""


class WriteConflictError(Exception):
    """A conditional write found other content than it was told to replace."""


class StoreError(JobError):
    """The store refused a request, or did not answer for too long; the message says why."""


class Storage(Protocol):
    """A tree of small files."""

    @property
    def uri(self) -> str:
        """Where this is, as the user would write it; never holds a secret."""

    def at(self, path: str) -> Storage:
        """The subtree below `path`."""

    def read(self, path: str, *, limit: int) -> bytes:
        """Reads a whole file.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It is larger than `limit` bytes.
        """

    def write(self, path: str, content: bytes) -> None:
        """Creates or replaces a file, atomically and durably."""

    def version(self, path: str) -> str | None:
        """What tells this content of a file from any other; None where there is no file."""

    def write_if(self, path: str, content: bytes, version: str | None) -> str:
        """Writes like `write`, but only over the given version (None: only where no file is).

        Returns:
            The new version.

        Raises:
            WriteConflictError: Another writer was there first.
        """

    def files(self) -> dict[str, int]:
        """Sizes in bytes of all files below, by path."""

    def list(self) -> list[str]:
        """Names directly below the root, sorted, without hidden ones; empty where nothing is."""

    def delete(self, path: str) -> None:
        """Removes a file or a whole subtree; nothing happens where there is none."""

    def probe(self) -> None:
        """Raises InputError, saying why, where this place can't be written; leaves no trace."""

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other writers out for the time of the block. Raises LockedError where one is in."""

    def holder(self) -> str | None:
        """The writer that `locked` would meet, None where there is none."""

    @property
    def is_remote(self) -> bool:
        """Whether a write takes so long that training must not wait for it."""


def this_process() -> str:
    """How a lock names its holder to people."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def plain_parts(path: str) -> list[str]:
    """The names of a relative path. Raises ValueError for anything that leads elsewhere."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"not a relative path of plain names: {path!r}")
    return parts
