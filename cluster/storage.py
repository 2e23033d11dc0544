"""Where runs are kept. Everything a run writes goes through this interface, so that a local folder
and (later) an object store behave alike.

Paths are relative, with `/` between parts. A write is atomic and durable: a reader sees the old
content or the new, also after a crash, and an acknowledged write stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from job.errors import InputError


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

    def list(self) -> list[str]:
        """Names directly below the root, sorted; empty where there is nothing."""

    def delete(self, path: str) -> None:
        """Removes a file or a whole subtree; nothing happens where there is none."""

    def probe(self) -> None:
        """Raises InputError, saying why, where this place can't be written; leaves no trace."""


class LocalStorage:
    """A folder on disk."""

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
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            # A crash before this line leaves the old file (and a `.writing-*` file that nobody
            # reads); after it, the new one. Without the fsync above, the name could come to point
            # at a file whose bytes were lost.
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        # A crash before this line may still bring the old file back.
        _sync_folder(target.parent)

    def list(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if not p.name.startswith(".writing-"))

    def delete(self, path: str) -> None:
        target = self._path(path)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def probe(self) -> None:
        missing = [p for p in (self.root, *self.root.parents) if not p.exists()]
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise InputError(
                "--storage", self.root, f"can't be written ({error.strerror}); name another folder"
            ) from error
        finally:
            for folder in missing:
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _path(self, path: str) -> Path:
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"not a relative path of plain names: {path!r}")
        return self.root.joinpath(*parts)


def open_storage(uri: str) -> Storage:
    """The storage behind a `--storage` value. Raises InputError for an unknown kind."""
    scheme, separator, _ = uri.partition("://")
    if separator:
        raise InputError("--storage", uri, f"{scheme}:// is not supported; name a local folder")
    return LocalStorage(uri)


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


def _umask() -> int:
    # The only portable way to read it is to set it.
    current = os.umask(0o022)
    os.umask(current)
    return current
