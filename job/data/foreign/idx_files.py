"""IDX files of any count and any labels: EMNIST, KMNIST, QMNIST and their like, also gzipped."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from job.data.foreign.rows import MOST_BYTES, Format, Parts, Rows, part_of, resized
from job.storage.base import Storage


def _takes(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if "idx3-ubyte" in path or "idx1-ubyte" in path]


def _read(storage: Storage, paths: Sequence[str], size: tuple[int, int] | None) -> Parts:
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted(paths):
        kind = "images" if "idx3" in path else "labels"
        arrays.setdefault(part_of(path), {})[kind] = _array(
            path, storage.read(path, limit=MOST_BYTES), 3 if kind == "images" else 1
        )
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


def _array(path: str, content: bytes, axes: int) -> np.ndarray:
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is no whole gzip file ({error})") from None
    if content[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(f"{path} is no IDX file of unsigned bytes with {axes} axes")
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if len(values) != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} has {len(values):,} bytes for an array of shape {shape}")
    return values.reshape(shape)


IDX = Format("IDX files", _takes, _read)
