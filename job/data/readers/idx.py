"""The four files of MNIST's form, IDX, plain or `.gz`, and Keras' `mnist.npz`, read strictly.

Sizes are capped, pickles are refused, and nothing is returned that is not as published.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np

from job.data.files import Contents, DataFile, ImageShape, Split, checked, idx_header

TEST_FILES = 2


def read_capped(stream: io.BufferedIOBase | IO[bytes], limit: int) -> bytes:
    """Reads a whole stream of at most `limit` bytes, so that a bomb can't fill the memory.

    Raises:
        ValueError: There is more.
    """
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"holds more than the expected {limit:,} bytes")
    return content


def gunzip(compressed: bytes, limit: int) -> bytes:
    """Decompresses at most `limit` bytes. Raises ValueError for anything else."""
    try:
        return read_capped(gzip.GzipFile(fileobj=io.BytesIO(compressed)), limit)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"is not a whole gzip file ({error})") from None


def read_npz(path: Path, files: Sequence[DataFile]) -> Contents:
    """Reads Keras' `mnist.npz` as the four IDX files it was made from.

    Returns:
        IDX content by file name, not yet checked against the hashes.

    Raises:
        ValueError: Not such an archive; pickled objects and oversized members are refused unread.
    """
    keys = ("x_train", "y_train", "x_test", "y_test")
    contents = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for key, file in zip(keys, files, strict=True):
                with archive.open(f"{key}.npy") as member:
                    # Labels may be int64; a header is a few hundred bytes at most.
                    raw = io.BytesIO(read_capped(member, 8 * file.size + 1000))
                contents[file.name] = _npy_to_idx(raw, file)
    except (
        *(zipfile.BadZipFile, zlib.error, KeyError, OSError, EOFError),
        # An encrypted member, or a method of compression that Python does not know.
        *(RuntimeError, NotImplementedError),
    ) as error:
        raise ValueError(f"is not a mnist.npz archive ({error})") from None
    return contents


def _npy_to_idx(raw: io.BytesIO, file: DataFile) -> bytes:
    """An array in NumPy's format as IDX. The header is checked before anything is allocated."""
    version = np.lib.format.read_magic(raw)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
    if read is None:
        raise ValueError(f"{file.name}: .npy version {version} is not what Keras writes")
    shape, _, dtype = read(raw)
    if dtype.hasobject or dtype.kind not in "ui":
        raise ValueError(f"{file.name}: holds {dtype}, not whole numbers (pickles are never read)")
    if shape != file.shape:
        raise ValueError(f"{file.name}: holds an array of shape {shape}, expected {file.shape}")
    raw.seek(0)
    array = np.load(raw, allow_pickle=False)
    return idx_header(shape) + array.astype(np.uint8).tobytes()


def read(folder: Path, name: str, files: Sequence[DataFile]) -> Contents:
    """As `Reader.read`: IDX files, plain or `.gz`, or an npz archive of the data set's name."""
    npz = folder / f"{name}.npz"
    if npz.exists():
        try:
            contents = read_npz(npz, files)
        except ValueError as error:
            raise ValueError(f"{npz}: {error}") from None
        return checked(contents, files, npz)
    contents = {}
    for file in files:
        path = _find(folder, file.name)
        with path.open("rb") as stream:
            try:
                # One byte over the size is enough to see that a file is too long.
                raw = stream.read(file.size + 1)
                contents[file.name] = gunzip(raw, file.size) if path.suffix == ".gz" else raw
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        checked(contents, [file], path)
    return contents


def decode(contents: Contents, files: Sequence[DataFile]) -> Split:
    """As `Reader.decode`."""
    images, labels = (
        np.frombuffer(contents[file.name], np.uint8, offset=len(file.header)) for file in files
    )
    shape = (len(labels), *image_shape(files))
    return Split(images.reshape(shape), labels.astype(np.int32))


def encode(rows: Split, files: Sequence[DataFile]) -> Contents:
    """As `Reader.encode`; the arrays' own shapes are in the headers."""
    images = rows.images[..., 0] if rows.images.shape[-1] == 1 else rows.images
    arrays = (np.ascontiguousarray(images), rows.labels.astype(np.uint8))
    return {
        file.name: b"".join([idx_header(array.shape), array.data])
        for file, array in zip(files, arrays, strict=True)
    }


def image_shape(files: Sequence[DataFile]) -> ImageShape:
    """As `Reader.image_shape`."""
    # `Dataset.from_dict` lets no set of other shapes through.
    return cast(ImageShape, (*files[0].shape[1:], 1)[:3])


def by_hand(files: Sequence[DataFile]) -> str:
    """As `Reader.by_hand`."""
    return f"{', '.join(file.name for file in files)} (plain or .gz)"


def files_of(
    *hashes: str,
    train: int = 60_000,
    test: int = 10_000,
    image_shape: ImageShape = (28, 28, 1),
) -> tuple[DataFile, ...]:
    """The four files of a data set by their SHA-256, as MNIST names them, with their rows."""
    image = image_shape if image_shape[2] > 1 else image_shape[:2]
    shapes = ((train, *image), (train,), (test, *image), (test,))
    names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images", "labels")]
    return tuple(
        DataFile(f"{name}-idx{len(shape)}-ubyte", sha256, shape)
        for name, sha256, shape in zip(names, hashes, shapes, strict=True)
    )


def _find(folder: Path, name: str) -> Path:
    # Some mirrors write `train-images.idx3-ubyte`.
    dotted = name.replace("-idx", ".idx")
    for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise FileNotFoundError(f"{folder} has no {name} (also tried .gz and {dotted})")
