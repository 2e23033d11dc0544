"""The three parts of a data set: training, validation and test."""

from __future__ import annotations

from job.data.catalogue import Dataset
from job.data.files import Contents, Split
from job.errors import InputError


def training_splits(
    contents: Contents, dataset: Dataset, limit_train: int | None = None
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
    rows = dataset.decode(contents, dataset.train_files)
    count = len(rows) * 4 // 5
    if limit_train is not None and limit_train > count:
        raise InputError("--limit-train", limit_train, f"there are {count:,} training rows")
    kept = limit_train or count
    return (
        Split(rows.images[:kept], rows.labels[:kept]),
        Split(rows.images[count:], rows.labels[count:]),
    )


def test_split(contents: Contents, dataset: Dataset) -> Split:
    """The test examples; a training run reads them once, when it has finished."""
    return dataset.decode(contents, dataset.test_files)


# pytest collects functions named test_* in modules it imports from.
test_split.__test__ = False  # type: ignore[attr-defined]  # functions take any
