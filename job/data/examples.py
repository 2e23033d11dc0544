"""The examples of a run: which data set, from where, and the same one until the run is done."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from job.data.catalogue import CATALOGUE, Dataset
from job.data.convert import AS_IT_IS, Conversion, convert, recognise
from job.data.files import Contents, OwnData, Split
from job.data.foreign.arrays import ARRAYS
from job.data.foreign.idx_files import IDX
from job.data.readers import idx
from job.data.readers.dataset_json import DOCUMENT
from job.data.readers.parquet import let_go, read_dataset, write_dataset
from job.data.sources import obtain
from job.data.splits import check_classes, test_split, training_splits
from job.errors import InputError
from job.storage.base import QUICK_SECONDS, Storage
from job.storage.open import open_storage

OWN = "own"
# Kinds of files as which MNIST is published.
PUBLISHED = (IDX.title, ARRAYS.title)


class Examples(NamedTuple):
    """A data set with its verified bytes, by file name; of a converted one what was done."""

    dataset: Dataset
    contents: Contents
    description: str = ""

    def training(self, limit_train: int | None = None) -> tuple[Split, Split]:
        """Training and validation examples, as `training_splits`."""
        return training_splits(self.contents, self.dataset, limit_train)

    def check_classes(self, place: str | None) -> None:
        """As `check_classes`, of a set that is not published, from this place."""
        if self.dataset.name not in CATALOGUE:
            check_classes(self.contents, self.dataset, place)

    def test(self) -> Split:
        """The test examples, as `test_split`."""
        return test_split(self.contents, self.dataset)


def open_examples(
    name: str,
    data: str | None = None,
    asked: Conversion = AS_IT_IS,
    *,
    patience: float = QUICK_SECONDS,
) -> Examples:
    """Gets a data set.

    Args:
        name: A key of the catalogue, or `own`.
        data: An explicit place, as `--data` names it; `own` needs one.
        asked: What is to be done with a set that is converted; of a published one only how
            much of it validates can be asked.
        patience: Seconds for which an object store may fail to answer.

    Raises:
        InputError: The place does not hold the data set.
        JobError: No source has it.
    """
    if name in CATALOGUE:
        _check_no_size_asked(asked)
        dataset = CATALOGUE[name].validating(asked.validation)
        try:
            return Examples(dataset, obtain(name, data, patience=patience))
        except InputError as error:
            raise InputError(error.field, error.value, error.problem + _hint(data)) from error
    if data is None:
        raise InputError(
            "--dataset", name, f"needs --data, a folder or s3://BUCKET/PREFIX with {DOCUMENT}"
        )
    if not recognise(data):
        found = read_dataset(data, patience=patience)
        if found is None:
            raise InputError(
                "--data", data, f"holds no {DOCUMENT}; docs/data.md says how to make one"
            )
        _check_no_size_asked(asked)
        if asked.validation is not None:
            raise InputError(
                "--validation",
                asked.validation,
                f"is for pictures that are converted, and for published sets; {DOCUMENT} says how "
                "many rows validate",
            )
        examples = _as_published(found)
        del found
        let_go()
        return examples
    made = convert(data, asked)
    name = PurePosixPath(data.rstrip("/")).stem or OWN
    own = OwnData(name, made.labels, made.train, made.test, made.validation_rows)
    return _as_published(own)._replace(description=made.description)


def _check_no_size_asked(asked: Conversion) -> None:
    if asked.size is not None:
        size = "{}x{}".format(*asked.size)
        raise InputError("--image-size", size, "is for pictures that are converted; leave it out")


def dataset_at(place: str) -> str | None:
    """The data set that is meant where a place is given and no name.

    `own` where the place holds files of a kind that only a user's own set has; None, for the usual
    one, elsewhere: damaged files of MNIST must not become another set.
    """
    kind = recognise(place)
    return None if kind is None or kind.title in PUBLISHED else OWN


def _hint(place: str | None) -> str:
    """What to do with files of another kind, where a place is of one."""
    kind = recognise(place) if place else None
    if kind is None:
        return ""
    return f"; it holds {kind.title}, which --dataset own takes"


def _as_published(own: OwnData) -> Examples:
    """A user's own set as if published as IDX: all further checks and splits are those of MNIST."""
    rows = {"train": len(own.train), "test": len(own.test)}
    files = idx.files_of(*4 * [""], **rows, image_shape=own.image_shape)
    dataset = Dataset(
        name=own.name,
        files=files,
        labels=own.labels,
        is_digits=False,
        validation_rows=own.validation_rows,
    )
    contents = dataset.encode(own.train, own.test)
    files = tuple(f._replace(sha256=hashlib.sha256(contents[f.name]).hexdigest()) for f in files)
    return Examples(dataclasses.replace(dataset, files=files), contents)


def check_same(found: Dataset, begun: Dataset, place: str | None, what: str) -> None:
    """Raises InputError where a data set is not the one that something was started with."""
    if found != begun:
        pairs = zip(found.files, begun.files, strict=True)
        other = [now.name for now, then in pairs if now != then] or ["the names"]
        raise InputError(
            "--data",
            place,
            f"is not the data set that {what} was started with (other: {', '.join(other)}); "
            "name that one, or start another",
        )


def stage(
    destination: str, names: Sequence[str], data: str | None = None
) -> Iterator[tuple[str, str]]:
    """Writes data sets of the catalogue as Parquet, each below its name.

    Args:
        destination: A folder, or `s3://BUCKET/PREFIX`.
        names: Keys of the catalogue.
        data: Where to get them instead of the cache or the net.

    Yields:
        Each name with the place where it is now.

    Raises:
        InputError: The destination can't be written; nothing was.
        JobError: No source has a data set; nothing was written.
    """
    root = _writable(destination)
    for examples in [open_examples(name, data) for name in names]:
        dataset = examples.dataset
        train = dataset.decode(examples.contents, dataset.train_files)
        write_dataset(root.at(dataset.name), dataset.name, dataset.labels, train, examples.test())
        yield dataset.name, root.at(dataset.name).uri


def stage_own(
    destination: str, place: str, name: str, asked: Conversion = AS_IT_IS
) -> tuple[str, str]:
    """Makes a data set of what people have, as Parquet below its name.

    Args:
        destination: A folder, or `s3://BUCKET/PREFIX`.
        place: As `convert` has it.
        name: What to call it.
        asked: What is to be done with it.

    Returns:
        What was found and done, and where the data set is now.

    Raises:
        InputError: Something is unusable, or the destination can't be written; nothing was.
    """
    root = _writable(destination)
    made = convert(place, asked)
    parts = made.train, made.test, made.validation_rows
    write_dataset(root.at(name), name, made.labels, *parts)
    return made.description, root.at(name).uri


def _writable(destination: str) -> Storage:
    try:
        root = open_storage(destination)
        root.probe()
    except InputError as error:
        raise InputError("DEST", error.value, error.problem) from error
    return root
