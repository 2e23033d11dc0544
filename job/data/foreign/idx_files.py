"""IDX files of any count and any labels: EMNIST, KMNIST, QMNIST and their like, also gzipped."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from job.data.foreign.rows import MOST_BYTES, Format, Parts, Rows, part_of, resized
from job.storage.base import Storage

# By what stands in a file's name: what it holds, and its header.
KINDS = {
    "idx3-ubyte": ("images", bytes([0, 0, 8, 3])),
    "idx1-ubyte": ("labels", bytes([0, 0, 8, 1])),
    # QMNIST's: the label, and seven numbers about the writer (Yadav and Bottou, 2019).
    "idx2-int": ("labels", bytes([0, 0, 12, 2])),
}


def _takes(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if any(name in path for name in KINDS)]


def _read(storage: Storage, paths: Sequence[str], size: tuple[int, int] | None) -> Parts:
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted(paths):
        kind, header = next(found for name, found in KINDS.items() if name in path)
        part = part_of(path)
        if kind in arrays.setdefault(part, {}):
            raise ValueError(
                f"{path} is not the only file with {kind} of the {part} part; name a folder with "
                "one set"
            )
        arrays[part][kind] = _array(path, storage.read(path, limit=MOST_BYTES), header)
    # Its files are the only ones that lie on their side (Cohen et al., "EMNIST", 2017).
    is_turned = any("emnist" in path.lower() for path in paths)
    parts = {}
    for part, found in arrays.items():
        if found.keys() != {"images", "labels"} or len(found["images"]) != len(found["labels"]):
            raise ValueError(f"the {part} part needs images and as many labels")
        images = found["images"].swapaxes(1, 2) if is_turned else found["images"]
        images = images[..., None]
        if size is not None:
            images = np.stack([resized(image, size) for image in images])
        parts[part] = Rows(np.ascontiguousarray(images), found["labels"])
    return parts


def _array(path: str, content: bytes, header: bytes) -> np.ndarray:
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(content)) as stream:
                content = stream.read(MOST_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is no whole gzip file ({error})") from None
    kind, axes = np.dtype(np.uint8 if header[2] == 8 else ">i4"), header[3]
    if content[:4] != header:
        raise ValueError(f"{path} is no IDX file of {kind.name} with {axes} axes")
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    size = len(content) - 4 - 4 * axes
    if size != np.prod(shape, dtype=np.int64) * kind.itemsize:
        raise ValueError(f"{path} has {size:,} bytes for an array of shape {shape}")
    values = np.frombuffer(content, kind, offset=4 + 4 * axes).reshape(shape)
    return values[:, 0].astype(np.int64) if axes == 2 else values


IDX = Format("IDX files", _takes, _read)
