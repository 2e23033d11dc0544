"""What every kind of file comes to."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from job.storage.base import Storage

# More than a data set of 4,000,000 small pictures has.
MOST_BYTES = 8 * 1024**3
MOST_PIXELS = 50_000_000


class Rows(NamedTuple):
    """Examples as they were found.

    Attributes:
        images: uint8 (n, height, width, channels).
        labels: Of each, a name or a whole number, (n,).
        names: Of the labels, which are numbers from 0 then; none where the files have none.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = ()


# By part: `train`, `val` or `test`.
Parts = dict[str, Rows]


class Format(NamedTuple):
    """A kind of files.

    Attributes:
        title: What it is, in messages.
        takes: Which of these paths are of it.
        read: Reads them, each picture brought to a size (height, width) if one is given. Raises
            ValueError, naming file and row.
    """

    title: str
    takes: Callable[[Iterable[str]], list[str]]
    read: Callable[[Storage, Sequence[str], tuple[int, int] | None], Parts]


def part_of(path: str) -> str:
    """The part that a file or folder belongs to, by its name; `train` where it names none."""
    words = path.lower().replace("-", "_").replace(".", "_").replace("/", "_").split("_")
    for part, names in {"test": {"test", "t10k"}, "val": {"val", "valid", "validation"}}.items():
        if names & set(words):
            return part
    return "train"


def decoded(
    content: bytes, size: tuple[int, int] | None, channels: int | None = None
) -> np.ndarray:
    """A picture, uint8 (height, width, 1 or 3); what is transparent becomes white.

    Args:
        content: PNG or JPEG. Of 16 bits a pixel the upper 8 are taken.
        size: Height and width to bring it to.
        channels: How many it is to have; by default one if it is grey.

    Raises:
        ValueError: It is no such picture.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"has more than {MOST_PIXELS:,} pixels")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                # Pillow would clip them to 8 bits.
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            is_grey = channels == 1 or (channels is None and upright.mode in ("1", "L", "LA"))
            if upright.has_transparency_data:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            plain = upright.convert("L" if is_grey else "RGB")
            return resized(np.asarray(plain).reshape(plain.height, plain.width, -1), size)
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("is not a whole PNG or JPEG image") from error


def resized(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """A picture (height, width, channels) of another size, (height, width); itself for None."""
    if size is None or image.shape[:2] == size:
        return image
    height, width = size
    flat = image[..., 0] if image.shape[2] == 1 else image
    scaled = Image.fromarray(flat).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(scaled).reshape(height, width, -1)


def stacked(images: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
    """Pictures, each with what to call it, as one array.

    Raises ValueError, naming it, for the first that differs in size or channels from the others.
    """
    found: list[np.ndarray] = []
    for name, image in images:
        if found and image.shape != found[0].shape:
            here, there = (" × ".join(map(str, one.shape)) for one in (image, found[0]))
            hint = (
                "" if image.shape[2] != found[0].shape[2] else "; --image-size N makes them equal"
            )
            raise ValueError(
                f"{name} is {here} (height, width, channels), others are {there}{hint}"
            )
        found.append(image)
    return np.stack(found)
