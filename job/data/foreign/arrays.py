"""Arrays in a `.npz`, by the names that are in use: `x_train`, `y_train`, `train_images`."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Sequence

import numpy as np

from job.data.foreign.rows import MOST_BYTES, Format, Parts, Rows, part_of, resized
from job.storage.base import Storage

IMAGES = re.compile(r"(x|images?|data|imgs)$")
LABELS = re.compile(r"(y|labels?|targets?)$")


def _takes(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path.lower().endswith(".npz")]


def _read(storage: Storage, paths: Sequence[str], size: tuple[int, int] | None) -> Parts:
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in paths:
        content = io.BytesIO(storage.read(path, limit=MOST_BYTES))
        try:
            with zipfile.ZipFile(content) as members:
                if sum(member.file_size for member in members.infolist()) > MOST_BYTES:
                    raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
            # Without pickle nothing in it can run.
            with np.load(content, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no .npz of plain arrays ({error})") from None
        for name, array in arrays.items():
            words = [word for word in re.split(r"[_\W]+", name.lower()) if word]
            for kind, pattern in (("images", IMAGES), ("labels", LABELS)):
                if any(pattern.match(word) for word in words):
                    part = part_of(name if part_of(path) == "train" else path)
                    found.setdefault(part, {})[kind] = array
    parts = {part: _rows(part, arrays, size) for part, arrays in found.items()}
    if "train" not in parts:
        raise ValueError(f"{paths[0]} has no arrays called x_train and y_train, or alike")
    return parts


def _rows(part: str, arrays: dict[str, np.ndarray], size: tuple[int, int] | None) -> Rows:
    images, labels = arrays.get("images"), arrays.get("labels")
    if images is None or labels is None:
        raise ValueError(f"the {part} part lacks its {'images' if images is None else 'labels'}")
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"the images of the {part} part are {images.dtype} {images.shape}; give uint8 (rows, "
            "height, width) or (rows, height, width, channels)"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "uiU" or len(labels) != len(images):
        raise ValueError(
            f"the labels of the {part} part are {labels.dtype} {labels.shape}; give one whole "
            f"number or name for each of {len(images):,} images"
        )
    images = images.reshape(*images.shape[:3], -1)
    if size is not None and len(images):
        images = np.stack([resized(image, size) for image in images])
    return Rows(images, labels)


ARRAYS = Format("arrays in .npz", _takes, _read)
