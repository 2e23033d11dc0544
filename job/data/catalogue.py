"""The data sets: a catalogue with pinned hashes, and what is known of a set without its bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from job.data.files import (
    Contents,
    DataFile,
    ImageShape,
    Reader,
    Split,
    check_image_shape,
    check_validation_rows,
)
from job.data.readers import cifar, idx


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """What is known of a data set without its bytes: a user's own, or one of the catalogue.

    Attributes:
        name: Of the set.
        files: What it is made of, those that test last.
        labels: Their names; label 0 is the first.
        is_digits: Whether its pictures are digits as MNIST has them.
        validation_rows: So many of the training rows, the last, validate; None for the last fifth,
            which is what Keras' `validation_split=0.2` takes.
    """

    name: str
    files: tuple[DataFile, ...]
    labels: tuple[str, ...]
    is_digits: bool
    validation_rows: int | None = None

    @property
    def reader(self) -> Reader:
        """What reads its files."""
        return cifar if self.files[0].is_batch else idx

    @property
    def train_files(self) -> tuple[DataFile, ...]:
        """IDX images and labels, or batches."""
        return self.files[: -self.reader.TEST_FILES]

    @property
    def test_files(self) -> tuple[DataFile, ...]:
        """IDX images and labels, or one batch."""
        return self.files[-self.reader.TEST_FILES :]

    @property
    def train_rows(self) -> int:
        """Rows of the training files, those for validation included."""
        return _rows(self.train_files)

    @property
    def first_validation_row(self) -> int:
        """The training rows from here on validate."""
        if self.validation_rows is None:
            return self.train_rows * 4 // 5
        return self.train_rows - self.validation_rows

    @property
    def validated(self) -> str:
        """Which rows validate, in words."""
        if self.validation_rows is None:
            return "the last fifth of the training files"
        return f"the last {self.validation_rows:,} rows of the training files"

    @property
    def test_rows(self) -> int:
        """How many examples the test files hold."""
        return _rows(self.test_files)

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels."""
        return self.reader.image_shape(self.files)

    def validating(self, share: float | None) -> Dataset:
        """The same, of which that share of the training rows validates; None for its own rule."""
        if share is None:
            return self
        return dataclasses.replace(self, validation_rows=max(1, round(self.train_rows * share)))

    def read(self, folder: Path) -> Contents:
        """Its verified contents from a folder. Raises as `Reader.read`."""
        return self.reader.read(folder, self.name, self.files)

    def decode(self, contents: Contents, files: Sequence[DataFile]) -> Split:
        """All examples of `train_files` or of `test_files`."""
        return self.reader.decode(contents, files)

    def encode(self, train: Split, test: Split) -> Contents:
        """The inverse of `decode` for all files, not yet held to their hashes."""
        encode = self.reader.encode
        return {**encode(train, self.train_files), **encode(test, self.test_files)}

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads: all fields, each file as its name, SHA-256 and shape.

        A rule of division is left out where it is the usual one, as earlier versions did.
        """
        document = dataclasses.asdict(self) | {"files": [file._asdict() for file in self.files]}
        if self.validation_rows is None:
            del document["validation_rows"]
        return document

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
        check_validation_rows(document.get("validation_rows"), dataset.train_rows)
        return dataclasses.replace(dataset, validation_rows=document.get("validation_rows"))


def _rows(files: Sequence[DataFile]) -> int:
    """Of the files that hold images; labels in files of their own have one axis."""
    return sum(file.shape[0] for file in files if len(file.shape) > 1)


CATALOGUE = {
    "mnist": Dataset(
        name="mnist",
        files=idx.files_of(
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
        files=idx.files_of(
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
