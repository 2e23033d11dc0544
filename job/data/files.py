"""What the readers of data sets share: published files, and the bytes and arrays they hold.

Content is identified by the SHA-256 of the uncompressed files, so every way to get a data set
(folder, cache, mirror, package, Keras' npz) is held to the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from job.config.fields import SIDES

# Content by file name.
Contents = dict[str, bytes]
# Height, width and channels.
ImageShape = tuple[int, int, int]


class DataFile(NamedTuple):
    """One published file: its name, SHA-256 and the shape of its uint8 array."""

    name: str
    sha256: str
    shape: tuple[int, ...]

    @property
    def is_batch(self) -> bool:
        """Whether it is a batch of CIFAR: records of a label and an image, and no header."""
        return self.name.endswith(".bin")

    @property
    def header(self) -> bytes:
        """What stands before the array: an IDX header, or nothing in a batch."""
        return b"" if self.is_batch else idx_header(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the uncompressed file."""
        return len(self.header) + math.prod(self.shape)


class Split(NamedTuple):
    """Examples: `images` uint8 (n, height, width, channels), `labels` whole numbers (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class OwnData(NamedTuple):
    """A user's own data set as it was read, whatever it was kept as.

    The last `validation_rows` of `train` validate, or its last fifth.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    test: Split
    validation_rows: int | None = None

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels."""
        return self.train.images.shape[1:]


class Reader(Protocol):
    """How published files are read: what a module of `job.data.readers` has for them.

    `files` are those of a whole data set, or those that train, or those that test.
    """

    # The last so many files test.
    TEST_FILES: int

    def image_shape(self, files: Sequence[DataFile]) -> ImageShape:
        """Height, width and channels of the images in these files."""

    def read(self, folder: Path, name: str, files: Sequence[DataFile]) -> Contents:
        """Reads and checks the files of the data set `name` in a folder.

        Raises:
            FileNotFoundError: A file is missing; the message names it.
            ValueError: A file is not the published one; the message names it and says how.
        """

    def decode(self, contents: Contents, files: Sequence[DataFile]) -> Split:
        """All examples of these files."""

    def encode(self, rows: Split, files: Sequence[DataFile]) -> Contents:
        """The inverse of `decode`."""

    def by_hand(self, files: Sequence[DataFile]) -> str:
        """What to put into a folder, in words."""


def idx_header(shape: tuple[int, ...]) -> bytes:
    """The IDX header of a uint8 array (format: LeCun's MNIST page)."""
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


def check_image_shape(shape: Any) -> ImageShape:
    """Raises ValueError for anything but height, width and channels of images that can be used."""
    least, most = SIDES
    if (
        not isinstance(shape, Sequence)
        or len(shape) != 3
        or not all(type(number) is int for number in shape)
        or not all(least <= side <= most for side in shape[:2])
        or shape[2] not in (1, 3)
    ):
        raise ValueError(
            f"shape is {shape!r:.60}; give [height, width, channels] with {least} to {most} pixels "
            "a side, and 1 channel or 3"
        )
    return tuple(shape)


def check_validation_rows(count: Any, train_rows: int) -> None:
    """Raises ValueError for what does not leave rows to train and to validate; None is usual."""
    if count is not None and (type(count) is not int or not 0 < count < train_rows):
        raise ValueError(
            f"validation is {count!r:.60}; give how many of {train_rows:,} training rows validate"
        )


def check_file(file: DataFile, content: bytes) -> None:
    """Raises ValueError, saying how the content differs from the published file."""
    header = file.header
    if header:
        if len(content) < len(header) or content[:4] != header[:4]:
            raise ValueError("not an IDX file of unsigned bytes with the expected number of axes")
        axes = len(file.shape)
        shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
        if shape != file.shape:
            raise ValueError(f"holds an array of shape {shape}, expected {file.shape}")
    if len(content) != file.size:
        raise ValueError(f"has {len(content):,} bytes, expected {file.size:,}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise ValueError(f"SHA-256 is {digest[:16]}…, expected {file.sha256[:16]}…")


def checked(contents: Contents, files: Iterable[DataFile], place: Path | None = None) -> Contents:
    """The contents, all as published. Raises ValueError, naming the file and its place."""
    for file in files:
        try:
            check_file(file, contents[file.name])
        except ValueError as error:
            at = "" if place is None else f"{place}: "
            raise ValueError(f"{at}{file.name} {error}") from None
    return contents
