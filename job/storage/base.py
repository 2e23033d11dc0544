"""Where runs are kept. Everything a run writes goes through this interface, so that a local folder
and an object store (`job/storage/s3.py`) behave alike.

Paths are relative, with `/` between parts. A write is atomic and durable: a reader sees the old
content or the new, also after a crash, and an acknowledged write stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TextIO

from job.errors import InputError, JobError

WRITING = ".writing-"
LOCK_FILE = ".lock"
# How long a command waits for a store that does not answer; a run in training waits longer.
QUICK_SECONDS = 10.0


class Held(Exception):
    """Another writer holds the lock; the message names it."""


class Conflict(Exception):
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
            Conflict: Another writer was there first.
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
        """Keeps other writers out for the time of the block. Raises Held where one is in."""

    def holder(self) -> str | None:
        """The writer that `locked` would meet, None where there is none."""

    @property
    def is_remote(self) -> bool:
        """Whether a write takes so long that training must not wait for it."""


class LocalStorage:
    """A folder on disk."""

    is_remote = False

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @property
    def uri(self) -> str:
        return str(self.root)

    def at(self, path: str) -> LocalStorage:
        return LocalStorage(self._path(path))

    def read(self, path: str, *, limit: int) -> bytes:
        with self._path(path).open("rb") as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"{path} is larger than {limit:,} bytes")
        return content

    def write(self, path: str, content: bytes) -> None:
        target = self._path(path)
        _make_folders(target.parent)
        temporary = target.with_name(f"{WRITING}{secrets.token_hex(8)}")
        try:
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            # A crash before this line leaves the old file (and a `.writing-*` file that nobody
            # reads); after it, the new one. Without the fsync above, the name could come to point
            # at a file whose bytes were lost.
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        # A crash before this line may still bring the old file back.
        _sync_folder(target.parent)

    def version(self, path: str) -> str | None:
        try:
            return hashlib.sha256(self._path(path).read_bytes()).hexdigest()
        except FileNotFoundError:
            return None

    def write_if(self, path: str, content: bytes, version: str | None) -> str:
        target = self._path(path)
        _make_folders(target.parent)
        # The kernel gives this lock up, too, when its holder dies.
        with target.with_name(f".{target.name}.lock").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if self.version(path) != version:
                raise Conflict(str(target))
            self.write(path, content)
        return hashlib.sha256(content).hexdigest()

    def files(self) -> dict[str, int]:
        sizes = {}
        for path in self.root.rglob("*"):
            # A run in training removes files while they are looked at.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.name.startswith("."):
                    sizes[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return sizes

    def list(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if not p.name.startswith("."))

    def delete(self, path: str) -> None:
        target = self._path(path)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def probe(self) -> None:
        try:
            with borrowed(self.root), tempfile.TemporaryFile(dir=self.root) as stream:
                # Some network file systems have no locks.
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                "--storage", self.root, f"can't be written ({error.strerror}); name another folder"
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        _make_folders(self.root)
        with (self.root / LOCK_FILE).open("a+") as stream:
            try:
                # The kernel gives the lock up when its holder dies, however that happens.
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Held(_name_in(stream)) from None
            stream.truncate(0)
            stream.write(this_process())
            stream.flush()
            yield
            stream.truncate(0)

    def holder(self) -> str | None:
        try:
            with (self.root / LOCK_FILE).open("r") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return None
                except BlockingIOError:
                    return _name_in(stream)
        except FileNotFoundError:
            return None

    def _path(self, path: str) -> Path:
        return self.root.joinpath(*plain_parts(path))


def this_process() -> str:
    """How a lock names its holder to people."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _name_in(lock: TextIO) -> str:
    """Who holds a lock file; one who has just got it may not have written its name yet."""
    for _ in range(50):
        lock.seek(0)
        name = lock.read(200).strip()
        if name:
            return name
        time.sleep(0.02)
    return "another process"


def plain_parts(path: str) -> list[str]:
    """The names of a relative path. Raises ValueError for anything that leads elsewhere."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"not a relative path of plain names: {path!r}")
    return parts


def open_storage(uri: str, *, patience: float = QUICK_SECONDS) -> Storage:
    """The storage behind a `--storage` value.

    Args:
        uri: A local folder, or `s3://BUCKET/PREFIX`.
        patience: Seconds for which an object store may fail to answer.

    Raises:
        InputError: An unknown kind of place, or one that carries a secret.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return LocalStorage(uri)
    if "@" in rest or "?" in rest:
        # Not shown again: it may hold a secret, and errors are logged.
        raise InputError(
            "--storage",
            f"{scheme}://...",
            "give s3://BUCKET/PREFIX only; credentials belong into the "
            "standard AWS places (environment, profile or instance profile)",
        )
    if scheme != "s3":
        raise InputError("--storage", uri, "name a local folder or s3://BUCKET/PREFIX")
    # boto3 takes a third of a second to import, which a run on disk need not wait for.
    from job.storage.s3 import Connection, S3Storage

    bucket, _, prefix = rest.partition("/")
    return S3Storage(bucket, prefix.strip("/"), Connection(patience=patience))


@contextlib.contextmanager
def borrowed(folder: Path) -> Iterator[None]:
    """A folder for the time of the block; what had to be made for it and is left empty goes."""
    missing = list(_missing(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()


def _make_folders(folder: Path) -> None:
    missing = list(_missing(folder))
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _sync_folder(made.parent)


def _missing(folder: Path) -> Iterator[Path]:
    for candidate in (folder, *folder.parents):
        if candidate.exists():
            return
        yield candidate


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
