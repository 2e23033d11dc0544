"""The data sets: a catalogue with pinned hashes, strict readers, and the three splits.

Content is identified by the SHA-256 of the uncompressed IDX files, so every way to get a data set
(folder, cache, mirror, package, Keras' npz) is held to the same bytes.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from job.errors import InputError


class IdxFile(NamedTuple):
    """One published IDX file: its name, SHA-256 and the shape of its uint8 array."""

    name: str
    sha256: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the uncompressed file: magic, one big-endian uint32 per axis, the values."""
        return len(idx_header(self.shape)) + int(np.prod(self.shape))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """What there is to know about a data set without its bytes: an entry of the catalogue, or a
    user's own set."""

    name: str
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    labels: tuple[str, ...]
    is_digits: bool

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "files": [file._asdict() for file in self.files]}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Dataset:
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
        fields = {k: document[k] for k in ("name", "labels", "is_digits")}
        if not all(isinstance(label, str) for label in fields["labels"]):
            raise ValueError("labels are not names")
        files = [IdxFile(f["name"], f["sha256"], tuple(f["shape"])) for f in document["files"]]
        if len(files) != 4:
            raise ValueError("there are not four files")
        return cls(**{**fields, "labels": tuple(fields["labels"])}, files=tuple(files))


def idx_files(*hashes: str, train: int = 60_000, test: int = 10_000) -> tuple[IdxFile, ...]:
    """The four files of a data set by their SHA-256, as MNIST names them, with their rows."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    shapes = ((train, 28, 28), (train,), (test, 28, 28), (test,))
    return tuple(IdxFile(f"{n}-ubyte", h, s) for n, h, s in zip(names, hashes, shapes, strict=True))


CATALOGUE = {
    "mnist": Dataset(
        name="mnist",
        files=idx_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        labels=tuple("0123456789"),
        is_digits=True,
    ),
    "fashion-mnist": Dataset(
        name="fashion-mnist",
        files=idx_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        labels=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        is_digits=False,
    ),
}


class Split(NamedTuple):
    """Examples: `images` uint8 (n, 28, 28, 1), `labels` int32 (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def idx_header(shape: tuple[int, ...]) -> bytes:
    """The IDX header of a uint8 array (format: LeCun's MNIST page)."""
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


def check_file(file: IdxFile, content: bytes) -> None:
    """Raises ValueError, saying how the content differs from the published file."""
    header = idx_header(file.shape)
    if len(content) < len(header) or content[:4] != header[:4]:
        raise ValueError("not an IDX file of unsigned bytes with the expected number of axes")
    axes = len(file.shape)
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    if shape != file.shape:
        raise ValueError(f"holds an array of shape {shape}, expected {file.shape}")
    if len(content) != file.size:
        raise ValueError(f"has {len(content):,} bytes, expected {file.size:,}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise ValueError(f"SHA-256 is {digest[:16]}…, expected {file.sha256[:16]}…")


def read_capped(stream: io.BufferedIOBase, limit: int) -> bytes:
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


def _npy_to_idx(raw: io.BytesIO, file: IdxFile) -> bytes:
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
    """Reads and checks the data set in a folder: IDX files, plain or `.gz`, or `mnist.npz`.

    Returns:
        Verified IDX content by file name.

    Raises:
        FileNotFoundError: A file is missing; the message names it.
        ValueError: A file is not the published one; the message names it and says how.
    """
    npz = folder / f"{dataset.name}.npz"
    if npz.exists():
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


def to_split(images: bytes, labels: bytes, shape: tuple[int, ...]) -> Split:
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(shape[0], 28, 28, 1)
    return Split(pixels, np.frombuffer(labels, np.uint8, offset=8).astype(np.int32))


def training_splits(
    contents: dict[str, bytes], dataset: Dataset, limit_train: int | None = None
) -> tuple[Split, Split]:
    """Training and validation examples.

    Validation is the last fifth of the training rows, which is what Keras' `validation_split=0.2`
    takes: 12,000 of 60,000.

    Args:
        contents: IDX content by file name.
        dataset: What they hold.
        limit_train: Keep only the first rows of the training part.

    Raises:
        InputError: `limit_train` is more than there is.
    """
    images, labels = dataset.files[:2]
    rows = to_split(contents[images.name], contents[labels.name], images.shape)
    count = len(rows) * 4 // 5
    if limit_train is not None and limit_train > count:
        raise InputError("--limit-train", limit_train, f"there are {count:,} training rows")
    kept = limit_train or count
    return (
        Split(rows.images[:kept], rows.labels[:kept]),
        Split(rows.images[count:], rows.labels[count:]),
    )


def test_split(contents: dict[str, bytes], dataset: Dataset) -> Split:
    """The test examples; a training run reads them once, when it has finished."""
    images, labels = dataset.files[2:]
    return to_split(contents[images.name], contents[labels.name], images.shape)


# pytest collects functions named test_* in modules it imports from.
test_split.__test__ = False
