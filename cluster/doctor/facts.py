"""What a machine tells about itself when `lenet doctor` asks.

Each function here answers a question, in a process on that machine; what to think of the answers is
the business of `cluster/doctor/checks.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import ipaddress
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cluster import ray_private
from cluster.connection import token_file
from job.data.cache import cache_folder
from job.versions import RECORDED, installed

PACKAGES = ("job", "cluster", "tuning")
RAY_BINARIES = "/ray/core/src/ray/"
RAY_LIBRARY = "/ray/_raylet.so"
DASHBOARD = "/ray/dashboard/dashboard.py"
LISTENING = "0A"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disk:
    """A file system, by a folder on it that runs use."""

    folder: str
    free: int
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listener:
    """A TCP port that is reached from other machines.

    Attributes:
        process: The name of who listens; empty where this user may not see it.
        kind: `ray`, `dashboard` or empty for anything else.
    """

    port: int
    process: str
    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a machine without a network and without TensorFlow.

    Attributes:
        versions: Of Python and the packages that decide a run's numbers; None for a missing one.
        code: SHA-256 of this project's files.
        disks: Where runs write, each file system once.
        listeners: Ports that are open to other machines.
        auth_mode: Ray's, in a process that Ray started; else None.
        token_mode: Permissions of Ray's token file; None where there is none.
        in_kubernetes: It is a pod.
    """

    versions: dict[str, str | None]
    code: dict[str, str]
    disks: tuple[Disk, ...]
    listeners: tuple[Listener, ...]
    auth_mode: str | None
    token_mode: int | None
    in_kubernetes: bool


def facts(storage: str) -> Facts:
    """Looks at this machine.

    Args:
        storage: Where runs are kept; an absolute path or a URI.
    """
    folders = [tempfile.gettempdir(), str(cache_folder(""))]
    if "://" not in storage:
        folders.append(storage)
    return Facts(
        versions=versions(),
        code=code(),
        disks=tuple(_disks(folders)),
        listeners=tuple(listeners()),
        auth_mode=_auth_mode(),
        token_mode=_token_mode(),
        in_kubernetes="KUBERNETES_SERVICE_HOST" in os.environ,
    )


def versions() -> dict[str, str | None]:
    """As `job.versions.versions`, but None for a package that is not installed."""
    return {"python": platform.python_version(), **{name: installed(name) for name in RECORDED}}


def code() -> dict[str, str]:
    """SHA-256 of each of this project's Python files, by path."""
    root = Path(__file__).parents[2]
    paths = sorted(path for name in PACKAGES for path in (root / name).rglob("*.py"))
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def now() -> float:
    """This machine's clock, in seconds since the epoch."""
    return time.time()


def listeners() -> Iterator[Listener]:
    """TCP ports on which something listens that is reached from other machines."""
    inodes = {}
    for table in ("tcp", "tcp6"):
        # Without IPv6 there is no such table.
        with contextlib.suppress(FileNotFoundError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                local, state = fields[1], fields[3]
                address, port = local.split(":")
                if state == LISTENING and not _address(address).is_loopback:
                    inodes[fields[9]] = int(port, 16)
    owners = _owners()
    found = {Listener(port=port, **owners.get(inode, UNSEEN)) for inode, port in inodes.items()}
    yield from sorted(found, key=lambda listener: listener.port)


UNSEEN = {"process": "", "kind": ""}


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of /proc/net/tcp: words of four bytes in the machine's order."""
    words = [int(text[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def _owners() -> dict[str, dict[str, str]]:
    """Name and kind of each socket's process, by inode; only those that this user may look at."""
    found: dict[str, dict[str, str]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        # Processes end while they are looked at, and other users' are not shown.
        with contextlib.suppress(OSError):
            sockets = [name[8:-1] for name in _open_files(process) if name.startswith("socket:[")]
            if sockets:
                who = {"process": (process / "comm").read_text().strip(), "kind": _kind(process)}
                found |= dict.fromkeys(sockets, who)
    return found


def _open_files(process: Path) -> Iterator[str]:
    for link in (process / "fd").iterdir():
        # Closed since; in this process the folder's own is.
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(link)


def _kind(process: Path) -> str:
    if DASHBOARD in (process / "cmdline").read_text():
        return "dashboard"
    if RAY_BINARIES in os.readlink(process / "exe"):
        return "ray"
    # Workers, agents and drivers: Ray's library listens in each process that has it.
    return "ray" if RAY_LIBRARY in (process / "maps").read_text() else ""


def _disks(folders: list[str]) -> Iterator[Disk]:
    seen = set()
    for folder in map(Path, folders):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        device = there.stat().st_dev
        if device not in seen:
            seen.add(device)
            usage = shutil.disk_usage(there)
            yield Disk(folder=str(there), free=usage.free, total=usage.total)


def _auth_mode() -> str | None:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return "token" if ray_private.asks_for_token() else "disabled"


def _token_mode() -> int | None:
    try:
        return stat.S_IMODE(token_file().stat().st_mode)
    except FileNotFoundError:
        return None


def storage_problem(uri: str, marker: str | None = None) -> str | None:
    """Tries `--storage` as a run does that is about to begin.

    Args:
        uri: An absolute one.
        marker: A file that must be there, because another machine has written it.

    Returns:
        What is wrong; None where it can be used.
    """
    from job.errors import InputError
    from job.storage.open import open_storage

    storage = open_storage(uri)
    try:
        storage.probe()
    except InputError as error:
        return error.problem
    if marker is not None and storage.version(marker) is None:
        return "is not shared by all machines; name a folder that is, or s3://BUCKET/PREFIX"
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """A look at a data set: verified where there is no `problem`."""

    place: str
    problem: str = ""


def data(dataset: str, place: str | None) -> Data:
    """Reads and verifies what a run would train on; nothing is downloaded for it."""
    from job.data.catalogue import CATALOGUE
    from job.data.examples import open_examples
    from job.data.sources import cached
    from job.errors import JobError

    if dataset in CATALOGUE:
        found = cached(dataset, place)
        return Data(place=found.place, problem=found.problem)
    try:
        open_examples(dataset, place)
    except JobError as error:
        return Data(place=place or "", problem=str(error))
    return Data(place=place or "")
