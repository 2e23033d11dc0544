"""The document of a data set kept as Parquet: what it is, and which bytes belong to it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from job.data.files import ImageShape, check_image_shape, check_validation_rows

# 1, and 2 where rows are divided in another way than by the last fifth: earlier versions, which
# would not do that, refuse it.
FORMATS = (1, 2)
DOCUMENT = "dataset.json"
PARTS = ("train.parquet", "test.parquet")
MAX_LABELS = 256
MAX_DOCUMENT_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 31
# Their pixels take 1.6 GB of every worker's memory; larger images, fewer rows.
MAX_ROWS = 2_000_000
MAX_PIXELS = MAX_ROWS * 28 * 28
# What a document without `shape` means.
GRAY = (28, 28, 1)


class FileEntry(NamedTuple):
    """What `dataset.json` says about a file."""

    size: int
    sha256: str
    rows: int


class Document(NamedTuple):
    """What `dataset.json` says."""

    name: str
    labels: tuple[str, ...]
    files: dict[str, FileEntry]
    image_shape: ImageShape = GRAY
    validation_rows: int | None = None

    def to_json(self) -> bytes:
        """The file's bytes; `shape` is left out for gray images of 28×28."""
        document = {
            "format": FORMATS[self.validation_rows is not None],
            "name": self.name,
            "labels": self.labels,
            **({} if self.image_shape == GRAY else {"shape": self.image_shape}),
            **({} if self.validation_rows is None else {"validation": self.validation_rows}),
            "files": {part: entry._asdict() for part, entry in self.files.items()},
        }
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def parse(content: bytes) -> Document:
    """Raises ValueError, naming the field, for anything but a whole `dataset.json`."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{DOCUMENT} is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError(f"{DOCUMENT} is not a JSON object")
    number, name, labels = (document.get(k) for k in ("format", "name", "labels"))
    if type(number) is not int or number not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise ValueError(f"{DOCUMENT}: format is {shown(number)}; this version reads {known}")
    files = document.get("files")
    if not isinstance(files, dict):
        raise ValueError(f"{DOCUMENT}: files is {shown(files)}, not an object")
    try:
        name, labels = check_names(name, labels)
        image_shape = check_image_shape(document.get("shape", GRAY))
        entries = {part: _entry(part, files.get(part)) for part in PARTS}
        for part, entry in entries.items():
            if entry.rows * prod(image_shape) > MAX_PIXELS:
                raise ValueError(f"{part} has {entry.rows:,} rows of {prod(image_shape):,} values")
        validation_rows = document.get("validation")
        check_validation_rows(validation_rows, entries[PARTS[0]].rows)
        if (number == 1) != (validation_rows is None):
            raise ValueError(f"format is {number}, validation is {shown(validation_rows)}")
    except ValueError as error:
        raise ValueError(f"{DOCUMENT}: {error}") from None
    return Document(name, labels, entries, image_shape, validation_rows)


def _entry(part: str, value: Any) -> FileEntry:
    if not isinstance(value, dict):
        raise ValueError(f"files has no {part}")
    # Anything, until it is checked.
    given: list[Any] = [value.get(key) for key in FileEntry._fields]
    entry = FileEntry(*given)
    for key, most in (("size", MAX_FILE_BYTES), ("rows", MAX_ROWS)):
        number = getattr(entry, key)
        if type(number) is not int or not 0 <= number <= most:
            raise ValueError(f"{key} of {part} is {shown(number)}, not a number up to {most:,}")
    if not isinstance(entry.sha256, str) or not re.fullmatch("[0-9a-f]{64}", entry.sha256):
        raise ValueError(f"sha256 of {part} is {shown(entry.sha256)}, not 64 hexadecimal digits")
    return entry


def check_names(name: Any, labels: Any) -> tuple[str, tuple[str, ...]]:
    """Raises ValueError for a name or label names that can't be used, and gives others back."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(f"name is {shown(name)}; use 1 to 100 letters, digits, '.', '_' or '-'")
    if not isinstance(labels, Sequence) or isinstance(labels, str):
        raise ValueError(f"labels is {shown(labels)}, not a list of names")
    if not 2 <= len(labels) <= MAX_LABELS:
        raise ValueError(f"labels has {len(labels):,} names; 2 to {MAX_LABELS} can be told apart")
    for label in labels:
        if not isinstance(label, str) or not 0 < len(label) <= 100 or not label.isprintable():
            raise ValueError(f"labels holds {shown(label)}, not 1 to 100 printable characters")
    if len(set(labels)) < len(labels):
        raise ValueError("labels holds a name twice")
    return name, tuple(labels)


def shown(value: Any) -> str:
    """A value from outside, cut to a length that leaves one line."""
    return f"{value!r:.60}"
