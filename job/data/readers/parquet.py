"""Data sets as Parquet, in a local folder or in object storage (docs/data.md).

    train.parquet, test.parquet   columns `image` fixed_size_binary(784) and `label` uint8
    dataset.json                  name, labels, shape of an image, and size, SHA-256 and rows of
                                  both files; written last: its presence makes the set visible

pyarrow, which takes most of a second to import, is imported where Parquet is met.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from job.data.cache import fetch_once
from job.data.files import (
    ImageShape,
    OwnData,
    Split,
    check_image_shape,
    check_validation_rows,
)
from job.data.readers.dataset_json import (
    DOCUMENT,
    MAX_DOCUMENT_BYTES,
    MAX_ROWS,
    PARTS,
    Document,
    FileEntry,
    check_names,
    parse,
    shown,
)
from job.errors import InputError
from job.storage.base import QUICK_SECONDS, Storage, StoreError
from job.storage.open import open_storage

if TYPE_CHECKING:
    import pyarrow as pa

# The fewest that leave something to train and to validate, and to test.
MIN_ROWS = {"train.parquet": 2, "test.parquet": 1}


def write_dataset(
    destination: Storage,
    name: str,
    labels: Sequence[str],
    train: Split,
    test: Split,
    validation_rows: int | None = None,
) -> None:
    """Writes a data set. Equal examples become equal files.

    Args:
        destination: Where, as `job.storage.open.open_storage` gives it. A set that is there is
            replaced.
        name: 1 to 100 letters, digits, `.`, `_` or `-`.
        labels: 2 to 256 label names; label 0 is the first.
        train: Images uint8 (n, height, width) or (n, height, width, channels), of 20 to 128 pixels
            a side and 1 channel or 3, and whole-numbered labels (n,).
        test: The same, with images of the same shape.
        validation_rows: So many of `train`, the last, validate; the last fifth by default.

    Raises:
        InputError: Something is unusable; the message names the file and the column. Nothing was
            written.
    """
    try:
        check_names(name, labels)
        shape = tuple(int(n) for n in (*np.shape(train.images)[1:], 1)[:3])
        image_shape = check_image_shape(shape)
        check_validation_rows(validation_rows, len(train))
        encoded = {
            part: _encoded(part, split, name, labels, image_shape)
            for part, split in zip(PARTS, (train, test), strict=True)
        }
    except ValueError as error:
        raise InputError("data set", name, str(error)) from error
    entries = {
        part: FileEntry(len(content), hashlib.sha256(content).hexdigest(), len(split))
        for (part, content), split in zip(encoded.items(), (train, test), strict=True)
    }
    names = tuple(labels)
    document = Document(name, names, entries, image_shape, validation_rows).to_json()
    if not _holds(destination, document):
        # Beside another set's document, the new files would look damaged.
        destination.delete(DOCUMENT)
    for part, content in encoded.items():
        destination.write(part, content)
    destination.write(DOCUMENT, document)


def read_dataset(data: str, *, patience: float = QUICK_SECONDS) -> OwnData | None:
    """Reads and checks a data set.

    From object storage, each file is fetched once for all processes of a machine.

    Args:
        data: A local folder, or `s3://BUCKET/PREFIX`.
        patience: Seconds for which an object store may fail to answer.

    Returns:
        The data set; None for a local folder without `dataset.json`.

    Raises:
        InputError: It is not whole, or not such a data set; the message names the file.
    """
    try:
        source = open_storage(data, patience=patience)
    except InputError as error:
        raise InputError("--data", error.value, error.problem) from error
    try:
        content = _document_at(source)
        if content is None:
            if source.is_remote:
                raise ValueError(f"holds no {DOCUMENT}; `lenet data stage` writes one")
            return None
        document = parse(content)
        train, test = (
            _decoded(part, _fetched(source, part, document.files[part]), document) for part in PARTS
        )
    except (OSError, ValueError, StoreError) as error:
        raise InputError("--data", source.uri, " ".join(str(error).split())) from error
    return OwnData(document.name, document.labels, train, test, document.validation_rows)


def let_go() -> None:
    """Gives back the memory of data sets that were read and are gone, which Arrow would keep."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def _holds(destination: Storage, document: bytes) -> bool:
    try:
        return destination.read(DOCUMENT, limit=len(document)) == document
    except (FileNotFoundError, ValueError):
        # None, or a longer one.
        return False


def _document_at(source: Storage) -> bytes | None:
    try:
        return source.read(DOCUMENT, limit=MAX_DOCUMENT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _check_rows(part: str, rows: int) -> None:
    if not MIN_ROWS[part] <= rows <= MAX_ROWS:
        raise ValueError(f"{part} has {rows:,} rows; give {MIN_ROWS[part]} to {MAX_ROWS:,}")


def _check_labels(part: str, values: np.ndarray, count: int) -> None:
    bad = np.flatnonzero((values < 0) | (values >= count))
    if len(bad):
        raise ValueError(
            f"{part}: column label holds {values[bad[0]]} in row {bad[0]:,} (from 0); "
            f"there are {count} labels, 0 to {count - 1}"
        )


def _encoded(
    part: str,
    split: Split,
    name: str,
    labels: Sequence[str],
    image_shape: ImageShape,
) -> bytes:
    """A split as a Parquet file, a pure function of the arguments and pyarrow's version."""
    images, values = (np.asarray(array) for array in split)
    if values.dtype.kind not in "ui" or values.ndim != 1:
        raise ValueError(
            f"{part}: column label is made of {values.dtype} {values.shape}, "
            "expected one whole number for each image"
        )
    rows = len(values)
    _check_rows(part, rows)
    height, width, channels = image_shape
    plain = (rows, height, width) if channels == 1 else (rows, *image_shape)
    if images.dtype != np.uint8 or images.shape not in (plain, (rows, *image_shape)):
        raise ValueError(
            f"{part}: column image is made of {images.dtype} {images.shape}, "
            f"expected uint8 {plain}, as there are {rows} labels"
        )
    _check_labels(part, values, len(labels))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pixels, numbers = images.tobytes(), values.astype(np.uint8)
    metadata = {
        **_names(name, labels),
        "lenet.image_sha256": hashlib.sha256(pixels).hexdigest(),
        "lenet.label_sha256": hashlib.sha256(numbers.data).hexdigest(),
    }
    image = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(prod(image_shape)), rows, [None, pa.py_buffer(pixels)]
    )
    fields = [pa.field("image", image.type, False), pa.field("label", pa.uint8(), False)]
    table = pa.table([image, pa.array(numbers)], schema=pa.schema(fields, metadata))
    stream = io.BytesIO()
    # Neither helps with pixels; statistics would keep whole images in the footer.
    pq.write_table(table, stream, compression="zstd", use_dictionary=False, write_statistics=False)
    return stream.getvalue()


def _fetched(source: Storage, part: str, entry: FileEntry) -> bytes:
    def fetch() -> bytes:
        try:
            content = source.read(part, limit=entry.size)
        except FileNotFoundError:
            raise ValueError(f"{part} is missing") from None
        except ValueError as error:
            raise ValueError(f"{error}, the size in {DOCUMENT}") from None
        if len(content) != entry.size:
            raise ValueError(f"{part} has {len(content):,} bytes, {DOCUMENT} says {entry.size:,}")
        digest = hashlib.sha256(content).hexdigest()
        if digest != entry.sha256:
            raise ValueError(
                f"{part}: SHA-256 is {digest[:16]}…, {DOCUMENT} says {entry.sha256[:16]}…"
            )
        return content

    return fetch_once(entry.sha256, entry.size, fetch) if source.is_remote else fetch()


def _decoded(part: str, content: bytes, document: Document) -> Split:
    """The examples of a Parquet file, labels as uint8.

    Raises:
        ValueError: It is none, or not one of such a data set.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        rows, schema = file.metadata.num_rows, file.schema_arrow
        # Before anything is unpacked: these bound what it unpacks to.
        _check_rows(part, rows)
        if rows != document.files[part].rows:
            raise ValueError(
                f"{part} has {rows:,} rows, {DOCUMENT} says {document.files[part].rows:,}"
            )
        pixels = prod(document.image_shape)
        for column, kind in (("image", pa.binary(pixels)), ("label", pa.uint8())):
            found = [field.type for field in schema if field.name == column]
            if found != [kind]:
                what = ", ".join(map(str, found)) or "missing"
                raise ValueError(f"{part}: column {column} is {what}, expected {kind}")
        # In this thread: one of Arrow's that still holds the buffer when Python ends aborts the
        # process (apache/arrow#34314), one time in a hundred on a busy machine.
        table = file.read(columns=["image", "label"], use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{part} is not a whole Parquet file ({error})") from None
    _check_metadata(part, schema.metadata or {}, document)
    for column in table.column_names:
        if table.column(column).null_count:
            raise ValueError(f"{part}: column {column} has rows without a value")
    values = np.ascontiguousarray(table.column("label").to_numpy())
    _check_labels(part, values, len(document.labels))
    flat = pixels_of(table.column("image"), pixels)
    return Split(flat.reshape(-1, *document.image_shape), values)


def _names(name: str, labels: Sequence[str]) -> dict[str, str]:
    """The names as they are kept in the Parquet files too, where hashes protect them."""
    return {"lenet.name": name, "lenet.labels": json.dumps(list(labels))}


def _check_metadata(part: str, metadata: dict[bytes, bytes], document: Document) -> None:
    for key, value in _names(document.name, document.labels).items():
        kept = metadata.get(key.encode(), value.encode())
        if kept != value.encode():
            field = key.removeprefix("lenet.")
            raise ValueError(f"{DOCUMENT}: {field} is not what {part} says, {shown(kept)}")


def pixels_of(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """The values of a column of images of that size, one after the other."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * size :][: len(chunk) * size]
        for chunk in column.chunks
        if len(chunk)
    ]
    # Of many pictures a copy would take gigabytes.
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
