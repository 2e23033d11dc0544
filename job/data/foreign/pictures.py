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

    _check_none_empty(storage, paths)

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


def _check_none_empty(storage: Storage, paths: Sequence[str]) -> None:
    """Raises ValueError for a folder beside those of the classes that holds no picture."""
    classes = {PurePosixPath(path).parent for path in paths}
    for above in {folder.parent for folder in classes}:
        here = storage if above == PurePosixPath() else storage.at(str(above))
        for name in here.list():
            holds = any((above / name) in (folder, *folder.parents) for folder in classes)
            if not holds and "." not in name:
                raise ValueError(f"{above / name} holds no picture")


PICTURES = Format("folders of pictures", _takes, _read)
