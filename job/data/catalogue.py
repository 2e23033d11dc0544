"""The data sets: a catalogue with pinned hashes, and the three splits.

Content is identified by the SHA-256 of the uncompressed files, so every way to get a data set
(folder, cache, mirror, package, Keras' npz) is held to the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from job.data import cifar
from job.errors import InputError

# Height, and width, of images that every model can take and that leave room for many of them.
SIDES = (20, 128)


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
        return b"" if self.is_batch else idx_header(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the uncompressed file."""
        return len(self.header) + math.prod(self.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """What there is to know about a data set without its bytes: an entry of the catalogue, or a
    user's own set."""

    name: str
    files: tuple[DataFile, ...]
    labels: tuple[str, ...]
    is_digits: bool

    @property
    def train_files(self) -> tuple[DataFile, ...]:
        """IDX images and labels, or batches."""
        return self.files[:-1] if self.files[0].is_batch else self.files[:2]

    @property
    def test_files(self) -> tuple[DataFile, ...]:
        return self.files[len(self.train_files) :]

    @property
    def train_rows(self) -> int:
        """Rows of the training files, those for validation included."""
        return _rows(self.train_files)

    @property
    def test_rows(self) -> int:
        return _rows(self.test_files)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        first = self.files[0]
        if first.is_batch:
            return cifar.IMAGE_SHAPE
        # `from_dict` lets no set of other shapes through.
        return cast("tuple[int, int, int]", (*first.shape[1:], 1)[:3])

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "files": [file._asdict() for file in self.files]}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Dataset:
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
        fields = {k: document[k] for k in ("name", "labels", "is_digits")}
        names = [*fields["labels"], *(f["name"] for f in document["files"])]
        if not all(isinstance(name, str) for name in names):
            raise ValueError("labels or files are not names")
        files = [DataFile(f["name"], f["sha256"], tuple(f["shape"])) for f in document["files"]]
        batches = sum(file.is_batch for file in files)
        if (len(files), batches) != (4, 0) and not 2 <= len(files) == batches:
            raise ValueError("there are not four files")
        dataset = cls(**{**fields, "labels": tuple(fields["labels"])}, files=tuple(files))
        check_image_shape(dataset.image_shape)
        return dataset


def _rows(files: Sequence[DataFile]) -> int:
    """Of batches each has rows of its own; images and labels have the same."""
    return sum(file.shape[0] for file in files if file.is_batch) or files[0].shape[0]


def check_image_shape(shape: Any) -> tuple[int, int, int]:
    """Raises ValueError for anything but height, width and channels of images that can be used."""
    least, most = SIDES
    if (
        not isinstance(shape, Sequence)
        or len(shape) != 3
        or not all(type(number) is int for number in shape)
        or not least <= shape[0] == shape[1] <= most
        or shape[2] not in (1, 3)
    ):
        raise ValueError(
            f"shape is {shape!r:.60}; give [side, side, channels] with {least} to {most} pixels a "
            "side, and 1 channel or 3"
        )
    return tuple(shape)


def idx_files(
    *hashes: str,
    train: int = 60_000,
    test: int = 10_000,
    image_shape: tuple[int, int, int] = (28, 28, 1),
) -> tuple[DataFile, ...]:
    """The four files of a data set by their SHA-256, as MNIST names them, with their rows."""
    image = image_shape if image_shape[2] > 1 else image_shape[:2]
    shapes = ((train, *image), (train,), (test, *image), (test,))
    names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images", "labels")]
    return tuple(
        DataFile(f"{name}-idx{len(shape)}-ubyte", sha256, shape)
        for name, sha256, shape in zip(names, hashes, shapes, strict=True)
    )


CATALOGUE = {
    "mnist": Dataset(
        name="mnist",
        files=idx_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        labels=tuple("0123456789"),
        is_digits=True,
    ),
    "fashion-mnist": Dataset(
        name="fashion-mnist",
        files=idx_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        labels=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        is_digits=False,
    ),
    "cifar10": Dataset(
        name="cifar10",
        files=tuple(
            DataFile(name, sha256, (10_000, cifar.RECORD)) for name, sha256 in cifar.BATCHES.items()
        ),
        labels=cifar.LABELS,
        is_digits=False,
    ),
}
# Those that are meant where none is named: CIFAR-10 is 170 MB, for who wants it.
SMALL = ("mnist", "fashion-mnist")


class Split(NamedTuple):
    """Examples: `images` uint8 (n, height, width, channels), `labels` int32 (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def idx_header(shape: tuple[int, ...]) -> bytes:
    """The IDX header of a uint8 array (format: LeCun's MNIST page)."""
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


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


def rows_of(contents: dict[str, bytes], files: Sequence[DataFile]) -> Split:
    """All examples of these files, which are `train_files` or `test_files` of a data set.

    Args:
        contents: Content by file name.
        files: The files.
    """
    if files[0].is_batch:
        return Split(*cifar.decode([contents[file.name] for file in files]))
    images, labels = (
        np.frombuffer(contents[file.name], np.uint8, offset=len(file.header)) for file in files
    )
    shape = (*files[0].shape, 1)[:4]
    return Split(images.reshape(shape), labels.astype(np.int32))


def training_splits(
    contents: dict[str, bytes], dataset: Dataset, limit_train: int | None = None
) -> tuple[Split, Split]:
    """Training and validation examples.

    Validation is the last fifth of the training rows, which is what Keras' `validation_split=0.2`
    takes: 12,000 of 60,000.

    Args:
        contents: Content by file name.
        dataset: What they hold.
        limit_train: Keep only the first rows of the training part.

    Raises:
        InputError: `limit_train` is more than there is.
    """
    rows = rows_of(contents, dataset.train_files)
    count = len(rows) * 4 // 5
    if limit_train is not None and limit_train > count:
        raise InputError("--limit-train", limit_train, f"there are {count:,} training rows")
    kept = limit_train or count
    return (
        Split(rows.images[:kept], rows.labels[:kept]),
        Split(rows.images[count:], rows.labels[count:]),
    )


def test_split(contents: dict[str, bytes], dataset: Dataset) -> Split:
    """The test examples; a training run reads them once, when it has finished."""
    return rows_of(contents, dataset.test_files)


# pytest collects functions named test_* in modules it imports from.
test_split.__test__ = False  # type: ignore[attr-defined]  # functions take any
