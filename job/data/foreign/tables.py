"""Tables: CSV of a label and pixels as on Kaggle, and Parquet of Hugging Face's `datasets`."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from job.data.foreign.rows import (
    MOST_BYTES,
    Format,
    Parts,
    Rows,
    decoded,
    part_of,
    resized,
    stacked,
)
from job.storage.base import Storage

if TYPE_CHECKING:
    import pyarrow as pa


def _csv_takes(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path.lower().endswith(".csv")]


def _csv_read(storage: Storage, paths: Sequence[str], size: tuple[int, int] | None) -> Parts:
    parts: dict[str, list[Rows]] = {}
    for path in sorted(paths):
        rows = _of_csv(path, storage.read(path, limit=MOST_BYTES), size)
        if rows:
            parts.setdefault(part_of(path), []).append(rows)
    return _joined(parts)


def _of_csv(path: str, content: bytes, size: tuple[int, int] | None) -> Rows | None:
    """The rows of a file; None where it has no labels, as the test part of a competition."""
    table, label = _table_of_csv(path, content)
    if label is None:
        return None
    images = _images(path, table, label, size, "; give --image-size HxW")
    if size is not None:
        images = np.stack([resized(image, size) for image in images])
    return Rows(images, _labels(path, table.column(label)))


def pictures_of_csv(path: str, content: bytes, size: tuple[int, int]) -> np.ndarray:
    """Pictures of a file, uint8 (n, height, width, 1), whether or not it has labels.

    They are squares, or have the size (height, width) if that many pixels are there. Raises
    ValueError for anything else.
    """
    return _images(path, *_table_of_csv(path, content), size)


def _table_of_csv(path: str, content: bytes) -> tuple[pa.Table, str | None]:
    """A file, and its column of labels, if it has one."""
    import pyarrow as pa
    import pyarrow.csv

    has_names = not content[:1].isdigit()
    options = pa.csv.ReadOptions(autogenerate_column_names=not has_names, use_threads=False)
    try:
        table = pa.csv.read_csv(io.BytesIO(content), read_options=options)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path} is no table ({error})") from None
    names = table.column_names
    label = next((name for name in names if name.lower() in ("label", "class")), None)
    return table, label if has_names else names[0]


def _images(
    path: str, table: pa.Table, label: str | None, size: tuple[int, int] | None, hint: str = ""
) -> np.ndarray:
    pixels = table if label is None else table.drop_columns([label])
    side = math.isqrt(pixels.num_columns)
    shape = (side, side)
    if size is not None and math.prod(size) == pixels.num_columns:
        shape = size
    elif side**2 != pixels.num_columns:
        raise ValueError(
            f"{path} has {pixels.num_columns} columns of pixels, which is no square{hint}"
        )
    values = np.empty((len(table), pixels.num_columns), np.uint8)
    for index, name in enumerate(pixels.column_names):
        values[:, index] = _pixels(f"{path}:", name, pixels.column(name).to_numpy())
    return values.reshape(-1, *shape, 1)


def _pixels(where: str, name: str, column: np.ndarray) -> np.ndarray:
    """A column of a table as uint8."""
    if column.dtype.kind in "uif":
        is_pixel = (column >= 0) & (column <= 255) & (column == np.floor(column))
    else:
        is_pixel = np.array([str(value).isdigit() for value in column], bool)
    bad = np.flatnonzero(~is_pixel)
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"{where} row {row + 1:,} has {column[row]} for {name}; a pixel is a whole number from "
            "0 to 255"
        )
    return column.astype(np.uint8)


def _parquet_takes(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path.lower().endswith(".parquet")]


def _parquet_read(storage: Storage, paths: Sequence[str], size: tuple[int, int] | None) -> Parts:
    parts: dict[str, list[Rows]] = {}
    for path in sorted(paths):
        rows = _of_parquet(path, storage.read(path, limit=MOST_BYTES), size)
        parts.setdefault(part_of(path), []).append(rows)
    return _joined(parts)


def table_of_parquet(path: str, content: bytes) -> pa.Table:
    """All of a Parquet file. Raises ValueError for anything else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # As in job/data/readers/parquet.py.
        return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a whole Parquet file ({error})") from None


def image_column(table: pa.Table) -> str | None:
    """The column with the pictures."""
    names = {name.lower(): name for name in table.column_names}
    return next((names[name] for name in ("image", "img") if name in names), None)


def _of_parquet(path: str, content: bytes, size: tuple[int, int] | None) -> Rows:
    table = table_of_parquet(path, content)
    names = {name.lower(): name for name in table.column_names}
    image = image_column(table)
    label = next((names[name] for name in ("label", "fine_label", "labels") if name in names), None)
    if image is None or label is None:
        raise ValueError(
            f"{path} has columns {', '.join(table.column_names)}; image and label are needed"
        )

    def pictures() -> Iterable[tuple[str, np.ndarray]]:
        for row, value in enumerate(table.column(image).to_pylist()):
            name = f"{path}: row {row + 1:,}"
            try:
                yield name, decoded(bytes_of(value), size)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None

    labels, given = _labels(path, table.column(label)), _names_of(table, label)
    if given and not (labels.dtype.kind in "ui" and 0 <= labels.min() <= labels.max() < len(given)):
        raise ValueError(f"{path} has labels beyond the {len(given)} that its metadata name")
    return Rows(stacked(pictures()), labels, given)


def _names_of(table: pa.Table, label: str) -> tuple[str, ...]:
    """The names that Hugging Face's `ClassLabel` keeps in the metadata, if they are there.

    https://huggingface.co/docs/datasets/package_reference/main_classes#datasets.ClassLabel
    """
    try:
        kept = json.loads((table.schema.metadata or {})[b"huggingface"])
        names = kept["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def bytes_of(value: Any) -> bytes:
    """The file in a cell: bytes, or a struct of bytes and path."""
    found = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(found, bytes):
        raise ValueError("holds no picture, which belongs into its column image as bytes")
    return found


def _labels(path: str, column: Any) -> np.ndarray:
    values = column.to_numpy()
    if column.null_count or values.dtype.kind not in "uiOU":
        raise ValueError(f"{path}: a label is missing, or no whole number and no name")
    return values.astype(str) if values.dtype.kind == "O" else values


def _joined(parts: dict[str, list[Rows]]) -> Parts:
    return {part: _of_all(found) for part, found in parts.items()}


def _of_all(found: Sequence[Rows]) -> Rows:
    images, labels, names = zip(*found, strict=True)
    if len(set(names)) > 1:
        raise ValueError("names its labels otherwise in each file")
    return Rows(np.concatenate(images), np.concatenate(labels), names[0])


CSV = Format("CSV of pixels", _csv_takes, _csv_read)
PARQUET = Format("Parquet of pictures", _parquet_takes, _parquet_read)
