"""The three parts of a data set: training, validation and test."""

from __future__ import annotations

import numpy as np

from job.data.catalogue import Dataset
from job.data.files import Contents, Split
from job.errors import InputError


def training_splits(
    contents: Contents, dataset: Dataset, limit_train: int | None = None
) -> tuple[Split, Split]:
    """Training and validation examples.

    Validation is the end of the training rows, from `Dataset.first_validation_row` on: 12,000 of
    MNIST's 60,000.

    Args:
        contents: Content by file name.
        dataset: What they hold.
        limit_train: Keep only the first rows of the training part.

    Raises:
        InputError: `limit_train` is more than there is.
    """
    rows = dataset.decode(contents, dataset.train_files)
    count = dataset.first_validation_row
    if limit_train is not None and limit_train > count:
        raise InputError("--limit-train", limit_train, f"there are {count:,} training rows")
    kept = limit_train or count
    return (
        Split(rows.images[:kept], rows.labels[:kept]),
        Split(rows.images[count:], rows.labels[count:]),
    )


def check_classes(contents: Contents, dataset: Dataset, place: str | None) -> None:
    """Raises InputError for a label that training or validation would never see.

    So it is where the rows are sorted by label: those that validate are of one class.

    Args:
        contents: Content by file name.
        dataset: What they hold.
        place: Where they are from, for the message.
    """
    parts = training_splits(contents, dataset)
    for aim, split in zip(("training", "validation"), parts, strict=True):
        counts = np.bincount(split.labels, minlength=len(dataset.labels))
        missing = [name for name, count in zip(dataset.labels, counts, strict=True) if not count]
        if missing:
            raise InputError(
                "--data",
                place,
                f"label {missing[0]!r} has no row for {aim}; validation takes {dataset.validated}: "
                "write the rows in a random order",
            )


def test_split(contents: Contents, dataset: Dataset) -> Split:
    """The test examples; a training run reads them once, when it has finished."""
    return dataset.decode(contents, dataset.test_files)


# pytest collects functions named test_* in modules it imports from.
test_split.__test__ = False  # type: ignore[attr-defined]  # functions take any
