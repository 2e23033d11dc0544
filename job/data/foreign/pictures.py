"""A folder of PNG or JPEG pictures for each class; above, if at all, `train`, `val` and `test`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np

from job.data.foreign.rows import MOST_BYTES, Format, Parts, Rows, decoded, part_of, stacked
from job.storage.base import Storage

ENDINGS = (".png", ".jpg", ".jpeg")


def _takes(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path.lower().endswith(ENDINGS) and "/" in path]


def _read(storage: Storage, paths: Sequence[str], size: tuple[int, int] | None) -> Parts:
    pictures: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(paths):
        *above, label, _ = PurePosixPath(path).parts
        pictures.setdefault(part_of("/".join(above)), []).append((path, label))

    def picture(path: str) -> np.ndarray:
        try:
            return decoded(storage.read(path, limit=MOST_BYTES), size)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None

    return {
        part: Rows(
            stacked((path, picture(path)) for path, _ in found),
            np.array([label for _, label in found]),
        )
        for part, found in pictures.items()
    }


PICTURES = Format("folders of pictures", _takes, _read)
