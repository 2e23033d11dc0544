"""A data set of ours from what people have: recognised, checked, divided and put into order.

What trains and what validates is decided here, once: a validation part is kept as it is, else a
share of each label is set aside.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from job.config.config import TrainConfig
from job.config.fields import height_width
from job.data.files import Split, check_image_shape
from job.data.foreign.arrays import ARRAYS
from job.data.foreign.idx_files import IDX
from job.data.foreign.pictures import PICTURES
from job.data.foreign.rows import Format, Parts, Rows
from job.data.foreign.tables import CSV, PARQUET
from job.data.readers.dataset_json import DOCUMENT
from job.errors import InputError
from job.storage.base import Storage, StoreError
from job.storage.open import open_storage

FORMATS = (PICTURES, ARRAYS, IDX, CSV, PARQUET)
# Files at which a short look looks.
LOOK = 2000
MOST_LABELS = 256
# Where there is no test part, a sixth is set aside: MNIST's share.
TEST_SHARE = 6
VALIDATION, TEST = 1, 2


class Converted(NamedTuple):
    """A data set: its label names, both parts, and what was found and done, in a line."""

    labels: tuple[str, ...]
    train: Split
    test: Split
    description: str
    validation_rows: int | None = None


class Conversion(NamedTuple):
    """What may be asked for where a data set is made.

    Attributes:
        size: Height and width to bring each picture to; None leaves them as they are.
        validation: Share of each label's training rows that validates; None for a fifth, or for the
            part that is there.
    """

    size: tuple[int, int] | None = None
    validation: float | None = None

    @classmethod
    def of(cls, config: TrainConfig) -> Conversion:
        """As a run's settings ask."""
        return cls(height_width(config.image_size), config.validation)


AS_IT_IS = Conversion()


def recognise(place: str) -> Format | None:
    """The kind of files of which `convert` makes a data set, by a short look at names.

    None for no such, for a data set of ours, and for a place that can't be read.
    """
    if "://" in place:
        try:
            found = _found(place)
        except (OSError, StoreError, InputError):
            # Whoever reads it says so.
            return None
        return found and found[2]
    folder = Path(place)
    look = [folder] if folder.is_file() else itertools.islice(folder.rglob("*"), LOOK)
    return _kind_of([path.relative_to(folder.parent).as_posix() for path in look])


def convert(place: str, asked: Conversion = AS_IT_IS) -> Converted:
    """Reads what people have.

    Args:
        place: A file or a folder, or `s3://BUCKET/PREFIX`.
        asked: What is to be done with it.

    Raises:
        InputError: There is nothing of a known kind, or something in it is unusable; the message
            names file and row.
    """
    try:
        found = _found(place)
        if found is None:
            kinds = ", ".join(kind.title for kind in FORMATS)
            raise ValueError(f"holds nothing that can be read: {kinds}")
        storage, paths, kind = found
        return _arranged(kind.title, kind.read(storage, paths, asked.size), asked.validation)
    except (OSError, ValueError, StoreError) as error:
        raise InputError("--data", place, " ".join(str(error).split())) from error


def _found(place: str) -> tuple[Storage, list[str], Format] | None:
    is_file = place.lower().endswith((".npz", ".csv", ".parquet"))
    root = place.rpartition("/")[0] or "." if is_file else place
    storage = open_storage(root)
    paths = [PurePosixPath(place).name] if is_file else sorted(storage.files())
    kind = _kind_of(paths)
    return None if kind is None else (storage, kind.takes(paths), kind)


def _kind_of(paths: Sequence[str]) -> Format | None:
    if any(PurePosixPath(path).name == DOCUMENT for path in paths):
        return None
    # A table beside pictures, or a picture beside tables, does not make it another set.
    kind = max(FORMATS, key=lambda kind: len(kind.takes(paths)))
    return kind if kind.takes(paths) else None


def _arranged(title: str, parts: Parts, share: float | None) -> Converted:
    if "train" not in parts:
        raise ValueError(f"has only a {next(iter(parts))} part")
    notes = []
    classes = _classes(parts)
    rows = {part: Split(found.images, _codes(found, classes)) for part, found in parts.items()}
    names = tuple(map(str, classes))
    check_image_shape(_shape_of(rows))
    if [str(i) for i in range(len(names))] != list(names) and names[0].lstrip("-").isdigit():
        notes.append(f"labels {names[0]}…{names[-1]} → 0…{len(names) - 1}")
    train, validation, test = rows["train"], rows.get("val"), rows.get("test")
    if test is None:
        train, test = _divided(train, names, len(train) // TEST_SHARE, TEST)
        notes.append("no test part: a sixth of each label is set aside for it")
    if validation is None:
        count = round(len(train) * share) if share else len(train) - len(train) * 4 // 5
        train, validation = _divided(train, names, count, VALIDATION)
        part = f"{share:.4g}" if share else "a fifth"
        notes.append(f"no validation part: {part} of each label is set aside for it")
    elif share is not None:
        raise ValueError("has a validation part, which is kept; leave --validation out")
    else:
        for part in ("train", "val"):
            _check_none_missing(part, rows[part].labels, names)
        train = _taken(train, shuffled(len(train), VALIDATION))
        notes.append(f"its validation part of {len(validation):,} rows is kept")
    train = _joined(train, validation)
    is_usual = len(validation) == len(train) - len(train) * 4 // 5
    counts = np.bincount(train.labels, minlength=len(names))
    said = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True)]
    shown = ", ".join(said[:12]) + (f", … ({len(names)} labels)" if len(names) > 12 else "")
    shape = " × ".join(map(str, train.images.shape[1:]))
    description = (
        f"{title}: {len(train):,} training rows ({shown}), {len(test):,} test rows, {shape}"
    )
    whole = "; ".join([description, *notes])
    return Converted(names, train, test, whole, None if is_usual else len(validation))


def _divided(rows: Split, names: Sequence[str], count: int, stream: int) -> tuple[Split, Split]:
    kept, aside = set_aside(rows.labels, names, count, stream)
    return _taken(rows, kept), _taken(rows, aside)


def shuffled(count: int, stream: int) -> np.ndarray:
    """The numbers below `count` in a random order, a function of both arguments."""
    # Raw Philox output stays the same between NumPy versions (NEP 19).
    return np.argsort(np.random.Philox(key=[stream, count]).random_raw(count))


def _check_none_missing(part: str, labels: np.ndarray, names: Sequence[str]) -> None:
    missing = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(missing):
        raise ValueError(f"label {names[missing[0]]!r} has no row in the {part} part")


def _shape_of(rows: dict[str, Split]) -> list[int]:
    shapes = {split.images.shape[1:] for split in rows.values()}
    if len(shapes) > 1:
        raise ValueError(
            f"its parts have pictures of {len(shapes)} sizes; --image-size N makes them equal"
        )
    (shape,) = shapes
    return [int(number) for number in shape]


def _classes(parts: Parts) -> list[int] | list[str]:
    """The labels in their order, which is that of their names where the files have one."""
    (given, *others) = {found.names for found in parts.values()}
    if others:
        raise ValueError("names its labels otherwise in each part")
    if given:
        return list(given)
    values = [found.labels for found in parts.values()]
    are_names = any(labels.dtype.kind == "U" for labels in values)
    classes = np.unique(np.concatenate([v.astype(str) for v in values] if are_names else values))
    if not 2 <= len(classes) <= MOST_LABELS:
        raise ValueError(f"has {len(classes)} labels; give 2 to {MOST_LABELS}")
    return classes.tolist()


def _codes(rows: Rows, classes: Sequence[int] | Sequence[str]) -> np.ndarray:
    if rows.names:
        return rows.labels
    labels = rows.labels.astype(str) if isinstance(classes[0], str) else rows.labels
    return np.searchsorted(np.array(classes), labels)


def _joined(first: Split, second: Split) -> Split:
    return Split(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def _taken(rows: Split, where: np.ndarray) -> Split:
    return Split(rows.images[where], rows.labels[where])


def set_aside(
    labels: np.ndarray, names: Sequence[str], count: int, stream: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides rows in two parts that hold each label by its share, both in a random order.

    Args:
        labels: Of the rows, from 0, (n,).
        names: Of the labels, for messages.
        count: Rows of the second part.
        stream: Tells one division from another. Nothing else decides, but the number of rows.

    Returns:
        Indices of both parts.

    Raises:
        ValueError: A label has too few rows to be in both.
    """
    rows = np.bincount(labels, minlength=len(names))
    if rows.min() < 2:
        few = int(rows.argmin())
        raise ValueError(
            f"label {names[few]!r} has {rows[few]} training row(s); it needs two or more"
        )
    if count < len(names):
        raise ValueError(f"has too few rows for {len(names)} labels")
    shares = np.maximum(rows * count // len(labels), 1)
    while shares.sum() != count:
        # The label that lacks most of its share gets a row, or that with most beyond it gives one.
        behind = rows * count / len(labels) - shares
        is_short = shares.sum() < count
        movable = shares < rows - 1 if is_short else shares > 1
        best = np.where(movable, behind if is_short else -behind, -np.inf).argmax()
        shares[best] += 1 if is_short else -1
    order = shuffled(len(labels), stream)
    places = np.zeros(len(labels), np.int64)
    for label in range(len(names)):
        mine = labels[order] == label
        places[mine] = np.arange(mine.sum())
    is_aside = places < shares[labels[order]]
    return order[~is_aside], order[is_aside]
