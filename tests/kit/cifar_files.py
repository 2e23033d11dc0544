"""Small files in the formats of CIFAR-10, made here because the real ones can't be fetched from a
closed network: batches of the binary version, and pickles as Python 2 wrote them."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np

from job.data.catalogue import Dataset
from job.data.files import DataFile
from job.data.readers.cifar import BATCHES, LABELS, PIXELS, RECORD, Archive

ROWS = 40


def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (rows,) and planes (rows, 3072) of a made-up batch."""
    random = np.random.default_rng(number)
    labels = random.integers(0, 10, ROWS).astype(np.uint8)
    # A colour for each label, so that there is something to learn.
    planes = random.integers(0, 60, (ROWS, PIXELS)) + np.repeat(
        np.stack([labels * 19, 190 - labels * 19, labels % 2 * 190], axis=1), 1024, axis=1
    )
    return labels, planes.astype(np.uint8)


def binary(labels: np.ndarray, planes: np.ndarray) -> bytes:
    """A batch of the binary version: `<1 x label><3072 x pixel>`, row after row."""
    return b"".join(
        bytes([label]) + row.tobytes() for label, row in zip(labels, planes, strict=True)
    )


class Python2:
    """Writes what `cPickle.dump(…, protocol=2)` of Python 2 wrote."""

    def __init__(self) -> None:
        self.out, self.memo = bytearray(b"\x80\x02"), 0

    def put(self) -> None:
        self.memo += 1
        index = self.memo
        self.out += b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index)

    def string(self, value: bytes) -> None:
        short = len(value) < 256
        self.out += b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
        self.out += value
        self.put()

    def number(self, value: int) -> None:
        if 0 <= value < 256:
            self.out += b"K" + bytes([value])
        elif 0 <= value < 65536:
            self.out += b"M" + struct.pack("<H", value)
        else:
            self.out += b"J" + struct.pack("<i", value)

    def array(self, values: np.ndarray) -> None:
        self.out += b"cnumpy.core.multiarray\n_reconstruct\n"
        self.put()
        self.out += b"cnumpy\nndarray\n"
        self.put()
        self.out += b"K\x00\x85"
        self.put()
        self.string(b"b")
        self.out += b"\x87"
        self.put()
        self.out += b"R"
        self.put()
        self.out += b"(K\x01"
        for length in values.shape:
            self.number(length)
        self.out += b"\x86"
        self.put()
        self.out += b"cnumpy\ndtype\n"
        self.put()
        self.string(values.dtype.str[1:].encode())
        self.out += b"K\x00K\x01\x87"
        self.put()
        self.out += b"R"
        self.put()
        self.out += b"(K\x03"
        self.string(b"|")
        self.out += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
        self.put()
        self.out += b"b\x89"
        self.string(values.tobytes())
        self.out += b"t"
        self.put()
        self.out += b"b"

    def batch(self, labels: np.ndarray, planes: np.ndarray) -> bytes:
        """A whole batch of the Python version."""
        self.out += b"}"
        self.put()
        self.out += b"("
        self.string(b"batch_label")
        self.string(b"training batch 1 of 5")
        self.string(b"labels")
        self.out += b"]"
        self.put()
        self.out += b"("
        for label in labels:
            self.number(int(label))
        self.out += b"e"
        self.string(b"data")
        self.array(planes)
        self.string(b"filenames")
        self.out += b"]"
        self.put()
        self.out += b"("
        for number in range(len(labels)):
            self.string(b"leptodactylus_pentadactylus_s_%06d.png" % number)
        self.out += b"eu."
        return bytes(self.out)


def python2_batch(labels: np.ndarray, planes: np.ndarray) -> bytes:
    return Python2().batch(labels, planes)


def packed(folder: Path) -> bytes:
    """A folder as an archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        archive.add(folder, folder.name)
    return stream.getvalue()


def write(folder: Path) -> tuple[Dataset, dict[str, Archive], dict[str, bytes]]:
    """Writes both versions into a folder, as folders and as archives.

    Returns:
        What to enter as `CATALOGUE["cifar10"]`, what as `cifar.ARCHIVES`, and the batches of the
        binary version by name.
    """
    contents = {name: binary(*batch(number)) for number, name in enumerate(BATCHES)}
    archives = {}
    for kind, version in (("bin", "binary"), ("py", "python")):
        name = f"cifar-10-batches-{kind}"
        (folder / name).mkdir(parents=True)
        for number, file in enumerate(BATCHES):
            if kind == "bin":
                (folder / name / file).write_bytes(contents[file])
            else:
                pickled = python2_batch(*batch(number))
                (folder / name / file.removesuffix(".bin")).write_bytes(pickled)
        (folder / name / "readme.html").write_text("<html>")
        content = packed(folder / name)
        (folder / f"cifar-10-{version}.tar.gz").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        archives[f"cifar-10-{version}.tar.gz"] = Archive(len(content), digest)
    files = tuple(
        DataFile(name, hashlib.sha256(content).hexdigest(), (ROWS, RECORD))
        for name, content in contents.items()
    )
    dataset = Dataset(name="cifar10", files=files, labels=LABELS, is_digits=False)
    return dataset, archives, contents
