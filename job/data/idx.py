"""Reads the files of data sets from a folder, strictly: sizes are capped, pickles are refused, and
nothing is returned that is not as published."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from job.data import cifar
from job.data.catalogue import DataFile, Dataset, check_file, idx_header


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


def read_npz(path: Path, dataset: Dataset) -> dict[str, bytes]:
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
            for key, file in zip(keys, dataset.files, strict=True):
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


def read_folder(folder: Path, dataset: Dataset) -> dict[str, bytes]:
    """Reads and checks the data set in a folder: IDX files, plain or `.gz`, or `mnist.npz`; of
    CIFAR-10 what `cifar.read` takes.

    Returns:
        Verified content by file name.

    Raises:
        FileNotFoundError: A file is missing; the message names it.
        ValueError: A file is not the published one; the message names it and says how.
    """
    npz = folder / f"{dataset.name}.npz"
    if dataset.files[0].is_batch:
        where = {file.name: folder for file in dataset.files}
        contents = cifar.read(folder, {file.name: file.size for file in dataset.files})
    elif npz.exists():
        where = {file.name: npz for file in dataset.files}
        try:
            contents = read_npz(npz, dataset)
        except ValueError as error:
            raise ValueError(f"{npz}: {error}") from None
    else:
        where, contents = {}, {}
        for file in dataset.files:
            path = _find(folder, file.name)
            where[file.name] = path
            with path.open("rb") as stream:
                try:
                    # One byte over the size is enough to see that a file is too long.
                    raw = stream.read(file.size + 1)
                    contents[file.name] = gunzip(raw, file.size) if path.suffix == ".gz" else raw
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from None
    for file in dataset.files:
        try:
            check_file(file, contents[file.name])
        except ValueError as error:
            raise ValueError(f"{where[file.name]}: {file.name} {error}") from None
    return contents


def _find(folder: Path, name: str) -> Path:
    # Some mirrors write `train-images.idx3-ubyte`.
    dotted = name.replace("-idx", ".idx")
    for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise FileNotFoundError(f"{folder} has no {name} (also tried .gz and {dotted})")
