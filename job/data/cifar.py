"""CIFAR-10 as its authors publish it (Krizhevsky, "Learning multiple layers of features from tiny
images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html), in both of its versions:

    cifar-10-binary.tar.gz   cifar-10-batches-bin/data_batch_1.bin … 5, test_batch.bin
    cifar-10-python.tar.gz   cifar-10-batches-py/data_batch_1 … 5, test_batch

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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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


def read(place: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Reads the batches from an archive, or from a folder that holds one, or the binary version's
    batches.

    Args:
        place: The file or folder.
        sizes: Bytes of the batches of the binary version, by name.

    Returns:
        The batches of the binary version by name; their SHA-256 is for the caller to check.

    Raises:
        FileNotFoundError: There is neither; the message names what is missing.
        ValueError: What there is can't be what was published; the message names the file.
    """
    if place.is_file():
        return _unpacked(place, sizes)
    first = next(iter(sizes))
    for folder in (place, place / FOLDER):
        if (folder / first).is_file():
            return {name: _head(folder / name, size) for name, size in sizes.items()}
    for name in ARCHIVE_NAMES:
        if (place / name).is_file():
            return _unpacked(place / name, sizes)
    for name in ("", "cifar-10-batches-py/", "cifar-10-batches-py-target/cifar-10-batches-py/"):
        if (place / name / _python_name(first)).is_file():
            raise ValueError(
                f"{place} has pickles ({name}{_python_name(first)}), which are read from "
                f"{' or '.join(ARCHIVES)} only; name that archive or its folder"
            )
    raise FileNotFoundError(f"{place} has no {first} (also tried {', '.join((FOLDER, *ARCHIVES))})")


def unpack(content: bytes, names: Iterable[str]) -> dict[str, bytes]:
    """Reads the batches from a published archive; nothing of another one is unpacked.

    Args:
        content: The archive.
        names: The batches of the binary version.

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
    return {name: members.get(name) or _from_pickle(members[_python_name(name)]) for name in names}


def decode(batches: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 32, 32, 3) and labels int32 (n,) of batches of the binary version."""
    records = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, RECORD)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].astype(np.int32)


def encode(images: np.ndarray, labels: np.ndarray) -> bytes:
    """The inverse of `decode`: records of the binary version."""
    return _records(images.transpose(0, 3, 1, 2).reshape(-1, PIXELS), labels)


def _records(planes: np.ndarray, labels: Sequence[int] | np.ndarray) -> bytes:
    return np.column_stack([np.asarray(labels, np.uint8), planes]).tobytes()


def _unpacked(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    size = path.stat().st_size
    if size not in {archive.size for archive in ARCHIVES.values()}:
        raise ValueError(f"{path} has {size:,} bytes, which no published archive has")
    try:
        return unpack(path.read_bytes(), names)
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
