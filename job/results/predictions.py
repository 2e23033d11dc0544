"""What a model answered: for each test example, kept with its result, or for a user's pictures.

    test_predictions.parquet    columns `label` and `predicted`, uint8, in the order of the test set

So models can be compared example by example (`lenet compare`) without another look at the test set.
pyarrow is imported where the file is met.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from job.data.readers.dataset_json import MAX_ROWS
from job.errors import InputError
from job.reasons import text_of
from job.storage.base import Storage

PREDICTIONS_FILE = "test_predictions.parquet"
TABLES = (".parquet", ".csv", ".json")
# What a table's name ends with until it is whole.
NEW = ".new"
COLUMNS = ("label", "predicted")
MAX_BYTES = 2 * MAX_ROWS + (1 << 16)


class Predictions(NamedTuple):
    """True and predicted labels, whole numbers (n,) below 256."""

    labels: np.ndarray
    predicted: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether each is right, bool (n,)."""
        return self.labels == self.predicted

    @property
    def accuracy(self) -> float:
        """The share that is right, from 0 to 1."""
        return float(self.right.mean())


def write_predictions(folder: Storage, predictions: Predictions) -> None:
    """Keeps predictions in a run's folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array(column.astype(np.uint8)) for column in predictions]
    stream = io.BytesIO()
    pq.write_table(pa.table(columns, COLUMNS), stream)
    folder.write(PREDICTIONS_FILE, stream.getvalue())


def check_table(out: str) -> None:
    """Raises InputError for a file that `write_table` would not write."""
    if Path(out).suffix.lower() not in TABLES:
        raise InputError("--out", out, f"give a file that ends in {', '.join(TABLES)}")
    beside = Path(out + NEW)
    try:
        if Path(out).exists():
            raise InputError("--out", out, "is there already; name another file")
        if not Path(out).parent.is_dir():
            raise InputError("--out", out, "its folder is not there; make it first")
        beside.touch()
        beside.unlink()
    except OSError as error:
        raise InputError(
            "--out", out, f"can't be written ({text_of(error)}); name another file"
        ) from error


def write_table(
    out: str,
    sources: Sequence[tuple[str, int | None]],
    probabilities: np.ndarray,
    labels: Sequence[str],
) -> None:
    """Writes predictions as a table that is seen whole or not at all.

    Args:
        out: A file, as `check_table` takes it.
        sources: Of each example, the file, and of a table the row, from 0.
        probabilities: float32 (n, classes).
        labels: Names of the classes.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table = pa.table(
        {
            "source": pa.array([path for path, _ in sources], pa.string()),
            "row": pa.array([row or 0 for _, row in sources], pa.int64()),
            "prediction": pa.array([labels[i] for i in probabilities.argmax(axis=1)]),
            **{
                f"p_{label}": pa.array(column)
                for label, column in zip(labels, probabilities.T, strict=True)
            },
        }
    )
    beside = out + NEW
    match Path(out).suffix.lower():
        case ".parquet":
            pyarrow.parquet.write_table(table, beside)
        case ".csv":
            pyarrow.csv.write_csv(table, beside)
        case _:
            Path(beside).write_text(json.dumps(table.to_pylist(), indent=1) + "\n")
    os.replace(beside, out)


def read_predictions(folder: Storage) -> Predictions:
    """Reads what `write_predictions` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = folder.read(PREDICTIONS_FILE, limit=MAX_BYTES)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        found = [(field.name, field.type) for field in file.schema_arrow]
        rows = file.metadata.num_rows
        # Before anything is unpacked: these bound what it unpacks to.
        if found != [(name, pa.uint8()) for name in COLUMNS] or not 0 < rows <= MAX_ROWS:
            raise ValueError(f"has {rows:,} rows of {', '.join(f'{n} {t}' for n, t in found)}")
        # As in job/data/readers/parquet.py.
        table = file.read(use_threads=False)
        table.validate(full=True)
        columns = [column.to_numpy() for column in table.columns]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"is not a whole Parquet file ({error})") from None
    if any(column.dtype != np.uint8 for column in columns):
        raise ValueError("has empty cells")
    return Predictions(*columns)
