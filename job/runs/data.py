"""What a run is trained on: kept with it, and the same until it is done."""

from __future__ import annotations

from job.data.catalogue import CATALOGUE, Dataset
from job.data.convert import Conversion
from job.data.examples import Examples, check_same, open_examples
from job.errors import JobError
from job.runs.run import DATA_FILE, Run
from job.storage.base import QUICK_SECONDS, Storage
from job.storage.documents import read_document, to_json
from job.waiting import waiting


@waiting("the data set to be read and verified")
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
    asked = Conversion.of(run.config)
    examples = open_examples(run.config.dataset, place, asked, patience=patience)
    if run.config.dataset in CATALOGUE or run.folder.is_new or DATA_FILE not in run.storage.list():
        return examples
    check_same(examples.dataset, dataset_of(run), place, f"run {run.name!r}")
    return examples


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
