"""CIFAR-10 as its authors publish it, in both of its versions.

    cifar-10-binary.tar.gz   cifar-10-batches-bin/data_batch_1.bin … 5, test_batch.bin
    cifar-10-python.tar.gz   cifar-10-batches-py/data_batch_1 … 5, test_batch

Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html

A batch of the binary version is 10,000 records of a label and 3,072 pixels: 32 rows of 32 red
values, then the green and the blue ones. The Python version holds the same examples in the same
order as pickles, which can call anything: they are read from its archive only, once its SHA-256 is
the published one. What is read from either becomes the files of the binary version, and is held to
their SHA-256.

The hashes were not computed from a copy of our own. Archives: those of TensorFlow Datasets
(url_checksums/cifar10.txt) and Keras (`keras.datasets.cifar10`). Batches: those that TorchVision
for Ruby (ankane/torchvision-ruby, lib/torchvision/datasets/cifar10.rb) checks.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from job.data.files import Contents, DataFile, ImageShape, Split, checked

TEST_FILES = 1
IMAGE_SHAPE = (32, 32, 3)
PIXELS = 32 * 32 * 3
RECORD = 1 + PIXELS

LABELS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
# Five batches to train, one to test.
BATCHES = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
FOLDER = "cifar-10-batches-bin"


class Archive(NamedTuple):
    """A published archive."""

    size: int
    sha256: str


ARCHIVES = {
    "cifar-10-binary.tar.gz": Archive(
        170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    ),
    "cifar-10-python.tar.gz": Archive(
        170_498_071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
    ),
}


# As their authors name them, and as Keras 3 and Keras 2 keep the second of them.
ARCHIVE_NAMES = (*ARCHIVES, "cifar-10-batches-py-target_archive", "cifar-10-batches-py.tar.gz")
# What the pickled batches of 2009 call, as NumPy has it today.
CALLS = {
    ("numpy.core.multiarray", "_reconstruct"): np.ndarray.__new__,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def read(folder: Path, name: str, files: Sequence[DataFile]) -> Contents:
    """As `Reader.read`: an archive, or a folder that holds one, or the binary version's batches."""
    return checked(_read(folder, files), files, folder)


def _read(place: Path, files: Sequence[DataFile]) -> Contents:
    if place.is_file():
        return _unpacked(place, files)
    first = files[0].name
    for folder in (place, place / FOLDER):
        if (folder / first).is_file():
            return {file.name: _head(folder / file.name, file.size) for file in files}
    for archive in ARCHIVE_NAMES:
        if (place / archive).is_file():
            return _unpacked(place / archive, files)
    for below in ("", "cifar-10-batches-py/", "cifar-10-batches-py-target/cifar-10-batches-py/"):
        if (place / below / _python_name(first)).is_file():
            raise ValueError(
                f"{place} has pickles ({below}{_python_name(first)}), which are read from "
                f"{' or '.join(ARCHIVES)} only; name that archive or its folder"
            )
    raise FileNotFoundError(f"{place} has no {first} (also tried {', '.join((FOLDER, *ARCHIVES))})")


def unpack(content: bytes, files: Sequence[DataFile]) -> Contents:
    """Reads the batches from a published archive; nothing of another one is unpacked.

    Args:
        content: The archive.
        files: The batches of the binary version; their SHA-256 is for the caller to check.

    Raises:
        ValueError: It is not as published.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest not in {archive.sha256 for archive in ARCHIVES.values()}:
        raise ValueError(f"is not as published: SHA-256 is {digest[:16]}…")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        members = {
            Path(member.name).name: stream.read()
            for member in archive
            if (stream := archive.extractfile(member))
        }
    return {
        file.name: members.get(file.name) or _from_pickle(members[_python_name(file.name)])
        for file in files
    }


def decode(contents: Contents, files: Sequence[DataFile]) -> Split:
    """As `Reader.decode`."""
    content = b"".join(contents[file.name] for file in files)
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return Split(images, records[:, 0].astype(np.int32))


def encode(rows: Split, files: Sequence[DataFile]) -> Contents:
    """As `Reader.encode`; the last batch gets what is left over."""
    planes = rows.images.transpose(0, 3, 1, 2).reshape(-1, PIXELS)
    records = memoryview(_records(planes, rows.labels))
    contents = {}
    for file in files:
        size = len(records) if file is files[-1] else file.size
        contents[file.name], records = bytes(records[:size]), records[size:]
    return contents


def image_shape(files: Sequence[DataFile]) -> ImageShape:
    """As `Reader.image_shape`."""
    return IMAGE_SHAPE


def by_hand(files: Sequence[DataFile]) -> str:
    """As `Reader.by_hand`."""
    return f"{' or '.join(ARCHIVES)}, or the folder {FOLDER},"


def _records(planes: np.ndarray, labels: Sequence[int] | np.ndarray) -> bytes:
    return np.column_stack([np.asarray(labels, np.uint8), planes]).tobytes()


def _unpacked(path: Path, files: Sequence[DataFile]) -> Contents:
    size = path.stat().st_size
    if size not in {archive.size for archive in ARCHIVES.values()}:
        raise ValueError(f"{path} has {size:,} bytes, which no published archive has")
    try:
        return unpack(path.read_bytes(), files)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _head(path: Path, size: int) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}")
    with path.open("rb") as stream:
        # One byte over the size is enough to see that a file is too long.
        return stream.read(size + 1)


class _Unpickler(pickle.Unpickler):
    """Calls what a batch needs and nothing else, should the pinned archive ever be another one."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in CALLS:
            raise ValueError(f"names {module}.{name}, which no batch has")
        return CALLS[module, name]


def _from_pickle(content: bytes) -> bytes:
    """A batch of the Python version, from an archive that is the published one, as records."""
    batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    return _records(batch[b"data"], batch[b"labels"])


def _python_name(name: str) -> str:
    return name.removesuffix(".bin")
