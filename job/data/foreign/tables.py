"""Tables: CSV of a label and pixels as on Kaggle, and Parquet of Hugging Face's `datasets`."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

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
    if label is None:
        if has_names:
            return None
        label = names[0]
    pixels = table.drop_columns([label])
    side = math.isqrt(pixels.num_columns)
    if side**2 != pixels.num_columns:
        raise ValueError(f"{path} has {pixels.num_columns} columns of pixels, which is no square")
    values = np.empty((len(table), pixels.num_columns), np.uint8)
    for index, name in enumerate(pixels.column_names):
        values[:, index] = _pixels(f"{path}:", name, pixels.column(name).to_numpy())
    images = values.reshape(-1, side, side, 1)
    if size is not None:
        images = np.stack([resized(image, size) for image in images])
    return Rows(images, _labels(path, table.column(label)))


def _pixels(where: str, name: str, column: np.ndarray) -> np.ndarray:
    """A column of a table as uint8."""
    if column.dtype.kind in "uif":
        is_pixel = (column >= 0) & (column <= 255) & (column == np.floor(column))
    else:
        is_pixel = np.array([str(value).isdigit() for value in column])
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


def _of_parquet(path: str, content: bytes, size: tuple[int, int] | None) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # As in job/data/readers/parquet.py.
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a whole Parquet file ({error})") from None
    names = {name.lower(): name for name in table.column_names}
    image = next((names[name] for name in ("image", "img") if name in names), None)
    label = next((names[name] for name in ("label", "fine_label", "labels") if name in names), None)
    if image is None or label is None:
        raise ValueError(
            f"{path} has columns {', '.join(table.column_names)}; image and label are needed"
        )

    def pictures() -> Iterable[tuple[str, np.ndarray]]:
        for row, value in enumerate(table.column(image).to_pylist()):
            name = f"{path}: row {row + 1:,}"
            try:
                yield name, decoded(_bytes_of(value), size)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None

    return Rows(stacked(pictures()), _labels(path, table.column(label)))


def _bytes_of(value: Any) -> bytes:
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
    return {
        part: Rows(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))
        for part, found in parts.items()
    }


CSV = Format("CSV of pixels", _csv_takes, _csv_read)
PARQUET = Format("Parquet of pictures", _parquet_takes, _parquet_read)
