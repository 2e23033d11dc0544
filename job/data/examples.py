"""The examples of a run: which data set, from where, and the same one until the run is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from job.data.catalogue import CATALOGUE, Dataset, Split, rows_of, test_split, training_splits
from job.data.dataset_json import DOCUMENT
from job.data.parquet import read_dataset, write_dataset
from job.data.sources import obtain
from job.errors import InputError, JobError
from job.runs.run import DATA_FILE, Run, read_document, to_json
from job.storage.base import QUICK_SECONDS, Storage, open_storage


class Examples(NamedTuple):
    """A data set with its verified bytes, by file name."""

    dataset: Dataset
    contents: dict[str, bytes]

    def training(self, limit_train: int | None = None) -> tuple[Split, Split]:
        """Training and validation examples, as `training_splits`."""
        return training_splits(self.contents, self.dataset, limit_train)

    def test(self) -> Split:
        """The test examples, as `test_split`."""
        return test_split(self.contents, self.dataset)


def open_examples(
    name: str, data: str | None = None, *, patience: float = QUICK_SECONDS
) -> Examples:
    """Gets a data set.

    Args:
        name: A key of the catalogue, or `own`.
        data: An explicit place, as `--data` names it; `own` needs one.
        patience: Seconds for which an object store may fail to answer.

    Raises:
        InputError: The place does not hold the data set.
        JobError: No source has it.
    """
    if name in CATALOGUE:
        return Examples(CATALOGUE[name], obtain(name, data, patience=patience))
    if data is None:
        raise InputError(
            "--dataset", name, f"needs --data, a folder or s3://BUCKET/PREFIX with {DOCUMENT}"
        )
    found = read_dataset(data, patience=patience)
    if found is None:
        raise InputError("--data", data, f"holds no {DOCUMENT}; docs/data.md says how to make one")
    return Examples(*found)


def examples_of(run: Run, data: str | None = None, *, patience: float = QUICK_SECONDS) -> Examples:
    """The examples of a run.

    Args:
        run: The run.
        data: Where to get them instead of where its settings say.
        patience: As for `open_examples`.

    Raises:
        InputError, JobError: As `open_examples`; and where they are not those that the run was
            started with, which only a user's own set can bring about.
    """
    place = data or run.config.data
    examples = open_examples(run.config.dataset, place, patience=patience)
    if run.config.dataset in CATALOGUE or run.is_new or DATA_FILE not in run.storage.list():
        return examples
    check_same(examples.dataset, dataset_of(run), place, f"run {run.config.name!r}")
    return examples


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


def keep_dataset(folder: Storage, dataset: Dataset) -> None:
    """Keeps in a run's folder what it is trained on."""
    folder.write(DATA_FILE, to_json(dataset.to_dict()))


def kept_dataset(folder: Storage) -> Dataset:
    """What `keep_dataset` kept.

    Raises:
        FileNotFoundError: There is no such file.
        JobError: It can't be trusted.
    """
    try:
        return Dataset.from_dict(read_document(folder, DATA_FILE))
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{folder.uri}/{DATA_FILE} can't be trusted: {error}") from error


def dataset_of(run: Run) -> Dataset:
    """What a run is trained on. Raises JobError where that can't be told."""
    try:
        return kept_dataset(run.storage)
    except FileNotFoundError:
        # A run of an earlier version, which knew the catalogue only.
        if run.config.dataset in CATALOGUE:
            return CATALOGUE[run.config.dataset]
        raise JobError(f"{run.storage.uri}/{DATA_FILE} is missing") from None


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
    try:
        root = open_storage(destination)
        root.probe()
    except InputError as error:
        raise InputError("DEST", error.value, error.problem) from error
    for examples in [open_examples(name, data) for name in names]:
        dataset = examples.dataset
        train = rows_of(examples.contents, dataset.train_files)
        write_dataset(root.at(dataset.name), dataset.name, dataset.labels, train, examples.test())
        yield dataset.name, root.at(dataset.name).uri
