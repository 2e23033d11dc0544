"""A folder on disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from job.errors import InputError
from job.reasons import text_of
from job.storage.base import WRITING, LockedError, WriteConflictError, plain_parts, this_process

LOCK_FILE = ".lock"


class LocalStorage:
    """A folder on disk."""

    is_remote = False

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @property
    def uri(self) -> str:
        """The folder's path as it was given."""
        return str(self.root)

    def at(self, path: str) -> LocalStorage:
        """The folder `path` below this one; raises ValueError where that leads elsewhere."""
        return LocalStorage(self._path(path))

    def read(self, path: str, *, limit: int) -> bytes:
        """As `Storage.read`; never more than one byte beyond `limit` is read."""
        with self._path(path).open("rb") as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"{path} is larger than {limit:,} bytes")
        return content

    def write(self, path: str, content: bytes) -> None:
        """As `Storage.write`: a rename, between a sync of the file and one of its folder."""
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
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                # A full disk does not say which; nor does anybody know the other name.
                error.filename = str(target)
            raise
        # A crash before this line may still bring the old file back.
        _sync_folder(target.parent)

    def version(self, path: str) -> str | None:
        """The SHA-256 of the content; None where there is no file."""
        try:
            return hashlib.sha256(self._path(path).read_bytes()).hexdigest()
        except FileNotFoundError:
            return None

    def write_if(self, path: str, content: bytes, version: str | None) -> str:
        """As `Storage.write_if`; a lock beside the file makes look and write one step."""
        target = self._path(path)
        _make_folders(target.parent)
        # The kernel gives this lock up, too, when its holder dies.
        with target.with_name(f".{target.name}.lock").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if self.version(path) != version:
                raise WriteConflictError(str(target))
            self.write(path, content)
        return hashlib.sha256(content).hexdigest()

    def files(self) -> dict[str, int]:
        """Sizes in bytes by path, without hidden files and those that vanish meanwhile.

        Raises OSError where the folder can't be listed.
        """
        try:
            # `rglob` finds nothing, and says nothing, where it may not look.
            os.scandir(self.root).close()
        except FileNotFoundError:
            return {}
        sizes = {}
        for path in self.root.rglob("*"):
            name = path.relative_to(self.root)
            # A run in training removes files while they are looked at.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not any(part.startswith(".") for part in name.parts):
                    sizes[name.as_posix()] = path.stat().st_size
        return sizes

    def list(self) -> list[str]:
        """As `Storage.list`; empty where there is no such folder."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if not p.name.startswith("."))

    def delete(self, path: str) -> None:
        """As `Storage.delete`; a link goes, and what it points to stays."""
        target = self._path(path)
        if target.is_dir() and not target.is_symlink():
            # All of it at once: part of a run would be one that nobody can read, or go on with.
            doomed = target.with_name(f"{WRITING}{secrets.token_hex(8)}")
            os.replace(target, doomed)
            shutil.rmtree(doomed)
        else:
            target.unlink(missing_ok=True)

    def probe(self) -> None:
        """As `Storage.probe`, by an unnamed file that is also locked."""
        try:
            with borrowed(self.root), tempfile.TemporaryFile(dir=self.root) as stream:
                # Some network file systems have no locks.
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                "--storage", self.root, f"can't be written ({text_of(error)}); name another folder"
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """As `Storage.locked`, by the kernel's lock of `.lock`, which names the holder."""
        _make_folders(self.root)
        with (self.root / LOCK_FILE).open("a+") as stream:
            try:
                # The kernel gives the lock up when its holder dies, however that happens.
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(_name_in(stream)) from None
            stream.truncate(0)
            stream.write(this_process())
            stream.flush()
            yield
            stream.truncate(0)

    def holder(self) -> str | None:
        """The name in `.lock`; None where nobody holds it."""
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


def _name_in(lock: TextIO) -> str:
    """Who holds a lock file; one who has just got it may not have written its name yet."""
    for _ in range(50):
        lock.seek(0)
        name = lock.read(200).strip()
        if name:
            return name
        time.sleep(0.02)
    return "another process"


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
    except OSError as error:
        # Some shares (CIFS, VirtualBox) have no sync of folders; more is not to be had there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            error.filename = str(folder)
            raise
    finally:
        os.close(handle)
