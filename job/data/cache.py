"""The cache of a node: what was fetched once is not fetched again.

A file appears in it whole or not at all, and whoever reads one checks its hash.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from job.reasons import text_of
from job.storage.disk import LocalStorage

log = logging.getLogger(__name__)


def cache_folder(name: str) -> Path:
    """`lenet-on-ray/NAME` in `XDG_CACHE_HOME`, by default in `~/.cache`; it need not exist."""
    root = os.environ.get("XDG_CACHE_HOME") or home() / ".cache"
    return Path(root) / "lenet-on-ray" / name


def home() -> Path:
    """The home folder, or the temporary one for a user that has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


def store(contents: dict[str, bytes], folder: Path) -> None:
    """Puts verified files into the cache."""
    for name, content in contents.items():
        LocalStorage(folder).write(name, content)


def fetch_once(sha256: str, size: int, fetch: Callable[[], bytes]) -> bytes:
    """Content by its hash: from the cache, or fetched by one process while the others wait.

    Args:
        sha256: Of the content, 64 hexadecimal digits; its name in the cache.
        size: Its bytes.
        fetch: Gets it and checks the hash; whatever it raises is raised here.

    Returns:
        The content, verified. It is fetched without the cache where that can't be written.
    """
    folder = cache_folder("by-sha256")
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((folder / f"{sha256}.lock").open("a"))
            # The kernel gives it up when its holder dies, however that happens.
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = _read(folder / sha256, size)
        except OSError as error:
            log.warning("%s can't be used as a cache: %s", folder, text_of(error))
            return fetch()
        if content is not None and hashlib.sha256(content).hexdigest() == sha256:
            return content
        if content is not None:
            log.warning("%s is damaged and is fetched again", folder / sha256)
        content = fetch()
        try:
            store({sha256: content}, folder)
        except OSError as error:
            log.warning("%s can't be kept in %s: %s", sha256[:16], folder, text_of(error))
        return content


def _read(path: Path, size: int) -> bytes | None:
    try:
        with path.open("rb") as stream:
            # One byte over the size is enough to see that a file is too long.
            return stream.read(size + 1)
    except FileNotFoundError:
        return None
